//! The guard of a node: looks, tells before it is too late, keeps ballast for the worst minute, and says when to clean.
//!
//! [`Eyes`] find the disks and a [`Question`] asks one of them: both may wait for a disk, so each has a thread of its own, and
//! [`Guard::round`] decides from what has answered until then. It neither asks nor writes. What has to be written, ballast and memory, it hands out as [`Deeds`], which [`Hands::carry_out`] does after people were told, on
//! a thread that no look waits for; [`Guard::done`] hears how that ended.
//!
//! It works with neither a byte nor an inode left, without a server and without a network: who is told, and how, is the affair
//! of its caller, and so is cleaning, which may take minutes. Everything that it decides is in [`decide()`], [`level`] and
//! [`forecast()`], which are pure.

mod ballast;
mod decide;
mod forecast;
mod given;
mod hands;
mod history;
mod kept;
mod level;
mod look;
mod memory;
mod outlook;
mod owners;

use std::borrow::Cow;
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
use crate::own::{self, Lock, OwnError, STATE};
use crate::owner::Owner;
use crate::survey::{Shares, SurveyError, Watched};

pub use ballast::{Allocate, Ballast, BallastError, Reserve, Scramble, wanted};
pub use decide::{
    Action, Alert, BallastSeen, Cause, DiskState, Outcome, REMIND, Rules, SILENT, Seen, State,
    decide,
};
pub use forecast::{Basis, Forecast, Trend, forecast};
pub use hands::{Acted, Changed, Deeds, Hands};
pub use history::{Point, Series};
pub use level::{Fill, Level, Resource, judge};
pub use look::{DISKS_MAX, Eyes, Looked, NAMED, Question, Questions, Reading, Silent};
pub use memory::{Key, What};
pub use outlook::{Days, DiskOutlook, GOAL_PERCENT, Outlook, OutlookError, outlook};
pub use owners::Growth;

use given::{Given, without, without_all};
use hands::{Change, Opened, Unopened};
use kept::Kept;
use memory::{HISTORY_EVERY, Past};
use owners::{Owners, owners_max};

const LOCK: &str = "guard.lock";
/// Forecasts are made this often: their fast gate looks at minutes.
const FORECAST_EVERY: Duration = Duration::from_mins(1);
/// So often it is looked whether the ballast is still there: its disk is asked, and nothing is written.
const BALLAST_LOOK: Duration = Duration::from_mins(1);
/// So often it is looked whether somebody has cleaned: one question for a file, which is read when it was written to.
const RECORD_LOOK: Duration = Duration::from_mins(1);

/// How the guard is set.
#[derive(Debug, Clone)]
pub struct GuardSettings {
    /// Where the root of the node is seen.
    pub root: PathBuf,
    /// Directories whose disks are watched; none means those that a node lives from.
    pub paths: Vec<PathBuf>,
    /// What follows from what.
    pub rules: Rules,
    /// Keep ballast on the disk of `/var/lib`; what is there is given back where none is to be kept.
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
    /// More paths were named than disks are watched.
    #[error("{0} paths are named: {DISKS_MAX} are the most")]
    Paths(usize),
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
    /// What is removed is not written down on the disk yet.
    #[error(
        "there is no ring for what is removed: until there is room for one it is written down in /run only, and a boot forgets it"
    )]
    Record(#[source] Errno),
    /// There is no ballast on the disk.
    #[error("there is no ballast on {}", .0.display())]
    Ballast(PathBuf, #[source] BallastError),
    /// There are more disks than are watched.
    #[error(
        "{0} disks are not watched: {DISKS_MAX} are the most; name those that matter with --path"
    )]
    LeftOut(usize),
}

/// What one turn found and did.
#[derive(Debug, Default)]
pub struct Round {
    /// Each disk as it is.
    pub disks: Vec<DiskNow>,
    /// What people are to be told, in this order.
    pub alerts: Vec<Alert>,
    /// Disks that are to be cleaned.
    pub clean: Vec<Device>,
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
    /// When its bytes are used up, and when its inodes are.
    pub forecasts: [Option<Forecast>; 2],
    /// How its owners grow, the fastest first; none while that is not known.
    pub owners: Vec<Growth>,
    /// Whose bytes it fills with is to be known soon: it is nearly full, or will be.
    pub is_urgent: bool,
    /// Bytes of ballast.
    pub ballast: u64,
}

/// Watches the disks of a node.
#[derive(Debug)]
pub struct Guard {
    settings: GuardSettings,
    state: State,
    /// What was handed out to be remembered.
    handed: State,
    past: Past,
    /// When history was handed out.
    past_at: Timestamp,
    troubles: Vec<Trouble>,
    ballast: Option<Kept>,
    forecasts: BTreeMap<Key, Made>,
    owners: BTreeMap<PathBuf, Owners>,
    /// What cleaning gave back, as the record tells it; and what no record tells, because the disk had no room for one.
    given: Vec<Given>,
    unwritten: Vec<Given>,
    /// When the record was looked at; none when that is to be done at once.
    record_at: Option<Timestamp>,
    /// Bytes of each disk at the last look.
    used: BTreeMap<PathBuf, u64>,
    /// The disk of `/var/lib`, which everything that is written lies on.
    own: Option<Device>,
    /// Disks that are not watched, when that was said.
    left_out: usize,
    /// The disks of the last look.
    places: Vec<(PathBuf, Device)>,
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
    /// Looks where the disks are and takes the lock. Ballast and memory are opened by [`Hands::open`], which may wait for their
    /// disk; until [`Guard::done`] has heard of that, nothing is known of before.
    ///
    /// # Errors
    /// Another guard is there, or the node cannot be looked at.
    pub fn begin(
        settings: GuardSettings,
        clock: &dyn Clock,
    ) -> Result<(Self, Eyes, Hands), GuardError> {
        // Each has a name of its own: see [`NAMED`].
        if settings.paths.len() > DISKS_MAX {
            return Err(GuardError::Paths(settings.paths.len()));
        }
        let root = crate::clean::open_root(&settings.root)?;
        let reach = Reach::of(&root)?;
        let own = reach.device_of(Path::new(STATE));
        // Before the lock: whoever waits here for a disk must not lock out the next guard.
        let mut eyes = Eyes::open(&settings.root, &settings.paths)?;
        let lock = Lock::take(&own::run(&root, &reach)?, LOCK)?;
        if settings.ballast || hands::is_there(&settings.root) {
            eyes.watch_besides(STATE);
        }
        let now = clock.now();
        let unopened = Unopened {
            root,
            reach,
            path: settings.root.clone(),
            device: own,
            keeps_ballast: settings.ballast,
        };
        let guard = Self {
            state: State::default(),
            handed: State::default(),
            past: Past::new(),
            past_at: now,
            troubles: Vec::new(),
            ballast: None,
            forecasts: BTreeMap::new(),
            owners: BTreeMap::new(),
            given: Vec::new(),
            unwritten: Vec::new(),
            record_at: Some(now),
            used: BTreeMap::new(),
            own,
            left_out: 0,
            places: Vec::new(),
            settings,
        };
        Ok((guard, eyes, Hands::new(unopened, lock)))
    }

    /// One turn: what follows from a look. Nothing is asked and nothing is written.
    pub fn round(&mut self, looked: Looked, clock: &dyn Clock) -> Round {
        let now = clock.now();
        let places = looked.readings.iter();
        self.places = places
            .map(|reading| (reading.point.clone(), reading.device))
            .collect();
        let mut silent = looked.silent;
        if let Some(lasts) = looked.writing {
            let mut places = self.places.iter();
            let place = places.find(|(_, device)| Some(*device) == self.own);
            let point = place.map_or_else(|| STATE.into(), |(point, _)| point.clone());
            silent.push(Silent { point, lasts });
        }
        if looked.left_out > self.left_out {
            self.troubles.push(Trouble::LeftOut(looked.left_out));
        }
        self.left_out = looked.left_out;
        let readings = looked.readings.into_iter();
        let seen: Vec<Seen> = readings.map(|reading| self.see(reading, now)).collect();
        let outcome = decide(&self.settings.rules, &seen, &silent, &self.state, now);
        self.state = outcome.next;
        let mut round = Round {
            troubles: std::mem::take(&mut self.troubles),
            ..Round::default()
        };
        let mut change = None;
        for action in outcome.actions {
            match action {
                Action::Tell(alert) => round.alerts.push(alert),
                Action::Clean(disk) => round.clean.push(disk),
                Action::ReleaseBallast(point, left) => change = Some((point, Change::Leave(left))),
                Action::TakeBallast(point, bytes) => change = Some((point, Change::Take(bytes))),
            }
        }
        round.deeds = self.hand_out(change, now);
        round.disks = seen.into_iter().map(|one| self.now(one, now)).collect();
        round
    }

    /// How what was handed out has ended.
    pub fn done(&mut self, done: &mut Acted, clock: &dyn Clock) {
        if let Some(opened) = done.opened.take() {
            self.recall(opened);
        }
        if let Some(given) = done.given.take() {
            self.given = given;
            self.know_owners();
        }
        let Some(changed) = &done.ballast else {
            return;
        };
        let Some(kept) = &mut self.ballast else {
            return;
        };
        let now = clock.now();
        let known = std::mem::replace(&mut kept.held, changed.held);
        kept.half = changed.half;
        kept.looked_at = now;
        kept.is_changing = false;
        if changed.has_failed {
            kept.failed_at = Some(now);
        }
        if changed.before < known
            && let Some(disk) = self.state.disks.get_mut(&changed.point)
        {
            // A person let it go, and does not want it back at once.
            disk.released_at = Some(now);
        }
        // The survey knows nobody to whom the ballast belongs.
        let by = signed(changed.held) - signed(known);
        self.shift(&changed.point, What::All(Resource::Bytes), by);
        self.shift(&changed.point, What::AtWalks, by);
        self.shift(&changed.point, What::Of(Owner::Unknown), by);
    }

    /// What was known before. What was seen since the start, while the disk of it did not answer, stands beside it.
    fn recall(&mut self, opened: Opened) {
        self.handed = opened.state.clone();
        for (point, disk) in opened.state.disks {
            self.state.disks.entry(point).or_insert(disk);
        }
        for (key, earlier) in opened.past {
            self.past.entry(key).or_default().follow(earlier);
        }
        self.ballast = opened.kept;
    }

    /// The end: history is written down once more.
    ///
    /// # Errors
    /// It could not be.
    pub fn end(self, mut hands: Hands, clock: &dyn Clock) -> Result<(), Errno> {
        hands.end(&self.past, clock.now())
    }

    /// It has cleaned itself. What came back is no change of what others do: the record tells it, or nobody else does.
    pub fn cleaned(&mut self, plan: &Plan, report: &Report, clock: &dyn Clock) {
        if report.has_ring {
            self.record_at = None;
            return;
        }
        let now = clock.now();
        let steps = plan.steps.iter().zip(&report.done);
        let unwritten = steps.map(|(step, done)| Given::unwritten(step, done, now));
        self.unwritten.extend(unwritten);
        self.unwritten.retain(|given| given.counts(now));
        self.know_owners();
    }

    /// What cleaning gave back, wherever that is known from.
    fn given(&self) -> Vec<Given> {
        [&self.given[..], &self.unwritten].concat()
    }

    /// Makes anew what is known of owners.
    fn know_owners(&mut self) {
        let given = self.given();
        let places = &self.places;
        let device_of = |point: &Path| {
            let mut places = places.iter();
            places
                .find(|(own, _)| own == point)
                .map(|(_, device)| *device)
        };
        self.owners = Owners::of_all(&without_all(&self.past, device_of, &given));
    }

    /// The disks whose owners can be looked at: those that answered at the last look.
    pub fn watched(&self) -> Vec<Watched> {
        let places = self.places.iter().cloned();
        places
            .map(|(point, device)| Watched { point, device })
            .collect()
    }

    /// What a walk found of each owner. What it could not find is not known any more.
    pub fn walked(&mut self, shares: &Shares, clock: &dyn Clock) {
        let now = clock.now();
        for disk in &shares.disks {
            let point = disk.point.clone();
            let key = |owner| Key {
                point: point.clone(),
                what: What::Of(owner),
            };
            // Who is followed is so until nothing is left of it, and then for as long as history reaches.
            let is_followed = |owner| self.past.contains_key(&key(owner));
            let follows: Vec<Owner> = Owner::all().filter(|owner| is_followed(*owner)).collect();
            let largest = disk.owners.iter().map(|(owner, _)| *owner);
            let new = largest.filter(|owner| !follows.contains(owner));
            let most = owners_max(self.places.len());
            let new: Vec<Owner> = new.take(most.saturating_sub(follows.len())).collect();
            for owner in follows.into_iter().chain(new) {
                let own = disk.owners.iter().find(|(other, _)| *other == owner);
                let used = own.map_or(0, |(_, bytes)| *bytes);
                self.past.entry(key(owner)).or_default().add(now, used);
            }
            // At this moment: a span of the other history ends later.
            if let Some(used) = self.used.get(&point) {
                let key = Key {
                    point: point.clone(),
                    what: What::AtWalks,
                };
                self.past.entry(key).or_default().add(now, *used);
            }
            self.past
                .retain(|key, series| key.point != point || !series.is_nothing());
        }
        self.know_owners();
        for (point, _why) in &shares.unknown {
            self.owners.remove(point);
        }
    }

    /// No walk came to its end: what was known of owners is too old.
    pub fn not_walked(&mut self) {
        self.owners.clear();
    }

    /// What is new, and nothing when nothing is: on a node that rests nobody has to write.
    fn hand_out(&mut self, change: Option<(PathBuf, Change)>, now: Timestamp) -> Option<Deeds> {
        let change = change.or_else(|| self.look_at_ballast(now));
        if let (Some(kept), Some(_)) = (&mut self.ballast, &change) {
            kept.is_changing = true;
        }
        let is_new = self.state != self.handed;
        let is_time = now.duration_since(self.past_at).unsigned_abs() >= HISTORY_EVERY;
        let looked = self
            .record_at
            .map(|at| now.duration_since(at).unsigned_abs());
        let looks_at_record = looked.is_none_or(|age| age >= RECORD_LOOK);
        if change.is_none() && !is_new && !is_time && !looks_at_record {
            return None;
        }
        if looks_at_record {
            self.record_at = Some(now);
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
            looks_at_record,
        })
    }

    /// Whether it is still there, when it is time for that.
    fn look_at_ballast(&self, now: Timestamp) -> Option<(PathBuf, Change)> {
        let kept = self.ballast.as_ref().filter(|kept| !kept.is_changing)?;
        let age = now.duration_since(kept.looked_at).unsigned_abs();
        let mut places = self.places.iter();
        let (point, _) = places.find(|(_, device)| *device == kept.device)?;
        (age >= BALLAST_LOOK).then(|| (point.clone(), Change::Look))
    }

    fn see(&mut self, reading: Reading, now: Timestamp) -> Seen {
        let used = reading.space.used();
        self.used.insert(reading.point.clone(), used);
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
        let forecasts = Resource::ALL.map(|resource| self.forecast_of(&reading, resource, now));
        let kept = self.ballast.as_ref();
        let kept = kept.filter(|kept| {
            kept.device == reading.device && !kept.is_changing && kept.may_be_tried(now)
        });
        let ballast = kept.map(|kept| BallastSeen {
            wanted: if self.settings.ballast {
                let [bytes, _] = &forecasts;
                wanted(reading.space.bytes, growth_of(bytes.as_ref()))
            } else {
                0
            },
            held: kept.held,
            half: kept.half,
        });
        let owners = self.owners_of(&reading.point, now);
        let mostly = owners.and_then(|owners| owners.mostly(forecasts[0].as_ref()));
        Seen {
            reading,
            forecasts,
            ballast,
            mostly,
        }
    }

    fn forecast_of(
        &mut self,
        reading: &Reading,
        resource: Resource,
        now: Timestamp,
    ) -> Option<Forecast> {
        // What has no limit is never used up.
        Fill::of(resource, &reading.space, &reading.fstype)?;
        let key = Key {
            point: reading.point.clone(),
            what: What::All(resource),
        };
        let made = self.forecasts.get(&key);
        let age = made.map(|made| now.duration_since(made.at).unsigned_abs());
        if age.is_some_and(|age| age < FORECAST_EVERY) {
            return made.and_then(|made| made.forecast.clone());
        }
        let room = match resource {
            Resource::Bytes => reading.space.bytes_available,
            Resource::Inodes => reading.space.inodes_free,
        };
        let given = self.given();
        let series = self.past.get(&key);
        let series = series.map(|series| without(series, key.what, Some(reading.device), &given));
        let forecast = series.and_then(|series: Cow<'_, Series>| forecast(&series, room));
        let made = Made {
            at: now,
            forecast: forecast.clone(),
        };
        self.forecasts.insert(key, made);
        forecast
    }

    /// None when they are too old to tell anything.
    fn owners_of(&self, point: &Path, now: Timestamp) -> Option<&Owners> {
        let owners = self.owners.get(point);
        owners.filter(|owners| owners.is_fresh(now))
    }

    fn shift(&mut self, point: &Path, what: What, by: i64) {
        let key = Key {
            point: point.to_owned(),
            what,
        };
        if let Some(series) = self.past.get_mut(&key) {
            series.shift(by);
        }
    }

    fn now(&self, seen: Seen, now: Timestamp) -> DiskNow {
        let state = self.state.disks.get(&seen.reading.point);
        let owners = self.owners_of(&seen.reading.point, now);
        let kept = self.ballast.as_ref();
        let kept = kept.filter(|kept| kept.device == seen.reading.device);
        DiskNow {
            bytes: state.map(|state| state.bytes).unwrap_or_default(),
            inodes: state.map(|state| state.inodes).unwrap_or_default(),
            is_urgent: state.is_some_and(|state| state.bytes_fill || state.bytes >= Level::Serious),
            forecasts: seen.forecasts,
            owners: owners.map_or_else(Vec::new, |owners| owners.known().to_vec()),
            ballast: kept.map_or(0, |kept| kept.held),
            reading: seen.reading,
        }
    }
}

fn growth_of(forecast: Option<&Forecast>) -> Option<f64> {
    Some(forecast?.trend?.middle)
}

/// A ballast has less than 2⁶³ bytes.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
