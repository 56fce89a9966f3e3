//! A double of the Kubernetes API server: for faults that the real one does not produce on demand, and for sizes that it
//! takes too long to fill.
//!
//! [`Double`] listens on a loopback port and speaks the part of the API that Nagi uses: lists with paging, watches with
//! bookmarks, patches with preconditions, the `scale` subresource, leases, events, logs, reviews of tokens and rights. What it answers is held against a
//! real API server by the conformance suite of `nagi-kube`; [`fault`] says what it can be made to do wrong. It plays no
//! controller and no kubelet: whoever wants pods puts them in.

mod backup;
mod fault;
pub mod objects;

mod answer;
mod call;
mod edits;
mod patch;
mod path;
mod resources;
mod reviews;
mod server;
mod store;
mod watch;

pub use fault::{Effect, Fault};
pub use server::{Double, Recorded};
pub use store::Backup;
