//! Whether a cluster is back, and stays: eight rungs, each with its evidence. Pure.
//!
//! A rung that could not be asked is unknown, which is never passed. What makes a cluster *up* is told from what makes it
//! *stable*: a disk at 93 % serves, and the next hour may take it down again.

mod cluster;

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::api::ApiFacts;
use super::plan::{KUBELET, SURVEY};
use crate::decide::{about, bytes, floors, inodes_used_percent};
use crate::observed::{
    Container, ContainerState, EtcdAnswer, Filesystem, Looked, Observed, RuntimeAnswer, StaticPod,
    Unseen,
};
use crate::policy::Policy;
use cluster::{api, growth, nodes, pressure};

pub(super) use cluster::is_own;

/// What counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// A disk on which df says more percent is not stable.
    pub target_percent: u8,
    /// For so long nothing may be started again.
    pub window: Duration,
    /// kubelet's time between a pressure that ended and the word of it.
    pub transition: Duration,
    /// So many nodes must be ready; none means all that the cluster lists.
    pub nodes: Option<usize>,
}

/// A rung, from the bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// The disks have room.
    Space,
    /// kubelet runs and stays.
    Units,
    /// The static pods run and stay.
    Containers,
    /// The store is well and takes a write.
    Store,
    /// The API server is alive and ready.
    Api,
    /// The nodes are ready.
    Nodes,
    /// No node says that its disks press.
    Pressure,
    /// A day's growth has room.
    Growth,
}

/// What came of a rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It could not be asked.
    Unknown,
    /// It does not hold.
    Failed,
}

/// A rung with what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub rung: Rung,
    /// What.
    pub outcome: Outcome,
    /// What shows it, the worst first.
    pub evidence: Vec<String>,
}

/// All together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is back, and stays.
    Recovered,
    /// It is back; that it stays is not shown.
    UpNotStable,
    /// It is not back, or that it is could not be shown.
    NotRecovered,
}

/// The whole ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    /// From the bottom.
    pub rungs: Vec<Held>,
    /// All together.
    pub verdict: Verdict,
}

/// One look for the ladder.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// The node.
    pub observed: Observed,
    /// The API server.
    pub api: Looked<ApiFacts>,
    /// How much each disk grows in a day.
    pub growth: Vec<(PathBuf, Looked<i64>)>,
    /// When.
    pub now: Timestamp,
    /// How the API server of this node's cluster calls it.
    pub name: Looked<String>,
    /// How long ago kubelet was started again by this run.
    pub restarted: Option<Duration>,
}

/// Judges what holds now, having held since `first`, so long ago.
pub fn judge(policy: &Policy, rules: &Rules, first: &Look, last: &Look, held: Duration) -> Ladder {
    let span = Span {
        rules,
        first,
        last,
        held,
    };
    let rungs = vec![
        space(policy, rules, &last.observed),
        units(span),
        containers(span),
        store(last),
        api(last),
        nodes(rules, last),
        pressure(rules, last),
        growth(last),
    ];
    let verdict = verdict(&rungs);
    Ladder { rungs, verdict }
}

fn verdict(rungs: &[Held]) -> Verdict {
    let of = |makes: fn(Rung) -> bool| {
        let of = rungs.iter().filter(|one| makes(one.rung));
        of.map(|one| one.outcome).max().unwrap_or(Outcome::Unknown)
    };
    if of(Rung::makes_up) != Outcome::Passed {
        return Verdict::NotRecovered;
    }
    let is_window_open = rungs
        .iter()
        .any(|one| one.rung.has_window() && one.outcome != Outcome::Passed);
    let growth = of(|rung| rung == Rung::Growth);
    if is_window_open || growth == Outcome::Failed {
        return Verdict::UpNotStable;
    }
    // Without the guard's history nobody knows how much it grows; that is said, and takes nothing from what was shown.
    match of(|rung| matches!(rung, Rung::Space | Rung::Pressure)) {
        Outcome::Passed => Verdict::Recovered,
        Outcome::Unknown | Outcome::Failed => Verdict::UpNotStable,
    }
}

/// What held over a time.
#[derive(Debug, Clone, Copy)]
struct Span<'a> {
    rules: &'a Rules,
    first: &'a Look,
    last: &'a Look,
    held: Duration,
}

fn result(rung: Rung, mut parts: Vec<(Outcome, String)>) -> Held {
    // Stable: what keeps the rung from holding is said first.
    parts.sort_by_key(|(outcome, _)| std::cmp::Reverse(*outcome));
    Held {
        rung,
        outcome: parts
            .iter()
            .map(|(outcome, _)| *outcome)
            .max()
            .unwrap_or(Outcome::Unknown),
        evidence: parts.into_iter().map(|(_, evidence)| evidence).collect(),
    }
}

fn unknown(rung: Rung, unseen: &Unseen) -> Held {
    result(rung, vec![(Outcome::Unknown, unseen.why().to_owned())])
}

fn space(policy: &Policy, rules: &Rules, observed: &Observed) -> Held {
    let floors = match floors(policy, observed) {
        Ok(floors) => floors,
        Err(unseen) => return unknown(Rung::Space, &unseen),
    };
    let filesystems = observed.filesystems.as_deref().unwrap_or_default();
    let mut parts = Vec::new();
    for floor in floors {
        let Some(one) = filesystems.iter().find(|one| one.point == floor.point) else {
            continue;
        };
        if !floor.is_met {
            parts.push((Outcome::Failed, floor.evidence));
            continue;
        }
        for line in &one.evicting {
            parts.push((Outcome::Failed, line.clone()));
        }
        parts.push(used(one, &observed.root, rules, floor.evidence));
    }
    result(Rung::Space, parts)
}

fn used(one: &Filesystem, root: &Path, rules: &Rules, evidence: String) -> (Outcome, String) {
    // What lies in memory ends with the boot and has its own limit.
    let percent = one.space.and_then(|space| space.used_percent());
    let Some(percent) = percent.filter(|_| !one.is_memory()) else {
        return (Outcome::Passed, evidence);
    };
    let free = one.space.map_or(0, |space| space.bytes_free);
    let survey = about(root, SURVEY);
    let text = format!("{percent} % used, {} free; {evidence}", bytes(free));
    let goal = u64::from(rules.target_percent);
    if let Some(inodes) = inodes_used_percent(one).filter(|inodes| *inodes > goal) {
        return (
            Outcome::Failed,
            format!(
                "{text}: {inodes} % of the inodes used, above {goal} %; '{survey}' says what else takes them"
            ),
        );
    }
    if percent > goal {
        let above = match percent {
            GOAL.. => format!(", above the goal of {GOAL} % too"),
            _ => String::new(),
        };
        return (
            Outcome::Failed,
            format!(
                "{text}: above {goal} %{above}; '{survey}' says what else fills it, or it must grow"
            ),
        );
    }
    (Outcome::Passed, text)
}

/// Between a look at a unit and the clock beside it.
const SLACK: Duration = Duration::from_secs(2);
/// B-042: sustained use stays below.
const GOAL: u64 = 85;

fn units(span: Span<'_>) -> Held {
    let find = |look: &Look| -> Looked<Option<crate::observed::Unit>> {
        let units = look.observed.units.as_ref().map_err(Clone::clone)?;
        Ok(units.iter().find(|unit| unit.name == KUBELET).cloned())
    };
    let (first, last) = match (find(span.first), find(span.last)) {
        (Ok(first), Ok(last)) => (first, last),
        (Err(unseen), _) | (_, Err(unseen)) => return unknown(Rung::Units, &unseen),
    };
    let Some(last) = last.filter(|unit| unit.is_known) else {
        let why = format!("systemd knows no {KUBELET}");
        return result(Rung::Units, vec![(Outcome::Unknown, why)]);
    };
    let what = format!(
        "{} is {} ({}), started again {} times",
        last.name, last.state, last.substate, last.restarts
    );
    if last.state != "active" {
        return result(Rung::Units, vec![(Outcome::Failed, what)]);
    }
    let before = first.map_or(0, |unit| unit.restarts);
    if before != last.restarts {
        let grew = format!("{what}, {before} a moment ago");
        return result(Rung::Units, vec![(Outcome::Failed, grew)]);
    }
    // Who starts it by hand, and a watchdog of its own, count nothing.
    let is_newer = |active: &Duration| *active + SLACK < span.held;
    if let Some(active) = last.active_for.filter(is_newer) {
        let active = Duration::from_secs(active.as_secs());
        let what = format!("{what}, and active for {active:?} only");
        return result(Rung::Units, vec![(Outcome::Failed, what)]);
    }
    result(Rung::Units, vec![(Outcome::Passed, what), span.window()])
}

fn containers(span: Span<'_>) -> Held {
    let manifests = match &span.last.observed.manifests {
        Ok(manifests) => manifests,
        Err(Unseen::NotHere(why)) if has_api_server(&span.last.observed) => {
            let what = format!(
                "this node has the certificate of an API server, and no static pods are known to run it: {why}"
            );
            return result(Rung::Containers, vec![(Outcome::Unknown, what)]);
        }
        // A worker has none.
        Err(Unseen::NotHere(why)) => {
            let what = format!("there are no static pods here: {why}");
            return result(Rung::Containers, vec![(Outcome::Passed, what)]);
        }
        Err(unseen) => return unknown(Rung::Containers, unseen),
    };
    let seen_in = |look: &Look| -> Looked<Vec<Container>> {
        let runtime = look.observed.containers.as_ref().map_err(Clone::clone)?;
        let failed = |why: &str| {
            Err(Unseen::Failed(format!(
                "{}: {why}",
                runtime.socket.display()
            )))
        };
        match &runtime.answer {
            RuntimeAnswer::Containers(containers) => Ok(containers.clone()),
            RuntimeAnswer::Down(why) | RuntimeAnswer::Failed(why) => failed(why),
            RuntimeAnswer::Silent(after) => failed(&format!("no answer within {after:?}")),
        }
    };
    let (first, last) = match (seen_in(span.first), seen_in(span.last)) {
        (Ok(first), Ok(last)) => (first, last),
        (Err(unseen), _) | (_, Err(unseen)) => return unknown(Rung::Containers, &unseen),
    };
    let mut parts = Vec::new();
    for manifest in manifests {
        match &manifest.pod {
            Ok(pod) => parts.push(of_pod(pod, &first, &last)),
            Err(why) => parts.push((
                Outcome::Failed,
                format!("{}: {why}", manifest.path.display()),
            )),
        }
    }
    if parts.iter().all(|(outcome, _)| *outcome == Outcome::Passed) && !parts.is_empty() {
        parts.push(span.window());
    }
    result(Rung::Containers, parts)
}

/// A worker has no certificate of an API server.
fn has_api_server(observed: &Observed) -> bool {
    let certificates = observed.certificates.as_deref().unwrap_or_default();
    let mut places = certificates.iter().map(|one| one.place.as_str());
    places.any(|place| place == "/etc/kubernetes/pki/apiserver.crt")
}

fn of_pod(pod: &StaticPod, first: &[Container], last: &[Container]) -> (Outcome, String) {
    let name = &pod.name;
    let running = |of: &[Container]| {
        let mut of: Vec<Container> = of
            .iter()
            .filter(|one| one.name == *name && one.state == ContainerState::Running)
            .cloned()
            .collect();
        of.sort_by(|one, other| one.id.cmp(&other.id));
        of
    };
    let (before, now) = (running(first), running(last));
    let Some(one) = now.first() else {
        return (Outcome::Failed, format!("no container of {name} runs"));
    };
    let ids = |of: &[Container]| -> Vec<(String, u32)> {
        of.iter().map(|one| (one.id.clone(), one.attempt)).collect()
    };
    let text = format!("{name} runs, attempt {}", one.attempt);
    if ids(&before) != ids(&now) {
        return (Outcome::Failed, format!("{text}, started a moment ago"));
    }
    (Outcome::Passed, text)
}

fn store(last: &Look) -> Held {
    let mut parts = Vec::new();
    match &last.observed.etcd {
        // A worker has none, and others run it elsewhere: the write stands for it.
        Err(Unseen::NotHere(why)) => parts.push((Outcome::Passed, format!("no etcd here: {why}"))),
        Err(unseen) => parts.push((Outcome::Unknown, format!("etcd: {}", unseen.why()))),
        Ok(etcd) => match &etcd.answer {
            EtcdAnswer::Refused => parts.push((
                Outcome::Failed,
                format!("{}: nobody listens", etcd.endpoint),
            )),
            EtcdAnswer::Failed(why) => {
                parts.push((Outcome::Failed, format!("{}: {why}", etcd.endpoint)));
            }
            EtcdAnswer::Odd(why) => {
                parts.push((Outcome::Unknown, format!("{}: {why}", etcd.endpoint)));
            }
            EtcdAnswer::Status(status) if !status.has_leader => {
                parts.push((Outcome::Failed, format!("{} has no leader", etcd.endpoint)));
            }
            EtcdAnswer::Status(status) => match &status.alarms {
                Err(unseen) => parts.push((Outcome::Unknown, unseen.why().to_owned())),
                Ok(alarms) if alarms.is_empty() => parts.push((
                    Outcome::Passed,
                    format!(
                        "etcd {} has a leader and no alarm; {} of file, {} in use",
                        status.version,
                        bytes(status.db_size),
                        bytes(status.db_size_in_use)
                    ),
                )),
                Ok(alarms) => parts.push((
                    Outcome::Failed,
                    format!("etcd has the alarm {}", alarms.join(", ")),
                )),
            },
        },
    }
    let write = last.api.as_ref().ok().and_then(|api| api.write.as_ref());
    parts.push(match write {
        Some(Ok(())) => (
            Outcome::Passed,
            "a Lease was written through the API server and taken back".to_owned(),
        ),
        Some(Err(why)) => (Outcome::Failed, why.clone()),
        None => (
            Outcome::Unknown,
            "no write was tried through the API server".to_owned(),
        ),
    });
    result(Rung::Store, parts)
}

// === impl Span ===

impl Span<'_> {
    /// It has held long enough.
    fn window(&self) -> (Outcome, String) {
        let held = Duration::from_secs(self.held.as_secs());
        let outcome = if self.held >= self.rules.window {
            Outcome::Passed
        } else {
            Outcome::Unknown
        };
        (
            outcome,
            format!("unchanged for {held:?} of {:?}", self.rules.window),
        )
    }
}

// === impl Rung ===

impl Rung {
    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Space => "space",
            Self::Units => "units",
            Self::Containers => "containers",
            Self::Store => "store",
            Self::Api => "api",
            Self::Nodes => "nodes",
            Self::Pressure => "pressure",
            Self::Growth => "growth",
        }
    }

    /// Without it a cluster is not up.
    const fn makes_up(self) -> bool {
        match self {
            Self::Store | Self::Api | Self::Nodes => true,
            Self::Space | Self::Units | Self::Containers | Self::Pressure | Self::Growth => false,
        }
    }

    /// It has to hold for a time.
    const fn has_window(self) -> bool {
        match self {
            Self::Units | Self::Containers => true,
            Self::Space | Self::Store | Self::Api | Self::Nodes | Self::Pressure | Self::Growth => {
                false
            }
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::UpNotStable => "up, not stable",
            Self::NotRecovered => "not recovered",
        }
    }
}

// === impl Ladder ===

impl Ladder {
    /// Why it is no better: the rungs that did not pass, of those that count.
    pub fn open(&self) -> impl Iterator<Item = &Held> {
        self.rungs
            .iter()
            .filter(|one| one.outcome != Outcome::Passed)
    }

    /// A rung.
    pub fn rung(&self, rung: Rung) -> Option<&Held> {
        self.rungs.iter().find(|one| one.rung == rung)
    }
}
