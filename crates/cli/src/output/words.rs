//! Small words for people: spans of time, counts, and text of others made safe to show.

use std::time::Duration;

use jiff::Timestamp;

/// Text that somebody else wrote, on one line and without characters that would act on a terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() || is_bidi_override(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Characters that would make a line read other than it is stored.
fn is_bidi_override(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A span in its two largest units: `250ms`, `42s`, `3m12s`, `2h5m`, `4d3h`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let millis = span.subsec_millis();
    if seconds == 0 && millis > 0 {
        return format!("{millis}ms");
    }
    let (days, hours, minutes, rest) = (
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    );
    let two = |large: u64, large_unit: char, small: u64, small_unit: char| {
        if small == 0 {
            format!("{large}{large_unit}")
        } else {
            format!("{large}{large_unit}{small}{small_unit}")
        }
    };
    if days > 0 {
        two(days, 'd', hours, 'h')
    } else if hours > 0 {
        two(hours, 'h', minutes, 'm')
    } else if minutes > 0 {
        two(minutes, 'm', rest, 's')
    } else {
        format!("{rest}s")
    }
}

/// Time from `from` to `to`; none when it would be negative, because clocks jump.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// Seconds with one decimal: `0.3 s`, `128.0 s`.
pub(crate) fn seconds(seconds: f64) -> String {
    format!("{seconds:.1} s")
}

/// How long something took, as exact as its steps are shown: `0.03 s`.
pub(crate) fn took(took: Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}

/// An instant as people compare it with now: `in 3m12s`, `5m ago`, `now`.
pub(crate) fn relative(at: Timestamp, now: Timestamp) -> String {
    let (ahead, behind) = (between(now, at), between(at, now));
    if ahead.as_secs() > 0 {
        format!("in {}", span(ahead))
    } else if behind.as_secs() > 0 {
        format!("{} ago", span(behind))
    } else {
        "now".to_owned()
    }
}

/// `1 replica`, `2 replicas`.
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 {
        format!("1 {one}")
    } else {
        format!("{number} {one}s")
    }
}

/// Bytes in the unit that fits, with one digit behind the point: `595.0 MiB`, `7.6 GiB`, `512 B`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = UNITS.iter().zip((10..).step_by(10));
    // In tenths, rounded; a thousand of one unit and a half is better said in the next.
    let tenths = |shift: u32| (u128::from(bytes) * 10 + (1 << (shift - 1))) >> shift;
    let fits = unit.find(|(_, shift)| tenths(*shift) < 10_240);
    let (name, shift) = fits.unwrap_or((&"EiB", 60));
    let tenths = tenths(shift);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// A part of a whole in percent, rounded to the nearest: `53%`; what is there but less than a half is `<1%`.
pub(crate) fn share(part: u64, whole: u64) -> String {
    let whole = u128::from(whole);
    let percent = (u128::from(part) * 200 + whole)
        .checked_div(2 * whole)
        .unwrap_or(0);
    if percent == 0 && part > 0 {
        return "<1%".to_owned();
    }
    format!("{percent}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_act_on_the_terminal() {
        assert_eq!(clean("a\nb\tc"), "a b c");
        assert_eq!(
            clean("\u{1b}[2Jx\u{7}\u{9b}\u{202e}"),
            "\u{fffd}[2Jx\u{fffd}\u{fffd}\u{fffd}"
        );
        assert_eq!(clean("コスト最適化"), "コスト最適化");
    }

    #[test]
    fn spans_have_at_most_two_units() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (192, "3m12s"),
            (3600, "1h"),
            (7500, "2h5m"),
            (86_399, "23h59m"),
            (86_400, "1d"),
            (356_400, "4d3h"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
        for (millis, expected) in [(1, "1ms"), (999, "999ms"), (1_999, "1s")] {
            assert_eq!(span(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn bytes_are_said_in_the_unit_that_fits() {
        for (number, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_047_000, "1022.5 KiB"),
            (595 << 20, "595.0 MiB"),
            (8_160_437_862, "7.6 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
    }

    // B-009: rounded to the nearest, so that a table may come to 101.
    #[test]
    fn shares_are_rounded_to_the_nearest() {
        let sizes = [1800, 920, 432, 273];
        let whole = sizes.iter().sum();
        let shares = sizes.map(|size| share(size, whole));
        assert_eq!(shares, ["53%", "27%", "13%", "8%"]);
        assert_eq!(share(1, 1000), "<1%");
        assert_eq!(share(0, 1000), "0%");
        assert_eq!(share(5, 0), "<1%");
    }

    #[test]
    fn clocks_that_jump_make_no_negative_spans() {
        let at: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let later: Timestamp = "2030-01-01T00:03:12Z".parse().unwrap();
        assert_eq!(between(later, at), Duration::ZERO);
        assert_eq!(relative(later, at), "in 3m12s");
        assert_eq!(relative(at, later), "3m12s ago");
        assert_eq!(relative(at, at), "now");
    }
}
