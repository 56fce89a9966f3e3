//! The ports that the engine serves: reads from the cache while it can be believed, else from the API server. What a visit
//! tells is in `visit.rs`.

use std::sync::Arc;

use async_trait::async_trait;
use nagi_core::id::{Version, WorkloadId};
use nagi_core::intent::{CountWriter, IntentUpdate};
use nagi_core::workload::Workload;
use nagi_ports::{Engine, PortError, Read, See, Selection, Visited, WorkloadEvent, Workloads};
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout_at};

use super::{CATCH_UP, KubeEngine, LIVE, ORDER, Shared, Watched};
use crate::api::Call;
use crate::reflect::State;
use crate::writers;

#[async_trait]
impl Workloads for KubeEngine {
    fn engine(&self) -> Engine {
        Engine::Kubernetes
    }

    async fn reachable(&self) -> Result<(), PortError> {
        let shared = &self.shared;
        let deployments = shared.deployments();
        // One of several namespaces may be gone, and the rights with it, or hold what cannot be listed: it is asked last.
        let fails = |(_, state): &&(_, Arc<State>)| state.problem().is_some();
        let all = &deployments.states;
        let (last, first): (Vec<_>, Vec<_>) = all.iter().partition(fails);
        let mut refusal = None;
        for (namespace, _) in first.into_iter().chain(last) {
            let path = deployments.kind.path(namespace.as_ref());
            let call = Call::get(format!("{path}?limit=1"));
            refusal = match shared.api.call(&call, LIVE).await.map_err(PortError::from) {
                Ok(_) => None,
                // Where nobody answers, nobody will in the next one.
                Err(
                    error @ (PortError::Unreachable(_)
                    | PortError::Timeout(_)
                    | PortError::Busy { .. }),
                ) => return Err(error),
                Err(error) => Some(error),
            };
            if refusal.is_none() {
                break;
            }
        }
        if let Some(error) = refusal {
            return Err(error);
        }
        let mut waiting = all.iter().filter(|(_, state)| !state.is_synced());
        let is_known = all.iter().any(|(_, state)| state.is_synced());
        let may_come = |state: &State| {
            let problem = state.problem();
            problem.is_none_or(|problem| matches!(problem, PortError::Unreachable(_)))
        };
        let waiting = waiting.find(|(_, state)| !is_known || may_come(state));
        waiting.map_or(Ok(()), |(_, state)| {
            Err(state.problem().unwrap_or_else(|| {
                PortError::Unreachable("the first list of workloads is not complete yet".to_owned())
            }))
        })
    }

    async fn get(&self, id: &WorkloadId, read: Read) -> Result<Arc<Workload>, PortError> {
        let shared = &self.shared;
        let watched = shared.kind_of(id).await?;
        let known = match read {
            Read::Cached => shared.cached(&watched, id),
            Read::AtLeast(version) => shared.caught_up(&watched, id, version).await,
            Read::Live => return shared.live(&watched, id, ORDER).await,
        };
        match known {
            Some(workload) => Ok(workload),
            // Not there, or not to be believed: a miss is checked live before any 404.
            None => shared.live(&watched, id, LIVE).await,
        }
    }

    async fn visit(
        &self,
        selection: Selection<'_>,
        see: &mut See<'_>,
    ) -> Result<Visited, PortError> {
        self.shared.visited(selection, see).await
    }

    async fn write(
        &self,
        before: &Workload,
        update: IntentUpdate,
    ) -> Result<Arc<Workload>, PortError> {
        self.shared.write(before, update, None).await
    }

    async fn rehearse(&self, before: &Workload, update: &IntentUpdate) -> Result<(), PortError> {
        self.shared.judge(before, update).await.map(drop)
    }

    fn unattended(&self) -> Option<PortError> {
        self.shared.lead.get()?.unattended()
    }

    async fn count_writer(&self, workload: &Workload) -> Result<Option<CountWriter>, PortError> {
        let shared = &self.shared;
        let id = &workload.id;
        let watched = shared.kind_of(id).await?;
        let call = Call::get(watched.kind.object_path(id));
        let read = shared.api.call(&call, LIVE).await;
        let body = read.map_err(|error| shared.failed(&watched, id, error))?;
        let writer = writers::count_writer(&watched.kind, &body).map_err(|error| {
            PortError::Internal(format!("managed fields cannot be read: {error}"))
        })?;
        let writer = match writer {
            None if !workload.desired.is_zero() => shared
                .told_waking(workload)
                .await
                .then_some(CountWriter::Gateway),
            known => known,
        };
        // Of what others do with a workload without a record nothing is written, so nobody needs to ask again.
        if workload.intent.changes.is_empty() && writer != Some(CountWriter::Gateway) {
            shared.store.leave_unrecorded(id);
        }
        Ok(writer)
    }

    fn subscribe(&self) -> broadcast::Receiver<WorkloadEvent> {
        self.shared.store.subscribe()
    }
}

impl Shared {
    /// The workload from the cache, if it is there and can be believed.
    fn cached(&self, watched: &Watched, id: &WorkloadId) -> Option<Arc<Workload>> {
        let live = watched.state(&id.namespace)?.is_live();
        if !live || !self.hears() {
            return None;
        }
        self.store.workload(id, self.observed_at()).map(Arc::new)
    }

    /// The workload once the cache has it at this version; `None` when that takes too long.
    async fn caught_up(
        &self,
        watched: &Watched,
        id: &WorkloadId,
        version: Version,
    ) -> Option<Arc<Workload>> {
        let mut progress = watched.state(&id.namespace)?.progress();
        let deadline = Instant::now() + CATCH_UP;
        loop {
            progress.mark_unchanged();
            let workload = self.cached(watched, id)?;
            // Of which timeline a number is that somebody brings along nobody knows; one that is never reached is read live.
            if workload.version.number >= version.number {
                return Some(workload);
            }
            // Cancel-safe: a watch channel keeps its value.
            if !matches!(timeout_at(deadline, progress.changed()).await, Ok(Ok(()))) {
                return None;
            }
        }
    }
}
