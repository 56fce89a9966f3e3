//! Files of a node below a root, with links followed as on the node: `/etc/kubernetes` of a disk that is mounted below
//! `/mnt` may be a link to `/data/kubernetes`, which is then `/mnt/data/kubernetes`.
//!
//! It only reads, and never more than a stated number of bytes.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nagi_cri::kubelet::Kind;
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// A manifest, a kubeconfig or a certificate is some kilobytes; etcd's largest object is 1.5 MiB.
pub(crate) const FILE_MAX: u64 = 2 << 20;

/// The root directory of a node.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
    path: PathBuf,
}

/// An entry of a directory.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// What it is, or what it leads to where it is a link.
    pub(crate) kind: Kind,
    pub(crate) is_link: bool,
    pub(crate) modified: Option<SystemTime>,
    /// When its state last changed, to which a new name belongs.
    pub(crate) changed: Option<SystemTime>,
}

// === impl Root ===

impl Root {
    /// Opens it.
    ///
    /// # Errors
    /// It is no directory, or may not be opened.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            directory: rustix::fs::open(path, how, Mode::empty())?,
            path: path.to_owned(),
        })
    }

    /// It is that of this machine.
    pub(crate) fn is_own(&self) -> bool {
        self.path == Path::new("/")
    }

    /// How a path of the node is called for programs of this machine, which follow links by this machine's root.
    pub(crate) fn outside(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix("/").unwrap_or(path);
        self.path.join(below)
    }

    /// Where a path of the node lies for this process, its links followed as on the node: what can be connected to and written.
    /// Of a path that is not there the nearest directory of it that is decides.
    pub(crate) fn real(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix("/").unwrap_or(path);
        for there in below.ancestors() {
            let at = if there.as_os_str().is_empty() {
                Path::new(".")
            } else {
                there
            };
            let Ok(found) = self.opened(at, OFlags::PATH | OFlags::CLOEXEC) else {
                continue;
            };
            let shown = format!("/proc/self/fd/{}", found.as_raw_fd());
            let (Ok(real), Ok(rest)) = (std::fs::read_link(shown), below.strip_prefix(there))
            else {
                break;
            };
            // Joined with nothing it would end with a slash, as only a directory may.
            return if rest.as_os_str().is_empty() {
                real
            } else {
                real.join(rest)
            };
        }
        self.outside(path)
    }

    /// The text of a file.
    ///
    /// # Errors
    /// It is not there, may not be read, is no file, or has more than [`FILE_MAX`] bytes.
    pub(crate) fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let file = self.file(path)?;
        let mut bytes = Vec::new();
        let length = file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
        if u64::try_from(length).unwrap_or(u64::MAX) > FILE_MAX {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes)
    }

    /// An open file.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn file(&self, path: &Path) -> std::io::Result<File> {
        // A pipe that somebody laid there would never open.
        let how = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(self.opened(path, how)?);
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("it is no file"));
        }
        Ok(file)
    }

    /// Something is there, whatever it is.
    pub(crate) fn has(&self, path: &Path) -> bool {
        self.opened(path, OFlags::PATH | OFlags::CLOEXEC).is_ok()
    }

    /// Nothing is there. What may not be looked at may be there.
    pub(crate) fn lacks(&self, path: &Path) -> bool {
        let found = self.opened(path, OFlags::PATH | OFlags::CLOEXEC);
        found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    /// What a directory holds, by name.
    ///
    /// # Errors
    /// It is not there, or may not be read.
    pub(crate) fn list(&self, path: &Path) -> std::io::Result<Vec<Entry>> {
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = self.opened(path, how)?;
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue; // No name that any of these programs writes.
            };
            if name == "." || name == ".." {
                continue;
            }
            let below = path.join(name);
            let metadata = self
                .opened(&below, OFlags::PATH | OFlags::CLOEXEC)
                .and_then(|found| File::from(found).metadata());
            entries.push(Entry {
                name: name.to_owned(),
                kind: metadata.as_ref().map_or(Kind::Nowhere, kind),
                is_link: entry.file_type() == rustix::fs::FileType::Symlink,
                changed: metadata.as_ref().ok().and_then(changed),
                modified: metadata.and_then(|found| found.modified()).ok(),
            });
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    fn opened(&self, path: &Path, how: OFlags) -> std::io::Result<OwnedFd> {
        let found = rustix::fs::openat2(
            &self.directory,
            path,
            how,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        );
        Ok(found?)
    }
}

// === impl Entry ===

impl Entry {
    pub(crate) fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
}

fn kind(metadata: &std::fs::Metadata) -> Kind {
    if metadata.is_file() {
        Kind::File
    } else if metadata.is_dir() {
        Kind::Directory
    } else {
        Kind::Other
    }
}

fn changed(metadata: &std::fs::Metadata) -> Option<SystemTime> {
    let (seconds, nanos) = (metadata.ctime(), metadata.ctime_nsec());
    let since = Duration::new(seconds.try_into().ok()?, nanos.try_into().ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    // A disk that is mounted somewhere has links that are absolute, and some that lead above its root.
    #[test]
    fn links_lead_where_they_lead_on_the_node() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(at.join("data/run/containerd")).unwrap();
        std::fs::write(at.join("data/run/containerd/sock"), "").unwrap();
        std::os::unix::fs::symlink("/data/run", at.join("run")).unwrap();
        std::os::unix::fs::symlink("../../run", at.join("data/up")).unwrap();
        let root = Root::open(&at).unwrap();
        let real = |path: &str| root.real(Path::new(path));
        let own = at.join("data/run");
        assert_eq!(real("/run/containerd/sock"), own.join("containerd/sock"));
        assert_eq!(real("/data/up/containerd"), own.join("containerd"));
        // What is not there yet, below what is.
        assert_eq!(real("/run/nagi/a"), own.join("nagi/a"));
        assert_eq!(real("/nowhere"), at.join("nowhere"));
        assert_eq!(real("/"), at);
        let machine = Root::open(Path::new("/")).unwrap();
        assert_eq!(machine.real(&at.join("data")), at.join("data"));
    }
}
