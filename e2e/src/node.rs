//! A real node: a network namespace, a mount namespace, and in them containerd, kubelet and kube-proxy.
//!
//! In its mount namespace `/run`, `/var/lib` and `/var/log` are directories of the node. So every program has its usual paths,
//! among them those that nobody can choose (the kubelet's device plugins, the sockets of containerd's shims), several nodes
//! do not meet, and every mount that a kubelet or containerd makes is gone when the last process of the node is. The kernel
//! settings that a kubelet insists on are files of the node too: a test must not change how the machine behaves.

mod configuration;
pub(crate) mod settings;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::call::{Ended, on_path};
use crate::certificates::{Authority, Use};
use crate::cgroup::{self, Groups};
use crate::control_plane::{FIRST_NODE, certificates, write_component_kubeconfig};
use crate::files;
use crate::image;
use crate::network::Network;
use crate::process::{self, Component, Place, Recorded, Started};
use crate::remove::remove_directory;
use crate::tools::Built;
use crate::wait::{Look, Unstoppable};
use configuration::Configuration;
use settings::NETWORK_PLUGINS;
pub(crate) use settings::{DNS_SERVICE, DOMAIN};

/// On two busy cores containerd has been seen to take 10 s.
const UP_LIMIT: Duration = Duration::from_mins(2);

/// What a node is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeKind {
    /// Its name.
    pub name: String,
    /// Its number in the cluster, from 1; it chooses the addresses.
    pub number: u8,
    /// Labels, as in `project=a`.
    pub labels: Vec<(String, String)>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Devices that it says it has: a resource and how many.
    pub devices: Option<(String, u32)>,
}

/// What keeps pods away that do not tolerate it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Taint {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// `NoSchedule` or `NoExecute`.
    pub effect: String,
}

/// What every node of a cluster needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// The directory of the cluster.
    pub(crate) cluster: PathBuf,
    pub(crate) network: Network,
    pub(crate) server: String,
    pub(crate) kubernetes: Built,
    pub(crate) stand_ins: Built,
}

/// What is recorded of a node, in `node.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    pub(crate) kind: NodeKind,
    pub(crate) components: Vec<Recorded>,
}

/// A running node. It is ended with its cluster, or by [`Surroundings::remove_node`].
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) record: NodeRecord,
    started: Vec<Started>,
}

// === impl NodeKind ===

impl NodeKind {
    /// The nodes that every cluster has, as the founding documents name them.
    pub fn standard() -> Vec<Self> {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let (system, first) = FIRST_NODE;
        vec![
            Self {
                name: system.to_owned(),
                number: first,
                labels: vec![label("agentpool", "system")],
                taints: Vec::new(),
                devices: None,
            },
            Self {
                name: "projecta".to_owned(),
                number: 2,
                labels: vec![label("agentpool", "projecta"), label("project", "a")],
                taints: Vec::new(),
                devices: None,
            },
            Self {
                name: "projectb".to_owned(),
                number: 3,
                labels: vec![
                    label("agentpool", "projectb"),
                    label("project", "b"),
                    label("workload", "gpu"),
                ],
                taints: vec![Taint {
                    key: "sku".to_owned(),
                    value: "gpu".to_owned(),
                    effect: "NoSchedule".to_owned(),
                }],
                devices: Some(("nvidia.com/gpu".to_owned(), 1)),
            },
        ]
    }
}

// === impl Surroundings ===

impl Surroundings {
    /// The directory of a node.
    pub(crate) fn node_directory(&self, name: &str) -> PathBuf {
        nodes(&self.cluster).join(name)
    }

    /// Makes a node's namespaces and starts containerd with its images: everything that needs no API server.
    pub(crate) fn prepare_node(&self, kind: &NodeKind) -> anyhow::Result<Node> {
        let directory = self.node_directory(&kind.name);
        // The first one's is there: the control plane is in it.
        if kind.number != FIRST_NODE.1 {
            self.network.add_node(&kind.name, kind.number)?;
        }
        let mut node = Node {
            record: NodeRecord {
                kind: kind.clone(),
                components: Vec::new(),
            },
            started: Vec::new(),
        };
        let group = self.network.namespace(&kind.name);
        cgroup::create(&group)?;
        let configuration = self.configuration(kind, &group);
        configuration.write_files()?;
        let holder = node.run(&directory, &configuration.holder())?;
        process::until("its mounts", UP_LIMIT, &mut node.started, || {
            Ok(if directory.join("run/ready").exists() {
                Look::There(())
            } else {
                Look::NotYet("they are not made".to_owned())
            })
        })?;
        let place = Place {
            mounts_of: Some(holder),
            ..self.network.place(&kind.name)
        };
        node.run(&directory, &configuration.containerd(&place)?)?;
        let socket = containerd_socket(&directory);
        process::until("containerd", UP_LIMIT, &mut node.started, || {
            let ended = image::ctr(&socket).argument("version").end()?;
            Ok(if ended.status.success() {
                Look::There(())
            } else {
                Look::NotYet(ended.errors)
            })
        })?;
        for archive in image::of_node(&self.cluster, &self.stand_ins, &kind.name)? {
            image::import(&socket, &archive)?;
        }
        Ok(node)
    }

    /// Starts what joins a prepared node to the cluster.
    pub(crate) fn join_node(&self, node: &mut Node) -> anyhow::Result<()> {
        let kind = node.record.kind.clone();
        let directory = self.node_directory(&kind.name);
        let group = self.network.namespace(&kind.name);
        let pair = Authority::open(&certificates(&self.cluster), "ca")?.issue(
            &format!("node-{}", kind.name),
            &format!("system:node:{}", kind.name),
            Some("system:nodes"),
            Use::Client,
        )?;
        let name = format!("node-{}", kind.name);
        let kubeconfig = write_component_kubeconfig(&self.cluster, &name, &self.server, &pair)?;
        let configuration = self.configuration(&kind, &group);
        let place = node
            .started
            .iter()
            .find(|started| started.recorded.component.name == "containerd")
            .context("a prepared node has containerd")?
            .recorded
            .component
            .place
            .clone();
        node.run(&directory, &configuration.kubelet(&place, &kubeconfig))?;
        node.run(&directory, &configuration.kube_proxy(&place))?;
        if let Some(plugin) = configuration.device_plugin(&place) {
            node.run(&directory, &plugin)?;
        }
        Ok(())
    }

    /// Waits until a node is ready, with its devices.
    pub(crate) fn wait_for_node(&self, node: &mut Node) -> anyhow::Result<()> {
        let kind = &node.record.kind;
        let name = kind.name.clone();
        let resource = kind.devices.as_ref().map(|(resource, _)| resource.clone());
        process::until(&format!("node {name}"), UP_LIMIT, &mut node.started, || {
            let ended = self
                .kubectl()
                .call()
                .arguments(["get", "node", &name, "--output=json"])
                .end()?;
            is_ready(&ended, resource.as_deref())
        })
    }

    /// Switches a node off, with everything on it, and deletes its object.
    pub(crate) fn remove_node(&self, name: &str, number: u8) -> anyhow::Result<()> {
        self.switch_node_off(name, number)?;
        self.kubectl()
            .call()
            .arguments(["delete", "node", name, "--ignore-not-found", "--wait=false"])
            .succeed()
    }

    /// Ends a node and everything on it; its object stays, as when a machine breaks.
    ///
    /// It works also on what is left of a node that did not come up.
    pub(crate) fn switch_node_off(&self, name: &str, number: u8) -> anyhow::Result<()> {
        if number == FIRST_NODE.1 {
            bail!("the control plane shares the network of '{name}', so it stays");
        }
        let _unstoppable = Unstoppable::begin();
        let directory = self.node_directory(name);
        let group = self.network.namespace(name);
        let groups = Groups::Named(&group);
        process::end_marked(&directory)?;
        cgroup::end_processes(groups)?;
        process::end_marked(&directory)?;
        cgroup::remove(groups)?;
        self.network.remove_node(name, number)?;
        remove_directory(&directory)
    }

    fn configuration<'a>(&'a self, kind: &'a NodeKind, group: &'a str) -> Configuration<'a> {
        Configuration {
            surroundings: self,
            kind,
            group,
            directory: self.node_directory(&kind.name),
        }
    }
}

// === impl Node ===

impl Node {
    fn run(&mut self, directory: &Path, component: &Component) -> anyhow::Result<u32> {
        let started = component.start(directory)?;
        let id = started.recorded.process.id;
        self.record.components.push(started.recorded.clone());
        self.started.push(started);
        files::store(&directory.join("node.json"), &self.record)?;
        Ok(id)
    }

    /// Lets the kernel forget its processes, which have been ended.
    pub(crate) fn forget(&mut self) -> anyhow::Result<()> {
        for started in &mut self.started {
            started.kill()?;
        }
        self.started.clear();
        Ok(())
    }
}

// === impl NodeRecord ===

impl NodeRecord {
    /// Reads what is recorded of a node.
    pub(crate) fn load(directory: &Path) -> anyhow::Result<Option<Self>> {
        files::load(&directory.join("node.json"))
    }

    /// The records of all nodes of a cluster, by their number.
    pub(crate) fn all(cluster: &Path) -> anyhow::Result<Vec<Self>> {
        let mut found = Vec::new();
        for directory in files::entries(&nodes(cluster))? {
            found.extend(Self::load(&directory)?);
        }
        found.sort_unstable_by_key(|record: &Self| record.kind.number);
        Ok(found)
    }
}

/// What the nodes of a cluster are made of and every machine has to bring.
const PROGRAMS: [&str; 8] = [
    "conntrack",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "iptables",
    "mount",
    "nsenter",
    "runc",
];

/// Fails, naming all of them, when programs are missing that the nodes are made of.
pub(crate) fn check_machine() -> anyhow::Result<()> {
    let mut missing: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|program| on_path(program).is_none())
        .collect();
    if !Path::new(NETWORK_PLUGINS).join("ptp").is_file() {
        missing.push(NETWORK_PLUGINS);
    }
    if !missing.is_empty() {
        bail!(
            "nodes need what is missing here: {}\nhint: run 'cargo xtask cluster setup'",
            missing.join(", ")
        );
    }
    Ok(())
}

/// Where the directories of a cluster's nodes are.
fn nodes(cluster: &Path) -> PathBuf {
    cluster.join("nodes")
}

/// The socket of a node's containerd, as the machine sees it.
pub(crate) fn containerd_socket(node: &Path) -> PathBuf {
    node.join("run/containerd/containerd.sock")
}

/// Whether a node is ready and has its devices, by what kubectl says of it.
pub(crate) fn is_ready(said: &Ended, resource: Option<&str>) -> anyhow::Result<Look<()>> {
    if !said.status.success() {
        return Ok(Look::NotYet(said.errors.clone()));
    }
    let found = serde_json::from_str(&said.output).context("read what kubectl says of a node")?;
    Ok(match missing(&found, resource) {
        None => Look::There(()),
        Some(missing) => Look::NotYet(missing),
    })
}

/// What a node lacks before pods can be placed on it.
fn missing(node: &serde_json::Value, resource: Option<&str>) -> Option<String> {
    let status = node.get("status")?;
    let ready = status
        .get("conditions")
        .and_then(serde_json::Value::as_array)
        .and_then(|conditions| {
            conditions
                .iter()
                .find(|condition| condition["type"] == "Ready")
        });
    let Some(ready) = ready else {
        return Some("it has not reported yet".to_owned());
    };
    if ready["status"] != "True" {
        return Some(format!("it is not ready: {}", ready["message"]));
    }
    let resource = resource?;
    let count = &status["allocatable"][resource];
    if count.is_null() || count == "0" {
        return Some(format!("it has no {resource} yet"));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn node_is_there_when_it_is_ready_and_has_its_devices() {
        let node = |ready: &str, devices: &str| {
            json!({"status": {
                "conditions": [{"type": "Ready", "status": ready, "message": "m"}],
                "allocatable": {"g": devices},
            }})
        };
        assert_eq!(missing(&node("True", "1"), Some("g")), None);
        assert_eq!(missing(&node("True", "0"), None), None);
        assert!(missing(&node("True", "0"), Some("g")).is_some());
        assert!(missing(&node("False", "1"), Some("g")).is_some());
        assert!(missing(&json!({"status": {}}), None).is_some());
    }
}
