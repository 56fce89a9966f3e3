//! Why a filesystem says that it is fuller than its files are: every byte has a line.
//!
//! `used = files + hidden + deleted + own + rest`. What files take is walked, what is hidden is walked past the mounts,
//! what is deleted comes from proc. What the filesystem takes for itself is exact for btrfs (sysfs), nearly nothing for
//! ext4 (statvfs leaves its tables out), and computed for XFS from its geometry. What is left is shown as it is.

use std::path::Path;

use crate::btrfs;
use crate::filesystem::Space;
use crate::mounts::Device;
use crate::xfs;

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

/// What the machine tells about a filesystem beside statvfs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Books {
    /// The books of btrfs.
    pub(crate) btrfs: Option<btrfs::Usage>,
    /// How an XFS is laid out.
    pub(crate) xfs: Option<xfs::Geometry>,
    /// The size of the block device in bytes.
    pub(crate) device: Option<u64>,
}

/// What a filesystem of this type takes for itself.
pub(crate) fn own(fstype: &str, space: &Space, books: Books) -> Estimate {
    match fstype {
        "xfs" => Estimate::About(books.xfs.map_or_else(
            || xfs_of_size(space, books.device.unwrap_or(space.bytes)),
            |geometry| geometry.own(space.inodes_used()),
        )),
        "btrfs" => books
            .btrfs
            .map_or(Estimate::About(0), |usage| Estimate::Exact(usage.own)),
        _ => Estimate::Exact(0),
    }
}

/// What XFS with the defaults of xfsprogs takes, where its superblock cannot be read, as in a container without devices. It takes
/// its log off the size and counts the rest of its own as used:
/// - a pool for its emergencies: a twentieth of the device, at most 8,192 blocks of 4 KiB (`xfs_default_resblks`);
/// - room for the trees of free inodes and shared extents at their largest: a fixed share by the fan-out of their blocks;
///   measured on empty filesystems of 400 MiB to 2 GiB (Linux 6.18, defaults of xfsprogs 6.1) it is 0.65 to 0.69 %;
/// - inodes, in pieces of 64 of 512 bytes.
fn xfs_of_size(space: &Space, device: u64) -> u64 {
    const POOL_MAX: u64 = 8192 * 4096;
    let pool = (device / 20).min(POOL_MAX);
    let trees = device / 10_000 * 69;
    let inodes = space.inodes_used().div_ceil(64).saturating_mul(64 * 512);
    pool.saturating_add(trees).saturating_add(inodes)
}

/// The size of a block device, below `sysfs`. None where there is no such device.
pub(crate) fn device_bytes(sysfs: &Path, device: Device) -> Option<u64> {
    let text = std::fs::read_to_string(sysfs.join(format!("dev/block/{device}/size"))).ok()?;
    // Sectors of 512 bytes, whatever those of the disk are.
    text.trim().parse::<u64>().ok()?.checked_mul(512)
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
        let none = Books::default();
        assert_eq!(own("ext4", &SPACE, none), Estimate::Exact(0));
        let usage = btrfs::Usage { data: 5, own: 7 };
        let btrfs = Books {
            btrfs: Some(usage),
            ..none
        };
        assert_eq!(own("btrfs", &SPACE, btrfs), Estimate::Exact(7));
        assert_eq!(own("btrfs", &SPACE, none), Estimate::About(0));
        assert_eq!(
            own("xfs", &SPACE, none),
            Estimate::About(50_000 + 6900 + 32_768)
        );
        let device = Books {
            device: Some(2_000_000),
            ..none
        };
        assert_eq!(
            own("xfs", &SPACE, device),
            Estimate::About(100_000 + 13_800 + 32_768)
        );
    }

    #[test]
    fn the_size_of_a_device_is_read_in_sectors() {
        let sysfs = tempfile::tempdir().unwrap();
        let own = sysfs.path().join("dev/block/7:1");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("size"), "2048\n").unwrap();
        let of = |minor| device_bytes(sysfs.path(), Device { major: 7, minor });
        assert_eq!((of(1), of(2)), (Some(1 << 20), None));
    }
}
