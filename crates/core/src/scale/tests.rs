//! Orders on facts: effects, repetition, refusals, and the invariants over all small worlds.

use super::*;
use crate::fixtures::{now, scheduled, workload};
use crate::workload::Autoscaler;
use proptest::prelude::*;

fn text(words: &str) -> ReasonText {
    ReasonText::new(words).unwrap()
}

fn request(order: Order) -> Request {
    Request {
        order,
        actor: Actor::Anonymous,
        request_id: RequestId::accept("r-1"),
    }
}

fn to_zero_order(wake_at: Option<Timestamp>) -> Request {
    request(Order::ToZero {
        reason: text("コスト最適化のため"),
        wake_at,
    })
}

fn up_order(n: u32) -> Request {
    request(Order::Up {
        replicas: WakeCount::new(n).unwrap(),
        reason: text("test"),
    })
}

fn wake_order(n: Option<u32>) -> Request {
    request(Order::Wake {
        replicas: n.and_then(WakeCount::new),
        reason: None,
        default_allowed: false,
    })
}

fn plan(w: &Workload, r: &Request) -> Plan {
    decide(&Guardrails::default(), w, r, now()).unwrap()
}

fn apply(w: &Workload, plan: &Plan) -> Workload {
    let mut next = w.clone();
    if let Some(update) = &plan.update {
        next.desired = update.desired;
        next.intent = update.intent.clone();
    }
    next
}

// R10, invariant 7
#[test]
fn a_sleep_remembers_the_count_and_a_second_one_changes_nothing() {
    let w = workload(3, 3, 3);
    let first = plan(&w, &to_zero_order(None));
    assert_eq!((first.from, first.to), (Replicas(3), Replicas::ZERO));
    let asleep = apply(&w, &first);
    assert_eq!(asleep.intent.remembered, WakeCount::new(3));
    assert_eq!(asleep.intent.last_scale_time, Some(now()));
    assert_eq!(
        asleep.intent.changes.last().map(|c| c.reason.as_str()),
        Some("コスト最適化のため")
    );

    let second = plan(&asleep, &to_zero_order(None));
    assert_eq!(second.update, None);
    assert_eq!(second.from, Replicas::ZERO);
    assert_eq!(second.remembered(&asleep), WakeCount::new(3));
}

// R10: last_scale_time moves only when the wanted count changes.
#[test]
fn a_repeated_sleep_with_a_schedule_only_adds_the_schedule() {
    let asleep = apply(
        &workload(3, 3, 3),
        &plan(&workload(3, 3, 3), &to_zero_order(None)),
    );
    let later = now() + std::time::Duration::from_mins(1);
    let order = to_zero_order(Some(later));
    let again = decide(&Guardrails::default(), &asleep, &order, later).unwrap();
    let after = apply(&asleep, &again);
    assert_eq!(after.intent.last_scale_time, Some(now()));
    assert_eq!(after.intent.scheduled.as_ref().map(|s| s.at), Some(later));
    assert_eq!(after.intent.remembered, WakeCount::new(3));
    assert_eq!(
        after.intent.changes.last().map(|c| c.action),
        Some(Action::ScheduleSet)
    );
}

// R07: a scale-to-zero without a schedule keeps the pending one; scale-up cancels it; a wake keeps it.
#[test]
fn who_keeps_and_who_cancels_a_pending_schedule() {
    let mut w = workload(0, 0, 0);
    w.intent.remembered = WakeCount::new(2);
    w.intent.scheduled = Some(scheduled("2029-06-02T00:00:00Z"));
    assert!(
        apply(&w, &plan(&w, &to_zero_order(None)))
            .intent
            .scheduled
            .is_some()
    );
    assert!(
        apply(&w, &plan(&w, &wake_order(None)))
            .intent
            .scheduled
            .is_some()
    );
    assert!(
        apply(&w, &plan(&w, &up_order(1)))
            .intent
            .scheduled
            .is_none()
    );
    let cancelled = plan(&w, &request(Order::CancelSchedule));
    assert_eq!(
        cancelled.scheduled,
        Some("2029-06-02T00:00:00Z".parse().unwrap())
    );
    assert!(apply(&w, &cancelled).intent.scheduled.is_none());
    assert_eq!(
        decide(
            &Guardrails::default(),
            &workload(1, 1, 1),
            &request(Order::CancelSchedule),
            now()
        ),
        Err(Refusal::NoSchedule)
    );
}

// W-A15, R11
#[test]
fn scale_up_sets_the_count_in_either_direction() {
    for (from, n, direction) in [
        (0, 2, Direction::Up),
        (3, 2, Direction::Down),
        (2, 2, Direction::None),
    ] {
        let w = workload(from, from, from);
        let p = plan(&w, &up_order(n));
        assert_eq!(
            (p.from, p.to, p.direction()),
            (Replicas(from), Replicas(n), direction)
        );
        assert_eq!(apply(&w, &p).intent.remembered, WakeCount::new(n));
    }
}

// W-A11, R06
#[test]
fn the_ceiling_holds_at_its_edge() {
    let rails = Guardrails::default();
    assert!(decide(&rails, &workload(0, 0, 0), &up_order(100), now()).is_ok());
    let refused = Err(Refusal::TooMany {
        max: Replicas(100),
        got: Replicas(101),
    });
    assert_eq!(
        decide(&rails, &workload(0, 0, 0), &up_order(101), now()),
        refused
    );
    assert_eq!(
        decide(&rails, &workload(0, 0, 0), &wake_order(Some(101)), now()),
        refused
    );
}

// R14
#[test]
fn a_wake_needs_a_known_count_and_leaves_the_awake_alone() {
    assert_eq!(
        decide(
            &Guardrails::default(),
            &workload(0, 0, 0),
            &wake_order(None),
            now()
        ),
        Err(Refusal::NoWakeCount)
    );
    assert_eq!(plan(&workload(1, 1, 1), &wake_order(Some(5))).update, None);
    assert_eq!(
        plan(&workload(0, 0, 0), &wake_order(Some(5))).to,
        Replicas(5)
    );
}

// R24, DESIGN §5: a schedule whose wake nobody could size is refused when it is set, not when it fires.
#[test]
fn sleeping_without_a_known_count_warns_and_with_a_schedule_is_refused() {
    let p = plan(&workload(0, 0, 0), &to_zero_order(None));
    assert_eq!(p.warnings, [Warning::NoWakeCount]);
    let order = to_zero_order(Some(now() + std::time::Duration::from_secs(9)));
    assert_eq!(
        decide(&Guardrails::default(), &workload(0, 0, 0), &order, now()),
        Err(Refusal::NoWakeCount)
    );
}

// A-074, R24
#[test]
fn an_autoscaler_on_the_target_is_named() {
    let mut w = workload(2, 2, 2);
    w.autoscaler = Some(Autoscaler {
        name: "HorizontalPodAutoscaler/a".into(),
        minimum: Replicas(2),
    });
    for order in [to_zero_order(None), up_order(3)] {
        assert!(matches!(
            plan(&w, &order).warnings.as_slice(),
            [Warning::Autoscaler { .. }]
        ));
    }
}

// A-021, R07
#[test]
fn a_count_changed_by_other_tools_is_recorded_and_cancels_the_schedule() {
    let mut w = apply(
        &workload(3, 3, 3),
        &plan(&workload(3, 3, 3), &to_zero_order(None)),
    );
    assert_eq!(outside_change(&w, None, now()), None);
    w.intent.scheduled = Some(scheduled("2029-06-02T00:00:00Z"));
    w.desired = Replicas(4);
    let writer = CountWriter::Other("kubectl-scale".into());
    let update = outside_change(&w, Some(&writer), now()).unwrap();
    assert_eq!(update.desired, Replicas(4));
    assert_eq!(update.intent.scheduled, None);
    assert_eq!(update.intent.asleep, None);
    assert_eq!(update.intent.remembered, WakeCount::new(4));
    w.intent = update.intent;
    assert_eq!(outside_change(&w, None, now()), None, "invariant 1");
    w.desired = Replicas::ZERO;
    assert_eq!(
        outside_change(&w, None, now()).unwrap().intent.remembered,
        WakeCount::new(4)
    );
}

// A-021; invariant 7: the count to restore is one that somebody last wanted
#[test]
fn a_count_that_others_wanted_for_a_moment_is_recorded_when_it_is_zero_again() {
    let mut w = apply(
        &workload(3, 3, 3),
        &plan(
            &workload(3, 3, 3),
            &to_zero_order(Some(now() + std::time::Duration::from_hours(1))),
        ),
    );
    assert_eq!(outside_change(&w, None, now()), None);
    w.unrecorded = Some(Replicas(6));
    let update = outside_change(&w, None, now()).unwrap();
    assert_eq!(update.desired, Replicas::ZERO);
    assert_eq!(update.intent.remembered, WakeCount::new(6));
    assert_eq!(update.intent.asleep, None, "others ended it");
    assert_eq!(
        update.intent.scheduled, None,
        "raising the count cancelled it"
    );
    let last = update.intent.changes.last().unwrap();
    assert_eq!((last.from, last.to), (Replicas(6), Replicas::ZERO));
    (w.intent, w.unrecorded) = (update.intent, None);
    assert_eq!(outside_change(&w, None, now()), None, "invariant 1");
}

// R07, A-021
#[test]
fn who_set_the_count_decides_what_a_change_without_record_means() {
    let asleep = || {
        let mut w = apply(
            &workload(3, 3, 3),
            &plan(&workload(3, 3, 3), &to_zero_order(None)),
        );
        w.intent.scheduled = Some(scheduled("2029-06-02T00:00:00Z"));
        w
    };
    let mut w = asleep();
    w.desired = Replicas(1);
    let gateway = outside_change(&w, Some(&CountWriter::Gateway), now()).unwrap();
    assert!(gateway.intent.scheduled.is_some(), "a wake keeps it");
    assert_eq!(
        gateway.intent.remembered,
        WakeCount::new(3),
        "nobody wanted 1"
    );
    let last = gateway.intent.changes.last().unwrap();
    assert_eq!(
        (last.action, &last.actor),
        (Action::WakeOnRequest, &Actor::Gateway)
    );
    let nobody = outside_change(&w, None, now()).unwrap();
    assert!(
        nobody.intent.scheduled.is_some(),
        "it may have been a wake, and a schedule that is lost never wakes"
    );
    assert_eq!(nobody.intent.remembered, WakeCount::new(1));
    let last = nobody.intent.changes.last().unwrap();
    assert_eq!(last.action, Action::OutsideChange);
    let other = CountWriter::Other("kubectl-scale".into());
    let other = outside_change(&w, Some(&other), now()).unwrap();
    assert_eq!(other.intent.scheduled, None);
    assert_eq!(other.intent.remembered, WakeCount::new(1));
    let last = other.intent.changes.last().unwrap();
    assert!(
        last.reason.as_str().ends_with("by kubectl-scale"),
        "{}",
        last.reason
    );
    // A leftover "asleep" on a workload that is awake is cleared even where no change is recorded.
    w.intent.changes.clear();
    assert_eq!(outside_change(&w, None, now()).unwrap().intent.asleep, None);
    w.intent.asleep = None;
    assert_eq!(outside_change(&w, None, now()), None);
}

fn any_order() -> impl Strategy<Value = Request> {
    prop_oneof![
        Just(to_zero_order(None)),
        Just(to_zero_order(Some(
            now() + std::time::Duration::from_hours(1)
        ))),
        (1u32..5).prop_map(up_order),
        (1u32..5).prop_map(|n| wake_order(Some(n))),
        Just(wake_order(None)),
        Just(request(Order::CancelSchedule)),
    ]
}

proptest! {
    // Invariants 1 and 7 over every run of orders.
    #[test]
    fn the_count_to_restore_is_never_lost_and_orders_are_idempotent(
        start in 0u32..4, orders in prop::collection::vec(any_order(), 1..12),
    ) {
        let mut w = workload(start, start, start);
        let mut ever_awake = start > 0;
        for order in orders {
            let Ok(p) = decide(&Guardrails::default(), &w, &order, now()) else { continue };
            let was = w.desired;
            w = apply(&w, &p);
            prop_assert_eq!(w.desired, p.to);
            ever_awake |= !w.desired.is_zero();
            if w.desired.is_zero() && ever_awake {
                let remembered = w.intent.remembered;
                prop_assert!(remembered.is_some());
                if !was.is_zero() {
                    prop_assert_eq!(remembered.map(WakeCount::replicas), Some(was));
                }
            }
            if !w.desired.is_zero() {
                prop_assert_eq!(&w.intent.asleep, &None);
            }
            if !matches!(order.order, Order::CancelSchedule) {
                let again = decide(&Guardrails::default(), &w, &order, now()).unwrap();
                prop_assert_eq!(again.update, None, "invariant 1: {:?}", order);
            }
            prop_assert_eq!(outside_change(&w, None, now()), None);
        }
    }
}
