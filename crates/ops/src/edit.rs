//! Replacing a file that belongs to somebody else, as a whole and as it was: owner, mode and the link to it stay.
//!
//! Whoever reads it sees the old content or the new, also after a kill or the loss of power. It is replaced only while it is
//! what was read, and by one call at a time: the directory is locked meanwhile. What it deliberately does not keep: access lists and other extended attributes.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::root::FILE_MAX;

/// A file, read.
#[derive(Debug)]
pub(crate) struct Original {
    /// As it was named, in a directory behind every link.
    named: PathBuf,
    /// Behind every link.
    path: PathBuf,
    metadata: Metadata,
    pub(crate) bytes: Vec<u8>,
}

/// Locks that are ours until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Lock(Vec<PathBuf>);

// === impl Lock ===

impl Drop for Lock {
    fn drop(&mut self) {
        for path in &self.0 {
            // Whoever comes next is told what stays.
            drop(remove(path));
        }
    }
}

// === impl Original ===

impl Original {
    /// Reads it.
    ///
    /// # Errors
    /// It is not there, may not be read, is no file, or has more than [`FILE_MAX`] bytes.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let directory = path.parent().unwrap_or(Path::new("/")).canonicalize()?;
        let named = directory.join(path.file_name().unwrap_or_default());
        let path = path.canonicalize()?;
        let (metadata, bytes) = content(&path)?;
        Ok(Self {
            named,
            path,
            metadata,
            bytes,
        })
    }

    /// Where it is, behind every link.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// `NAME.SUFFIX` beside it.
    pub(crate) fn beside(&self, suffix: &str) -> PathBuf {
        beside(&self.path, suffix)
    }

    /// Takes the lock `NAME.SUFFIX` of programs that lock by making a file: beside it, and beside the link that named it.
    ///
    /// # Errors
    /// One cannot be made, or is there already; which.
    pub(crate) fn lock(&self, suffix: &str) -> Result<Lock, (PathBuf, io::Error)> {
        let mut lock = Lock(Vec::new());
        let is_linked = self.named != self.path;
        for path in [Some(&self.path), is_linked.then_some(&self.named)] {
            let Some(path) = path.map(|path| beside(path, suffix)) else {
                continue;
            };
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(_) => lock.0.push(path),
                Err(error) => return Err((path, error)),
            }
        }
        Ok(lock)
    }

    /// Puts other content in its place.
    ///
    /// # Errors
    /// It cannot be written, or is no longer what was read; then nothing has changed.
    pub(crate) fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let directory = self.locked()?;
        let new = self.written(bytes)?;
        let replaced = self
            .unchanged()
            .and_then(|()| std::fs::rename(&new, &self.path));
        finished(&directory, &new, replaced)
    }

    /// Lays a file of ours down beside it, with its owner and mode, in place of what is there.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn lay(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let directory = self.locked()?;
        let new = self.written(bytes)?;
        finished(&directory, &new, std::fs::rename(&new, path))
    }

    /// Lays a copy of it down at a path where nothing is, with its owner and mode.
    ///
    /// # Errors
    /// Something is there, or it cannot be written.
    pub(crate) fn copy_to(&self, path: &Path) -> io::Result<()> {
        let directory = self.locked()?;
        let new = self.written(&self.bytes)?;
        let renamed = rustix::fs::renameat_with(
            rustix::fs::CWD,
            &new,
            rustix::fs::CWD,
            path,
            rustix::fs::RenameFlags::NOREPLACE,
        );
        finished(&directory, &new, renamed.map_err(io::Error::from))
    }

    /// Takes a copy of ours away.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn remove_copy(&self, path: &Path) -> io::Result<()> {
        let directory = self.locked()?;
        remove(path)?;
        directory.sync_all()
    }

    /// Its directory, which nobody else who edits like this has until it is dropped.
    fn locked(&self) -> io::Result<File> {
        let directory = File::open(self.path.parent().unwrap_or(Path::new("/")))?;
        directory.lock()?;
        Ok(directory)
    }

    /// A file beside it with this content, durable. The directory is locked, so what has its name is of nobody who runs.
    fn written(&self, bytes: &[u8]) -> io::Result<PathBuf> {
        let new = self.beside(".nagi-new");
        // What a call that was killed left.
        match remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // Nobody else may read it before it has its owner: a kubeconfig holds keys.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        let metadata = &self.metadata;
        let owners = (metadata.uid(), metadata.gid());
        let written = file.write_all(bytes).and_then(|()| {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != owners {
                fchown(&file, Some(owners.0), Some(owners.1))?;
            }
            file.set_permissions(PermissionsExt::from_mode(metadata.mode() & 0o7777))?;
            file.sync_all()
        });
        if let Err(error) = written {
            // That it stays is no harm, and why it was made is over.
            drop(remove(&new));
            return Err(error);
        }
        Ok(new)
    }

    fn unchanged(&self) -> io::Result<()> {
        let (now, bytes) = content(&self.path)?;
        let same = |one: &Metadata| (one.dev(), one.ino(), one.mode(), one.uid(), one.gid());
        if same(&now) == same(&self.metadata) && bytes == self.bytes {
            return Ok(());
        }
        Err(io::Error::other("somebody else has changed it meanwhile"))
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path.file_name().unwrap_or_default());
    name.push(suffix);
    path.with_file_name(name)
}

/// What was laid down and did not find its place goes.
fn finished(directory: &File, new: &Path, done: io::Result<()>) -> io::Result<()> {
    if let Err(error) = done {
        drop(remove(new));
        return Err(error);
    }
    directory.sync_all()
}

fn content(path: &Path) -> io::Result<(Metadata, Vec<u8>)> {
    let file = OpenOptions::new()
        .read(true)
        // A pipe that somebody laid there would never open.
        .custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0))
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    let length = file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(length).unwrap_or(u64::MAX) > FILE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok((metadata, bytes))
}

#[expect(
    clippy::disallowed_methods,
    reason = "only files that this module has laid down beside another: locks, the new content, and the copy of the old"
)]
fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, text).unwrap();
        (directory, path)
    }

    #[test]
    fn a_file_keeps_its_mode_and_the_link_to_it() {
        let (directory, path) = file("old");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("a", &link).unwrap();
        let leftover = directory.path().join("a.nagi-new");
        std::fs::write(&leftover, "of a call that was killed").unwrap();
        Original::read(&link).unwrap().replace(b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "new");
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
        assert!(!leftover.exists());
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_stays() {
        let (directory, path) = file("old");
        let original = Original::read(&path).unwrap();
        std::fs::write(&path, "not").unwrap();
        let error = original.replace(b"new").unwrap_err();
        assert!(error.to_string().contains("changed it meanwhile"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "not");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    // Two who edit at once: each finds the other's whole content or its own, and nothing is lost in between.
    #[test]
    fn edits_at_once_do_not_mix() {
        let (directory, path) = file("0");
        let long = 1 << 20;
        std::thread::scope(|scope| {
            for letter in [b'a', b'b', b'c', b'd'] {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        // One that lost the race is told so.
                        drop(Original::read(path).unwrap().replace(&vec![letter; long]));
                    }
                });
            }
        });
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), long);
        assert!(bytes.iter().all(|byte| Some(byte) == bytes.first()));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_copy_replaces_nothing() {
        let (directory, path) = file("old");
        let original = Original::read(&path).unwrap();
        let copy = directory.path().join("b");
        original.copy_to(&copy).unwrap();
        std::fs::write(&copy, "theirs").unwrap();
        assert!(original.copy_to(&copy).is_err());
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), "theirs");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_pipe_and_a_directory_are_no_files() {
        let directory = tempfile::tempdir().unwrap();
        let error = Original::read(directory.path()).unwrap_err();
        assert!(error.to_string().contains("no file"), "{error}");
    }
}
