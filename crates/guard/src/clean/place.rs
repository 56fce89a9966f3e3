//! The directories that are cleaned: opened once, and never left by a link or a mount.
//!
//! A base (`/var/log/pods`) may lie on a disk of its own, for a person mounted it; below it nothing is crossed. Each file is
//! reached anew from the base with `openat2`, so that a directory which somebody swaps for a link or lays a mount over is
//! refused by the kernel and not by a check that came a moment earlier.

use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use nagi_ports::Clock;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxAttributes, StatxFlags,
};
use rustix::io::Errno;

use crate::blocks::Blocks;
use crate::mounts::Device;

/// One piece of a directory: about a thousand names.
const PIECE: usize = 64 * 1024;
/// Entries of one directory that are looked at; the rest waits for the next run. A directory of etcd or of a program that
/// has run wild may hold millions, and names of this many take about 16 MiB.
pub(super) const NAMES_MAX: usize = 262_144;

/// Below a base: no link, no mount, no way out.
const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
/// On the way to a base: mounts of the node are crossed, links are not.
pub(super) const TO_BASE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
const ASKED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);
const ASK: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT);

/// An instant of the kernel: seconds since 1970, and nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Of the second that runs.
    pub nanoseconds: u32,
}

/// What one name is, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) device: Device,
    pub(crate) inode: u64,
    pub(crate) kind: FileType,
    pub(crate) size: u64,
    pub(crate) blocks: Blocks,
    pub(crate) links: u32,
    pub(crate) read: Instant,
    pub(crate) written: Instant,
    pub(crate) changed: Instant,
    /// None where the filesystem does not keep it.
    pub(crate) born: Option<Instant>,
    /// Something is mounted on it.
    pub(crate) is_mount: bool,
}

// === impl Instant ===

impl Instant {
    /// In microseconds, as journald counts; 0 for what lies before 1970.
    pub(crate) fn micros(self) -> u64 {
        u64::try_from(self.seconds)
            .unwrap_or(0)
            .saturating_mul(1_000_000)
            .saturating_add(u64::from(self.nanoseconds / 1000))
    }

    /// From microseconds.
    #[cfg(test)]
    pub(crate) fn of_micros(micros: u64) -> Self {
        Self {
            seconds: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
            // Below a million, times a thousand.
            nanoseconds: u32::try_from(micros % 1_000_000 * 1000).unwrap_or(0),
        }
    }

    /// Now, as the kernel stamps files.
    pub fn now(clock: &dyn Clock) -> Self {
        let now = clock.now();
        Self {
            seconds: now.as_second(),
            nanoseconds: u32::try_from(now.subsec_nanosecond()).unwrap_or(0),
        }
    }

    /// So much earlier.
    #[must_use]
    pub fn before(self, span: std::time::Duration) -> Self {
        let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        let (nanoseconds, borrowed) = match self.nanoseconds.checked_sub(span.subsec_nanos()) {
            Some(rest) => (rest, 0),
            None => (
                (self.nanoseconds + 1_000_000_000).saturating_sub(span.subsec_nanos()),
                1,
            ),
        };
        Self {
            seconds: self
                .seconds
                .saturating_sub(seconds)
                .saturating_sub(borrowed),
            nanoseconds,
        }
    }
}

// === impl Entry ===

impl Entry {
    fn of(stat: &Statx) -> Self {
        let instant = |of: &rustix::fs::StatxTimestamp| Instant {
            seconds: of.tv_sec,
            nanoseconds: of.tv_nsec,
        };
        let knows_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        Self {
            device: Device {
                major: stat.stx_dev_major,
                minor: stat.stx_dev_minor,
            },
            inode: stat.stx_ino,
            kind: FileType::from_raw_mode(stat.stx_mode.into()),
            size: stat.stx_size,
            blocks: Blocks(stat.stx_blocks),
            links: stat.stx_nlink,
            read: instant(&stat.stx_atime),
            written: instant(&stat.stx_mtime),
            changed: instant(&stat.stx_ctime),
            born: knows_birth.then(|| instant(&stat.stx_btime)),
            is_mount: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        }
    }

    /// The last sign of life: what was written or renamed lately is somebody's work under way.
    pub(crate) fn touched(&self) -> Instant {
        self.written.max(self.changed)
    }
}

/// Opens the root of a node, and makes sure that this kernel can keep to a directory.
///
/// # Errors
/// It cannot be opened; `ENOSYS` when the kernel has no `openat2` (Linux before 5.6) or does not tell what is mounted on a
/// file (before 5.8), or when something forbids it.
pub(crate) fn open_root(root: &Path) -> Result<OwnedFd, Errno> {
    let opened = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
    match rustix::fs::openat2(&opened, c".", OFlags::PATH, Mode::empty(), WITHIN) {
        Ok(_) => {}
        // Filters of containers answer `EPERM` for a call that they do not know.
        Err(Errno::NOSYS | Errno::PERM) => return Err(Errno::NOSYS),
        Err(error) => return Err(error),
    }
    let stat = rustix::fs::statx(&opened, c".", ASK, ASKED)?;
    let knows_mounts = stat
        .stx_attributes_mask
        .contains(StatxAttributes::MOUNT_ROOT);
    if knows_mounts {
        Ok(opened)
    } else {
        Err(Errno::NOSYS)
    }
}

/// What a place of a node is, which is there.
///
/// # Errors
/// It is not, or `ELOOP`: it is a link, or there is one on the way.
pub(crate) fn kind(root: impl AsFd, path: &Path) -> Result<FileType, Errno> {
    let how = OFlags::PATH | OFlags::CLOEXEC;
    let found = rustix::fs::openat2(root, below(path), how, Mode::empty(), TO_BASE)?;
    Ok(FileType::from_raw_mode(rustix::fs::fstat(found)?.st_mode))
}

/// Where the last part of a way leads, if it is a link; none when it is none, or not there. No link before it is followed.
///
/// # Errors
/// `ELOOP` when there is a link before it.
pub(crate) fn link(root: impl AsFd, path: &Path) -> Result<Option<PathBuf>, Errno> {
    let how = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = match rustix::fs::openat2(root, below(path), how, Mode::empty(), TO_BASE) {
        Ok(found) => found,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error),
    };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
    if !kind.is_symlink() {
        return Ok(None);
    }
    let target = rustix::fs::readlinkat(&found, c"", Vec::new())?;
    Ok(Some(PathBuf::from(OsString::from_vec(target.into_bytes()))))
}

/// From the root on, as the kernel takes it below a directory.
fn below(path: &Path) -> &Path {
    let below = path.strip_prefix("/").unwrap_or(path);
    if below.as_os_str().is_empty() {
        Path::new(".")
    } else {
        below
    }
}

/// Opens a base below the root of a node. None when it is not there.
///
/// # Errors
/// `ELOOP` when there is a link on the way.
pub(crate) fn open_base(root: impl AsFd, path: &Path) -> Result<Option<OwnedFd>, Errno> {
    match quietly(
        |how| rustix::fs::openat2(&root, below(path), how, Mode::empty(), TO_BASE),
        DIRECTORY,
    ) {
        Ok(base) => Ok(Some(base)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a directory below a base.
///
/// # Errors
/// `ELOOP` at a link, `EXDEV` at a mount.
pub(crate) fn open_below(base: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    quietly(
        |how| rustix::fs::openat2(&base, path, how, Mode::empty(), WITHIN),
        DIRECTORY,
    )
}

/// Opens a file below a base for reading. It waits for nobody, should it have become a pipe.
///
/// # Errors
/// As [`open_below`].
pub(crate) fn open_file(base: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    quietly(
        |how| rustix::fs::openat2(&base, path, how, Mode::empty(), WITHIN),
        how,
    )
}

/// The same for a file on the way to a base: it may be a mount, as `/etc/machine-id` sometimes is.
///
/// # Errors
/// `ELOOP` at a link.
pub(crate) fn open_on_way(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    quietly(
        |how| rustix::fs::openat2(&root, path, how, Mode::empty(), TO_BASE),
        how,
    )
}

/// What the node is called in the directories of journals: 32 hexadecimal digits.
pub(crate) fn machine_id(root: impl AsFd) -> Option<String> {
    let file = open_on_way(root, b"etc/machine-id").ok()?;
    let mut text = [0; 33];
    let read = rustix::io::read(&file, &mut text).ok()?;
    let id = std::str::from_utf8(text.get(..read.min(32))?).ok()?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// Without a time of access, which takes space on btrfs; only owner and root may leave that out.
fn quietly(open: impl Fn(OFlags) -> Result<OwnedFd, Errno>, how: OFlags) -> Result<OwnedFd, Errno> {
    match open(how | OFlags::NOATIME) {
        Err(Errno::PERM) => open(how),
        other => other,
    }
}

/// What a name in a directory is.
///
/// # Errors
/// It is gone.
pub(crate) fn look(directory: impl AsFd, name: &[u8]) -> Result<Entry, Errno> {
    let name = if name.is_empty() { b"." } else { name };
    rustix::fs::statx(directory, name, ASK, ASKED).map(|stat| Entry::of(&stat))
}

/// The names in a directory, at most [`NAMES_MAX`], in the order of their bytes.
///
/// # Errors
/// It cannot be read.
pub(crate) fn names(directory: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    let mut piece = vec![MaybeUninit::uninit(); PIECE];
    let mut entries = RawDir::new(directory, &mut piece);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        names.push(name.to_vec());
        if names.len() == NAMES_MAX {
            break;
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The same for a directory below a base, which its owner may remove at any moment: then it has none.
///
/// # Errors
/// It cannot be read.
pub(crate) fn names_below(directory: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    match names(directory) {
        Err(Errno::NOENT) => Ok(Vec::new()),
        other => other,
    }
}

/// The path of an open directory in this mount namespace.
///
/// # Errors
/// There is no proc.
pub(crate) fn path_of(directory: &OwnedFd) -> std::io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn instants_go_back_over_the_second_and_never_wrap() {
        let at = Instant {
            seconds: 10,
            nanoseconds: 5,
        };
        let earlier = at.before(Duration::new(2, 6));
        assert_eq!((earlier.seconds, earlier.nanoseconds), (7, 999_999_999));
        assert_eq!(at.before(Duration::new(2, 5)).nanoseconds, 0);
        assert_eq!(
            at.before(Duration::MAX).seconds,
            10_i64.saturating_sub(i64::MAX) - i64::from(at.nanoseconds < 999_999_999)
        );
        assert_eq!(Instant::of_micros(7_000_001).micros(), 7_000_001);
        assert_eq!(
            Instant {
                seconds: -1,
                nanoseconds: 0
            }
            .micros(),
            0
        );
    }

    // P1-10 of the review: a pod that goes while its directory is read takes no other with it.
    #[test]
    fn a_directory_that_was_removed_has_no_names() {
        let directory = tempfile::tempdir().unwrap();
        let root = open_root(directory.path()).unwrap();
        std::fs::create_dir(directory.path().join("pod")).unwrap();
        let pod = open_below(&root, b"pod").unwrap();
        rustix::fs::unlinkat(&root, "pod", AtFlags::REMOVEDIR).unwrap();
        assert_eq!(names(&pod), Err(Errno::NOENT));
        assert_eq!(names_below(&pod), Ok(Vec::new()));
    }

    // A link on the way is refused, on the way to a base and below it.
    #[test]
    fn links_lead_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().join("real/below");
        std::fs::create_dir_all(&real).unwrap();
        std::os::unix::fs::symlink("real", directory.path().join("link")).unwrap();
        let root = open_root(directory.path()).unwrap();
        assert_eq!(
            open_base(&root, Path::new("/link/below")).unwrap_err(),
            Errno::LOOP
        );
        assert!(
            open_base(&root, Path::new("/real/below"))
                .unwrap()
                .is_some()
        );
        assert!(open_base(&root, Path::new("/real/none")).unwrap().is_none());
        assert_eq!(open_below(&root, b"link").unwrap_err(), Errno::LOOP);
        assert_eq!(open_below(&root, b"../real").unwrap_err(), Errno::XDEV);
        assert_eq!(
            names(open_below(&root, b"").unwrap()).unwrap(),
            [b"link", b"real"]
        );
    }
}
