//! The one-off wake: what instant a text means, and what to do when it comes.
//!
//! The text is RFC 3339 with `T` and a zone offset. The offset names the instant and nothing else: the host's
//! time zone is never asked. A leap second is refused, because no later arithmetic could keep it (R07).

use std::time::Duration;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

use crate::intent::{Action, Actor, Change, IntentUpdate};
use crate::quantity::Replicas;
use crate::text::ReasonText;
use crate::wake_count::{Wish, wake_count};
use crate::workload::Workload;

/// Longest time for which a wake may be set ahead: one year, a leap day included (R07).
pub const AHEAD_MAX: Duration = Duration::from_hours(8784);
/// How soon to look again at a schedule that is due but cannot fire because nobody knows the count.
pub const STUCK_RETRY: Duration = Duration::from_mins(1);

/// Why a text is no instant to wake at.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InstantError {
    /// Not `YYYY-MM-DDTHH:MM:SS[.fraction](Z|±HH:MM)`.
    #[error("must be RFC 3339 with 'T' and a zone, like 2030-01-31T07:00:00+09:00")]
    Form,
    /// The offset is missing.
    #[error("has no zone: add Z or an offset like +09:00")]
    NoZone,
    /// Second 60.
    #[error("names a leap second, which is not supported: use second 59")]
    LeapSecond,
    /// The 30th of February, hour 24, and the like.
    #[error("names a date or time that does not exist")]
    NotReal,
    /// Now or earlier.
    #[error("must lie in the future, it is {now:.3} now")]
    Past {
        /// The moment of judgement.
        now: Timestamp,
    },
    /// More than [`AHEAD_MAX`] away.
    #[error("must lie at most one year ahead")]
    TooFar,
}

/// Reads the instant of a one-off wake.
///
/// # Errors
/// Not RFC 3339, without zone, not real, a leap second, not later than `now`, or more than a year ahead.
pub fn parse_instant(text: &str, now: Timestamp) -> Result<Timestamp, InstantError> {
    let at = parse_rfc3339(text)?;
    if at <= now {
        return Err(InstantError::Past { now });
    }
    let ahead = SignedDuration::try_from(AHEAD_MAX).map_err(|_| InstantError::TooFar)?;
    if at.duration_since(now) > ahead {
        return Err(InstantError::TooFar);
    }
    Ok(at)
}

fn parse_rfc3339(text: &str) -> Result<Timestamp, InstantError> {
    let (date, rest) = text.split_at_checked(10).ok_or(InstantError::Form)?;
    let rest = rest.strip_prefix(['T', 't']).ok_or(InstantError::Form)?;
    let (clock, rest) = rest.split_at_checked(8).ok_or(InstantError::Form)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let (nanosecond, zone) = fraction(rest)?;
    if zone.is_empty() {
        return Err(InstantError::NoZone);
    }
    let offset = offset(zone)?;
    if second == 60 {
        return Err(InstantError::LeapSecond);
    }
    let small = |n: i16| i8::try_from(n).map_err(|_| InstantError::NotReal);
    let date = Date::new(year, small(month)?, small(day)?).map_err(|_| InstantError::NotReal)?;
    let time = Time::new(small(hour)?, small(minute)?, small(second)?, nanosecond)
        .map_err(|_| InstantError::NotReal)?;
    // Date and time are real by now; only the last hours of the year 9999 are no instant that can be kept.
    offset
        .to_timestamp(DateTime::from_parts(date, time))
        .map_err(|_| InstantError::TooFar)
}

fn numbers<const N: usize>(
    text: &str,
    separator: char,
    widths: [usize; N],
) -> Result<[i16; N], InstantError> {
    let mut out = [0; N];
    let mut parts = text.split(separator);
    for (slot, width) in out.iter_mut().zip(widths) {
        let part = parts.next().ok_or(InstantError::Form)?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InstantError::Form);
        }
        *slot = part.parse().map_err(|_| InstantError::Form)?;
    }
    if parts.next().is_some() {
        Err(InstantError::Form)
    } else {
        Ok(out)
    }
}

/// Splits `.123Z` into nanoseconds and the zone; digits beyond the ninth are dropped.
fn fraction(rest: &str) -> Result<(i32, &str), InstantError> {
    let Some(tail) = rest.strip_prefix('.') else {
        return Ok((0, rest));
    };
    let end = tail
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(tail.len());
    let (digits, zone) = tail.split_at_checked(end).ok_or(InstantError::Form)?;
    if digits.is_empty() {
        return Err(InstantError::Form);
    }
    let nine: String = digits
        .chars()
        .chain(std::iter::repeat('0'))
        .take(9)
        .collect();
    Ok((nine.parse().map_err(|_| InstantError::Form)?, zone))
}

fn offset(zone: &str) -> Result<Offset, InstantError> {
    if matches!(zone, "Z" | "z") {
        return Ok(Offset::UTC);
    }
    let (sign, digits) = match zone.split_at_checked(1) {
        Some(("+", digits)) => (1, digits),
        Some(("-", digits)) => (-1, digits),
        Some(_) | None => return Err(InstantError::Form),
    };
    let [hours, minutes] = numbers(digits, ':', [2, 2])?;
    if hours > 23 || minutes > 59 {
        return Err(InstantError::NotReal);
    }
    let seconds = sign * (i32::from(hours) * 3600 + i32::from(minutes) * 60);
    Offset::from_seconds(seconds).map_err(|_| InstantError::NotReal)
}

/// What a pending one-off wake asks for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Nothing is scheduled.
    Nothing,
    /// Look again at this instant.
    NotYet(Timestamp),
    /// Write this: it wakes the workload and removes the schedule, in one update.
    Fire(IntentUpdate),
    /// Write this: the workload was awake already, so the schedule is only removed and recorded.
    Drop(IntentUpdate),
    /// Due, but nobody knows to how many replicas; look again after [`STUCK_RETRY`].
    Stuck,
}

/// Judges the pending one-off wake of one workload at `now`.
pub fn decide(workload: &Workload, now: Timestamp) -> Due {
    let Some(scheduled) = &workload.intent.scheduled else {
        return Due::Nothing;
    };
    if now < scheduled.at {
        return Due::NotYet(scheduled.at);
    }
    let mut intent = workload.intent.clone();
    intent.scheduled = None;
    let mut change = Change {
        time: now,
        action: Action::ScheduleCancelled,
        actor: Actor::Schedule,
        reason: reason(&format!("scheduled for {}, awake already", scheduled.at)),
        request_id: scheduled.request_id.clone(),
        from: workload.desired,
        to: workload.desired,
    };
    if !workload.desired.is_zero() {
        intent.record(change);
        return Due::Drop(IntentUpdate {
            desired: workload.desired,
            intent,
        });
    }
    let Some((count, _)) = wake_count(Wish::default(), workload) else {
        return Due::Stuck;
    };
    change.action = Action::ScheduledWake;
    change.reason = reason(&format!(
        "scheduled for {} by {}",
        scheduled.at, scheduled.actor
    ));
    change.to = Replicas::from(count);
    intent.asleep = None;
    intent.last_scale_time = Some(now);
    intent.record(change);
    Due::Fire(IntentUpdate {
        desired: count.into(),
        intent,
    })
}

/// A reason made by a rule; it is never empty and far below the limit.
pub(crate) fn reason(text: &str) -> ReasonText {
    ReasonText::new(text).expect("reasons of rules are short and not empty")
}

#[cfg(test)]
mod tests;
