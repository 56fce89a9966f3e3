//! A server that was there and is away for a moment: said once, not at every look.

use crate::failure::Failure;
use crate::output::Output;

/// Whether the server was away at the last look.
#[derive(Debug, Default)]
pub(crate) struct Away(bool);

impl Away {
    /// It did not answer; the command tries again.
    pub(crate) fn warn(&mut self, output: &Output, why: impl Into<Failure>) {
        if !std::mem::replace(&mut self.0, true) {
            output.warn(&format!("{}; trying again", why.into().message));
        }
    }

    /// It answered.
    pub(crate) const fn is_back(&mut self) {
        self.0 = false;
    }
}
