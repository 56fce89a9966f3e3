//! The workloads of an engine: read them, watch them, write what is wanted of them.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use nagi_core::id::{Version, WorkloadId};
use nagi_core::intent::{CountWriter, IntentUpdate};
use nagi_core::workload::Workload;
use tokio::sync::broadcast;

use crate::error::PortError;

/// Which engine carries the workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Child processes of this machine.
    Local,
    /// A Kubernetes cluster.
    Kubernetes,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// As the watch last saw it; says `observed_at`.
    Cached,
    /// At least this version: waits for the watch for up to 1 s, or reads live. [`PortError::Timeout`] when it was not seen
    /// by then, [`PortError::NoSuchVersion`] where the engine knows that there is none.
    AtLeast(Version),
}

/// All workloads at one moment.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Ordered by id.
    pub items: Vec<Arc<Workload>>,
    /// When it was observed.
    pub observed_at: Timestamp,
}

/// Something about a workload changed.
#[derive(Debug, Clone)]
pub enum WorkloadEvent {
    /// It is new, or any of its facts changed.
    Changed(Arc<Workload>),
    /// It is gone.
    Deleted(WorkloadId),
}

/// The workloads of an engine.
///
/// Cancel-safe in this sense: a `write` whose future is dropped either took effect as a whole or not at all, and the
/// next read tells which.
#[async_trait]
pub trait Workloads: Debug + Send + Sync {
    /// Which engine this is.
    fn engine(&self) -> Engine;

    /// Can the engine be reached now? Answers within 2 s whatever the engine does (`GET /ready`).
    async fn reachable(&self) -> Result<(), PortError>;

    /// One workload. A miss is checked live before [`PortError::NotFound`].
    async fn get(&self, id: &WorkloadId, read: Read) -> Result<Arc<Workload>, PortError>;

    /// All workloads that this process may see.
    async fn list(&self) -> Result<Listing, PortError>;

    /// Writes count and intent in one durable update, on the condition that the object is still the one in `before`
    /// (uid and version). When it returns, the update survives the death of any process.
    ///
    /// # Errors
    /// [`PortError::Conflict`] when it is not; nothing was written.
    async fn write(
        &self,
        before: &Workload,
        update: IntentUpdate,
    ) -> Result<Arc<Workload>, PortError>;

    /// Who set the count that is in force, as far as the engine tells; asked only when it does not fit the record.
    async fn count_writer(&self, workload: &Workload) -> Result<Option<CountWriter>, PortError>;

    /// Every change from now on. A receiver that lags must list again; the channel holds at least 1,024 events.
    fn subscribe(&self) -> broadcast::Receiver<WorkloadEvent>;
}
