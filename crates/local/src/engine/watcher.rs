//! Notices that the workload file changed, by looking once a second.
//!
//! Looking works on every file system and with every way editors have to replace a file, and one `stat` a second costs
//! nothing. What counts is the file that the path leads to: its inode, its size, its time of change.

use std::path::Path;
use std::time::Duration;

use std::os::unix::fs::MetadataExt as _;

use nagi_runtime::Shutdown;
use tokio::time::{MissedTickBehavior, interval};

use super::{LocalEngine, ReloadError};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Until the next look after the state directory could not be written.
const RETRY: Duration = Duration::from_secs(5);

/// Which content a path leads to, as far as the system tells without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Remembers what the file looked like when it was last read.
#[derive(Debug)]
pub(super) struct Watcher {
    seen: Option<Stamp>,
}

// === impl Watcher ===

impl Watcher {
    /// Takes the file as it is now for the one that is read next.
    pub(super) fn of(path: &Path) -> Self {
        Self { seen: stamp(path) }
    }

    /// Reloads the engine's file after each change until the process has drained.
    pub(super) async fn run(mut self, engine: LocalEngine, shutdown: Shutdown) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Cancel-safe: a tick that was not taken comes again.
            tokio::select! {
                () = shutdown.stopped() => return,
                _ = look.tick() => {}
            }
            let now = stamp(&engine.file);
            if now != self.seen {
                // The outcome is logged and kept where it happens; the former file stays in force.
                match engine.reload().await {
                    Ok(_) | Err(ReloadError::File(_)) => self.seen = now,
                    // Not the file is at fault: the same content is taken over once the disk has room again.
                    Err(ReloadError::Store(_) | ReloadError::Blocking(_)) => {
                        self.seen = None;
                        look.reset_after(RETRY);
                    }
                }
            }
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}
