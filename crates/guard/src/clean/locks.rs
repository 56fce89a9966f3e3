//! The locks that keep an owner out while its files go.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::place;
use super::policy::Reclaimer;
use super::reach::Reach;

/// What apt holds while it downloads or installs, below the root of the node.
const APT_LOCKS: [&[u8]; 2] = [
    b"var/cache/apt/archives/lock",
    b"var/lib/dpkg/lock-frontend",
];

/// The locks that keep an owner out while we work, held as long as they are open.
///
/// # Errors
/// `EAGAIN` when the owner has one of them.
pub(super) fn take(
    reclaimer: Reclaimer,
    root: &OwnedFd,
    reach: &Reach,
) -> Result<Vec<OwnedFd>, Errno> {
    let paths: &[&[u8]] = match reclaimer {
        Reclaimer::Apt => &APT_LOCKS,
        Reclaimer::Snaps
        | Reclaimer::PodLogs
        | Reclaimer::Journal
        | Reclaimer::Coredumps
        | Reclaimer::Pulls
        | Reclaimer::Images
        | Reclaimer::Containers
        | Reclaimer::LocalImages => &[],
    };
    let mut held = Vec::new();
    for path in paths {
        if reach.refuses(Path::new(OsStr::from_bytes(path))).is_some() {
            return Err(Errno::OPNOTSUPP);
        }
        let how = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat2(root, *path, how, Mode::empty(), place::TO_BASE) {
            Ok(file) => {
                let locked =
                    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive);
                // Both mean that another process has it; of opening `EACCES` does not.
                locked.map_err(|error| match error {
                    Errno::ACCESS => Errno::AGAIN,
                    error => error,
                })?;
                held.push(file);
            }
            // apt makes it before it does anything.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(held)
}
