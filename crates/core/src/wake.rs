//! The life of one wake: its stages, how it ends, and what is learned from it.
//!
//! A [`Flight`] is fed with observations and says what is new. It goes forward only: a replica that falls back to
//! an earlier stage does not take the progress back that people were shown, but it also does not make it ready.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::id::Version;
use crate::workload::{Pending, Workload};

/// How often a replica may end by itself during one wake before the wake is given up. The third start is at least
/// three seconds in (back-off 1 s, 2 s); what failed three times in a row fails for a reason that waiting will not mend.
pub const CRASHES_MAX: u32 = 3;
/// Weight of the newest wake in a learned duration. One half follows a changed image within three wakes and still
/// damps a single slow one.
const LEARN_WEIGHT: f64 = 0.5;

/// How far a wake, or one replica, has come. The order is the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Somebody asked; nothing is written yet.
    Accepted,
    /// The wanted count is written; no replica exists yet.
    Scaling,
    /// A replica exists but has no node.
    WaitingForNode,
    /// Its node is booting or joining.
    NodeJoining,
    /// The node prepares its device driver.
    Driver,
    /// The image is being pulled.
    Pulling,
    /// The process runs and does not serve yet.
    Starting,
    /// It serves.
    Ready,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 8] = [
        Self::Accepted,
        Self::Scaling,
        Self::WaitingForNode,
        Self::NodeJoining,
        Self::Driver,
        Self::Pulling,
        Self::Starting,
        Self::Ready,
    ];

    /// The word for API, log and metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Scaling => "scaling",
            Self::WaitingForNode => "waiting-for-node",
            Self::NodeJoining => "node-joining",
            Self::Driver => "driver",
            Self::Pulling => "pulling",
            Self::Starting => "starting",
            Self::Ready => "ready",
        }
    }

    /// Reads what [`Stage::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == text)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who asked for a wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    /// A request that the gateway holds.
    Request,
    /// A call of the API.
    Call,
    /// A schedule.
    Schedule,
}

impl Trigger {
    /// The word for log and metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Call => "call",
            Self::Schedule => "schedule",
        }
    }
}

/// Why a wake ended without a serving replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Somebody put it to sleep while it was waking.
    SleptAgain,
    /// It is gone.
    Deleted,
    /// It can never run as it is described.
    Impossible(String),
    /// Its replica keeps ending by itself.
    Crashing(String),
    /// Nothing served for so long that the wake is no longer watched; a new request begins a new one.
    GaveUp,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SleptAgain => f.write_str("put to sleep again while it was waking"),
            Self::Deleted => f.write_str("deleted while it was waking"),
            Self::Impossible(why) | Self::Crashing(why) => f.write_str(why),
            Self::GaveUp => f.write_str("nothing served for too long"),
        }
    }
}

/// When a stage was entered, counted from the start of the wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The stage.
    pub stage: Stage,
    /// Monotonic time since the wake was accepted.
    pub after: Duration,
}

/// Where a wake stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Under way, in this stage.
    Under(Stage),
    /// A replica serves.
    Ready,
    /// Given up.
    Failed(Failure),
}

/// One wake of one workload. Times are monotonic durations since any fixed start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flight {
    began: Duration,
    written: Option<Version>,
    marks: Vec<Mark>,
    progress: Progress,
}

impl Flight {
    /// A wake that was just asked for.
    pub fn accepted(now: Duration) -> Self {
        let first = Mark {
            stage: Stage::Accepted,
            after: Duration::ZERO,
        };
        Self {
            began: now,
            written: None,
            marks: vec![first],
            progress: Progress::Under(Stage::Accepted),
        }
    }

    /// The wanted count is durable at `version`; observations from before it say nothing about this wake.
    pub fn written(&mut self, version: Version, now: Duration) {
        self.written = Some(version);
        self.advance(Stage::Scaling, now);
    }

    /// Takes an observation in. True when the progress changed.
    pub fn observe(&mut self, workload: &Workload, now: Duration) -> bool {
        let Progress::Under(_) = self.progress else {
            return false;
        };
        let Some(written) = self.written else {
            return false;
        };
        if workload.version < written {
            return false;
        }
        if workload.desired.is_zero() {
            return self.fail(Failure::SleptAgain);
        }
        if workload.replicas.iter().any(|r| r.ready && !r.stopping) || !workload.available.is_zero()
        {
            self.advance(Stage::Ready, now);
            self.progress = Progress::Ready;
            return true;
        }
        match &workload.pending {
            Some(pending @ Pending::DoesNotFit { .. }) => {
                return self.fail(Failure::Impossible(pending.to_string()));
            }
            Some(pending @ Pending::CrashLoop { restarts, .. }) if *restarts >= CRASHES_MAX => {
                return self.fail(Failure::Crashing(pending.to_string()));
            }
            Some(_) | None => {}
        }
        let furthest = workload
            .replicas
            .iter()
            .filter(|r| !r.stopping)
            .map(|r| r.stage)
            .max();
        // A replica that served and fell back counts as starting again.
        let stage = furthest.map_or(Stage::Scaling, |stage| stage.min(Stage::Starting));
        self.advance(stage, now)
    }

    /// The gateway itself reached a replica: that is as ready as the engine's word.
    pub fn served(&mut self, now: Duration) -> bool {
        let Progress::Under(_) = self.progress else {
            return false;
        };
        self.advance(Stage::Ready, now);
        self.progress = Progress::Ready;
        true
    }

    /// It took too long to be watched any longer.
    pub fn give_up(&mut self) -> bool {
        matches!(self.progress, Progress::Under(_)) && self.fail(Failure::GaveUp)
    }

    /// The workload is gone.
    pub fn deleted(&mut self) -> bool {
        matches!(self.progress, Progress::Under(_)) && self.fail(Failure::Deleted)
    }

    /// Where it stands.
    pub const fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The stages that were entered, in order, each once.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// The stage it is in, also after it ended.
    pub fn stage(&self) -> Stage {
        self.marks.last().map_or(Stage::Accepted, |mark| mark.stage)
    }

    /// How long it is likely to take from `now`, if earlier wakes taught it.
    pub fn eta(&self, learned: &Learned, now: Duration) -> Option<Duration> {
        let mark = self.marks.last()?;
        let in_stage = now.saturating_sub(self.began).saturating_sub(mark.after);
        learned
            .to_ready(mark.stage)
            .map(|whole| whole.saturating_sub(in_stage))
    }

    fn advance(&mut self, stage: Stage, now: Duration) -> bool {
        if stage <= self.stage() {
            return false;
        }
        self.marks.push(Mark {
            stage,
            after: now.saturating_sub(self.began),
        });
        self.progress = Progress::Under(stage);
        true
    }

    fn fail(&mut self, failure: Failure) -> bool {
        self.progress = Progress::Failed(failure);
        true
    }
}

/// What earlier wakes of one workload taught: how long it took from entering a stage until it served.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Learned {
    to_ready: BTreeMap<Stage, Duration>,
}

impl Learned {
    /// Takes what was stored.
    pub fn from_stored(entries: impl IntoIterator<Item = (Stage, Duration)>) -> Self {
        Self {
            to_ready: entries.into_iter().collect(),
        }
    }

    /// What to store: for each stage the time from entering it until ready.
    pub fn entries(&self) -> impl Iterator<Item = (Stage, Duration)> + '_ {
        self.to_ready.iter().map(|(stage, time)| (*stage, *time))
    }

    /// Time from entering `stage` until ready, if it was ever seen.
    pub fn to_ready(&self, stage: Stage) -> Option<Duration> {
        self.to_ready.get(&stage).copied()
    }

    /// What is known after a wake with these marks; a wake that did not become ready teaches nothing.
    #[must_use]
    pub fn after(&self, marks: &[Mark]) -> Self {
        let Some(ready) = marks.iter().find(|mark| mark.stage == Stage::Ready) else {
            return self.clone();
        };
        let mut next = self.clone();
        for mark in marks.iter().filter(|mark| mark.stage != Stage::Ready) {
            let seen = ready.after.saturating_sub(mark.after);
            let entry = next.to_ready.entry(mark.stage).or_insert(seen);
            *entry = entry.mul_f64(1.0 - LEARN_WEIGHT) + seen.mul_f64(LEARN_WEIGHT);
        }
        next
    }
}

#[cfg(test)]
mod tests;
