//! What was found out, as plain values: no rule looks at anything else.
//!
//! Every area is a [`Looked`]: what was seen, or why it was not. "Not seen" is never "not there": a rule that needs an
//! area says nothing where it was not looked at, and the answer names the area with its reason.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use crate::certificate::Certificate;

/// What was seen of an area, or why nothing was.
pub type Looked<T> = Result<T, Unseen>;

/// Why an area was not seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unseen {
    /// There is nothing of the kind on this machine, or it was asked not to look; nobody needs to worry.
    NotHere(String),
    /// It may be there, and could not be looked at: whatever is wrong there stays unknown.
    Failed(String),
}

/// An area that is looked at, in the order in which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// The API server, as the kubeconfig reaches it.
    Endpoint,
    /// Space, inodes, and whether they can be written.
    Filesystems,
    /// The services of systemd.
    Units,
    /// Who listens on which port.
    Listeners,
    /// The containers of the static pods.
    Containers,
    /// The manifests of the static pods.
    Manifests,
    /// The store of the API server.
    Etcd,
    /// Certificates in files and kubeconfigs.
    Certificates,
    /// Journals and logs.
    Logs,
}

/// Everything that was found out.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Where the root of the node is seen: commands that are advised run on this machine.
    pub root: PathBuf,
    /// API servers that a kubeconfig leads to.
    pub endpoint: Looked<Endpoint>,
    /// Filesystems on which the node lives.
    pub filesystems: Looked<Vec<Filesystem>>,
    /// Services of the node.
    pub units: Looked<Vec<Unit>>,
    /// Listening TCP ports of this machine.
    pub listeners: Looked<Vec<Listener>>,
    /// What the container runtime runs for the control plane.
    pub containers: Looked<Runtime>,
    /// Manifests of static pods.
    pub manifests: Looked<Vec<Manifest>>,
    /// The store.
    pub etcd: Looked<Etcd>,
    /// Every certificate that was found in a file.
    pub certificates: Looked<Vec<CertificateFile>>,
    /// Lines of logs that mean something, oldest first.
    pub lines: Looked<Vec<Line>>,
    /// The newest time that something on this node was written with, by its journals and its store; a clock that stands
    /// before it is slow.
    pub newest_write: Option<(PathBuf, Timestamp)>,
    /// Parts of areas that were seen otherwise, and could not be looked at.
    pub partly_unseen: Vec<(Area, Unseen)>,
}

/// The API server, as one kubeconfig reaches it.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// The kubeconfig, as programs of this machine reach it; several are parted by colons.
    pub kubeconfig: String,
    /// The one of them that has the cluster, which is the one to edit; empty when none has.
    pub holder: String,
    /// Its context; empty when it has none.
    pub context: String,
    /// The name of the cluster in it, which `kubectl config set-cluster` takes.
    pub cluster: String,
    /// The URL as it stands there.
    pub server: String,
    /// The name that the certificate must have.
    pub expected_name: String,
    /// What came of it.
    pub reach: Reach,
    /// The certificate that was presented, also where it was not accepted.
    pub presented: Option<Certificate>,
    /// The certificate with which the caller shows who it is.
    pub client: Option<Certificate>,
    /// The program that listens there, when the address is one of this machine and it can be told.
    pub listener: Option<String>,
    /// How far the clock of the API server is ahead of ours, in seconds, by its `Date`; which has whole seconds.
    pub clock_ahead_seconds: Option<i64>,
}

/// How far a call to an API server came. Each is one class and never two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// It answers, and says that it is ready.
    Ready,
    /// Nothing listens on the port.
    Refused,
    /// A tunnel listens on this machine, and nothing behind it.
    RefusedThroughTunnel,
    /// No answer in time.
    TimedOut {
        /// What it was waited for.
        stage: Stage,
        /// For how long.
        after: Duration,
    },
    /// The name of the server has no address.
    Unresolved(String),
    /// The network says that the way does not exist.
    Unreachable(String),
    /// The connection was closed before anything was said, by something that is no known tunnel.
    Closed,
    /// The certificate is for other names.
    TlsName,
    /// The certificate has ended.
    TlsExpired,
    /// The certificate has not begun.
    TlsNotYetValid,
    /// The certificate is of an authority that the kubeconfig does not trust.
    TlsUnknownAuthority,
    /// TLS failed in another way.
    TlsFailed(String),
    /// 401: the credentials are not accepted.
    Unauthorized,
    /// 403: the credentials are accepted, and may not do this.
    Forbidden,
    /// It answers, and says that it is not ready.
    NotReady {
        /// The checks that fail, as `/readyz?verbose` names them.
        failed: Vec<String>,
    },
    /// It answers with something that no API server says.
    Odd(String),
    /// The kubeconfig cannot be used as far as this.
    Unusable(String),
}

/// What a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The address of a name.
    Name,
    /// The TCP connection.
    Connection,
    /// The TLS handshake.
    Handshake,
    /// The answer to the request.
    Answer,
}

/// A filesystem on which something of the node lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filesystem {
    /// Where it is mounted on this machine, which is below [`Observed::root`] where that is another one's.
    pub point: PathBuf,
    /// The type, as the kernel calls it.
    pub fstype: String,
    /// Whether it can be written to.
    pub writable: Writable,
    /// How full it is; none when it did not answer.
    pub space: Option<Space>,
    /// Directories of the node that live on it, as the node calls them.
    pub holds: Vec<PathBuf>,
    /// What kubelet says of it by its own thresholds: it kills pods now.
    pub evicting: Vec<String>,
}

/// Whether a filesystem can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writable {
    /// It can.
    Yes,
    /// Not through this mount.
    NotThisMount,
    /// Nobody can: it was mounted so.
    No,
    /// Nobody can, through a mount that was made for writing: the kernel withdrew it after an error.
    Withdrawn,
}

/// Space and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All bytes that data can ever take.
    pub bytes: u64,
    /// Bytes that nothing takes, the reserve for root with them.
    pub bytes_free: u64,
    /// Bytes that anybody can still write.
    pub bytes_available: u64,
    /// All inodes; 0 when there is no limit.
    pub inodes: u64,
    /// Inodes that nothing takes.
    pub inodes_free: u64,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name: `kubelet.service`.
    pub name: String,
    /// systemd knows it.
    pub is_known: bool,
    /// `active`, `inactive`, `failed`, `activating`.
    pub state: String,
    /// `running`, `auto-restart`, `dead`.
    pub substate: String,
    /// How often systemd started it again.
    pub restarts: u64,
    /// Why it last ended: `exit-code`, `oom-kill`.
    pub result: String,
    /// For how long it has been active; none when it is not, or does not tell.
    pub active_for: Option<Duration>,
}

/// A listening TCP port of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// The process and its name, when it can be told.
    pub process: Option<(u32, String)>,
}

/// The container runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Its socket.
    pub socket: PathBuf,
    /// What it said.
    pub answer: RuntimeAnswer,
}

/// What a container runtime said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeAnswer {
    /// Its containers.
    Containers(Vec<Container>),
    /// Nobody listens on the socket.
    Down(String),
    /// It takes calls and does not answer.
    Silent(Duration),
    /// It answers with a failure.
    Failed(String),
}

/// A container of the namespace `kube-system`, or of a static pod of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// The namespace of its pod.
    pub namespace: String,
    /// Its pod; the name of a static pod has that of the node behind it.
    pub pod: String,
    /// Its name in the pod: `kube-apiserver`.
    pub name: String,
    /// What it does.
    pub state: ContainerState,
    /// How often it was started before.
    pub attempt: u32,
}

/// What a container does, as the CRI calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// It was made and not started.
    Created,
    /// It runs.
    Running,
    /// It ended.
    Exited,
    /// The runtime does not know.
    Unknown,
}

/// The manifest of a static pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The file, as the node calls it.
    pub path: PathBuf,
    /// What it says, or why it cannot be read.
    pub pod: Result<StaticPod, String>,
}

/// A static pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticPod {
    /// The name of the pod, which is that of its container for the parts of a control plane.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The name of the pod in its manifest.
    pub pod: String,
    /// Flags of its first container that begin with `--`, name and value.
    pub flags: Vec<(String, String)>,
    /// What is mounted in that container, and which path of the node it is; none where it is none.
    pub mounts: Vec<(PathBuf, Option<PathBuf>)>,
    /// Files that it needs and that are not there, as the node calls them.
    pub missing: Vec<PathBuf>,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// Where clients reach it.
    pub endpoint: String,
    /// Where its data are, as the node calls it; as its container does where that is not known.
    pub data_dir: PathBuf,
    /// It is known.
    pub is_placed: bool,
    /// The mount point of the filesystem with them.
    pub point: Option<PathBuf>,
    /// What it says.
    pub answer: EtcdAnswer,
    /// Files that an etcd which met a full disk leaves behind, of those that mean harm: `*.snap.broken` that came after the
    /// last write of its data. With older ones it has run since.
    pub broken: Vec<PathBuf>,
}

/// What the store says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtcdAnswer {
    /// It answers.
    Status(EtcdStatus),
    /// Nobody listens.
    Refused,
    /// It does not answer in time, or ends the connection.
    Failed(String),
    /// Somebody answers, and not as etcd does to this call, or in a TLS that is not accepted here: how etcd is is not known.
    Odd(String),
}

/// The state of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdStatus {
    /// Its version: `3.5.17`.
    pub version: String,
    /// Bytes of its file.
    pub db_size: u64,
    /// Bytes of them that hold data.
    pub db_size_in_use: u64,
    /// Bytes at which it raises the alarm; none when it does not tell.
    pub quota: Option<u64>,
    /// There is a leader.
    pub has_leader: bool,
    /// This member is it.
    pub is_leader: bool,
    /// The alarm NOSPACE is that of this member, and not of another.
    pub is_alarm_own: bool,
    /// Alarms, as etcd calls them: `NOSPACE`, `CORRUPT`. It reads them through raft, so one without a leader, or one that is
    /// slow, may tell the rest and not these.
    pub alarms: Looked<Vec<String>>,
}

/// A certificate in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFile {
    /// The file, as the node calls it; of a kubeconfig with what it is in there: `admin.conf (client)`.
    pub place: String,
    /// What is in it, or why it cannot be read.
    pub certificate: Result<Certificate, String>,
    /// Something of the control plane reads it, by its name or by the flags of a static pod; others only lie there.
    pub is_used: bool,
    /// Its authority, where it is known which must have signed it.
    pub authority: Option<Signed>,
}

/// Whether the authority that must have signed a certificate did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The file of the authority.
    pub by: String,
    /// It did.
    pub matches: bool,
}

/// A line of a log that means something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was written; none when the log does not tell.
    pub at: Option<Timestamp>,
    /// Who wrote it: `kubelet`, `etcd`, or the file.
    pub source: String,
    /// What it means.
    pub class: LineClass,
    /// The line.
    pub text: String,
    /// The mount point of the filesystem that its path lies on, for [`LineClass::NoSpace`].
    pub point: Option<PathBuf>,
}

/// What a line of a log means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineClass {
    /// ENOSPC of a filesystem, with the path where it is said.
    NoSpace(Option<PathBuf>),
    /// ENOSPC that is no disk: watches of inotify are used up.
    InotifyLimit,
    /// ENOSPC that is no disk: a control group or another file of the kernel has a limit.
    KernelLimit(PathBuf),
    /// A quota of a user, group or project.
    Quota,
    /// EROFS.
    ReadOnly,
    /// etcd is above its own quota.
    EtcdQuota,
    /// etcd finds its files damaged.
    EtcdDamaged,
    /// The kernel ended a process for want of memory.
    OutOfMemory,
    /// kubelet does not start with swap.
    Swap,
    /// The port is taken.
    PortTaken,
    /// An image cannot be had.
    Image,
    /// ssh: the tunnel works and nothing listens behind it.
    TunnelRefused,
}

// === impl LineClass ===

impl LineClass {
    /// Its name in answers.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoSpace(_) => "no-space",
            Self::InotifyLimit => "inotify-limit",
            Self::KernelLimit(_) => "kernel-limit",
            Self::Quota => "quota",
            Self::ReadOnly => "read-only",
            Self::EtcdQuota => "etcd-quota",
            Self::EtcdDamaged => "etcd-damaged",
            Self::OutOfMemory => "out-of-memory",
            Self::Swap => "swap",
            Self::PortTaken => "port-taken",
            Self::Image => "image",
            Self::TunnelRefused => "tunnel-refused",
        }
    }
}

/// The deepest mount that has the path decides.
pub(crate) fn on_the_node(mounts: &[(PathBuf, Option<PathBuf>)], path: &Path) -> Option<PathBuf> {
    let over = mounts.iter().filter(|(mount, _)| path.starts_with(mount));
    let (mount, host) = over.max_by_key(|(mount, _)| mount.components().count())?;
    let below = path.strip_prefix(mount).ok()?;
    let host = host.as_ref()?;
    if below.as_os_str().is_empty() {
        return Some(host.clone());
    }
    Some(host.join(below))
}

// === impl Unseen ===

impl Unseen {
    /// The reason.
    pub fn why(&self) -> &str {
        match self {
            Self::NotHere(why) | Self::Failed(why) => why,
        }
    }
}

// === impl Area ===

impl Area {
    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "API server",
            Self::Filesystems => "filesystems",
            Self::Units => "units",
            Self::Listeners => "ports",
            Self::Containers => "containers",
            Self::Manifests => "manifests",
            Self::Etcd => "etcd",
            Self::Certificates => "certificates",
            Self::Logs => "logs",
        }
    }
}

// === impl Observed ===

impl Observed {
    /// What was not seen, in the order in which it was looked for.
    pub fn unseen(&self) -> Vec<(Area, &Unseen)> {
        let areas = [
            (Area::Endpoint, self.endpoint.as_ref().err()),
            (Area::Filesystems, self.filesystems.as_ref().err()),
            (Area::Units, self.units.as_ref().err()),
            (Area::Listeners, self.listeners.as_ref().err()),
            (Area::Containers, self.containers.as_ref().err()),
            (Area::Manifests, self.manifests.as_ref().err()),
            (Area::Etcd, self.etcd.as_ref().err()),
            (Area::Certificates, self.certificates.as_ref().err()),
            (Area::Logs, self.lines.as_ref().err()),
        ];
        let parts = self.partly_unseen.iter().map(|(area, why)| (*area, why));
        let mut unseen: Vec<(Area, &Unseen)> = areas
            .into_iter()
            .filter_map(|(area, why)| Some((area, why?)))
            .chain(parts)
            .collect();
        unseen.sort_by_key(|(area, _)| *area);
        unseen
    }
}

// === impl Filesystem ===

impl Filesystem {
    /// It lies in memory and ends with the boot.
    pub fn is_memory(&self) -> bool {
        matches!(self.fstype.as_str(), "tmpfs" | "ramfs" | "devtmpfs")
    }
}

// === impl Space ===

impl Space {
    /// Bytes that are taken.
    pub const fn used(&self) -> u64 {
        self.bytes.saturating_sub(self.bytes_free)
    }

    /// Free bytes that only root may write.
    pub const fn reserved(&self) -> u64 {
        self.bytes_free.saturating_sub(self.bytes_available)
    }

    /// How much is used, as df says it: of what anybody may write, rounded up. None of a filesystem without bytes.
    pub fn used_percent(&self) -> Option<u64> {
        let used = u128::from(self.used());
        let whole = used + u128::from(self.bytes_available);
        let percent = (used * 100).checked_add(whole.checked_sub(1)?)? / whole;
        u64::try_from(percent).ok()
    }
}

// === impl StaticPod ===

impl StaticPod {
    /// This container is its first one.
    pub fn has(&self, container: &Container) -> bool {
        // kubelet puts the name of the node behind that of the pod.
        let rest = container.pod.strip_prefix(self.pod.as_str());
        container.namespace == self.namespace
            && container.name == self.name
            && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// The value of a flag.
    pub fn flag(&self, name: &str) -> Option<&str> {
        let found = self.flags.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Where a path in its container lies on the node; none when nothing of the node is mounted there.
    pub fn on_the_node(&self, path: &Path) -> Option<PathBuf> {
        on_the_node(&self.mounts, path)
    }
}
