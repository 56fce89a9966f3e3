//! The local engine: workloads as child processes of this machine, on pools of nodes that boot.
//!
//! It is to Nagi on one machine what a cluster is elsewhere: it stores what is wanted durably, schedules replicas to nodes,
//! boots and releases nodes, runs, probes, restarts and stops processes. From the inside out:
//!
//! - [`file`](mod@file) reads the workload file; [`store`] keeps intent and history in the state directory;
//! - [`world`] decides, purely, which replica runs where and which nodes there are;
//! - [`shim`] supervises one replica, in a process of its own that outlives the engine;
//! - the runner carries decisions out, and [`LocalEngine`] serves the ports.
//!
//! It deliberately knows nothing of sleeping and waking: a wanted count of zero is one count among others.

pub mod file;
pub mod process;
pub mod shim;
pub mod store;
pub mod world;

mod disk;
mod engine;
mod runner;
mod stamp;

pub use disk::WriteError;
pub use engine::{
    Begin, LocalConfig, LocalEngine, OnShutdown, ReloadError, Reloaded, ShimCommand, StartError,
    check_new_beginning, inherited_environment,
};
