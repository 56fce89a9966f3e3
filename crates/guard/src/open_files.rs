//! Files that have no name any more and still take space, because somebody holds them open.
//!
//! They are found where the kernel shows them: descriptors in `/proc/PID/fd`, and mapped files in `/proc/PID/map_files`,
//! which only privileged readers may follow. A file that several hold is counted once, with all of them. A file that was
//! opened through an overlay shows the overlay's device: the directory that the overlay writes to says whose space it is.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::blocks::Blocks;
use crate::mounts::{Device, Mounts};

const ASKED: StatxFlags = StatxFlags::TYPE
    .union(StatxFlags::NLINK)
    .union(StatxFlags::INO)
    .union(StatxFlags::SIZE)
    .union(StatxFlags::BLOCKS)
    .union(StatxFlags::MNT_ID);
/// What the kernel writes behind the name of a file that was removed.
pub(crate) const GONE: &[u8] = b" (deleted)";

/// A file without a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// The filesystem that it takes space of.
    pub device: Device,
    /// Its number there; 0 where only a loop device holds it, which does not tell.
    pub inode: u64,
    /// What comes back when the last holder lets go. Where only a loop device holds it, at most so much: it may have holes.
    pub blocks: Blocks,
    /// The name that it had.
    pub path: PathBuf,
    /// Who holds it, by process.
    pub holders: Vec<Holder>,
}

/// Who holds a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process; 0 for a loop device.
    pub pid: u32,
    /// What it is called.
    pub command: String,
    /// The descriptor; none when the file is only mapped.
    pub fd: Option<u32>,
}

/// What is held on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenFiles {
    /// The largest first.
    pub deleted: Vec<Deleted>,
    /// Processes that were looked at.
    pub processes: u64,
    /// Processes whose files this user may not see.
    pub denied: u64,
}

/// Files without a name that some process of the node holds open, wherever they lie.
///
/// # Errors
/// There is no proc below that root, or the mounts cannot be read.
pub fn open_files(root: &Path) -> std::io::Result<OpenFiles> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    let mounts = Mounts::parse(&text).map_err(std::io::Error::other)?;
    Ok(look(&root.join("proc"), &mounts)?)
}

// === impl Deleted ===

impl Deleted {
    /// No process holds it.
    pub(crate) fn is_behind_a_loop(&self) -> bool {
        self.holders.iter().all(|holder| holder.pid == 0)
    }
}

type Files = BTreeMap<(Device, u64), Deleted>;

/// Looks through every process that can be seen at `proc`.
///
/// # Errors
/// There is no proc.
pub(crate) fn look(proc: &Path, mounts: &Mounts) -> Result<OpenFiles, Errno> {
    let mut found = OpenFiles::default();
    let mut files = Files::new();
    for pid in numbers(&directory(proc)?)? {
        found.processes += 1;
        let looked = process(proc, pid, mounts, &mut files);
        // Any other error: it has ended.
        if matches!(looked, Err(Errno::ACCESS | Errno::PERM)) {
            found.denied += 1;
        }
    }
    found.deleted = files.into_values().collect();
    found
        .deleted
        .sort_by_key(|file| std::cmp::Reverse(file.blocks));
    Ok(found)
}

fn process(proc: &Path, pid: u32, mounts: &Mounts, files: &mut Files) -> Result<(), Errno> {
    let own = proc.join(pid.to_string());
    let mut holder = Held {
        own: &own,
        pid,
        command: None,
        mounts,
        files,
    };
    let descriptors = directory(&own.join("fd"))?;
    for fd in numbers(&descriptors)? {
        holder.take(descriptors.as_fd(), OsStr::new(&fd.to_string()), Some(fd));
    }
    // Lines of mapped files look like `7f00-7f01 r--p 00000000 08:01 42   /usr/lib/x.so (deleted)`.
    let maps = std::fs::read(own.join("maps")).unwrap_or_default();
    let mut gone = maps
        .split(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(GONE))
        .filter_map(|line| line.split(|byte| *byte == b' ').next())
        .peekable();
    if gone.peek().is_none() {
        return Ok(());
    }
    // Closed to those without CAP_SYS_ADMIN; then only files that are also open are found.
    let mapped = directory(&own.join("map_files"))?;
    for range in gone {
        holder.take(mapped.as_fd(), OsStr::from_bytes(range), None);
    }
    Ok(())
}

/// One process, while it is looked at.
struct Held<'a> {
    own: &'a Path,
    pid: u32,
    /// Read when it is needed.
    command: Option<String>,
    mounts: &'a Mounts,
    files: &'a mut Files,
}

// === impl Held ===

impl Held<'_> {
    /// Takes what a link of proc leads to, if it is a file without a name.
    fn take(&mut self, links: impl AsFd + Copy, link: &OsStr, fd: Option<u32>) {
        let Ok(stat) = rustix::fs::statx(links, link, AtFlags::NO_AUTOMOUNT, ASKED) else {
            return; // Closed since.
        };
        let is_file = FileType::from_raw_mode(stat.stx_mode.into()).is_file();
        if stat.stx_nlink != 0 || !is_file || stat.stx_blocks == 0 {
            return;
        }
        let shown = Device {
            major: stat.stx_dev_major,
            minor: stat.stx_dev_minor,
        };
        let mount = self.of_mount(shown, stat.stx_mnt_id);
        let device = self.behind_overlay(mount).unwrap_or(mount);
        let command = self
            .command
            .get_or_insert_with(|| command(self.own))
            .clone();
        let file = self
            .files
            // Two subvolumes of a btrfs have files of one number, and device numbers of their own.
            .entry((shown, stat.stx_ino))
            .or_insert_with(|| Deleted {
                device,
                inode: stat.stx_ino,
                blocks: Blocks(stat.stx_blocks),
                path: former_name(links, link),
                holders: Vec::new(),
            });
        let is_known = file.holders.iter().any(|holder| holder.pid == self.pid);
        if !is_known {
            file.holders.push(Holder {
                pid: self.pid,
                command,
                fd,
            });
        }
    }

    /// The filesystem of a file that shows this device and was opened through this mount: no mount shows the number of a
    /// subvolume of a btrfs.
    fn of_mount(&self, shown: Device, id: u64) -> Device {
        if self.mounts.iter().any(|mount| mount.device == shown) {
            return shown;
        }
        let Ok(id) = u32::try_from(id) else {
            return shown;
        };
        if let Some(mount) = self.mounts.with_id(id) {
            return mount.device;
        }
        // A mount of the process's own namespace.
        let text = std::fs::read(self.own.join("mountinfo")).unwrap_or_default();
        let mounts = Mounts::parse(&text).unwrap_or_default();
        mounts.with_id(id).map_or(shown, |mount| mount.device)
    }

    /// The filesystem that an overlay of this device writes to. The overlay may be mounted in the process's own namespace
    /// only.
    fn behind_overlay(&self, device: Device) -> Option<Device> {
        let find = |mounts: &Mounts| {
            let overlay = mounts
                .iter()
                .find(|mount| mount.device == device && mount.kind == "overlay")?;
            overlay.super_option("upperdir")
        };
        let upper = find(self.mounts).or_else(|| {
            let text = std::fs::read(self.own.join("mountinfo")).ok()?;
            find(&Mounts::parse(&text).ok()?)
        })?;
        Some(self.mounts.at(Path::new(&upper))?.device)
    }
}

fn directory(path: &Path) -> Result<rustix::fd::OwnedFd, Errno> {
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, how, Mode::empty())
}

/// The entries whose names are numbers.
fn numbers(directory: impl AsFd) -> Result<Vec<u32>, Errno> {
    let mut numbers = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let number: Option<u32> = entry
            .file_name()
            .to_str()
            .ok()
            .and_then(|name| name.parse().ok());
        numbers.extend(number);
    }
    Ok(numbers)
}

fn command(own: &Path) -> String {
    let text = std::fs::read(own.join("comm")).unwrap_or_default();
    String::from_utf8_lossy(text.strip_suffix(b"\n").unwrap_or(&text)).into_owned()
}

fn former_name(links: impl AsFd, link: &OsStr) -> PathBuf {
    let target = rustix::fs::readlinkat(links, link, Vec::new());
    let target = target
        .map(std::ffi::CString::into_bytes)
        .unwrap_or_default();
    let name = target.strip_suffix(GONE).unwrap_or(&target);
    PathBuf::from(OsString::from_vec(name.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::MetadataExt as _;

    fn mounts() -> Mounts {
        Mounts::parse(&std::fs::read("/proc/self/mountinfo").unwrap()).unwrap()
    }

    // D-06
    #[test]
    #[expect(clippy::disallowed_methods, reason = "removes what the test made")]
    fn a_removed_file_is_named_with_its_holder_until_it_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gone");
        let mut file = File::create(&path).unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        let inode = file.metadata().unwrap().ino();
        let find = || {
            let found = look(Path::new("/proc"), &mounts()).unwrap();
            assert!(found.processes > 0);
            found.deleted.into_iter().find(|one| one.inode == inode)
        };
        assert_eq!(find(), None, "it still has its name");
        let odd = directory.path().join("odd (deleted)");
        std::fs::rename(&path, &odd).unwrap();
        assert_eq!(find(), None, "whatever that ends with");
        std::fs::rename(&odd, &path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = file.try_clone().unwrap();
        let found = find().unwrap();
        assert_eq!(found.path, path);
        assert_eq!(found.blocks.bytes(), 1 << 20);
        let [holder] = &found.holders[..] else {
            panic!("one process, though it has two descriptors: {found:?}")
        };
        assert_eq!(holder.pid, std::process::id());
        assert_eq!(holder.fd, u32::try_from(file.as_raw_fd()).ok());
        assert!(!holder.command.is_empty());
        drop((file, second));
        assert_eq!(find(), None);
    }

    #[test]
    fn without_proc_it_says_so() {
        assert_eq!(
            look(Path::new("/nowhere"), &mounts()).unwrap_err(),
            Errno::NOENT
        );
    }
}
