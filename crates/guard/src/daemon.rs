//! The guard of a node: looks, tells before it is too late, keeps ballast for the worst minute, and says when to clean.
//!
//! [`Guard::round`] is one turn: look and decide. It writes nothing, so that a disk that does not answer holds up no alert. What
//! has to be written, ballast and memory, it hands out as [`Deeds`], which [`Hands::carry_out`] does after people were told, on
//! a thread that no look waits for; [`Guard::done`] hears how that ended.
//!
//! It works with neither a byte nor an inode left, without a server and without a network: who is told, and how, is the affair
//! of its caller, and so is cleaning, which may take minutes. Everything that it decides is in [`decide()`], [`level`] and
//! [`forecast()`], which are pure.

mod ballast;
mod decide;
mod forecast;
mod growth;
mod hands;
mod history;
mod level;
mod look;
mod memory;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use nagi_ports::Clock;
use rustix::io::Errno;
use thiserror::Error;

use crate::clean::reach::Reach;
use crate::clean::{CleanError, Plan, Report};
use crate::mounts::Device;
use crate::own::{self, Lock, OwnError, STATE, STATE_OWN};
use crate::survey::{Survey, SurveyError};

pub use ballast::{Allocate, Ballast, BallastError, Reserve, Scramble, wanted};
pub use decide::{
    Action, Alert, BallastSeen, Cause, DiskState, Outcome, REMIND, Rules, Seen, State, decide,
};
pub use forecast::{Basis, Forecast, Trend, forecast};
pub use growth::growth;
pub use hands::{Acted, Changed, Deeds, Hands};
pub use history::{Point, Series};
pub use level::{Fill, Level, Resource, judge};
pub use look::Reading;
pub use memory::{Key, What};

use hands::Change;
use look::Eyes;
use memory::{HISTORY_EVERY, Memory, Past};

const LOCK: &str = "guard.lock";
/// Forecasts are made this often: their fast gate looks at minutes.
const FORECAST_EVERY: Duration = Duration::from_mins(1);
/// A ballast that could not be taken is tried again after this.
const BALLAST_AGAIN: Duration = Duration::from_hours(1);
/// Owners of one disk whose growth is followed: the largest.
const OWNERS_MAX: usize = 12;

/// How the guard is set.
#[derive(Debug, Clone)]
pub struct GuardSettings {
    /// Where the root of the node is seen.
    pub root: PathBuf,
    /// Directories whose disks are watched; none means those that a node lives from.
    pub paths: Vec<PathBuf>,
    /// What follows from what.
    pub rules: Rules,
    /// Keep ballast on the disk of `/var/lib`.
    pub ballast: bool,
}

/// Why there is no guard.
#[derive(Debug, Error)]
pub enum GuardError {
    /// Another guard watches this node.
    #[error("another nagi guards this node")]
    Busy,
    /// The lock cannot be made.
    #[error("cannot make /run/nagi/{LOCK}")]
    Lock(#[source] Errno),
    /// The node has no `/run`.
    #[error("there is no /run on this node")]
    NoRun,
    /// The root of the node cannot be opened or understood.
    #[error(transparent)]
    Node(#[from] CleanError),
    /// Its disks cannot be looked at.
    #[error(transparent)]
    Look(#[from] SurveyError),
}

/// Something that went wrong and did not stop the guard.
#[derive(Debug, Error)]
pub enum Trouble {
    /// Nothing is remembered over a restart any more.
    #[error("levels and history are in memory only, and a restart forgets them")]
    Memory(#[source] Errno),
    /// There is no ballast on the disk.
    #[error("there is no ballast on {}", .0.display())]
    Ballast(PathBuf, #[source] BallastError),
}

/// What one turn found and did.
#[derive(Debug, Default)]
pub struct Round {
    /// Each disk as it is.
    pub disks: Vec<DiskNow>,
    /// What people are to be told, in this order.
    pub alerts: Vec<Alert>,
    /// Disks for which the node is to be cleaned.
    pub clean: Vec<PathBuf>,
    /// What is to be written after people were told.
    pub deeds: Option<Deeds>,
    /// What went wrong.
    pub troubles: Vec<Trouble>,
}

/// A disk as one turn saw it.
#[derive(Debug, Clone)]
pub struct DiskNow {
    /// How full.
    pub reading: Reading,
    /// Level of its bytes.
    pub bytes: Level,
    /// Level of its inodes.
    pub inodes: Level,
    /// When it would be full.
    pub forecast: Option<Forecast>,
    /// Which owner grows fastest, when it is known, and how fast.
    pub owners: Vec<(What, Trend)>,
    /// Bytes of ballast.
    pub ballast: u64,
}

/// Watches the disks of a node.
#[derive(Debug)]
pub struct Guard {
    settings: GuardSettings,
    eyes: Eyes,
    state: State,
    /// What was handed out to be remembered.
    handed: State,
    past: Past,
    /// When history was handed out.
    past_at: Timestamp,
    troubles: Vec<Trouble>,
    ballast: Option<Kept>,
    forecasts: BTreeMap<PathBuf, Made>,
    owners: BTreeMap<PathBuf, Vec<(What, Trend)>>,
    /// The disks of the last look.
    places: Vec<(PathBuf, Device)>,
}

/// What is known of a ballast, and when it was last given up.
#[derive(Debug)]
struct Kept {
    /// The disk that it lies on, by its number: a place on the node may be seen in several ways.
    device: Device,
    failed_at: Option<Timestamp>,
    held: u64,
    /// Something is done to it, and it is not known yet what it holds.
    is_changing: bool,
}

/// A forecast, and when it was made.
#[derive(Debug, Clone)]
struct Made {
    at: Timestamp,
    forecast: Option<Forecast>,
}

// === impl From<OwnError> for GuardError ===

impl From<OwnError> for GuardError {
    fn from(error: OwnError) -> Self {
        match error {
            OwnError::Busy => Self::Busy,
            OwnError::Make(error) => Self::Lock(error),
            OwnError::NoRun => Self::NoRun,
        }
    }
}

// === impl Guard ===

impl Guard {
    /// Takes the lock, opens what must not be opened when a disk is full, and recalls what was known.
    ///
    /// # Errors
    /// Another guard is there, or the node cannot be looked at.
    pub fn begin(settings: GuardSettings, clock: &dyn Clock) -> Result<(Self, Hands), GuardError> {
        let root = crate::clean::open_root(&settings.root)?;
        let reach = Reach::of(&root)?;
        let lock = Lock::take(&own::run(&root, &reach)?, LOCK)?;
        let eyes = Eyes::open(&settings.root, &settings.paths)?;
        let now = clock.now();
        let (memory, past, opened) = Memory::open(&root, &reach, now);
        let mut troubles: Vec<Trouble> = opened.err().map(Trouble::Memory).into_iter().collect();
        let mut opened = None;
        if settings.ballast {
            match Kept::open(&settings.root, &reach) {
                Ok(both) => opened = Some(both),
                Err(error) => troubles.push(Trouble::Ballast(STATE.into(), error)),
            }
        }
        let (kept, ballast) = opened.unzip();
        let guard = Self {
            eyes,
            state: memory.state().clone(),
            handed: memory.state().clone(),
            past,
            past_at: now,
            troubles,
            ballast: kept,
            forecasts: BTreeMap::new(),
            owners: BTreeMap::new(),
            places: Vec::new(),
            settings,
        };
        Ok((guard, Hands::new(ballast, memory, lock)))
    }

    /// One turn. Nothing is written.
    ///
    /// # Errors
    /// The mounts of this machine cannot be read: nothing was decided.
    pub fn round(&mut self, clock: &dyn Clock) -> Result<Round, SurveyError> {
        let readings = self.eyes.look()?;
        let now = clock.now();
        let places = readings.iter();
        self.places = places
            .map(|reading| (reading.point.clone(), reading.device))
            .collect();
        let seen: Vec<Seen> = readings
            .into_iter()
            .map(|reading| self.see(reading, now))
            .collect();
        let outcome = decide(&self.settings.rules, &seen, &self.state, now);
        self.state = outcome.next;
        let mut round = Round {
            troubles: std::mem::take(&mut self.troubles),
            ..Round::default()
        };
        let mut change = None;
        for action in outcome.actions {
            match action {
                Action::Tell(alert) => round.alerts.push(alert),
                Action::Clean(point) => round.clean.push(point),
                Action::ReleaseBallast(point, left) => change = Some((point, Change::Leave(left))),
                Action::TakeBallast(point, bytes) => change = Some((point, Change::Take(bytes))),
            }
        }
        round.deeds = self.hand_out(change, now);
        round.disks = seen.into_iter().map(|one| self.now(one)).collect();
        Ok(round)
    }

    /// How what was handed out has ended.
    pub fn done(&mut self, done: &Acted, clock: &dyn Clock) {
        let Some(changed) = &done.ballast else {
            return;
        };
        let Some(kept) = &mut self.ballast else {
            return;
        };
        kept.is_changing = false;
        kept.held = changed.held;
        if changed.has_failed {
            kept.failed_at = Some(clock.now());
        }
        self.shift(
            &changed.point,
            signed(changed.held) - signed(changed.before),
        );
    }

    /// The end: history is written down once more.
    ///
    /// # Errors
    /// It could not be.
    pub fn end(self, mut hands: Hands, clock: &dyn Clock) -> Result<(), Errno> {
        hands.end(&self.past, clock.now())
    }

    /// What came back by cleaning is no change of what others do.
    pub fn cleaned(&mut self, plan: &Plan, report: &Report) {
        for (step, done) in plan.steps.iter().zip(&report.done) {
            let places = self.places.iter();
            let place = places.filter(|(_, device)| *device == step.disk);
            let points: Vec<PathBuf> = place.map(|(point, _)| point.clone()).collect();
            for point in points {
                self.shift(&point, done.measured.saturating_neg());
            }
        }
    }

    /// What a survey found of each owner, for the growth of owners.
    pub fn surveyed(&mut self, survey: &Survey, clock: &dyn Clock) {
        let now = clock.now();
        for place in survey.places.iter().filter(|place| place.is_whole) {
            let point = look::on_node(&self.settings.root, &place.filesystem.point);
            for (owner, tally) in place.owners.iter().take(OWNERS_MAX) {
                let key = Key {
                    point: point.clone(),
                    what: What::Of(*owner),
                };
                let series = self.past.entry(key).or_default();
                series.add(now, tally.blocks.bytes());
            }
        }
        self.owners = growth_of_owners(&self.past);
    }

    /// What is new, and nothing when nothing is: on a node that rests nobody has to write.
    fn hand_out(&mut self, change: Option<(PathBuf, Change)>, now: Timestamp) -> Option<Deeds> {
        if let (Some(kept), Some(_)) = (&mut self.ballast, &change) {
            kept.is_changing = true;
        }
        let is_new = self.state != self.handed;
        let is_time = now.duration_since(self.past_at).unsigned_abs() >= HISTORY_EVERY;
        if change.is_none() && !is_new && !is_time {
            return None;
        }
        self.handed.clone_from(&self.state);
        if is_time {
            self.past_at = now;
        }
        Some(Deeds {
            at: now,
            state: self.state.clone(),
            past: is_time.then(|| self.past.clone()),
            change,
        })
    }

    fn see(&mut self, reading: Reading, now: Timestamp) -> Seen {
        for (resource, used) in [
            (Resource::Bytes, reading.space.used()),
            (Resource::Inodes, reading.space.inodes_used()),
        ] {
            let key = Key {
                point: reading.point.clone(),
                what: What::All(resource),
            };
            self.past.entry(key).or_default().add(now, used);
        }
        let forecast = self.forecast_of(&reading, now);
        let kept = self.ballast.as_ref();
        let kept = kept.filter(|kept| {
            kept.device == reading.device && !kept.is_changing && kept.may_be_tried(now)
        });
        let ballast = kept.map(|kept| BallastSeen {
            wanted: wanted(reading.space.bytes, growth_of(forecast.as_ref())),
            held: kept.held,
        });
        Seen {
            reading,
            forecast,
            ballast,
        }
    }

    fn forecast_of(&mut self, reading: &Reading, now: Timestamp) -> Option<Forecast> {
        let made = self.forecasts.get(&reading.point);
        let age = made.map(|made| now.duration_since(made.at).unsigned_abs());
        if age.is_some_and(|age| age < FORECAST_EVERY) {
            return made.and_then(|made| made.forecast.clone());
        }
        let key = Key {
            point: reading.point.clone(),
            what: What::All(Resource::Bytes),
        };
        let forecast = self
            .past
            .get(&key)
            .and_then(|series| forecast(series, reading.space.bytes_available));
        self.forecasts.insert(
            reading.point.clone(),
            Made {
                at: now,
                forecast: forecast.clone(),
            },
        );
        forecast
    }

    fn shift(&mut self, point: &Path, by: i64) {
        let key = Key {
            point: point.to_owned(),
            what: What::All(Resource::Bytes),
        };
        if let Some(series) = self.past.get_mut(&key) {
            series.shift(by);
        }
    }

    fn now(&self, seen: Seen) -> DiskNow {
        let state = self.state.disks.get(&seen.reading.point);
        let owners = self.owners.get(&seen.reading.point);
        let kept = self.ballast.as_ref();
        let kept = kept.filter(|kept| kept.device == seen.reading.device);
        DiskNow {
            bytes: state.map(|state| state.bytes).unwrap_or_default(),
            inodes: state.map(|state| state.inodes).unwrap_or_default(),
            forecast: seen.forecast,
            owners: owners.cloned().unwrap_or_default(),
            ballast: kept.map_or(0, |kept| kept.held),
            reading: seen.reading,
        }
    }
}

fn growth_of(forecast: Option<&Forecast>) -> Option<f64> {
    Some(forecast?.trend?.middle)
}

/// By disk, the fastest first.
fn growth_of_owners(past: &Past) -> BTreeMap<PathBuf, Vec<(What, Trend)>> {
    let mut by_disk: BTreeMap<PathBuf, Vec<(What, Trend)>> = BTreeMap::new();
    for (key, series) in past {
        if let (What::Of(_), Some(trend)) = (key.what, Trend::of(series)) {
            let owners = by_disk.entry(key.point.clone()).or_default();
            owners.push((key.what, trend));
        }
    }
    for owners in by_disk.values_mut() {
        owners.sort_by(|one, other| other.1.middle.total_cmp(&one.1.middle));
    }
    by_disk
}

/// A ballast has less than 2⁶³ bytes.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

// === impl Kept ===

impl Kept {
    fn open(path: &Path, reach: &Reach) -> Result<(Self, Ballast), BallastError> {
        let place = Path::new(STATE);
        let device = reach.device_of(place);
        let ballast = Ballast::at(path, place, STATE_OWN)?;
        let kept = Self {
            device: device.ok_or(BallastError::Directory(Errno::NOENT))?,
            held: ballast.held()?,
            failed_at: None,
            is_changing: false,
        };
        Ok((kept, ballast))
    }

    fn may_be_tried(&self, now: Timestamp) -> bool {
        let elapsed = self.failed_at.map(|then| now.duration_since(then));
        elapsed.is_none_or(|elapsed| elapsed.unsigned_abs() >= BALLAST_AGAIN)
    }
}
