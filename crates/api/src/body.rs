//! Reading a request body: bytes to a JSON value, strict about what JSON is.
//!
//! JSON libraries take the last of two equal keys, turn `1.0` into `1` where an integer is wanted, and differ in what
//! they do with a byte order mark. A body that two programs read differently is a way around a check, so such
//! bodies are refused here: equal keys in one object at any depth, bytes that are no UTF-8, a byte order mark, more
//! than [`DEPTH_MAX`] levels. Numbers keep the kind of their literal. Unknown fields are nobody's business here.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

/// Most bytes of a request body (W-A18, W-A24, R08). The largest useful one is a reason of 500 characters, under 7 KiB
/// even when every character is escaped.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Most levels of a value: the outermost is level 1 (R08). Far below what could exhaust a stack.
pub const DEPTH_MAX: usize = 32;

/// The first number that no 64 bits hold.
const BEYOND_64_BITS: f64 = 18_446_744_073_709_551_616.0;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A JSON value whose numbers remember their literal's kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A literal without fraction and exponent that fits 64 bits.
    Integer(i128),
    /// Any other number: `1.0`, `1e0`, `-0`, or one beyond 64 bits.
    Decimal(f64),
    /// A string.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// An object, keys in the order of the text, each once.
    Object(Vec<(String, Json)>),
}

/// Why bytes are no request body.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BodyError {
    /// Not UTF-8.
    #[error("is not UTF-8: the byte at offset {offset} is part of no character")]
    NotUtf8 {
        /// Of the first bad byte.
        offset: usize,
    },
    /// It begins with a byte order mark.
    #[error("begins with a byte order mark")]
    ByteOrderMark,
    /// Not JSON, an equal key, or too deep.
    #[error("{what}, at line {line}, column {column}")]
    Syntax {
        /// What is wrong there, in words of whoever wrote the body.
        what: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1; that of the last character when the body ends too early.
        column: usize,
    },
    /// JSON, but no object.
    #[error("must be a JSON object, got {0}")]
    NotObject(&'static str),
}

/// A field that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {why}")]
pub struct FieldError {
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
    /// What it must be.
    pub limit: String,
}

impl FieldError {
    /// A field, what is wrong with it, and what it must be.
    pub fn new(field: &str, why: impl fmt::Display, limit: &str) -> Self {
        Self {
            field: field.to_owned(),
            why: why.to_string(),
            limit: limit.to_owned(),
        }
    }
}

/// True for a body without content: nothing, or blanks only (K-05, R01).
pub fn is_blank(bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.trim().is_empty(),
        Err(_) => false,
    }
}

impl Json {
    /// Reads a body that must hold one JSON object.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, BodyError> {
        if bytes.starts_with(BYTE_ORDER_MARK) {
            return Err(BodyError::ByteOrderMark);
        }
        let text = std::str::from_utf8(bytes).map_err(|e| BodyError::NotUtf8 {
            offset: e.valid_up_to(),
        })?;
        let mut parser = serde_json::Deserializer::from_str(text);
        let value = Seed { depth: 1 }
            .deserialize(&mut parser)
            .and_then(|value| parser.end().map(|()| value))
            .map_err(|error| misread(text, &error))?;
        if matches!(value, Self::Object(_)) {
            Ok(value)
        } else {
            Err(BodyError::NotObject(value.kind()))
        }
    }

    /// The value of a field of this object.
    pub fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) => fields.iter().find(|(key, _)| key == name).map(|(_, v)| v),
            Self::Null
            | Self::Bool(_)
            | Self::Integer(_)
            | Self::Decimal(_)
            | Self::Text(_)
            | Self::Array(_) => None,
        }
    }

    /// The kind of value, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Decimal(number) if number.abs() >= BEYOND_64_BITS => "a number beyond 64 bits",
            Self::Decimal(_) => "a number that is not written as an integer",
            Self::Text(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// What the parser stumbled over, in words of our own and counted in characters.
fn misread(text: &str, error: &serde_json::Error) -> BodyError {
    let (line, bytes) = (error.line(), error.column());
    let its_words = error.to_string();
    let place = format!(" at line {line} column {bytes}");
    let its_words = its_words.strip_suffix(&place).unwrap_or(&its_words);
    // What is wrong with the content, and not with the JSON, was said by `Seed`.
    let what = if error.is_data() {
        its_words
    } else {
        in_our_words(its_words)
    };
    let chars_of = |line: usize, bytes: usize| {
        let text = text
            .split('\n')
            .nth(line.saturating_sub(1))
            .unwrap_or_default();
        let until = text.as_bytes().get(..bytes).unwrap_or(text.as_bytes());
        String::from_utf8_lossy(until).chars().count()
    };
    // The parser counts a line feed as the beginning of the line behind it.
    let (line, column) = if bytes == 0 && line > 1 {
        (line - 1, chars_of(line - 1, usize::MAX) + 1)
    } else {
        (line, chars_of(line, bytes).max(1))
    };
    BodyError::Syntax {
        what: what.to_owned(),
        line,
        column,
    }
}

/// The parser has no codes for its errors, only texts. One that is not in the table is none of the client's business.
fn in_our_words(its_words: &str) -> &'static str {
    match its_words {
        "EOF while parsing a list" => "it ends inside an array: a `]` is missing",
        "EOF while parsing an object" => "it ends inside an object: a `}` is missing",
        "EOF while parsing a string" => "it ends inside a string: a `\"` is missing",
        "EOF while parsing a value" => "it ends where a value must follow",
        "expected `:`" => "a `:` must follow the key",
        "expected `,` or `]`" => "a `,` or `]` must follow the element",
        "expected `,` or `}`" => "a `,` or `}` must follow the value",
        "expected ident" | "expected value" => {
            "no JSON value: it must be a string in `\"`, a number, true, false, null, an array or an object"
        }
        "key must be a string" | "expected `\"`" => "a key must be a string in `\"`",
        "trailing comma" => "a comma with nothing behind it",
        "trailing characters" => "something stands behind the object",
        "invalid number" => "no JSON number",
        "number out of range" => "a number that is too large",
        "invalid escape" => {
            "an escape that JSON does not have; allowed are \\\" \\\\ \\/ \\b \\f \\n \\r \\t and \\u with four digits"
        }
        "lone leading surrogate in hex escape"
        | "unexpected end of hex escape"
        | "invalid unicode code point" => "an escape that stands for no character",
        "control character (\\u0000-\\u001F) found while parsing a string" => {
            "a control character inside a string: write it as an escape, such as \\n or \\u0000"
        }
        _ => "not JSON",
    }
}

/// Reads one value at a known depth.
struct Seed {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seed {
    fn inner<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth > DEPTH_MAX {
            return Err(E::custom(format_args!(
                "nested deeper than {DEPTH_MAX} levels"
            )));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Decimal(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        // The limit is checked before an element is read, so that depth never grows the stack past it.
        self.inner::<A::Error>()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.inner::<A::Error>()?)? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        self.inner::<A::Error>()?;
        let mut fields: Vec<(String, Json)> = Vec::new();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                // The key is the client's text: it is shown shortened, and quoted by the caller's encoder.
                let shown: String = key.chars().take(40).collect();
                return Err(A::Error::custom(format_args!("key {shown:?} stands twice")));
            }
            let value = map.next_value_seed(self.inner::<A::Error>()?)?;
            fields.push((key, value));
        }
        Ok(Json::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Json, BodyError> {
        Json::read(text.as_bytes())
    }

    fn syntax(text: &str) -> String {
        match read(text) {
            Err(BodyError::Syntax { what, .. }) => what,
            other => panic!("{text}: {other:?}"),
        }
    }

    // F07, R08
    #[test]
    fn a_key_may_stand_once_at_any_depth() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"reason":"x","x":[{"b":{"c":1,"c":2}}]}"#,
            r#"{"a":1,"\u0061":2}"#,
        ] {
            assert!(syntax(text).contains("stands twice"), "{text}");
        }
        assert!(read(r#"{"a":{"x":1},"b":{"x":1},"A":0}"#).is_ok());
    }

    // R08
    #[test]
    fn thirty_two_levels_are_accepted_and_thirty_three_refused() {
        let nested = |levels: usize, inner: &str| {
            format!(
                "{{\"a\":{}{inner}{}}}",
                "[".repeat(levels - 1),
                "]".repeat(levels - 1)
            )
        };
        assert!(read(&nested(DEPTH_MAX, "")).is_ok());
        assert!(read(&nested(DEPTH_MAX, "1")).is_ok());
        assert!(syntax(&nested(DEPTH_MAX + 1, "")).contains("deeper than 32"));
        assert!(syntax(&nested(5000, "")).contains("deeper than 32"));
    }

    // F07
    #[test]
    fn bytes_that_programs_read_differently_are_refused() {
        assert_eq!(Json::read(b"\xEF\xBB\xBF{}"), Err(BodyError::ByteOrderMark));
        assert_eq!(
            Json::read(b"{\"a\":\"\xff\"}"),
            Err(BodyError::NotUtf8 { offset: 6 })
        );
        for text in [
            "{} {}",
            "{}x",
            "{'a':1}",
            "{\"a\":1,}",
            "{\"a\":01}",
            "{\"a\":NaN}",
            "{",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":1e999}",
            "// c\n{}",
            "{\"a\":\"\n\"}",
        ] {
            assert!(
                matches!(read(text), Err(BodyError::Syntax { .. })),
                "{text}"
            );
        }
        for text in ["[]", "1", "\"x\"", "null", "true"] {
            assert!(matches!(read(text), Err(BodyError::NotObject(_))), "{text}");
        }
    }

    // Issue 3: the author of a body reads what to mend, and where, and nothing about our parser.
    #[test]
    fn what_is_no_json_is_told_with_its_place_in_words_of_its_author() {
        let rows = [
            ("{", (1, 1), "a `}` is missing"),
            ("{\"a\":[1", (1, 7), "a `]` is missing"),
            ("{\"a\":\"x", (1, 7), "a `\"` is missing"),
            ("{\"a\":", (1, 5), "a value must follow"),
            ("{\"a\" 1}", (1, 6), "a `:` must follow the key"),
            ("{\"a\":[1 2]}", (1, 9), "a `,` or `]` must follow"),
            (
                "{\n  \"a\": 1\n  \"b\": 2}",
                (3, 3),
                "a `,` or `}` must follow",
            ),
            ("{\"a\":nope}", (1, 7), "no JSON value"),
            ("{\"a\":NaN}", (1, 6), "no JSON value"),
            ("{a:1}", (1, 2), "a key must be a string"),
            ("{'a':1}", (1, 2), "a key must be a string"),
            ("{\"a\":1,}", (1, 8), "a comma with nothing behind it"),
            ("{\"a\":[1,]}", (1, 9), "a comma with nothing behind it"),
            ("{} x", (1, 4), "something stands behind the object"),
            ("{\"a\":01}", (1, 7), "no JSON number"),
            ("{\"a\":-}", (1, 7), "no JSON number"),
            ("{\"a\":1e999}", (1, 10), "too large"),
            (
                "{\"a\":\"\\x\"}",
                (1, 8),
                "an escape that JSON does not have",
            ),
            ("{\"a\":\"\\ud800\"}", (1, 13), "stands for no character"),
            ("{\"a\":\"\\u12\"}", (1, 12), "an escape that"),
            (
                "{\"a\":\"\n\"}",
                (1, 7),
                "a control character inside a string",
            ),
            ("{\"あい\":1 2}", (1, 9), "a `,` or `}` must follow"),
            ("{\"a\":1,\"a\":2}", (1, 10), "key \"a\" stands twice"),
            ("// c\n{}", (1, 1), "no JSON value"),
        ];
        // Words of the library, and of the trade of those who wrote it.
        let theirs = [
            "EOF",
            "pars",
            "expected",
            "ident",
            "trailing",
            "surrogate",
            "invalid",
        ];
        for (text, place, part) in rows {
            let error = read(text).unwrap_err();
            let BodyError::Syntax { what, line, column } = &error else {
                panic!("{text}: {error:?}")
            };
            assert!(
                what.contains(part) && (*line, *column) == place,
                "{text}: {error}, and not {place:?} {part}"
            );
            let said = error.to_string();
            assert!(
                theirs.iter().all(|word| !said.contains(word)),
                "{text}: {said}"
            );
        }
    }

    // R06
    #[test]
    fn a_number_keeps_the_kind_of_its_literal() {
        let number = |literal: &str| {
            read(&format!("{{\"n\":{literal}}}"))
                .unwrap()
                .field("n")
                .cloned()
        };
        assert_eq!(number("1"), Some(Json::Integer(1)));
        assert_eq!(number("-1"), Some(Json::Integer(-1)));
        assert_eq!(
            number("18446744073709551615"),
            Some(Json::Integer(u64::MAX.into()))
        );
        for literal in ["1.0", "1e0", "1E2", "-0", "18446744073709551616", "0.5"] {
            assert!(
                matches!(number(literal), Some(Json::Decimal(_))),
                "{literal}"
            );
        }
        let kind = |literal: &str| number(literal).unwrap().kind();
        for literal in [
            "18446744073709551616",
            "-99999999999999999999999999",
            "1e30",
        ] {
            assert_eq!(kind(literal), "a number beyond 64 bits", "{literal}");
        }
        assert_eq!(kind("1.0"), "a number that is not written as an integer");
    }

    // K-05, R01
    #[test]
    fn blanks_are_no_body() {
        for blank in ["", " ", "\r\n\t ", "\u{3000}"] {
            assert!(is_blank(blank.as_bytes()), "{blank:?}");
        }
        assert!(!is_blank(b"{}"));
        assert!(!is_blank(b"\xff"));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_what_a_plain_parser_reads(text in r#"[\[\]{}",:0-9ae.\\ u-]{0,40}"#) {
            let plain = serde_json::from_str::<serde_json::Value>(&text);
            if read(&text).is_ok() {
                prop_assert!(plain.is_ok());
            }
        }
    }
}
