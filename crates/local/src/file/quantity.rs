//! Text forms of the quantities in the workload file, and the reading of each.
//!
//! A duration is `1.5s`, `10m`, `1h30m`; memory is `512MiB`, `32GiB` or a whole number of bytes; a share of
//! processors is a number such as `0.5`. Reading keeps integers only (nanoseconds, bytes, thousandths of a
//! processor), so that sums over replicas are exact. What each field allows is checked in `validate`, where the
//! place in the file is known; this file only says whether a text is a quantity at all.

use std::time::Duration;

use jiff::SignedDuration;

/// The binary and decimal units of memory, longest first so that `MiB` is not read as `B`.
const MEMORY_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// What a text that is no quantity should have been; the text of the error shown to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{allowed}")]
pub(super) struct NotAQuantity {
    allowed: &'static str,
}

/// Reads a duration such as `250ms`, `1.5s`, `10m` or `1h30m`. Negative durations are refused.
pub(super) fn duration(text: &str) -> Result<Duration, NotAQuantity> {
    const ALLOWED: NotAQuantity = NotAQuantity {
        allowed: "a duration with its unit: 250ms, 1.5s, 10m or 1h30m",
    };
    let parsed: SignedDuration = text.trim().parse().map_err(|_| ALLOWED)?;
    Duration::try_from(parsed).map_err(|_| ALLOWED)
}

/// A duration as [`duration`] reads it: `1s`, `720h`.
pub(super) fn in_words(duration: Duration) -> String {
    SignedDuration::try_from(duration).map_or_else(
        |_| format!("{duration:?}"),
        |duration| format!("{duration:#}"),
    )
}

/// Reads an amount of memory in bytes: `512MiB`, `1.5GiB`, `64MB` or a whole number of bytes.
pub(super) fn memory(text: &str) -> Result<u64, NotAQuantity> {
    const ALLOWED: NotAQuantity = NotAQuantity {
        allowed: "an amount of memory: 512MiB, 1.5GiB, 64MB or a whole number of bytes",
    };
    let text = text.trim();
    let (number, unit) = MEMORY_UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
        .unwrap_or((text, 1));
    decimal(number.trim_end(), unit).ok_or(ALLOWED)
}

/// Reads a number of processors in thousandths: `2`, `0.5`, `0.125`.
pub(super) fn cpu_milli(text: &str) -> Result<u64, NotAQuantity> {
    const ALLOWED: NotAQuantity = NotAQuantity {
        allowed: "a number of processors in steps of 0.001: 2, 0.5 or 0.125",
    };
    decimal(text.trim(), 1_000).ok_or(ALLOWED)
}

/// Reads an amount of money in millionths of the currency: `3.06`, `0`, `0.000001`.
pub(super) fn money_micro(text: &str) -> Result<u64, NotAQuantity> {
    const ALLOWED: NotAQuantity = NotAQuantity {
        allowed: "an amount of money in steps of 0.000001, not negative: 3.06 or 0",
    };
    decimal(text.trim(), 1_000_000).ok_or(ALLOWED)
}

/// `text` as a decimal number times `scale`, when that is a whole number that fits.
///
/// Integers only: `0.1 + 0.2` of a processor must fit exactly into `0.3`.
fn decimal(text: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    // Above 18 digits the power of ten no longer fits; a real fraction never needs them.
    let fraction = fraction.trim_end_matches('0');
    let power = 10_u128.checked_pow(u32::try_from(fraction.len()).ok().filter(|n| *n <= 18)?)?;
    let fraction: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    let whole: u128 = whole.parse().ok()?;
    let scaled = whole
        .checked_mul(u128::from(scale))?
        .checked_add(fraction.checked_mul(u128::from(scale))? / power)?;
    let exact = fraction
        .checked_mul(u128::from(scale))?
        .is_multiple_of(power);
    if exact {
        u64::try_from(scaled).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_are_not_negative() {
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in [
            "",
            "5",
            "-5s",
            "5 parsecs",
            "s",
            "1.5.5s",
            "999999999999999999999h",
        ] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn durations_are_said_as_they_are_written() {
        for text in ["1s", "720h", "10m", "0s", "1h 30m"] {
            assert_eq!(in_words(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn memory_is_whole_bytes() {
        assert_eq!(memory("512MiB"), Ok(512 << 20));
        assert_eq!(memory("1.5GiB"), Ok(3 << 29));
        assert_eq!(memory("64MB"), Ok(64_000_000));
        assert_eq!(memory("4096"), Ok(4_096));
        assert_eq!(memory("7B"), Ok(7));
        for wrong in [
            "",
            "MiB",
            "-1MiB",
            "0.3B",
            "1.5",
            "1 Mib",
            "1e9",
            "99999999999TiB",
        ] {
            assert!(memory(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn processors_and_money_keep_their_steps_exactly() {
        assert_eq!(cpu_milli("0.5"), Ok(500));
        assert_eq!(cpu_milli("2"), Ok(2_000));
        assert_eq!(cpu_milli("0.1000"), Ok(100));
        assert!(cpu_milli("0.0001").is_err());
        assert!(cpu_milli(".5").is_err());
        assert_eq!(money_micro("3.06"), Ok(3_060_000));
        assert!(money_micro("-3").is_err());
        assert!(money_micro("NaN").is_err());
    }
}
