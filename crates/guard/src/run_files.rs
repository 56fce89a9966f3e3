//! Locks and short records under `/run/nagi` for others than the cleaner: in memory, however full the disks are.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;
use thiserror::Error;

use crate::clean::reach::Reach;
use crate::clean::{CleanError, open_root};
use crate::own::{self, Lock, OwnError, make, write_all};

/// A record is some kilobytes.
const RECORD_MAX: u64 = 1 << 20;

/// Why there is none.
#[derive(Debug, Error)]
pub enum RunError {
    /// The node cannot be looked at.
    #[error(transparent)]
    Look(#[from] CleanError),
    /// The node has no `/run`.
    #[error("there is no /run on this node")]
    NoRun,
    /// Somebody else has the lock.
    #[error("another process has /run/nagi/{0}")]
    Busy(String),
    /// It cannot be made, read or written.
    #[error("cannot use /run/nagi/{file}")]
    File {
        /// The file.
        file: String,
        /// Why.
        source: Errno,
    },
}

/// Our directory under the `/run` of a node.
#[derive(Debug)]
pub struct RunFiles(OwnedFd);

/// A lock, held until it is dropped.
#[derive(Debug)]
pub struct RunLock {
    _lock: Lock,
}

// === impl RunError ===

impl RunError {
    /// Nothing more goes into `/run`.
    pub const fn is_full(&self) -> bool {
        match self {
            Self::File { source, .. } => matches!(*source, Errno::NOSPC | Errno::DQUOT),
            Self::Look(_) | Self::NoRun | Self::Busy(_) => false,
        }
    }
}

// === impl RunFiles ===

impl RunFiles {
    /// Opens it, and makes it when it is missing.
    ///
    /// # Errors
    /// There is no `/run`, or it cannot be made there.
    pub fn open(root: &Path) -> Result<Self, RunError> {
        let root = open_root(root)?;
        let reach = Reach::of(&root)?;
        own::run(&root, &reach)
            .map(Self)
            .map_err(|error| of(&error, ""))
    }

    /// Takes a lock.
    ///
    /// # Errors
    /// Somebody else has it, or it cannot be made.
    pub fn lock(&self, name: &str) -> Result<RunLock, RunError> {
        let lock = Lock::take(&self.0, name).map_err(|error| of(&error, name))?;
        Ok(RunLock { _lock: lock })
    }

    /// What a record holds; none when there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, RunError> {
        let failed = |source| RunError::File {
            file: name.to_owned(),
            source,
        };
        let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.0, name, how, rustix::fs::Mode::empty()) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        let read = file.take(RECORD_MAX).read_to_end(&mut bytes);
        read.map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        Ok(Some(bytes))
    }

    /// Writes a record, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written; then the one before is still there.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RunError> {
        let part = format!("{name}.part");
        let written = make(&self.0, &part, OFlags::WRONLY | OFlags::TRUNC)
            .and_then(|file| write_all(&file, bytes))
            .and_then(|()| rustix::fs::renameat(&self.0, &part, &self.0, name));
        written.map_err(|source| RunError::File {
            file: name.to_owned(),
            source,
        })
    }

    /// Takes a record of ours away.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), RunError> {
        match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(source) => Err(RunError::File {
                file: name.to_owned(),
                source,
            }),
        }
    }
}

fn of(error: &OwnError, name: &str) -> RunError {
    match error {
        OwnError::Busy => RunError::Busy(name.to_owned()),
        OwnError::NoRun => RunError::NoRun,
        OwnError::Make(source) => RunError::File {
            file: name.to_owned(),
            source: *source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_and_a_lock_has_one_holder() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(RunFiles::open(root.path()), Err(RunError::NoRun)));
        std::fs::create_dir(root.path().join("run")).unwrap();
        let files = RunFiles::open(root.path()).unwrap();
        assert_eq!(files.read("a.json").unwrap(), None);
        files.write("a.json", b"long ago").unwrap();
        files.write("a.json", b"now").unwrap();
        assert_eq!(files.read("a.json").unwrap().unwrap(), b"now");
        files.remove("a.json").unwrap();
        files.remove("a.json").unwrap();
        assert_eq!(files.read("a.json").unwrap(), None);
        let held = files.lock("a.lock").unwrap();
        assert!(matches!(files.lock("a.lock"), Err(RunError::Busy(name)) if name == "a.lock"));
        drop(held);
        files.lock("a.lock").unwrap();
    }
}
