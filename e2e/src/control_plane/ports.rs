//! The ports of a control plane.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context;

/// Where each component listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) etcd: u16,
    pub(super) etcd_peers: u16,
    pub(super) api_server: u16,
    pub(super) controllers: u16,
    pub(super) scheduler: u16,
}

// === impl Ports ===

impl Ports {
    /// Those that everyone knows, in the order of the fields.
    pub(super) const STANDARD: [u16; 5] = [2379, 2380, 6443, 10257, 10259];
}

impl From<[u16; 5]> for Ports {
    fn from([etcd, etcd_peers, api_server, controllers, scheduler]: [u16; 5]) -> Self {
        Self {
            etcd,
            etcd_peers,
            api_server,
            controllers,
            scheduler,
        }
    }
}

/// Some ports that are free on the loopback at this moment.
pub(super) fn free<const N: usize>() -> anyhow::Result<[u16; N]> {
    // All are held at once, so that no two are the same.
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        let address = listener
            .as_ref()
            .ok()
            .and_then(|listener| listener.local_addr().ok());
        *port = address.context("find a free port")?.port();
    }
    Ok(ports)
}
