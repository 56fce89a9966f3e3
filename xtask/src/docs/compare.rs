//! Compares what a block printed with what its page shows.
//!
//! `...` alone on a line stands for any number of lines, and inside a line for any characters; in JSON the string
//! `"..."` stands for any value, and a member called `"..."` for further members. Everything else must be the same,
//! blanks at the end of a line and empty lines around the output aside.

use serde_json::Value;

/// What a page shows as output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Lines.
    Text(String),
    /// One JSON document, however it is laid out.
    Json(String),
}

const ANYTHING: &str = "...";

// === impl Expected ===

impl Expected {
    /// Output shown in a block of `language`.
    pub(super) fn of(language: &str, text: &str) -> Self {
        if language == "json" {
            Self::Json(text.to_owned())
        } else {
            Self::Text(text.to_owned())
        }
    }

    /// Says whether `actual` is what the page shows.
    pub(super) fn accepts(&self, actual: &str) -> bool {
        match self {
            Self::Text(text) => lines_match(&lines(text), &lines(actual)),
            Self::Json(text) => {
                let read = |text: &str| serde_json::from_str::<Value>(text);
                match (read(text), read(actual)) {
                    (Ok(expected), Ok(actual)) => values_match(&expected, &actual),
                    (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
                }
            }
        }
    }

    /// The text on the page.
    pub(super) fn shown(&self) -> &str {
        match self {
            Self::Text(text) | Self::Json(text) => text,
        }
    }
}

fn lines(text: &str) -> Vec<&str> {
    text.trim_matches('\n').lines().map(str::trim_end).collect()
}

fn lines_match(expected: &[&str], actual: &[&str]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((first, rest)) if first.trim() == ANYTHING => (0..=actual.len()).any(|skipped| {
            actual
                .get(skipped..)
                .is_some_and(|after| lines_match(rest, after))
        }),
        Some((first, rest)) => actual
            .split_first()
            .is_some_and(|(line, after)| line_matches(first, line) && lines_match(rest, after)),
    }
}

/// The parts between `...` occur in order, the first at the start and the last at the end.
fn line_matches(expected: &str, actual: &str) -> bool {
    let mut parts = expected.split(ANYTHING);
    let Some(mut rest) = parts.next().and_then(|first| actual.strip_prefix(first)) else {
        return false;
    };
    let mut middle: Vec<&str> = parts.collect();
    let Some(last) = middle.pop() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn values_match(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::String(text), _) if text == ANYTHING => true,
        (Value::Array(expected), Value::Array(actual)) => {
            expected.len() == actual.len()
                && expected
                    .iter()
                    .zip(actual)
                    .all(|(expected, actual)| values_match(expected, actual))
        }
        (Value::Object(expected), Value::Object(actual)) => {
            let open = expected.contains_key(ANYTHING);
            let named = expected.iter().filter(|(name, _)| *name != ANYTHING);
            named.clone().all(|(name, value)| {
                actual
                    .get(name)
                    .is_some_and(|found| values_match(value, found))
            }) && (open || named.count() == actual.len())
        }
        (expected, actual) => expected == actual,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_accepts(expected: &str, actual: &str) -> bool {
        Expected::of("text", expected).accepts(actual)
    }

    fn json_accepts(expected: &str, actual: &str) -> bool {
        Expected::of("json", expected).accepts(actual)
    }

    #[test]
    fn same_lines_are_accepted_and_others_are_not() {
        assert!(text_accepts("a\nb\n", "a  \nb\n\n"));
        assert!(!text_accepts("a\nb\n", "a\n"));
        assert!(!text_accepts("a\n", "a\nb\n"));
        assert!(!text_accepts("a\n", "ab\n"));
    }

    #[test]
    fn dots_stand_for_lines_and_for_parts_of_a_line() {
        assert!(text_accepts("a\n...\nd\n", "a\nb\nc\nd\n"));
        assert!(text_accepts("a\n...\n", "a\n"));
        assert!(!text_accepts("a\n...\nd\n", "a\nb\n"));
        assert!(text_accepts("took ... ms (...)", "took 12 ms (ok)"));
        assert!(!text_accepts("took ... ms", "took 12 s"));
        assert!(!text_accepts("ab...bc", "abc"));
    }

    #[test]
    fn json_is_compared_by_value() {
        assert!(json_accepts(
            "{\"a\": 1, \"b\": [true]}",
            "{\"b\":[true],\"a\":1}"
        ));
        assert!(json_accepts("{\"a\": \"...\"}", "{\"a\":{\"b\":2}}"));
        assert!(json_accepts(
            "{\"a\": 1, \"...\": \"...\"}",
            "{\"a\":1,\"b\":2}"
        ));
        assert!(!json_accepts("{\"a\": 1}", "{\"a\":1,\"b\":2}"));
        assert!(!json_accepts("{\"a\": 1, \"...\": \"...\"}", "{\"a\":2}"));
        assert!(!json_accepts("{\"a\": 1}", "no json"));
    }
}
