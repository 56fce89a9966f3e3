//! The engine as the leader writes to it: every write carries the term, and none goes over one of a later term.

use std::sync::Arc;

use async_trait::async_trait;
use nagi_core::id::WorkloadId;
use nagi_core::intent::{CountWriter, IntentUpdate};
use nagi_core::workload::Workload;
use nagi_ports::{
    Engine, Leadership, PortError, Read, See, Selection, Visited, WorkloadEvent, Workloads,
};
use nagi_runtime::Supervisor;
use tokio::sync::broadcast;

use crate::engine::KubeEngine;
use crate::leader::{FOLLOWED_MAX, Lead};
use crate::names::annotation;

/// The engine with the rights of the leader. Its writes are refused while this process does not lead.
#[derive(Debug, Clone)]
pub struct Leading {
    engine: KubeEngine,
    lead: Arc<Lead>,
}

impl KubeEngine {
    /// Takes part in the election of a leader; the task belongs to `supervisor`.
    pub fn lead(&self, supervisor: &mut Supervisor) -> Leading {
        let identity = self.shared.identity.clone();
        let (api, clock) = (self.shared.api.clone(), Arc::clone(&self.shared.clock));
        // A process takes part in one election, and those who promise something ask how it stands.
        let new = || Arc::new(Lead::new(api, clock, identity));
        let lead = Arc::clone(self.shared.lead.get_or_init(new));
        let shutdown = supervisor.shutdown();
        supervisor.spawn_foundation("leader lease", Arc::clone(&lead).run(shutdown));
        Leading {
            engine: self.clone(),
            lead,
        }
    }
}

impl Leading {
    /// Follows whether this process leads.
    pub fn leadership(&self) -> Leadership {
        self.lead.leadership()
    }
}

#[async_trait]
impl Workloads for Leading {
    fn engine(&self) -> Engine {
        self.engine.engine()
    }

    async fn reachable(&self) -> Result<(), PortError> {
        self.engine.reachable().await
    }

    async fn get(&self, id: &WorkloadId, read: Read) -> Result<Arc<Workload>, PortError> {
        self.engine.get(id, read).await
    }

    async fn visit(
        &self,
        selection: Selection<'_>,
        see: &mut See<'_>,
    ) -> Result<Visited, PortError> {
        self.engine.visit(selection, see).await
    }

    async fn write(
        &self,
        before: &Workload,
        update: IntentUpdate,
    ) -> Result<Arc<Workload>, PortError> {
        let shared = &self.engine.shared;
        let fencing = shared.store.fencing(&before.id);
        let met = fencing.map_or(0, |(epoch, _)| epoch);
        if met > FOLLOWED_MAX && self.lead.epoch().is_none_or(|epoch| epoch < met) {
            return Err(PortError::Refused(format!(
                "the annotation {} names the term {met}, which no leader had: take it away",
                annotation::EPOCH
            )));
        }
        // A Lease that was made anew begins to count anew.
        if self.lead.epoch().is_some_and(|epoch| epoch < met) && !self.lead.rise_above(met).await {
            return Err(PortError::Conflict);
        }
        // Asked last, so that a process that was stopped meanwhile does not write.
        let Some(epoch) = self.lead.epoch().filter(|epoch| *epoch >= met) else {
            return Err(PortError::Refused("this process does not lead".to_owned()));
        };
        shared.write(before, update, Some(epoch)).await
    }

    async fn rehearse(&self, before: &Workload, update: &IntentUpdate) -> Result<(), PortError> {
        self.engine.rehearse(before, update).await
    }

    fn unattended(&self) -> Option<PortError> {
        self.engine.unattended()
    }

    async fn count_writer(&self, workload: &Workload) -> Result<Option<CountWriter>, PortError> {
        self.engine.count_writer(workload).await
    }

    fn subscribe(&self) -> broadcast::Receiver<WorkloadEvent> {
        self.engine.subscribe()
    }
}
