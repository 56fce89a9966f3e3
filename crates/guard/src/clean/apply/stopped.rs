//! Why one thing of a step stayed, as it was found right before its removal. How the step ends by that its caller says.

use rustix::io::Errno;

use super::super::runtime::Refusal;

/// Why a file stayed.
pub(super) enum Stopped {
    /// It is not what the plan says.
    Changed,
    /// Its owner is at work.
    Busy,
    /// Its owner does not say what it has.
    Away,
    /// The filesystem fails.
    Broken(Errno),
    /// This one cannot go.
    Failed(String),
}

// === impl From<Errno> for Stopped ===

impl From<Errno> for Stopped {
    fn from(error: Errno) -> Self {
        match error {
            Errno::LOOP | Errno::XDEV | Errno::NOENT | Errno::NOTDIR => Self::Changed,
            Errno::ROFS | Errno::IO => Self::Broken(error),
            error => Self::Failed(error.to_string()),
        }
    }
}

// === impl From<Refusal> for Stopped ===

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Changed => Self::Changed,
            Refusal::Busy => Self::Busy,
            Refusal::Away => Self::Away,
            Refusal::Failed(why) => Self::Failed(why),
        }
    }
}
