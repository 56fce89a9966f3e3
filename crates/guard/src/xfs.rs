//! What XFS itself takes, by the rules of its source from the geometry in its superblock.
//!
//! The kernel takes the log off the size, and off the free blocks what its trees may come to need: without that, freeing space
//! could fail for want of space. How much that is follows from geometry and features alone, which no mount changes (`growfs`
//! writes them through). Computed and measured on empty filesystems of 400 MiB to 20 GiB with blocks of 1 to 4 KiB, 4 and 16
//! groups, with and without `reflink`, `rmapbt` and `finobt` (Linux 6.18) it is the same to the byte.

use std::fs::File;
use std::os::linux::fs::MetadataExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::mounts::Device;

/// As far as it is read.
const SUPERBLOCK: usize = 216;
/// The emergency pool has at most so many blocks (`XFS_DEFAULT_RESBLKS`), and a twentieth of all.
const POOL_MAX: u64 = 8192;
/// Blocks of each group that stay free for its lists (`xfs_alloc_set_aside`).
const SET_ASIDE: u64 = 8;
/// A chunk of inodes, one record of their tree.
const INODES_PER_CHUNK: u64 = 64;

/// A tree of the free inodes.
const FINOBT: u64 = 1;
/// A tree of who owns each extent.
const RMAPBT: u64 = 1 << 1;
/// A tree of shared extents.
const REFLINK: u64 = 1 << 2;

/// What a superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Bytes.
    block: u64,
    blocks: u64,
    group_blocks: u64,
    groups: u64,
    /// The group that the log lies in; none where it lies elsewhere.
    log_group: Option<u64>,
    log_blocks: u64,
    /// Bytes.
    sector: u64,
    /// Bytes.
    inode: u64,
    /// Bytes at the beginning of each block of a tree: more with checksums.
    header: u64,
    /// `sb_features_ro_compat`.
    features: u64,
}

/// Least records in a leaf and in a node of a tree.
#[derive(Debug, Clone, Copy)]
struct Fanout {
    leaf: u64,
    node: u64,
}

// === impl Geometry ===

impl Geometry {
    /// Read from this device node, if it is the one of the device. None where it cannot be read, or is no XFS.
    pub(crate) fn of(node: &Path, device: Device) -> Option<Self> {
        let file = File::open(node).ok()?;
        let number = file.metadata().ok()?.st_rdev();
        if (rustix::fs::major(number), rustix::fs::minor(number)) != (device.major, device.minor) {
            return None;
        }
        let mut bytes = [0; SUPERBLOCK];
        file.read_exact_at(&mut bytes, 0).ok()?;
        Self::parse(&bytes)
    }

    /// Of the bytes of a superblock, by the layout of `xfs_dsb`.
    fn parse(bytes: &[u8; SUPERBLOCK]) -> Option<Self> {
        let number = |at: usize, width: usize| {
            let field = bytes.get(at..at + width).unwrap_or_default();
            field
                .iter()
                .fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let log_start = number(48, 8);
        let group_log = u32::try_from(number(124, 1)).ok()?;
        // Below version 5 there are neither checksums nor these trees.
        let has_checksums = number(100, 2) & 0xf == 5;
        let geometry = Self {
            block: number(4, 4),
            blocks: number(8, 8),
            group_blocks: number(84, 4),
            groups: number(88, 4),
            log_group: (log_start > 0).then(|| log_start.checked_shr(group_log).unwrap_or(0)),
            log_blocks: number(96, 4),
            sector: number(102, 2),
            inode: number(104, 2),
            header: if has_checksums { 56 } else { 16 },
            features: if has_checksums { number(212, 4) } else { 0 },
        };
        let is_sane = bytes.starts_with(b"XFSB")
            && (512..=65536).contains(&geometry.block)
            && (256..=geometry.block).contains(&geometry.inode)
            && geometry.group_blocks > 0
            && geometry.groups == geometry.blocks.div_ceil(geometry.group_blocks);
        is_sane.then_some(geometry)
    }

    /// Bytes that it counts as used beside files, with this many inodes in use.
    pub(crate) fn own(&self, inodes: u64) -> u64 {
        let pool = (self.blocks / 20).min(POOL_MAX);
        let last = self.groups - 1;
        let full = self.of_group(self.group_blocks).saturating_mul(last);
        let rest = self.of_group(self.blocks - last.saturating_mul(self.group_blocks));
        let mut blocks = pool + full + rest;
        if let Some(group) = self.log_group {
            // The log is where no tree will ever need room.
            let size = if group < last {
                self.group_blocks
            } else {
                self.blocks - last.saturating_mul(self.group_blocks)
            };
            let without = self.of_group(size.saturating_sub(self.log_blocks));
            blocks = blocks.saturating_sub(self.of_group(size).saturating_sub(without));
        }
        let chunks = inodes.div_ceil(INODES_PER_CHUNK);
        let inodes = chunks.saturating_mul(INODES_PER_CHUNK * self.inode);
        blocks.saturating_mul(self.block).saturating_add(inodes)
    }

    /// Blocks that a group of so many takes, or keeps for its trees at their largest.
    fn of_group(&self, blocks: u64) -> u64 {
        let headers = (4 * self.sector).div_ceil(self.block);
        // Roots: of inodes, and of free space by place and by size.
        let mut own = SET_ASIDE + headers + 3;
        if self.has(FINOBT) {
            let chunks = blocks * (self.block / self.inode) / INODES_PER_CHUNK;
            own += self.fanout(16, 8).blocks(chunks);
        }
        if self.has(REFLINK) {
            own += self.fanout(12, 8).blocks(blocks);
        }
        if self.has(RMAPBT) {
            own += 1 + self.fanout(24, 44).blocks(blocks).max(blocks / 100);
        }
        own
    }

    const fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// Of a tree with records, and with keys and pointers, of so many bytes.
    fn fanout(&self, record: u64, entry: u64) -> Fanout {
        let room = self.block - self.header;
        Fanout {
            leaf: room / record / 2,
            node: room / entry / 2,
        }
    }
}

// === impl Fanout ===

impl Fanout {
    /// Blocks of the tree when it has so many records and each block is as empty as may be.
    fn blocks(self, records: u64) -> u64 {
        let mut level = records;
        let mut least = self.leaf;
        let mut blocks = 0;
        while level > 1 {
            level = level.div_ceil(least);
            blocks += level;
            least = self.node;
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The superblock of `mkfs.xfs` for 2 GiB with 1 KiB blocks, 4 groups and these features.
    fn superblock(features: u32) -> [u8; SUPERBLOCK] {
        let mut bytes = [0; SUPERBLOCK];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, b"XFSB");
        put(4, &1024_u32.to_be_bytes());
        put(8, &2_097_152_u64.to_be_bytes());
        // The log begins in the third group.
        put(48, &1_048_583_u64.to_be_bytes());
        put(84, &524_288_u32.to_be_bytes());
        put(88, &4_u32.to_be_bytes());
        put(96, &65_536_u32.to_be_bytes());
        put(100, &0xb4a5_u16.to_be_bytes());
        put(102, &512_u16.to_be_bytes());
        put(104, &512_u16.to_be_bytes());
        put(124, &[19]);
        put(212, &features.to_be_bytes());
        bytes
    }

    // Measured with statvfs on the empty filesystem, which has three inodes of its own.
    #[test]
    fn what_it_takes_is_what_statvfs_counts() {
        for (features, used) in [(0b1101, 63_589_376), (0b1011, 125_125_632)] {
            let geometry = Geometry::parse(&superblock(features)).unwrap();
            assert_eq!(geometry.own(3), used, "{features:b}");
        }
    }

    #[test]
    fn what_is_no_superblock_is_none() {
        let mut bytes = superblock(0b101);
        bytes[88] = 1;
        assert_eq!(Geometry::parse(&bytes), None, "more groups than blocks");
        assert_eq!(Geometry::parse(&[0; SUPERBLOCK]), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), superblock(0b101)).unwrap();
        let device = Device { major: 8, minor: 1 };
        assert_eq!(Geometry::of(file.path(), device), None, "no such device");
        assert_eq!(Geometry::of(Path::new("/nope"), device), None);
    }
}
