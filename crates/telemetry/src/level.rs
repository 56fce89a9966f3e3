//! `LOG_LEVEL`: which lines are written.
//!
//! Parsed once at the start. `fatal` is a threshold only: a fatal line itself has level `error`,
//! because that is what readers of the log select. It deliberately reads no environment variable.

use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter as Threshold;

/// The least severe line that is written. Default: [`LevelFilter::Info`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LevelFilter {
    /// Everything, also why nothing was decided.
    Debug,
    /// What was decided, and each request.
    #[default]
    Info,
    /// What was unexpected and recovered, and requests answered 4xx.
    Warn,
    /// What a person must act on, and requests answered 5xx.
    Error,
    /// Only panics and the error that ends the process.
    Fatal,
}

/// The text is no log level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is no log level: use debug, info, warn, error or fatal")]
pub struct LevelFilterError {
    value: String,
}

/// The level that a line carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

// === impl LevelFilter ===

impl LevelFilter {
    /// Every value, from the most to the fewest lines.
    pub const ALL: [Self; 5] = [
        Self::Debug,
        Self::Info,
        Self::Warn,
        Self::Error,
        Self::Fatal,
    ];

    /// The word that `LOG_LEVEL` uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// Whether a line of `level` is written.
    pub(crate) fn allows(self, level: Level) -> bool {
        match self {
            Self::Debug => true,
            Self::Info => level >= Level::Info,
            Self::Warn => level >= Level::Warn,
            Self::Error => level >= Level::Error,
            Self::Fatal => false,
        }
    }

    /// The same threshold for our own `tracing` events.
    pub(crate) fn threshold(self) -> Threshold {
        match self {
            Self::Debug => Threshold::DEBUG,
            Self::Info => Threshold::INFO,
            Self::Warn => Threshold::WARN,
            Self::Error => Threshold::ERROR,
            Self::Fatal => Threshold::OFF,
        }
    }
}

impl fmt::Display for LevelFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for LevelFilter {
    type Err = LevelFilterError;

    /// Case does not matter; blanks around the word do not either.
    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let word = value.trim();
        Self::ALL
            .into_iter()
            .find(|level| level.as_str().eq_ignore_ascii_case(word))
            .ok_or_else(|| LevelFilterError {
                value: value.chars().take(VALUE_CHARS_MAX).collect(),
            })
    }
}

/// How much of a wrong value is repeated in the error: enough to recognise it, and a file pasted
/// into the variable by mistake does not fill the log.
const VALUE_CHARS_MAX: usize = 40;

// === impl Level ===

impl Level {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl From<tracing::Level> for Level {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            tracing::Level::DEBUG | tracing::Level::TRACE => Self::Debug,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_of_log_level_is_understood_in_any_case() {
        for level in LevelFilter::ALL {
            assert_eq!(level.as_str().parse(), Ok(level));
            assert_eq!(
                format!(" {} ", level.as_str().to_uppercase()).parse(),
                Ok(level)
            );
        }
    }

    #[test]
    fn other_words_are_refused_with_the_choice() {
        for value in ["", "trace", "warning", "info,nagi=debug", "1"] {
            let error = value.parse::<LevelFilter>().unwrap_err().to_string();
            let expected =
                format!("{value:?} is no log level: use debug, info, warn, error or fatal");
            assert_eq!(error, expected);
        }
        let long = "x".repeat(10_000).parse::<LevelFilter>().unwrap_err();
        assert!(long.to_string().len() < 120);
    }

    #[test]
    fn each_threshold_lets_through_its_level_and_above() {
        let counts = LevelFilter::ALL.map(|filter| {
            let levels = [Level::Debug, Level::Info, Level::Warn, Level::Error];
            levels
                .into_iter()
                .filter(|level| filter.allows(*level))
                .count()
        });
        assert_eq!(counts, [4, 3, 2, 1, 0]);
    }
}
