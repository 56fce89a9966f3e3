//! A flight goes forward only, ends once, and teaches the next one.

use super::*;
use crate::fixtures::{replica, workload};
use crate::id::PoolName;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn waking(stage: Stage, ready: bool) -> Workload {
    let mut w = workload(1, 1, u32::from(ready));
    w.version = Version::new(7);
    w.replicas = vec![replica(stage, ready)];
    w
}

#[test]
fn a_wake_passes_its_stages_and_ends_when_a_replica_serves() {
    let mut flight = Flight::accepted(SECOND);
    flight.written(Version::new(7), SECOND * 2);
    assert!(flight.observe(&waking(Stage::WaitingForNode, false), SECOND * 3));
    assert!(flight.observe(&waking(Stage::Starting, false), SECOND * 5));
    assert!(
        !flight.observe(&waking(Stage::WaitingForNode, false), SECOND * 6),
        "never backwards"
    );
    assert!(flight.observe(&waking(Stage::Ready, true), SECOND * 7));
    assert_eq!(flight.progress(), &Progress::Ready);
    let stages: Vec<_> = flight
        .marks()
        .iter()
        .map(|m| (m.stage, m.after.as_secs()))
        .collect();
    assert_eq!(
        stages,
        [
            (Stage::Accepted, 0),
            (Stage::Scaling, 1),
            (Stage::WaitingForNode, 2),
            (Stage::Starting, 4),
            (Stage::Ready, 6)
        ]
    );
}

#[test]
fn an_observation_from_before_the_write_says_nothing() {
    let mut flight = Flight::accepted(SECOND);
    assert!(
        !flight.observe(&waking(Stage::Ready, true), SECOND),
        "nothing is written yet"
    );
    flight.written(Version::new(8), SECOND);
    assert!(
        !flight.observe(&waking(Stage::Ready, true), SECOND),
        "version 7 is older than the write"
    );
    let mut asleep = workload(0, 0, 0);
    asleep.version = Version::new(7);
    assert!(!flight.observe(&asleep, SECOND));
    assert_eq!(flight.progress(), &Progress::Under(Stage::Scaling));
}

#[test]
fn a_wake_that_cannot_succeed_fails_with_the_reason() {
    let mut lost = Flight::accepted(SECOND);
    lost.written(Version::new(1), SECOND);
    let mut asleep = workload(0, 0, 0);
    asleep.version = Version::new(2);
    assert!(lost.observe(&asleep, SECOND));
    assert_eq!(lost.progress(), &Progress::Failed(Failure::SleptAgain));

    let mut big = waking(Stage::Scaling, false);
    big.pending = Some(Pending::DoesNotFit {
        pool: PoolName::new("gpu").unwrap(),
    });
    let mut flight = Flight::accepted(SECOND);
    flight.written(Version::new(7), SECOND);
    assert!(flight.observe(&big, SECOND));
    assert!(matches!(
        flight.progress(),
        Progress::Failed(Failure::Impossible(_))
    ));
    assert!(
        !flight.observe(&waking(Stage::Ready, true), SECOND),
        "it ends once"
    );

    for (restarts, gives_up) in [(CRASHES_MAX - 1, false), (CRASHES_MAX, true)] {
        let mut crashing = waking(Stage::Starting, false);
        crashing.pending = Some(Pending::CrashLoop {
            restarts,
            last_exit: "exit code 1".into(),
        });
        let mut flight = Flight::accepted(SECOND);
        flight.written(Version::new(7), SECOND);
        flight.observe(&crashing, SECOND);
        assert_eq!(
            matches!(flight.progress(), Progress::Failed(_)),
            gives_up,
            "{restarts}"
        );
    }
}

// The order wrote nothing, so the version is the old one; what is there already decides.
#[test]
fn a_wake_of_what_is_in_a_crash_loop_already_ends_at_its_first_look() {
    let looks = [
        vec![replica(Stage::Starting, false)],
        vec![
            replica(Stage::Starting, false),
            replica(Stage::WaitingForNode, false),
        ],
    ];
    for replicas in looks {
        let mut crashing = waking(Stage::Starting, false);
        crashing.replicas = replicas;
        crashing.pending = Some(Pending::CrashLoop {
            restarts: 6,
            last_exit: "exit code 3".into(),
        });
        let mut flight = Flight::accepted(SECOND);
        flight.written(crashing.version, SECOND);
        assert!(flight.observe(&crashing, SECOND));
        let Progress::Failed(Failure::Crashing(why)) = flight.progress() else {
            panic!("{:?}", flight.progress());
        };
        assert!(why.contains("exit code 3"), "{why}");
        assert!(
            !flight.observe(&crashing, SECOND * 2),
            "it is told once, and ends"
        );
    }
}

#[test]
fn the_second_wake_knows_how_long_it_takes() {
    let marks = [
        Mark {
            stage: Stage::Accepted,
            after: Duration::ZERO,
        },
        Mark {
            stage: Stage::Starting,
            after: SECOND * 4,
        },
        Mark {
            stage: Stage::Ready,
            after: SECOND * 10,
        },
    ];
    let learned = Learned::default().after(&marks);
    let flight = Flight::accepted(SECOND * 100);
    assert_eq!(
        flight.eta(&Learned::default(), SECOND * 100),
        None,
        "unknown is not zero"
    );
    assert_eq!(flight.eta(&learned, SECOND * 103), Some(SECOND * 7));
    assert_eq!(flight.eta(&learned, SECOND * 200), Some(Duration::ZERO));
    let slower = [
        marks[0],
        Mark {
            stage: Stage::Ready,
            after: SECOND * 20,
        },
    ];
    assert_eq!(
        learned.after(&slower).to_ready(Stage::Accepted),
        Some(SECOND * 15)
    );
    assert_eq!(
        learned.after(&slower[..1]),
        learned,
        "a failed wake teaches nothing"
    );
}

proptest! {
    #[test]
    fn marks_only_ever_move_forward(stages in prop::collection::vec(0usize..8, 0..30)) {
        let mut flight = Flight::accepted(Duration::ZERO);
        flight.written(Version::new(7), Duration::ZERO);
        for (n, index) in stages.into_iter().enumerate() {
            let now = SECOND * u32::try_from(n).unwrap();
            flight.observe(&waking(Stage::ALL[index], false), now);
        }
        for pair in flight.marks().windows(2) {
            prop_assert!(pair[0].stage < pair[1].stage && pair[0].after <= pair[1].after);
        }
        prop_assert!(matches!(flight.progress(), Progress::Under(_)), "no replica was ready");
    }
}
