//! What the programs of a node are told: their arguments and files.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::json;

use super::{NodeKind, Surroundings, settings};
use crate::call::on_path;
use crate::control_plane::certificates;
use crate::files;
use crate::process::{Component, Place};

/// Directories of the machine that a node has its own of.
const OWN_DIRECTORIES: [(&str, &str); 3] = [
    ("run", "/run"),
    ("var-lib", "/var/lib"),
    ("var-log", "/var/log"),
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
        settings::write_kernel(&self.file("kernel"))?;
        let networks = self.file("cni");
        files::write_private(
            &self.file("containerd.toml"),
            &settings::containerd(&networks),
        )?;
        let pods = self.surroundings.network.addresses.pods(self.kind.number);
        files::write_json(
            &networks.join("10-nagi.conflist"),
            &settings::pod_network(&pods),
        )?;
        let authority = certificates(&self.surroundings.cluster).join("ca.crt");
        let mut kubelet = settings::kubelet(&authority, self.group, &self.file("resolv.conf"));
        kubelet["registerWithTaints"] = json!(self.kind.taints);
        files::write_json(&self.file("kubelet.json"), &kubelet)?;
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
        for (file, setting) in settings::kernel(&self.file("kernel")) {
            arguments.push(file.display().to_string());
            arguments.push(setting);
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
