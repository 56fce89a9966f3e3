//! One line of the log: a compact JSON object, built in place and bounded.
//!
//! The founding documents search the bytes (`grep '"level":"error"'`), so there is no blank after a
//! colon and the order of the first fields is fixed. Every string has a budget in *encoded* bytes; a
//! value that does not fit is shortened, and the line says so with `"truncated":true`.
//! It deliberately writes no nested objects and never `null`.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;

use crate::level::Level;
use crate::names::field;

/// Longest line, with its line feed: `PIPE_BUF` on Linux. The kernel writes up to this much into a
/// pipe in one piece, so lines stay whole even when another process writes to the same pipe.
pub const LINE_BYTES_MAX: usize = 4096;

/// The end of a shortened line.
const TAIL: &str = ",\"truncated\":true}\n";
/// Marks where a value was cut.
const ELLIPSIS: &str = "…";
/// Longest single value outside of request lines, encoded: an error with its causes or a reason of
/// 500 characters fits, and one value cannot crowd out the others.
pub(crate) const VALUE_BYTES_MAX: usize = 2048;

/// What is done with control characters in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controls {
    /// Escaped: our own texts and errors, where a line break means something.
    Escape,
    /// Replaced by U+FFFD: text from clients. `jq -r` would turn an escape back into the control
    /// character and hand it to the terminal of the reader.
    Replace,
}

/// A line under construction.
#[derive(Debug)]
pub(crate) struct Line {
    bytes: String,
    truncated: bool,
}

// === impl Line ===

impl Line {
    /// Begins a line in `buffer`, whose capacity is used again.
    pub(crate) fn begin(mut buffer: String, now: Timestamp, level: Level, message: &str) -> Self {
        buffer.clear();
        let mut line = Self {
            bytes: buffer,
            truncated: false,
        };
        line.bytes.push_str("{\"");
        line.bytes.push_str(field::TIMESTAMP);
        line.bytes.push_str("\":\"");
        let start = line.bytes.len();
        line.format(format_args!("{now:.3}"));
        let end = line.bytes.len();
        line.bytes.push_str("\",\"");
        line.bytes.push_str(field::TIME);
        line.bytes.push_str("\":\"");
        line.bytes.extend_from_within(start..end);
        line.bytes.push('"');
        line.text(field::LEVEL, level.as_str());
        line.string(field::MESSAGE, message, VALUE_BYTES_MAX, Controls::Escape);
        line
    }

    /// A field whose value is our own constant text.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.string(name, value, VALUE_BYTES_MAX, Controls::Escape);
    }

    /// A field with a string of at most `budget` encoded bytes.
    pub(crate) fn string(&mut self, name: &str, value: &str, budget: usize, controls: Controls) {
        // A name and two empty quotes must fit, else the field is left out.
        if !self.name(name, ELLIPSIS.len() + 2) {
            return;
        }
        self.bytes.push('"');
        let rest = self.rest().saturating_sub(1);
        self.escaped(value, budget.min(rest), controls);
        self.bytes.push('"');
    }

    /// A field with a JSON number or boolean, as its `Display` writes it.
    pub(crate) fn literal(&mut self, name: &str, value: impl std::fmt::Display) {
        // 20 digits and a sign are the longest integer; floats go through `float`.
        if self.name(name, 21) {
            self.format(format_args!("{value}"));
        }
    }

    /// A field with a short string that needs no escaping, as its `Display` writes it.
    pub(crate) fn literal_text(&mut self, name: &str, value: impl std::fmt::Display) {
        // The longest is an IPv6 address of 39 characters, with its quotes.
        if self.name(name, 41) {
            self.format(format_args!("\"{value}\""));
        }
    }

    /// A field with a JSON number; what JSON cannot hold (NaN, infinity) becomes a string.
    pub(crate) fn float(&mut self, name: &str, value: f64) {
        // The shortest form that reads back: at most 17 digits with `e` notation.
        if value.is_finite() && self.name(name, 32) {
            self.format(format_args!("{value:e}"));
        } else if !value.is_finite() {
            self.text(name, &value.to_string());
        }
    }

    /// A field with a duration as `<decimal>ms`, to the microsecond: the documents' `sed` takes `ms`
    /// off and `awk` averages, so the unit never changes (A-048).
    pub(crate) fn milliseconds(&mut self, name: &str, value: Duration) {
        if self.name(name, 32) {
            let micros = value.as_nanos().saturating_add(500) / 1000;
            self.format(format_args!("\"{}.{:03}ms\"", micros / 1000, micros % 1000));
        }
    }

    /// Ends the line and gives the buffer back, line feed included.
    pub(crate) fn end(mut self) -> String {
        self.bytes
            .push_str(if self.truncated { TAIL } else { "}\n" });
        self.bytes
    }

    /// Writes `,"name":` if then `room` bytes are left for the value.
    fn name(&mut self, name: &str, room: usize) -> bool {
        let fits = self.rest() >= name.len() + 4 + room;
        if fits {
            self.bytes.push_str(",\"");
            self.bytes.push_str(name);
            self.bytes.push_str("\":");
        } else {
            self.truncated = true;
        }
        fits
    }

    fn rest(&self) -> usize {
        (LINE_BYTES_MAX - TAIL.len()).saturating_sub(self.bytes.len())
    }

    fn format(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing into a `String` cannot fail.
        self.bytes.write_fmt(text).unwrap_or(());
    }

    /// Appends `value`, escaped, in at most `budget` bytes.
    fn escaped(&mut self, value: &str, budget: usize, controls: Controls) {
        let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if value.len() <= budget && value.bytes().all(plain) {
            self.bytes.push_str(value);
            return;
        }
        let start = self.bytes.len();
        // Where the text is cut if it does not fit: the last place with room for the ellipsis.
        let mut cut = start;
        for character in value.chars() {
            self.escape(character, controls);
            let used = self.bytes.len() - start;
            if used > budget {
                self.bytes.truncate(cut);
                self.bytes.push_str(ELLIPSIS);
                self.truncated = true;
                return;
            }
            if used + ELLIPSIS.len() <= budget {
                cut = self.bytes.len();
            }
        }
    }

    fn escape(&mut self, character: char, controls: Controls) {
        match (character, controls) {
            ('"', _) => self.bytes.push_str("\\\""),
            ('\\', _) => self.bytes.push_str("\\\\"),
            (_, Controls::Replace) if is_control(character) => {
                self.bytes.push(char::REPLACEMENT_CHARACTER);
            }
            ('\n', Controls::Escape) => self.bytes.push_str("\\n"),
            ('\r', Controls::Escape) => self.bytes.push_str("\\r"),
            ('\t', Controls::Escape) => self.bytes.push_str("\\t"),
            _ if is_control(character) => {
                // Every character that counts as control lies in the basic plane: four digits do.
                self.format(format_args!("\\u{:04x}", u32::from(character)));
            }
            _ => self.bytes.push(character),
        }
    }
}

/// Control characters, line separators, and marks that turn the direction of the text around: what
/// could break a line, move a cursor or disguise a name.
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests;
