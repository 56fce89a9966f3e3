//! Instants of one-off wakes: any text is an instant in the year ahead or refused, and means what others read in it.

#![no_main]

use jiff::{SignedDuration, Timestamp};
use libfuzzer_sys::fuzz_target;
use nagi_core::schedule::parse_instant;

fuzz_target!(|text: &str| {
    let now: Timestamp = "2030-01-31T07:00:00Z".parse().expect("an instant");
    let Ok(at) = parse_instant(text, now) else { return };
    assert!(at > now);
    assert!(at.duration_since(now) <= SignedDuration::from_hours(366 * 24));
    let other: Timestamp = nanoseconds(text).parse().expect("an accepted instant is one for jiff, too");
    assert_eq!(at, other);
});

/// RFC 3339 allows any number of digits after the point; jiff reads nine, and we cut there.
fn nanoseconds(text: &str) -> String {
    let Some((whole, rest)) = text.split_once('.') else { return text.to_owned() };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    format!("{whole}.{}{}", &rest[..digits.min(9)], &rest[digits..])
}
