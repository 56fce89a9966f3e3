//! Files of ours in the configuration of a node: looked at, written as a whole, and taken back, without a link being followed.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::seal::{self, Hand};
use super::{CapError, Change, Standing};
use crate::clean::place;
use crate::filesystem::Space;
use crate::own::write_all;

/// A file that ours replaced and that was not ours to the byte lies beside it under this ending, which no owner reads.
const BEFORE: &str = ".before-nagi";
/// A file that is being written; no owner reads it either.
const NEW: &str = ".new-nagi";
/// A configuration that is longer is none of ours.
const LENGTH_MAX: usize = 64 << 10;

/// A node by its root.
#[derive(Debug)]
pub(crate) struct Node {
    root: OwnedFd,
}

/// The directory of a file and its name there.
struct Spot {
    directory: OwnedFd,
    name: String,
}

// === impl Node ===

impl Node {
    pub(crate) fn open(root: &Path) -> Result<Self, CapError> {
        Ok(Self {
            root: crate::clean::open_root(root)?,
        })
    }

    /// A directory of the node is there, and is no link.
    pub(crate) fn is_directory(&self, path: &Path) -> bool {
        matches!(place::open_base(&self.root, path), Ok(Some(_)))
    }

    /// Something is there under this name, however that is reached.
    pub(crate) fn has(&self, path: &Path) -> bool {
        let below = path.strip_prefix("/").unwrap_or(path);
        let within = ResolveFlags::IN_ROOT;
        let how = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, below, how, Mode::empty(), within).is_ok()
    }

    /// What is in a file, links followed as on the node; none where there is none, or it is no file.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub(crate) fn text(&self, path: &Path) -> Result<Option<String>, CapError> {
        let how = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let read = || {
            let Some(file) = self.there(path, how)? else {
                return Ok(None);
            };
            if !FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_file() {
                return Ok(None);
            }
            Ok(Some(String::from_utf8_lossy(&content(&file)?).into_owned()))
        };
        read().map_err(|source| CapError::File {
            path: path.to_owned(),
            source,
        })
    }

    /// The names of the drop-ins in a directory, in the order in which they are read; none where there is no directory.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn drop_ins(&self, directory: &Path) -> Result<Vec<String>, CapError> {
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let list = || {
            let Some(opened) = self.there(directory, how)? else {
                return Ok(Vec::new());
            };
            let mut names = Vec::new();
            for entry in rustix::fs::Dir::new(opened)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                let ending = Path::new(&name).extension();
                if ending.is_some_and(|ending| ending == "conf") && !name.starts_with('.') {
                    names.push(name);
                }
            }
            names.sort_unstable();
            Ok(names)
        };
        list().map_err(|source| CapError::File {
            path: directory.to_owned(),
            source,
        })
    }

    /// How large the disk is that a path of the node lies on, or would lie on: the nearest directory of it that is there decides.
    ///
    /// # Errors
    /// It cannot be asked.
    pub(crate) fn disk_bytes(&self, path: &Path) -> Result<u64, CapError> {
        let ask = || {
            for at in path.ancestors() {
                if let Some(there) = self.there(at, OFlags::PATH | OFlags::CLOEXEC)? {
                    return Ok(Space::of(&rustix::fs::fstatvfs(there)?).bytes);
                }
            }
            Ok(Space::of(&rustix::fs::fstatvfs(&self.root)?).bytes)
        };
        ask().map_err(|source| CapError::File {
            path: path.to_owned(),
            source,
        })
    }

    /// Opens what a path of the node leads to, links followed as on the node; none where it leads nowhere.
    fn there(&self, path: &Path, how: OFlags) -> Result<Option<OwnedFd>, Errno> {
        let below = path.strip_prefix("/").unwrap_or(path);
        let below = if below.as_os_str().is_empty() {
            Path::new(".")
        } else {
            below
        };
        match rustix::fs::openat2(&self.root, below, how, Mode::empty(), ResolveFlags::IN_ROOT) {
            Ok(opened) => Ok(Some(opened)),
            // Sockets and devices without a driver are no files either.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::NODEV) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// How a file stands to the text that it would have.
    pub(crate) fn standing(&self, path: &Path, text: &str) -> Result<Standing, CapError> {
        let failed = |source| CapError::File {
            path: path.to_owned(),
            source,
        };
        let Some(spot) = self.spot(path, Make::No).map_err(failed)? else {
            return Ok(Standing::Missing);
        };
        match spot.read(&spot.name) {
            Ok(Some(present)) if present == text.as_bytes() => Ok(Standing::Set),
            Ok(Some(present)) => Ok(match seal::hand(&present) {
                Hand::Ours => Standing::Other,
                Hand::Edited => Standing::Edited,
                Hand::Others => Standing::Foreign,
            }),
            Ok(None) => Ok(Standing::Missing),
            // A link, a directory, or what is too long for a drop-in.
            Err(Errno::LOOP | Errno::ISDIR | Errno::FBIG | Errno::XDEV) => Ok(Standing::Foreign),
            Err(error) => Err(failed(error)),
        }
    }

    /// Writes a file as a whole: readers see the former one or this one. One that is not ours to the byte is kept beside it.
    pub(crate) fn write(&self, path: &Path, text: &str, mode: Mode) -> Result<Change, CapError> {
        self.change(path, Make::Yes, |spot| {
            let new = format!("{}{NEW}", spot.name);
            spot.put(&new, text.as_bytes(), mode)?;
            let directory = &spot.directory;
            let kept = spot.keep();
            let placed =
                kept.and_then(|_| rustix::fs::renameat(directory, &new, directory, &spot.name));
            if placed.is_err() {
                spot.drop_own(&new)?;
                if kept == Ok(true) {
                    // Its second name: the file is where it was.
                    spot.drop_own(&format!("{}{BEFORE}", spot.name))?;
                }
            }
            placed?;
            rustix::fs::fsync(&spot.directory)?;
            Ok(Change::Written)
        })
    }

    /// Takes a file of ours away, or puts back what it replaced. One that is not ours to the byte stays.
    pub(crate) fn take_back(&self, path: &Path) -> Result<Change, CapError> {
        self.change(path, Make::No, |spot| {
            if spot.is_of_others()? {
                return Ok(Change::Left);
            }
            let before = format!("{}{BEFORE}", spot.name);
            let change =
                match rustix::fs::renameat(&spot.directory, &before, &spot.directory, &spot.name) {
                    Ok(()) => Change::Restored,
                    Err(Errno::NOENT) if spot.drop_own(&spot.name)? => Change::Removed,
                    Err(Errno::NOENT) => return Ok(Change::Left),
                    Err(error) => return Err(error),
                };
            rustix::fs::fsync(&spot.directory)?;
            Ok(change)
        })
    }

    fn change(
        &self,
        path: &Path,
        make: Make,
        act: impl FnOnce(&Spot) -> Result<Change, Errno>,
    ) -> Result<Change, CapError> {
        let failed = |source| CapError::File {
            path: path.to_owned(),
            source,
        };
        let spot = self.spot(path, make).map_err(failed)?;
        spot.map_or(Ok(Change::Left), |spot| act(&spot).map_err(failed))
    }

    /// None where its directory is not there and is not to be made.
    fn spot(&self, path: &Path, make: Make) -> Result<Option<Spot>, Errno> {
        let above = path.parent().ok_or(Errno::INVAL)?;
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or(Errno::INVAL)?.to_owned();
        if let Some(directory) = place::open_base(&self.root, above)? {
            return Ok(Some(Spot { directory, name }));
        }
        match make {
            Make::No => Ok(None),
            Make::Yes => {
                let parent = above.parent().ok_or(Errno::INVAL)?;
                let parent = place::open_base(&self.root, parent)?.ok_or(Errno::NOENT)?;
                let own = above.file_name().ok_or(Errno::INVAL)?;
                let mode = Mode::from_raw_mode(0o755);
                rustix::fs::mkdirat(&parent, own, mode)?;
                let directory = place::open_below(&parent, own.as_bytes())?;
                Ok(Some(Spot { directory, name }))
            }
        }
    }
}

/// Whether the directory of a drop-in is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Make {
    Yes,
    No,
}

// === impl Spot ===

impl Spot {
    /// What is in a file; none where there is none.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Errno> {
        let file = match place::open_file(&self.directory, name.as_bytes()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        content(&file).map(Some)
    }

    /// Makes a file with this content, on its medium.
    fn put(&self, name: &str, content: &[u8], mode: Mode) -> Result<(), Errno> {
        self.drop_own(name)?;
        let how =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name, how, mode)?;
        // Whatever the umask of this process.
        let written = rustix::fs::fchmod(&file, mode)
            .and_then(|()| write_all(&file, content))
            .and_then(|()| rustix::fs::fsync(&file));
        if written.is_err() {
            self.drop_own(name)?;
        }
        written
    }

    /// Something has its name that is not ours to the byte.
    fn is_of_others(&self) -> Result<bool, Errno> {
        match self.read(&self.name) {
            Ok(present) => Ok(present.is_some_and(|present| seal::hand(&present) != Hand::Ours)),
            Err(Errno::LOOP | Errno::FBIG) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Gives a file of somebody else a second name, under which it stays, and says whether there was one. One that is kept
    /// already is not replaced.
    fn keep(&self) -> Result<bool, Errno> {
        if !self.is_of_others()? {
            return Ok(false);
        }
        let before = format!("{}{BEFORE}", self.name);
        let directory = &self.directory;
        rustix::fs::linkat(directory, &self.name, directory, &before, AtFlags::empty())?;
        Ok(true)
    }

    /// Removes a name of ours, and says whether it was there.
    fn drop_own(&self, name: &str) -> Result<bool, Errno> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// All of a file, unless it is too long for a configuration.
fn content(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut content = vec![0; LENGTH_MAX];
    let mut length = 0;
    while let Some(rest) = content.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(file.as_fd(), rest)? {
            0 => {
                content.truncate(length);
                return Ok(content);
            }
            more => length += more,
        }
    }
    Err(Errno::FBIG)
}
