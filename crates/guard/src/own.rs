//! Our own files on a node, outside of what is cleaned: directories that only root enters, locks, and how files are made there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use thiserror::Error;

use crate::clean::place;
use crate::clean::reach::Reach;

/// Where locks and short records lie: in memory, however full the disks are.
const RUN: &str = "/run";
/// Where rings lie.
pub(crate) const STATE: &str = "/var/lib";
/// Our directory under `/run`.
const RUN_OWN: &str = "nagi";
/// Our directory beside the rings. Not the `/var/lib/nagi` that a server with `--state-dir` may have for a user of its own, whom
/// a directory of root would lock out.
pub(crate) const STATE_OWN: &str = "nagi-guard";

/// Why there is no lock.
#[derive(Debug, Error)]
pub(crate) enum OwnError {
    /// Somebody else has it.
    #[error("another process has it")]
    Busy,
    /// It cannot be made.
    #[error("cannot make it")]
    Make(#[source] Errno),
    /// The node has no `/run`.
    #[error("there is no /run on this node")]
    NoRun,
}

/// A lock under `/run`, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(OwnedFd);

/// Our directory under `/run`, made when it is missing.
///
/// # Errors
/// It cannot be made, or there is no `/run`.
pub(crate) fn run(root: &OwnedFd, reach: &Reach) -> Result<OwnedFd, OwnError> {
    if reach.refuses(Path::new(RUN)).is_some() {
        return Err(OwnError::Make(Errno::OPNOTSUPP));
    }
    let run = place::open_base(root, Path::new(RUN)).map_err(OwnError::Make)?;
    own(&run.ok_or(OwnError::NoRun)?, RUN_OWN).map_err(OwnError::Make)
}

/// Our own directory below another, made when it is missing.
///
/// # Errors
/// It cannot be made, or something else has its name.
pub(crate) fn own(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => place::open_below(parent, name.as_bytes()),
        Err(error) => Err(error),
    }
}

/// Opens a file of ours, made when it is missing; a link is refused.
///
/// # Errors
/// It cannot be made.
pub(crate) fn make(directory: &OwnedFd, name: &str, how: OFlags) -> Result<OwnedFd, Errno> {
    let how = how | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(directory, name, how, Mode::RUSR | Mode::WUSR, within)
}

/// Writes all of it.
///
/// # Errors
/// Not all of it could be written.
pub(crate) fn write_all(file: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let written = rustix::io::write(&file, bytes)?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

// === impl Lock ===

impl Lock {
    /// Takes the lock of this name.
    ///
    /// # Errors
    /// Somebody else has it, or it cannot be made.
    pub(crate) fn take(run: &OwnedFd, name: &str) -> Result<Self, OwnError> {
        let file = make(run, name, OFlags::RDWR).map_err(OwnError::Make)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(Errno::WOULDBLOCK) => Err(OwnError::Busy),
            Err(error) => Err(OwnError::Make(error)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child that is just being started and has a copy until it runs its program.
        // It cannot fail for a lock that is held; if it did, the end of this process would let it go.
        let unlocked = rustix::fs::flock(&self.0, FlockOperation::Unlock);
        debug_assert!(unlocked.is_ok(), "the lock is held while its handle lives");
    }
}
