//! Who uses a workload now, and the hand-shake before it is put to sleep by itself (DESIGN §6).

use std::fmt::Debug;

use async_trait::async_trait;
use nagi_core::id::WorkloadId;
use nagi_core::idle::Activity;

/// How a prepared sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It was written: whoever is held wakes it again.
    Asleep,
    /// It was not: whoever is held goes to the living replicas.
    Aborted,
}

/// The gateways in front of the workloads, all of them together.
///
/// A `prepare` that is never settled (its caller died) settles itself as aborted within 5 s.
#[async_trait]
pub trait Traffic: Debug + Send + Sync {
    /// Exact counts now; `None` when any gateway did not answer, or none is in front of the workload.
    async fn activity(&self, id: &WorkloadId) -> Option<Activity>;

    /// From now on new arrivals are held. The counts are those after the hold began; `None` as for `activity`, and
    /// then nothing is held.
    async fn prepare(&self, id: &WorkloadId) -> Option<Activity>;

    /// Ends what `prepare` began.
    async fn settle(&self, id: &WorkloadId, settled: Settled);
}

/// No gateway is in reach: nobody counts, so nothing is ever known to be idle.
#[derive(Debug, Clone, Copy)]
pub struct NoTraffic;

#[async_trait]
impl Traffic for NoTraffic {
    async fn activity(&self, _id: &WorkloadId) -> Option<Activity> {
        None
    }

    async fn prepare(&self, _id: &WorkloadId) -> Option<Activity> {
        None
    }

    async fn settle(&self, _id: &WorkloadId, _settled: Settled) {}
}
