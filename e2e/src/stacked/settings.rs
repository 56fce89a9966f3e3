//! What the programs of a node that kubeadm laid out are told: their files, from the root of the node.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::json;

use super::StackedCluster;
use crate::control_plane::SERVICES;
use crate::files;
use crate::node;
use crate::tools::Built;

/// What kubeadm is told.
pub(super) const KUBEADM: &str = "/etc/kubernetes/kubeadm.yaml";

/// What keeps the journal of the node.
pub(super) const JOURNALD_PROGRAM: &str = "/lib/systemd/systemd-journald";

/// The registry that the images of the control plane would be from, if there were one.
const REGISTRY: &str = "nagi.test";

/// A service that ended by itself is started anew after so many seconds, as its package says.
const RESTART_CONTAINERD: f64 = 5.0;
const RESTART_KUBELET: f64 = 10.0;

/// Nothing is turned on or off that is the machine's, and old journals stay until somebody cleans: an administrator has raised
/// the limit.
const JOURNALD: &str = "\
[Journal]
Storage=persistent
SystemMaxUse=4G
RateLimitIntervalSec=0
ReadKMsg=no
Audit=
ForwardToWall=no
";

/// Everything that the files depend on.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    pub(super) node: &'a str,
    pub(super) address: Ipv4Addr,
    /// The control group below which the kubelet keeps the pods'.
    pub(super) group: &'a str,
    /// Where its pods get their addresses from.
    pub(super) pods: String,
    pub(super) kubernetes: &'a Built,
    pub(super) etcd: &'a Built,
}

// === impl Settings ===

impl Settings<'_> {
    /// What the static pods run, and how kubeadm calls it.
    pub(super) fn images(&self) -> [(&Built, &'static str, String); 4] {
        let of = |built, program: &'static str, tag: &str| {
            (built, program, format!("{REGISTRY}/{program}:{tag}"))
        };
        let version = self.kubernetes.version();
        [
            of(self.kubernetes, "kube-apiserver", version),
            of(self.kubernetes, "kube-controller-manager", version),
            of(self.kubernetes, "kube-scheduler", version),
            of(self.etcd, "etcd", &self.etcd_tag()),
        ]
    }

    /// kubeadm's tags of etcd have no letter in front.
    fn etcd_tag(&self) -> String {
        format!("{}-0", self.etcd.version().trim_start_matches('v'))
    }

    /// Writes every file below a directory that is copied into the node's root.
    pub(super) fn write(&self, tree: &Path) -> anyhow::Result<()> {
        let networks = Path::new("/etc/cni/net.d");
        let text = |path: &str, text: &str| {
            files::write_private(&tree.join(path.trim_start_matches('/')), text)
        };
        let json = |path: &str, value: &serde_json::Value| {
            files::write_json(&tree.join(path.trim_start_matches('/')), value)
        };
        text(
            "/etc/containerd/config.toml",
            &node::settings::containerd(networks),
        )?;
        json(
            "/etc/cni/net.d/10-nagi.conflist",
            &node::settings::pod_network(&self.pods),
        )?;
        text("/etc/systemd/journald.conf", JOURNALD)?;
        text(
            "/etc/machine-id",
            &format!("{}\n", StackedCluster::MACHINE_ID),
        )?;
        // Nothing outside the cluster is resolved: there is no way to it.
        text("/etc/resolv.conf", "")?;
        json("/etc/services.json", &self.services())?;
        json("/var/lib/kubelet/config.yaml", &self.kubelet())?;
        text(KUBEADM, &self.kubeadm())
    }

    fn services(&self) -> serde_json::Value {
        json!([
            {"name": "systemd-journald", "command": [JOURNALD_PROGRAM], "restartSeconds": 0.0},
            {"name": "containerd", "command": ["containerd"], "restartSeconds": RESTART_CONTAINERD},
            {
                "name": "kubelet",
                "command": [
                    "kubelet",
                    "--config=/var/lib/kubelet/config.yaml",
                    "--kubeconfig=/etc/kubernetes/kubelet.conf",
                    format!("--hostname-override={}", self.node),
                    format!("--node-ip={}", self.address),
                ],
                "restartSeconds": RESTART_KUBELET,
            },
        ])
    }

    fn kubelet(&self) -> serde_json::Value {
        let mut settings = node::settings::kubelet(
            Path::new("/etc/kubernetes/pki/ca.crt"),
            self.group,
            Path::new("/etc/resolv.conf"),
        );
        settings["staticPodPath"] = json!("/etc/kubernetes/manifests");
        // As kind does it: a kubelet that cleaned up and evicted by itself would be what is looked at here.
        settings["evictionHard"] = json!({
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        });
        settings
    }

    fn kubeadm(&self) -> String {
        let first = json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "InitConfiguration",
            "nodeRegistration": {
                "name": self.node,
                "criSocket": "unix:///run/containerd/containerd.sock",
            },
            "localAPIEndpoint": {"advertiseAddress": self.address, "bindPort": 6443},
        });
        let cluster = json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "ClusterConfiguration",
            "kubernetesVersion": self.kubernetes.version(),
            "imageRepository": REGISTRY,
            "networking": {"serviceSubnet": SERVICES},
            "apiServer": {"certSANs": ["localhost", "127.0.0.1"]},
            "etcd": {"local": {"dataDir": "/var/lib/etcd", "imageTag": self.etcd_tag()}},
        });
        format!("{first:#}\n---\n{cluster:#}\n")
    }
}
