//! What is to be done, as a value: which steps, and what forbids the others.
//!
//! A plan holds a set of steps and no order: the order is that of [`Step`], for every plan. Space comes first and the restart
//! last, because a kubelet that starts while its disk is full can reject and delete the pods that run (kubernetes#94305).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::freeing::{FreeDisk, Freeing, instead};
use super::remedy::{Remedy, remedy, remedy_here};
use crate::cause::Cause;
use crate::decide::{Diagnosis, Finding, Floor, about, bytes, defrag_by_version, floors};
use crate::observed::{EtcdAnswer, EtcdStatus, Looked, Observed, RuntimeAnswer, Unit, Unseen};
use crate::policy::Policy;

/// A step of a recovery. The order of declaration is the order in which they are done, whatever was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Files go that may go.
    Free,
    /// The store is copied to where there is room.
    Snapshot,
    /// The store forgets what was written over.
    Compact,
    /// The store gives back what it forgot.
    Defrag,
    /// The store takes writes again.
    Disarm,
    /// The container runtime is started, which is down.
    StartRuntime,
    /// kubelet is started again, and brings its static pods back.
    RestartKubelet,
}

/// What a refusal forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blocks {
    /// Nothing may be done.
    Everything,
    /// Space may be given back, and no more.
    StoreAndRestart,
    /// The store stays as it is.
    Store,
    /// Nothing is started.
    Restart,
}

/// Why steps are not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The cause in a person's hands, where it is one of a diagnosis.
    pub cause: Option<Cause>,
    /// What it forbids.
    pub blocks: Blocks,
    /// Why, with what shows it.
    pub why: Vec<String>,
    /// The next command.
    pub next: String,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    steps: BTreeMap<Step, String>,
    /// What is not done, and why.
    pub refusals: Vec<Refusal>,
    /// The filesystems that the node lives from, and whether a restart is safe on them as they are.
    pub floors: Looked<Vec<Floor>>,
}

/// Plans. The diagnosis is that of the same facts; a run that goes on where one was killed frees to the end.
pub fn plan(
    policy: &Policy,
    observed: &Observed,
    diagnosis: &Diagnosis,
    freeing: &Looked<Freeing>,
    is_resumed: bool,
) -> Plan {
    let floors = floors(policy, observed);
    let mut steps = BTreeMap::new();
    let mut refusals = persons(diagnosis);
    let has = |wanted: Remedy| {
        let causes = diagnosis.findings.iter().map(|finding| finding.cause);
        causes
            .map(|cause| remedy_here(cause, observed))
            .any(|one| one == wanted)
    };
    // A node that is well is not cleaned, however full it is.
    let has_reason = is_resumed || has(Remedy::Store) || has(Remedy::Restart);
    if has(Remedy::Free) || (has_reason && gives(freeing, &floors)) {
        let root = &observed.root;
        free(
            (diagnosis, root),
            freeing,
            &floors,
            &mut steps,
            &mut refusals,
        );
    }
    if has(Remedy::Store) {
        store(observed, &mut steps, &mut refusals);
    }
    if has(Remedy::Restart) {
        restart(observed, &mut steps, &mut refusals);
        evicted(observed, freeing, &mut refusals);
    }
    // A wrong name in a kubeconfig, a tunnel, a proxy: nothing on this node mends it.
    if let Some(cause) = diagnosis.cause()
        && remedy_here(cause.cause, observed) == Remedy::Elsewhere
        && steps.keys().all(|step| *step == Step::Free)
        && refusals.is_empty()
    {
        refusals.push(refusal(cause, Blocks::StoreAndRestart));
    }
    // kubelet kills pods for space, and there is none to give back.
    if let Some(cause) = diagnosis.cause()
        && remedy(cause.cause) == Remedy::Free
        && steps.is_empty()
        && refusals.is_empty()
    {
        let mut refusal = refusal(cause, Blocks::StoreAndRestart);
        let point = Path::new(&cause.subject);
        refusal.why.extend(instead(freeing, point));
        refusals.push(refusal);
    }
    for refusal in &refusals {
        steps.retain(|step, _| !refusal.blocks.forbids(*step));
    }
    Plan {
        steps,
        refusals,
        floors,
    }
}

/// A disk that the node lives from is above its target, and something may go: what a killed run had begun to free is freed to
/// the end.
fn gives(freeing: &Looked<Freeing>, floors: &Looked<Vec<Floor>>) -> bool {
    let (Ok(freeing), Ok(floors)) = (freeing, floors) else {
        return false;
    };
    let is_lived_from = |disk: &FreeDisk| floors.iter().any(|floor| floor.point == disk.point);
    freeing
        .disks
        .iter()
        .any(|disk| disk.expected > 0 && is_lived_from(disk))
}

/// A kubelet that starts below its own thresholds kills pods at once. What may still go is freed first.
fn evicted(observed: &Observed, freeing: &Looked<Freeing>, refusals: &mut Vec<Refusal>) {
    for (point, why) in evicted_by_a_start(observed) {
        let disks = freeing.iter().flat_map(|freeing| &freeing.disks);
        let gives = { disks }
            .any(|disk| disk.point == point && (disk.expected > 0 || disk.expected_inodes > 0));
        if gives {
            continue;
        }
        let mut why = vec![why];
        why.extend(instead(freeing, &point));
        refusals.push(Refusal {
            cause: Some(Cause::DiskPressure),
            blocks: Blocks::Restart,
            why,
            next: about(&observed.root, SURVEY),
        });
    }
}

/// The filesystems on which a kubelet that does not run would kill pods as soon as it did, each with what is missing.
pub(super) fn evicted_by_a_start(observed: &Observed) -> Vec<(PathBuf, String)> {
    let units = observed.units.as_deref().unwrap_or_default();
    let runs = |unit: &Unit| unit.name == KUBELET && unit.state == "active";
    if units.iter().any(runs) {
        return Vec::new();
    }
    let filesystems = observed.filesystems.as_deref().unwrap_or_default();
    filesystems
        .iter()
        .flat_map(|one| one.evicting.iter().map(|line| (one.point.clone(), line)))
        .map(|(point, line)| (point, format!("it would begin with this: {line}")))
        .collect()
}

/// Causes that a person has to see to.
fn persons(diagnosis: &Diagnosis) -> Vec<Refusal> {
    let of = |finding: &Finding| match remedy(finding.cause) {
        Remedy::Person(blocks) => Some(refusal(finding, blocks)),
        Remedy::Free | Remedy::Store | Remedy::Restart | Remedy::Wait | Remedy::Elsewhere => None,
    };
    diagnosis.findings.iter().filter_map(of).collect()
}

fn refusal(finding: &Finding, blocks: Blocks) -> Refusal {
    let mut why = vec![format!("{} at {}", finding.cause.id(), finding.subject)];
    why.extend(finding.evidence.iter().cloned());
    Refusal {
        cause: Some(finding.cause),
        blocks,
        why,
        next: finding.next.clone(),
    }
}

/// Shows what fills the disks of the node.
pub(super) const SURVEY: &str = "nagi disk {at_root}";

fn free(
    (diagnosis, root): (&Diagnosis, &Path),
    freeing: &Looked<Freeing>,
    floors: &Looked<Vec<Floor>>,
    steps: &mut BTreeMap<Step, String>,
    refusals: &mut Vec<Refusal>,
) {
    let next = diagnosis
        .findings
        .iter()
        .find(|finding| remedy(finding.cause) == Remedy::Free)
        .map_or_else(String::new, |finding| finding.next.clone());
    let planned = freeing;
    let freeing = match freeing {
        Ok(freeing) => freeing,
        Err(unseen) => {
            refusals.push(Refusal {
                cause: None,
                blocks: Blocks::StoreAndRestart,
                why: vec![format!("what may go is not known: {}", unseen.why())],
                next,
            });
            return;
        }
    };
    let expected: u64 = freeing.disks.iter().map(|disk| disk.expected).sum();
    let inodes: u64 = freeing.disks.iter().map(|disk| disk.expected_inodes).sum();
    if expected > 0 || inodes > 0 {
        let what = format!("{} in {inodes} files, {expected} bytes", bytes(expected));
        steps.insert(Step::Free, what);
    }
    for floor in floors.as_deref().unwrap_or_default() {
        let gives = freeing.disks.iter().find(|disk| disk.point == floor.point);
        let gives = gives.is_some_and(|disk| disk.expected > 0 || disk.expected_inodes > 0);
        if floor.is_met || gives {
            continue;
        }
        let mut why = vec![
            floor.evidence.clone(),
            format!("nothing on {} may go", floor.point.display()),
        ];
        why.extend(instead(planned, &floor.point));
        refusals.push(Refusal {
            cause: None,
            blocks: Blocks::StoreAndRestart,
            why,
            next: about(root, SURVEY),
        });
    }
}

fn store(observed: &Observed, steps: &mut BTreeMap<Step, String>, refusals: &mut Vec<Refusal>) {
    let Ok(etcd) = &observed.etcd else {
        return;
    };
    // One that says so in its logs and does not answer is started first.
    let EtcdAnswer::Status(status) = &etcd.answer else {
        return;
    };
    if let Err((why, next)) = is_ours(observed, status) {
        refusals.push(Refusal {
            cause: Some(Cause::EtcdQuota),
            blocks: Blocks::Store,
            why: vec![why],
            next,
        });
        return;
    }
    if let Err(why) = defrag_by_version(status) {
        refusals.push(Refusal {
            cause: Some(Cause::EtcdQuota),
            blocks: Blocks::Store,
            why: vec![
                format!("a defrag is not safe: {why}"),
                "without one the alarm comes back with the next write, so nothing is done to the store".to_owned(),
            ],
            next: format!(
                "etcdctl --endpoints={} snapshot save ELSEWHERE/etcd-snapshot.db",
                etcd.endpoint
            ),
        });
        return;
    }
    let at = &etcd.endpoint;
    let size = bytes(status.db_size);
    let used = bytes(status.db_size_in_use);
    steps.insert(Step::Snapshot, format!("of etcd at {at}, {size}"));
    steps.insert(
        Step::Compact,
        "to its revision: what was written over goes, nothing that is".to_owned(),
    );
    steps.insert(
        Step::Defrag,
        format!("{size} of file, {used} in use; this member only"),
    );
    steps.insert(Step::Disarm, "its alarm NOSPACE".to_owned());
}

/// It is the member of this node that is above its quota.
///
/// # Errors
/// It is not, or nobody knows; why, and the next command.
fn is_ours(observed: &Observed, status: &EtcdStatus) -> Result<(), (String, String)> {
    if let Err(unseen) = &observed.listeners {
        let why = format!(
            "whose etcd answers is not known: ports are those of this machine, and this root says nothing of them: {}",
            unseen.why()
        );
        return Err((why, "nagi recover run, on the node itself".to_owned()));
    }
    if status.is_alarm_own {
        return Ok(());
    }
    let why = "the alarm NOSPACE is that of another member".to_owned();
    Err((
        why,
        "nagi recover run, on the node of that member".to_owned(),
    ))
}

fn restart(observed: &Observed, steps: &mut BTreeMap<Step, String>, refusals: &mut Vec<Refusal>) {
    let refused = |why: String, next: &str| Refusal {
        cause: None,
        blocks: Blocks::Restart,
        why: vec![why],
        next: next.to_owned(),
    };
    let units = match &observed.units {
        Ok(units) => units,
        Err(unseen) => {
            let (Unseen::NotHere(why) | Unseen::Failed(why)) = unseen;
            refusals.push(refused(
                format!("kubelet cannot be started here: {why}"),
                "nagi recover run, on the node itself",
            ));
            return;
        }
    };
    let known = |name: &str| -> Option<&Unit> {
        units.iter().find(|unit| unit.name == name && unit.is_known)
    };
    if known(KUBELET).is_none() {
        refusals.push(refused(
            "systemd knows no kubelet on this machine".to_owned(),
            "nagi recover run, on a node of the control plane",
        ));
        return;
    }
    if let Ok(runtime) = &observed.containers
        && let RuntimeAnswer::Down(why) = &runtime.answer
    {
        let unit = unit_of(&runtime.socket).filter(|unit| known(unit).is_some());
        let Some(unit) = unit else {
            refusals.push(refused(
                format!(
                    "{}: {why}, and systemd knows no unit that is known to serve it",
                    runtime.socket.display()
                ),
                "systemctl list-units --type=service",
            ));
            return;
        };
        steps.insert(Step::StartRuntime, format!("{unit}: {why}"));
    }
    steps.insert(
        Step::RestartKubelet,
        format!("{KUBELET}, and wait for its API server"),
    );
}

/// The unit of kubelet.
pub(super) const KUBELET: &str = "kubelet.service";

/// The unit of the container runtime that serves this socket.
pub(super) fn unit_of(socket: &Path) -> Option<&'static str> {
    match socket.to_str()? {
        "/run/containerd/containerd.sock" | "/var/run/containerd/containerd.sock" => {
            Some("containerd.service")
        }
        "/run/crio/crio.sock" | "/var/run/crio/crio.sock" => Some("crio.service"),
        _ => None,
    }
}

// === impl Step ===

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 7] = [
        Self::Free,
        Self::Snapshot,
        Self::Compact,
        Self::Defrag,
        Self::Disarm,
        Self::StartRuntime,
        Self::RestartKubelet,
    ];

    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Snapshot => "snapshot",
            Self::Compact => "compact",
            Self::Defrag => "defrag",
            Self::Disarm => "disarm",
            Self::StartRuntime => "start-runtime",
            Self::RestartKubelet => "restart-kubelet",
        }
    }

    /// The step of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }

    /// When it is in a plan, for the page.
    pub const fn when(self) -> &'static str {
        match self {
            Self::Free => {
                "`disk-full`, `inodes-exhausted` or `disk-pressure`, or a disk above its target while etcd or kubelet is mended too; and files may go"
            }
            Self::Snapshot => {
                "`etcd-quota` of this member, and etcd answers and cannot crash by a defrag"
            }
            Self::Compact | Self::Defrag | Self::Disarm => "as `snapshot`",
            Self::StartRuntime => {
                "as `restart-kubelet`, and nobody listens on the socket of the runtime"
            }
            Self::RestartKubelet => {
                "`runtime-down`, `kubelet-down` or `static-pod-down`; `etcd-down` or `refused`, and nobody listens on the port on this node"
            }
        }
    }

    /// What has to hold at the moment at which it begins, for the page.
    pub const fn gate(self) -> &'static str {
        match self {
            Self::Free => "the filesystem can be written to, and the clock is right",
            Self::Snapshot => {
                "all members answer with one leader, which is not this one of several, and the place has 1.2 times of its file"
            }
            Self::Compact => "the snapshot is written, and its checksum is right",
            Self::Defrag => "the same, and beside the data is room for 1.2 times of what is in use",
            Self::Disarm => {
                "the defrag is done, and the file is at 90 % of a quota that is known, or below"
            }
            Self::StartRuntime | Self::RestartKubelet => {
                "every filesystem that the node lives from has free bytes and inodes, and a kubelet that does not run would kill no pods for space"
            }
        }
    }

    pub(super) const fn is_of_store(self) -> bool {
        match self {
            Self::Snapshot | Self::Compact | Self::Defrag | Self::Disarm => true,
            Self::Free | Self::StartRuntime | Self::RestartKubelet => false,
        }
    }

    /// It starts what comes back only after a while.
    pub const fn starts_something(self) -> bool {
        match self {
            Self::StartRuntime | Self::RestartKubelet => true,
            Self::Free | Self::Snapshot | Self::Compact | Self::Defrag | Self::Disarm => false,
        }
    }
}

// === impl Blocks ===

impl Blocks {
    /// Whether a step is forbidden.
    pub const fn forbids(self, step: Step) -> bool {
        match self {
            Self::Everything => true,
            Self::StoreAndRestart => step.is_of_store() || step.starts_something(),
            Self::Store => step.is_of_store(),
            Self::Restart => step.starts_something(),
        }
    }

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Everything => "nothing is done",
            Self::StoreAndRestart => "neither the store is touched nor kubelet restarted",
            Self::Store => "the store is not touched",
            Self::Restart => "kubelet is not restarted",
        }
    }
}

// === impl Plan ===

impl Plan {
    /// One without a step.
    pub const fn refused(refusals: Vec<Refusal>) -> Self {
        Self {
            steps: BTreeMap::new(),
            refusals,
            floors: Ok(Vec::new()),
        }
    }

    /// The steps in order, each with what it is about.
    pub fn steps(&self) -> impl Iterator<Item = (Step, &str)> {
        self.steps.iter().map(|(step, what)| (*step, what.as_str()))
    }

    /// It holds this step.
    pub fn has(&self, step: Step) -> bool {
        self.steps.contains_key(&step)
    }

    /// The first step behind another, of those that may be done; the first of all behind none.
    pub fn next_after(
        &self,
        last: Option<Step>,
        may: impl Fn(Step) -> bool,
    ) -> Option<(Step, &str)> {
        self.steps()
            .find(|(step, _)| Some(*step) > last && may(*step))
    }

    /// Nothing is to be done, and nothing is refused.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.refusals.is_empty()
    }
}
