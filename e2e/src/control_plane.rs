//! etcd, API server, controllers and scheduler, with certificates and an audit log.
//!
//! As root they live in a network namespace of their own, on the standard ports, and the machine reaches them over a bridge.
//! Without root they listen on free ports of the machine's loopback; no node can join then, but everything that is only API
//! works. In both, every connection is TLS with certificates of the cluster's own authority.

mod configuration;
mod kubectl;
mod outage;
mod ports;

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use serde_json::json;

use crate::call::{Call, on_path};
use crate::certificates::{Authority, Pair, Use, write_signing_key};
use crate::clean;
use crate::directory::{Directory, Lifetime, Record, Wanted};
use crate::network::Network;
use crate::process::{self, Component, Place, Process, Started};
use crate::tools::{self, Built};
use crate::wait::Look;
use configuration::Configuration;
pub(crate) use kubectl::Kubectl;
use ports::Ports;

/// The node whose network namespace the control plane shares, and its number.
pub(crate) const FIRST_NODE: (&str, u8) = ("system", 1);

/// Addresses of Services begin here; they exist on the nodes only, so every cluster has the same.
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// The address of the API server as a Service: the first of the range.
pub(crate) const API_SERVICE: &str = "10.96.0.1";

/// From the first process to an API server that answers takes about 4 s on two idle cores.
const UP_LIMIT: Duration = Duration::from_mins(2);

/// A connection to this machine is made at once or not at all.
const CONNECT_LIMIT: Duration = Duration::from_millis(200);

/// How often a start on the loopback is tried: another program may take a free port before we do.
const LOOPBACK_TRIES: u32 = 3;

/// The files with which the API server shows who it is.
const API_SERVER_PAIR: &str = "apiserver";
/// A copy of the authority's certificate.
const SIGNER: &str = "signer.crt";

/// What a component says that finds its port taken.
const PORT_TAKEN: &str = "address already in use";

/// Where a control plane listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// In a network namespace of its own; needs root.
    Namespace,
    /// On free ports of the machine's loopback.
    Loopback,
}

/// How a control plane is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens.
    pub place: Where,
    /// More arguments, each with the name of its component: `("kube-apiserver", "--max-requests-inflight=1")`.
    pub arguments: Vec<(&'static str, String)>,
}

/// A running control plane; it ends when this is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    directory: Directory,
    record: Record,
    started: Vec<Started>,
    /// What is to be started when the API server answers.
    next: Vec<Component>,
    kubernetes: Built,
}

// === impl Where ===

impl Where {
    /// A namespace where this process may make one, else the loopback.
    ///
    /// Being root is not enough: in a container it often means nothing.
    pub fn best() -> Self {
        let may_make_one = rustix::process::geteuid().is_root()
            && on_path("ip").is_some()
            && Call::new("unshare")
                .arguments(["--net", "--mount", "--", "true"])
                .succeed()
                .is_ok();
        if may_make_one {
            Self::Namespace
        } else {
            Self::Loopback
        }
    }
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            place: Where::best(),
            arguments: Vec::new(),
        }
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Starts one that ends with this value, or with this process.
    ///
    /// It builds the programs that are missing, which takes minutes the first time, and returns when the API server answers
    /// and the controllers work. Two with the same name cannot run at once.
    pub fn start(name: &str, options: &Options) -> anyhow::Result<Self> {
        let mut tries = match options.place {
            Where::Namespace => 1,
            Where::Loopback => LOOPBACK_TRIES,
        };
        loop {
            tries -= 1;
            match Self::start_alone(name, options, Lifetime::Process, |_| Ok(())) {
                Err(error) if tries > 0 && format!("{error:#}").contains(PORT_TAKEN) => {
                    crate::say(
                        "another program took a port that was free a moment ago; trying others",
                    );
                }
                ended @ (Ok(_) | Err(_)) => return ended,
            }
        }
    }

    /// Starts one without nodes, and `more` as part of it.
    pub(crate) fn start_alone(
        name: &str,
        options: &Options,
        lifetime: Lifetime,
        more: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut control_plane = Self::start_as(name, options, lifetime)?;
        control_plane.start_the_rest()?;
        control_plane.wait_for_controllers()?;
        more(&mut control_plane)?;
        control_plane.is_up_now()?;
        Ok(control_plane)
    }

    /// Starts etcd and the API server; [`ControlPlane::start_the_rest`] goes on.
    pub(crate) fn start_as(
        name: &str,
        options: &Options,
        lifetime: Lifetime,
    ) -> anyhow::Result<Self> {
        let etcd = tools::ETCD.build()?;
        let wanted = match options.place {
            Where::Namespace => Wanted::Network,
            Where::Loopback => Wanted::Loopback,
        };
        let mut control_plane = Self::claim(name, lifetime, wanted)?;
        control_plane.begin(&etcd, options)?;
        Ok(control_plane)
    }

    /// Takes a name and makes the network, and starts nothing. From here on dropping it takes away whatever was made.
    pub(crate) fn claim(name: &str, lifetime: Lifetime, wanted: Wanted) -> anyhow::Result<Self> {
        let kubernetes = tools::KUBERNETES.build()?;
        let (directory, record) = Directory::claim(name, lifetime, wanted)?;
        let control_plane = Self {
            directory,
            record,
            started: Vec::new(),
            next: Vec::new(),
            kubernetes,
        };
        if let Some(network) = &control_plane.record.network {
            network.create()?;
            let (node, number) = FIRST_NODE;
            network.add_node(node, number)?;
        }
        Ok(control_plane)
    }

    fn begin(&mut self, etcd: &Built, options: &Options) -> anyhow::Result<()> {
        let place = self.place();
        let ports = Ports::from(self.free_ports(Ports::STANDARD)?);
        let configuration = Configuration {
            directory: self.directory.path.clone(),
            address: self.address(),
            listens_on: match self.record.network {
                Some(_) => "0.0.0.0",
                None => "127.0.0.1",
            },
            is_reached_by_nodes: self.record.network.is_some(),
            ports,
        };
        self.is_reached_at(configuration.server())?;
        write_certificates(&configuration)?;
        configuration.write_files()?;
        let component = |built: &Built, name: &str, mut arguments: Vec<String>| {
            arguments.extend(
                options
                    .arguments
                    .iter()
                    .filter(|(of, _)| *of == name)
                    .map(|(_, argument)| argument.clone()),
            );
            Component {
                name: name.to_owned(),
                program: built.program(name),
                arguments,
                environment: Vec::new(),
                place: place.clone(),
                log: log(&configuration.directory, name),
            }
        };
        let kubernetes = self.kubernetes.clone();
        self.run(&component(etcd, "etcd", configuration.etcd()))?;
        let name = "kube-apiserver";
        self.run(&component(&kubernetes, name, configuration.api_server()))?;
        // They give up when no API server answers.
        let (controllers, scheduler) = ("kube-controller-manager", "kube-scheduler");
        self.next = vec![
            component(&kubernetes, controllers, configuration.controllers()),
            component(&kubernetes, scheduler, configuration.scheduler()),
        ];
        Ok(())
    }

    /// Starts what needs an API server that answers.
    pub(crate) fn start_the_rest(&mut self) -> anyhow::Result<()> {
        self.wait_until_ready()?;
        for component in std::mem::take(&mut self.next) {
            self.run(&component)?;
        }
        Ok(())
    }

    /// Records that the start has come to its end.
    pub(crate) fn is_up_now(&mut self) -> anyhow::Result<()> {
        self.record.is_up = true;
        self.record.store(&self.directory.path)
    }

    pub(crate) fn run(&mut self, component: &Component) -> anyhow::Result<()> {
        let started = component.start(&self.directory.path)?;
        self.record.components.push(started.recorded.clone());
        self.started.push(started);
        self.record.store(&self.directory.path)
    }

    /// Waits for something that needs all components.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        look: impl FnMut() -> anyhow::Result<Look<T>>,
    ) -> anyhow::Result<T> {
        process::until(what, limit, &mut self.started, look)
    }

    /// Waits until the API server says that it is ready.
    pub fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        self.wait_until_ready_within(UP_LIMIT)
    }

    pub(crate) fn wait_until_ready_within(&mut self, limit: Duration) -> anyhow::Result<()> {
        let kubectl = Kubectl::of(&self.kubernetes, &self.directory.path);
        let address = self.record.server.trim_start_matches("https://");
        let address: SocketAddr = address.parse().context("read the API server's address")?;
        self.wait_for("the API server", limit, || {
            // Until its port is open there is no use in starting a client again and again.
            if let Err(error) = TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
                return Ok(Look::NotYet(error.to_string()));
            }
            let ended = kubectl.call().arguments(["get", "--raw=/readyz"]).end()?;
            Ok(if ended.status.success() {
                Look::There(())
            } else {
                Look::NotYet(ended.errors)
            })
        })
    }

    /// The account without which no pod is accepted is made by a controller: when it is there, they work.
    pub(crate) fn wait_for_controllers(&mut self) -> anyhow::Result<()> {
        let kubectl = Kubectl::of(&self.kubernetes, &self.directory.path);
        self.wait_for("the controllers", UP_LIMIT, || {
            let ended = kubectl
                .call()
                .arguments(["get", "serviceaccount", "default", "--namespace=default"])
                .end()?;
            Ok(if ended.status.success() {
                Look::There(())
            } else {
                Look::NotYet(ended.errors)
            })
        })
    }

    fn address(&self) -> String {
        match &self.record.network {
            Some(network) => network.addresses.node(FIRST_NODE.1).to_string(),
            None => "127.0.0.1".to_owned(),
        }
    }

    /// Where programs live that belong to the control plane.
    pub(crate) fn place(&self) -> Place {
        match &self.record.network {
            Some(network) => network.place(FIRST_NODE.0),
            None => Place::default(),
        }
    }

    /// These ports where the control plane has a network of its own, else some that are free.
    pub(crate) fn free_ports<const N: usize>(
        &self,
        standard: [u16; N],
    ) -> anyhow::Result<[u16; N]> {
        match self.record.network {
            Some(_) => Ok(standard),
            None => ports::free(),
        }
    }

    /// Records where the API server will be.
    pub(crate) fn is_reached_at(&mut self, server: String) -> anyhow::Result<()> {
        self.record.server = server;
        self.record.store(&self.directory.path)
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Whether it is up, and a person will end it.
    pub(crate) fn outlives_this_process(&self) -> bool {
        self.record.lifetime == Lifetime::Person && self.record.is_up
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// The URL of the API server.
    pub fn server(&self) -> &str {
        &self.record.server
    }

    /// The kubeconfig of an administrator. Other files named in it lie beside it.
    pub fn kubeconfig(&self) -> PathBuf {
        kubeconfig(&self.directory.path)
    }

    /// The directory with everything of this cluster.
    pub fn directory(&self) -> &Path {
        &self.directory.path
    }

    /// The audit log: one JSON object a line.
    pub fn audit_log(&self) -> PathBuf {
        self.directory.path.join("audit.log")
    }

    /// The certificate of the authority that signed the API server's.
    pub fn authority(&self) -> PathBuf {
        certificates(&self.directory.path).join("ca.crt")
    }

    /// A certificate and a key for a user of this cluster, and the kubeconfig that uses them.
    pub fn user(&self, name: &str, group: Option<&str>) -> anyhow::Result<PathBuf> {
        let directory = certificates(&self.directory.path);
        let pair = Authority::open(&directory, "ca")?.issue(
            &format!("user-{name}"),
            name,
            group,
            Use::Client,
        )?;
        let path = self.directory.path.join(format!("user-{name}.kubeconfig"));
        configuration::write_kubeconfig(&path, &self.record.server, &self.authority(), &pair)?;
        Ok(path)
    }

    /// A token for a `ServiceAccount`, as its pods have one, and the kubeconfig that uses it.
    pub fn account(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let token = self
            .kubectl()
            .arguments(["create", "token", name, "--namespace", namespace])
            .output()?;
        let path = self
            .directory
            .path
            .join(format!("account-{namespace}-{name}.kubeconfig"));
        let user = json!({"token": token.trim()});
        configuration::write_kubeconfig_of(&path, &self.record.server, &self.authority(), &user)?;
        Ok(path)
    }

    /// A call of kubectl as administrator.
    pub fn kubectl(&self) -> Call {
        Kubectl::of(&self.kubernetes, &self.directory.path).call()
    }

    /// The process of a component: `etcd`, `kube-apiserver`, `kube-controller-manager` or `kube-scheduler`.
    pub fn process(&self, component: &str) -> anyhow::Result<Process> {
        let started = self
            .started
            .iter()
            .find(|started| started.recorded.component.name == component);
        Ok(started
            .with_context(|| format!("there is no component '{component}'"))?
            .recorded
            .process)
    }

    /// Makes a component stand still; it keeps its connections and answers nothing.
    pub fn suspend(&self, component: &str) -> anyhow::Result<()> {
        self.process(component)?.signal(Signal::STOP)
    }

    /// Lets a suspended component go on.
    pub fn resume(&self, component: &str) -> anyhow::Result<()> {
        self.process(component)?.signal(Signal::CONT)
    }

    /// Kills a component; [`ControlPlane::restart`] starts it again.
    pub fn kill(&mut self, component: &str) -> anyhow::Result<()> {
        self.started_mut(component)?.kill()
    }

    /// Starts a component anew, with the same arguments and data, after killing it if it runs. It does not wait until it
    /// answers.
    pub fn restart(&mut self, component: &str) -> anyhow::Result<()> {
        let path = self.directory.path.clone();
        let started = self.started_mut(component)?;
        started.kill()?;
        *started = started.recorded.component.start(&path)?;
        let recorded = started.recorded.clone();
        for known in &mut self.record.components {
            if known.component.name == component {
                *known = recorded.clone();
            }
        }
        self.record.store(&path)
    }

    fn started_mut(&mut self, component: &str) -> anyhow::Result<&mut Started> {
        self.started
            .iter_mut()
            .find(|started| started.recorded.component.name == component)
            .with_context(|| format!("there is no component '{component}'"))
    }

    /// Ends it and takes everything away; dropping it does the same, but cannot say what went wrong.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.take_away()
    }

    pub(crate) fn take_away(&mut self) -> anyhow::Result<()> {
        let ended = clean::remove(&self.directory);
        // They are dead; asking for their ends lets the kernel forget them.
        for started in &mut self.started {
            started.kill()?;
        }
        self.started.clear();
        ended
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if self.outlives_this_process() {
            return;
        }
        if let Err(error) = self.take_away() {
            crate::say(&format!("not everything could be taken away: {error:#}"));
        }
    }
}

/// Where the administrator's kubeconfig is.
pub(crate) fn kubeconfig(directory: &Path) -> PathBuf {
    directory.join("kubeconfig")
}

/// Where the output of a component of the control plane goes.
pub(crate) fn log(directory: &Path, component: &str) -> PathBuf {
    directory.join("logs").join(format!("{component}.log"))
}

/// Where the certificates of a cluster are.
pub(crate) fn certificates(directory: &Path) -> PathBuf {
    directory.join("certificates")
}

/// The kubeconfig of a component.
pub(crate) fn write_component_kubeconfig(
    directory: &Path,
    name: &str,
    server: &str,
    pair: &Pair,
) -> anyhow::Result<PathBuf> {
    let path = directory.join(format!("{name}.kubeconfig"));
    let authority = certificates(directory).join("ca.crt");
    configuration::write_kubeconfig(&path, server, &authority, pair)?;
    Ok(path)
}

/// Under which names the API server is called.
fn server_names(address: &str) -> [&str; 8] {
    [
        "localhost",
        "127.0.0.1",
        API_SERVICE,
        address,
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
}

fn write_certificates(configuration: &Configuration) -> anyhow::Result<()> {
    let directory = configuration.certificates();
    let server = configuration.server();
    let authority = Authority::create(&directory, "ca")?;
    // Who signs for pods has one certificate in its file, also when everyone trusts another authority beside it.
    let (known, signer) = (directory.join("ca.crt"), directory.join(SIGNER));
    std::fs::copy(&known, &signer).with_context(|| format!("write {}", signer.display()))?;
    let names = server_names(&configuration.address);
    authority.issue(API_SERVER_PAIR, "kube-apiserver", None, Use::Server(&names))?;
    let local = Use::Server(&["localhost", "127.0.0.1"]);
    authority.issue("etcd", "etcd", None, local)?;
    // The only group that needs no rules.
    let masters = Some("system:masters");
    authority.issue(
        "apiserver-kubelet",
        "kube-apiserver-kubelet",
        masters,
        Use::Client,
    )?;
    for (name, common_name) in [
        ("kube-controller-manager", "system:kube-controller-manager"),
        ("kube-scheduler", "system:kube-scheduler"),
        ("kube-proxy", "system:kube-proxy"),
    ] {
        let pair = authority.issue(name, common_name, None, Use::Client)?;
        write_component_kubeconfig(&configuration.directory, name, &server, &pair)?;
    }
    let admin = authority.issue("admin", "admin", masters, Use::Client)?;
    let authority_file = directory.join("ca.crt");
    let path = kubeconfig(&configuration.directory);
    configuration::write_kubeconfig(&path, &server, &authority_file, &admin)?;
    // Whom aggregated API servers believe who the caller is: an authority of its own, so that no client certificate is one.
    let front_proxy = Authority::create(&directory, "front-proxy-ca")?;
    front_proxy.issue(
        "front-proxy-client",
        "front-proxy-client",
        None,
        Use::Client,
    )?;
    write_signing_key(&directory, "service-accounts")
}

/// Fails where the control plane is on the loopback, which no node reaches.
pub(crate) fn network_of(record: &Record) -> anyhow::Result<&Network> {
    let Some(network) = &record.network else {
        bail!(
            "cluster '{}' has no network of its own, so no nodes",
            record.name
        );
    };
    Ok(network)
}
