//! The edges of instants and of firing.

use super::*;
use crate::fixtures::{now, scheduled, workload};
use crate::quantity::WakeCount;
use proptest::prelude::*;

// A-151, R07, W-A01: each text is refused for its own reason.
#[test]
fn texts_that_name_no_future_instant_are_refused_with_the_reason() {
    let now = now();
    let rows = [
        ("2030-02-30T00:00:00Z", InstantError::NotReal),
        ("2030-13-01T00:00:00Z", InstantError::NotReal),
        ("2030-01-01T24:00:00Z", InstantError::NotReal),
        ("2030-01-01T00:00:00+24:00", InstantError::NotReal),
        ("2029-02-29T00:00:00Z", InstantError::NotReal),
        ("2030-01-01T00:00:60Z", InstantError::LeapSecond),
        ("2030-01-01T00:00:00", InstantError::NoZone),
        ("2030-01-01T00:00:00.5", InstantError::NoZone),
        ("2030-01-01 00:00:00Z", InstantError::Form),
        ("2030-01-01", InstantError::Form),
        ("2030-1-01T00:00:00Z", InstantError::Form),
        ("2030-01-01T00:00Z", InstantError::Form),
        ("2030-01-01T00:00:00+0900", InstantError::Form),
        ("2030-01-01T00:00:00.Z", InstantError::Form),
        ("2030-01-01T00:00:00Z[Asia/Tokyo]", InstantError::Form),
        ("tomorrow", InstantError::Form),
        ("", InstantError::Form),
        ("２０３０-01-01T00:00:00Z", InstantError::Form),
        ("2029-06-01T00:00:00Z", InstantError::Past { now }),
        ("2020-01-01T00:00:00Z", InstantError::Past { now }),
        ("2031-01-01T00:00:00Z", InstantError::TooFar),
        // Real, and behind the last instant that can be kept.
        ("9999-12-31T23:59:59Z", InstantError::TooFar),
    ];
    for (text, expected) in rows {
        assert_eq!(parse_instant(text, now), Err(expected), "{text}");
    }
}

// R07: case of T and Z does not matter; the offset only names the instant.
#[test]
fn one_instant_has_many_spellings() {
    let expected: Timestamp = "2029-12-31T22:00:00Z".parse().unwrap();
    for text in [
        "2029-12-31T22:00:00Z",
        "2029-12-31t22:00:00z",
        "2030-01-01T07:00:00+09:00",
        "2029-12-31T12:00:00-10:00",
        "2029-12-31T22:00:00.000000000999Z",
    ] {
        assert_eq!(parse_instant(text, now()), Ok(expected), "{text}");
    }
}

#[test]
fn a_schedule_waits_fires_once_and_is_gone() {
    let mut w = workload(0, 0, 0);
    w.intent.remembered = WakeCount::new(3);
    w.intent.scheduled = Some(scheduled("2029-06-01T01:00:00Z"));
    let at: Timestamp = "2029-06-01T01:00:00Z".parse().unwrap();
    assert_eq!(decide(&w, now()), Due::NotYet(at));
    let Due::Fire(update) = decide(&w, at) else {
        panic!("it is due")
    };
    assert_eq!(update.desired, Replicas(3));
    assert_eq!(update.intent.scheduled, None);
    assert_eq!(
        update.intent.remembered,
        WakeCount::new(3),
        "kept for the next sleep"
    );
    w.desired = update.desired;
    w.intent = update.intent;
    assert_eq!(decide(&w, at), Due::Nothing, "invariant 1");
}

// R07: fired while awake it is only removed and recorded.
#[test]
fn a_schedule_that_comes_due_while_awake_changes_no_count() {
    let mut w = workload(2, 2, 2);
    w.intent.scheduled = Some(scheduled("2029-06-01T01:00:00Z"));
    let Due::Drop(update) = decide(&w, "2029-07-01T00:00:00Z".parse().unwrap()) else {
        panic!("due")
    };
    assert_eq!(update.desired, Replicas(2));
    assert_eq!(update.intent.scheduled, None);
    assert_eq!(
        update.intent.changes.last().map(|c| c.action),
        Some(Action::ScheduleCancelled)
    );
    assert_eq!(update.intent.last_scale_time, w.intent.last_scale_time);
}

#[test]
fn a_schedule_without_a_known_count_is_kept_not_guessed() {
    let mut w = workload(0, 0, 0);
    w.intent.scheduled = Some(scheduled("2029-06-01T01:00:00Z"));
    assert_eq!(
        decide(&w, "2029-07-01T00:00:00Z".parse().unwrap()),
        Due::Stuck
    );
}

proptest! {
    #[test]
    fn any_text_is_answered_and_what_is_taken_lies_ahead(text in "\\PC{0,40}") {
        if let Ok(at) = parse_instant(&text, now()) {
            prop_assert!(at > now());
        }
    }

    #[test]
    fn what_jiff_prints_is_read_as_the_same_instant(seconds in 1i64..31_000_000, nanos in 0i32..1_000_000_000) {
        let at = Timestamp::new(now().as_second() + seconds, nanos).unwrap();
        prop_assert_eq!(parse_instant(&at.to_string(), now()), Ok(at));
    }
}
