//! A whole cluster: a control plane, nodes, names of Services, and figures for `kubectl top`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::addons;
use crate::autoscaler;
use crate::call::Call;
use crate::control_plane::{self, ControlPlane, Kubectl, Options, Where, network_of};
use crate::directory::{Lifetime, Record};
use crate::image;
use crate::node::{self, Node, NodeKind, NodeRecord, Surroundings, containerd_socket};
use crate::process::{Component, Place, Process};
use crate::tools::{self, Built};
use crate::wait::{self, Look};

/// From the last ready node to an answer of CoreDNS.
const ADDONS_LIMIT: Duration = Duration::from_mins(2);

/// How a cluster is started.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Its control plane.
    pub control_plane: Options,
    /// Its nodes; the first one must be [`NodeKind::standard`]'s first.
    pub nodes: Vec<NodeKind>,
}

/// A running cluster; it ends when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    control_plane: ControlPlane,
    surroundings: Surroundings,
    nodes: Vec<Node>,
}

// === impl ClusterOptions ===

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            control_plane: Options::default(),
            nodes: NodeKind::standard(),
        }
    }
}

// === impl Cluster ===

impl Cluster {
    /// Starts one that ends with this value, or with this process; needs root.
    ///
    /// It builds the programs that are missing, which takes minutes the first time, and returns when all nodes are ready and
    /// names of Services are resolved.
    pub fn start(name: &str, options: &ClusterOptions) -> anyhow::Result<Self> {
        Self::start_as(name, options, Lifetime::Process, None)
    }

    pub(crate) fn start_as(
        name: &str,
        options: &ClusterOptions,
        lifetime: Lifetime,
        autoscaler: Option<Duration>,
    ) -> anyhow::Result<Self> {
        if options.control_plane.place != Where::Namespace {
            bail!("nodes need root and namespaces, and '{name}' is to be on the loopback");
        }
        node::check_machine()?;
        // Before anything runs: a build takes minutes.
        let stand_ins = tools::STAND_INS.build()?;
        tools::COREDNS.build()?;
        tools::METRICS_SERVER.build()?;
        let control_plane = ControlPlane::start_as(name, &options.control_plane, lifetime)?;
        let mut cluster = Self::around(control_plane, stand_ins)?;
        cluster.bring_up(options, autoscaler)?;
        Ok(cluster)
    }

    /// One without nodes, of a control plane whose address is known.
    pub(crate) fn around(control_plane: ControlPlane, stand_ins: Built) -> anyhow::Result<Self> {
        let surroundings = Surroundings {
            cluster: control_plane.directory().to_owned(),
            network: network_of(control_plane.record())?.clone(),
            server: control_plane.server().to_owned(),
            kubernetes: tools::KUBERNETES.build()?,
            stand_ins,
        };
        Ok(Self {
            control_plane,
            surroundings,
            nodes: Vec::new(),
        })
    }

    fn bring_up(
        &mut self,
        options: &ClusterOptions,
        autoscaler: Option<Duration>,
    ) -> anyhow::Result<()> {
        let surroundings = &self.surroundings;
        let control_plane = &mut self.control_plane;
        // What needs no API server goes on while it starts.
        let (finished, prepared) = side_by_side(
            &options.nodes,
            |kind| surroundings.prepare_node(kind),
            || control_plane.start_the_rest(),
        );
        self.nodes = prepared?;
        finished?;
        for node in &mut self.nodes {
            self.surroundings.join_node(node)?;
        }
        addons::apply(&self.surroundings.kubectl())?;
        self.control_plane.wait_for_controllers()?;
        for node in &mut self.nodes {
            self.surroundings.wait_for_node(node)?;
        }
        self.wait_for_deployment("kube-system", "coredns")?;
        if let Some(empty_for) = autoscaler {
            self.control_plane.run(&autoscaler_component(
                &self.surroundings.cluster,
                self.control_plane.name(),
                empty_for,
            )?)?;
        }
        self.control_plane.is_up_now()
    }

    /// Waits until a Deployment has all the replicas that it wants.
    pub fn wait_for_deployment(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        wait::until(&format!("deployment {name}"), ADDONS_LIMIT, || {
            let path = "{.spec.replicas} {.status.availableReplicas} {.status.updatedReplicas}";
            let ended = self
                .kubectl()
                .arguments(["get", "deployment", name, "--namespace", namespace])
                .argument(format!("--output=jsonpath={path}"))
                .end()?;
            let counts: Vec<&str> = ended.output.split_whitespace().collect();
            Ok(match counts.as_slice() {
                [wanted, available, updated] if wanted == available && wanted == updated => {
                    Look::There(())
                }
                [..] => Look::NotYet(format!("{}{}", ended.output, ended.errors)),
            })
        })
    }

    /// Its control plane.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// Its control plane, to kill and restart components.
    pub fn control_plane_mut(&mut self) -> &mut ControlPlane {
        &mut self.control_plane
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.control_plane.kubeconfig()
    }

    /// A call of kubectl as administrator.
    pub fn kubectl(&self) -> Call {
        self.control_plane.kubectl()
    }

    /// Imports an OCI archive into the containerds of all nodes, and of those that join later.
    pub fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        load_image(&self.surroundings.cluster, archive)
    }

    /// Loads the image of a small web server for pods of tests and gives its name: it answers on port 8080 with the name of
    /// its pod, and `/web -get URL` in it is a client.
    pub fn load_web_image(&self) -> anyhow::Result<&'static str> {
        self.load_image(&image::web(&self.surroundings.stand_ins)?)?;
        Ok(image::WEB)
    }

    /// Where the programs of the first node live.
    pub(crate) fn first_place(&self) -> anyhow::Result<&Place> {
        let first = self.nodes.first().context("a cluster has a node")?;
        let containerd = first
            .record
            .components
            .iter()
            .find(|recorded| recorded.component.name == "containerd")
            .context("a node has containerd")?;
        Ok(&containerd.component.place)
    }

    /// Adds a node and waits until it is ready.
    pub fn add_node(&mut self, kind: &NodeKind) -> anyhow::Result<()> {
        let node = self.surroundings.add_node(kind)?;
        // One of this name may have been there, and have been removed by the autoscaler.
        self.forget_node(&kind.name)?;
        self.nodes.push(node);
        Ok(())
    }

    /// Switches a node off, with everything on it, and deletes its object.
    pub fn remove_node(&mut self, name: &str) -> anyhow::Result<()> {
        let number = self.node(name)?.record.kind.number;
        self.surroundings.remove_node(name, number)?;
        self.forget_node(name)
    }

    /// Switches a node off, with everything on it; its object stays, as when a machine breaks.
    pub fn break_node(&mut self, name: &str) -> anyhow::Result<()> {
        let number = self.node(name)?.record.kind.number;
        self.surroundings.switch_node_off(name, number)?;
        self.forget_node(name)
    }

    /// The process of a component of a node: `containerd`, `kubelet`, `kube-proxy` or `device-plugin`.
    pub fn node_process(&self, node: &str, component: &str) -> anyhow::Result<Process> {
        let components = &self.node(node)?.record.components;
        let found = components
            .iter()
            .find(|recorded| recorded.component.name == component);
        let recorded =
            found.with_context(|| format!("node '{node}' has no component '{component}'"))?;
        Ok(recorded.process)
    }

    fn node(&self, name: &str) -> anyhow::Result<&Node> {
        self.nodes
            .iter()
            .find(|node| node.record.kind.name == name)
            .with_context(|| format!("there is no node '{name}'"))
    }

    fn forget_node(&mut self, name: &str) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            if node.record.kind.name == name {
                node.forget()?;
            }
        }
        self.nodes.retain(|node| node.record.kind.name != name);
        Ok(())
    }

    /// Adds and removes nodes as pods ask for them, until the result is dropped.
    pub fn autoscale(&self, empty_for: Duration) -> anyhow::Result<autoscaler::Autoscaler> {
        autoscaler::Autoscaler::start(self.surroundings.clone(), empty_for)
    }

    /// Ends it and takes everything away; dropping it does the same, but cannot say what went wrong.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.take_away()
    }

    fn take_away(&mut self) -> anyhow::Result<()> {
        let ended = self.control_plane.take_away();
        for node in &mut self.nodes {
            node.forget()?;
        }
        self.nodes.clear();
        ended
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.control_plane.outlives_this_process() {
            return;
        }
        if let Err(error) = self.take_away() {
            crate::say(&format!("not everything could be taken away: {error:#}"));
        }
    }
}

// === impl Surroundings ===

impl Surroundings {
    /// What another process needs to know of a running cluster.
    pub(crate) fn of(cluster: &Path) -> anyhow::Result<Self> {
        let record = Record::load(cluster)?
            .with_context(|| format!("there is no cluster in {}", cluster.display()))?;
        Ok(Self {
            cluster: cluster.to_owned(),
            network: network_of(&record)?.clone(),
            server: record.server,
            kubernetes: tools::KUBERNETES.build()?,
            stand_ins: tools::STAND_INS.build()?,
        })
    }

    /// Starts a node and waits until it is ready; one that does not become ready is left for its
    /// cluster to take away.
    pub(crate) fn add_node(&self, kind: &NodeKind) -> anyhow::Result<Node> {
        let start = || -> anyhow::Result<Node> {
            let mut node = self.prepare_node(kind)?;
            self.join_node(&mut node)?;
            self.wait_for_node(&mut node)?;
            Ok(node)
        };
        start().with_context(|| format!("start node {}", kind.name))
    }

    pub(crate) fn kubectl(&self) -> Kubectl {
        Kubectl::of(&self.kubernetes, &self.cluster)
    }
}

/// Does one thing for each kind of node, each in a thread, and another meanwhile.
fn side_by_side<T>(
    kinds: &[NodeKind],
    each: impl Fn(&NodeKind) -> anyhow::Result<Node> + Sync,
    meanwhile: impl FnOnce() -> anyhow::Result<T>,
) -> (anyhow::Result<T>, anyhow::Result<Vec<Node>>) {
    std::thread::scope(|scope| {
        let each = &each;
        let threads: Vec<_> = kinds
            .iter()
            .map(|kind| scope.spawn(move || each(kind)))
            .collect();
        let done = meanwhile();
        let nodes = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("the start of a node panicked")))
            })
            // All are waited for, also after one has failed.
            .collect::<Vec<_>>()
            .into_iter()
            .collect();
        (done, nodes)
    })
}

/// The record of a cluster that is up.
pub(crate) fn running(cluster: &Path) -> anyhow::Result<Record> {
    let record = Record::load(cluster)?.filter(|record| record.is_up);
    record.with_context(|| {
        format!(
            "no cluster runs in {}\nhint: run 'cargo xtask cluster up'",
            cluster.display()
        )
    })
}

/// Imports an archive into a cluster that another process may have started.
pub(crate) fn load_image(cluster: &Path, archive: &Path) -> anyhow::Result<()> {
    let sockets: Vec<PathBuf> = NodeRecord::all(cluster)?
        .iter()
        .map(|record| containerd_socket(&cluster.join("nodes").join(&record.kind.name)))
        .collect();
    image::load(cluster, archive, &sockets)
}

/// This program again, as the autoscaler of a cluster that outlives the command that started it.
fn autoscaler_component(
    cluster: &Path,
    name: &str,
    empty_for: Duration,
) -> anyhow::Result<Component> {
    Ok(Component {
        name: "autoscaler".to_owned(),
        program: std::env::current_exe().context("find this program")?,
        arguments: vec![
            "cluster".to_owned(),
            "autoscale".to_owned(),
            format!("--name={name}"),
            format!("--empty-for={}", empty_for.as_secs()),
        ],
        environment: Vec::new(),
        place: Place::default(),
        log: control_plane::log(cluster, "autoscaler"),
    })
}
