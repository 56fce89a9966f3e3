//! Text that people send and others read later: checked in characters, never in bytes.

use std::fmt;

use thiserror::Error;

/// Longest reason, in characters (A-151, R05).
pub const REASON_CHARS_MAX: usize = 500;

/// Why a reason was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TextError {
    /// Nothing left after trimming blanks.
    #[error("must hold 1 to {REASON_CHARS_MAX} characters, got none")]
    Empty,
    /// More characters than allowed.
    #[error("must hold 1 to {REASON_CHARS_MAX} characters, got {got}")]
    TooLong {
        /// What was given, in characters after trimming.
        got: usize,
    },
    /// U+0000 cannot be stored by every engine.
    #[error("must not hold the character U+0000")]
    Nul,
}

/// Why somebody changed something: 1 to 500 characters (not bytes) after trimming blanks, kept as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonText(String);

impl ReasonText {
    /// Checks and takes a reason.
    ///
    /// # Errors
    /// Empty after trimming, more than [`REASON_CHARS_MAX`] characters after trimming, or holding U+0000.
    pub fn new(text: impl Into<String>) -> Result<Self, TextError> {
        let text = text.into();
        if text.contains('\0') {
            return Err(TextError::Nul);
        }
        match text.trim().chars().count() {
            0 => Err(TextError::Empty),
            got if got > REASON_CHARS_MAX => Err(TextError::TooLong { got }),
            _ => Ok(Self(text)),
        }
    }

    /// The reason as sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReasonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // W-A10, R05
    #[test]
    fn a_reason_is_measured_in_characters_not_bytes() {
        for unit in ["a", "理"] {
            assert_eq!(ReasonText::new(""), Err(TextError::Empty));
            assert!(ReasonText::new(unit).is_ok());
            assert!(ReasonText::new(unit.repeat(500)).is_ok());
            assert_eq!(
                ReasonText::new(unit.repeat(501)),
                Err(TextError::TooLong { got: 501 })
            );
        }
    }

    #[test]
    fn blanks_do_not_count_but_are_kept() {
        assert_eq!(ReasonText::new(" \t\n\u{3000}"), Err(TextError::Empty));
        assert_eq!(
            ReasonText::new(format!("  {}  ", "x".repeat(500)))
                .unwrap()
                .as_str()
                .len(),
            504
        );
        assert_eq!(ReasonText::new("a\0b"), Err(TextError::Nul));
    }
}
