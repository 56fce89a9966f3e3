//! What a walk could not see. Nothing is skipped in silence; a list that could grow for ever keeps its first entries and
//! counts the rest.

use std::path::PathBuf;

use rustix::io::Errno;

/// A place whose content is not counted, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The directory or file.
    pub path: PathBuf,
    /// What the kernel said.
    pub error: Errno,
}

/// Entries that are kept.
const KEPT_MAX: usize = 100;

/// Everything that was not seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    pub(crate) first: Vec<Fault>,
    pub(crate) count: u64,
    /// Entries that were gone when they were looked at: the tree changed meanwhile.
    pub(crate) vanished: u64,
}

// === impl Faults ===

impl Faults {
    pub(crate) fn add(&mut self, path: impl FnOnce() -> PathBuf, error: Errno) {
        if is_gone(error) {
            self.vanished += 1;
            return;
        }
        self.count += 1;
        if self.first.len() < KEPT_MAX {
            self.first.push(Fault {
                path: path(),
                error,
            });
        }
    }

    pub(crate) fn merge(&mut self, other: &mut Self) {
        self.count += std::mem::take(&mut other.count);
        self.vanished += std::mem::take(&mut other.vanished);
        self.first.append(&mut other.first);
        self.first.truncate(KEPT_MAX);
    }
}

/// It was there when the directory was read, and is not, or is no directory any more.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}
