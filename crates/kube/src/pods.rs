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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Whether a node with these labels, made at this time, came for the pod, as far as its node selector says: one that was
    /// there before did not. A selector that names no more than a kind of machine says nothing about the node that it waits
    /// for.
    pub(crate) fn brought(&self, labels: &Labels, made: &str) -> bool {
        let mut wanted = self.selector.iter();
        let is_telling = self
            .selector
            .iter()
            .any(|(name, _)| !MACHINE_LABELS.contains(&name));
        is_telling
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
    let init = pod.status.init_container_statuses.iter();
    let all = init.chain(&pod.status.container_statuses);
    if let Some(pending) = all.clone().find_map(trouble) {
        let crashed = matches!(pending, Pending::CrashLoop { .. });
        let stage = if crashed {
            Stage::Starting
        } else {
            Stage::Pulling
        };
        return (stage, Some(pending));
    }
    let mut main = pod.status.container_statuses.iter();
    if main.any(|status| status.state.running.is_some() || status.state.terminated.is_some()) {
        return (Stage::Starting, Some(Pending::Starting));
    }
    (Stage::Pulling, Some(Pending::Starting))
}

/// What a container is stuck on, if it is.
fn trouble(status: &ContainerStatus) -> Option<Pending> {
    let last_exit = || {
        let ended = status
            .state
            .terminated
            .as_ref()
            .or(status.last_state.terminated.as_ref());
        ended.map_or_else(
            || "its last exit is not known".to_owned(),
            |ended| match (ended.signal.filter(|signal| *signal != 0), &ended.reason) {
                (Some(signal), _) => format!("signal {signal}"),
                (None, Some(reason)) if &**reason != "Error" => {
                    format!("exit code {}, {reason}", ended.exit_code)
                }
                (None, _) => format!("exit code {}", ended.exit_code),
            },
        )
    };
    let waiting = status.state.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let message = waiting.message.as_deref().unwrap_or(reason);
    match reason {
        "CrashLoopBackOff" => Some(Pending::CrashLoop {
            restarts: status.restart_count,
            last_exit: last_exit(),
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

/// How to tell that it serves, from the probe of the served port. What only kubelet can tell is left to it: a command, a
/// gRPC check, TLS, a probe on another port or with headers of its own, a second container that must be ready too.
fn readiness(pod: &Pod, served: Option<(&Container, u16)>) -> Readiness {
    let Some((container, port)) = served else {
        return Readiness::Engine;
    };
    let others = pod
        .spec
        .containers
        .iter()
        .filter(|other| other.name != container.name);
    let judged_elsewhere = others.clone().any(|other| other.readiness_probe.is_some());
    if judged_elsewhere || !pod.spec.readiness_gates.is_empty() {
        return Readiness::Engine;
    }
    let is_served = |asked: &PortRef| match asked {
        PortRef::Number(number) => *number == port,
        PortRef::Name(name) => container
            .ports
            .iter()
            .any(|known| known.number == port && known.name.as_deref() == Some(&**name)),
    };
    match &container.readiness_probe {
        None => Readiness::Tcp,
        Some(Probe {
            http_get: Some(get),
            ..
        }) => {
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
        Some(Probe {
            tcp_socket: Some(socket),
            ..
        }) if socket.host.is_none() && is_served(&socket.port) => Readiness::Tcp,
        Some(_) => Readiness::Engine,
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
        Pending::Starting => (1, 0),
        Pending::Stopping => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut object = json!({
            "metadata": {
                "name": "web-5d4f-x", "namespace": "project-a", "uid": "u", "resourceVersion": "7",
                "labels": { "pod-template-hash": "5d4f" },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "controller": true }],
            },
            "spec": { "nodeName": "n", "containers": [{
                "name": "c", "ports": [{ "name": "metrics", "containerPort": 9100 }, { "name": "http", "containerPort": 8080 }],
            }] },
            "status": { "phase": "Running", "podIP": "10.1.2.3", "containerStatuses": [{
                "name": "c", "image": "i", "restartCount": 2, "state": { "running": {} },
            }] },
        });
        change(&mut object);
        serde_json::from_value(object).unwrap()
    }

    fn row(change: impl FnOnce(&mut Value)) -> PodRow {
        PodRow::of(&pod(change)).unwrap()
    }

    #[test]
    fn a_pod_belongs_to_the_deployment_of_its_replica_set() {
        let id = |pod: &Pod| owner(pod).map(|id| format!("{} {id}", id.resource));
        assert_eq!(
            id(&pod(|_| {})).as_deref(),
            Some("deployments project-a/web")
        );
        let alone = pod(|p| p["metadata"]["labels"] = json!({}));
        assert_eq!(
            id(&alone).as_deref(),
            Some("replicasets project-a/web-5d4f")
        );
        let other = |api: &str, kind: &str| {
            pod(|p| {
                p["metadata"]["ownerReferences"][0]["apiVersion"] = json!(api);
                p["metadata"]["ownerReferences"][0]["kind"] = json!(kind);
            })
        };
        assert_eq!(
            id(&other("apps/v1", "StatefulSet")).as_deref(),
            Some("statefulsets project-a/web-5d4f")
        );
        assert_eq!(
            id(&other("v1", "ReplicationController")).as_deref(),
            Some("replicationcontrollers project-a/web-5d4f")
        );
        assert_eq!(
            id(&other("example.com/v1", "Runner")).as_deref(),
            Some("runners.example.com project-a/web-5d4f")
        );
        assert_eq!(id(&other("apps/v1", "DaemonSet")), None);
        assert_eq!(id(&other("batch/v1", "Job")), None);
        assert_eq!(
            id(&pod(|p| p["metadata"]["ownerReferences"] = json!([]))),
            None
        );
    }

    #[test]
    fn traffic_goes_to_the_port_named_http_else_to_the_first() {
        let address = |row: &PodRow| row.replica.address.map(|address| address.to_string());
        assert_eq!(address(&row(|_| {})).as_deref(), Some("10.1.2.3:8080"));
        let unnamed = row(|p| p["spec"]["containers"][0]["ports"][1]["name"] = json!("web"));
        assert_eq!(address(&unnamed).as_deref(), Some("10.1.2.3:9100"));
        assert_eq!(
            address(&row(|p| p["spec"]["containers"][0]["ports"] = json!([]))),
            None
        );
        assert_eq!(address(&row(|p| p["status"]["podIP"] = json!(null))), None);
    }

    #[test]
    fn readiness_follows_the_probe_of_the_served_port() {
        let with = |probe: Value| {
            row(|p| p["spec"]["containers"][0]["readinessProbe"] = probe)
                .replica
                .readiness
        };
        let http = |path: &str| Readiness::Http { path: path.into() };
        assert_eq!(row(|_| {}).replica.readiness, Readiness::Tcp);
        assert_eq!(
            with(json!({ "httpGet": { "path": "/r", "port": "http" } })),
            http("/r")
        );
        assert_eq!(
            with(json!({ "httpGet": { "path": "r", "port": 8080 } })),
            http("/r")
        );
        assert_eq!(
            with(json!({ "tcpSocket": { "port": 8080 } })),
            Readiness::Tcp
        );
        for left_to_kubelet in [
            json!({ "httpGet": { "path": "/r", "port": "metrics" } }),
            json!({ "httpGet": { "path": "/r", "port": "http", "scheme": "HTTPS" } }),
            json!({ "httpGet": { "path": "/r", "port": "http", "httpHeaders": [{ "name": "Host", "value": "x" }] } }),
            json!({ "tcpSocket": { "port": 9100 } }),
            json!({ "exec": { "command": ["true"] } }),
            json!({ "grpc": { "port": 8080 } }),
        ] {
            assert_eq!(with(left_to_kubelet), Readiness::Engine);
        }
        let gated = row(|p| p["spec"]["readinessGates"] = json!([{ "conditionType": "x" }]));
        assert_eq!(gated.replica.readiness, Readiness::Engine);
    }

    // F24: what is told of a node must not be a guess
    #[test]
    fn a_node_came_for_a_pod_that_is_older_and_asks_for_its_pool() {
        let waiting = |selector: Value| {
            let row = row(|p| {
                p["metadata"]["creationTimestamp"] = json!("2030-01-01T00:00:05Z");
                p["spec"]["nodeName"] = json!(null);
                p["spec"]["nodeSelector"] = selector;
                p["status"] = json!({ "conditions": [{
                    "type": "PodScheduled", "status": "False", "message": "0/1 nodes are available",
                }] });
            });
            row.unschedulable.unwrap()
        };
        let labels = json!({ "project": "b", "kubernetes.io/os": "linux" });
        let labels: Labels = serde_json::from_value(labels).unwrap();
        let brought = |selector, made| waiting(selector).brought(&labels, made);
        let pool = || json!({ "project": "b", "kubernetes.io/os": "linux" });
        assert!(brought(pool(), "2030-01-01T00:00:05Z"));
        assert!(!brought(pool(), "2030-01-01T00:00:04Z"));
        assert!(!brought(pool(), ""));
        let later = "2030-01-01T00:01:00Z";
        assert!(!brought(json!({ "project": "a" }), later));
        assert!(!brought(json!({ "kubernetes.io/os": "linux" }), later));
        assert!(!brought(json!({}), later));
    }

    // Issue 4 item 7: a request goes over TCP.
    #[test]
    fn the_first_port_is_the_first_of_tcp() {
        let ports = json!([
            { "name": "dns", "containerPort": 53, "protocol": "UDP" },
            { "name": "web", "containerPort": 8080, "protocol": "TCP" },
        ]);
        let pod = pod(|p| p["spec"]["containers"][0]["ports"] = ports);
        let (_, port) = served(&pod.spec.containers).unwrap();
        assert_eq!(port, 8080);
    }

    // A-025, F24
    #[test]
    fn stages_and_reasons_come_from_what_the_engine_says() {
        let waiting = row(|p| {
            p["spec"]["nodeName"] = json!(null);
            p["status"] = json!({ "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
            }] });
        });
        assert_eq!(waiting.replica.stage, Stage::WaitingForNode);
        assert!(waiting.unschedulable.is_some());
        let words = waiting.pending.unwrap().to_string();
        assert!(words.contains("3 Insufficient nvidia.com/gpu"), "{words}");
        let stuck = |reason: &str| {
            row(|p| {
                p["status"]["containerStatuses"][0]["state"] =
                    json!({ "waiting": { "reason": reason, "message": "because" } });
                p["status"]["containerStatuses"][0]["lastState"] =
                    json!({ "terminated": { "exitCode": 3, "reason": "Error" } });
            })
        };
        let pulling = stuck("ImagePullBackOff");
        assert_eq!(pulling.replica.stage, Stage::Pulling);
        assert_eq!(
            pulling.pending,
            Some(Pending::Engine(
                "the image i cannot be pulled: because".into()
            ))
        );
        assert_eq!(
            stuck("CrashLoopBackOff").pending,
            Some(Pending::CrashLoop {
                restarts: 2,
                last_exit: "exit code 3".into()
            })
        );
        assert_eq!(stuck("ContainerCreating").replica.stage, Stage::Pulling);
        assert_eq!(row(|_| {}).replica.stage, Stage::Starting);
        let ready =
            row(|p| p["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]));
        assert_eq!(
            (ready.replica.stage, ready.replica.ready, ready.pending),
            (Stage::Ready, true, None)
        );
        assert!(row(|p| p["status"]["phase"] = json!("Failed")).finished);
    }
}
