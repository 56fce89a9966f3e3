//! The id of one request: the client's when it is clean, else ours.
//!
//! It is echoed in `X-Request-ID` and logged as `request_id`, so only characters that are harmless in
//! a header, a log and a shell are kept (R21). It deliberately holds no generator: random bits are
//! passed in, because ids made from the clock repeat.

use std::fmt;

/// Longest id that is taken from a client: 128 covers UUIDs, trace ids and the ids of proxies (R21).
pub const REQUEST_ID_LENGTH_MAX: usize = 128;

/// The id of one request: 1 to 128 characters out of `A-Z a-z 0-9 . _ : / + = @ -`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

// === impl RequestId ===

impl RequestId {
    /// The id out of the values of all `X-Request-ID` headers: the only one, if it is clean.
    /// `None` without a header, with several, or with characters or a length that are not allowed.
    pub fn from_headers<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let (only, second) = (values.next()?, values.next());
        let clean = second.is_none()
            && !only.is_empty()
            && only.len() <= REQUEST_ID_LENGTH_MAX
            && only.iter().all(|byte| is_allowed(*byte));
        if !clean {
            return None;
        }
        String::from_utf8(only.to_vec()).ok().map(Self)
    }

    /// An id of ours: 128 random bits as 32 hexadecimal digits.
    pub fn from_random(bits: u128) -> Self {
        Self(format!("{bits:032x}"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._:/+=@-".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(values: &[&str]) -> Option<String> {
        let id = RequestId::from_headers(values.iter().map(|value| value.as_bytes()));
        id.map(|id| id.to_string())
    }

    // A-161, R21, W-A26
    #[test]
    fn clean_id_of_the_client_is_kept_up_to_128_characters() {
        let clean = "AZaz09._:/+=@-";
        assert_eq!(accepted(&[clean]).as_deref(), Some(clean));
        let longest = "x".repeat(128);
        assert_eq!(accepted(&[&longest]), Some(longest));
    }

    // A-161, R21, W-A26
    #[test]
    fn hostile_missing_or_double_id_is_not_kept() {
        let too_long = "x".repeat(129);
        let cases: [&[&str]; 9] = [
            &[],
            &[""],
            &[&too_long],
            &["a b"],
            &["a\"b"],
            &["a\nb"],
            &["a;b"],
            &["日本"],
            &["a", "a"],
        ];
        for values in cases {
            assert_eq!(accepted(values), None, "{values:?}");
        }
    }

    #[test]
    fn id_of_ours_is_32_digits_and_clean() {
        let id = RequestId::from_random(0xabc);
        assert_eq!(id.as_str(), "00000000000000000000000000000abc");
        assert_eq!(accepted(&[id.as_str()]).as_deref(), Some(id.as_str()));
    }
}
