//! The gateway as the idle loop sees it: exact counts, and the hand-shake before a sleep (DESIGN §6).
//!
//! This is the answer of one gateway. Several in front of the same workloads need somebody who asks them all.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nagi_core::id::WorkloadId;
use nagi_core::idle::Activity;
use nagi_ports::{Settled, Traffic};

use crate::gateway::Gateway;

/// A `prepare` that nobody settles aborts itself after this long (contract of the port).
const PREPARE_MAX: Duration = Duration::from_secs(5);

#[async_trait]
impl Traffic for Gateway {
    async fn activity(&self, id: &WorkloadId) -> Option<Activity> {
        self.routes().backend(id).map(|backend| backend.activity())
    }

    async fn prepare(&self, id: &WorkloadId) -> Option<Activity> {
        let backend = self.routes().backend(id)?;
        let token = self.shared().next_token();
        let activity = backend.prepare(token)?;
        let timed = Arc::clone(&backend);
        let shutdown = self.shutdown().clone();
        let expiry = async move {
            tokio::select! {
                // Cancel-safe: a timer and a watch. At the end of the process whoever is held is told so; nothing expires.
                () = tokio::time::sleep(PREPARE_MAX) => {}
                () = shutdown.draining() => return,
            }
            if timed.expire(token) {
                tracing::warn!(
                    namespace = %timed.id.namespace, workload = %timed.id.name,
                    "Prepared sleep was never settled, aborted"
                );
            }
        };
        if self.shared().drivers.try_spawn(expiry).is_err() {
            // Nobody would end it: better no sleep than a gate that stays closed.
            backend.expire(token);
            return None;
        }
        Some(activity)
    }

    async fn settle(&self, id: &WorkloadId, settled: Settled) {
        if let Some(backend) = self.routes().backend(id) {
            backend.settle(settled);
        }
    }
}
