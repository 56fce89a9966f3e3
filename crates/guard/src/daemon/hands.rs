//! What is written after people were told: ballast that is let go or taken, and what a restart must know.
//!
//! All of it may wait for a disk, for as long as that does not answer. So it is a value of its own, which a thread of its own
//! can hold, and neither looks nor alerts wait for it. What was decided is remembered after it was told: a guard that is ended
//! in between tells it once more, and loses nothing.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use rustix::io::Errno;

use super::Trouble;
use super::ballast::{Ballast, BallastError};
use super::decide::State;
use super::memory::{Memory, Past};
use crate::own::Lock;

/// What holds the files of the guard, and its lock: nobody else writes them meanwhile.
#[derive(Debug)]
pub struct Hands {
    ballast: Option<Ballast>,
    memory: Memory,
    _lock: Lock,
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
        }
    }
}

// === impl Hands ===

impl Hands {
    pub(super) const fn new(ballast: Option<Ballast>, memory: Memory, lock: Lock) -> Self {
        Self {
            ballast,
            memory,
            _lock: lock,
        }
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
        } = deeds;
        let mut done = Acted::default();
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
        done
    }

    /// History as it is at the end.
    pub(super) fn end(&mut self, past: &Past, now: Timestamp) -> Result<(), Errno> {
        self.memory.keep_past(past, now, true)
    }
}

fn change_to(ballast: &Ballast, change: Change) -> Result<(), BallastError> {
    match change {
        Change::Leave(left) => ballast.leave(left),
        Change::Take(bytes) => ballast.take(bytes, &Ballast::WAYS),
        Change::Look => Ok(()),
    }
}
