//! The ports that the engine serves: reads from the cache while it can be believed, else from the API server.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nagi_core::id::{Namespace, Resource, Version, WorkloadId};
use nagi_core::intent::{CountWriter, IntentUpdate};
use nagi_core::workload::Workload;
use nagi_ports::{
    Engine, Facts, PortError, Read, See, Selection, Unread, Visited, WorkloadEvent, Workloads,
};
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
        // One of several namespaces may be gone, and the rights with it: it is asked last.
        let refuses = |(_, state): &&(_, Arc<State>)| state.refusal().is_some();
        let all = &deployments.states;
        let (last, first): (Vec<_>, Vec<_>) = all.iter().partition(refuses);
        let mut refusal = None;
        for (namespace, _) in first.into_iter().chain(last) {
            let path = deployments.kind.path(namespace.as_ref());
            let call = Call::get(format!("{path}?limit=1"));
            refusal = match shared.api.call(&call, LIVE).await.map_err(PortError::from) {
                Ok(_) => None,
                Err(error) if error.is_retryable() => return Err(error),
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
        let waiting = waiting.find(|one| !is_known || !refuses(one));
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
        let shared = &self.shared;
        let deadline = Instant::now() + LIVE;
        let wanted = |watched: &Arc<Watched>| {
            let kind = &watched.kind.resource;
            selection.resource.is_none_or(|only| only == kind)
        };
        let kinds_missed = match selection.resource {
            None => shared.kinds_missed(deadline).await,
            Some(_) => None,
        };
        let mut all = shared.all_watched();
        if let Some(only) = selection.resource.filter(|_| !all.iter().any(wanted)) {
            let looked = shared.look_again_for(only).await;
            all = shared.all_watched();
            if !all.iter().any(wanted) {
                looked?;
            }
        }
        // A kind that nobody knows has no workloads, if the API server still says so.
        let nobody_knows = !all.iter().any(wanted);
        // What is known of a kind that may not be read any more is from before its rights were taken away. It is told with that
        // time and not left out: whoever follows lists would take it for deleted.
        let mut oldest = Duration::ZERO;
        let mut unread: Vec<Unread> = Vec::new();
        let is_asked_for = selection.resource.is_some() && !nobody_knows;
        let deployments = shared.deployments();
        let mut missed = 0;
        for watched in all.iter().filter(|watched| nobody_knows || wanted(watched)) {
            let resource = &watched.kind.resource;
            for (namespace, state) in &watched.states {
                // All others do not wait for a kind whose lists fail, as when the webhook that converts it is gone, or one
                // object of it cannot be decoded. Without Deployments a cluster has other sorrows.
                let is_one_of_several = watched.states.len() > 1;
                let may_fail =
                    is_one_of_several || (!is_asked_for && *resource != deployments.kind.resource);
                let Some(problem) = shared.problem_of(state, deadline, may_fail).await? else {
                    continue;
                };
                // Without any of the Deployments a list would say less than nothing.
                let is_missed = *resource == deployments.kind.resource
                    && shared.is_missed(state, namespace.as_ref());
                missed += usize::from(is_missed);
                let is_missed = is_missed && missed == deployments.states.len();
                // Nobody knows any of those that were asked for.
                let is_unknown = is_asked_for && !watched.states().any(|state| state.is_synced());
                if is_missed || is_unknown {
                    return Err(problem);
                }
                oldest = oldest.max(state.dead_for());
                let facts = Facts::Kind(resource.clone());
                note(&mut unread, facts, problem);
            }
        }
        if let Some(problem) = kinds_missed {
            note(&mut unread, Facts::Definitions, problem);
        }
        // Without pods nobody knows where a workload serves, and what it waits for. In a namespace whose Deployments may not be
        // read, none does.
        for (state, (_, deployments)) in shared.pods.iter().zip(&deployments.states) {
            if deployments.refusal().is_some() {
                continue;
            }
            // What was read once is told as old while it is read anew, which takes its time where there are many.
            let problem = if state.is_synced() {
                lasting_problem(state)
            } else {
                shared.problem_of(state, deadline, true).await?
            };
            oldest = oldest.max(state.dead_for());
            if let Some(problem) = problem {
                note(&mut unread, Facts::Pods, problem);
            }
        }
        if nobody_knows {
            unread.clear();
        }
        let observed_at = shared.observed_at().min(shared.clock.now() - oldest);
        shared.store.visit(selection, observed_at, see);
        Ok(Visited {
            observed_at,
            unread,
        })
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
        let body = shared.api.call(&call, LIVE).await?;
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

/// Why what a watch brought is old, or is not there. One that broke off a moment ago is back in another.
fn lasting_problem(state: &State) -> Option<PortError> {
    state
        .fails()
        .filter(|problem| !state.is_synced() || state.dead_for() > LIVE || !problem.is_retryable())
}

/// Notes what cannot be read, once. Of several problems with it, as in several namespaces, one that may be over soon counts.
fn note(unread: &mut Vec<Unread>, facts: Facts, problem: PortError) {
    match unread.last_mut().filter(|last| last.facts == facts) {
        None => unread.push(Unread { facts, problem }),
        Some(last) if problem.is_retryable() && !last.problem.is_retryable() => {
            last.problem = problem;
        }
        Some(_) => {}
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

    /// Why what a watch brought is old, or is not there. One that `may_fail` is not waited for while it fails for a reason, and
    /// no error when it takes long.
    async fn problem_of(
        &self,
        state: &State,
        deadline: Instant,
        may_fail: bool,
    ) -> Result<Option<PortError>, PortError> {
        if let Some(problem) = lasting_problem(state).filter(|_| may_fail && self.hears()) {
            return Ok(Some(problem));
        }
        match self.live_again(state, deadline).await {
            Err(problem) if may_fail && self.hears() => Ok(Some(problem)),
            other => other,
        }
    }

    /// Waits for a watch that is dead to live again. Where that may not be read, or is not served, the refusal.
    async fn live_again(
        &self,
        state: &State,
        deadline: Instant,
    ) -> Result<Option<PortError>, PortError> {
        let mut progress = state.progress();
        let mut nudged = false;
        loop {
            progress.mark_unchanged();
            if state.is_live() && self.hears() {
                return Ok(None);
            }
            if self.hears()
                && let Some(problem) = state.refusal()
            {
                return Ok(Some(problem));
            }
            if !nudged && state.is_synced() {
                nudged = true;
                state.nudge();
                continue;
            }
            if !matches!(timeout_at(deadline, progress.changed()).await, Ok(Ok(()))) {
                return Err(state.problem().unwrap_or_else(|| {
                    PortError::Timeout(format!("no list of workloads within {LIVE:?}"))
                }));
            }
        }
    }

    /// A list without the Deployments that may not be read would say less than was there. Where one namespace is read and none
    /// was in it, it may have gone with its rights.
    fn is_missed(&self, state: &State, namespace: Option<&Namespace>) -> bool {
        let Some(namespace) = namespace.filter(|_| state.is_synced()) else {
            return true;
        };
        let mut holds = false;
        let deployments = Resource::deployments();
        let selection = Selection {
            resource: Some(&deployments),
            namespace: Some(namespace),
            after: None,
        };
        self.store.visit(selection, self.observed_at(), &mut |_| {
            holds = true;
            ControlFlow::Break(())
        });
        holds
    }
}
