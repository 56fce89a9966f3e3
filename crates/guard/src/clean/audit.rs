//! What was removed, written down before it is: in a ring on the disk, and under `/run`. The caller puts it on stderr too.
//!
//! The ring is one file of fixed size, allocated while there was room. Writing into allocated blocks works on ext4, XFS and
//! btrfs with nothing free; only on btrfs the second round needs space for its copies, and then `/run` must do. A record
//! begins at a multiple of [`SLOT`] bytes and ends with a newline, so that `grep -a` reads the ring.
//!
//! A record counts as written when one of the two took it; when neither does, nothing is removed any more. The lock lies
//! under `/run` as well, so that there is one cleaner on a node however full its disks are.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nagi_ports::Clock;
use rustix::fs::{AtFlags, FallocateFlags, FileType, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use thiserror::Error;

use super::place;
use super::plan::{Item, Step};
use super::reach::Reach;
use crate::blocks::Blocks;

/// Where the lock and the short record lie.
const RUN: &str = "/run";
/// Where the ring lies.
const STATE: &str = "/var/lib";
/// Our directory under `/run`.
const RUN_OWN: &str = "nagi";
/// Our directory beside the ring. Not the `/var/lib/nagi` that a server with `--state-dir` may have for a user of its own, whom
/// a directory of root would lock out.
const STATE_OWN: &str = "nagi-guard";
const LOCK: &str = "disk-clean.lock";
const LOG: &str = "disk-audit.log";
const LOG_BEFORE: &str = "disk-audit.log.1";
const RING: &str = "disk-audit.ring";
/// At a new start a longer record under `/run` is put aside: it lies in memory.
const LOG_MAX: u64 = 4 << 20;
/// What most records fit in.
const SLOT: usize = 512;
/// Of the ring. A plan holds no more records than that.
pub(super) const SLOTS: usize = 2048;
/// 2,048 slots: 1 MiB.
const RING_BYTES: u64 = 1 << 20;
/// Where the ring goes round, a record that does not fit in the rest begins anew, and the rest is lost: at most one record less
/// a slot. Linux takes paths of 4,095 bytes, which escaped are four times that: 33 slots with what stands around them.
pub(super) const SLOTS_LOST: usize = 48;
/// The magic, number and moment before what is to be done, and the end of the line.
const AROUND: usize = 64;
/// No ring is made when less than this is available: at that moment every byte is somebody else's.
const ROOM_MIN: u64 = 64 << 20;
/// Begins a record; paths have no blank, so that nothing inside one looks like it.
const MAGIC: &[u8] = b"nagi ";
/// The magic, 16 digits and a blank.
const MARK: usize = 5 + 16 + 1;

/// Why nothing may be removed.
#[derive(Debug, Error)]
pub enum AuditError {
    /// Another cleaner is at work.
    #[error("another nagi is cleaning this node")]
    Busy,
    /// The lock cannot be made.
    #[error("cannot make /run/nagi/{file}")]
    Run {
        /// The file.
        file: &'static str,
        /// Why.
        source: Errno,
    },
    /// The node has no `/run`.
    #[error("there is no /run on this node")]
    NoRun,
}

/// Both records, and the lock.
#[derive(Debug)]
pub(super) struct Audit {
    ring: Option<Ring>,
    log: Option<OwnedFd>,
    sequence: u64,
    /// Why the last of them was given up.
    failure: Errno,
    lock: OwnedFd,
}

#[derive(Debug)]
struct Ring {
    file: OwnedFd,
    /// Where the next record goes.
    at: u64,
}

// === impl Audit ===

impl Audit {
    /// Takes the lock and opens the records.
    ///
    /// # Errors
    /// Somebody else has the lock, or there is nowhere for it.
    pub(super) fn open(root: &OwnedFd, reach: &Reach) -> Result<Self, AuditError> {
        let failed = |file| move |source| AuditError::Run { file, source };
        if reach.refuses(Path::new(RUN)).is_some() {
            return Err(failed("")(Errno::OPNOTSUPP));
        }
        let run = place::open_base(root, Path::new(RUN)).map_err(failed(""))?;
        let run = own(&run.ok_or(AuditError::NoRun)?, RUN_OWN).map_err(failed(""))?;
        let lock = make(&run, LOCK, OFlags::RDWR).map_err(failed(LOCK))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(AuditError::Busy),
            Err(source) => return Err(AuditError::Run { file: LOCK, source }),
        }
        let log = open_log(&run).map_err(failed(LOG))?;
        // What it cannot do is said when both fail.
        let (ring, sequence) = match open_ring(root, reach) {
            Ok(Some((ring, last))) => (Some(ring), last),
            Ok(None) | Err(_) => (None, 0),
        };
        Ok(Self {
            ring,
            log: Some(log),
            sequence,
            failure: Errno::NOENT,
            lock,
        })
    }

    /// The ring takes records.
    pub(super) const fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// Writes one record, and returns it once it is on its medium.
    ///
    /// # Errors
    /// Neither of the two took it.
    pub(super) fn record(&mut self, clock: &dyn Clock, what: &str) -> Result<String, Errno> {
        self.sequence += 1;
        let line = format!("nagi {:016x} {:.3} {what}", self.sequence, clock.now());
        if let Some(ring) = &mut self.ring
            && let Err(error) = ring.append(line.as_bytes())
        {
            self.failure = error;
            self.ring = None;
        }
        if let Some(log) = &self.log
            && let Err(error) = write_all(log, format!("{line}\n").as_bytes())
        {
            self.failure = error;
            self.log = None;
        }
        if self.ring.is_none() && self.log.is_none() {
            return Err(self.failure);
        }
        Ok(line)
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child that is just being started and has a copy until it runs its program.
        // It cannot fail for a lock that is held; if it did, the end of this process would let it go.
        let unlocked = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
        debug_assert!(unlocked.is_ok(), "the lock is held while its handle lives");
    }
}

// === impl Ring ===

impl Ring {
    fn append(&mut self, line: &[u8]) -> Result<(), Errno> {
        let slots = (line.len() + 1).div_ceil(SLOT);
        let mut record = line.to_vec();
        record.resize(slots * SLOT, b' ');
        if let Some(last) = record.last_mut() {
            *last = b'\n';
        }
        let length = u64::try_from(record.len()).unwrap_or(u64::MAX);
        if length > RING_BYTES {
            return Err(Errno::FBIG);
        }
        if self.at.saturating_add(length) > RING_BYTES {
            self.at = 0;
        }
        let mut rest = &record[..];
        let mut at = self.at;
        while !rest.is_empty() {
            let written = rustix::io::pwrite(&self.file, rest, at)?;
            rest = rest.get(written..).unwrap_or_default();
            at += u64::try_from(written).unwrap_or(0);
        }
        rustix::fs::fdatasync(&self.file)?;
        self.at = at;
        Ok(())
    }
}

/// Our own directory below another, made when it is missing.
fn own(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => place::open_below(parent, name.as_bytes()),
        Err(error) => Err(error),
    }
}

/// Opens a file of ours, made when it is missing; a link is refused.
fn make(directory: &OwnedFd, name: &str, how: OFlags) -> Result<OwnedFd, Errno> {
    let how = how | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(directory, name, how, Mode::RUSR | Mode::WUSR, within)
}

fn open_log(run: &OwnedFd) -> Result<OwnedFd, Errno> {
    if place::look(run, LOG.as_bytes()).is_ok_and(|entry| entry.size > LOG_MAX) {
        rustix::fs::renameat(run, LOG, run, LOG_BEFORE)?;
    }
    make(run, LOG, OFlags::WRONLY | OFlags::APPEND)
}

/// The ring and the number of its last record; none where there is none and no room for one.
fn open_ring(root: &OwnedFd, reach: &Reach) -> Result<Option<(Ring, u64)>, Errno> {
    if reach.refuses(Path::new(STATE)).is_some() {
        return Ok(None);
    }
    let Some(state) = place::open_base(root, Path::new(STATE))? else {
        return Ok(None);
    };
    let space = crate::filesystem::Space::of(&rustix::fs::fstatvfs(&state)?);
    let has_room = space.bytes_available >= ROOM_MIN;
    let directory = match place::open_below(&state, STATE_OWN.as_bytes()) {
        Err(Errno::NOENT) if has_room => own(&state, STATE_OWN)?,
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    match place::look(&directory, RING.as_bytes()) {
        Ok(_) => {}
        Err(Errno::NOENT) if has_room => allocate(&directory)?,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    }
    let file = make(&directory, RING, OFlags::RDWR)?;
    // What was opened, whatever the name leads to by now.
    let stat = rustix::fs::fstat(&file)?;
    let is_ring = FileType::from_raw_mode(stat.st_mode).is_file()
        && stat.st_nlink == 1
        && u64::try_from(stat.st_size).is_ok_and(|size| size == RING_BYTES)
        && u64::try_from(stat.st_blocks).is_ok_and(|blocks| Blocks(blocks).bytes() >= RING_BYTES);
    if !is_ring {
        // Somebody else's file, or one with holes, which a full disk does not fill.
        return Err(Errno::INVAL);
    }
    let (at, last) = head(&file)?;
    Ok(Some((Ring { file, at }, last)))
}

fn allocate(directory: &OwnedFd) -> Result<(), Errno> {
    let file = make(directory, RING, OFlags::RDWR | OFlags::EXCL)?;
    let allocated = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RING_BYTES)
        .and_then(|()| rustix::fs::fsync(&file))
        .and_then(|()| rustix::fs::fsync(directory));
    if allocated.is_err() {
        // Ours, and of no use; what remains is told by the next look.
        rustix::fs::unlinkat(directory, RING, AtFlags::empty())?;
    }
    allocated
}

/// Behind the newest record, and its number.
fn head(file: &OwnedFd) -> Result<(u64, u64), Errno> {
    let size = usize::try_from(RING_BYTES).unwrap_or(usize::MAX);
    let mut bytes = vec![0; size];
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(file, rest, u64::try_from(read).unwrap_or(u64::MAX))? {
            0 => return Err(Errno::INVAL),
            more => read += more,
        }
    }
    let slots: Vec<&[u8]> = bytes.chunks(SLOT).collect();
    let newest = slots
        .iter()
        .enumerate()
        .filter_map(|(at, slot)| Some((number(slot)?, at)));
    let Some((last, at)) = newest.max() else {
        return Ok((0, 0));
    };
    // A record that a crash cut short has no end: the next one is written over it.
    let behind = slots.iter().skip(at);
    let length = behind
        .take_while(|slot| slot.last() != Some(&b'\n'))
        .count()
        + 1;
    let is_whole = slots
        .get(at + length - 1)
        .is_some_and(|slot| slot.last() == Some(&b'\n'));
    let next = if is_whole { at + length } else { at };
    Ok((u64::try_from(next * SLOT).unwrap_or(0), last))
}

/// The number of a record that begins with this slot.
fn number(slot: &[u8]) -> Option<u64> {
    let digits = slot.get(..MARK)?.strip_prefix(MAGIC)?.strip_suffix(b" ")?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn write_all(file: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let written = rustix::io::write(&file, bytes)?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// What is written down before a file goes.
pub(super) fn intent(step: &Step, item: &Item) -> String {
    let verb = if step.reclaimer.is_asked_for() {
        "ask-for"
    } else {
        "remove"
    };
    format!(
        "{verb} {} {} device={} inode={} size={} bytes={}",
        step.reclaimer.name(),
        escaped(step.whole(item).as_os_str().as_bytes()),
        item.device,
        item.inode,
        item.size,
        item.blocks.bytes(),
    )
}

/// How many slots the record of this takes.
pub(super) fn slots(what: &str) -> usize {
    (what.len() + AROUND).div_ceil(SLOT)
}

/// A path as records hold it: no blank, no line end, and every byte of it.
fn escaped(path: &[u8]) -> String {
    path.escape_ascii().to_string().replace(' ', "\\x20")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nagi_ports::SystemClock;

    fn node() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        for below in ["run", "var/lib"] {
            std::fs::create_dir_all(directory.path().join(below)).unwrap();
        }
        let root = place::open_root(directory.path()).unwrap();
        (directory, root)
    }

    fn open(root: &OwnedFd) -> Result<Audit, AuditError> {
        Audit::open(root, &Reach::of(root).unwrap())
    }

    // D-13
    #[test]
    fn there_is_one_cleaner_at_a_time() {
        let (_directory, root) = node();
        let first = open(&root).unwrap();
        assert!(matches!(open(&root), Err(AuditError::Busy)));
        drop(first);
        open(&root).unwrap();
    }

    #[test]
    fn without_run_nothing_is_begun() {
        let directory = tempfile::tempdir().unwrap();
        let root = place::open_root(directory.path()).unwrap();
        assert!(matches!(open(&root), Err(AuditError::NoRun)));
    }

    #[test]
    fn a_link_in_place_of_a_record_is_refused() {
        let (directory, root) = node();
        std::fs::create_dir(directory.path().join("run/nagi")).unwrap();
        let target = directory.path().join("shadow");
        std::fs::write(&target, "x").unwrap();
        std::os::unix::fs::symlink(&target, directory.path().join("run/nagi").join(LOG)).unwrap();
        assert!(matches!(
            open(&root),
            Err(AuditError::Run {
                source: Errno::LOOP,
                ..
            })
        ));
        assert_eq!(std::fs::read(&target).unwrap(), b"x");
    }

    // The ring goes round, keeps its size, and a new start goes on behind the newest record.
    #[test]
    fn the_ring_goes_round_and_goes_on_where_it_was() {
        let (directory, root) = node();
        let clock = SystemClock::new();
        let path = directory.path().join("var/lib/nagi-guard").join(RING);
        let mut written = 0;
        for round in 0..5 {
            let mut audit = open(&root).unwrap();
            if !audit.has_ring() {
                // The disk of this machine has less than 64 MiB left.
                return nagi_testkit::skipped("no room for a ring");
            }
            for number in 0..500 {
                let long = "x".repeat(if number % 7 == 0 { 3 * SLOT } else { 20 });
                audit
                    .record(&clock, &format!("remove {round} {number} {long}"))
                    .unwrap();
                written += 1;
            }
        }
        // Root's directory is not the state directory of a server that runs as somebody else.
        assert!(!directory.path().join("var/lib/nagi").exists());
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(u64::try_from(bytes.len()).unwrap(), RING_BYTES);
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.contains(&format!("nagi {written:016x} ")),
            "the newest is there"
        );
        let log = std::fs::read_to_string(directory.path().join("run/nagi").join(LOG)).unwrap();
        assert_eq!(log.lines().count(), written);
        assert_eq!(
            open(&root).unwrap().sequence,
            u64::try_from(written).unwrap()
        );
    }

    #[test]
    fn a_record_takes_no_more_slots_than_a_plan_counts() {
        assert_eq!(u64::try_from(SLOTS * SLOT).unwrap(), RING_BYTES);
        assert!(slots(&"x".repeat(4 * 4096 + 200)) <= SLOTS_LOST);
        let (directory, root) = node();
        let mut audit = open(&root).unwrap();
        audit.sequence = u64::MAX - 1;
        let line = audit.record(&SystemClock::new(), "").unwrap();
        assert!(line.len() < AROUND, "{line}");
        drop(directory);
    }

    // A file of somebody else, or one with holes, is not written to.
    #[test]
    fn a_ring_that_is_none_is_left_alone() {
        let (directory, root) = node();
        let own = directory.path().join("var/lib/nagi-guard");
        std::fs::create_dir(&own).unwrap();
        std::fs::File::create(own.join(RING))
            .unwrap()
            .set_len(RING_BYTES)
            .unwrap();
        let mut audit = open(&root).unwrap();
        assert!(!audit.has_ring());
        audit.record(&SystemClock::new(), "remove x").unwrap();
        assert!(
            std::fs::read(own.join(RING))
                .unwrap()
                .iter()
                .all(|byte| *byte == 0)
        );
    }

    #[test]
    fn nothing_in_a_path_looks_like_a_record() {
        assert_eq!(escaped(b"a b\n\xff"), "a\\x20b\\n\\xff");
    }
}
