//! Owners of made disks: three days of walks each half hour, with rates that are known.

use jiff::Timestamp;

use super::*;
use crate::daemon::history::Series;

const GIB: f64 = 1_073_741_824.0;
/// Walks of three days.
const WALKS: u32 = 144;
const POINT: &str = "/";

/// Owners and what each took at each walk, in GiB.
type Made = Vec<(Owner, Vec<f64>)>;

/// The same numbers for the same seed, between -1 and 1.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.0 >> 33).unwrap()) / f64::from(1_u32 << 30) - 1.0
    }
}

fn key(what: What) -> Key {
    Key {
        point: POINT.into(),
        what,
    }
}

/// The histories of a disk that holds these and nothing else; walks are so many minutes apart.
fn past(made: &Made, minutes: u32) -> Past {
    let bytes = |gib: f64| u64::try_from(super::super::forecast::rounded(gib * GIB)).unwrap();
    let mut past = Past::new();
    let walks = made.first().map_or(0, |(_, used)| used.len());
    for walk in 0..walks {
        let seconds = 1_900_000_200 + i64::try_from(walk).unwrap() * i64::from(minutes) * 60;
        let now = Timestamp::from_second(seconds).unwrap();
        let mut all = 0.0;
        for (owner, used) in made {
            let Some(used) = used.get(walk) else {
                continue;
            };
            all += used;
            let series: &mut Series = past.entry(key(What::Of(*owner))).or_default();
            series.add(now, bytes(*used));
        }
        let series = past.entry(key(What::AtWalks)).or_default();
        series.add(now, bytes(all));
    }
    past
}

/// A number of walks in days.
fn day(walk: u32) -> f64 {
    f64::from(walk) / 48.0
}

/// Snapshots grow by a leak with noise, pod logs grow and are rotated twice a day, the journal swings by day, the system rests.
fn node(leak: f64, chance: &mut Chance) -> Made {
    let walks = || 0..WALKS;
    let snapshots = walks().map(|walk| 40.0 + leak * day(walk) + 0.05 * chance.next());
    let snapshots = snapshots.collect();
    let logs = walks().map(|walk| 1.0 + 2.0 * (day(walk) * 2.0).fract() + 0.02 * chance.next());
    let logs = logs.collect();
    let journal =
        walks().map(|walk| 4.0 + 0.3 * day(walk) + 0.5 * (day(walk) * std::f64::consts::TAU).sin());
    vec![
        (Owner::ContainerdSnapshots, snapshots),
        (Owner::PodLogs, logs),
        (Owner::JournalArchived, journal.collect()),
        (Owner::System, walks().map(|_| 12.0).collect()),
    ]
}

// B-037, D-24: the owner that leaks is named, its rate lies in its interval and near the truth, with its share of the growth and
// the days until the disk is full by it alone; who swings or is rotated is not.
#[test]
fn the_owner_that_fills_a_disk_is_named_with_its_rate() {
    let (mut held, mut worst, mut of_days) = (0_u32, 0.0_f64, 0.0_f64);
    for seed in 1..=48 {
        let mut chance = Chance(seed);
        let leak = 2.0 + 1.5 * chance.next();
        let owners = Owners::of(&past(&node(leak, &mut chance), 30), Path::new(POINT));
        let first = owners
            .mostly(None)
            .unwrap_or_else(|| panic!("seed {seed}: {owners:?}"));
        assert_eq!(
            first.owner,
            Owner::ContainerdSnapshots,
            "seed {seed}: {owners:?}"
        );
        let per_day = |per_hour: f64| per_hour * 24.0 / GIB;
        let Trend { low, middle, high } = first.trend;
        held += u32::from((per_day(low)..=per_day(high)).contains(&leak));
        worst = worst.max((per_day(middle) - leak).abs() / leak);
        let share = first.share.unwrap();
        let truth = leak / (leak + 0.3);
        assert!(
            (share - truth).abs() < 0.15,
            "seed {seed}: {share} of {truth}"
        );
        let room = 100 << 30;
        let days = first.days_to(room).likely.unwrap();
        of_days = of_days.max((days - 100.0 / leak).abs() / (100.0 / leak));
        let rests = owners.known().iter().find(|one| one.owner == Owner::System);
        assert_eq!(rests.map(|one| one.trend.middle), Some(0.0));
    }
    println!(
        "the rate was in its interval on {held} of 48 disks, and off by at most {worst:.3}; days by {of_days:.3}"
    );
    assert!(held >= 39, "{held} of 48: an interval of eight in ten");
    assert!(worst < 0.1 && of_days < 0.1, "{worst} {of_days}");
}

// Nobody is named where nobody makes half of the growth, where the disk does not grow, or where too little was seen.
#[test]
fn nobody_is_named_without_a_reason() {
    let three = |walks: [f64; 3]| walks.to_vec();
    let mostly = |made: &Made| Owners::of(&past(made, 30), Path::new(POINT)).mostly(None);
    let equal: Made = vec![
        (Owner::Etcd, three([1.0, 2.0, 3.0])),
        (Owner::Docker, three([1.0, 2.0, 3.0])),
        (Owner::Home, three([1.0, 2.0, 3.0])),
    ];
    assert_eq!(mostly(&equal), None);
    let one = equal.into_iter().take(1).collect();
    assert_eq!(mostly(&one).map(|one| one.percent()), Some(Some(100)));
    let shrinks: Made = vec![
        (Owner::Etcd, three([1.0, 2.0, 3.0])),
        (Owner::Docker, three([9.0, 6.0, 3.0])),
    ];
    let owners = Owners::of(&past(&shrinks, 30), Path::new(POINT));
    assert_eq!(owners.mostly(None), None);
    assert_eq!(owners.known()[0].share, None);
    let twice: Made = vec![(Owner::Etcd, vec![1.0, 2.0])];
    let owners = Owners::of(&past(&twice, 30), Path::new(POINT));
    assert_eq!((owners.known(), owners.mostly(None)), (&[][..], None));
}

// 5-19: growth of days ago is nobody's growth now; and where walks are far apart that takes longer.
#[test]
fn what_was_looked_at_long_ago_tells_nothing_of_now() {
    let made: Made = vec![(Owner::Etcd, vec![1.0, 2.0, 3.0])];
    let often = Owners::of(&past(&made, 30), Path::new(POINT));
    let at = often.at().unwrap();
    assert_eq!(at.as_second(), 1_900_000_200 + 2 * 1800 + LONG_SECONDS);
    assert!(often.is_fresh(at + FRESH) && !often.is_fresh(at + FRESH + Duration::from_secs(1)));
    assert!(often.is_fresh(at - FRESH), "a clock that was set back");
    let seldom = Owners::of(&past(&made, 24 * 60), Path::new(POINT));
    let day = Duration::from_hours(24);
    let at = seldom.at().unwrap();
    assert!(seldom.is_fresh(at + day * 2) && !seldom.is_fresh(at + day * 3));
    assert!(!Owners::default().is_fresh(at));
}

// Others may shrink meanwhile: then an owner explains more than all of the growth. Who is not seen any more explains nothing.
#[test]
fn a_share_may_be_more_than_all_and_who_is_gone_has_none() {
    let made: Made = vec![
        (Owner::Etcd, vec![1.0, 3.0, 5.0, 7.0]),
        (Owner::Docker, vec![9.0, 8.0, 7.0, 6.0]),
        (Owner::Home, vec![1.0, 9.0, 17.0]),
    ];
    let mut past = past(&made, 30);
    // The disk without the one that was seen only until the third walk.
    let mut all = Series::default();
    for (walk, gib) in (0_i64..).zip([10_u64, 11, 12, 13]) {
        let now = Timestamp::from_second(1_900_000_200 + walk * 1800).unwrap();
        all.add(now, gib << 30);
    }
    past.insert(key(What::AtWalks), all);
    let owners = Owners::of(&past, Path::new(POINT));
    let known: Vec<Owner> = owners.known().iter().map(|one| one.owner).collect();
    assert_eq!(known, [Owner::Etcd, Owner::Docker]);
    assert_eq!(owners.known()[0].percent(), Some(200));
    assert_eq!(
        owners.known()[1].days_to(1 << 30).likely,
        None,
        "it shrinks"
    );
}

// What fills a disk since half an hour is told by the last hour, and not by the days before.
#[test]
fn a_runaway_is_not_laid_on_who_grew_before() {
    let fast = Forecast {
        trend: None,
        basis: Basis::Fast,
        full_in: None,
        earliest: None,
        latest: None,
        warns: true,
    };
    let leak: Vec<f64> = (0..WALKS).map(|walk| 10.0 + day(walk)).collect();
    let days: Made = vec![
        (Owner::JournalArchived, leak),
        (Owner::KubeletEmptyDir, vec![1.0; 144]),
    ];
    let by_days = Owners::of(&past(&days, 30), Path::new(POINT));
    let name = |growth: Option<Growth>| growth.map(|growth| growth.owner);
    assert_eq!(name(by_days.mostly(None)), Some(Owner::JournalArchived));
    assert_eq!(by_days.mostly(Some(&fast)), None, "not known yet");
    // 5-12: walks forty minutes apart, and behind the onset in a hurry: three of an hour show it, whatever was before.
    let mut past = past(&vec![(Owner::KubeletEmptyDir, vec![1.0; 4])], 40);
    let minute = 1_900_000_200 + 3 * 2400;
    for (minutes, gib) in [(10, 3_u64), (20, 5)] {
        let now = Timestamp::from_second(minute + minutes * 60).unwrap();
        for what in [What::Of(Owner::KubeletEmptyDir), What::AtWalks] {
            past.entry(key(what)).or_default().add(now, gib << 30);
        }
    }
    let hurried = Owners::of(&past, Path::new(POINT));
    assert_eq!(
        name(hurried.mostly(Some(&fast))),
        Some(Owner::KubeletEmptyDir)
    );
    let hour: Made = vec![
        (Owner::JournalArchived, vec![13.0; 4]),
        (Owner::KubeletEmptyDir, vec![1.0, 3.0, 5.0, 7.0]),
    ];
    let by_hour = Owners::of(&super::tests::past(&hour, 10), Path::new(POINT));
    assert_eq!(
        name(by_hour.mostly(Some(&fast))),
        Some(Owner::KubeletEmptyDir)
    );
}

// 5-20: what is followed is what a restart recalls, and bounded however many disks there are.
#[test]
fn every_disk_has_its_largest_owners_within_what_is_remembered() {
    let most = super::super::DISKS_MAX;
    for disks in 1..=most {
        let owners = owners_max(disks);
        assert!(disks * (3 + owners) <= SERIES_MAX, "{disks}");
        assert!(owners >= 5, "{disks}: {owners}");
    }
    assert_eq!((owners_max(0), owners_max(9)), (OWNERS_MAX, OWNERS_MAX));
}

// D-07: What is called Nagi's to free is looked for by a kind of cleaning, at that place and under that name.
#[test]
fn whatever_nagi_may_free_a_kind_of_cleaning_looks_for() {
    let files: [&[u8]; 4] = [
        b"x",
        b"0.log.20260102-030405",
        b"system@0123456789abcdef0123456789abcdef-0000000000000001-0000000000000002.journal",
        b"system.journal",
    ];
    let own = (
        format!("{}/0123", crate::owner_table::JOURNALS),
        Owner::JournalActive,
    );
    let mut seen = std::collections::BTreeSet::new();
    for (path, directory) in crate::marks::rules().chain([own]) {
        for owner in files.map(|name| directory.of_file(name)) {
            if owner.class() != crate::owner::Class::Nagi {
                continue;
            }
            let looks = |kind: &Reclaimer| {
                let is_below = |place: &&str| std::path::Path::new(&path).starts_with(place);
                owners_of(*kind).contains(&owner) && kind.places().iter().any(is_below)
            };
            assert!(Reclaimer::ALL.iter().any(looks), "{path}: {owner:?}");
            seen.insert(owner);
        }
    }
    let promised = Owner::all().filter(|owner| owner.class() == crate::owner::Class::Nagi);
    let promised: std::collections::BTreeSet<Owner> = promised.collect();
    assert_eq!(promised, seen, "each has a place");
}
