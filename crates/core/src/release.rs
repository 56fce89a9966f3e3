//! How Nagi lets go of a workload: what it put to sleep wakes and serves, and then its marks are taken away.
//!
//! Each step is judged anew on the facts, so whoever is killed in the middle begins again where they were: the count to
//! restore stays on the object until something serves, and a workload without marks needs nothing more. Marks that
//! people made (which host, after how long without use) are theirs and stay.

use std::fmt;

use jiff::Timestamp;

use crate::guardrail::Guardrails;
use crate::intent::{Action, Actor};
use crate::scale::{self, Order, Plan, Refusal, Request};
use crate::schedule::reason;
use crate::workload::Workload;

/// What a workload carries of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marks {
    /// Nothing.
    None,
    /// What this release wrote, or one before it.
    Ours,
    /// Ours, but some of it cannot be read; the names of these.
    Unreadable(Vec<&'static str>),
    /// What a later release wrote, whose meaning is not known here.
    Newer,
}

/// What to do with a workload next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it carries nothing of ours.
    Nothing,
    /// Wake it: we put it to sleep.
    Wake(Box<Plan>),
    /// Wait: we woke it, and nothing serves yet.
    Wait,
    /// Take our marks away.
    LetGo,
    /// A person must decide.
    Stuck(Stuck),
}

/// Why a person must decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stuck {
    /// It sleeps, and nobody knows how many replicas it had.
    NoWakeCount,
    /// It wants no replicas, and what was remembered of it cannot be read.
    Unreadable(Vec<&'static str>),
    /// A later release wrote on it.
    Newer,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWakeCount => f.write_str("it sleeps, and no replica count is known for it"),
            Self::Unreadable(names) => write!(
                f,
                "it wants no replicas, and what is remembered of it cannot be read: {}",
                names.join(", ")
            ),
            Self::Newer => {
                f.write_str("a later release of Nagi wrote on it: release it with that one")
            }
        }
    }
}

/// What to do with a workload next, on the facts of one observation.
pub fn decide(workload: &Workload, marks: &Marks, actor: &Actor, now: Timestamp) -> Step {
    match marks {
        Marks::None => return Step::Nothing,
        Marks::Newer => return Step::Stuck(Stuck::Newer),
        Marks::Unreadable(names) if workload.desired.is_zero() => {
            return Step::Stuck(Stuck::Unreadable(names.clone()));
        }
        Marks::Unreadable(_) | Marks::Ours => {}
    }
    if workload.desired.is_zero() {
        // Without the mark it was somebody else who wanted none, and nothing of ours to undo.
        if workload.intent.asleep.is_none() {
            return Step::LetGo;
        }
        return wake(workload, actor, now);
    }
    if workload.available.is_zero() && is_woken_by_us(workload) {
        Step::Wait
    } else {
        Step::LetGo
    }
}

fn wake(workload: &Workload, actor: &Actor, now: Timestamp) -> Step {
    let request = Request {
        order: Order::Wake {
            replicas: None,
            reason: Some(reason("Nagi lets go of it")),
            default_allowed: false,
        },
        actor: actor.clone(),
        request_id: None,
    };
    // No count is asked for, so no ceiling is in the way: it is the count that it had.
    match scale::decide(&Guardrails::default(), workload, &request, now) {
        Ok(plan) => Step::Wake(Box::new(plan)),
        // Of what may not be changed nothing was ever put to sleep.
        Err(Refusal::Forbidden(_)) => Step::Nothing,
        Err(Refusal::NoWakeCount | Refusal::TooMany { .. } | Refusal::NoSchedule) => {
            Step::Stuck(Stuck::NoWakeCount)
        }
    }
}

/// Is it for our doing that it wants replicas? Others may have left it broken, which is theirs to mend.
fn is_woken_by_us(workload: &Workload) -> bool {
    let last = workload.intent.changes.last();
    last.is_some_and(|last| match last.action {
        Action::ScaleUp | Action::Wake | Action::WakeOnRequest | Action::ScheduledWake => true,
        Action::ScaleToZero
        | Action::IdleSleep
        | Action::ScheduleSet
        | Action::ScheduleCancelled
        | Action::OutsideChange => false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::{self, workload as observed};
    use crate::intent::{Asleep, SleptBy};
    use crate::quantity::{Replicas, WakeCount};

    fn now() -> Timestamp {
        fixtures::now()
    }

    /// A workload of which everything that is wanted serves.
    fn workload(desired: u32) -> Workload {
        observed(desired, desired, desired)
    }

    fn asleep(remembered: Option<u32>) -> Workload {
        let mut workload = workload(0);
        workload.intent.remembered = remembered.and_then(WakeCount::new);
        workload.intent.asleep = Some(Asleep {
            since: now(),
            by: SleptBy::Api,
        });
        workload
    }

    fn next(workload: &Workload, marks: &Marks) -> Step {
        decide(workload, marks, &Actor::Outside, now())
    }

    fn written(workload: &Workload, step: Step) -> Workload {
        let Step::Wake(plan) = step else {
            panic!("no wake: {step:?}");
        };
        let update = plan.update.unwrap();
        Workload {
            desired: update.desired,
            intent: update.intent,
            ..workload.clone()
        }
    }

    // Issue 4 item 4: wake what Nagi put to sleep, wait until it serves, then let go
    #[test]
    fn a_sleeper_wakes_serves_and_is_let_go() {
        let sleeper = asleep(Some(3));
        let mut woken = written(&sleeper, next(&sleeper, &Marks::Ours));
        assert_eq!(
            (woken.desired, woken.intent.remembered),
            (Replicas(3), WakeCount::new(3))
        );
        assert_eq!(next(&woken, &Marks::Ours), Step::Wait);
        woken.available = Replicas(1);
        assert_eq!(next(&woken, &Marks::Ours), Step::LetGo);
        assert_eq!(next(&woken, &Marks::None), Step::Nothing);
    }

    #[test]
    fn what_others_wanted_is_left_as_it_is() {
        // Somebody else wants none.
        assert_eq!(next(&workload(0), &Marks::Ours), Step::LetGo);
        // Somebody else's is broken.
        let mut broken = workload(2);
        broken.available = Replicas::ZERO;
        assert_eq!(next(&broken, &Marks::Ours), Step::LetGo);
        // Nothing of ours on it, whatever it does.
        assert_eq!(next(&workload(0), &Marks::None), Step::Nothing);
        assert_eq!(next(&asleep(Some(1)), &Marks::None), Step::Nothing);
    }

    // Invariant 7: a count that is not known is not made up, and what cannot be read is not thrown away.
    #[test]
    fn what_cannot_be_told_is_left_to_a_person() {
        assert_eq!(
            next(&asleep(None), &Marks::Ours),
            Step::Stuck(Stuck::NoWakeCount)
        );
        let names = vec!["nagi.dev/asleep-since"];
        let unreadable = Marks::Unreadable(names.clone());
        assert_eq!(
            next(&workload(0), &unreadable),
            Step::Stuck(Stuck::Unreadable(names))
        );
        let serving = workload(1);
        assert_eq!(next(&serving, &unreadable), Step::LetGo);
        assert_eq!(next(&serving, &Marks::Newer), Step::Stuck(Stuck::Newer));
    }

    proptest! {
        // Each step leads on: no workload is woken twice, and none is let go while it sleeps by our doing.
        #[test]
        fn no_sleeper_of_ours_is_let_go_and_no_wake_asks_for_another(count in 1_u32..50, available in 0_u32..3) {
            let sleeper = asleep(Some(count));
            let mut woken = written(&sleeper, next(&sleeper, &Marks::Ours));
            woken.available = Replicas(available.min(count));
            let expected = if woken.available.is_zero() { Step::Wait } else { Step::LetGo };
            prop_assert_eq!(next(&woken, &Marks::Ours), expected);
        }
    }
}
