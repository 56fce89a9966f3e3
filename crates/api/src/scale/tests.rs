//! Bodies of orders at their edges, and the words of answers.

use super::*;

fn now() -> Timestamp {
    "2029-06-01T00:00:00Z".parse().unwrap()
}

fn zero(text: &str) -> Result<ToZero, FieldError> {
    ToZero::read(&Json::read(text.as_bytes()).unwrap(), now())
}

fn up(text: &str) -> Result<Up, FieldError> {
    Up::read(&Json::read(text.as_bytes()).unwrap(), Replicas(100))
}

// A-151, W-A10, R05
#[test]
fn a_reason_is_required_and_measured_in_characters() {
    for unit in ["a", "理"] {
        let body = |n: usize| format!(r#"{{"reason":"{}"}}"#, unit.repeat(n));
        assert!(zero(&body(1)).is_ok());
        assert!(zero(&body(500)).is_ok());
        for n in [0, 501] {
            let error = zero(&body(n)).unwrap_err();
            assert_eq!(error.field, "reason");
            assert_eq!(error.limit, "1 to 500 characters");
        }
    }
    for body in [
        "{}",
        r#"{"reason":null}"#,
        r#"{"reason":1}"#,
        r#"{"reason":" "}"#,
        r#"{"reason":"a\u0000"}"#,
        r#"{"Reason":"x"}"#,
    ] {
        assert_eq!(zero(body).unwrap_err().field, "reason", "{body}");
    }
}

// F07: unknown fields are ignored.
#[test]
fn fields_that_nobody_knows_do_not_matter() {
    assert!(zero(r#"{"reason":"x","replicas":"many","x":[1.5]}"#).is_ok());
}

// R07, A-151
#[test]
fn a_schedule_is_a_real_instant_ahead() {
    let at = |value: &str| zero(&format!(r#"{{"reason":"x","scheduled_scale_up":{value}}}"#));
    assert_eq!(at("null").unwrap().wake_at, None);
    let tokyo = at(r#""2029-06-01T10:00:00+09:00""#).unwrap().wake_at;
    assert_eq!(tokyo, Some("2029-06-01T01:00:00Z".parse().unwrap()));
    for value in [
        r#""2029-06-01""#,
        r#""2029-06-01T10:00:00""#,
        r#""2028-06-01T10:00:00Z""#,
        r#""2029-06-31T10:00:00Z""#,
        r#""2029-06-30T23:59:60Z""#,
        r#""""#,
        "1",
        "[]",
    ] {
        let error = at(value).unwrap_err();
        assert_eq!(error.field, "scheduled_scale_up", "{value}");
    }
}

// A-154, R06
#[test]
fn replicas_is_an_integer_literal_within_the_ceiling() {
    let with = |value: &str| up(&format!(r#"{{"reason":"x","replicas":{value}}}"#));
    assert_eq!(with("1").unwrap().replicas, WakeCount::ONE);
    assert!(with("100").is_ok());
    for value in [
        "0",
        "-1",
        "101",
        "1.0",
        "1e0",
        "-0",
        "\"1\"",
        "null",
        "true",
        "[]",
        "{}",
        "2147483648",
        "4294967297",
        "18446744073709551616",
        "100000000000000000000000",
    ] {
        let error = with(value).unwrap_err();
        assert_eq!(error.field, "replicas", "{value}");
        assert_eq!(error.limit, "an integer from 1 to 100", "{value}");
    }
    assert_eq!(
        up(r#"{"reason":"x"}"#).unwrap_err().to_string(),
        "replicas is required"
    );
    assert_eq!(up(r#"{"replicas":1}"#).unwrap_err().field, "reason");
}

// R07: a time that nobody would keep is not taken.
#[test]
fn a_scale_up_takes_no_schedule() {
    let with = |value: &str| {
        up(&format!(
            r#"{{"reason":"x","replicas":1,"scheduled_scale_up":{value}}}"#
        ))
    };
    let error = with(r#""2029-06-01T10:00:00Z""#).unwrap_err();
    assert_eq!(error.field, "scheduled_scale_up");
    assert!(error.to_string().contains("scale-to-zero"), "{error}");
    assert!(with("null").is_ok());
}

// R14
#[test]
fn the_body_of_a_wake_may_be_empty_but_not_wrong() {
    let wake = |text: &str| ToWake::read(&Json::read(text.as_bytes()).unwrap(), Replicas(100));
    assert_eq!(wake("{}").unwrap(), ToWake::default());
    assert_eq!(
        wake(r#"{"replicas":null,"reason":null}"#).unwrap(),
        ToWake::default()
    );
    assert_eq!(
        wake(r#"{"replicas":3}"#).unwrap().replicas,
        WakeCount::new(3)
    );
    assert!(wake(r#"{"replicas":0}"#).is_err());
    assert!(wake(r#"{"reason":""}"#).is_err());
}

// R24, A-074
#[test]
fn warnings_name_what_is_at_stake() {
    let hpa = Warning::Autoscaler {
        name: "HorizontalPodAutoscaler/web".to_owned(),
        minimum: Replicas(2),
    };
    assert!(warning(&hpa).contains("HorizontalPodAutoscaler/web"));
    assert!(warning(&Warning::NoWakeCount).contains("nagi.dev/awake-replicas"));
    assert!(warning(&Warning::ConnectionsCut { open: 3 }).starts_with("3 open connections"));
    for (one, several) in [
        (
            Warning::RequestsRefused { held: 1 },
            Warning::RequestsRefused { held: 2 },
        ),
        (
            Warning::ConnectionsCut { open: 1 },
            Warning::ConnectionsCut { open: 2 },
        ),
    ] {
        assert!(warning(&one).contains(" is "), "{}", warning(&one));
        assert!(warning(&several).contains(" are "), "{}", warning(&several));
    }
}
