//! When an unused workload may be put to sleep by itself.
//!
//! All elapsed times are monotonic durations measured by whoever saw the traffic, so a wall clock that jumps
//! changes nothing (invariant 5). Whatever is unknown keeps the workload awake (invariant 2), and so does a single
//! open connection (invariant 4). Two looks are needed for a sleep: this decision, and the same one again on the
//! facts that every gateway confirms while it holds new arrivals (`prepare`).

use std::time::Duration;

use jiff::Timestamp;

use crate::intent::{Action, Actor, Asleep, Change, IntentUpdate, SleptBy};
use crate::quantity::{Replicas, WakeCount};
use crate::schedule::reason;
use crate::status::Status;
use crate::workload::Workload;

/// Shortest idle time that may be asked for: below it, a probe round would count as a pause.
pub const IDLE_AFTER_MIN: Duration = Duration::from_secs(1);

/// Exact counts of the gateways for one workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// Requests and connections that are open now.
    pub in_flight: u64,
    /// Requests that are held now, waiting for it to wake.
    pub held: u64,
    /// How long nobody has used it: since the last request ended, or since counting began.
    pub quiet_for: Duration,
}

/// Why a workload stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stay {
    /// Nothing asks for it to sleep by itself.
    NoPolicy,
    /// It sleeps, or is on its way there.
    AsleepAlready,
    /// It is not fully up: what happens now is not idleness.
    NotSettled(Status),
    /// Nobody knows whether it is used.
    ActivityUnknown,
    /// Requests are open or held.
    InUse {
        /// Open requests.
        in_flight: u64,
        /// Held requests.
        held: u64,
    },
    /// Not quiet, or not awake, for long enough.
    NotYet {
        /// What is still missing.
        remaining: Duration,
    },
    /// Somebody asked to keep it awake.
    KeptAwake {
        /// Until when.
        until: Timestamp,
    },
}

/// What to do with one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Leave it, because of this.
    Stay(Stay),
    /// Write this update, provided that every gateway confirms the counts.
    Sleep(IntentUpdate),
}

/// The verdict and when to judge again; `None` means when facts change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What to do.
    pub verdict: Verdict,
    /// Judge again after this long.
    pub look_again: Option<Duration>,
}

/// Judges one workload.
///
/// `activity` is `None` when any gateway did not answer. `awake_for` is how long this process has seen it fully
/// awake, so that a workload woken by a call is not put back before anybody could use it.
pub fn decide(
    workload: &Workload,
    activity: Option<Activity>,
    awake_for: Duration,
    now: Timestamp,
) -> Outcome {
    let stay = |reason| Outcome {
        verdict: Verdict::Stay(reason),
        look_again: None,
    };
    let Some(idle_after) = workload.idle_after else {
        return stay(Stay::NoPolicy);
    };
    let Some(remembered) = WakeCount::new(workload.desired.0) else {
        return stay(Stay::AsleepAlready);
    };
    match workload.status() {
        Status::Active => {}
        other @ (Status::Inactive | Status::Scaling | Status::Unknown) => {
            return stay(Stay::NotSettled(other));
        }
    }
    let Some(Activity {
        in_flight,
        held,
        quiet_for,
    }) = activity
    else {
        return stay(Stay::ActivityUnknown);
    };
    if in_flight > 0 || held > 0 {
        return stay(Stay::InUse { in_flight, held });
    }
    if let Some(until) = workload.intent.keep_awake_until
        && now < until
    {
        let left = Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO);
        return Outcome {
            verdict: Verdict::Stay(Stay::KeptAwake { until }),
            look_again: Some(left),
        };
    }
    let remaining = idle_after.saturating_sub(quiet_for.min(awake_for));
    if remaining > Duration::ZERO {
        return Outcome {
            verdict: Verdict::Stay(Stay::NotYet { remaining }),
            look_again: Some(remaining),
        };
    }
    let mut intent = workload.intent.clone();
    intent.remembered = Some(remembered);
    intent.asleep = Some(Asleep {
        since: now,
        by: SleptBy::Policy("local/idle-after".to_owned()),
    });
    intent.last_scale_time = Some(now);
    intent.record(Change {
        time: now,
        action: Action::IdleSleep,
        actor: Actor::Idle,
        reason: reason(&format!("no request for {:.0} s", quiet_for.as_secs_f64())),
        request_id: None,
        from: workload.desired,
        to: Replicas::ZERO,
    });
    Outcome {
        verdict: Verdict::Sleep(IntentUpdate {
            desired: Replicas::ZERO,
            intent,
        }),
        look_again: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{now, workload};
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[expect(
        clippy::unnecessary_wraps,
        reason = "the tests pass it where activity may be unknown"
    )]
    fn quiet(quiet_for: Duration) -> Option<Activity> {
        Some(Activity {
            in_flight: 0,
            held: 0,
            quiet_for,
        })
    }

    fn awake() -> Workload {
        Workload {
            idle_after: Some(MINUTE),
            ..workload(2, 2, 2)
        }
    }

    #[test]
    fn a_quiet_workload_sleeps_at_its_time_and_not_before() {
        let just_before = MINUTE.checked_sub(Duration::from_millis(1)).unwrap();
        let outcome = decide(&awake(), quiet(just_before), MINUTE, now());
        assert_eq!(outcome.look_again, Some(Duration::from_millis(1)));
        let Verdict::Sleep(update) = decide(&awake(), quiet(MINUTE), MINUTE, now()).verdict else {
            panic!("a minute is a minute")
        };
        assert_eq!(update.desired, Replicas::ZERO);
        assert_eq!(update.intent.remembered, WakeCount::new(2));
    }

    #[test]
    fn idle_workload_with_open_connection_stays_awake() {
        for (in_flight, held) in [(1, 0), (0, 1)] {
            let activity = Some(Activity {
                in_flight,
                held,
                quiet_for: MINUTE * 10,
            });
            let verdict = decide(&awake(), activity, MINUTE * 10, now()).verdict;
            assert_eq!(verdict, Verdict::Stay(Stay::InUse { in_flight, held }));
        }
    }

    #[test]
    fn a_workload_just_woken_by_a_call_gets_its_whole_idle_time() {
        let verdict = decide(&awake(), quiet(MINUTE * 10), Duration::from_secs(20), now()).verdict;
        assert_eq!(
            verdict,
            Verdict::Stay(Stay::NotYet {
                remaining: Duration::from_secs(40)
            })
        );
    }

    #[test]
    fn a_kept_workload_stays_until_the_stated_instant() {
        let mut w = awake();
        w.intent.keep_awake_until = Some(now() + Duration::from_secs(5));
        let outcome = decide(&w, quiet(MINUTE), MINUTE, now());
        assert_eq!(outcome.look_again, Some(Duration::from_secs(5)));
        w.intent.keep_awake_until = Some(now());
        assert!(matches!(
            decide(&w, quiet(MINUTE), MINUTE, now()).verdict,
            Verdict::Sleep(_)
        ));
    }

    proptest! {
        // Invariants 1, 2, 4 and 7 over all small worlds.
        #[test]
        fn sleep_is_only_for_the_settled_the_known_and_the_unused(
            desired in 0u32..4, current in 0u32..4, available in 0u32..4,
            known in any::<bool>(), in_flight in 0u64..2, held in 0u64..2,
            quiet_seconds in 0u64..120, awake_seconds in 0u64..120,
        ) {
            let w = Workload { idle_after: Some(MINUTE), ..workload(desired, current, available) };
            let activity = known.then_some(Activity { in_flight, held, quiet_for: Duration::from_secs(quiet_seconds) });
            let outcome = decide(&w, activity, Duration::from_secs(awake_seconds), now());
            if let Verdict::Sleep(update) = outcome.verdict {
                prop_assert!(known && in_flight == 0 && held == 0);
                prop_assert!(quiet_seconds >= 60 && awake_seconds >= 60);
                prop_assert!(desired > 0 && current == desired && available == desired);
                prop_assert_eq!(update.intent.remembered, WakeCount::new(desired));
                let after = Workload { desired: update.desired, intent: update.intent, ..w };
                let again = decide(&after, activity, Duration::from_secs(awake_seconds), now());
                prop_assert_eq!(again.verdict, Verdict::Stay(Stay::AsleepAlready));
            }
        }
    }
}
