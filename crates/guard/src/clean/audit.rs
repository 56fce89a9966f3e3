//! What was removed, written down before it is: in a ring on the disk, and under `/run`. The caller puts it on stderr too.
//!
//! The ring is one file of fixed size ([`crate::ring`]); where it takes no record any more, `/run` must do.
//!
//! A record counts as written when one of the two took it; when neither does, nothing is removed any more. The lock lies
//! under `/run` as well, so that there is one cleaner on a node however full its disks are.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use jiff::Timestamp;
use nagi_ports::Clock;
use rustix::fs::OFlags;
use rustix::io::Errno;
use thiserror::Error;

use super::apply::Done;
use super::place;
use super::plan::{Item, Step};
use super::policy::Reclaimer;
use super::reach::Reach;
use crate::own::{self, Lock, OwnError, make, write_all};
use crate::ring::{self, Ring, SLOT};

const LOCK: &str = "disk-clean.lock";
const LOG: &str = "disk-audit.log";
const LOG_BEFORE: &str = "disk-audit.log.1";
const RING: &str = "disk-audit.ring";
/// At a new start a longer record under `/run` is put aside: it lies in memory.
const LOG_MAX: u64 = 4 << 20;
/// Of the ring. A plan holds no more records than that.
pub(super) const SLOTS: usize = 2048;
/// 2,048 slots: 1 MiB.
const RING_BYTES: u64 = 1 << 20;
/// Where the ring goes round, a record that does not fit in the rest begins anew, and the rest is lost: at most one record less
/// a slot. Linux takes paths of 4,095 bytes, which escaped are four times that: 33 slots with what stands around them.
pub(super) const SLOTS_LOST: usize = 48;
/// The magic, number and moment before what is to be done, and the end of the line.
const AROUND: usize = 64;
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
    _lock: Lock,
}

// === impl Audit ===

impl Audit {
    /// Takes the lock and opens the records.
    ///
    /// # Errors
    /// Somebody else has the lock, or there is nowhere for it.
    pub(super) fn open(root: &OwnedFd, reach: &Reach) -> Result<Self, AuditError> {
        let of = |file| {
            move |error| match error {
                OwnError::Busy => AuditError::Busy,
                OwnError::Make(source) => AuditError::Run { file, source },
                OwnError::NoRun => AuditError::NoRun,
            }
        };
        let run = own::run(root, reach).map_err(of(""))?;
        let lock = Lock::take(&run, LOCK).map_err(of(LOCK))?;
        let log = open_log(&run).map_err(|source| AuditError::Run { file: LOG, source })?;
        // What it cannot do is said when both fail.
        let (ring, sequence) = match Ring::open(root, reach, RING, RING_BYTES) {
            Ok(Some((ring, last))) => (Some(ring), last),
            Ok(None) | Err(_) => (None, 0),
        };
        Ok(Self {
            ring,
            log: Some(log),
            sequence,
            failure: Errno::NOENT,
            _lock: lock,
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
        let line = ring::line(self.sequence, clock.now(), what);
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

fn open_log(run: &OwnedFd) -> Result<OwnedFd, Errno> {
    if place::look(run, LOG.as_bytes()).is_ok_and(|entry| entry.size > LOG_MAX) {
        rustix::fs::renameat(run, LOG, run, LOG_BEFORE)?;
    }
    make(run, LOG, OFlags::WRONLY | OFlags::APPEND)
}

/// What is written down before a file goes.
pub(super) fn intent(step: &Step, item: &Item) -> String {
    let verb = if step.reclaimer.is_asked_for() {
        "ask-for"
    } else {
        "remove"
    };
    let names = match &item.owned {
        // What the runtime calls it tells a person nothing. One name is enough, and has a bounded length.
        Some(owned) => {
            let name = owned.names.first().map_or("-", |name| name.as_str());
            format!(" name={}", ring::escaped(name.as_bytes()))
        }
        None => String::new(),
    };
    format!(
        "{verb} {} {} device={} inode={} size={} bytes={}{names}",
        step.reclaimer.name(),
        ring::escaped(step.whole(item).as_os_str().as_bytes()),
        item.device,
        item.inode,
        item.size,
        item.blocks.bytes(),
    )
}

/// What is written down when a step has ended: what came back, as measured.
pub(super) fn outcome(done: &Done) -> String {
    format!(
        "freed {} {} files={} bytes={}",
        done.reclaimer.name(),
        ring::escaped(done.directory.as_os_str().as_bytes()),
        done.removed,
        done.measured,
    )
}

/// What cleaning gave back, one for each step that removed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freed {
    /// When the step ended.
    pub at: Timestamp,
    /// Which kind.
    pub kind: Reclaimer,
    /// Where, on the node.
    pub directory: PathBuf,
    /// How many files went.
    pub files: u64,
    /// What came back, as measured: below nothing where others wrote meanwhile.
    pub bytes: i64,
}

/// What the ring knows of that, the oldest first: as far back as its 2,048 slots reach.
///
/// # Errors
/// It cannot be read.
pub(crate) fn freed(root: &OwnedFd, reach: &Reach) -> Result<Vec<Freed>, Errno> {
    let records = ring::read(root, reach, RING, RING_BYTES)?;
    Ok(records
        .iter()
        .filter_map(|record| {
            let mut words = record.what.strip_prefix("freed ")?.split(' ');
            let kind = Reclaimer::named(words.next()?)?;
            let directory = PathBuf::from(ring::unescaped(words.next()?)?);
            let mut number = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
            Some(Freed {
                at: record.at,
                kind,
                directory,
                files: number("files")?.parse().ok()?,
                bytes: number("bytes")?.parse().ok()?,
            })
        })
        .collect())
}

/// Makes the ring while there is room, where there is none, so that the first cleaning of a full disk is written down too. A
/// cleaner that is at work makes its own.
///
/// # Errors
/// It cannot be made: `ENOSPC` where there is too little room for it.
pub(crate) fn prepare(root: &OwnedFd, reach: &Reach) -> Result<(), Errno> {
    if ring::is_whole(root, reach, RING, RING_BYTES) {
        return Ok(());
    }
    let run = own::run(root, reach);
    let _lock = match run.and_then(|run| Lock::take(&run, LOCK)) {
        Ok(lock) => lock,
        Err(OwnError::Busy) => return Ok(()),
        Err(OwnError::NoRun) => return Err(Errno::NOENT),
        Err(OwnError::Make(error)) => return Err(error),
    };
    match Ring::open(root, reach, RING, RING_BYTES)? {
        Some(_) => Ok(()),
        None => Err(Errno::NOSPC),
    }
}

/// When the ring was last written to, in seconds and nanoseconds; none where there is none, or it cannot be asked.
pub(crate) fn written(root: &OwnedFd, reach: &Reach) -> Option<(i64, u32)> {
    ring::written(root, reach, RING)
}

/// How many slots the record of this takes.
pub(super) fn slots(what: &str) -> usize {
    (what.len() + AROUND).div_ceil(SLOT)
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

    // U19: what a crash left of a ring that was being made is no ring, and is made anew: under its own name, as older versions
    // made it, and under the name that it has until it is whole.
    #[test]
    fn a_ring_that_was_half_made_is_made_anew() {
        for (name, left) in [
            (RING, vec![]),
            (RING, vec![0; 5000]),
            ("disk-audit.ring.new", vec![0; 5000]),
            ("disk-audit.ring.new", b"text".to_vec()),
        ] {
            let (directory, root) = node();
            let own = directory.path().join("var/lib/nagi-guard");
            std::fs::create_dir(&own).unwrap();
            std::fs::write(own.join(name), left).unwrap();
            let mut audit = open(&root).unwrap();
            if !audit.has_ring() && free(directory.path()) < 64 << 20 {
                return nagi_testkit::skipped("no room for a ring");
            }
            assert!(audit.has_ring(), "{name}");
            audit.record(&SystemClock::new(), "remove x").unwrap();
            assert_eq!(std::fs::read_dir(&own).unwrap().count(), 1, "{name}");
            let ring = std::fs::read(own.join(RING)).unwrap();
            assert_eq!(u64::try_from(ring.len()).unwrap(), RING_BYTES);
        }
        // What somebody wrote is somebody's, however short it is.
        let (directory, root) = node();
        let own = directory.path().join("var/lib/nagi-guard");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join(RING), "text").unwrap();
        assert!(!open(&root).unwrap().has_ring());
        assert_eq!(std::fs::read(own.join(RING)).unwrap(), b"text");
    }

    fn free(path: &std::path::Path) -> u64 {
        crate::filesystem::Space::of(&rustix::fs::statvfs(path).unwrap()).bytes_available
    }

    // U19: it is there before the first cleaning, and who cleans meanwhile is not disturbed.
    #[test]
    fn the_ring_is_made_before_it_is_needed() {
        let (directory, root) = node();
        if free(directory.path()) < 64 << 20 {
            return nagi_testkit::skipped("no room for a ring");
        }
        let reach = Reach::of(&root).unwrap();
        let ring = directory.path().join("var/lib/nagi-guard").join(RING);
        let cleaner = Lock::take(&own::run(&root, &reach).unwrap(), LOCK).unwrap();
        prepare(&root, &reach).unwrap();
        assert!(!ring.exists(), "a cleaner makes its own");
        drop(cleaner);
        prepare(&root, &reach).unwrap();
        assert_eq!(std::fs::metadata(&ring).unwrap().len(), RING_BYTES);
        let audit = open(&root).unwrap();
        assert!(audit.has_ring());
        // What is there is not asked for the lock.
        prepare(&root, &reach).unwrap();
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
}
