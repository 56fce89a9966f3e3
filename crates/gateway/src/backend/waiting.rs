//! One held request: its turn in the queue, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use nagi_core::wake::Failure;
use nagi_wake::WakeError;
use tokio::sync::oneshot;

use super::Backend;
use crate::shared::Held;
use crate::upstream::Place;

/// Why a request looks for a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No replica has seen it: it wakes the workload if it must.
    Arrived,
    /// The connection broke to a replica that had it. It takes what serves, or will by itself, and wakes nothing: an
    /// order to sleep took its replica perhaps, and has said so (invariant 4).
    Broke,
}

/// One who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) cause: Cause,
    pub(super) sender: oneshot::Sender<Release>,
}

/// How waiting ends.
#[derive(Debug)]
pub(crate) enum Release {
    /// It is this request's turn.
    Go(Place),
    /// Waiting longer is of no use.
    Turned(Turned),
}

/// Why a request is not held, or no longer.
#[derive(Debug, Clone)]
pub(crate) enum Turned {
    /// As many are held as the limits allow.
    Full,
    /// The wake is likely to take this long, which is longer than anybody is held.
    TooLong(Duration),
    /// The wake did not begin.
    NotBegun(WakeError),
    /// The wake was given up.
    Failed(Failure),
    /// Replicas serve, and nothing tells on which port.
    NoPort,
    /// The workload was put to sleep while a replica had the request.
    Cut,
    /// The workload is gone.
    Gone,
    /// The gateway is shutting down.
    Stopping,
}

/// A held request. Dropping it frees its place in the queue at once.
#[derive(Debug)]
pub(crate) struct Waiting {
    backend: Arc<Backend>,
    key: u64,
    receiver: oneshot::Receiver<Release>,
    _held: Held,
}

impl Waiting {
    pub(super) fn new(
        backend: Arc<Backend>,
        key: u64,
        receiver: oneshot::Receiver<Release>,
        held: Held,
    ) -> Self {
        Self {
            backend,
            key,
            receiver,
            _held: held,
        }
    }

    /// Waits for the turn. Cancel-safe: a turn that was given stays in the channel.
    pub(crate) async fn released(&mut self) -> Release {
        // The sender is never dropped unsent while this lives; were it, the driver would be gone.
        (&mut self.receiver)
            .await
            .unwrap_or(Release::Turned(Turned::Stopping))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.backend.lock().waiters.remove(&self.key);
    }
}
