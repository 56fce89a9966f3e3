//! The rules of ownership: which directory is whose. Only data.
//!
//! A path is absolute on the node. A component may be `*`, or end with one. The nearest rule above a file decides.

use crate::owner::{Class, Owner};

/// What there is to know of an owner.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) owner: Owner,
    pub(crate) name: &'static str,
    pub(crate) class: Class,
    /// How its space comes back.
    pub(crate) lever: Option<&'static str>,
}

/// Nobody known.
pub(crate) const UNKNOWN: Row = row(Owner::Unknown, "unknown", Class::Unknown, None);

/// Every owner. The first is nobody.
pub(crate) const ROWS: &[Row] = &[
    UNKNOWN,
    row(
        Owner::ContainerdContent,
        "containerd content",
        Class::Owner,
        Some("images that nothing uses go through the CRI: nagi disk clean --only images"),
    ),
    row(
        Owner::ContainerdIngest,
        "containerd ingest",
        Class::Owner,
        Some("pulls under way or given up: containerd collects them when their lease ends"),
    ),
    row(
        Owner::ContainerdSnapshots,
        "containerd snapshots",
        Class::Owner,
        Some(
            "unused images and dead containers go through the CRI: nagi disk clean --only images,containers",
        ),
    ),
    row(
        Owner::Containerd,
        "containerd",
        Class::Owner,
        Some("containerd itself; never remove files here"),
    ),
    row(
        Owner::KubeletPods,
        "kubelet pods",
        Class::Owner,
        Some("delete the pod; kubelet removes its directory"),
    ),
    row(
        Owner::KubeletEmptyDir,
        "kubelet emptyDir",
        Class::Owner,
        Some("delete the pod, or give the volume a sizeLimit"),
    ),
    row(
        Owner::Kubelet,
        "kubelet",
        Class::Owner,
        Some("kubelet itself; never remove files here"),
    ),
    row(
        Owner::PodLogs,
        "pod logs",
        Class::Owner,
        Some("kubelet rotates them: containerLogMaxSize, containerLogMaxFiles"),
    ),
    row(
        Owner::PodLogsRotated,
        "pod logs, rotated",
        Class::Nagi,
        Some("old logs of containers; gone with the pod anyway"),
    ),
    row(
        Owner::Etcd,
        "etcd",
        Class::Owner,
        Some("compact and defragment through its API; never remove files here"),
    ),
    row(Owner::DockerVolumes, "docker volumes", Class::Human, None),
    row(
        Owner::DockerLogs,
        "docker logs",
        Class::Owner,
        Some("set max-size and max-file of the json-file driver in daemon.json"),
    ),
    row(
        Owner::Docker,
        "docker",
        Class::Owner,
        Some("docker system prune"),
    ),
    row(
        Owner::ContainersStorage,
        "CRI-O and podman",
        Class::Owner,
        Some("images that nothing uses go through the CRI: nagi disk clean --only images"),
    ),
    row(
        Owner::SnapRevisions,
        "snap revisions",
        Class::Owner,
        Some("snap remove NAME --revision=REV of disabled ones; then the cache"),
    ),
    row(
        Owner::SnapCache,
        "snap cache",
        Class::Owner,
        Some("files that are installed too free nothing: remove disabled revisions first"),
    ),
    row(
        Owner::Snapd,
        "snapd",
        Class::Owner,
        Some("snapd itself; never remove files here"),
    ),
    row(
        Owner::AptArchives,
        "apt packages",
        Class::Nagi,
        Some("apt-get clean"),
    ),
    row(
        Owner::AptLists,
        "apt lists",
        Class::Owner,
        Some(
            "apt-get distclean, where apt has it; apt-get update brings them back, with a network",
        ),
    ),
    row(
        Owner::Dnf,
        "dnf and yum",
        Class::Owner,
        Some("dnf clean packages, or yum clean packages"),
    ),
    row(
        Owner::JournalArchived,
        "journal, archived",
        Class::Nagi,
        Some("journalctl --vacuum-time=2d, and SystemMaxUse as a cap"),
    ),
    row(
        Owner::JournalActive,
        "journal, active",
        Class::Owner,
        Some("journalctl --rotate makes them archived ones"),
    ),
    row(
        Owner::JournalOther,
        "journal, other",
        Class::Human,
        Some("of another machine, or in memory: journalctl --directory=DIR --vacuum-time=2d"),
    ),
    row(
        Owner::Coredumps,
        "coredumps",
        Class::Nagi,
        Some("evidence of crashes: look at them first; MaxUse as a cap"),
    ),
    row(Owner::Logs, "other logs", Class::Human, Some("logrotate")),
    row(Owner::Temporary, "temporary", Class::Human, None),
    row(Owner::Home, "homes", Class::Human, None),
    row(Owner::Services, "services", Class::Human, None),
    row(Owner::System, "system", Class::Human, None),
    row(
        Owner::Boot,
        "boot",
        Class::Human,
        Some("apt-get autoremove takes old kernels away"),
    ),
    row(Owner::Swap, "swap", Class::Human, None),
];

/// Where journals are kept, in a directory for each machine.
pub(crate) const JOURNALS: &str = "/var/log/journal";

/// Whose what is. A later rule of the same place wins.
pub(crate) const RULES: &[(&str, Owner)] = &[
    ("/var/lib/kubelet", Owner::Kubelet),
    ("/var/lib/kubelet/pods", Owner::KubeletPods),
    (
        "/var/lib/kubelet/pods/*/volumes/kubernetes.io~empty-dir",
        Owner::KubeletEmptyDir,
    ),
    ("/var/log/pods", Owner::PodLogs),
    // Links of kubelet, and nothing else.
    ("/var/log/containers", Owner::Kubelet),
    ("/var/lib/etcd", Owner::Etcd),
    ("/var/lib/k0s/etcd", Owner::Etcd),
    ("/var/lib/rancher/k3s/server/db", Owner::Etcd),
    ("/var/lib/rancher/rke2/server/db", Owner::Etcd),
    ("/var/lib/docker", Owner::Docker),
    ("/var/lib/docker/volumes", Owner::DockerVolumes),
    ("/var/lib/containers", Owner::ContainersStorage),
    ("/var/lib/snapd", Owner::Snapd),
    ("/var/lib/snapd/snaps", Owner::SnapRevisions),
    ("/var/lib/snapd/cache", Owner::SnapCache),
    ("/var/cache/apt", Owner::AptArchives),
    ("/var/lib/apt", Owner::System),
    ("/var/lib/apt/lists", Owner::AptLists),
    ("/var/cache/dnf", Owner::Dnf),
    ("/var/cache/yum", Owner::Dnf),
    ("/var/cache/libdnf5", Owner::Dnf),
    ("/var/log", Owner::Logs),
    // But for that of this machine, which only its id tells.
    (JOURNALS, Owner::JournalOther),
    ("/run/log/journal", Owner::JournalOther),
    ("/var/lib/systemd/coredump", Owner::Coredumps),
    ("/var/crash", Owner::Coredumps),
    ("/tmp", Owner::Temporary),
    ("/var/tmp", Owner::Temporary),
    ("/home", Owner::Home),
    ("/root", Owner::Home),
    ("/srv", Owner::Services),
    ("/opt", Owner::Services),
    ("/var/lib/mysql", Owner::Services),
    ("/var/lib/postgresql", Owner::Services),
    ("/var/lib/prometheus", Owner::Services),
    ("/boot", Owner::Boot),
    ("/usr", Owner::System),
    ("/bin", Owner::System),
    ("/sbin", Owner::System),
    ("/lib*", Owner::System),
    ("/etc", Owner::System),
    ("/var/lib/dpkg", Owner::System),
    ("/var/lib/rpm", Owner::System),
    ("/swap*", Owner::Swap),
];

/// Where a containerd keeps what it keeps; every distribution has its own.
pub(crate) const CONTAINERD_ROOTS: &[&str] = &[
    "/var/lib/containerd",
    "/var/lib/k0s/containerd",
    "/var/lib/rancher/k3s/agent/containerd",
    "/var/lib/rancher/rke2/agent/containerd",
    "/var/snap/microk8s/common/var/lib/containerd",
];

/// Whose the parts of such a root are.
pub(crate) const CONTAINERD_RULES: &[(&str, Owner)] = &[
    ("", Owner::Containerd),
    (
        "/io.containerd.content.v1.content",
        Owner::ContainerdContent,
    ),
    (
        "/io.containerd.content.v1.content/ingest",
        Owner::ContainerdIngest,
    ),
    (
        "/io.containerd.snapshotter.v1.*",
        Owner::ContainerdSnapshots,
    ),
];

/// The paths whose filesystems decide whether a node lives.
pub(crate) const GUARDED: &[&str] = &[
    "/",
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/var/lib/rancher",
    "/var/lib/k0s",
    "/var/lib/docker",
    "/var/lib/containers",
    "/var/lib/etcd",
    "/var/lib/snapd",
    "/var/log",
    "/var/tmp",
    "/run",
    "/tmp",
];

const fn row(owner: Owner, name: &'static str, class: Class, lever: Option<&'static str>) -> Row {
    Row {
        owner,
        name,
        class,
        lever,
    }
}
