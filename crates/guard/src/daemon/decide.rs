//! What follows from how full the disks are: whom to tell, when to clean, when to let ballast go and when to take it again.
//!
//! Pure: everything that is known comes in, everything that is to be done goes out. Nothing is said twice for the same facts,
//! and a disk that does not answer keeps its level: no data is neither room nor the lack of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::forecast::Forecast;
use super::level::{Fill, Level, Resource, judge};
use super::look::{Reading, Silent};
use super::owners::Growth;
use crate::mounts::Device;

/// What a person wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// From this level on the guard cleans, or says what cleaning would give; none means never.
    pub clean_at: Option<Level>,
    /// So long a disk stays below 85 % before ballast is taken again.
    pub calm_for: Duration,
}

/// What is known of one disk now.
#[derive(Debug, Clone)]
pub struct Seen {
    /// How full it is.
    pub reading: Reading,
    /// When its bytes are used up, and when its inodes are.
    pub forecasts: [Option<Forecast>; 2],
    /// Its ballast.
    pub ballast: Option<BallastSeen>,
    /// By whom its bytes mostly grow, where that is known.
    pub mostly: Option<Growth>,
}

/// A ballast as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BallastSeen {
    /// What it should hold, by size and growth of the disk; 0 where none is to be kept.
    pub wanted: u64,
    /// What it holds.
    pub held: u64,
    /// What of it goes first.
    pub half: u64,
}

/// What was decided before, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// By the place on the node.
    pub disks: BTreeMap<PathBuf, DiskState>,
}

/// The same for one disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskState {
    /// Level of its bytes.
    pub bytes: Level,
    /// Level of its inodes.
    pub inodes: Level,
    /// When somebody was told last of its bytes …
    pub bytes_told_at: Option<Timestamp>,
    /// … and of its inodes.
    pub inodes_told_at: Option<Timestamp>,
    /// It was said that its bytes fill up …
    pub bytes_fill: bool,
    /// … and that its inodes do.
    pub inodes_fill: bool,
    /// When somebody was told last that it does not answer; none while it does.
    pub silent_told_at: Option<Timestamp>,
    /// Since when less than 85 % are used.
    pub calm_since: Option<Timestamp>,
    /// When it was cleaned last.
    pub cleaned_at: Option<Timestamp>,
    /// When ballast was let go last.
    pub released_at: Option<Timestamp>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Tell people.
    Tell(Alert),
    /// Clean this disk.
    Clean(Device),
    /// Leave this much of the ballast of this disk.
    ReleaseBallast(PathBuf, u64),
    /// Take this much.
    TakeBallast(PathBuf, u64),
}

/// What people are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// When it was seen.
    pub at: Timestamp,
    /// Which disk, as the node calls it.
    pub point: PathBuf,
    /// Of what.
    pub resource: Resource,
    /// Its level now.
    pub level: Level,
    /// Why it is told.
    pub cause: Cause,
    /// How full it is; none where it does not answer, or has no limit any more.
    pub fill: Option<Fill>,
    /// When it would be full.
    pub forecast: Option<Forecast>,
    /// By whom it mostly grows; none where nobody makes half of it, or nobody knows.
    pub mostly: Option<Growth>,
}

/// Why an alert is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The level rose from this one.
    Rose(Level),
    /// It fell from this one.
    Fell(Level),
    /// It is still at 90 % or more, an hour after it was told.
    Remains,
    /// It would be full within a day.
    Filling,
    /// It does not answer: who asks it, or writes on it, waits.
    Silent,
    /// It answers again.
    Answers,
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What to remember.
    pub next: State,
    /// What to do, in this order.
    pub actions: Vec<Action>,
}

/// A disk that does not answer for so long is told: one that is only busy does within seconds.
pub const SILENT: Duration = Duration::from_secs(30);
/// A disk at 90 % or more is told again after this, as the founding document's hourly job does.
pub const REMIND: Duration = Duration::from_hours(1);
/// A run of cleaning takes what its rules allow; what has become old enough since is little.
const CLEAN_AGAIN: Duration = Duration::from_hours(1);
/// Between the halves: time for a person to stop what writes, before it has eaten the second one too.
const HALVES_APART: Duration = Duration::from_mins(5);
/// That a disk fills is over when it lasts so long: twice the day within which it is told, so that nobody is told twice.
const HORIZON_LEFT: Duration = Duration::from_hours(48);

/// Decides. A disk may be seen and silent at once: it is asked, and does not take a write.
pub fn decide(
    rules: &Rules,
    seen: &[Seen],
    silent: &[Silent],
    state: &State,
    now: Timestamp,
) -> Outcome {
    let mut next = state.clone();
    let mut actions = Vec::new();
    for one in silent.iter().filter(|one| one.lasts >= SILENT) {
        let disk = next.disks.entry(one.point.clone()).or_default();
        disk.forget_the_future(now);
        disk.tell_of_silence(one, now, &mut actions);
    }
    for one in seen {
        let disk = next.disks.entry(one.reading.point.clone()).or_default();
        disk.forget_the_future(now);
        if silent.iter().all(|other| other.point != one.reading.point) {
            disk.tell_of_an_answer(one, now, &mut actions);
        }
        disk.tell(one, now, &mut actions);
        disk.clean(rules, one, now, &mut actions);
        disk.ballast(rules, one, now, &mut actions);
    }
    Outcome { next, actions }
}

/// Elapsed time; none when `then` is not known.
fn since(then: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    then.map(|then| {
        now.duration_since(then)
            .try_into()
            .unwrap_or(Duration::ZERO)
    })
}

fn has_passed(span: Duration, then: Option<Timestamp>, now: Timestamp) -> bool {
    since(then, now).is_none_or(|elapsed| elapsed >= span)
}

// === impl Seen ===

impl Seen {
    /// When it is used up.
    const fn forecast(&self, resource: Resource) -> Option<&Forecast> {
        let [bytes, inodes] = &self.forecasts;
        match resource {
            Resource::Bytes => bytes.as_ref(),
            Resource::Inodes => inodes.as_ref(),
        }
    }
}

// === impl DiskState ===

impl DiskState {
    /// The worse of both levels.
    pub fn worst(&self) -> Level {
        self.bytes.max(self.inodes)
    }

    /// The level of one resource.
    pub const fn level(&self, resource: Resource) -> Level {
        match resource {
            Resource::Bytes => self.bytes,
            Resource::Inodes => self.inodes,
        }
    }

    /// A clock that was set back must not silence anything until it is there again.
    fn forget_the_future(&mut self, now: Timestamp) {
        for then in [
            &mut self.bytes_told_at,
            &mut self.inodes_told_at,
            &mut self.silent_told_at,
            &mut self.calm_since,
            &mut self.cleaned_at,
            &mut self.released_at,
        ] {
            *then = then.map(|then| then.min(now));
        }
    }

    fn tell(&mut self, seen: &Seen, now: Timestamp, actions: &mut Vec<Action>) {
        let Reading { space, fstype, .. } = &seen.reading;
        for resource in Resource::ALL {
            let before = self.level(resource);
            let fill = Fill::of(resource, space, fstype);
            // What has no limit any more, as inodes whose number is computed from the free blocks again, is not short of it.
            let level = fill.map_or(Level::Calm, |fill| judge(fill, before));
            let (own, told_at, fills) = self.of(resource);
            *own = level;
            let cause = match level.cmp(&before) {
                std::cmp::Ordering::Greater => Some(Cause::Rose(before)),
                std::cmp::Ordering::Less => Some(Cause::Fell(before)),
                std::cmp::Ordering::Equal
                    if level >= Level::Serious && has_passed(REMIND, *told_at, now) =>
                {
                    Some(Cause::Remains)
                }
                std::cmp::Ordering::Equal => None,
            };
            if let Some(cause) = cause {
                *told_at = Some(now);
                actions.push(Action::Tell(alert(seen, resource, level, cause, now)));
            }
            // Without a forecast nothing is known: what was said stays said.
            if let Some(forecast) = seen.forecast(resource) {
                if *fills {
                    *fills = forecast.full_in.is_some_and(|span| span <= HORIZON_LEFT);
                } else if forecast.warns {
                    *fills = true;
                    let cause = Cause::Filling;
                    actions.push(Action::Tell(alert(seen, resource, level, cause, now)));
                }
            }
        }
    }

    /// Level, when somebody was told of it, and whether it was said that it fills.
    const fn of(&mut self, resource: Resource) -> (&mut Level, &mut Option<Timestamp>, &mut bool) {
        match resource {
            Resource::Bytes => (
                &mut self.bytes,
                &mut self.bytes_told_at,
                &mut self.bytes_fill,
            ),
            Resource::Inodes => (
                &mut self.inodes,
                &mut self.inodes_told_at,
                &mut self.inodes_fill,
            ),
        }
    }

    fn tell_of_silence(&mut self, silent: &Silent, now: Timestamp, actions: &mut Vec<Action>) {
        if has_passed(REMIND, self.silent_told_at, now) {
            self.silent_told_at = Some(now);
            actions.push(Action::Tell(Alert {
                at: now,
                point: silent.point.clone(),
                resource: Resource::Bytes,
                level: self.worst(),
                cause: Cause::Silent,
                fill: None,
                forecast: None,
                mostly: None,
            }));
        }
    }

    fn tell_of_an_answer(&mut self, seen: &Seen, now: Timestamp, actions: &mut Vec<Action>) {
        if self.silent_told_at.take().is_some() {
            let level = self.worst();
            let cause = Cause::Answers;
            actions.push(Action::Tell(alert(
                seen,
                Resource::Bytes,
                level,
                cause,
                now,
            )));
        }
    }

    /// When the level is reached, and each hour as long as that is so. Never sooner, however it rises on: the cap of a run
    /// would be none.
    fn clean(&mut self, rules: &Rules, seen: &Seen, now: Timestamp, actions: &mut Vec<Action>) {
        let is_due = rules.clean_at.is_some_and(|level| self.worst() >= level);
        if is_due && has_passed(CLEAN_AGAIN, self.cleaned_at, now) {
            self.cleaned_at = Some(now);
            actions.push(Action::Clean(seen.reading.device));
        }
    }

    /// A half goes when less is left than it gives, for root too; the rest when that is so again, and not at once. A level
    /// alone lets nothing go: at 95 % of a large disk there is room, and an early half would be gone when it matters.
    fn ballast(&mut self, rules: &Rules, seen: &Seen, now: Timestamp, actions: &mut Vec<Action>) {
        let is_calm = self.bytes <= Level::Notice;
        self.calm_since = match (is_calm, self.calm_since) {
            (true, None) => Some(now),
            (true, since) => since,
            (false, _) => None,
        };
        let Some(ballast) = seen.ballast else {
            return;
        };
        let point = || seen.reading.point.clone();
        let is_worst = self.worst() == Level::Critical;
        let is_needed = is_worst && room_for_root(&seen.reading) < ballast.half;
        let is_unwanted = ballast.wanted == 0;
        if ballast.held > 0 && (is_needed || is_unwanted) {
            if has_passed(HALVES_APART, self.released_at, now) {
                self.released_at = Some(now);
                let left = if is_unwanted {
                    0
                } else {
                    ballast.held.saturating_sub(ballast.half)
                };
                actions.push(Action::ReleaseBallast(point(), left));
            }
            return;
        }
        let was_released = self.released_at.is_some();
        let is_calm_enough = self.calm_since.is_some()
            && (!was_released || has_passed(rules.calm_for, self.calm_since, now));
        // A growth that wavers does not make a new one each time.
        let is_short = ballast.held < ballast.wanted - ballast.wanted / 5;
        if is_short && is_calm_enough && stays_calm(seen, ballast) {
            self.released_at = None;
            actions.push(Action::TakeBallast(point(), ballast.wanted));
        }
    }
}

/// What kubelet, etcd and other programs of root can still write. Only the ext family keeps a reserve for them; what is free
/// and not available elsewhere, on btrfs up to a fifth, is nobody's to write.
fn room_for_root(reading: &Reading) -> u64 {
    if reading.fstype.starts_with("ext") {
        reading.space.bytes_free
    } else {
        reading.space.bytes_available
    }
}

/// Taking the ballast does not bring the disk to its first level by itself.
fn stays_calm(seen: &Seen, ballast: BallastSeen) -> bool {
    let more = ballast.wanted.saturating_sub(ballast.held);
    let fill = Fill::of(Resource::Bytes, &seen.reading.space, &seen.reading.fstype);
    fill.is_some_and(|fill| {
        let then = Fill {
            used: fill.used.saturating_add(more),
            whole: fill.whole,
        };
        judge(then, Level::Calm) == Level::Calm
    })
}

fn alert(seen: &Seen, resource: Resource, level: Level, cause: Cause, at: Timestamp) -> Alert {
    let Reading { space, fstype, .. } = &seen.reading;
    Alert {
        at,
        point: seen.reading.point.clone(),
        resource,
        level,
        cause,
        fill: Fill::of(resource, space, fstype),
        forecast: seen.forecast(resource).cloned(),
        mostly: match resource {
            Resource::Bytes => seen.mostly,
            Resource::Inodes => None,
        },
    }
}

#[cfg(test)]
mod tests;
