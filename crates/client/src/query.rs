//! Query strings, with every value escaped.

/// A query string under construction.
#[derive(Debug, Default)]
pub(crate) struct Query(String);

impl Query {
    /// Adds `name=value`. Names are ours and need no escape.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            // RFC 3986 §2.3, unreserved.
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                self.0.push(char::from(byte));
            } else {
                self.0.push('%');
                for digit in [byte >> 4, byte & 0x0F] {
                    let digit = char::from_digit(u32::from(digit), 16).unwrap_or('0');
                    self.0.push(digit.to_ascii_uppercase());
                }
            }
        }
        self
    }

    /// Adds `name=value` when there is a value.
    pub(crate) fn with_some(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// `path` with the query behind it.
    pub(crate) fn on(&self, path: &str) -> String {
        format!("{path}{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_absent_ones_left_out() {
        let query = Query::default()
            .with("label", "a=b&c d")
            .with_some("namespace", None)
            .with_some("since", Some("2030-01-01T00:00:00+09:00"))
            .with("name", "凪");
        assert_eq!(
            query.on("/p"),
            "/p?label=a%3Db%26c%20d&since=2030-01-01T00%3A00%3A00%2B09%3A00&name=%E5%87%AA"
        );
        assert_eq!(Query::default().on("/p"), "/p");
    }
}
