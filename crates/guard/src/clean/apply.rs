//! The executor: does what the plan says, or refuses. It chooses nothing.
//!
//! First everything is looked at again, with the rules and the moment of the plan. A step whose files are not all still what
//! the plan says, and still allowed to go, is refused as a whole. Then each file, in this order: the intent is written down,
//! the file is reached from its base and compared once more, and its name is removed. A crash between any two of these
//! leaves at most a record of a file that is still there; the next plan simply names it again.

mod stopped;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use nagi_ports::Clock;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use thiserror::Error;

use super::CleanError;
use super::ask;
use super::audit::{self, Audit, AuditError};
use super::discover::{self, Discovery, Found, Skipped, Why};
use super::held::{self, Held};
use super::locks;
use super::place::{self, Instant};
use super::plan::{self, Disk, Item, Needed, Plan, Step};
use super::policy::Reclaimer;
use super::reach::Reach;
use super::runtime;
use super::snaps::{self, Revision};
use crate::filesystem::Space;
use crate::mounts::Device;
use stopped::Stopped;

/// An older plan is not carried out: too much has happened since.
const AGE_MAX: Duration = Duration::from_hours(24);
/// XFS takes milliseconds; a busy disk may take longer.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);
/// So much may have been written by others meanwhile without that anybody waits; or a hundredth.
const OTHERS_MAX: u64 = 1 << 20;
/// Files that could not be removed are named up to so many.
const FAILURES_MAX: usize = 10;
/// Something that happens while a plan is carried out.
#[derive(Debug)]
pub enum Event<'a> {
    /// This was written down and is done next.
    Intent(&'a str),
    /// It is done.
    Removed(&'a Step, &'a Item),
    /// A step has ended.
    Ended(&'a Done),
}

/// What came of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What came of each step.
    pub done: Vec<Done>,
    /// The disks as they were before.
    pub disks: Vec<Disk>,
    /// How full they are now.
    pub after: Vec<After>,
    /// Places that were left alone, of the kinds that may go.
    pub skipped: Vec<Skipped>,
    /// The ring on the disk took the records. Otherwise they are under `/run` only.
    pub has_ring: bool,
}

/// A disk afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    /// Which.
    pub device: Device,
    /// How full it is.
    pub space: Space,
    /// Its target is reached.
    pub is_clean: bool,
}

/// What came of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Which kind.
    pub reclaimer: Reclaimer,
    /// Where.
    pub directory: PathBuf,
    /// How it ended.
    pub end: End,
    /// Files that were removed.
    pub removed: u64,
    /// What they took, as the plan said.
    pub expected: u64,
    /// How many bytes more are free on its disk than before; less when others wrote meanwhile.
    pub measured: i64,
    /// Files that could not be removed: the first, and how many there are.
    pub failures: (Vec<(PathBuf, String)>, u64),
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Everything in it was done, but for what is among the failures.
    Done,
    /// The disk was clean enough before all of it was done, as measured.
    Target,
    /// So much had come back as one run may take, before all of it was done, as measured.
    Cap,
    /// Everything in it was done, and less came back than was expected: files are held open, or share their blocks with copies
    /// or snapshots, or others wrote meanwhile.
    Short,
    /// It loses what cannot be had again, and nobody agreed to that.
    NoConsent,
    /// This is not what the plan says, or may not go any more. Nothing more was done.
    Changed(PathBuf),
    /// The place cannot be looked at any more.
    Away,
    /// Its owner is at work there.
    OwnerBusy,
    /// The filesystem cannot be written to any more, or fails.
    Broken(Errno),
    /// It took too long.
    TimedOut,
    /// What is removed cannot be written down any more, neither in the ring nor under `/run`. Nothing more was done.
    NoRecord(Errno),
}

/// Why nothing, or nothing more, was done.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The node cannot be looked at.
    #[error(transparent)]
    Look(#[from] CleanError),
    /// There is nowhere to write down what is removed, or another cleaner is at work.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The plan was made for a moment that lies ahead.
    #[error(
        "the plan is from the future: the clock of this node was set back, or the plan was edited"
    )]
    FromTheFuture,
    /// The plan is too old.
    #[error("the plan is older than 24 hours")]
    TooOld,
}

/// What has to go beyond what had gone when the disk was looked at last.
struct Aim {
    needed: Needed,
    expected: u64,
    removed: u64,
}

/// The hands.
struct Hands<'a> {
    plan: &'a Plan,
    root: &'a OwnedFd,
    reach: &'a Reach,
    clock: &'a dyn Clock,
    audit: Audit,
    /// What earlier steps have given back, as measured.
    freed: u64,
    tell: &'a mut dyn FnMut(&Event<'_>),
}

/// Carries a plan out. `tell` hears of every removal before it is made.
///
/// # Errors
/// Nothing was done: the plan is too old, somebody else cleans, or there is nowhere to write down what is removed. A step
/// that is refused, or broken off on the way, is no error: the report says so.
pub fn apply(
    plan: &Plan,
    clock: &dyn Clock,
    tell: &mut dyn FnMut(&Event<'_>),
) -> Result<Report, ApplyError> {
    let now = Instant::now(clock);
    if plan.at > now {
        return Err(ApplyError::FromTheFuture);
    }
    if plan.at < now.before(AGE_MAX) {
        return Err(ApplyError::TooOld);
    }
    let root = super::open_root(&plan.policy.root)?;
    let reach = Reach::of(&root)?;
    let audit = Audit::open(&root, &reach)?;
    let discovery = discover::discover(&plan.policy, &root, &reach, plan.at, clock);
    let mut hands = Hands {
        plan,
        root: &root,
        reach: &reach,
        clock,
        audit,
        freed: 0,
        tell,
    };
    let mut done = Vec::new();
    for step in &plan.steps {
        let found = discovery
            .found
            .iter()
            .find(|found| found.reclaimer == step.reclaimer && found.directory == step.directory)
            .ok_or_else(|| absent(step, &discovery));
        let one = hands.step(step, found);
        let freed = u64::try_from(one.measured).unwrap_or(0);
        hands.freed = hands.freed.saturating_add(freed);
        (hands.tell)(&Event::Ended(&one));
        done.push(one);
    }
    let (mut disks, mut after) = (Vec::new(), Vec::<After>::new());
    for found in &discovery.found {
        plan.add_disk(&mut disks, &found.disk);
        let device = found.disk.device;
        if after.iter().all(|one| one.device != device)
            && let Ok(space) = space(&found.base)
        {
            after.push(After {
                device,
                space,
                is_clean: needed(plan, found, &space) == Needed::default(),
            });
        }
    }
    let mut skipped = discovery.skipped;
    skipped.retain(|place| plan.policy.consents_to(place.reclaimer));
    Ok(Report {
        done,
        disks,
        after,
        skipped,
        has_ring: hands.audit.has_ring(),
    })
}

/// How a step ends whose place was not looked at.
fn absent(step: &Step, discovery: &Discovery) -> End {
    let mut skipped = discovery.skipped.iter();
    let is_busy = skipped.any(|place| matches!(place.why, Why::RuntimeBusy(_)));
    let mut found = discovery.found.iter();
    if step.reclaimer.is_of_runtime() && is_busy {
        End::OwnerBusy
    } else if step.reclaimer.is_of_runtime() && found.any(|found| found.reclaimer == step.reclaimer)
    {
        // The runtime has another place, or a link leads elsewhere since.
        End::Changed(step.directory.clone())
    } else {
        End::Away
    }
}

fn space(base: &OwnedFd) -> Result<Space, Errno> {
    Ok(Space::of(&rustix::fs::fstatvfs(base)?))
}

fn needed(plan: &Plan, found: &Found, space: &Space) -> Needed {
    plan::needed(&found.disk, space, plan.policy.target_percent)
}

// === impl Done ===

impl Done {
    /// Says how it ended, unless that is said already.
    fn say(&mut self, end: End) {
        if self.end == End::Done && self.failures.1 == 0 {
            self.end = end;
        }
    }
}

// === impl Aim ===

impl Aim {
    const fn at(needed: Needed, done: &Done) -> Self {
        Self {
            needed,
            expected: done.expected,
            removed: done.removed,
        }
    }

    /// By what was expected of the files that went.
    const fn is_met_by(&self, done: &Done) -> bool {
        let bytes = done.expected.saturating_sub(self.expected);
        self.needed
            .is_met_by(bytes, done.removed.saturating_sub(self.removed))
    }
}

// === impl Hands ===

impl Hands<'_> {
    fn step(&mut self, step: &Step, found: Result<&Found, End>) -> Done {
        let mut done = Done {
            reclaimer: step.reclaimer,
            directory: step.directory.clone(),
            end: End::Done,
            removed: 0,
            expected: 0,
            measured: 0,
            failures: (Vec::new(), 0),
        };
        // Consent is asked of the policy and not of the step, whatever a file says.
        if !self.plan.policy.consents_to(step.reclaimer) {
            done.end = End::NoConsent;
            return done;
        }
        if step.items.is_empty() {
            return done;
        }
        let found = match found {
            Ok(found) => found,
            Err(end) => {
                done.end = end;
                return done;
            }
        };
        if let Some(item) = first_changed(step, found) {
            done.end = End::Changed(step.whole(item));
            return done;
        }
        // Other steps and snapd may have taken minutes since everything was looked at.
        if held::matters(step.reclaimer) {
            let held = Held::of(step.items.iter());
            if let Some(item) = step.items.iter().find(|item| held.has(item)) {
                done.end = End::Changed(step.whole(item));
                return done;
            }
        }
        let locks = match locks::take(step.reclaimer, self.root, self.reach) {
            Ok(locks) => locks,
            Err(Errno::AGAIN) => {
                done.end = End::OwnerBusy;
                return done;
            }
            Err(error) => {
                done.end = End::Broken(error);
                return done;
            }
        };
        let Ok(before) = space(&found.base) else {
            done.end = End::Away;
            return done;
        };
        let (end, aim) = self.remove(step, found, &before, &mut done);
        done.end = end;
        drop(locks);
        let enough = done
            .expected
            .saturating_sub(OTHERS_MAX.max(done.expected / 100));
        let measured = |now: &Space| difference(now.bytes_free, before.bytes_free);
        let is_there =
            |now: &Space| u64::try_from(measured(now).max(0)).is_ok_and(|bytes| bytes >= enough);
        let (now, synced) = self.settled(&found.base, is_there);
        let now = match now {
            Ok(now) => now,
            Err(error) => {
                done.say(End::Broken(error));
                return done;
            }
        };
        done.measured = measured(&now);
        if done.removed > 0
            && let Err(error) = self.audit.record(self.clock, &audit::outcome(&done))
        {
            done.say(End::NoRecord(error));
        }
        if let Err(error) = synced {
            done.say(End::Broken(error));
        }
        let is_above = needed(self.plan, found, &now) != Needed::default();
        if !is_there(&now) || (aim.is_met_by(&done) && is_above) {
            done.say(End::Short);
        }
        done
    }

    /// What a disk has once it has settled. Some filesystems give space back only when they write, and XFS in the background:
    /// that is waited for, but not for long, because others may take it at the same moment. It is written back once; a disk
    /// that cannot be is measured all the same.
    fn settled(
        &self,
        base: &OwnedFd,
        is_enough: impl Fn(&Space) -> bool,
    ) -> (Result<Space, Errno>, Result<(), Errno>) {
        let begun = self.clock.monotonic();
        let synced = rustix::fs::syncfs(base);
        loop {
            let now = space(base);
            let is_over = self.clock.monotonic().saturating_sub(begun) > SETTLES_WITHIN;
            if is_over || now.as_ref().map_or(true, &is_enough) {
                return (now, synced);
            }
            pause();
        }
    }

    fn remove(
        &mut self,
        step: &Step,
        found: &Found,
        before: &Space,
        done: &mut Done,
    ) -> (End, Aim) {
        let begun = self.clock.monotonic();
        let plan = self.plan;
        let is_clean = |now: &Space| needed(plan, found, now) == Needed::default();
        let mut aim = Aim::at(needed(plan, found, before), done);
        // On a full ext4 the reserve is not to be seen, and was computed.
        let mut knows_reserve = before.bytes_available > 0;
        for item in &step.items {
            if !knows_reserve
                && let Ok(now) = space(&found.base)
                && now.bytes_available > 0
            {
                knows_reserve = true;
                aim = Aim::at(needed(plan, found, &now), done);
            }
            if aim.is_met_by(done) {
                // What was expected is there, or it goes on: files may be held open, or share their blocks.
                let now = match done.removed {
                    0 => *before,
                    _ => match self.settled(&found.base, is_clean) {
                        (Ok(now), Ok(())) => now,
                        (Err(error), _) | (_, Err(error)) => {
                            return (End::Broken(error), aim);
                        }
                    },
                };
                if is_clean(&now) {
                    return (End::Target, aim);
                }
                aim = Aim::at(needed(plan, found, &now), done);
            }
            if step.reclaimer.is_of_runtime() {
                match self.is_over(item, found, before, done) {
                    Ok(None) => {}
                    Ok(Some(end)) => return (end, aim),
                    Err(error) => return (End::Broken(error), aim),
                }
            }
            if self.clock.monotonic().saturating_sub(begun) > self.plan.policy.deadline {
                return (End::TimedOut, aim);
            }
            let path = step.whole(item);
            let line = match self.audit.record(self.clock, &audit::intent(step, item)) {
                Ok(line) => line,
                Err(error) => return (End::NoRecord(error), aim),
            };
            (self.tell)(&Event::Intent(&line));
            match self.let_go(step, item, &found.base) {
                Ok(()) => {}
                Err(Stopped::Changed) => return (End::Changed(path), aim),
                Err(Stopped::Busy) => return (End::OwnerBusy, aim),
                Err(Stopped::Away) => return (End::Away, aim),
                Err(Stopped::Broken(error)) => return (End::Broken(error), aim),
                Err(Stopped::Failed(why)) => {
                    done.failures.1 += 1;
                    if done.failures.0.len() < FAILURES_MAX {
                        done.failures.0.push((path, why));
                    }
                    continue;
                }
            }
            done.removed += 1;
            done.expected = done.expected.saturating_add(item.gives_back());
            (self.tell)(&Event::Removed(step, item));
        }
        (End::Done, aim)
    }

    /// Whether this one of a runtime may not go any more, as measured. What it gives back was computed from the books of
    /// others and may be far too little; and a removal takes so long that a look at the disk before it is nothing.
    fn is_over(
        &self,
        item: &Item,
        found: &Found,
        before: &Space,
        done: &Done,
    ) -> Result<Option<End>, Errno> {
        let now = if done.removed > 0 {
            // btrfs shows what has come back only when it has written.
            rustix::fs::syncfs(&found.base)?;
            space(&found.base)?
        } else {
            *before
        };
        if needed(self.plan, found, &now) == Needed::default() {
            return Ok(Some(End::Target));
        }
        let here = now.bytes_free.saturating_sub(before.bytes_free);
        let with_it = self
            .freed
            .saturating_add(here)
            .saturating_add(item.counts_for_cap());
        let cap = self.plan.policy.bytes_max;
        // One that counts as nothing is one too many where nothing is left.
        let is_capped =
            cap.is_some_and(|cap| with_it > cap || self.freed.saturating_add(here) >= cap);
        Ok(is_capped.then_some(End::Cap))
    }

    /// Removes one name, or asks its owner to.
    fn let_go(&self, step: &Step, item: &Item, base: &OwnedFd) -> Result<(), Stopped> {
        if step.reclaimer.is_of_runtime() {
            let node = (self.root, self.reach);
            let moments = (self.plan.at, Instant::now(self.clock));
            return runtime::let_go(step.reclaimer, item, &self.plan.policy, node, moments)
                .map_err(Stopped::from);
        }
        let (directory, name) = reach(base, item)?;
        if !step.reclaimer.is_asked_for() {
            return Ok(rustix::fs::unlinkat(&directory, name, AtFlags::empty())?);
        }
        let revision = Revision::of_file(name).ok_or(Stopped::Changed)?;
        // Asked anew: a snap may be switched off at any moment, and then the revision is the one that it goes back on with.
        let list =
            discover::snap_list(self.clock).map_err(|error| Stopped::Failed(error.to_string()))?;
        if !snaps::disabled(&list).is_some_and(|goes| goes.contains(&revision)) {
            return Err(Stopped::Changed);
        }
        let within = self.plan.policy.deadline;
        ask::ask(snaps::PROGRAM, &revision.removal(), within, self.clock)
            .map_err(|error| Stopped::Failed(error.to_string()))?;
        match place::look(&directory, name) {
            Err(Errno::NOENT) => Ok(()),
            Ok(_) => Err(Stopped::Failed("its owner said yes and kept it".to_owned())),
            Err(error) => Err(error.into()),
        }
    }
}

/// The first file that is not among those that may go now.
fn first_changed<'a>(step: &'a Step, found: &Found) -> Option<&'a Item> {
    let may_go: std::collections::BTreeMap<&[u8], &Item> = found
        .items
        .iter()
        .map(|item| (&item.path[..], item))
        .collect();
    let is_same = |item: &Item| {
        let now = may_go.get(&item.path[..]);
        now.is_some_and(|now| match item.owned {
            Some(_) => item.is_owned_as(now),
            None => item == *now,
        })
    };
    step.items.iter().find(|item| !is_same(item))
}

/// The directory of a file and its name there, when it still is what the plan says.
fn reach<'a>(base: &OwnedFd, item: &'a Item) -> Result<(OwnedFd, &'a [u8]), Stopped> {
    let at = item.path.iter().rposition(|byte| *byte == b'/');
    let (above, name) = match at {
        Some(at) => (
            item.path.get(..at).unwrap_or_default(),
            item.path.get(at + 1..).unwrap_or_default(),
        ),
        None => (&[][..], &item.path[..]),
    };
    let directory = place::open_below(base, above)?;
    let entry = place::look(&directory, name)?;
    if item.is(&entry) {
        Ok((directory, name))
    } else {
        Err(Stopped::Changed)
    }
}

/// Between two looks at a disk that settles.
#[expect(
    clippy::disallowed_methods,
    reason = "a plan is carried out on a thread of its own, which has nothing else to do"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

fn difference(after: u64, before: u64) -> i64 {
    let size = i64::try_from(after.abs_diff(before)).unwrap_or(i64::MAX);
    if after >= before { size } else { -size }
}
