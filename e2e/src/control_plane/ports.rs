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
    /// Those that everyone knows.
    pub(super) fn standard() -> Self {
        Self {
            etcd: 2379,
            etcd_peers: 2380,
            api_server: 6443,
            controllers: 10257,
            scheduler: 10259,
        }
    }

    /// Some that are free on the loopback at this moment.
    pub(super) fn free() -> anyhow::Result<Self> {
        // All are held at once, so that no two are the same.
        let listeners = [(); 5].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let mut ports = [0; 5];
        for (port, listener) in ports.iter_mut().zip(&listeners) {
            let address = listener
                .as_ref()
                .ok()
                .and_then(|listener| listener.local_addr().ok());
            *port = address.context("find a free port")?.port();
        }
        let [etcd, etcd_peers, api_server, controllers, scheduler] = ports;
        Ok(Self {
            etcd,
            etcd_peers,
            api_server,
            controllers,
            scheduler,
        })
    }
}
