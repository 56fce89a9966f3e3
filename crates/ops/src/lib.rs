//! Operations on a cluster that may be down.
//!
//! The shape is that of the whole project, with people at its end: facts are collected into a plain value
//! ([`observe()`] makes an [`Observed`]), a pure function judges them ([`decide()`]), and what it says names evidence, the next
//! command, and what would show that it is wrong. It needs no API server, no network and no kubeconfig.
//!
//! Looking and judging change nothing. What does is asked for by name: [`recover`] on the node, the edits of a kubeconfig and
//! of the hosts file, and what runs on another machine through the system's `ssh`.
//!
//! Disks are seen by whoever knows them, through [`Disks`]: the node guard is a neighbour, which only the binary knows.

mod ask;
mod cause;
mod certificate;
mod certificates;
mod classes;
mod cri;
mod decide;
mod edit;
mod endpoint;
mod etcd;
mod hosts;
mod kubeconfig;
mod listeners;
mod logs;
mod manifests;
mod mounted;
mod observe;
mod observed;
mod policy;
pub mod recover;
mod remote;
mod root;
mod ssh;
mod tunnel;
mod units;

pub use cause::{Cause, NOT_RENEWED, ROWS, Row};
pub use certificate::Certificate;
pub use decide::{Defrag, Diagnosis, Finding, Floor, Verdict, decide, defrag, floors};
pub use hosts::{HostsChange, HostsEntry, HostsError, HostsPlan, HostsStep, plan_hosts};
pub use kubeconfig::{
    Check, Checked, KubeconfigEdit, KubeconfigError, KubeconfigPlan, Server, plan_kubeconfig,
    undo_kubeconfig,
};
pub use observe::{Disks, Request, has_admin, observe};
pub use observed::{
    Area, CertificateFile, Container, ContainerState, Endpoint, Etcd, EtcdAnswer, EtcdStatus,
    Filesystem, Line, LineClass, Listener, Looked, Manifest, Observed, Reach, Runtime,
    RuntimeAnswer, Signed, Space, Stage, StaticPod, Unit, Unseen, Writable,
};
pub use policy::Policy;
pub use remote::{RemoteError, RemoteStream, run_remote};
pub use ssh::{Asks, Destination, Ssh, SshFault, TETHER, tether};
pub use tunnel::{FarEnd, Forward, Local, TunnelError, TunnelEvent, tunnel};
