//! Disks that leak, and of which something is given back on the way.

use std::path::PathBuf;

use super::super::forecast::{Trend, forecast};
use super::super::memory::Key;
use super::super::owners::Owners;
use super::*;
use crate::owner::Owner;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DISK: Device = Device { major: 8, minor: 1 };

fn at(span: i64) -> Timestamp {
    Timestamp::from_second(1_900_000_200 + span * LONG_SECONDS).unwrap()
}

fn given(span: i64, kind: Reclaimer, bytes: i64) -> Given {
    Given {
        at: at(span),
        device: DISK,
        kind,
        bytes,
    }
}

/// What was used at each span of two days: 12 MiB more each, and less from one on by what came back there.
fn seen(cleaned: Option<(i64, u64)>) -> Series {
    let mut series = Series::default();
    for span in 0..288 {
        let grown = 100 * GIB + u64::try_from(span).unwrap() * 12 * MIB;
        let back = cleaned.filter(|(from, _)| span >= *from);
        series.add(at(span), grown - back.map_or(0, |(_, bytes)| bytes));
    }
    series
}

const BYTES: What = What::All(Resource::Bytes);

// §4 (e), 5-11: 30 GiB that somebody gave back by hand change neither the rate nor the day on which the disk is full, and what a
// restart finds is told the same.
#[test]
fn what_others_cleaned_is_no_growth_and_no_shrinking() {
    let (quiet, cleaned) = (seen(None), seen(Some((200, 30 * GIB))));
    let by_hand = [given(200, Reclaimer::Apt, 30 << 30)];
    let told = without(&cleaned, BYTES, Some(DISK), &by_hand);
    let forecasts = [&quiet, &*told].map(|series| forecast(series, 4 * GIB).unwrap());
    assert_eq!(forecasts[0], forecasts[1]);
    assert!(forecasts[1].full_in.is_some());
    assert_ne!(
        forecast(&cleaned, 4 * GIB).unwrap(),
        forecasts[0],
        "unless it is known"
    );
    // Another disk, other resources, and what lies behind all that was seen.
    let other = Device { major: 8, minor: 2 };
    let same = |device, what, given: &[Given]| without(&quiet, what, device, given).into_owned();
    assert_eq!(same(Some(other), BYTES, &by_hand), quiet);
    assert_eq!(same(None, BYTES, &by_hand), quiet);
    assert_eq!(
        same(Some(DISK), What::All(Resource::Inodes), &by_hand),
        quiet
    );
    assert_eq!(
        same(Some(DISK), BYTES, &[given(0, Reclaimer::Apt, 1)]),
        quiet
    );
}

// What an image gave back is of two owners, and not told apart: both are seen anew from there on, and the others, and the disk
// itself, as if nothing had gone.
#[test]
fn owners_of_what_went_are_seen_without_it() {
    let point = PathBuf::from("/");
    let key = |what| Key {
        point: point.clone(),
        what,
    };
    let mut past = Past::new();
    for walk in 0..96_u64 {
        let span = i64::try_from(walk).unwrap() * 3;
        let is_behind = span > 200;
        let mut all = 0;
        let mut add = |owner, used: u64| {
            all += used;
            past.entry(key(What::Of(owner)))
                .or_default()
                .add(at(span), used);
        };
        add(Owner::KubeletEmptyDir, GIB + walk * 30 * MIB);
        add(Owner::AptArchives, if is_behind { 0 } else { 2 * GIB });
        let images = if is_behind { 10 * GIB } else { 40 * GIB };
        add(Owner::ContainerdSnapshots, images + walk * 6 * MIB);
        past.entry(key(What::AtWalks))
            .or_default()
            .add(at(span), all);
    }
    let given = [
        given(200, Reclaimer::Images, 30 << 30),
        given(200, Reclaimer::Apt, 2 << 30),
    ];
    let told = without_all(&past, |_| Some(DISK), &given);
    let owners = Owners::of(&told, &point);
    let first = owners.mostly(None).unwrap();
    assert_eq!(first.owner, Owner::KubeletEmptyDir);
    assert!(
        (first.share.unwrap() - 30.0 / 36.0).abs() < 0.01,
        "{first:?}"
    );
    let of = |owner| {
        owners
            .known()
            .iter()
            .find(|one| one.owner == owner)
            .unwrap()
    };
    assert_eq!(of(Owner::AptArchives).trend.per_hour(), [0, 0, 0]);
    let images: Trend = of(Owner::ContainerdSnapshots).trend;
    assert_eq!(images.per_hour(), [12 << 20; 3]);
    // As it was seen nobody can be named: the disk shrank.
    assert_eq!(Owners::of(&past, &point).mostly(None), None);
}

#[test]
fn what_lies_behind_history_or_ahead_of_a_clock_that_was_set_back_does_not_count() {
    let given = given(0, Reclaimer::Apt, 1);
    let counts = |span| given.counts(at(span));
    assert!(counts(0) && counts(432));
    assert!(!counts(433) && !counts(-1));
}
