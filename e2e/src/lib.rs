//! A real Kubernetes on this machine, from pinned Go modules and Debian packages, for developers and tests.
//!
//! [`ControlPlane`] is etcd, API server, controllers and scheduler. It runs anywhere, also without root, and is what tests of
//! the adapter need. [`Cluster`] adds nodes: each a network and a mount namespace with containerd, kubelet and kube-proxy, in
//! which pods really run. [`StackedCluster`] is one whose control plane are static pods of a machine that can be broken. All
//! clean up when they are dropped; what a killed one left, the next start takes away.
//!
//! No container engine, no registry and no internet but that of the Go modules is needed. Nothing of the product lives here.

#![expect(
    clippy::print_stderr,
    reason = "a developer tool tells the person who waits what it does"
)]

mod addons;
mod autoscaler;
pub mod cache;
pub mod call;
mod certificates;
mod cgroup;
mod clean;
mod cluster;
pub mod command;
mod control_plane;
mod directory;
mod fake;
pub mod faults;
mod files;
pub mod go;
mod image;
mod inside;
mod lock;
mod network;
mod node;
pub mod oci;
mod process;
mod program;
mod remove;
pub mod rights;
mod stacked;
pub mod suite;
pub mod tools;
pub mod wait;

pub use autoscaler::Autoscaler;
pub use cluster::{Cluster, ClusterOptions};
pub use control_plane::{ControlPlane, Options, Where};
pub use fake::{Delays, FAKE_NODE, MachineKind, MachinePool, gpu_pool};
pub use node::{NodeKind, Taint};
pub use process::Process;
pub use program::{Program, build_nagi, cargo, free_ports};
pub use rustix::process::Signal;
pub use stacked::{StackedCluster, StackedOptions};

/// Tells the person who waits.
pub(crate) fn say(what: &str) {
    eprintln!("cluster: {what}");
}
