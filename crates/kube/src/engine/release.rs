//! Letting go of workloads: what there is to let go, and the write that takes our annotations away.
//!
//! No port: who releases is an operator on a cluster, before Nagi leaves it.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use nagi_core::id::WorkloadId;
use nagi_core::release::Marks;
use nagi_core::workload::Workload;
use nagi_ports::{PortError, Unread, each};
use nagi_runtime::Deadline;
use serde_json::json;

use super::{KubeEngine, ORDER};
use crate::annotate;
use crate::api::{ApiError, Call, Content};
use crate::lanes::Lane;
use crate::names::FIELD_MANAGER;

/// Between two tries to list while the API server is away or the first lists are not complete.
const LOOK: Duration = Duration::from_millis(100);

impl KubeEngine {
    /// Every workload, of every kind, once all of them are known; after `time` those of the kinds that can be read, and which
    /// cannot. Cancel-safe.
    ///
    /// # Errors
    /// Built-in kinds are not known within `time`, and why.
    pub async fn settled(
        &self,
        time: Duration,
    ) -> Result<(Vec<Arc<Workload>>, Vec<Unread>), PortError> {
        let deadline = Deadline::in_(time);
        let mut looked = self.shared.kinds_looked.subscribe();
        let known = looked.wait_for(|looked| {
            let problem = looked.problem.as_ref();
            looked.count > 0 && problem.is_none_or(|problem| !problem.is_retryable())
        });
        if deadline.timeout(known).await.is_err() {
            return Err(self.kinds_problem().unwrap_or_else(|| {
                PortError::Timeout(format!("kinds are not known within {time:?}"))
            }));
        }
        loop {
            let mut all = Vec::new();
            match each(self, |workload| all.push(workload)).await {
                // It may be over soon.
                Ok(unread)
                    if unread.iter().any(|kind| kind.problem.is_retryable())
                        && !deadline.has_passed() => {}
                Ok(unread) => return Ok((all, unread)),
                Err(error) if error.is_retryable() && !deadline.has_passed() => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Why kinds beyond the built-in ones are not known, when they are not.
    pub fn kinds_problem(&self) -> Option<PortError> {
        self.shared.kinds_looked.borrow().problem.clone()
    }

    /// What a workload carries of ours, as far as it is known here.
    pub fn marks(&self, id: &WorkloadId) -> Marks {
        let known = self.shared.store.fencing(id);
        known.map_or(Marks::None, |(_, marks)| marks)
    }

    /// Takes our annotations away, on the condition that the object is still the one in `before`. Its count stays.
    ///
    /// # Errors
    /// [`PortError::Conflict`] when it is not; nothing was written.
    pub async fn let_go(&self, before: &Workload) -> Result<(), PortError> {
        let shared = &self.shared;
        let watched = shared.kind_of(&before.id).await?;
        shared.still_counts(&watched, before).await?;
        let patch = json!({ "metadata": {
            "resourceVersion": before.version.to_string(),
            "annotations": annotate::erase(),
        } });
        let at = format!(
            "{}?fieldManager={FIELD_MANAGER}",
            watched.kind.object_path(&before.id)
        );
        let call = Call::with(Method::PATCH, at, Content::MergePatch, &patch);
        match shared.in_turn(Lane::Record, &call).await {
            Ok(body) => match shared.take(&watched, &before.id, &body) {
                // Deleted meanwhile: it was let go in any case.
                Ok(_) | Err(PortError::NotFound) => Ok(()),
                Err(error) => Err(error),
            },
            Err(ApiError::Status { code: 409, .. }) => {
                // Whoever decides again shall see what was in the way.
                let _now: Arc<Workload> = shared.live(&watched, &before.id, ORDER).await?;
                Err(PortError::Conflict)
            }
            Err(error) => Err(shared.failed(&watched, &before.id, error)),
        }
    }
}
