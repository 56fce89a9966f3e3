//! What the gateway knows of one replica: the engine's word, and what it found out itself.

use std::net::SocketAddr;
use std::sync::Arc;

use nagi_core::workload::{Readiness, Replica};

use crate::upstream::Upstream;

/// What the gateway itself found out about a replica since the engine last said something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing: the engine's word counts.
    Untried,
    /// A prober reached it: it serves, whatever the engine says yet.
    Probed,
    /// A connection failed: it does not serve, whatever the engine says still.
    Refused,
}

/// One replica of the last observation that has an address.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) upstream: Arc<Upstream>,
    /// The engine says that it serves.
    ready: bool,
    stopping: bool,
    restarts: u32,
    /// What we found out ourselves.
    pub(super) reach: Reach,
    /// A prober is at it.
    pub(super) probing: bool,
}

impl Seat {
    pub(super) fn new(replica: &Replica, address: SocketAddr) -> Self {
        Self {
            upstream: Upstream::new(replica.name.clone(), address, replica.readiness.clone()),
            ready: false,
            stopping: false,
            restarts: replica.restarts,
            reach: Reach::Untried,
            probing: false,
        }
    }

    /// True when this is the seat of that replica.
    pub(super) fn is(&self, replica: &Replica, address: SocketAddr) -> bool {
        self.upstream.name == replica.name
            && self.upstream.address == address
            && self.upstream.readiness == replica.readiness
    }

    /// Takes an observation in.
    pub(super) fn observe(&mut self, replica: &Replica) {
        let restarted = self.restarts != replica.restarts;
        let fell_back = self.ready && !replica.ready;
        let came_up = !self.ready && replica.ready;
        if restarted || fell_back || replica.stopping {
            self.forget_probe();
            self.upstream.clear();
        }
        if (restarted || came_up) && self.reach == Reach::Refused {
            self.reach = Reach::Untried;
        }
        self.ready = replica.ready;
        self.stopping = replica.stopping;
        self.restarts = replica.restarts;
    }

    /// It takes requests now.
    pub(super) fn serves(&self) -> bool {
        let reached = match self.reach {
            Reach::Probed => true,
            Reach::Untried => self.ready,
            Reach::Refused => false,
        };
        self.may_serve() && reached
    }

    /// What a prober found out no longer holds.
    pub(super) fn forget_probe(&mut self) {
        if self.reach == Reach::Probed {
            self.reach = Reach::Untried;
        }
    }

    /// It is not on its way out.
    pub(super) fn may_serve(&self) -> bool {
        !self.stopping
    }

    /// It should have a prober and has none. One that the engine calls ready but that refused a connection is probed
    /// whatever its readiness: a connection is what it lacks.
    pub(super) fn wants_probe(&self) -> bool {
        let can_tell =
            may_be_probed(&self.upstream.readiness) || (self.ready && self.reach == Reach::Refused);
        self.may_serve() && !self.serves() && !self.probing && can_tell
    }
}

/// A replica of which only the engine can tell whether it serves is not probed.
fn may_be_probed(readiness: &Readiness) -> bool {
    match readiness {
        Readiness::Http { .. } | Readiness::Tcp => true,
        Readiness::Engine => false,
    }
}
