//! A client of the container runtime of a node: the CRI, and the books of containerd behind it, over one socket.
//!
//! Both are gRPC: HTTP/2 frames, which `h2` moves ([`call`]), around messages of some fields, which [`wire`] reads and writes.
//! A dozen calls are all that is needed, so no stack of generated code is. [`cri`] is what every runtime answers, [`containerd`]
//! what only that one does: which bytes belong to which image, who holds them, and since when. [`kubelet`] says which socket it
//! is.
//!
//! It translates and decides nothing. Each call connects anew and has a deadline, so nothing is held between two calls.

mod call;
mod containerd;
mod cri;
pub mod kubelet;
mod wire;

use std::path::{Path, PathBuf};

pub use call::{CallError, wait};
pub use containerd::{Blob, ImageRecord, Ingest, Lease, Record, Snapshot, Usage};
pub use cri::{Container, ContainerState, Ended, Image, Sandbox};
pub use wire::with as field;

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
