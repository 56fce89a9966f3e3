//! Disks as the node guard sees them, in the words of `nagi-ops`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nagi_guard::{Advice, Glance, Kind, ReadOnly};
use nagi_ops::{Disks, Filesystem, Looked, Space, Unseen, Writable};

use crate::cmd::disk;

/// The filesystems of a node, looked at once: when they are first asked for, which is on a thread that may wait.
#[derive(Debug)]
pub(in crate::cmd::recover) struct NodeDisks {
    root: PathBuf,
    glance: OnceLock<Result<Glance, String>>,
}

// === impl NodeDisks ===

impl NodeDisks {
    pub(in crate::cmd::recover) fn of(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            glance: OnceLock::new(),
        }
    }
}

impl Disks for NodeDisks {
    fn look(&self) -> Looked<Vec<Filesystem>> {
        let look = || nagi_guard::glance(&self.root).map_err(|error| error.to_string());
        let glance = self.glance.get_or_init(look);
        let glance = glance.as_ref().map_err(|why| Unseen::Failed(why.clone()))?;
        let is_for_storage = |one: &&nagi_guard::Filesystem| match one.kind {
            Kind::Disk | Kind::Memory | Kind::Layered | Kind::Unknown => true,
            // An image is full from the beginning, and what may not answer is not asked.
            Kind::Image | Kind::Remote | Kind::Pseudo => false,
        };
        let filesystems = glance.filesystems.iter().filter(is_for_storage);
        Ok(filesystems.map(|one| told(glance, one)).collect())
    }

    fn point_of(&self, path: &Path) -> Option<PathBuf> {
        let glance = self.glance.get()?.as_ref().ok()?;
        Some(glance.filesystem_of(path)?.point.clone())
    }
}

fn told(glance: &Glance, one: &nagi_guard::Filesystem) -> Filesystem {
    let evicting = glance.advice.iter().filter(|advice| match advice {
        Advice::Evicting { point, .. } => *point == one.point,
        Advice::ReadOnly { .. }
        | Advice::OnlyReserve { .. }
        | Advice::AboveGoal { .. }
        | Advice::Headroom { .. }
        | Advice::BelowFloor { .. }
        | Advice::BelowAdvised { .. }
        | Advice::ImagesAboveHalf { .. } => false,
    });
    Filesystem {
        point: one.point.clone(),
        fstype: one.fstype.clone(),
        writable: match one.read_only {
            ReadOnly::No => Writable::Yes,
            ReadOnly::Mount => Writable::NotThisMount,
            ReadOnly::Filesystem => Writable::No,
            ReadOnly::Withdrawn => Writable::Withdrawn,
        },
        space: one.space.map(|space| Space {
            bytes: space.bytes,
            bytes_free: space.bytes_free,
            bytes_available: space.bytes_available,
            inodes: space.inodes,
            inodes_free: space.inodes_free,
        }),
        holds: glance.held_by(one),
        evicting: evicting.map(disk::advice).collect(),
    }
}
