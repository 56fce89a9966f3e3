//! A state file that is overwritten in place, and still never loses what it holds.
//!
//! The file is two slots of the same size, written in turn: the slot with the last acknowledged state is never touched, so
//! a write that is torn by a loss of power leaves that state behind. Whoever reads tells a whole slot from a torn one by the
//! digest inside it. Overwriting blocks that the file already has costs one sync of data. A new file and a rename cost two
//! commits of the file system's journal instead, which wait for whatever else is being written: five times as long at the
//! median on ext4 under load.
//!
//! Content is text and padded with blanks, so that `cat` and `jq` show both slots. Content that does not fit makes the file
//! anew, with larger slots, by `disk::replace`; so does the first write.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::disk::{self, Survives, WriteError};

/// Slots grow in steps of this, in bytes: a block of most file systems.
const BLOCK: usize = 4096;
/// A write is refused when the file system has less room than this, in bytes, although it needs none itself: what follows
/// from it (records of replicas, their output, the history) would have no place. A replica and its start take below 8 KiB.
const ROOM_BYTES: u64 = 64 * 1024;

/// Which half of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    First,
    Second,
}

/// Both slots as they lie in the file, padding included.
#[derive(Debug)]
pub(super) struct Slots {
    content: Vec<u8>,
}

// === impl Slot ===

impl Slot {
    /// The one that is written while this one is kept.
    pub(super) const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

// === impl Slots ===

impl Slots {
    /// Takes the content of a file apart.
    pub(super) const fn of(content: Vec<u8>) -> Self {
        Self { content }
    }

    /// All of it, for a file that has no slots.
    pub(super) fn whole(&self) -> &[u8] {
        self.content.trim_ascii()
    }

    /// The content of a slot without its padding; empty when it was never written.
    pub(super) fn get(&self, slot: Slot) -> &[u8] {
        let (first, second) = self.content.split_at(self.content.len() / 2);
        match slot {
            Slot::First => first.trim_ascii(),
            Slot::Second => second.trim_ascii(),
        }
    }
}

/// Overwrites one slot and syncs it. When this fails, the slot is blank or torn, and the other one is as it was.
///
/// # Errors
/// [`WriteError::Full`] also when the file system is full although this write would fit.
pub(super) fn overwrite(path: &Path, slot: Slot, content: &[u8]) -> Result<(), WriteError> {
    let failed = |source| WriteError::new(path, source);
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    check_room(&file, 0).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len() / 2;
    let offset = match slot {
        Slot::First => 0,
        Slot::Second => size,
    };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if content.len() >= size {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    let written = file
        .write_all_at(&padded(content, size), offset)
        .and_then(|()| file.sync_data());
    written.map_err(|source| {
        // What was not acknowledged must not come back at the next start. This may fail as well; then the write took
        // effect although its answer was an error, which its caller expects of a broken disk.
        drop(file.write_all_at(&padded(b"", size), offset));
        failed(source)
    })
}

/// True when a slot of the present file holds this much.
pub(super) fn fits(slots: &Slots, content: &[u8]) -> bool {
    content.len() < slots.content.len() / 2
}

/// Makes the file anew with `content` in its first slot.
///
/// # Errors
/// [`WriteError`]; the file is as it was.
pub(super) fn create(path: &Path, content: &[u8]) -> Result<(), WriteError> {
    let size = (content.len() + 1).next_multiple_of(BLOCK);
    let mut whole = padded(content, size);
    whole.extend(padded(b"", size));
    disk::replace(path, &whole, Survives::PowerLoss)
}

/// `content` and blanks; the last byte ends a line.
fn padded(content: &[u8], size: usize) -> Vec<u8> {
    let mut slot = Vec::with_capacity(size);
    slot.extend_from_slice(content);
    slot.resize(size.saturating_sub(1), b' ');
    slot.push(b'\n');
    slot
}

/// Fails when there is less room than a change needs after `written` bytes more.
pub(super) fn check_room(file: &File, written: u64) -> io::Result<()> {
    let room = rustix::fs::fstatvfs(file)?;
    if room.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Err(rustix::io::Errno::ROFS.into());
    }
    let no_inode = room.f_files > 0 && room.f_favail == 0;
    if no_inode || room.f_bavail.saturating_mul(room.f_frsize) < ROOM_BYTES + written {
        return Err(rustix::io::Errno::NOSPC.into());
    }
    Ok(())
}
