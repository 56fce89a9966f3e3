//! What the ports, the runner and the reload of the file share: descriptions, intent and facts of every workload.
//!
//! Intent is written by [`Shared::commit`] alone, one write of a workload at a time, on a blocking thread: condition,
//! disk, memory, event, in this order. Facts are published by the runner alone. The mutex around both is held for
//! moments without waiting for anything; the disk is waited for under a lock that belongs to one workload.

mod kept;

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use nagi_core::id::{PoolName, Uid, Version, WorkloadId};
use nagi_core::intent::{Change, Intent, IntentUpdate};
use nagi_core::pool::Pool;
use nagi_core::quantity::Replicas;
use nagi_core::status::Counts;
use nagi_core::wake::Stage;
use nagi_core::workload::{Pending, Readiness, Replica, Workload};
use nagi_ports::{Clock, Glance, HistoryEntry, PortError, Revision, See, Selection, WorkloadEvent};
use tokio::sync::{Notify, broadcast};

use super::facts::{Facts, NodeFacts};
use crate::disk::{self, WriteError};
use crate::file::{self, PoolSpec, WorkloadFile, WorkloadSpec};
use crate::store::history::{History, SOURCE_JOURNAL};
use crate::store::{Remembered, StateDirectory, StoreError};

/// Events a slow subscriber may lag behind before it must list again (the port promises this many).
const EVENTS: usize = 1_024;

/// Everything that more than one task of the engine touches.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: StateDirectory,
    /// Tells the runner that what is wanted has changed.
    pub(crate) look: Notify,
    events: broadcast::Sender<WorkloadEvent>,
    history: Mutex<History>,
    /// Held while a workload file is put in force: the watcher and a SIGHUP may bring the same one at once.
    reloading: Mutex<()>,
    inner: Mutex<Inner>,
    /// The last revision that was given to any workload.
    revision: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    pools: BTreeMap<PoolName, PoolSpec>,
    workloads: BTreeMap<WorkloadId, Entry>,
    /// Workloads that left the file, and when; what is wanted of them lies in the state directory.
    kept: BTreeMap<WorkloadId, Timestamp>,
    nodes: NodeFacts,
}

/// One workload.
#[derive(Debug)]
struct Entry {
    spec: Arc<WorkloadSpec>,
    digest: Arc<str>,
    state: Remembered,
    facts: Facts,
    /// Another one with each change of anything above.
    revision: Revision,
    /// Held by the one write of this workload that is under way.
    writing: Arc<Mutex<()>>,
}

/// One workload as a visit shows it.
struct Seen<'a> {
    shared: &'a Shared,
    entry: &'a Entry,
}

/// What a workload is to run, for the runner.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    pub(crate) spec: Arc<WorkloadSpec>,
    pub(crate) digest: Arc<str>,
    pub(crate) desired: Replicas,
}

/// What a reload of the workload file changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Workloads that are described now and were not before.
    pub added: Vec<WorkloadId>,
    /// Workloads whose description changed.
    pub changed: Vec<WorkloadId>,
    /// Workloads that are no longer described; their processes are ended.
    pub removed: Vec<WorkloadId>,
}

// === impl Shared ===

impl Shared {
    /// Nothing described yet.
    pub(crate) fn new(clock: Arc<dyn Clock>, store: StateDirectory) -> Self {
        let history = Mutex::new(History::in_directory(store.root()));
        Self {
            clock,
            store,
            look: Notify::new(),
            events: broadcast::Sender::new(EVENTS),
            history,
            reloading: Mutex::default(),
            inner: Mutex::new(Inner::default()),
            revision: AtomicU64::new(0),
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<WorkloadEvent> {
        self.events.subscribe()
    }

    /// One workload as it is now.
    pub(crate) fn workload(&self, id: &WorkloadId) -> Option<Workload> {
        let inner = self.lock();
        inner.workloads.get(id).map(|entry| self.snapshot(entry))
    }

    /// Shows the selected workloads as they are now, in the order of ids, until `see` has enough. Returns when that was.
    pub(crate) fn visit(&self, selection: Selection<'_>, see: &mut See<'_>) -> Timestamp {
        let inner = self.lock();
        let from = selection.after.map_or(Unbounded, Excluded);
        let behind = inner.workloads.range((from, Unbounded));
        for (_, entry) in behind.filter(|(id, _)| selection.covers(id)) {
            let seen = Seen {
                shared: self,
                entry,
            };
            if see(&seen).is_break() {
                break;
            }
        }
        self.clock.now()
    }

    /// What the runner has to see to.
    pub(crate) fn descriptions(&self) -> (BTreeMap<PoolName, PoolSpec>, Vec<Description>) {
        let inner = self.lock();
        let descriptions = inner.workloads.values().map(|entry| Description {
            spec: Arc::clone(&entry.spec),
            digest: Arc::clone(&entry.digest),
            desired: entry.state.update.desired,
        });
        (inner.pools.clone(), descriptions.collect())
    }

    /// Takes what the runner sees; tells subscribers about every workload whose facts changed.
    pub(crate) fn publish(&self, mut facts: BTreeMap<WorkloadId, Facts>, nodes: NodeFacts) {
        let mut inner = self.lock();
        inner.nodes = nodes;
        for (id, entry) in &mut inner.workloads {
            let now = facts.remove(id).unwrap_or_default();
            if now != entry.facts {
                entry.facts = now;
                entry.revision = self.next_revision();
                self.tell(WorkloadEvent::Changed(Arc::new(self.snapshot(entry))));
            }
        }
    }

    /// The pools as they are now, ordered by name.
    pub(crate) fn pools(&self) -> Vec<Pool> {
        let inner = self.lock();
        let now = self.clock.monotonic();
        inner
            .pools
            .values()
            .map(|spec| inner.nodes.pool(spec, now))
            .collect()
    }

    /// Writes count and intent if the workload is still the one that the caller saw. Blocks for one sync of the disk.
    ///
    /// # Errors
    /// [`PortError::NotFound`], [`PortError::Conflict`], [`PortError::StorageFull`], [`PortError::Internal`]; nothing
    /// was written then.
    pub(crate) fn commit(
        &self,
        id: &WorkloadId,
        (uid, version): (&Uid, Version),
        update: IntentUpdate,
    ) -> Result<Arc<Workload>, PortError> {
        let writing = {
            let inner = self.lock();
            Arc::clone(&inner.workloads.get(id).ok_or(PortError::NotFound)?.writing)
        };
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = {
            let inner = self.lock();
            inner
                .workloads
                .get(id)
                .ok_or(PortError::NotFound)?
                .state
                .clone()
        };
        if before.uid != *uid || before.version != version {
            return Err(PortError::Conflict);
        }
        let changes = new_changes(&before.update.intent, &update.intent);
        let state = Remembered {
            version: self.store.next_version(),
            update,
            ..before
        };
        self.store
            .write_workload(id, Some(version), &state)
            .map_err(|error| port_error(&error))?;
        let written = {
            let mut inner = self.lock();
            let entry = inner.workloads.get_mut(id).ok_or(PortError::NotFound)?;
            entry.state = state;
            entry.revision = self.next_revision();
            Arc::new(self.snapshot(entry))
        };
        self.look.notify_one();
        self.tell(WorkloadEvent::Changed(Arc::clone(&written)));
        self.record(id, changes);
        Ok(written)
    }

    /// Held from reading the workload file until it is in force, so that neither an older content wins nor a change is taken
    /// over twice.
    pub(crate) fn reloading(&self) -> MutexGuard<'_, ()> {
        self.reloading
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a checked file in force: takes up what is new, changes what changed, ends what is gone and keeps what was wanted of
    /// it. Blocks for one sync of the disk for each of them. What could not be written stays as it was before.
    ///
    /// # Errors
    /// [`StoreError`] of the first workload that could not be read or written; the others are in force.
    pub(crate) fn put_in_force(&self, file: WorkloadFile) -> Result<Reloaded, StoreError> {
        for warning in &file.warnings {
            tracing::warn!(reason = %warning, "Workload file holds what is hardly meant");
        }
        let mut reloaded = Reloaded::default();
        let mut first_error = Ok(());
        let gone: Vec<WorkloadId> = {
            let mut inner = self.lock();
            inner.pools = file.pools;
            let described = |id: &WorkloadId| file.workloads.iter().any(|spec| spec.id == *id);
            inner
                .workloads
                .keys()
                .filter(|id| !described(id))
                .cloned()
                .collect()
        };
        for id in gone {
            match self.remove(&id) {
                Ok(()) => reloaded.removed.push(id),
                Err(error) => first_error = first_error.and(Err(error)),
            }
        }
        for spec in file.workloads {
            let id = spec.id.clone();
            match self.describe(spec) {
                Ok(Described::New) => reloaded.added.push(id),
                Ok(Described::Changed) => reloaded.changed.push(id),
                Ok(Described::Same) => {}
                Err(error) => first_error = first_error.and(Err(error)),
            }
        }
        self.bound_kept();
        self.look.notify_one();
        first_error.map(|()| reloaded)
    }

    /// Adds to the history what a crash kept from it, also of workloads that are only kept.
    ///
    /// # Errors
    /// [`WriteError`]; nothing depends on it.
    pub(crate) fn complete_history(
        &self,
        kept: Vec<(WorkloadId, Vec<Change>)>,
    ) -> Result<(), WriteError> {
        let mut remembered = kept;
        {
            let inner = self.lock();
            let changes = |entry: &Entry| entry.state.update.intent.changes.clone();
            let described = inner.workloads.iter();
            remembered.extend(described.map(|(id, entry)| (id.clone(), changes(entry))));
        }
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.complete(remembered, || self.store.next_version().number)
    }

    fn describe(&self, spec: WorkloadSpec) -> Result<Described, StoreError> {
        let id = spec.id.clone();
        let digest: Arc<str> = file::digest(&spec).into();
        let declared = spec.replicas;
        let known = {
            let inner = self.lock();
            let entry = inner.workloads.get(&id);
            entry.map(|entry| (Arc::clone(&entry.writing), *entry.spec == spec))
        };
        let Some((writing, same)) = known else {
            let state = self.remembered_or_new(&id, declared)?;
            let entry = Entry {
                spec: Arc::new(spec),
                digest,
                state,
                facts: Facts::default(),
                revision: self.next_revision(),
                writing: Arc::default(),
            };
            let event = WorkloadEvent::Changed(Arc::new(self.snapshot(&entry)));
            self.lock().workloads.insert(id, entry);
            self.tell(event);
            return Ok(Described::New);
        };
        if same {
            return Ok(Described::Same);
        }
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self
            .lock()
            .workloads
            .get(&id)
            .map(|entry| entry.state.clone());
        let Some(mut state) = before else {
            return Ok(Described::Same);
        };
        let acknowledged = state.version;
        // A decision made on the former description must be made again.
        state.version = self.store.next_version();
        state = declared_anew(state, declared);
        self.store.write_workload(&id, Some(acknowledged), &state)?;
        let mut inner = self.lock();
        if let Some(entry) = inner.workloads.get_mut(&id) {
            entry.spec = Arc::new(spec);
            entry.digest = digest;
            entry.state = state;
            entry.revision = self.next_revision();
            self.tell(WorkloadEvent::Changed(Arc::new(self.snapshot(entry))));
        }
        Ok(Described::Changed)
    }

    /// What was remembered of a workload, or the beginning of its life, written down.
    fn remembered_or_new(
        &self,
        id: &WorkloadId,
        declared: Replicas,
    ) -> Result<Remembered, StoreError> {
        match self.store.read_workload(id)? {
            Some(state) if state.removed.is_some() => self.take_back(id, state, declared),
            Some(state) if state.declared == declared => Ok(state),
            Some(state) => {
                let acknowledged = state.version;
                let version = self.store.next_version();
                let state = declared_anew(Remembered { version, ..state }, declared);
                self.store.write_workload(id, Some(acknowledged), &state)?;
                Ok(state)
            }
            None => {
                let state = Remembered {
                    uid: StateDirectory::new_uid()?,
                    version: self.store.next_version(),
                    declared,
                    update: IntentUpdate {
                        desired: declared,
                        intent: Intent::default(),
                    },
                    removed: None,
                };
                self.store.write_workload(id, None, &state)?;
                Ok(state)
            }
        }
    }

    /// Takes a workload out of force that the file does not name any more.
    fn remove(&self, id: &WorkloadId) -> Result<(), StoreError> {
        let writing = self
            .lock()
            .workloads
            .get(id)
            .map(|entry| Arc::clone(&entry.writing));
        let Some(writing) = writing else {
            return Ok(());
        };
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self
            .lock()
            .workloads
            .get(id)
            .map(|entry| entry.state.clone());
        let Some(state) = state else { return Ok(()) };
        // Before its processes are ended: on a full disk it goes on, and the reload is tried again.
        self.keep(id, state)?;
        let removed = self.lock().workloads.remove(id);
        if removed.is_some_and(|entry| entry.facts.replicas.is_empty()) {
            // With replicas, this is done when the last of them has ended.
            disk::remove_tree(&self.store.workload_replicas(id));
        }
        self.tell(WorkloadEvent::Deleted(id.clone()));
        Ok(())
    }

    fn record(&self, id: &WorkloadId, changes: Vec<Change>) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            let entry = HistoryEntry {
                id: self.store.next_version().number,
                workload: id.clone(),
                change,
                source: SOURCE_JOURNAL,
            };
            if let Err(error) = history.append(&entry) {
                // The change itself is durable; the next start adds it to the history.
                tracing::warn!(
                    namespace = %id.namespace, workload = %id.name,
                    error = super::explained(&error),
                    "History could not be written"
                );
            }
        }
    }

    fn tell(&self, event: WorkloadEvent) {
        // An error says that nobody listens.
        drop(self.events.send(event));
    }

    fn next_revision(&self) -> Revision {
        Revision(self.revision.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn snapshot(&self, entry: &Entry) -> Workload {
        let (spec, state, facts) = (&entry.spec, &entry.state, &entry.facts);
        let now = self.clock.monotonic();
        let readiness = readiness(&spec.readiness);
        let replicas = facts.replicas.iter();
        let replicas: Vec<Replica> = replicas.map(|one| one.shown(&readiness)).collect();
        let Counts {
            desired,
            current,
            available,
        } = entry.counts();
        let mut pending = facts.pending.clone();
        if let (Some(Pending::NodeBooting { ready_in, .. }), Some(at)) =
            (&mut pending, facts.node_ready_at)
        {
            *ready_in = Some(at.saturating_sub(now));
        }
        Workload {
            id: spec.id.clone(),
            uid: state.uid.clone(),
            version: state.version,
            desired,
            current,
            available,
            intent: state.update.intent.clone(),
            // Nobody else can write a count here.
            unrecorded: None,
            awake_replicas: spec.awake_replicas,
            idle_after: spec.idle_after,
            autoscaler: None,
            hosts: spec.hosts.clone(),
            labels: spec.labels.clone(),
            pool: Some(spec.pool.clone()),
            replicas,
            pending,
            observed_at: self.clock.now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing inside the short sections leaves it half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Entry ===

impl Entry {
    fn counts(&self) -> Counts {
        let replicas = self.facts.replicas.iter();
        let serving = replicas
            .clone()
            .filter(|replica| replica.ready && !replica.stopping);
        // One that waits for a node has no process and takes nothing.
        let existing =
            replicas.filter(|replica| replica.stage >= Stage::Starting || replica.stopping);
        Counts {
            desired: self.state.update.desired,
            current: count(existing.count()),
            available: count(serving.count()),
        }
    }
}

// === impl Seen ===

impl Glance for Seen<'_> {
    fn id(&self) -> &WorkloadId {
        &self.entry.spec.id
    }

    fn revision(&self) -> Revision {
        self.entry.revision
    }

    fn counts(&self) -> Counts {
        self.entry.counts()
    }

    fn intent(&self) -> &Intent {
        &self.entry.state.update.intent
    }

    fn idle_after(&self) -> Option<Duration> {
        self.entry.spec.idle_after
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.entry.spec.labels.get(key).map(String::as_str)
    }

    fn workload(&self) -> Arc<Workload> {
        Arc::new(self.shared.snapshot(self.entry))
    }
}

enum Described {
    New,
    Changed,
    Same,
}

/// The state after a person wrote another number of replicas into the file: as `kubectl scale` does, only the count moves.
/// The controller sees that the last recorded change does not say so, and records it. The same number changes nothing.
fn declared_anew(state: Remembered, declared: Replicas) -> Remembered {
    if state.declared == declared {
        return state;
    }
    let update = IntentUpdate {
        desired: declared,
        ..state.update
    };
    Remembered {
        declared,
        update,
        ..state
    }
}

/// The changes in `after` that `before` does not have.
fn new_changes(before: &Intent, after: &Intent) -> Vec<Change> {
    after
        .changes
        .iter()
        .filter(|change| !before.changes.contains(change))
        .cloned()
        .collect()
}

/// The port's class for a failure of the disk.
pub(crate) fn port_error(error: &WriteError) -> PortError {
    let words = super::explained(error);
    match error {
        WriteError::Full { .. } => PortError::StorageFull(words),
        WriteError::Away { .. } => PortError::Unreachable(words),
        WriteError::Other { .. } => PortError::Internal(words),
    }
}

fn readiness(spec: &file::Readiness) -> Readiness {
    match spec {
        file::Readiness::Running => Readiness::Engine,
        file::Readiness::Tcp => Readiness::Tcp,
        file::Readiness::Http { path } => Readiness::Http { path: path.clone() },
    }
}

fn count(number: usize) -> Replicas {
    Replicas(u32::try_from(number).unwrap_or(u32::MAX))
}
