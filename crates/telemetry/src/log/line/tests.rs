//! A line is valid, compact, bounded JSON whatever goes in.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn begin(message: &str) -> Line {
    Line::begin(String::new(), Timestamp::UNIX_EPOCH, Level::Info, message)
}

fn parse(line: &str) -> Value {
    assert!(
        line.ends_with("}\n") && !line.trim_end().contains('\n'),
        "{line}"
    );
    assert!(line.len() <= LINE_BYTES_MAX, "{} bytes", line.len());
    serde_json::from_str(line).unwrap()
}

// K-10
#[test]
fn line_is_compact_json_with_both_time_names() {
    let mut line = begin("Workload asleep");
    line.text("namespace", "project-a");
    line.literal("replicas", 3);
    line.literal("ready", true);
    assert_eq!(
        line.end(),
        "{\"timestamp\":\"1970-01-01T00:00:00.000Z\",\"time\":\"1970-01-01T00:00:00.000Z\",\
         \"level\":\"info\",\"message\":\"Workload asleep\",\"namespace\":\"project-a\",\
         \"replicas\":3,\"ready\":true}\n"
    );
}

#[test]
fn time_has_milliseconds_also_when_they_are_zero_or_more_precise() {
    for (nanos, expected) in [
        (0, "00.000Z"),
        (1_000_000, "00.001Z"),
        (1_999_999_999, "01.999Z"),
    ] {
        let now = Timestamp::from_nanosecond(nanos).unwrap();
        let line = Line::begin(String::new(), now, Level::Info, "Now").end();
        assert!(
            line.contains(&format!("1970-01-01T00:00:{expected}\"")),
            "{line}"
        );
    }
}

// A-048, W-A23
#[test]
fn durations_are_always_milliseconds_with_three_decimals() {
    let cases = [
        (Duration::ZERO, "0.000ms"),
        (Duration::from_nanos(499), "0.000ms"),
        (Duration::from_nanos(500), "0.001ms"),
        (Duration::from_micros(412), "0.412ms"),
        (Duration::from_millis(45), "45.000ms"),
        (Duration::from_millis(1200), "1200.000ms"),
        (Duration::from_hours(1), "3600000.000ms"),
        (Duration::MAX, "18446744073709551616000.000ms"),
    ];
    for (duration, expected) in cases {
        let mut line = begin("Request completed");
        line.milliseconds("latency", duration);
        assert_eq!(parse(&line.end())["latency"], expected);
    }
}

#[test]
fn numbers_that_json_cannot_hold_become_strings_never_null() {
    for (number, expected) in [
        (1.5, serde_json::json!(1.5)),
        (f64::MAX, serde_json::json!(f64::MAX)),
        (f64::MIN_POSITIVE, serde_json::json!(f64::MIN_POSITIVE)),
        (f64::NAN, serde_json::json!("NaN")),
        (f64::NEG_INFINITY, serde_json::json!("-inf")),
    ] {
        let mut line = begin("Number");
        line.float("value", number);
        assert_eq!(parse(&line.end())["value"], expected);
    }
}

#[test]
fn control_characters_are_escaped_in_our_text_and_replaced_in_that_of_clients() {
    let hostile = "a\n\u{1b}[31m\u{9b}\u{202e}\u{2028}\"\\é";
    let mut line = begin("Hostile");
    line.string("ours", hostile, 100, Controls::Escape);
    line.string("theirs", hostile, 100, Controls::Replace);
    let text = line.end();
    assert!(
        text.contains("\"ours\":\"a\\n\\u001b[31m\\u009b\\u202e\\u2028\\\"\\\\é\""),
        "{text}"
    );
    let value = parse(&text);
    assert_eq!(value["ours"], hostile);
    assert_eq!(
        value["theirs"],
        "a\u{fffd}\u{fffd}[31m\u{fffd}\u{fffd}\u{fffd}\"\\é"
    );
}

#[test]
fn value_at_its_budget_is_whole_and_one_byte_more_is_cut_and_marked() {
    let mut line = begin("Fits");
    line.string("value", "0123456789", 10, Controls::Escape);
    let value = parse(&line.end());
    assert_eq!(
        (&value["value"], value.get("truncated")),
        (&Value::from("0123456789"), None)
    );

    let mut line = begin("Cut");
    line.string("value", "0123456789a", 10, Controls::Escape);
    let value = parse(&line.end());
    assert_eq!(value["value"], "0123456…");
    assert_eq!(value["truncated"], true);
}

#[test]
fn cut_never_splits_an_escape() {
    for budget in 3..30 {
        let mut line = begin("Cut");
        line.string(
            "value",
            "\u{1}\u{2}\"\\\n日本語\u{3}",
            budget,
            Controls::Escape,
        );
        parse(&line.end());
    }
}

#[test]
fn fields_beyond_the_line_are_left_out_and_the_line_says_so() {
    let mut line = begin("Crowded");
    let long = "x".repeat(1500);
    for name in ["a", "b", "c", "d", "e"] {
        line.text(name, &long);
    }
    line.literal("number", 1);
    let text = line.end();
    let value = parse(&text);
    assert_eq!(value["a"], long);
    assert_eq!(value["truncated"], true);
    assert_eq!(value.get("e"), None);
}

proptest! {
    //
    #[test]
    fn any_strings_give_one_bounded_line_of_json_that_reads_back(
        values in proptest::collection::vec(any::<String>(), 0..12),
        repeat in 1_usize..400,
    ) {
        let mut line = begin("Property");
        for (index, value) in values.iter().enumerate() {
            let value = value.repeat(repeat);
            line.string(&format!("ours{index}"), &value, VALUE_BYTES_MAX, Controls::Escape);
            line.string(&format!("theirs{index}"), &value, 64, Controls::Replace);
        }
        let parsed = parse(&line.end());
        if parsed.get("truncated").is_none() {
            for (index, value) in values.iter().enumerate() {
                prop_assert_eq!(&parsed[format!("ours{index}")], &value.repeat(repeat));
            }
        }
    }
}
