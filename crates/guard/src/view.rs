//! From where a tree is seen: past the mounts that lie in it where the caller may, otherwise up to them.
//!
//! `open_tree` clones one mount without those that lie on it and attaches the clone nowhere. What is read through it is
//! the filesystem itself, also the directories that a mount hides, and nothing in the caller's namespace changes. It needs
//! `CAP_SYS_ADMIN`. Without it, the tree is read as everybody sees it, and each mount is named as not looked under.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

/// An open directory, and what is seen from there.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) directory: OwnedFd,
    /// What lies under mounts is seen; if not, why.
    pub(crate) past_mounts: Result<(), Errno>,
}

/// Opens a directory. Links in its path are followed: the caller named it.
///
/// # Errors
/// It is no directory, or may not be opened.
pub(crate) fn open(path: &Path) -> Result<View, Errno> {
    let how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = rustix::mount::open_tree(CWD, path, how).and_then(|tree| {
        // The descriptor of the tree itself cannot be read.
        rustix::fs::openat(&tree, c".", HOW, Mode::empty())
    });
    match clone {
        Ok(directory) => Ok(View {
            directory,
            past_mounts: Ok(()),
        }),
        Err(why) => Ok(View {
            directory: rustix::fs::openat(CWD, path, HOW, Mode::empty())?,
            past_mounts: Err(why),
        }),
    }
}

const HOW: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
