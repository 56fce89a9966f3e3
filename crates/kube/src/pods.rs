//! What a pod says: how far it has come, where it listens, how to tell that it serves, and why it does not.

use std::net::{IpAddr, SocketAddr};

use nagi_core::id::{Name, Namespace, ReplicaName, Resource, WorkloadId};
use nagi_core::wake::Stage;
use nagi_core::workload::{Pending, Readiness, Replica};

use crate::kind::resource_of;
use crate::names::{POD_TEMPLATE_HASH, PORT};
use crate::wire::{Container, ContainerStatus, Labels, Pod, PortRef, Probe};

/// Longest message of the engine that is kept, in characters: those of the scheduler list every node.
const MESSAGE_MAX: usize = 400;

/// Labels that nodes of every pool have.
const MACHINE_LABELS: [&str; 2] = ["kubernetes.io/os", "kubernetes.io/arch"];

/// One pod, as far as it matters to its workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodRow {
    pub(crate) version: u64,
    pub(crate) uid: Box<str>,
    pub(crate) node: Option<Box<str>>,
    pub(crate) replica: Replica,
    /// It ended for good, and counts as no replica.
    pub(crate) finished: bool,
    pub(crate) pending: Option<Pending>,
    /// No node was found for it.
    pub(crate) unschedulable: Option<Box<Unschedulable>>,
}

/// A pod that no node takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unschedulable {
    /// What the scheduler says.
    words: Box<str>,
    /// The nodes that it may be on.
    selector: Labels,
    /// When the pod was made.
    since: Box<str>,
    /// The device that it asks for, by the name of its resource, as `nvidia.com/gpu`.
    pub(crate) device: Option<Box<str>>,
}

/// What others than the scheduler say about a pod that no node takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Advice {
    /// How far it has come by that; none when nothing is under way.
    pub(crate) stage: Option<Stage>,
    /// A part of a sentence.
    pub(crate) words: Box<str>,
}

/// The workload that a pod belongs to. A pod of a Deployment names its `ReplicaSet`, whose name is that of the Deployment
/// and the hash that the pod carries as a label; looking the `ReplicaSet` up would cost a watch of all of them.
pub(crate) fn owner(pod: &Pod) -> Option<WorkloadId> {
    let owner = pod.metadata.controller()?;
    let namespace = Namespace::new(&*pod.metadata.namespace).ok()?;
    let id = |resource: &str, name: &str| {
        Some(WorkloadId {
            resource: Resource::new(resource).ok()?,
            namespace: namespace.clone(),
            name: Name::new(name).ok()?,
        })
    };
    let group = owner
        .api_version
        .split_once('/')
        .map_or("", |(group, _)| group);
    match (group, &*owner.kind) {
        ("apps", "ReplicaSet") => {
            let hash = pod.metadata.labels.get(POD_TEMPLATE_HASH);
            let deployment = hash
                .and_then(|hash| owner.name.strip_suffix(hash))
                .and_then(|name| name.strip_suffix('-'));
            match deployment {
                Some(name) => id("deployments", name),
                None => id("replicasets", &owner.name),
            }
        }
        ("apps", "StatefulSet") => id("statefulsets", &owner.name),
        ("", "ReplicationController") => id("replicationcontrollers", &owner.name),
        ("apps" | "batch" | "", _) => None,
        // A kind of its own.
        (group, kind) => id(resource_of(group, kind)?.as_str(), &owner.name),
    }
}

impl PodRow {
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let name = ReplicaName::new(&*pod.metadata.name).ok()?;
        let phase = pod.status.phase.as_deref().unwrap_or("Pending");
        let stopping = pod.metadata.deletion_timestamp;
        let ready = condition(pod, "Ready").is_some_and(|ready| &*ready.status == "True");
        let (stage, pending) = stage(pod, ready);
        let served = served(&pod.spec.containers);
        let ip: Option<IpAddr> = pod.status.pod_ip.as_deref().and_then(|ip| ip.parse().ok());
        let address = ip.zip(served.map(|(_, port)| port));
        let statuses = pod.status.container_statuses.iter();
        Some(Self {
            version: pod.metadata.version(),
            uid: pod.metadata.uid.clone(),
            node: pod.spec.node_name.clone(),
            replica: Replica {
                name,
                stage,
                address: address.map(|(ip, port)| SocketAddr::new(ip, port)),
                readiness: readiness(pod, served),
                ready,
                stopping,
                restarts: statuses
                    .map(|status| status.restart_count)
                    .max()
                    .unwrap_or(0),
            },
            finished: matches!(phase, "Succeeded" | "Failed"),
            unschedulable: unschedulable(pod, pending.as_ref()).map(Box::new),
            pending,
        })
    }
}

impl PodRow {
    /// What others said stays true while the scheduler says the same.
    pub(crate) fn keep_advice(&mut self, before: &Self) {
        if self.unschedulable.is_some() && self.unschedulable == before.unschedulable {
            self.replica.stage = before.replica.stage;
            self.pending.clone_from(&before.pending);
        }
    }

    /// Adds what others said about it.
    pub(crate) fn advise(&mut self, advice: &Advice) {
        let Some(unschedulable) = &self.unschedulable else {
            return;
        };
        if let Some(stage) = advice.stage {
            self.replica.stage = stage;
        }
        let words = format!("{}; {}", unschedulable.words, advice.words);
        self.pending = Some(Pending::Engine(words));
    }
}

impl Unschedulable {
    /// The labels of the nodes that it waits for. A selector that names no more than a kind of machine says nothing about
    /// them.
    pub(crate) fn telling_selector(&self) -> Option<&Labels> {
        let mut wanted = self.selector.iter();
        wanted
            .any(|(name, _)| !MACHINE_LABELS.contains(&name))
            .then_some(&self.selector)
    }

    /// Whether a node with these labels, made at this time, came for the pod, as far as its node selector says: one that was
    /// there before did not.
    pub(crate) fn brought(&self, labels: &Labels, made: &str) -> bool {
        let mut wanted = self.selector.iter();
        self.telling_selector().is_some()
            && !self.since.is_empty()
            && made >= &*self.since
            && wanted.all(|(name, value)| labels.get(name) == Some(value))
    }
}

fn unschedulable(pod: &Pod, pending: Option<&Pending>) -> Option<Unschedulable> {
    condition(pod, "PodScheduled").filter(|scheduled| &*scheduled.status == "False")?;
    let Some(Pending::Engine(words)) = pending else {
        return None;
    };
    let containers = pod.spec.containers.iter();
    let mut asked = containers.flat_map(|container| container.resources.limits.iter());
    // Names without a domain are kubelet's own: cpu, memory.
    let device = asked.find(|(name, _)| name.contains('/'));
    Some(Unschedulable {
        words: words.as_str().into(),
        selector: pod.spec.node_selector.clone(),
        since: pod.metadata.creation_timestamp.clone(),
        device: device.map(|(name, _)| name.into()),
    })
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a crate::wire::Condition> {
    pod.status
        .conditions
        .iter()
        .find(|condition| &*condition.kind == kind)
}

/// How far it has come, and what keeps it from going on.
fn stage(pod: &Pod, ready: bool) -> (Stage, Option<Pending>) {
    if ready {
        return (Stage::Ready, None);
    }
    if pod.spec.node_name.is_none() {
        let message = condition(pod, "PodScheduled")
            .filter(|scheduled| &*scheduled.status == "False")
            .and_then(|scheduled| scheduled.message.as_deref());
        let words = message.map_or_else(
            || "the scheduler has not placed it yet".to_owned(),
            |message| format!("no node takes it: {}", shortened(message)),
        );
        return (Stage::WaitingForNode, Some(Pending::Engine(words)));
    }
    let all = pod.status.init_container_statuses.iter();
    let all = all.chain(&pod.status.container_statuses);
    let mut main = pod.status.container_statuses.iter();
    // That an initial container ends well is how it goes on.
    let failed = |status: &&ContainerStatus| {
        let ended = status.state.terminated.as_ref();
        ended.is_some_and(|ended| ended.exit_code != 0)
    };
    let mut init = pod.status.init_container_statuses.iter().filter(failed);
    let crashed = || {
        init.find_map(ended)
            .or_else(|| main.clone().find_map(ended))
    };
    if let Some(pending) = all.clone().find_map(trouble).or_else(crashed) {
        let crashed = matches!(pending, Pending::CrashLoop { .. });
        let stage = if crashed {
            Stage::Starting
        } else {
            Stage::Pulling
        };
        return (stage, Some(pending));
    }
    if main.any(|status| status.state.running.is_some()) {
        return (
            Stage::Starting,
            Some(fell_silent(pod).unwrap_or(Pending::Starting)),
        );
    }
    (Stage::Pulling, Some(Pending::Pulling))
}

/// Whose containers are ready is not, and nobody but a gate or the control plane says so: it does when kubelet is silent.
fn fell_silent(pod: &Pod) -> Option<Pending> {
    let containers = condition(pod, "ContainersReady")?;
    let node = pod.spec.node_name.as_deref()?;
    let is_silent = &*containers.status == "True" && pod.spec.readiness_gates.is_empty();
    is_silent.then(|| Pending::Unready(format!("its node {node} does not answer")))
}

/// A container that ended by itself, in the time before kubelet starts it again: nearly all of it is told so, and only its last
/// moment as a back-off.
fn ended(status: &ContainerStatus) -> Option<Pending> {
    status.state.terminated.as_ref()?;
    Some(Pending::CrashLoop {
        restarts: status.restart_count,
        last_exit: last_exit(status),
    })
}

fn last_exit(status: &ContainerStatus) -> String {
    let now = status.state.terminated.as_ref();
    let Some(ended) = now.or(status.last_state.terminated.as_ref()) else {
        return "its last exit is not known".to_owned();
    };
    match (ended.signal.filter(|signal| *signal != 0), &ended.reason) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(reason)) if &**reason != "Error" => {
            format!("exit code {}, {reason}", ended.exit_code)
        }
        (None, _) => format!("exit code {}", ended.exit_code),
    }
}

/// What a container is stuck on, if it is.
fn trouble(status: &ContainerStatus) -> Option<Pending> {
    let waiting = status.state.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let message = waiting.message.as_deref().unwrap_or(reason);
    match reason {
        "CrashLoopBackOff" => Some(Pending::CrashLoop {
            restarts: status.restart_count,
            last_exit: last_exit(status),
        }),
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "RegistryUnavailable"
        | "ImageInspectError" => Some(Pending::Engine(format!(
            "the image {} cannot be pulled: {}",
            status.image,
            shortened(message)
        ))),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(Pending::Engine(format!(
                "the container {} cannot be started: {}",
                status.name,
                shortened(message)
            )))
        }
        _ => None,
    }
}

/// The container and the port that traffic goes to: the port named `http`, else the first.
fn served(containers: &[Container]) -> Option<(&Container, u16)> {
    let ports = || {
        containers
            .iter()
            .flat_map(|container| container.ports.iter().map(move |port| (container, port)))
            .filter(|(_, port)| {
                port.protocol
                    .as_deref()
                    .is_none_or(|protocol| protocol == "TCP")
            })
    };
    let named = ports().find(|(_, port)| port.name.as_deref() == Some(PORT));
    let (container, port) = named.or_else(|| ports().next())?;
    Some((container, port.number))
}

/// How to tell that it serves, from the probes of the served port: kubelet calls a pod ready when each container that has a
/// startup probe has passed it, and each that has a readiness probe passes that. What only kubelet can tell is left to it: a
/// command, a gRPC check, TLS, a probe on another port or with headers of its own, another container that is asked too.
fn readiness(pod: &Pod, served: Option<(&Container, u16)>) -> Readiness {
    let Some((container, port)) = served else {
        return Readiness::Engine;
    };
    let spec = &pod.spec;
    let is_asked =
        |other: &Container| other.readiness_probe.is_some() || other.startup_probe.is_some();
    let mut others = spec.containers.iter();
    let mut beside = spec.init_containers.iter();
    let goes_on = |init: &Container| init.restart_policy.as_deref() == Some("Always");
    if others.any(|other| other.name != container.name && is_asked(other))
        || beside.any(|init| goes_on(init) && is_asked(init))
        || !spec.readiness_gates.is_empty()
    {
        return Readiness::Engine;
    }
    match (&container.startup_probe, &container.readiness_probe) {
        (None, None) => Readiness::Tcp,
        (Some(probe), None) | (None, Some(probe)) => told_by(probe, container, port),
        (Some(startup), Some(readiness)) => {
            let told = told_by(readiness, container, port);
            if told_by(startup, container, port) == told {
                told
            } else {
                Readiness::Engine
            }
        }
    }
}

/// How to ask what kubelet asks by this probe.
fn told_by(probe: &Probe, container: &Container, port: u16) -> Readiness {
    let is_served = |asked: &PortRef| match asked {
        PortRef::Number(number) => *number == port,
        PortRef::Name(name) => container
            .ports
            .iter()
            .any(|known| known.number == port && known.name.as_deref() == Some(&**name)),
    };
    match probe {
        Probe {
            http_get: Some(get),
            ..
        } => {
            let plain = get.scheme.as_deref().is_none_or(|scheme| scheme == "HTTP")
                && get.host.is_none()
                && get.http_headers.is_empty();
            if plain && is_served(&get.port) {
                let path = get.path.as_deref().unwrap_or("/");
                let slash = if path.starts_with('/') { "" } else { "/" };
                Readiness::Http {
                    path: format!("{slash}{path}"),
                }
            } else {
                Readiness::Engine
            }
        }
        Probe {
            tcp_socket: Some(socket),
            ..
        } if socket.host.is_none() && is_served(&socket.port) => Readiness::Tcp,
        Probe { .. } => Readiness::Engine,
    }
}

pub(crate) fn shortened(message: &str) -> String {
    let message = message.trim();
    if message.chars().count() <= MESSAGE_MAX {
        return message.to_owned();
    }
    let head: String = message.chars().take(MESSAGE_MAX).collect();
    format!("{head}…")
}

/// Which reason says most about a workload of which several replicas do not serve: the one that waiting will not mend.
pub(crate) const fn urgency(pending: &Pending) -> (u8, u32) {
    match pending {
        Pending::DoesNotFit { .. } => (6, 0),
        Pending::PoolAtMaximum { .. } => (5, 0),
        Pending::CrashLoop { restarts, .. } => (4, *restarts),
        Pending::Engine(_) => (3, 0),
        Pending::NodeBooting { .. } => (2, 0),
        Pending::Unready(_) => (1, 1),
        Pending::Starting | Pending::Pulling => (1, 0),
        Pending::Stopping => (0, 0),
    }
}

#[cfg(test)]
mod tests;
