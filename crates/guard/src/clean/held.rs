//! What a process has open: it may still be written to, and removing it gives nothing back before it is closed.
//!
//! Kubelet renames a log and only then asks the runtime for a new one; where that fails the container goes on writing into the
//! renamed file. One pass over `/proc/*/fd` tells, by device and inode. Processes that cannot be seen (other users' without
//! root, the node's in a pod without its processes) tell nothing; the rules on names hold there alone.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::plan::Item;
use super::policy::Reclaimer;
use crate::mounts::Device;

const PROC: &str = "/proc";
/// Descriptors and processes that one pass looks at, a microsecond or two each. On a node that has more, nobody can tell.
const LOOKS_MAX: usize = 1 << 20;

/// A file, whatever its name is.
type Identity = (Device, u64);

/// Which of some files are open.
#[derive(Debug)]
pub(super) enum Held {
    /// These.
    These(BTreeSet<Identity>),
    /// Too many descriptors, or no proc: any of them may be.
    Unknown,
}

// === impl Held ===

impl Held {
    /// Looks once for all of these.
    pub(super) fn of<'a>(items: impl Iterator<Item = &'a Item>) -> Self {
        let wanted: BTreeSet<Identity> = items.map(|item| (item.device, item.inode)).collect();
        if wanted.is_empty() {
            return Self::These(BTreeSet::new());
        }
        look(Path::new(PROC), &wanted, LOOKS_MAX).map_or(Self::Unknown, Self::These)
    }

    pub(super) fn has(&self, item: &Item) -> bool {
        match self {
            Self::These(files) => files.contains(&(item.device, item.inode)),
            Self::Unknown => true,
        }
    }
}

/// Files of this kind are asked about. Journals are not: whoever reads them has them open too, and their heads say whether
/// they are complete. Those of snaps are held by mounts, and snapd knows;
/// the runtime knows its own.
pub(super) const fn matters(kind: Reclaimer) -> bool {
    match kind {
        Reclaimer::Apt | Reclaimer::PodLogs | Reclaimer::Coredumps => true,
        Reclaimer::Snaps
        | Reclaimer::Journal
        | Reclaimer::Pulls
        | Reclaimer::Images
        | Reclaimer::Containers
        | Reclaimer::LocalImages => false,
    }
}

/// None when there is more than may be looked at, or no proc.
fn look(proc: &Path, wanted: &BTreeSet<Identity>, looks_max: usize) -> Option<BTreeSet<Identity>> {
    let mut found = BTreeSet::new();
    let mut left = looks_max;
    for process in Dir::new(directory(proc).ok()?).ok()? {
        let process = process.ok()?;
        let Some(pid) = number(process.file_name()) else {
            continue;
        };
        left = left.checked_sub(1)?;
        // It has ended, or may not be seen.
        let Ok(descriptors) = directory(&proc.join(pid).join("fd")) else {
            continue;
        };
        let Ok(entries) = Dir::read_from(&descriptors) else {
            continue;
        };
        for entry in entries {
            let Ok(entry) = entry else {
                break; // It has ended meanwhile.
            };
            if number(entry.file_name()).is_none() {
                continue;
            }
            left = left.checked_sub(1)?;
            // A server that is away is not asked: what the kernel knows is enough.
            let flags = AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
            let asked = StatxFlags::TYPE | StatxFlags::INO;
            let Ok(stat) = rustix::fs::statx(&descriptors, entry.file_name(), flags, asked) else {
                continue; // Closed since.
            };
            let device = Device {
                major: stat.stx_dev_major,
                minor: stat.stx_dev_minor,
            };
            if wanted.contains(&(device, stat.stx_ino)) {
                found.insert((device, stat.stx_ino));
            }
        }
    }
    Some(found)
}

fn directory(path: &Path) -> Result<rustix::fd::OwnedFd, Errno> {
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, how, Mode::empty())
}

fn number(name: &std::ffi::CStr) -> Option<&str> {
    let name = name.to_str().ok()?;
    name.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn what_is_open_is_found_by_device_and_inode_and_a_pass_is_bounded() {
        let file = tempfile::tempfile().unwrap();
        let stat = file.metadata().unwrap();
        let device = Device {
            major: rustix::fs::major(stat.dev()),
            minor: rustix::fs::minor(stat.dev()),
        };
        let wanted = BTreeSet::from([(device, stat.ino()), (device, u64::MAX)]);
        let proc = Path::new(PROC);
        let found = look(proc, &wanted, LOOKS_MAX).unwrap();
        assert_eq!(found, BTreeSet::from([(device, stat.ino())]));
        assert_eq!(look(proc, &wanted, 3), None, "more than may be looked at");
        drop(file);
        assert_eq!(look(proc, &wanted, LOOKS_MAX), Some(BTreeSet::new()));
        assert_eq!(look(Path::new("/nowhere"), &wanted, LOOKS_MAX), None);
    }
}
