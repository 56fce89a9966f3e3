//! The ports of the local engine. Reads answer from memory, which is the truth here; writes go through the disk.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nagi_core::id::WorkloadId;
use nagi_core::intent::{CountWriter, IntentUpdate};
use nagi_core::pool::Pool;
use nagi_core::workload::Workload;
use nagi_ports::{
    Engine, HistoryPage, HistoryQuery, Journal, LogPage, LogQuery, Logs, Nodes, PortError, Read,
    See, Selection, Visited, WorkloadEvent, Workloads,
};
use nagi_runtime::BlockingError;
use tokio::sync::broadcast;
use tokio::time::timeout;

use super::{LocalEngine, logs, shared};
use crate::store::history;

/// A disk that has not answered for this long is treated like one that is away. The write goes on and may still take effect,
/// which the next read tells.
const DISK_MAX: Duration = Duration::from_secs(5);

#[async_trait]
impl Workloads for LocalEngine {
    fn engine(&self) -> Engine {
        Engine::Local
    }

    async fn reachable(&self) -> Result<(), PortError> {
        // It is this process; what it must not be without is its state directory.
        let shared = Arc::clone(&self.shared);
        let looked = self.blocking.run(move || shared.store.check_in_place());
        in_time(looked)
            .await?
            .map_err(|error| shared::port_error(&error))
    }

    async fn get(&self, id: &WorkloadId, read: Read) -> Result<Arc<Workload>, PortError> {
        // There is no cache that could be behind: a write is in memory before it returns.
        let workload = self.shared.workload(id).ok_or(PortError::NotFound)?;
        match read {
            Read::AtLeast(asked) if asked > workload.version => Err(PortError::NoSuchVersion {
                asked,
                newest: workload.version,
            }),
            Read::AtLeast(_) | Read::Cached | Read::Live => Ok(Arc::new(workload)),
        }
    }

    async fn visit(
        &self,
        selection: Selection<'_>,
        see: &mut See<'_>,
    ) -> Result<Visited, PortError> {
        Ok(Visited::all(self.shared.visit(selection, see)))
    }

    async fn write(
        &self,
        before: &Workload,
        update: IntentUpdate,
    ) -> Result<Arc<Workload>, PortError> {
        let shared = Arc::clone(&self.shared);
        let (id, uid, version) = (before.id.clone(), before.uid.clone(), before.version);
        // The closure runs to its end even when nobody waits any more, so that disk and memory agree.
        let written = self
            .blocking
            .run(move || shared.commit(&id, (&uid, version), update));
        in_time(written).await?
    }

    async fn count_writer(&self, _workload: &Workload) -> Result<Option<CountWriter>, PortError> {
        // Somebody edited the workload file; it does not say who.
        Ok(None)
    }

    fn subscribe(&self) -> broadcast::Receiver<WorkloadEvent> {
        self.shared.subscribe()
    }
}

#[async_trait]
impl Nodes for LocalEngine {
    async fn pools(&self) -> Result<Vec<Pool>, PortError> {
        Ok(self.shared.pools())
    }
}

#[async_trait]
impl Journal for LocalEngine {
    async fn history(&self, query: &HistoryQuery) -> Result<HistoryPage, PortError> {
        let (shared, query) = (Arc::clone(&self.shared), query.clone());
        in_time(
            self.blocking
                .run(move || history::read(shared.store.root(), &query)),
        )
        .await
    }
}

#[async_trait]
impl Logs for LocalEngine {
    async fn read(&self, id: &WorkloadId, query: &LogQuery) -> Result<LogPage, PortError> {
        if self.shared.workload(id).is_none() {
            return Err(PortError::NotFound);
        }
        let (directory, query) = (self.shared.store.workload_replicas(id), query.clone());
        let name = id.name.clone();
        in_time(
            self.blocking
                .run(move || logs::read(&directory, &name, &query)),
        )
        .await?
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, BlockingError>>) -> Result<T, PortError> {
    match timeout(DISK_MAX, work).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(PortError::Internal(error.to_string())),
        Err(_elapsed) => {
            let words = format!("the disk did not answer within {} s", DISK_MAX.as_secs());
            Err(PortError::Timeout(words))
        }
    }
}
