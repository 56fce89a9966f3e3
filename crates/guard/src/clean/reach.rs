//! Which places may be opened at all: a server that is away, or a program that serves files and hangs, would hold the cleaner
//! for ever. So what is mounted on the way is looked up by its text, and only then is the way gone.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{CleanError, place};
use crate::filesystem::Kind;
use crate::mounts::{Device, Mounts};

/// What is mounted on a node.
#[derive(Debug)]
pub(crate) struct Reach {
    pub(super) mounts: Mounts,
    /// The root of the node, as this process sees it.
    root: PathBuf,
}

// === impl Reach ===

impl Reach {
    /// Of the node with this root.
    pub(crate) fn of(root: &OwnedFd) -> Result<Self, CleanError> {
        let text = std::fs::read("/proc/self/mountinfo").map_err(CleanError::ReadMounts)?;
        Ok(Self {
            mounts: Mounts::parse(&text).map_err(CleanError::ParseMounts)?,
            root: place::path_of(root).map_err(CleanError::ReadMounts)?,
        })
    }

    /// The filesystem that a place of the node lies on, as mounts tell them apart.
    pub(crate) fn device_of(&self, place: &Path) -> Option<Device> {
        let below = place.strip_prefix("/").unwrap_or(place);
        Some(self.mounts.at(&self.root.join(below))?.device)
    }

    /// The type of a filesystem on the way to a place of the node that may not answer, or that nobody knows. Links are not
    /// followed on the way, so that its text tells what is crossed. The filesystem of the root itself has answered already.
    pub(crate) fn refuses(&self, place: &Path) -> Option<&str> {
        let below = place.strip_prefix("/").unwrap_or(place);
        let whole = self.root.join(below);
        let on_the_way = whole
            .ancestors()
            .take_while(|above| above.starts_with(&self.root));
        let mounts = on_the_way.filter_map(|above| self.mounts.at(above));
        let own = self.mounts.at(&self.root).map(|mount| mount.id);
        mounts
            .filter(|mount| Some(mount.id) != own)
            .filter(|mount| match Kind::of(&mount.kind) {
                Kind::Disk | Kind::Memory | Kind::Layered | Kind::Image => false,
                Kind::Remote | Kind::Pseudo | Kind::Unknown => true,
            })
            .map(|mount| mount.kind.as_str())
            .next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_crossed_on_the_way_counts_as_what_is_reached() {
        let text = "\
1 0 8:1 / / rw - ext4 /dev/a rw
2 1 8:1 /n /host rw - ext4 /dev/a rw
3 2 0:5 / /host/var rw - nfs4 s:/ rw
4 3 8:2 / /host/var/log rw - xfs /dev/b rw
5 2 0:6 / /host/run rw - tmpfs t rw
6 2 0:7 / /host/srv rw - strange s rw
";
        let reach = Reach {
            mounts: Mounts::parse(text.as_bytes()).unwrap(),
            root: PathBuf::from("/host"),
        };
        let rows = [
            ("/etc", None),
            ("/run/x", None),
            ("/var/cache/apt", Some("nfs4")),
            ("/var/log/pods", Some("nfs4")),
            ("/srv", Some("strange")),
        ];
        for (place, refused) in rows {
            assert_eq!(reach.refuses(Path::new(place)), refused, "{place}");
        }
        // A node that lives in memory, with its data on a disk.
        let text = "\
1 0 0:1 / / rw - rootfs rootfs rw
2 1 8:2 / /var rw - xfs /dev/b rw
";
        let reach = Reach {
            mounts: Mounts::parse(text.as_bytes()).unwrap(),
            root: PathBuf::from("/"),
        };
        assert_eq!(reach.refuses(Path::new("/var/log/pods")), None);
    }
}
