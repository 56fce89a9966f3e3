//! What the programs of every kind of node are told in the same way: the container runtime, the pods' network, the kubelet.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::files;
use crate::image;

/// Where Debian puts the plugins that give pods their network.
pub(crate) const NETWORK_PLUGINS: &str = "/usr/lib/cni";

/// The address of the Service that resolves names; the tenth, as everywhere.
pub(crate) const DNS_SERVICE: &str = "10.96.0.10";

/// The domain of Services.
pub(crate) const DOMAIN: &str = "cluster.local";

/// Kernel settings that a kubelet writes when they are others.
const KERNEL: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// The files that stand for kernel settings on a node, and what each is mounted on.
pub(crate) fn kernel(directory: &Path) -> impl Iterator<Item = (PathBuf, String)> {
    KERNEL.into_iter().map(move |(name, _)| {
        (
            directory.join(name.replace('/', "-")),
            format!("/proc/sys/{name}"),
        )
    })
}

/// Writes these files.
pub(crate) fn write_kernel(directory: &Path) -> anyhow::Result<()> {
    for ((file, _), (_, value)) in kernel(directory).zip(KERNEL) {
        files::write_private(&file, &format!("{value}\n"))?;
    }
    Ok(())
}

/// `restrict_oom_score_adj`: a process without `CAP_SYS_RESOURCE` may not lower the score of a pod's first process, and
/// without this setting no pod would start. The plugin `opt` would make a directory on the machine.
pub(crate) fn containerd(networks: &Path) -> String {
    let mut text = String::new();
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
        format!("conf_dir = \"{}\"", networks.display()),
    ];
    for line in lines {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{line}");
    }
    text
}

/// Each pod has a link of its own to its node, and everything that it sends is routed there. On a bridge, answers between
/// two pods of one node would bypass the rules of Services unless the kernel's bridge filter is loaded.
pub(crate) fn pod_network(range: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "nagi",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": range}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// A kubelet that believes the authority, and keeps its pods below a control group.
pub(crate) fn kubelet(authority: &Path, group: &str, resolver: &Path) -> Value {
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
        "cgroupRoot": format!("/{group}"),
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": DOMAIN,
        "resolvConf": resolver,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "serializeImagePulls": false,
        // The disk is the machine's; a test cluster must neither suffer from how full it is nor clean it up.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
    })
}
