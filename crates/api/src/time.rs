//! Instants on the wire: RFC 3339 in UTC, whatever zone the caller named (W-A16), always with milliseconds, so that they
//! have one width and sort as text.

use std::borrow::Cow;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

const NANOS_PER_MILLI: i32 = 1_000_000;

/// An instant, written as RFC 3339 in UTC with milliseconds: `2030-01-31T07:00:00.000Z`. It may hold more than it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub Timestamp);

impl Time {
    /// The instant in whole milliseconds, rounded down: for times that are shown and not computed with.
    pub fn in_millis(instant: Timestamp) -> Self {
        let beyond = instant.subsec_nanosecond().rem_euclid(NANOS_PER_MILLI);
        let whole = instant.checked_sub(SignedDuration::from_nanos(beyond.into()));
        // That fails only at the very beginning of representable time, where the exact instant serves as well.
        Self(whole.unwrap_or(instant))
    }
}

impl From<Timestamp> for Time {
    fn from(instant: Timestamp) -> Self {
        Self(instant)
    }
}

impl From<Time> for Timestamp {
    fn from(time: Time) -> Self {
        time.0
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", Self::in_millis(self.0).0)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| {
            D::Error::custom("must be RFC 3339 with a zone, like 2030-01-31T07:00:00Z")
        })
    }
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .examples(["2030-01-31T07:00:00.000Z"])
            .into()
    }
}

impl ToSchema for Time {}

#[cfg(test)]
mod tests {
    use super::*;

    // A-070, W-A16
    #[test]
    fn times_are_utc_and_read_back() {
        let at: Timestamp = "2030-01-31T07:00:00.123456+09:00".parse().unwrap();
        let text = serde_json::to_string(&Time(at)).unwrap();
        assert_eq!(text, "\"2030-01-30T22:00:00.123Z\"");
        let shown = serde_json::from_str::<Time>(&text).unwrap();
        assert_eq!(shown, Time::in_millis(at));
    }

    // Issue 3: one width, whatever the digits are.
    #[test]
    fn times_always_show_three_digits_and_never_a_later_instant() {
        for (text, shown) in [
            ("2030-01-31T07:00:00Z", "2030-01-31T07:00:00.000Z"),
            ("2030-01-31T07:00:52.45Z", "2030-01-31T07:00:52.450Z"),
            ("2030-01-31T07:00:52.4589Z", "2030-01-31T07:00:52.458Z"),
            ("2030-01-31T07:00:59.9999Z", "2030-01-31T07:00:59.999Z"),
            ("1969-12-31T23:59:59.9995Z", "1969-12-31T23:59:59.999Z"),
        ] {
            let at: Timestamp = text.parse().unwrap();
            assert_eq!(Time(at).to_string(), shown, "{text}");
            assert_eq!(
                serde_json::to_string(&Time(at)).unwrap(),
                format!("\"{shown}\"")
            );
        }
    }
}
