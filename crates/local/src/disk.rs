//! Files of ours on the disk: replaced as a whole, removed only by us, failures told apart.
//!
//! A replacement is a temporary file in the same directory, its sync, a rename and a sync of the directory: after a
//! loss of power there is the old content or the new one, never a part. The one fault that users meet and can mend, a full or
//! read-only disk, is an error of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// How far a replacement has to survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Survives {
    /// The death of any process. The page cache does that.
    Processes,
    /// The loss of power, too.
    PowerLoss,
}

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk is full, over quota, read-only, or the file would be larger than allowed.
    #[error("no room to write {}", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The directory is not the one that was opened.
    #[error("the state directory {} is away: it was moved, unmounted or replaced", path.display())]
    Away {
        /// Where it was.
        path: PathBuf,
    },
    /// Any other failure.
    #[error("cannot write {}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

// === impl WriteError ===

impl WriteError {
    /// Sorts a failure of the system into its class.
    pub(crate) fn new(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        let full = matches!(
            source.kind(),
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::FileTooLarge
        );
        if full {
            Self::Full { path, source }
        } else {
            Self::Other { path, source }
        }
    }
}

/// Replaces the content of `path`, readable by its owner only.
///
/// # Errors
/// What kept it from being written. The old content is still there then, and no temporary file is left.
pub(crate) fn replace(path: &Path, content: &[u8], survives: Survives) -> Result<(), WriteError> {
    let temporary = path.with_extension("tmp");
    let replaced = write_and_rename(&temporary, path, content, survives);
    if replaced.is_err() {
        remove_file(&temporary);
    }
    replaced.map_err(|source| WriteError::new(path, source))
}

/// Makes a directory and its parents, open to their owner only. One that is there is as good.
///
/// # Errors
/// What kept it from being made.
pub(crate) fn make_directory(path: &Path) -> Result<(), WriteError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|source| {
        // A file has that name, which `File exists` would not tell.
        if source.kind() == io::ErrorKind::AlreadyExists {
            WriteError::new(path, io::ErrorKind::NotADirectory.into())
        } else {
            WriteError::new(path, source)
        }
    })
}

/// Removes a file that this crate wrote. One that is gone, or cannot be removed, is left to the next start to find.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that removes files, all of them ours"
)]
pub(crate) fn remove_file(path: &Path) {
    drop(fs::remove_file(path));
}

/// Removes a directory that this crate made, with all that is in it.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that removes trees, all of them ours"
)]
pub(crate) fn remove_tree(path: &Path) {
    drop(fs::remove_dir_all(path));
}

/// Makes a directory of this crate empty.
///
/// # Errors
/// What could not be removed or made.
#[expect(
    clippy::disallowed_methods,
    reason = "trees that this crate made, of an engine that begins from nothing"
)]
pub(crate) fn clear_directory(path: &Path) -> Result<(), WriteError> {
    gone(fs::remove_dir_all(path)).map_err(|source| WriteError::new(path, source))?;
    make_directory(path)
}

/// Takes a file of this crate away, or says why not.
///
/// # Errors
/// What kept it from being removed; that it is not there is no error.
#[expect(
    clippy::disallowed_methods,
    reason = "files that this crate wrote, of an engine that begins from nothing"
)]
pub(crate) fn clear_file(path: &Path) -> Result<(), WriteError> {
    gone(fs::remove_file(path)).map_err(|source| WriteError::new(path, source))
}

/// What was not there is as good as removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes an entry of a directory (a new name, a removed one) survive the loss of power.
///
/// # Errors
/// What the system said.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// True when the last byte of a file is no line end: a writer died, or the disk was full, in the middle of a line.
///
/// # Errors
/// What the system said.
pub(crate) fn ends_inside_a_line(file: &File, size: u64) -> io::Result<bool> {
    let Some(last) = size.checked_sub(1) else {
        return Ok(false);
    };
    let mut byte = [0_u8];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte != *b"\n")
}

fn write_and_rename(
    temporary: &Path,
    path: &Path,
    content: &[u8],
    survives: Survives,
) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(temporary)?;
    file.write_all(content)?;
    match survives {
        Survives::Processes => fs::rename(temporary, path),
        Survives::PowerLoss => {
            file.sync_all()?;
            fs::rename(temporary, path)?;
            path.parent().map_or(Ok(()), sync_directory)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_where_a_directory_should_be_is_called_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        make_directory(&path("state")).unwrap();
        make_directory(&path("state")).unwrap();
        fs::write(path("file"), "").unwrap();
        let error = make_directory(&path("file")).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, "not a directory");
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        replace(&path, b"one", Survives::PowerLoss).unwrap();
        replace(&path, b"two", Survives::Processes).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(names.len(), 1);
        // A directory stands where the file should be: the rename fails after the content was written.
        let blocked = directory.path().join("b.json");
        fs::create_dir_all(blocked.join("x")).unwrap();
        assert!(matches!(
            replace(&blocked, b"x", Survives::Processes),
            Err(WriteError::Other { .. })
        ));
        assert!(!directory.path().join("b.tmp").exists());
    }

    #[test]
    fn only_a_lack_of_room_counts_as_full() {
        let path = Path::new("/x");
        for full in [
            rustix::io::Errno::NOSPC,
            rustix::io::Errno::DQUOT,
            rustix::io::Errno::ROFS,
            rustix::io::Errno::FBIG,
        ] {
            let error = WriteError::new(path, full.into());
            assert!(matches!(error, WriteError::Full { .. }), "{full:?}");
        }
        let other = WriteError::new(path, rustix::io::Errno::ACCESS.into());
        assert!(matches!(other, WriteError::Other { .. }));
    }
}
