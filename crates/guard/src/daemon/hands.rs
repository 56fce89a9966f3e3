//! What is written after people were told: ballast that is let go or taken, and what a restart must know.
//!
//! All of it may wait for a disk, for as long as that does not answer. So it is a value of its own, which a thread of its own
//! can hold, and neither looks nor alerts wait for it. What was decided is remembered after it was told: a guard that is ended
//! in between tells it once more, and loses nothing.
//!
//! Opening waits for that disk too, as one that is frozen takes not even a directory. So a guard begins without it, holds the
//! lock that says who may write, and hears what was known before when the disk answers.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::io::Errno;

use super::Trouble;
use super::ballast::{Ballast, BallastError};
use super::decide::State;
use super::given::Given;
use super::kept::Kept;
use super::memory::{Memory, Past};
use crate::clean::reach::Reach;
use crate::clean::{freed, freed_at, prepare_record};
use crate::mounts::Device;
use crate::own::{Lock, STATE, STATE_OWN};

/// What holds the files of the guard, and its lock: nobody else writes them meanwhile.
#[derive(Debug)]
pub struct Hands {
    ballast: Option<Ballast>,
    memory: Memory,
    /// None once it was opened.
    unopened: Option<Unopened>,
    /// None until then.
    record: Option<Record>,
    _lock: Lock,
}

/// Where ballast and memory lie, until they are opened.
#[derive(Debug)]
pub(super) struct Unopened {
    pub(super) root: OwnedFd,
    pub(super) reach: Reach,
    /// The root of the node as it was named.
    pub(super) path: PathBuf,
    /// The disk of `/var/lib`.
    pub(super) device: Option<Device>,
    pub(super) keeps_ballast: bool,
}

/// What was removed is written down beside ballast and memory, by everybody who cleans.
#[derive(Debug)]
struct Record {
    root: OwnedFd,
    reach: Reach,
    /// When it was written to last, as it was read last.
    read: Option<(i64, u32)>,
}

/// What was found where ballast and memory lie.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) state: State,
    pub(super) past: Past,
    pub(super) kept: Option<Kept>,
}

/// What is to be written.
#[derive(Debug)]
pub struct Deeds {
    pub(super) at: Timestamp,
    pub(super) state: State,
    /// History, when it is time for it.
    pub(super) past: Option<Past>,
    /// What becomes of the ballast of a disk. There is one ballast, and nothing is decided of it while this is under way.
    pub(super) change: Option<(PathBuf, Change)>,
    /// It is looked whether somebody has cleaned. Nothing is written for that.
    pub(super) looks_at_record: bool,
}

/// What becomes of a ballast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// So much stays.
    Leave(u64),
    /// So much is taken.
    Take(u64),
    /// It is looked at: a person may have removed it.
    Look,
}

/// How it ended.
#[derive(Debug, Default)]
pub struct Acted {
    /// What became of the ballast, when something was to be done to it.
    pub ballast: Option<Changed>,
    /// What went wrong.
    pub troubles: Vec<Trouble>,
    /// What was known before, when it was opened now.
    pub(super) opened: Option<Opened>,
    /// What cleaning has given back, where that may be another than before.
    pub(super) given: Option<Vec<Given>>,
}

/// A ballast to which something was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The disk that it lies on.
    pub point: PathBuf,
    /// What it held.
    pub before: u64,
    /// What it holds.
    pub held: u64,
    /// What of it goes first.
    pub half: u64,
    /// It could not be taken.
    pub has_failed: bool,
}

// === impl Deeds ===

impl Deeds {
    /// How much longer than one record it may take a disk that is well: ballast is written, where it cannot be allocated, and
    /// 10 GiB at 100 MB/s take two minutes.
    #[must_use]
    pub const fn allowance(&self) -> Duration {
        match self.change {
            Some((_, Change::Take(_))) => Duration::from_mins(5),
            Some((_, Change::Leave(_) | Change::Look)) | None => Duration::ZERO,
        }
    }

    /// Both, where the first could not be begun before the second was there.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        Self {
            at: later.at,
            state: later.state,
            past: later.past.or(self.past),
            change: self.change.or(later.change),
            looks_at_record: self.looks_at_record || later.looks_at_record,
        }
    }
}

// === impl Hands ===

impl Hands {
    pub(super) fn new(unopened: Unopened, lock: Lock) -> Self {
        Self {
            ballast: None,
            memory: Memory::default(),
            unopened: Some(unopened),
            record: None,
            _lock: lock,
        }
    }

    /// Opens ballast and memory, once, and waits for their disk for as long as it takes. Where that goes wrong the guard goes on
    /// without.
    pub fn open(&mut self, now: Timestamp) -> Acted {
        let mut done = Acted::default();
        let Some(unopened) = self.unopened.take() else {
            return done;
        };
        let (memory, past, opened) = Memory::open(&unopened.root, &unopened.reach, now);
        done.troubles.extend(opened.err().map(Trouble::Memory));
        // Before the ballast, which leaves room for it, and while there is room: whoever cleans first may find none.
        let prepared = prepare_record(&unopened.root, &unopened.reach);
        done.troubles.extend(prepared.err().map(Trouble::Record));
        let found = unopened.ballast(now).unwrap_or_else(|error| {
            // Where none is to be kept, a disk that has none is as it should be.
            if unopened.keeps_ballast || !matches!(error, BallastError::Directory(_)) {
                done.troubles.push(Trouble::Ballast(STATE.into(), error));
            }
            None
        });
        let (kept, ballast) = found.unzip();
        done.opened = Some(Opened {
            state: memory.state().clone(),
            past,
            kept,
        });
        (self.ballast, self.memory) = (ballast, memory);
        let record = self.record.insert(Record {
            root: unopened.root,
            reach: unopened.reach,
            read: None,
        });
        done.given = record.look(now);
        done
    }

    /// Everything is remembered over a restart.
    pub const fn has_memory(&self) -> bool {
        self.memory.has_ring()
    }

    /// Does it, and waits for the disk.
    pub fn carry_out(&mut self, deeds: Deeds) -> Acted {
        let Deeds {
            at,
            state,
            past,
            change,
            looks_at_record,
        } = deeds;
        let mut done = self.open(at);
        // Room first: what it is needed for does not wait for a record.
        if let (Some(ballast), Some((point, change))) = (&self.ballast, change) {
            let before = ballast.held().unwrap_or(0);
            let ended = change_to(ballast, change);
            let [first, second] = ballast.halves().unwrap_or_default();
            let (held, half) = (first + second, if second > 0 { second } else { first });
            let has_failed = ended.is_err() && matches!(change, Change::Take(_));
            if let Err(error) = ended {
                done.troubles.push(Trouble::Ballast(point.clone(), error));
            }
            done.ballast = Some(Changed {
                point,
                before,
                held,
                half,
                has_failed,
            });
        }
        let kept = self.memory.keep_state(&state, at);
        let kept = kept.and_then(|()| match &past {
            Some(past) => self.memory.keep_past(past, at, false),
            None => Ok(()),
        });
        done.troubles.extend(kept.err().map(Trouble::Memory));
        if let Some(record) = self.record.as_mut().filter(|_| looks_at_record) {
            done.given = record.look(at).or(done.given);
        }
        done
    }

    /// History as it is at the end.
    pub(super) fn end(&mut self, past: &Past, now: Timestamp) -> Result<(), Errno> {
        self.memory.keep_past(past, now, true)
    }
}

// === impl Record ===

impl Record {
    /// What stands in it, where it was written to since it was read. What cannot be read is looked at again.
    fn look(&mut self, now: Timestamp) -> Option<Vec<Given>> {
        let written = freed_at(&self.root, &self.reach);
        if written.is_none() || written == self.read {
            return None;
        }
        // What is mounted where may be another than at the start.
        let reach = Reach::of(&self.root).ok()?;
        let freed = freed(&self.root, &reach).ok()?;
        // A clock of files stands still for some milliseconds: within a second it may have been written to again.
        let is_over = written.is_some_and(|(seconds, _)| now.as_second() > seconds + 1);
        self.read = written.filter(|_| is_over);
        Some(Given::of(&freed, &reach, now))
    }
}

/// A ballast lies on this node, or something with its name.
pub(super) fn is_there(root: &Path) -> bool {
    let found = Ballast::find(root, Path::new(STATE), STATE_OWN)
        .ok()
        .flatten();
    found.is_some_and(|ballast| !matches!(ballast.halves(), Ok([0, 0])))
}

// === impl Unopened ===

impl Unopened {
    /// None where there is none and none is to be.
    fn ballast(&self, now: Timestamp) -> Result<Option<(Kept, Ballast)>, BallastError> {
        let place = Path::new(STATE);
        let ballast = if self.keeps_ballast {
            Some(Ballast::at(&self.path, place, STATE_OWN)?)
        } else {
            Ballast::find(&self.path, place, STATE_OWN)?
        };
        let Some(ballast) = ballast else {
            return Ok(None);
        };
        let halves = ballast.halves()?;
        let device = self.device.ok_or(BallastError::Directory(Errno::NOENT))?;
        let is_needed = self.keeps_ballast || halves != [0, 0];
        Ok(is_needed.then(|| (Kept::of(halves, device, now), ballast)))
    }
}

fn change_to(ballast: &Ballast, change: Change) -> Result<(), BallastError> {
    match change {
        Change::Leave(left) => ballast.leave(left),
        Change::Take(bytes) => ballast.take(bytes, &Ballast::WAYS),
        Change::Look => Ok(()),
    }
}
