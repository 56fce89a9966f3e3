//! Instants and spans as people type them on a command line.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use nagi_core::schedule::{InstantError, parse_instant};

/// Longest span: a hundred years keeps every sum inside representable time.
const SPAN_MAX: Duration = Duration::from_hours(24 * 365 * 100);
const RULE: &str =
    "must be RFC 3339 with a zone, like 2030-01-31T07:00:00+09:00, or a span from now, like +10m";
const SPAN_RULE: &str = "must be a span of time like 90s, 10m or 2h30m";

/// An instant, or a span from now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum When {
    /// Text that is sent as it is: the server judges it by its own clock.
    At(String),
    /// So much later than now.
    In(Duration),
}

impl When {
    /// Reads `+10m` or an instant; of an instant only the outline is looked at.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(span) = text.strip_prefix('+') {
            return parse_span(span).map(Self::In).map_err(|_| RULE.to_owned());
        }
        match text.parse::<Timestamp>() {
            Ok(_) => Ok(Self::At(text.to_owned())),
            // The rules of the server say more, where it is nearly an instant; when it is, the server judges.
            Err(_) => Err(match parse_instant(text, Timestamp::UNIX_EPOCH) {
                Ok(_) | Err(InstantError::Form) => RULE.to_owned(),
                Err(other) => other.to_string(),
            }),
        }
    }

    /// The instant as RFC 3339; one that was given as such stays as it was typed.
    pub(crate) fn text(&self, now: Timestamp) -> String {
        match self {
            Self::At(text) => text.clone(),
            Self::In(span) => format!("{:.3}", whole_millis(later(now, *span))),
        }
    }

    /// The instant.
    pub(crate) fn instant(&self, now: Timestamp) -> Timestamp {
        match self {
            // It was parsed before.
            Self::At(text) => text.parse().unwrap_or(now),
            Self::In(span) => whole_millis(later(now, *span)),
        }
    }
}

/// Reads a span; a day is 24 hours. Zero and more than a hundred years are refused.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let rule = || SPAN_RULE.to_owned();
    let span: Span = text.parse().map_err(|_| rule())?;
    let span: SignedDuration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| rule())?;
    let span = Duration::try_from(span).map_err(|_| rule())?;
    if span.is_zero() || span > SPAN_MAX {
        return Err(rule());
    }
    Ok(span)
}

/// An instant in the past: RFC 3339, or a span before now.
pub(crate) fn since(text: &str, now: Timestamp) -> Result<String, String> {
    if text.parse::<Timestamp>().is_ok() {
        return Ok(text.to_owned());
    }
    let span = parse_span(text).map_err(|_| {
        "must be RFC 3339 with a zone, or a span before now like 2h or 7d".to_owned()
    })?;
    let ago = SignedDuration::try_from(span).unwrap_or(SignedDuration::ZERO);
    Ok(whole_seconds(now.checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH)).to_string())
}

fn later(now: Timestamp, span: Duration) -> Timestamp {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::ZERO);
    now.checked_add(span).unwrap_or(Timestamp::MAX)
}

/// Never earlier than asked for.
fn whole_millis(at: Timestamp) -> Timestamp {
    let up = at.checked_add(SignedDuration::from_nanos(999_999));
    Timestamp::from_millisecond(up.unwrap_or(at).as_millisecond()).unwrap_or(at)
}

fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2030-01-31T07:00:00.5Z".parse().unwrap()
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for bad in [
            "",
            "+",
            "+-10m",
            "-10m",
            "10m",
            "+0s",
            "tomorrow",
            "2030-01-31",
            "2030-01-31T07:00:00",
            "2030-02-30T07:00:00Z",
            "+200y",
            "+1 fortnight",
        ] {
            assert!(When::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_nearly_an_instant_is_refused_with_what_it_lacks() {
        let said = |text| When::parse(text).unwrap_err();
        assert_eq!(said("tomorrow"), RULE);
        assert!(said("2030-01-31T07:00:00").contains("no zone"));
        assert!(said("2030-02-30T07:00:00Z").contains("does not exist"));
    }

    #[test]
    fn spans_from_now_become_instants_in_utc() {
        let text = |text| When::parse(text).unwrap().text(now());
        assert_eq!(text("+10m"), "2030-01-31T07:10:00.500Z");
        assert_eq!(text("+1d"), "2030-02-01T07:00:00.500Z");
        assert_eq!(text("+1h30m"), "2030-01-31T08:30:00.500Z");
        assert_eq!(text("+500ms"), "2030-01-31T07:00:01.000Z");
        // Never too early, not by a nanosecond either.
        let later = now() + SignedDuration::from_nanos(1);
        let soon = When::parse("+1s").unwrap();
        assert_eq!(soon.text(later), "2030-01-31T07:00:01.501Z");
        assert!(soon.instant(later) >= later + SignedDuration::from_secs(1));
        assert_eq!(
            text("2030-01-31T07:00:00+09:00"),
            "2030-01-31T07:00:00+09:00"
        );
    }

    #[test]
    fn the_past_is_named_by_instant_or_span() {
        assert_eq!(since("2h", now()).unwrap(), "2030-01-31T05:00:00Z");
        assert_eq!(since("7d", now()).unwrap(), "2030-01-24T07:00:00Z");
        assert_eq!(
            since("2030-01-01T00:00:00Z", now()).unwrap(),
            "2030-01-01T00:00:00Z"
        );
        assert!(since("yesterday", now()).is_err());
    }
}
