//! A client of the container runtime of a node: the CRI, and the books of containerd behind it, over one socket.
//!
//! Both are gRPC: HTTP/2 frames, which `h2` moves ([`call`]), around messages of some fields, which [`wire`] reads and writes.
//! A dozen calls are all that is needed, so no stack of generated code is. [`cri`] is what every runtime answers, [`containerd`]
//! what only that one does: which bytes belong to which image, who holds them, and since when.
//!
//! It translates and decides nothing. Each call connects anew and has a deadline, so nothing is held between two calls.

mod call;
mod containerd;
mod cri;
mod wire;

use std::path::{Path, PathBuf};

pub use call::{CallError, wait};
pub use containerd::{Blob, ImageRecord, Ingest, Lease, Record, Snapshot, Usage};
pub use cri::{Container, ContainerState, Ended, Image, Sandbox};
pub use wire::with as field;

/// What kubelet uses unless it is told otherwise.
pub const SOCKET: &str = "/run/containerd/containerd.sock";

/// The socket of a `containerRuntimeEndpoint`, as kubelet's configuration names it.
pub fn socket(endpoint: Option<&str>) -> PathBuf {
    let named = endpoint.map(|one| one.trim_start_matches("unix://"));
    PathBuf::from(named.filter(|one| !one.is_empty()).unwrap_or(SOCKET))
}

/// A runtime behind a socket. It holds no connection.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

// === impl Client ===

impl Client {
    /// The runtime behind this socket, as this process sees it.
    pub fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }
}
