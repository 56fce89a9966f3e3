//! One filesystem: how full it is in every sense of the word, and what of the node lives on it.
//!
//! Numbers come from statvfs, which counts what was allocated and not what files claim. Only filesystems that answer
//! from this machine are asked: a network filesystem whose server is away would hold the question for ever.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfs, StatVfsMountFlags};

use crate::mounts::{Device, Mount, Mounts};

/// What kind of filesystem a type is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On a disk, and known well enough to be surveyed.
    Disk,
    /// In memory: `tmpfs`.
    Memory,
    /// A view of other filesystems, whose space is theirs: `overlay`.
    Layered,
    /// An image that can only be read, and is full from the beginning: `squashfs`.
    Image,
    /// Behind a network or a program of a user, who may not answer. It is not asked.
    Remote,
    /// Not for storage: `proc`.
    Pseudo,
    /// None that Nagi knows. It is reported, and nothing else.
    Unknown,
}

/// Whether a filesystem can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOnly {
    /// It can.
    No,
    /// Not through this mount.
    Mount,
    /// Nobody can: it was mounted so.
    Filesystem,
    /// Nobody can, through a mount that was made for writing: the kernel withdrew it after an error.
    Withdrawn,
}

/// Space and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All bytes that data can ever take.
    pub bytes: u64,
    /// Bytes that nothing takes.
    pub bytes_free: u64,
    /// Bytes that anybody can still write. The rest of the free ones is the reserve.
    pub bytes_available: u64,
    /// All inodes; 0 when the filesystem has no such limit.
    pub inodes: u64,
    /// Inodes that nothing takes.
    pub inodes_free: u64,
}

/// A filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filesystem {
    /// What tells it from others.
    pub device: Device,
    /// The type, as the kernel calls it.
    pub fstype: String,
    /// What that means.
    pub kind: Kind,
    /// The block device.
    pub source: OsString,
    /// Where it is seen best.
    pub point: PathBuf,
    /// The directory of the filesystem that is seen there; `/` is all of it.
    pub root: PathBuf,
    /// Whether it can be written to.
    pub read_only: ReadOnly,
    /// How full it is; none when it was not asked, or did not answer.
    pub space: Option<Space>,
    /// The guarded paths that live on it.
    pub holds: Vec<PathBuf>,
}

// === impl Kind ===

impl Kind {
    /// What a type of mountinfo means.
    pub fn of(fstype: &str) -> Self {
        match fstype {
            "ext2" | "ext3" | "ext4" | "xfs" | "btrfs" | "f2fs" | "bcachefs" | "zfs" | "jfs"
            | "reiserfs" | "vfat" | "msdos" | "exfat" | "ntfs3" => Self::Disk,
            "tmpfs" | "ramfs" => Self::Memory,
            "overlay" | "aufs" | "unionfs" | "ecryptfs" => Self::Layered,
            "squashfs" | "erofs" | "iso9660" | "udf" | "cramfs" | "romfs" => Self::Image,
            "nfs" | "nfs4" | "cifs" | "smb3" | "smbfs" | "ceph" | "9p" | "virtiofs" | "fuse"
            | "fuseblk" | "glusterfs" | "lustre" | "afs" | "coda" | "beegfs" | "gpfs" | "ocfs2"
            | "gfs2" | "vboxsf" => Self::Remote,
            "proc" | "sysfs" | "cgroup" | "cgroup2" | "devpts" | "devtmpfs" | "mqueue"
            | "debugfs" | "tracefs" | "securityfs" | "pstore" | "bpf" | "configfs" | "fusectl"
            | "hugetlbfs" | "nsfs" | "binfmt_misc" | "autofs" | "rpc_pipefs" | "efivarfs"
            | "selinuxfs" | "nfsd" | "resctrl" | "cpuset" | "sockfs" | "pipefs" | "bdev"
            | "rootfs" => Self::Pseudo,
            _ if fstype.starts_with("fuse.") => Self::Remote,
            _ => Self::Unknown,
        }
    }

    /// The kernel answers for it without asking anybody else.
    pub const fn answers(self) -> bool {
        match self {
            Self::Disk | Self::Memory | Self::Layered | Self::Image | Self::Unknown => true,
            Self::Remote | Self::Pseudo => false,
        }
    }

    /// Its tree may be walked.
    pub const fn may_be_walked(self) -> bool {
        match self {
            Self::Disk | Self::Memory | Self::Layered | Self::Image => true,
            Self::Remote | Self::Pseudo | Self::Unknown => false,
        }
    }
}

// === impl Space ===

impl Space {
    /// From what statvfs says.
    pub fn of(stat: &StatVfs) -> Self {
        // Some filesystems leave the unit of their counts to the block size.
        let unit = if stat.f_frsize == 0 {
            stat.f_bsize
        } else {
            stat.f_frsize
        };
        let bytes = |blocks: u64| blocks.saturating_mul(unit);
        Self {
            bytes: bytes(stat.f_blocks),
            bytes_free: bytes(stat.f_bfree),
            bytes_available: bytes(stat.f_bavail),
            inodes: stat.f_files,
            inodes_free: stat.f_ffree,
        }
    }

    /// Bytes that are taken: what files take, and what the filesystem keeps for itself.
    pub const fn used(&self) -> u64 {
        self.bytes.saturating_sub(self.bytes_free)
    }

    /// Free bytes that only root may write: 5 % on a default ext4.
    pub const fn reserved(&self) -> u64 {
        self.bytes_free.saturating_sub(self.bytes_available)
    }

    /// Inodes that are taken.
    pub const fn inodes_used(&self) -> u64 {
        self.inodes.saturating_sub(self.inodes_free)
    }

    /// Used space in percent, as df says it: of what is not reserved, rounded up. None when there is nothing.
    pub fn used_percent(&self) -> Option<u64> {
        percent_up(
            self.used(),
            self.used().saturating_add(self.bytes_available),
        )
    }

    /// Used inodes in percent, rounded up. None where inodes have no limit.
    pub fn inodes_used_percent(&self) -> Option<u64> {
        percent_up(self.inodes_used(), self.inodes)
    }
}

fn percent_up(part: u64, whole: u64) -> Option<u64> {
    let percent = (u128::from(part) * 100).div_ceil(u128::from(whole).max(1));
    (whole > 0).then(|| u64::try_from(percent).unwrap_or(u64::MAX))
}

// === impl Filesystem ===

impl Filesystem {
    /// The filesystem behind a mount, asked through it.
    pub(crate) fn look(mount: &Mount, holds: Vec<PathBuf>) -> Self {
        let kind = Kind::of(&mount.kind);
        let stat = if kind.answers() {
            rustix::fs::statvfs(&mount.point).ok()
        } else {
            None
        };
        let is_read_only = stat
            .as_ref()
            .is_some_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY));
        Self {
            device: mount.device,
            fstype: mount.kind.clone(),
            kind,
            source: mount.source.clone(),
            point: mount.point.clone(),
            root: mount.root.clone(),
            read_only: if mount.is_withdrawn() {
                ReadOnly::Withdrawn
            } else if mount.is_filesystem_read_only() {
                ReadOnly::Filesystem
            } else if is_read_only || mount.is_read_only() {
                ReadOnly::Mount
            } else {
                ReadOnly::No
            },
            space: stat.as_ref().map(Space::of),
            holds,
        }
    }

    /// Asks again how full it is.
    pub(crate) fn ask(&mut self) {
        if self.kind.answers()
            && let Ok(stat) = rustix::fs::statvfs(&self.point)
        {
            self.space = Some(Space::of(&stat));
        }
    }

    /// All of it is seen at its place.
    pub fn is_whole(&self) -> bool {
        self.root == Path::new("/")
    }
}

/// Every filesystem for storage, in the order in which they were mounted; each once. `guarded` are absolute paths
/// without symbolic links.
pub(crate) fn all(mounts: &Mounts, guarded: &[PathBuf]) -> Vec<Filesystem> {
    let mut seen: Vec<Device> = Vec::new();
    let mut filesystems = Vec::new();
    for mount in mounts.iter() {
        if Kind::of(&mount.kind) == Kind::Pseudo || seen.contains(&mount.device) {
            continue;
        }
        seen.push(mount.device);
        let Some(view) = mounts.views(mount.device).first().copied() else {
            continue; // Covered everywhere.
        };
        let holds = guarded
            .iter()
            .filter(|path| mounts.at(path).is_some_and(|at| at.device == mount.device));
        filesystems.push(Filesystem::look(view, holds.cloned().collect()));
    }
    filesystems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(bytes: u64, free: u64, available: u64) -> Space {
        Space {
            bytes,
            bytes_free: free,
            bytes_available: available,
            inodes: 1000,
            inodes_free: 990,
        }
    }

    // B-015: percent as df rounds it; the reserve is part of neither side.
    #[test]
    fn percent_is_that_of_df() {
        assert_eq!(space(1000, 0, 0).used_percent(), Some(100));
        assert_eq!(space(1000, 50, 0).used_percent(), Some(100));
        assert_eq!(space(1000, 50, 0).reserved(), 50);
        assert_eq!(space(1000, 999, 949).used_percent(), Some(1));
        assert_eq!(space(1000, 1000, 950).used_percent(), Some(0));
        assert_eq!(space(0, 0, 0).used_percent(), None);
        assert_eq!(
            space(u64::MAX, 1, 1).used_percent(),
            Some(100),
            "no overflow"
        );
        assert_eq!(space(1, 1, 1).inodes_used_percent(), Some(1));
        let without = Space {
            inodes: 0,
            inodes_free: 0,
            ..space(1, 1, 1)
        };
        assert_eq!(without.inodes_used_percent(), None, "btrfs has no limit");
    }

    // What cannot be known is not asked, and what is not known is not walked.
    #[test]
    fn types_that_may_never_answer_are_not_asked() {
        for fstype in ["nfs4", "fuse.sshfs", "fuse", "cifs", "9p"] {
            assert!(!Kind::of(fstype).answers(), "{fstype}");
        }
        for fstype in ["ext4", "xfs", "btrfs", "tmpfs"] {
            assert!(Kind::of(fstype).may_be_walked(), "{fstype}");
        }
        let new = Kind::of("newfs");
        assert_eq!(new, Kind::Unknown);
        assert!(new.answers() && !new.may_be_walked());
    }

    // D-03
    #[test]
    fn each_filesystem_is_listed_once_with_what_it_holds() {
        let text = "\
22 1 259:1 / / rw - ext4 /dev/root rw
24 22 0:22 / /proc rw - proc proc rw
40 22 259:2 / /var/lib/containerd rw - xfs /dev/b rw
42 22 259:1 /home /srv rw - ext4 /dev/root rw
43 22 0:60 / /net rw - nfs4 host:/a rw
44 22 8:9 /logs /logs rw - ext4 /dev/c rw
45 22 8:9 /pods /data rw - ext4 /dev/c rw
";
        let mounts = Mounts::parse(text.as_bytes()).unwrap();
        let guarded = ["/", "/var/lib/etcd", "/var/lib/containerd"].map(PathBuf::from);
        let found: Vec<(String, usize)> = all(&mounts, &guarded)
            .into_iter()
            .map(|one| (one.point.display().to_string(), one.holds.len()))
            .collect();
        let expected = [
            ("/", 2),
            ("/var/lib/containerd", 1),
            ("/net", 0),
            ("/data", 0),
        ];
        assert_eq!(
            found,
            expected.map(|(point, holds)| (point.to_owned(), holds))
        );
    }
}
