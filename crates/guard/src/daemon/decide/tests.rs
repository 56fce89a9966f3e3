//! What follows from what, over time.

use super::*;
use crate::daemon::forecast::Basis;
use crate::filesystem::Space;
use crate::mounts::Device;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const START: i64 = 1_900_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

fn rules() -> Rules {
    Rules {
        clean_at: Some(Level::Serious),
        calm_for: Duration::from_hours(1),
    }
}

/// A disk of 1,000 MiB of which so many are used, and no reserve.
fn disk(used: u64) -> Seen {
    let bytes = 1000 * MIB;
    let free = bytes - used * MIB;
    Seen {
        reading: Reading {
            point: "/".into(),
            name: Some("/"),
            device: Device { major: 8, minor: 1 },
            fstype: "ext4".into(),
            space: Space {
                bytes,
                bytes_free: free,
                bytes_available: free,
                inodes: 1000,
                inodes_free: 900,
            },
        },
        forecasts: [None, None],
        ballast: None,
        mostly: None,
    }
}

fn with_ballast(used: u64, held: u64) -> Seen {
    Seen {
        ballast: Some(BallastSeen {
            wanted: 50 * MIB,
            held: held * MIB,
            half: if held > 25 {
                held * MIB / 2
            } else {
                held * MIB
            },
        }),
        ..disk(used)
    }
}

fn until(hours: Option<u64>, warns: bool) -> Forecast {
    Forecast {
        trend: None,
        basis: Basis::Steady,
        full_in: hours.map(Duration::from_hours),
        earliest: None,
        latest: None,
        warns,
    }
}

fn filling(used: u64, hours: Option<u64>, warns: bool) -> Seen {
    Seen {
        forecasts: [Some(until(hours, warns)), None],
        ..disk(used)
    }
}

/// Goes through readings and gives what was done at each.
fn go(readings: &[(i64, Seen)]) -> Vec<Vec<Action>> {
    let mut state = State::default();
    let each = readings.iter().map(|(seconds, seen)| {
        let outcome = decide(
            &rules(),
            std::slice::from_ref(seen),
            &[],
            &state,
            at(*seconds),
        );
        state = outcome.next;
        outcome.actions
    });
    each.collect()
}

fn causes(actions: &[Action]) -> Vec<(Level, Cause)> {
    let told = actions.iter().filter_map(|action| match action {
        Action::Tell(alert) => Some((alert.level, alert.cause)),
        Action::Clean(_) | Action::ReleaseBallast(..) | Action::TakeBallast(..) => None,
    });
    told.collect()
}

// B-031, K-37, D-22: each level is told when it is reached and when it is left, once.
#[test]
fn a_level_is_told_when_it_changes_and_not_again() {
    let done = go(&[
        (0, disk(799)),
        (2, disk(800)),
        (4, disk(800)),
        (6, disk(851)),
        (8, disk(952)),
        (10, disk(952)),
        (12, disk(500)),
        (14, disk(500)),
    ]);
    let told: Vec<_> = done.iter().map(|actions| causes(actions)).collect();
    assert_eq!(told[0], []);
    assert_eq!(told[1], [(Level::Notice, Cause::Rose(Level::Calm))]);
    assert_eq!(told[2], []);
    assert_eq!(told[3], [(Level::Alert, Cause::Rose(Level::Notice))]);
    assert_eq!(told[4], [(Level::Critical, Cause::Rose(Level::Alert))]);
    assert_eq!(told[5], []);
    assert_eq!(told[6], [(Level::Calm, Cause::Fell(Level::Critical))]);
    assert_eq!(told[7], []);
}

// B-023: as long as 90 % are used it is said again each hour, and below that it is not.
#[test]
fn at_90_percent_it_is_said_again_each_hour() {
    let done = go(&[
        (0, disk(910)),
        (3599, disk(910)),
        (3600, disk(910)),
        (3602, disk(910)),
        (7200, disk(910)),
    ]);
    let told: Vec<usize> = done.iter().map(|actions| causes(actions).len()).collect();
    assert_eq!(told, [1, 0, 1, 0, 1]);
    let quiet = go(&[(0, disk(890)), (3600, disk(890)), (90_000, disk(890))]);
    let told: Vec<usize> = quiet.iter().map(|actions| causes(actions).len()).collect();
    assert_eq!(told, [1, 0, 0]);
}

// A clock that is set back for a year silences nothing for a year.
#[test]
fn a_clock_that_was_set_back_delays_by_an_hour_at_most() {
    let year = 365 * 24 * 3600;
    let done = go(&[(year, disk(910)), (0, disk(910)), (3600, disk(910))]);
    let told: Vec<usize> = done.iter().map(|actions| causes(actions).len()).collect();
    assert_eq!(told, [1, 0, 1]);
}

// D-22: inodes have levels of their own, with the same distances.
#[test]
fn inodes_are_told_beside_bytes() {
    let mut seen = disk(100);
    seen.reading.space.inodes_free = 40;
    let done = go(&[(0, seen)]);
    let Action::Tell(alert) = &done[0][0] else {
        unreachable!("{done:?}");
    };
    assert_eq!(
        (alert.resource, alert.level),
        (Resource::Inodes, Level::Critical)
    );
    assert!(matches!(done[0][1], Action::Clean(_)), "{done:?}");
}

// Cleaning is of the disk that reached its level, and an hour later again: not sooner, also where it gets worse.
#[test]
fn cleaning_is_asked_for_once_an_hour_and_not_when_it_gets_worse() {
    let done = go(&[
        (0, disk(899)),
        (2, disk(900)),
        (4, disk(901)),
        (6, disk(950)),
        (8, disk(951)),
        (3602, disk(951)),
        (3604, disk(951)),
    ]);
    let cleans = done.iter().map(|actions| {
        let cleans = actions
            .iter()
            .filter(|action| matches!(action, Action::Clean(_)));
        cleans.count()
    });
    assert_eq!(cleans.collect::<Vec<_>>(), [0, 1, 0, 0, 0, 1, 0]);
    let own = Action::Clean(disk(900).reading.device);
    assert!(done[1].contains(&own), "{:?}", done[1]);
    let never = Rules {
        clean_at: None,
        ..rules()
    };
    let outcome = decide(&never, &[disk(1000)], &[], &State::default(), at(0));
    assert!(
        !outcome
            .actions
            .iter()
            .any(|action| matches!(action, Action::Clean(_)))
    );
}

// §3.2: in halves, at the worst level, when less is left than a half gives; the second not before five minutes.
#[test]
fn ballast_goes_in_halves_and_comes_back_after_a_calm_hour() {
    let release = |left: u64| Action::ReleaseBallast("/".into(), left * MIB);
    let done = go(&[
        (0, with_ballast(960, 50)),
        (2, with_ballast(976, 50)),
        (4, with_ballast(990, 25)),
        (301, with_ballast(990, 25)),
        (302, with_ballast(990, 25)),
        (304, with_ballast(990, 0)),
        (1000, with_ballast(700, 0)),
        (4598, with_ballast(700, 0)),
        (4600, with_ballast(700, 0)),
    ]);
    let ballast: Vec<Vec<Action>> = done
        .into_iter()
        .map(|actions| {
            let of_ballast = |action: &Action| {
                matches!(action, Action::ReleaseBallast(..) | Action::TakeBallast(..))
            };
            actions.into_iter().filter(of_ballast).collect()
        })
        .collect();
    assert_eq!(ballast[0], [], "40 MiB are left, and a half gives 25");
    assert_eq!(ballast[1], [release(25)]);
    assert_eq!(ballast[2], [], "too soon for the rest");
    assert_eq!(ballast[3], []);
    assert_eq!(ballast[4], [release(0)]);
    assert_eq!(ballast[5..8], [vec![], vec![], vec![]]);
    assert_eq!(ballast[8], [Action::TakeBallast("/".into(), 50 * MIB)]);
}

// On btrfs what is free is not what can be written: seen at 0 bytes available, with a fifth of the disk free.
#[test]
fn ballast_goes_by_what_root_can_write() {
    let goes = |fstype: &str| {
        let mut seen = with_ballast(960, 50);
        seen.reading.space.bytes_available = 0;
        seen.reading.fstype = fstype.to_owned();
        let done = go(&[(0, seen)]);
        done[0]
            .iter()
            .any(|action| matches!(action, Action::ReleaseBallast(..)))
    };
    assert!(goes("btrfs") && goes("xfs"));
    assert!(!goes("ext4"), "40 MiB of reserve are left");
}

// At the beginning it is taken at once, unless it would bring the disk to its first level.
#[test]
fn ballast_is_taken_where_there_is_room() {
    let takes = |seen: Seen| {
        let done = go(&[(0, seen)]);
        done[0]
            .iter()
            .any(|action| matches!(action, Action::TakeBallast(..)))
    };
    assert!(takes(with_ballast(700, 0)));
    assert!(!takes(with_ballast(750, 0)), "it would be at 80 % with it");
    assert!(
        !takes(with_ballast(700, 41)),
        "a little less than wanted is left alone"
    );
    assert!(takes(with_ballast(700, 39)));
}

// B14: that a disk fills is told once, until that is over.
#[test]
fn a_disk_that_fills_is_told_once() {
    let done = go(&[
        (0, filling(400, Some(70), false)),
        (60, filling(400, Some(20), true)),
        (120, filling(400, Some(19), true)),
        (180, filling(400, Some(47), false)),
        (240, filling(400, Some(20), true)),
        (300, disk(400)),
        (360, filling(400, None, false)),
        (420, filling(400, Some(20), true)),
    ]);
    let told: Vec<usize> = done.iter().map(|actions| causes(actions).len()).collect();
    assert_eq!(told, [0, 1, 0, 0, 0, 0, 0, 1]);
}

// A disk that does not answer keeps its level, and nothing is done for it.
#[test]
fn a_disk_that_does_not_answer_keeps_its_level() {
    let first = decide(&rules(), &[disk(910)], &[], &State::default(), at(0));
    let second = decide(&rules(), &[], &[], &first.next, at(2));
    assert_eq!(second.actions, []);
    assert_eq!(second.next, first.next);
    let third = decide(&rules(), &[disk(910)], &[], &second.next, at(4));
    assert_eq!(third.actions, []);
}

// A disk that does not answer is told after half a minute, once an hour as long as that is so, and when it answers again;
// the others are watched meanwhile.
#[test]
fn a_disk_that_does_not_answer_is_told() {
    let other = || Seen {
        reading: Reading {
            point: "/data".into(),
            ..disk(100).reading
        },
        ..disk(100)
    };
    let mut state = State::default();
    let mut turn = |seconds: i64, lasts: Option<u64>| {
        let silent = lasts.map(|lasts| Silent {
            point: "/".into(),
            lasts: Duration::from_secs(lasts),
        });
        let silent: Vec<Silent> = silent.into_iter().collect();
        let mut seen = vec![other()];
        if silent.is_empty() {
            seen.push(disk(910));
        }
        let outcome = decide(&rules(), &seen, &silent, &state, at(seconds));
        state = outcome.next;
        causes(&outcome.actions)
    };
    assert_eq!(turn(0, None), [(Level::Serious, Cause::Rose(Level::Calm))]);
    assert_eq!(turn(29, Some(29)), []);
    assert_eq!(turn(30, Some(30)), [(Level::Serious, Cause::Silent)]);
    assert_eq!(turn(32, Some(32)), []);
    assert_eq!(turn(3631, Some(3631)), [(Level::Serious, Cause::Silent)]);
    assert_eq!(
        turn(3700, None),
        [
            (Level::Serious, Cause::Answers),
            (Level::Serious, Cause::Remains)
        ]
    );
    assert_eq!(turn(3702, None), []);
}

// A disk that is asked and takes no write is silent all the same, and does not answer again each time that it is asked.
#[test]
fn a_disk_that_takes_no_write_is_silent_though_it_is_seen() {
    let silent = [Silent {
        point: "/".into(),
        lasts: SILENT,
    }];
    let first = decide(&rules(), &[disk(100)], &silent, &State::default(), at(0));
    assert_eq!(causes(&first.actions), [(Level::Calm, Cause::Silent)]);
    let second = decide(&rules(), &[disk(100)], &silent, &first.next, at(2));
    assert_eq!(second.actions, []);
}

// Inodes of XFS have a limit only where imaxpct says so: when that is lifted, their level is left and told.
#[test]
fn a_level_whose_limit_is_lifted_is_left() {
    let with = |bytes_free: u64| {
        let mut seen = disk(100);
        seen.reading.fstype = "xfs".into();
        seen.reading.space.bytes_free = bytes_free;
        seen.reading.space.inodes_free = 10;
        seen
    };
    let done = go(&[(0, with(900 * MIB)), (2, with(4096)), (4, with(4096))]);
    assert_eq!(
        causes(&done[0]),
        [(Level::Critical, Cause::Rose(Level::Calm))]
    );
    assert_eq!(
        causes(&done[1]),
        [(Level::Calm, Cause::Fell(Level::Critical))]
    );
    let Some(Action::Tell(alert)) = done[1].first() else {
        unreachable!("{done:?}");
    };
    assert_eq!((alert.resource, alert.fill), (Resource::Inodes, None));
    assert_eq!(done[2], []);
}

// Bytes and inodes each have their hour, and each fill by themselves.
#[test]
fn inodes_are_told_again_by_a_clock_of_their_own() {
    let full = |used, inodes_free| {
        let mut seen = disk(used);
        seen.reading.space.inodes_free = inodes_free;
        seen
    };
    let done = go(&[
        (0, full(910, 900)),
        (1800, full(910, 40)),
        (3600, full(910, 40)),
        (5400, full(910, 40)),
    ]);
    let told = done.iter().map(|actions| {
        let told = actions.iter().filter_map(|action| match action {
            Action::Tell(alert) => Some((alert.resource, alert.cause)),
            Action::Clean(_) | Action::ReleaseBallast(..) | Action::TakeBallast(..) => None,
        });
        told.collect::<Vec<_>>()
    });
    let told: Vec<_> = told.collect();
    assert_eq!(told[2], [(Resource::Bytes, Cause::Remains)]);
    assert_eq!(told[3], [(Resource::Inodes, Cause::Remains)]);
    let inodes = Seen {
        forecasts: [Some(until(None, false)), Some(until(Some(5), true))],
        ..disk(100)
    };
    let done = go(&[(0, inodes.clone()), (60, inodes)]);
    let Some(Action::Tell(alert)) = done[0].first() else {
        unreachable!("{done:?}");
    };
    assert_eq!(
        (alert.resource, alert.cause),
        (Resource::Inodes, Cause::Filling)
    );
    assert_eq!(done[1], []);
}

// What grew since it was taken makes the ballast that should be there larger, not what goes of the one that is.
#[test]
fn a_half_of_what_is_held_goes_however_much_is_wanted() {
    let mut seen = with_ballast(976, 50);
    if let Some(ballast) = &mut seen.ballast {
        ballast.wanted = 500 * MIB;
    }
    let done = go(&[(0, seen)]);
    assert!(
        done[0].contains(&Action::ReleaseBallast("/".into(), 25 * MIB)),
        "{done:?}"
    );
}

// --no-ballast: what an earlier guard took is given back, whatever the level.
#[test]
fn ballast_that_nobody_wants_is_given_back() {
    let mut seen = with_ballast(100, 50);
    if let Some(ballast) = &mut seen.ballast {
        ballast.wanted = 0;
    }
    let done = go(&[(0, seen)]);
    assert_eq!(done[0], [Action::ReleaseBallast("/".into(), 0)]);
}

proptest! {
    // Invariant 1: the same facts a second time ask for nothing new.
    #[test]
    fn the_same_facts_ask_for_nothing_new(
        used in 0_u64..=1000,
        held in 0_u64..=50,
        inodes_free in 0_u64..=1000,
        before in 0_u64..=1000,
    ) {
        let mut seen = with_ballast(used, held);
        seen.reading.space.inodes_free = inodes_free;
        let earlier = decide(&rules(), &[with_ballast(before, held)], &[], &State::default(), at(0));
        let first = decide(&rules(), std::slice::from_ref(&seen), &[], &earlier.next, at(10_000));
        let second = decide(&rules(), &[seen], &[], &first.next, at(10_000));
        let news = second.actions.into_iter().filter(|action| match action {
            Action::Tell(_) | Action::Clean(_) => true,
            // What was asked for and not done is asked for again.
            Action::ReleaseBallast(..) | Action::TakeBallast(..) => !first.actions.contains(action),
        });
        prop_assert_eq!(news.count(), 0);
    }

    // B13: a reading that wavers by one percent around any filling is told twice at most: once where it begins.
    #[test]
    fn a_disk_that_wavers_by_a_percent_does_not_flap(
        middle in 10_u64..=990,
        noise in proptest::collection::vec(0_u64..=20, 2..100),
    ) {
        let readings: Vec<(i64, Seen)> = (0..)
            .zip(noise)
            .map(|(second, noise)| (second, disk(middle - 10 + noise)))
            .collect();
        let told: usize = go(&readings).iter().skip(1).map(|actions| causes(actions).len()).sum();
        prop_assert!(told <= 1, "{told}");
    }
}
