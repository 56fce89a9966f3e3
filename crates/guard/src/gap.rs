//! Why a filesystem says that it is fuller than its files are: every byte has a line.
//!
//! `used = files + hidden + deleted + own + rest`. What files take is walked, what is hidden is walked past the mounts,
//! what is deleted comes from proc. What the filesystem takes for itself is exact for btrfs (sysfs), nearly nothing for
//! ext4 (statvfs leaves its tables out), and computed for XFS from the rules of its source. What is left is shown as it is.

use crate::btrfs;
use crate::filesystem::Space;

/// A number, and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Estimate {
    /// From the filesystem's own books.
    Exact(u64),
    /// Computed by a rule.
    About(u64),
}

/// The used bytes of a filesystem, line by line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Bytes that are not free.
    pub used: u64,
    /// Files and directories that have a path.
    pub files: u64,
    /// Files and directories under mounts; none when it could not be looked there.
    pub hidden: Option<u64>,
    /// Files that have no name and are held open, as far as they could be seen.
    pub deleted: u64,
    /// What the filesystem takes for itself.
    pub own: Estimate,
    /// Bytes that several files share: counted at each of them, used once. Known for btrfs only.
    pub shared: u64,
}

// === impl Estimate ===

impl Estimate {
    /// The number.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Exact(bytes) | Self::About(bytes) => bytes,
        }
    }
}

// === impl Gap ===

impl Gap {
    /// Bytes that no line explains; negative when the lines are more than what is used.
    pub fn rest(&self) -> i128 {
        let explained = i128::from(self.files)
            + i128::from(self.hidden.unwrap_or(0))
            + i128::from(self.deleted)
            + i128::from(self.own.bytes())
            - i128::from(self.shared);
        i128::from(self.used) - explained
    }

    /// The same in thousandths of what is used, rounded up; 0 when nothing is used.
    pub fn rest_per_mille(&self) -> u64 {
        let rest = self.rest().unsigned_abs().saturating_mul(1000);
        let share = rest.div_ceil(u128::from(self.used).max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

/// What a filesystem of this type takes for itself.
pub(crate) fn own(fstype: &str, space: &Space, btrfs: Option<btrfs::Usage>) -> Estimate {
    match fstype {
        "xfs" => Estimate::About(xfs(space)),
        "btrfs" => btrfs.map_or(Estimate::About(0), |usage| Estimate::Exact(usage.own)),
        _ => Estimate::Exact(0),
    }
}

/// XFS takes its log off the size and counts the rest of its own as used:
/// - a pool for its emergencies: a twentieth, at most 8,192 blocks of 4 KiB (`xfs_default_resblks`);
/// - room for the trees of free inodes and shared extents at their largest: about 0.7 %, by the fan-out of their blocks;
///   measured on empty filesystems of Linux 6.18 with the defaults of xfsprogs 6.1: 0.77 % of 336 MiB, 0.71 % of 2 GiB;
/// - inodes, in pieces of 64 of 512 bytes.
fn xfs(space: &Space) -> u64 {
    const POOL_MAX: u64 = 8192 * 4096;
    let pool = (space.bytes / 20).min(POOL_MAX);
    let trees = space.bytes / 1000 * 7;
    let inodes = space.inodes_used().div_ceil(64).saturating_mul(64 * 512);
    pool.saturating_add(trees).saturating_add(inodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: Space = Space {
        bytes: 1_000_000,
        bytes_free: 400_000,
        bytes_available: 350_000,
        inodes: 100,
        inodes_free: 90,
    };

    // D-06
    #[test]
    fn every_line_counts_and_what_is_left_is_shown_with_its_sign() {
        let gap = Gap {
            used: 600_000,
            files: 400_000,
            hidden: Some(70_000),
            deleted: 100_000,
            own: Estimate::Exact(24_000),
            shared: 0,
        };
        assert_eq!((gap.rest(), gap.rest_per_mille()), (6000, 10));
        let blind = Gap {
            hidden: None,
            ..gap
        };
        assert_eq!((blind.rest(), blind.rest_per_mille()), (76_000, 127));
        let more = Gap {
            files: 500_000,
            ..gap
        };
        assert_eq!((more.rest(), more.rest_per_mille()), (-94_000, 157));
        let shared = Gap {
            shared: 94_000,
            ..more
        };
        assert_eq!(shared.rest(), 0);
        let empty = Gap {
            used: 0,
            files: 0,
            hidden: None,
            deleted: 0,
            own: Estimate::Exact(0),
            shared: 0,
        };
        assert_eq!(empty.rest_per_mille(), 0);
    }

    #[test]
    fn each_filesystem_has_its_own_rule() {
        assert_eq!(own("ext4", &SPACE, None), Estimate::Exact(0));
        let usage = btrfs::Usage { data: 5, own: 7 };
        assert_eq!(own("btrfs", &SPACE, Some(usage)), Estimate::Exact(7));
        assert_eq!(own("btrfs", &SPACE, None), Estimate::About(0));
        assert_eq!(
            own("xfs", &SPACE, None),
            Estimate::About(50_000 + 7000 + 32_768)
        );
    }
}
