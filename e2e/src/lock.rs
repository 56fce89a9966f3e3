//! Locks between processes: an advisory lock on a file, let go by the kernel when its holder ends in whatever way.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::wait::{self, Look};

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

// === impl Lock ===

impl Lock {
    /// Takes the lock of `path` unless another process has it.
    pub(crate) fn try_take(path: &Path) -> anyhow::Result<Option<Self>> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("create {}", parent.display()))?;
        }
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("open {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }

    /// Waits for the lock of `path`; says once for what when it has to.
    pub(crate) fn take(path: &Path, what: &str, limit: Duration) -> anyhow::Result<Self> {
        if let Some(lock) = Self::try_take(path)? {
            return Ok(lock);
        }
        crate::say(&format!("waiting for another process: {what}"));
        wait::until(what, limit, || {
            Ok(match Self::try_take(path)? {
                Some(lock) => Look::There(lock),
                None => Look::NotYet(format!("another process holds {}", path.display())),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_has_one_holder_until_it_is_dropped() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let path = scratch.path().join("below/a.lock");
        let held = Lock::try_take(&path)
            .expect("it opens")
            .expect("it is free");
        assert!(Lock::try_take(&path).expect("it opens").is_none());
        drop(held);
        assert!(Lock::try_take(&path).expect("it opens").is_some());
    }
}
