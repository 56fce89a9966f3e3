//! What gives space back on a node, as the node guard does it, in the words of `nagi-ops`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nagi_guard::{Deleted, Device, Done, End, Event, Glance, Kind, Plan, Policy, Report};
use nagi_ops::recover::{Did, FreeDisk, FreeHeld, FreeStep, Freeing, Room};
use nagi_ops::{Disks, Looked, Unseen};
use nagi_ports::SystemClock;

use super::super::diagnose::disks::NodeDisks;
use crate::cmd::disk::clean_end;
use crate::cmd::disk::shown;
use crate::output::words;

/// Deleted files that are held open are named up to so many on a disk; smaller ones explain no full disk.
const HELD_MAX: usize = 5;
const HELD_MIN: u64 = 1 << 20;

/// The disks of a node, and what may go from them.
#[derive(Debug)]
pub(super) struct NodeRoom {
    policy: Policy,
    clock: SystemClock,
    /// The plan that was made last, which is the one that is carried out.
    plan: Mutex<Option<Plan>>,
    growth: OnceLock<Result<BTreeMap<PathBuf, i64>, String>>,
}

// === impl NodeRoom ===

impl NodeRoom {
    pub(super) fn of(policy: Policy) -> Self {
        Self {
            policy,
            clock: SystemClock::new(),
            plan: Mutex::new(None),
            growth: OnceLock::new(),
        }
    }
}

impl Room for NodeRoom {
    fn disks(&self) -> Arc<dyn Disks> {
        Arc::new(NodeDisks::of(&self.policy.root))
    }

    fn plan(&self) -> Looked<Freeing> {
        let plan = nagi_guard::plan(&self.policy, &self.clock);
        let plan = plan.map_err(|error| Unseen::Failed(error.to_string()))?;
        // Where they cannot be seen nothing is said of them; what may go does not depend on it.
        let glance = nagi_guard::glance(&self.policy.root).ok();
        let freeing = told(&plan, glance.as_ref(), &self.policy.root);
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
        Ok(freeing)
    }

    fn free(&self, digest: &str) -> Result<Did, String> {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = plan.as_ref().ok_or("nothing was planned")?;
        let own = plan.digest().to_string();
        if own != digest {
            return Err(format!(
                "the plan of the disks is {own} now, and {digest} was meant"
            ));
        }
        // Each removal stands on stderr before it is made.
        let mut tell = |event: &Event<'_>| match event {
            Event::Intent(line) => crate::output::tell(&words::clean(line)),
            Event::Removed(..) | Event::Ended(_) => {}
        };
        let report = nagi_guard::apply(plan, &self.clock, &mut tell);
        let mut did = did(&report.map_err(|error| chain(&error))?)?;
        did.evidence.push(format!("digest {own}"));
        Ok(did)
    }

    fn growth(&self, point: &Path) -> Looked<i64> {
        let read = || grown(&self.policy.root, &self.clock);
        let growth = self.growth.get_or_init(read).as_ref();
        let growth = growth.map_err(|why| Unseen::NotHere(why.clone()))?;
        growth
            .get(point)
            .copied()
            .ok_or_else(|| Unseen::NotHere("the guard has not watched it long enough".to_owned()))
    }
}

/// Bytes a day of each disk that a guard has watched for long enough.
fn grown(root: &Path, clock: &SystemClock) -> Result<BTreeMap<PathBuf, i64>, String> {
    let outlook = nagi_guard::outlook(root, &[], clock).map_err(|error| error.to_string())?;
    let history = |error| format!("the history of the guard cannot be read: {error}");
    outlook.history.map_err(history)?;
    let disks = outlook.disks.into_iter();
    let of_day =
        disks.filter_map(|disk| Some((disk.reading.point, disk.trend?.middle_whole() * 24)));
    Ok(of_day.collect())
}

fn told(plan: &Plan, glance: Option<&Glance>, root: &Path) -> Freeing {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let left = plan
        .left
        .iter()
        .filter(|left| left.tally.blocks.bytes() > 0);
    let mut held = glance.map_or_else(Vec::new, |glance| held(glance, root));
    held.extend(left.map(|left| {
        FreeHeld {
            point: glance
                .and_then(|glance| glance.filesystem_of(&left.directory))
                .map(|one| one.point.clone()),
            what: format!(
                "{} in {}: {}",
                words::bytes(left.tally.blocks.bytes()),
                shown(&left.directory),
                left.lever
            ),
        }
    }));
    let point_of = |device: Device| {
        let mut disks = plan.disks.iter();
        let disk = disks.find(|disk| disk.device == device);
        disk.map(|disk| disk.point.clone()).unwrap_or_default()
    };
    Freeing {
        digest: plan.digest().to_string(),
        disks: plan
            .disks
            .iter()
            .map(|disk| FreeDisk {
                point: disk.point.clone(),
                expected: disk.expected,
                expected_inodes: disk.expected_inodes,
            })
            .collect(),
        steps: plan
            .steps
            .iter()
            .filter(|step| !step.items.is_empty())
            .map(|step| FreeStep {
                kind: step.reclaimer.name().to_owned(),
                harm: step.reclaimer.harm().word().to_owned(),
                directory: step.directory.clone(),
                files: count(step.items.len()),
                expected: step.expected(),
                has_consent: step.has_consent,
                point: point_of(step.disk),
            })
            .collect(),
        held,
    }
}

/// What no removal gives back: files without a name that somebody still writes to.
fn held(glance: &Glance, root: &Path) -> Vec<FreeHeld> {
    let Ok(files) = nagi_guard::open_files(root) else {
        return Vec::new();
    };
    // What lies in memory fills no disk.
    let disks = glance
        .filesystems
        .iter()
        .filter(|one| one.kind == Kind::Disk);
    let mut found = Vec::new();
    for disk in disks {
        let is_large = |file: &&Deleted| file.blocks.bytes() >= HELD_MIN;
        let here = files
            .deleted
            .iter()
            .filter(|file| file.device == disk.device);
        found.extend(here.filter(is_large).take(HELD_MAX).map(|file| {
            let holders: Vec<String> = file
                .holders
                .iter()
                .map(|one| format!("{} ({})", one.pid, one.command))
                .collect();
            FreeHeld {
                point: Some(disk.point.clone()),
                what: format!(
                    "{} in the deleted file {}, held open by process {}: restarting that gives it back",
                    words::bytes(file.blocks.bytes()),
                    shown(&file.path),
                    holders.join(", ")
                ),
            }
        }));
    }
    found
}

/// Both numbers, and how each kind ended. What failed hard ends the recovery.
fn did(report: &Report) -> Result<Did, String> {
    let expected = report.done.iter().map(|done| done.expected).sum();
    let freed = report.done.iter().map(|done| done.measured).sum();
    let acted = report.done.iter().filter(|done| done.end != End::NoConsent);
    let line = |done: &Done| {
        format!(
            "{}: {} removed, {} announced, {} measured; {}",
            done.reclaimer.name(),
            words::count(done.removed, "file"),
            done.expected,
            done.measured,
            clean_end(&done.end)
        )
    };
    let evidence: Vec<String> = acted.map(line).collect();
    let is_hard = |done: &&Done| match done.end {
        End::Broken(_) | End::NoRecord(_) => true,
        End::Done
        | End::Target
        | End::Short
        | End::NoConsent
        | End::Changed(_)
        | End::Away
        | End::OwnerBusy
        | End::TimedOut => false,
    };
    if report.done.iter().any(|done| is_hard(&done)) {
        return Err(evidence.join("; "));
    }
    Ok(Did {
        evidence,
        freed: Some(freed),
        expected: Some(expected),
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
