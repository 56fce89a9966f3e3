//! A cluster as kubeadm makes one: its control plane are static pods of its first node, which is a machine with a disk of its
//! own, so that everything that can go wrong on such a machine can go wrong here.
//!
//! Beside its network the node has namespaces of mounts, processes and names. Its root is an ext4 filesystem on a loop device;
//! of the machine it has the programs below `/usr`, read-only. Its first process stands in for systemd: it starts journald,
//! containerd and kubelet, and starts them anew when they end. kubeadm writes the certificates, the kubeconfigs and the
//! manifests. With its first process everything of the node ends, and with its last mount the loop device.
//!
//! Other nodes that join are those of [`crate::Cluster`].

mod disk;
mod settings;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::call::{Call, on_path};
use crate::certificates::{Authority, Use};
use crate::cgroup;
use crate::cluster::Cluster;
use crate::control_plane::{
    ControlPlane, FIRST_NODE, certificates, kubeconfig, log, network_of, write_component_kubeconfig,
};
use crate::directory::{Lifetime, Wanted};
use crate::files;
use crate::image;
use crate::node::{self, NodeKind};
use crate::process::{Component, Place};
use crate::remove::remove_directory;
use crate::tools::{self, Built};
use crate::wait::{self, Look};
use settings::Settings;

/// Makes the root of the node and becomes its first process.
const ROOT: &str = include_str!("stacked/root.sh");

/// The disk of the incident in the founding documents.
const DISK_BYTES: u64 = 7_600_000_000;

/// Where the node has programs that its users' machines have not.
const PROGRAMS: &str = "/opt/bin";
/// The programs that the node finds.
const SEARCH_PATH: &str = "/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Its first process begins with the last of its mounts.
const BOOT_LIMIT: Duration = Duration::from_secs(30);
/// On two busy cores containerd has been seen to take 10 s, and a kubelet with four pods to start a minute.
const UP_LIMIT: Duration = Duration::from_mins(4);

/// How a cluster of this kind is started.
#[derive(Debug, Clone, Default)]
pub struct StackedOptions {
    /// Programs of the machine that the node finds on its path.
    pub programs: Vec<PathBuf>,
    /// Puts into a directory what lies on the node's disk from the beginning. Of its files it says that their state last
    /// changed when they were written, as on a machine that has been running for long.
    pub history: Option<fn(&Path) -> anyhow::Result<()>>,
    /// Nodes that join; none may have the number 1.
    pub workers: Vec<NodeKind>,
}

/// A running cluster of this kind; it ends when this is dropped.
#[derive(Debug)]
pub struct StackedCluster {
    cluster: Cluster,
    place: Place,
    /// The process whose root is the node's.
    machine: u32,
}

// === impl StackedCluster ===

impl StackedCluster {
    /// Starts one that ends with this value, or with this process; needs root.
    ///
    /// It builds the programs that are missing, and returns when all nodes are ready.
    ///
    /// # Errors
    /// Something that it needs is missing or does not start.
    pub fn start(name: &str, options: &StackedOptions) -> anyhow::Result<Self> {
        check_machine()?;
        let stand_ins = tools::STAND_INS.build()?;
        let etcd = tools::ETCD.build()?;
        let kubernetes = tools::KUBERNETES.build()?;
        let mut control_plane = ControlPlane::claim(name, Lifetime::Process, Wanted::Network)?;
        let network = network_of(control_plane.record())?.clone();
        let address = network.addresses.node(FIRST_NODE.1);
        control_plane.is_reached_at(format!("https://{address}:6443"))?;
        let mut cluster = Cluster::around(control_plane, stand_ins.clone())?;
        let (node, number) = FIRST_NODE;
        let group = network.namespace(node);
        cgroup::create(&group)?;
        let settings = Settings {
            node,
            address,
            group: &group,
            pods: network.addresses.pods(number),
            kubernetes: &kubernetes,
            etcd: &etcd,
        };
        let directory = cluster.control_plane().directory().to_owned();
        write_authority(&directory, cluster.control_plane().server())?;
        let place = network.place(node);
        let component = machine(&directory, &settings, &stand_ins, options, place)?;
        cluster.control_plane_mut().run(&component)?;
        let machine = cluster.control_plane().process(&component.name)?.id;
        let mut stacked = Self {
            cluster,
            place: Place {
                mounts_of: Some(machine),
                machine_of: Some(machine),
                ..network.place(node)
            },
            machine,
        };
        stacked.boot()?;
        stacked.load_images(&settings, &stand_ins)?;
        stacked.initialize()?;
        for worker in &options.workers {
            stacked.cluster.add_node(worker)?;
        }
        stacked.cluster.control_plane_mut().is_up_now()?;
        Ok(stacked)
    }

    /// Waits for the first process, and starts what pods need.
    fn boot(&mut self) -> anyhow::Result<()> {
        let socket = self.root().join("run/services.sock");
        let control_plane = self.cluster.control_plane_mut();
        control_plane.wait_for("the machine to start", BOOT_LIMIT, || {
            Ok(if socket.exists() {
                Look::There(())
            } else {
                Look::NotYet("its first process does not answer".to_owned())
            })
        })?;
        for service in ["systemd-journald", "containerd"] {
            self.systemctl(["start", service])?;
        }
        let containerd = self.containerd();
        wait::until("containerd of the node", UP_LIMIT, || {
            let ended = image::ctr(&containerd).argument("version").end()?;
            Ok(if ended.status.success() {
                Look::There(())
            } else {
                Look::NotYet(ended.errors)
            })
        })
    }

    /// Imports what the static pods run, by the names that kubeadm gives it.
    fn load_images(&self, settings: &Settings<'_>, stand_ins: &Built) -> anyhow::Result<()> {
        self.load_here(&image::pause(stand_ins)?)?;
        for (built, program, name) in settings.images() {
            self.load_here(&image::on_its_path(built, program, &name)?)?;
        }
        Ok(())
    }

    /// Lets kubeadm lay the control plane out and kubelet start it.
    fn initialize(&mut self) -> anyhow::Result<()> {
        for phase in [
            "certs all",
            "kubeconfig all",
            "control-plane all",
            "etcd local",
        ] {
            self.inside("kubeadm")
                .arguments(["init", "phase"])
                .arguments(phase.split(' '))
                .argument(format!("--config={}", settings::KUBEADM))
                .succeed()?;
        }
        let admin = self.root().join("etc/kubernetes/admin.conf");
        let own = kubeconfig(self.cluster.control_plane().directory());
        std::fs::copy(&admin, &own).with_context(|| format!("copy {}", admin.display()))?;
        self.systemctl(["start", "kubelet"])?;
        self.cluster
            .control_plane_mut()
            .wait_until_ready_within(UP_LIMIT)?;
        // What `kubeadm init` does once the API server answers.
        self.inside("kubectl")
            .argument("--kubeconfig=/etc/kubernetes/super-admin.conf")
            .arguments(["create", "clusterrolebinding", "kubeadm:cluster-admins"])
            .arguments([
                "--clusterrole=cluster-admin",
                "--group=kubeadm:cluster-admins",
            ])
            .succeed()?;
        self.cluster.control_plane_mut().wait_for_controllers()?;
        self.wait_for_node()?;
        self.kubectl()
            .arguments(["label", "node", FIRST_NODE.0])
            .argument("node-role.kubernetes.io/control-plane=")
            .succeed()
    }

    fn wait_for_node(&self) -> anyhow::Result<()> {
        wait::until("the node to be ready", UP_LIMIT, || {
            let ended = self
                .kubectl()
                .arguments(["get", "node", FIRST_NODE.0, "--output=json"])
                .end()?;
            node::is_ready(&ended, None)
        })
    }

    /// What `/etc/machine-id` of the node says, by which its journals are known.
    pub const MACHINE_ID: &str = "6e616769206e6f646520666f72207465";

    /// A call of a program on the node, as root there.
    pub fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Call {
        // The path is the node's, not that of whoever starts it.
        self.place
            .call("env")
            .argument(format!("PATH={SEARCH_PATH}"))
            .argument("HOME=/root")
            .argument(program)
    }

    /// A call of the node's stand-in for systemctl.
    ///
    /// # Errors
    /// It fails.
    pub fn systemctl<const N: usize>(&self, arguments: [&str; N]) -> anyhow::Result<String> {
        self.inside("systemctl").arguments(arguments).output()
    }

    /// The root of the node as this process sees it. Symbolic links in it are followed by the root of this process.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.machine))
    }

    /// The socket of the node's containerd, as this process sees it.
    fn containerd(&self) -> PathBuf {
        self.root().join("run/containerd/containerd.sock")
    }

    /// A call of containerd's own client, to the node's containerd.
    pub fn ctr(&self) -> Call {
        image::ctr(&self.containerd())
    }

    /// Imports an OCI archive into the node's containerd alone.
    ///
    /// # Errors
    /// It cannot be imported.
    pub fn load_here(&self, archive: &Path) -> anyhow::Result<()> {
        image::import(&self.containerd(), archive)
    }

    /// Loads the image of a small web server on every node, and gives its name.
    ///
    /// # Errors
    /// It cannot be imported.
    pub fn load_web_image(&self) -> anyhow::Result<&'static str> {
        self.load_here(&image::web(&tools::STAND_INS.build()?)?)?;
        self.cluster.load_web_image()
    }

    /// A call of kubectl as administrator, from the machine.
    pub fn kubectl(&self) -> Call {
        self.cluster.kubectl()
    }

    /// The name of the node.
    pub fn node(&self) -> &'static str {
        FIRST_NODE.0
    }

    /// The directory with everything of this cluster.
    pub fn directory(&self) -> &Path {
        self.cluster.control_plane().directory()
    }

    /// Ends it and takes everything away; dropping it does the same, but cannot say what went wrong.
    ///
    /// # Errors
    /// Something stays.
    pub fn stop(self) -> anyhow::Result<()> {
        self.cluster.stop()
    }
}

/// Fails, naming one of them, when programs are missing that the node is made of beside those of every node.
fn check_machine() -> anyhow::Result<()> {
    node::check_machine()?;
    let found = |program: &str| {
        on_path(program).is_some()
            || Path::new("/usr/sbin").join(program).is_file()
            || Path::new(program).is_file()
    };
    let needed = ["mkfs.ext4", "debugfs", settings::JOURNALD_PROGRAM];
    if let Some(missing) = needed.into_iter().find(|program| !found(program)) {
        bail!("there is no {missing}\nhint: run 'cargo xtask cluster setup'");
    }
    Ok(())
}

/// The authority, which kubeadm takes over and workers join by, and what their proxies are called by.
fn write_authority(cluster: &Path, server: &str) -> anyhow::Result<()> {
    let directory = certificates(cluster);
    let authority = Authority::create(&directory, "ca")?;
    let name = "kube-proxy";
    let pair = authority.issue(name, "system:kube-proxy", None, Use::Client)?;
    write_component_kubeconfig(cluster, name, server, &pair)?;
    let pki = tree(cluster).join("etc/kubernetes/pki");
    std::fs::create_dir_all(&pki).with_context(|| format!("create {}", pki.display()))?;
    for file in ["ca.crt", "ca.key"] {
        let target = pki.join(file);
        std::fs::copy(directory.join(file), &target)
            .with_context(|| format!("write {}", target.display()))?;
    }
    Ok(())
}

/// What the root of the node begins with.
fn tree(cluster: &Path) -> PathBuf {
    cluster.join("machine/tree")
}

/// The process that makes the node's root and then starts its first process.
fn machine(
    cluster: &Path,
    settings: &Settings<'_>,
    stand_ins: &Built,
    options: &StackedOptions,
    place: Place,
) -> anyhow::Result<Component> {
    let (tree, own) = (tree(cluster), cluster.join("machine"));
    settings.write(&tree)?;
    if let Some(history) = options.history {
        history(&tree)?;
    }
    let (disk, root) = (own.join("disk"), own.join("root"));
    std::fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    disk::write(&disk, DISK_BYTES, &tree)?;
    remove_directory(&tree)?;
    let mut arguments: Vec<String> = [
        "--mount",
        "--propagation=private",
        "--pid",
        "--fork",
        "--kill-child",
        "--uts",
        "--",
        "sh",
        "-c",
        ROOT,
        "machine",
    ]
    .map(str::to_owned)
    .to_vec();
    let text = |path: &Path| path.display().to_string();
    arguments.extend([text(&disk), text(&root), settings.node.to_owned()]);
    let mut bind = |source: &Path, target: &str| {
        arguments.extend([text(source), target.to_owned()]);
    };
    for name in ["services", "systemctl"] {
        bind(
            &stand_ins.program("services"),
            &format!("{PROGRAMS}/{name}"),
        );
    }
    for name in ["kubelet", "kubeadm", "kubectl"] {
        let program = settings.kubernetes.program(name);
        bind(&program, &format!("{PROGRAMS}/{name}"));
    }
    for program in &options.programs {
        let name = files::name(program).context("a program has a name")?;
        bind(program, &format!("{PROGRAMS}/{name}"));
    }
    let kernel = own.join("kernel");
    node::settings::write_kernel(&kernel)?;
    for (file, setting) in node::settings::kernel(&kernel) {
        bind(&file, &setting);
    }
    Ok(Component {
        name: "machine".to_owned(),
        program: PathBuf::from("unshare"),
        arguments,
        environment: vec![("SEARCH_PATH".to_owned(), SEARCH_PATH.to_owned())],
        place,
        log: log(cluster, "machine"),
    })
}
