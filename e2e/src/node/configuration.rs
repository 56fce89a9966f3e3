//! What the programs of a node are told: their arguments and files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::json;

use super::{NodeKind, Surroundings};
use crate::call::on_path;
use crate::control_plane::certificates;
use crate::files;
use crate::image;
use crate::process::{Component, Place};

/// Where Debian puts the plugins that give pods their network.
pub(super) const NETWORK_PLUGINS: &str = "/usr/lib/cni";

/// The address of the Service that resolves names; the tenth, as everywhere.
pub(crate) const DNS_SERVICE: &str = "10.96.0.10";

/// The domain of Services.
pub(crate) const DOMAIN: &str = "cluster.local";

/// Directories of the machine that a node has its own of.
const OWN_DIRECTORIES: [(&str, &str); 3] = [
    ("run", "/run"),
    ("var-lib", "/var/lib"),
    ("var-log", "/var/log"),
];

/// Kernel settings that a kubelet writes when they are others.
const KERNEL_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Makes the mounts of a node and keeps their namespace while the other programs come and go. Names of other network
/// namespaces are left out: a copy of such a mount would keep a namespace alive that its owner has deleted.
const HOLDER: &str = r#"set -eu
if [ -e /run/netns ]; then umount --recursive --lazy /run/netns || true; fi
while [ "$#" -gt 0 ]; do
    mount --bind "$1" "$2"
    shift 2
done
mount --make-rshared /
touch /run/ready
exec sleep infinity
"#;

/// Everything that the arguments depend on.
#[derive(Debug)]
pub(super) struct Configuration<'a> {
    pub(super) surroundings: &'a Surroundings,
    pub(super) kind: &'a NodeKind,
    /// The control group below which the kubelet keeps the pods'.
    pub(super) group: &'a str,
    pub(super) directory: PathBuf,
}

// === impl Configuration ===

impl Configuration<'_> {
    fn component(
        &self,
        name: &str,
        program: PathBuf,
        place: &Place,
        arguments: Vec<String>,
    ) -> Component {
        Component {
            name: name.to_owned(),
            program,
            arguments,
            environment: Vec::new(),
            place: place.clone(),
            log: self.directory.join("logs").join(format!("{name}.log")),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn kernel_setting(&self, name: &str) -> PathBuf {
        self.file("kernel").join(name.replace('/', "-"))
    }

    /// Writes the files that the arguments name.
    pub(super) fn write_files(&self) -> anyhow::Result<()> {
        for (own, machines) in OWN_DIRECTORIES {
            if self.directory.starts_with(machines) {
                bail!(
                    "{} lies in {machines}, and each node has its own {machines}\n\
                     hint: set NAGI_CACHE to a directory elsewhere",
                    self.directory.display()
                );
            }
            let own = self.file(own);
            std::fs::create_dir_all(&own).with_context(|| format!("create {}", own.display()))?;
        }
        for (name, value) in KERNEL_SETTINGS {
            files::write_private(&self.kernel_setting(name), &format!("{value}\n"))?;
        }
        files::write_private(&self.file("containerd.toml"), &self.containerd_settings())?;
        files::write_json(&self.file("cni/10-nagi.conflist"), &self.pod_network())?;
        files::write_json(&self.file("kubelet.json"), &self.kubelet_settings())?;
        files::write_json(&self.file("kube-proxy.json"), &self.kube_proxy_settings())?;
        // Nothing outside the cluster is resolved: there is no way to it.
        files::write_private(&self.file("resolv.conf"), "")
    }

    /// The process that keeps the mounts.
    pub(super) fn holder(&self) -> Component {
        let mut arguments: Vec<String> = ["--mount", "--propagation=private", "--", "sh", "-c"]
            .map(str::to_owned)
            .to_vec();
        arguments.extend([HOLDER.to_owned(), "node".to_owned()]);
        // The settings first: later mounts do not hide their files, wherever the cache is.
        for (name, _) in KERNEL_SETTINGS {
            arguments.push(self.kernel_setting(name).display().to_string());
            arguments.push(format!("/proc/sys/{name}"));
        }
        for (own, machines) in OWN_DIRECTORIES {
            arguments.push(self.file(own).display().to_string());
            arguments.push(machines.to_owned());
        }
        self.component(
            "mounts",
            PathBuf::from("unshare"),
            &Place::default(),
            arguments,
        )
    }

    pub(super) fn containerd(&self, place: &Place) -> anyhow::Result<Component> {
        let Some(program) = on_path("containerd") else {
            bail!("there is no containerd\nhint: run 'cargo xtask cluster setup'");
        };
        let settings = self.file("containerd.toml").display().to_string();
        let arguments = vec!["--config".to_owned(), settings];
        Ok(self.component("containerd", program, place, arguments))
    }

    pub(super) fn kubelet(&self, place: &Place, kubeconfig: &Path) -> Component {
        let labels = self
            .kind
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(",");
        let address = self.surroundings.network.addresses.node(self.kind.number);
        let arguments = vec![
            format!("--config={}", self.file("kubelet.json").display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--hostname-override={}", self.kind.name),
            format!("--node-ip={address}"),
            format!("--node-labels={labels}"),
        ];
        let program = self.surroundings.kubernetes.program("kubelet");
        self.component("kubelet", program, place, arguments)
    }

    pub(super) fn kube_proxy(&self, place: &Place) -> Component {
        let settings = self.file("kube-proxy.json");
        let arguments = vec![format!("--config={}", settings.display())];
        let program = self.surroundings.kubernetes.program("kube-proxy");
        self.component("kube-proxy", program, place, arguments)
    }

    pub(super) fn device_plugin(&self, place: &Place) -> Option<Component> {
        let (resource, count) = self.kind.devices.as_ref()?;
        let arguments = vec![format!("-resource={resource}"), format!("-count={count}")];
        let program = self.surroundings.stand_ins.program("device-plugin");
        Some(self.component("device-plugin", program, place, arguments))
    }

    /// `restrict_oom_score_adj`: a process without `CAP_SYS_RESOURCE` may not lower the score of a pod's first process, and
    /// without this setting no pod would start. The plugin `opt` would make a directory on the machine.
    fn containerd_settings(&self) -> String {
        let mut text = String::new();
        let configuration = self.file("cni");
        let lines = [
            "version = 2".to_owned(),
            "root = \"/var/lib/containerd\"".to_owned(),
            "state = \"/run/containerd\"".to_owned(),
            "disabled_plugins = [\"io.containerd.internal.v1.opt\"]".to_owned(),
            "[grpc]".to_owned(),
            "address = \"/run/containerd/containerd.sock\"".to_owned(),
            "[plugins.\"io.containerd.grpc.v1.cri\"]".to_owned(),
            format!("sandbox_image = \"{}\"", image::PAUSE),
            "restrict_oom_score_adj = true".to_owned(),
            "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]".to_owned(),
            "runtime_type = \"io.containerd.runc.v2\"".to_owned(),
            "[plugins.\"io.containerd.grpc.v1.cri\".cni]".to_owned(),
            format!("bin_dir = \"{NETWORK_PLUGINS}\""),
            format!("conf_dir = \"{}\"", configuration.display()),
        ];
        for line in lines {
            // Writing to a string cannot fail.
            let _written = writeln!(text, "{line}");
        }
        text
    }

    /// Each pod has a link of its own to its node, and everything that it sends is routed there. On a bridge, answers between
    /// two pods of one node would bypass the rules of Services unless the kernel's bridge filter is loaded.
    fn pod_network(&self) -> serde_json::Value {
        json!({
            "cniVersion": "1.0.0",
            "name": "nagi",
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": false,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": self.surroundings.network.addresses.pods(self.kind.number)}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        })
    }

    fn kubelet_settings(&self) -> serde_json::Value {
        let authority = certificates(&self.surroundings.cluster).join("ca.crt");
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": authority},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.group),
            "failCgroupV1": false,
            "failSwapOn": false,
            "oomScoreAdj": 0,
            "clusterDNS": [DNS_SERVICE],
            "clusterDomain": DOMAIN,
            "resolvConf": self.file("resolv.conf"),
            "registerWithTaints": self.kind.taints,
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "serializeImagePulls": false,
            // The disk is the machine's; a test cluster must neither suffer from how full it is nor clean it up.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
        })
    }

    fn kube_proxy_settings(&self) -> serde_json::Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": self.surroundings.cluster.join("kube-proxy.kubeconfig")},
            "mode": "iptables",
            "hostnameOverride": self.kind.name,
            "clusterCIDR": self.surroundings.network.addresses.range(),
            // Limits of connection tracking are the machine's, and not written from a namespace.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
            "oomScoreAdj": 0,
        })
    }
}
