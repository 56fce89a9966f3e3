//! What gives space back on a node, as the node guard does it, in the words of `nagi-ops`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nagi_guard::{
    Deleted, Device, Done, End, Event, Glance, Item, Kind, Plan, Policy, Report, Skipped, Step,
};
use nagi_ops::recover::{Did, FreeDisk, FreeHeld, FreeItem, FreeStep, FreeUnseen, Freeing, Room};
use nagi_ops::{Disks, Looked, Unseen};
use nagi_ports::SystemClock;

use super::super::diagnose::disks::NodeDisks;
use crate::cmd::disk::shown;
use crate::cmd::disk::{clean_end, clean_why};
use crate::output::words;

/// Deleted files that are held open are named up to so many on a disk; smaller ones explain no full disk.
const HELD_MAX: usize = 5;
const HELD_MIN: u64 = 1 << 20;

/// The disks of a node, and what may go from them.
#[derive(Debug)]
pub(in crate::cmd::recover) struct NodeRoom {
    policy: Policy,
    clock: SystemClock,
    /// The plan that was made last, which is the one that is carried out.
    plan: Mutex<Option<Plan>>,
    /// Nothing else goes: what is left of a plan that was seen and begun with.
    only: OnceLock<BTreeSet<String>>,
    growth: OnceLock<Result<BTreeMap<PathBuf, i64>, String>>,
}

// === impl NodeRoom ===

impl NodeRoom {
    pub(super) fn of(policy: Policy) -> Self {
        Self {
            policy,
            clock: SystemClock::new(),
            plan: Mutex::new(None),
            only: OnceLock::new(),
            growth: OnceLock::new(),
        }
    }

    /// From now on nothing goes but these, if it still is what it was.
    pub(super) fn only(&self, files: Vec<String>) {
        self.only.get_or_init(|| files.into_iter().collect());
    }

    /// What the plan that was made last removes.
    pub(super) fn files(&self) -> Vec<String> {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = plan.iter().flat_map(|plan| &plan.steps);
        let goes = steps.filter(|step| step.has_consent);
        goes.flat_map(|step| step.items.iter().map(|item| identity(step, item)))
            .collect()
    }
}

/// What tells a file from every other, and from what it was before it was written to.
fn identity(step: &Step, item: &Item) -> String {
    let Item {
        device,
        inode,
        size,
        written,
        ..
    } = item;
    let kind = step.reclaimer.name();
    let path = shown(&step.whole(item));
    let (seconds, nanoseconds) = (written.seconds, written.nanoseconds);
    format!("{kind} {path} {device} {inode} {size} {seconds}.{nanoseconds:09}")
}

/// A plan without what was not seen.
fn narrowed(plan: &mut Plan, seen: &BTreeSet<String>) {
    for step in &mut plan.steps {
        let items = std::mem::take(&mut step.items);
        let (kept, _) = items
            .into_iter()
            .partition(|item| seen.contains(&identity(step, item)));
        step.items = kept;
    }
    for disk in &mut plan.disks {
        let here = plan.steps.iter();
        let here = here.filter(|step| step.disk == disk.device && step.has_consent);
        let (bytes, inodes) = here.fold((0_u64, 0_u64), |(bytes, inodes), step| {
            let count = u64::try_from(step.items.len()).unwrap_or(u64::MAX);
            (
                bytes.saturating_add(step.expected()),
                inodes.saturating_add(count),
            )
        });
        disk.expected = disk.expected.min(bytes);
        disk.expected_inodes = disk.expected_inodes.min(inodes);
    }
}

impl Room for NodeRoom {
    fn disks(&self) -> Arc<dyn Disks> {
        Arc::new(NodeDisks::of(&self.policy.root))
    }

    fn plan(&self) -> Looked<Freeing> {
        let plan = nagi_guard::plan(&self.policy, &self.clock);
        let mut plan = plan.map_err(|error| Unseen::Failed(error.to_string()))?;
        if let Some(seen) = self.only.get() {
            narrowed(&mut plan, seen);
        }
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
        items: plan
            .steps
            .iter()
            .filter(|step| step.has_consent)
            .flat_map(|step| step.items.iter().map(|item| free_item(step, item)))
            .collect(),
        held,
        unseen: plan
            .skipped
            .iter()
            .map(|skipped| unseen(skipped, glance))
            .collect(),
    }
}

/// An image or a container is known by its name, and not by its place among the runtime's.
fn free_item(step: &Step, item: &Item) -> FreeItem {
    let own = item.owned.as_ref().and_then(|owned| owned.names.first());
    let name = own.cloned().unwrap_or_else(|| shown(&step.whole(item)));
    FreeItem {
        name: format!("{} {name}", step.reclaimer.name()),
        state: identity(step, item),
    }
}

fn unseen(skipped: &Skipped, glance: Option<&Glance>) -> FreeUnseen {
    let directory = &skipped.directory;
    let disk = glance.and_then(|glance| glance.filesystem_of(directory));
    FreeUnseen {
        kind: skipped.reclaimer.name().to_owned(),
        // What a runtime is asked by, or which file keeps it from being asked, lies elsewhere than what it has.
        point: disk
            .filter(|_| !skipped.reclaimer.is_of_runtime())
            .map(|disk| disk.point.clone()),
        directory: directory.clone(),
        why: clean_why(&skipped.why),
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
    let mut evidence: Vec<String> = acted.map(line).collect();
    // What fell silent since the plan was made stands here first.
    let skipped = report.skipped.iter().map(|one| unseen(one, None).words());
    evidence.extend(skipped);
    let is_hard = |done: &&Done| match done.end {
        End::Broken(_) | End::NoRecord(_) => true,
        End::Done
        | End::Target
        | End::Cap
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

#[cfg(test)]
mod tests {
    use nagi_guard::{Instant, Reclaimer, Why};

    use super::*;

    fn skipped() -> Vec<Skipped> {
        let of = |reclaimer, directory: &str, why| Skipped {
            reclaimer,
            directory: directory.into(),
            why,
        };
        let manifest = "/etc/kubernetes/manifests/kube-vip.yaml";
        vec![
            of(
                Reclaimer::Images,
                "/run/containerd/containerd.sock",
                Why::Manifest(manifest.into()),
            ),
            of(Reclaimer::Journal, "/var/log/journal", Why::ReadOnly),
        ]
    }

    // 5-10: what was passed over, and why, comes with what may go. Of images no disk is told: what keeps them from being looked at
    // lies elsewhere than they do.
    #[test]
    fn what_was_passed_over_is_told_with_its_reason() {
        let plan = Plan {
            at: Instant::default(),
            policy: Policy::at(Path::new("/")),
            steps: Vec::new(),
            disks: Vec::new(),
            skipped: skipped(),
            left: Vec::new(),
        };
        let glance = nagi_guard::glance(Path::new("/")).unwrap();
        let told = told(&plan, Some(&glance), Path::new("/"));
        let words: Vec<String> = told.unseen.iter().map(FreeUnseen::words).collect();
        assert_eq!(
            words,
            [
                "images at /run/containerd/containerd.sock left alone: \
                 /etc/kubernetes/manifests/kube-vip.yaml cannot be understood, so nobody knows which images are needed",
                "journal at /var/log/journal left alone: its filesystem cannot be written to",
            ]
        );
        assert_eq!(told.unseen[0].point, None);
        assert!(told.unseen[1].point.is_some());
    }

    // 5-28 of the review: what would go is told one by one, images by their names, so that whoever has seen it can be told which of
    // them is another.
    #[test]
    fn what_would_go_is_told_by_its_name_and_state() {
        let item = |path: &str, names: &[&str]| Item {
            path: path.into(),
            device: Device { major: 8, minor: 1 },
            inode: 7,
            size: 4096,
            blocks: nagi_guard::Blocks(8),
            written: Instant::default(),
            links: 1,
            owned: (!names.is_empty()).then(|| nagi_guard::Owned {
                names: names.iter().map(|name| (*name).to_owned()).collect(),
                inodes: 1,
                is_measured: true,
            }),
        };
        let step = |reclaimer, directory: &str, has_consent, item| Step {
            reclaimer,
            directory: directory.into(),
            disk: Device { major: 8, minor: 1 },
            has_consent,
            items: vec![item],
            spared: nagi_guard::Tally::default(),
            kept: Vec::new(),
        };
        let package = item("archives/a_1_all.deb", &[]);
        let image = item("sha256:aa", &["r.example/idle:1"]);
        let mut plan = Plan {
            at: Instant::default(),
            policy: Policy::at(Path::new("/")),
            steps: vec![
                step(Reclaimer::Apt, "/var/cache/apt", true, package),
                step(Reclaimer::Images, "/var/lib/containerd", true, image),
                step(
                    Reclaimer::Journal,
                    "/var/log/journal",
                    false,
                    item("a", &[]),
                ),
            ],
            disks: Vec::new(),
            skipped: Vec::new(),
            left: Vec::new(),
        };
        let seen = told(&plan, None, Path::new("/"));
        let names: Vec<&str> = seen.items.iter().map(|one| one.name.as_str()).collect();
        let apt = "apt /var/cache/apt/archives/a_1_all.deb";
        assert_eq!(names, [apt, "images r.example/idle:1"]);
        plan.steps[0].items[0].size = 5000;
        let changes = told(&plan, None, Path::new("/")).changes_since(&seen);
        assert_eq!(changes, [format!("{apt} was written to or replaced")]);
    }

    // A runtime that fell silent behind the plan.
    #[test]
    fn what_was_passed_over_later_stands_in_the_evidence() {
        let report = Report {
            done: Vec::new(),
            disks: Vec::new(),
            after: Vec::new(),
            skipped: skipped(),
            has_ring: true,
        };
        let did = did(&report).unwrap();
        assert!(
            did.evidence[0].contains("kube-vip.yaml"),
            "{:?}",
            did.evidence
        );
    }
}
