//! kubelet, the container runtime, and the static pods: their manifests, their containers, their port.

use std::path::Path;
use std::time::Duration;

use super::disks::shown;
use super::{Facts, Found};
use crate::cause::Cause;
use crate::observed::{
    Container, ContainerState, LineClass, Manifest, Runtime, RuntimeAnswer, StaticPod, Unit,
};

const API_SERVER: &str = "kube-apiserver";
/// Without these two there is no control plane; the others are missed by nobody who only asks.
const NEEDED: [&str; 2] = [API_SERVER, "etcd"];
/// Static pods that make a node one of a control plane; a worker has others, as kube-proxy or a virtual address.
const CONTROL_PLANE: [&str; 4] = [
    API_SERVER,
    "kube-controller-manager",
    "kube-scheduler",
    "etcd",
];
/// A unit that systemd has started again so often does not stay up; a person restarts a unit twice, not five times.
const RESTARTS_MANY: u64 = 5;
/// One that was started again so often and has run for this time stays up: what ends kubelet ends it within seconds.
const STAYS_UP: Duration = Duration::from_mins(1);
/// Where the API server listens unless its flags say otherwise.
const PORT: u16 = 6443;

pub(super) fn judge(facts: Facts<'_>, found: &mut Found) {
    units(facts, found);
    manifests(facts, found);
    runtime(facts, found);
    port(facts, found);
}

fn units(facts: Facts<'_>, found: &mut Found) {
    let Ok(units) = &facts.observed.units else {
        return;
    };
    for unit in units {
        match unit.name.as_str() {
            "kubelet.service" => kubelet(unit, facts, found),
            // B-005, K-39
            "kube-apiserver.service" if !unit.is_known => found
                .note("kube-apiserver is no unit of systemd: as it should be, it is a static pod"),
            _ => {}
        }
    }
}

fn kubelet(unit: &Unit, facts: Facts<'_>, found: &mut Found) {
    if !unit.is_known {
        return;
    }
    let is_running = unit.state == "active" && unit.substate == "running";
    // Between two ends it runs for some seconds.
    let is_young = unit.active_for.is_some_and(|age| age < STAYS_UP);
    let is_looping = unit.restarts >= RESTARTS_MANY && is_young;
    if is_running && !is_looping {
        return;
    }
    let mut evidence = vec![format!(
        "{} is {} ({}), last result {}, started again {} times",
        unit.name, unit.state, unit.substate, unit.result, unit.restarts
    )];
    if let Some(line) = facts.last_line(|class| *class == LineClass::Swap) {
        evidence.insert(0, line);
        found.add(Cause::KubeletSwap, &unit.name, evidence, &[]);
        return;
    }
    found.add(Cause::KubeletDown, &unit.name, evidence, &[]);
}

fn manifests(facts: Facts<'_>, found: &mut Found) {
    let Ok(manifests) = &facts.observed.manifests else {
        return;
    };
    for manifest in manifests {
        of_manifest(manifest, facts, found);
    }
    let pods: Vec<&StaticPod> = pods(manifests).collect();
    let is_control_plane = pods
        .iter()
        .any(|pod| CONTROL_PLANE.contains(&pod.name.as_str()));
    let Some(directory) = manifests.first().and_then(|one| one.path.parent()) else {
        return;
    };
    let is_unread = |name: &str| {
        manifests
            .iter()
            .any(|one| one.pod.is_err() && one.path.file_stem().is_some_and(|stem| stem == name))
    };
    let has = |name: &str| pods.iter().any(|pod| pod.name == name) || is_unread(name);
    let outside = facts.outside(directory);
    let directory = shown(directory);
    for name in NEEDED {
        // An etcd that others run is named in the flags of the API server.
        let is_elsewhere = name == "etcd" && has_foreign_store(&pods);
        if is_control_plane && !has(name) && !is_elsewhere {
            let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
            let evidence = vec![format!(
                "{directory} has {} and no {name}",
                names.join(", ")
            )];
            found.add(
                Cause::ManifestMissing,
                name,
                evidence,
                &[("directory", &[&outside])],
            );
        }
    }
}

fn has_foreign_store(pods: &[&StaticPod]) -> bool {
    let api_server = pods.iter().find(|pod| pod.name == API_SERVER);
    let Some(servers) = api_server.and_then(|pod| pod.flag("etcd-servers")) else {
        // Without an API server nobody can tell; its own absence is said.
        return true;
    };
    let is_own = |server: &str| server.contains("//127.0.0.1:") || server.contains("//localhost:");
    !servers.split(',').any(is_own)
}

fn of_manifest(manifest: &Manifest, facts: Facts<'_>, found: &mut Found) {
    let file = shown(&manifest.path);
    match &manifest.pod {
        Err(why) => {
            let evidence = vec![format!("{file}: {why}")];
            found.add(
                Cause::ManifestUnreadable,
                &file,
                evidence,
                &[("file", &[&facts.outside(&manifest.path)])],
            );
        }
        Ok(pod) => {
            let Some(first) = pod.missing.first() else {
                return;
            };
            let missing: Vec<String> = pod.missing.iter().map(|one| shown(one)).collect();
            let evidence = vec![format!("{} needs {}", pod.name, missing.join(", "))];
            found.add(
                Cause::ManifestFileMissing,
                shown(first),
                evidence,
                &[("file", &[&facts.outside(first)])],
            );
        }
    }
}

fn pods(manifests: &[Manifest]) -> impl Iterator<Item = &StaticPod> {
    manifests.iter().filter_map(|one| one.pod.as_ref().ok())
}

fn runtime(facts: Facts<'_>, found: &mut Found) {
    let Ok(Runtime { socket, answer }) = &facts.observed.containers else {
        return;
    };
    let socket = shown(socket);
    match answer {
        RuntimeAnswer::Down(why) => {
            found.add(
                Cause::RuntimeDown,
                &socket,
                vec![format!("{socket}: {why}")],
                &[],
            );
        }
        RuntimeAnswer::Silent(within) => {
            let evidence = vec![format!(
                "{socket}: no answer within {} ms",
                within.as_millis()
            )];
            found.add(Cause::RuntimeSilent, &socket, evidence, &[]);
        }
        RuntimeAnswer::Failed(why) => {
            let evidence = vec![format!("{socket} answers with a failure: {why}")];
            found.add(Cause::RuntimeSilent, &socket, evidence, &[]);
        }
        RuntimeAnswer::Containers(containers) => {
            let manifests = facts.observed.manifests.as_deref().unwrap_or_default();
            for pod in pods(manifests) {
                of_pod(pod, containers, found);
            }
        }
    }
}

fn of_pod(pod: &StaticPod, containers: &[Container], found: &mut Found) {
    let own: Vec<&Container> = containers
        .iter()
        .filter(|container| pod.has(container))
        .collect();
    if own.iter().any(|one| one.state == ContainerState::Running) {
        return;
    }
    let evidence = match own.iter().max_by_key(|one| one.attempt) {
        None => format!("{} has a manifest and no container", pod.name),
        Some(last) => format!(
            "container {} of {} does not run: {}, attempt {}",
            last.id.chars().take(13).collect::<String>(),
            pod.name,
            last.state.word(),
            last.attempt
        ),
    };
    found.add(
        Cause::StaticPodDown,
        &pod.name,
        vec![evidence],
        &[("name", &[&pod.name])],
    );
}

/// B-004, B-017: who has the port of the API server.
fn port(facts: Facts<'_>, found: &mut Found) {
    let manifests = facts.observed.manifests.as_deref().unwrap_or_default();
    let Some(pod) = pods(manifests).find(|pod| pod.name == API_SERVER) else {
        return;
    };
    let port = pod.flag("secure-port").and_then(|port| port.parse().ok());
    let port = port.unwrap_or(PORT);
    let taken = facts.last_line(|class| *class == LineClass::PortTaken);
    let Ok(listeners) = &facts.observed.listeners else {
        return;
    };
    let listener = listeners.iter().find(|one| one.port == port);
    match listener.map(|one| one.process.as_ref()) {
        None => found.note(format!("nothing listens on port {port}, the API server's")),
        Some(Some((pid, name))) if !is_api_server(name) => {
            let mut evidence = vec![format!("port {port} belongs to {name}, process {pid}")];
            evidence.extend(taken);
            found.add(Cause::PortTaken, format!("port {port}"), evidence, &[]);
        }
        Some(Some(_) | None) => {}
    }
}

/// The kernel cuts names of processes after 15 bytes; a distribution has it inside its own program.
fn is_api_server(process: &str) -> bool {
    const NAMES: [&str; 6] = [
        "kube-apiserver",
        "k3s",
        "rke2",
        "k0s",
        "microk8s",
        "hyperkube",
    ];
    let name = Path::new(process).file_name().unwrap_or_default();
    NAMES
        .iter()
        .any(|known| name.to_string_lossy().starts_with(known))
}

// === impl ContainerState ===

impl ContainerState {
    /// Its word in answers.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Unknown => "unknown",
        }
    }
}
