//! Writes the line of the founding document to its file, which may lie on the disk in trouble.
//!
//! Opening and writing wait for that disk, so both are done on a thread of their own, behind a bounded queue. The file stays
//! open, so that a line needs no inode; where its name leads to another file by now, as after a rotation, that one is opened.

use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nagi_runtime::{Blocking, BlockingError, Shutdown};
use nagi_telemetry::Metrics;
use tokio::sync::mpsc;

use super::{count, opened_or_told};

/// Its name in the log and in metrics.
const SINK: &str = "alert-log";
/// At the end what waits gets this: a disk that answers takes milliseconds.
const LAST: Duration = Duration::from_secs(2);

/// The other end of the file's queue.
#[derive(Debug)]
pub(in super::super) struct Scribe {
    log: AlertLog,
    waiting: mpsc::Receiver<Vec<u8>>,
    metrics: Metrics,
}

/// The file.
#[derive(Debug)]
struct AlertLog {
    path: PathBuf,
    file: Option<File>,
}

// === impl Scribe ===

impl Scribe {
    /// The file is not opened yet.
    pub(super) const fn new(
        path: PathBuf,
        waiting: mpsc::Receiver<Vec<u8>>,
        metrics: Metrics,
    ) -> Self {
        let log = AlertLog { path, file: None };
        Self {
            log,
            waiting,
            metrics,
        }
    }

    /// Writes what comes, until nobody tells any more.
    ///
    /// # Errors
    /// The thread panicked.
    pub(in super::super) async fn run(self, shutdown: Shutdown) -> Result<(), BlockingError> {
        let late = async {
            shutdown.draining().await;
            tokio::time::sleep(LAST).await;
        };
        tokio::select! {
            // Cancel-safe: what was not written is given up with the process.
            written = self.write() => written?,
            // Cancel-safe: a state, and then a time.
            () = late => {}
        }
        // It ends with the process and not before.
        shutdown.draining().await;
        Ok(())
    }

    async fn write(self) -> Result<(), BlockingError> {
        let Self {
            mut log,
            mut waiting,
            metrics,
        } = self;
        let writes = Blocking::new("alert log", 1);
        log = writes
            .run(move || {
                log.file = opened_or_told(SINK, open(&log.path));
                log
            })
            .await?;
        while let Some(line) = waiting.recv().await {
            let written;
            (log, written) = writes
                .run(move || {
                    let written = log.write(&line);
                    (log, written)
                })
                .await?;
            count(&metrics, SINK, written);
        }
        Ok(())
    }
}

// === impl AlertLog ===

impl AlertLog {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if !self.is_current() {
            match open(&self.path) {
                Ok(file) => self.file = Some(file),
                // A full disk has no inode for a new one: better the old one than none.
                Err(error) if self.file.is_none() => return Err(error),
                Err(_) => {}
            }
        }
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        // One write: a line is there as a whole or not.
        file.write_all(line)
    }

    /// Its name still leads to it.
    fn is_current(&self) -> bool {
        let identity = |of: io::Result<Metadata>| of.ok().map(|of| (of.dev(), of.ino()));
        let held = self.file.as_ref();
        let held = held.and_then(|file| identity(file.metadata()));
        held.is_some() && held == identity(self.path.symlink_metadata())
    }
}

/// Writes one line, and waits for it.
pub(in super::super) fn append(path: &Path, line: &str) -> io::Result<()> {
    open(path)?.write_all(format!("{line}\n").as_bytes())
}

/// Opens a plain file. A link that somebody laid there leads nowhere, and a pipe that nobody reads holds up nobody.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let how = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(how.bits()).map_err(io::Error::other)?;
    options
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(flags);
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a plain file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(path: &Path) -> AlertLog {
        AlertLog {
            path: path.to_owned(),
            file: open(path).ok(),
        }
    }

    // A rotation renames the file, or takes it away: the next line is in the one that has the name.
    #[test]
    fn a_line_after_a_rotation_is_in_the_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk-alert.log");
        let mut log = log(&path);
        log.write(b"one\n").unwrap();
        let rotated = directory.path().join("disk-alert.log.1");
        std::fs::rename(&path, &rotated).unwrap();
        log.write(b"two\n").unwrap();
        log.write(b"three\n").unwrap();
        assert_eq!(std::fs::read(&rotated).unwrap(), b"one\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"two\nthree\n");
    }

    // The directory may come later than the guard.
    #[test]
    fn a_file_that_could_not_be_opened_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log/disk-alert.log");
        let mut log = log(&path);
        assert!(log.write(b"one\n").is_err());
        std::fs::create_dir(directory.path().join("log")).unwrap();
        log.write(b"two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
    }

    #[test]
    fn only_a_plain_file_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path().join("target"), &link).unwrap();
        assert!(open(&link).is_err());
        assert!(open(Path::new("/dev/null")).is_err());
        assert!(!directory.path().join("target").exists());
    }
}
