//! What is known of the cluster: compact rows for workloads, their pods and autoscalers, in one place behind one lock.
//!
//! Rows are made into [`Workload`]s when somebody asks: 100,000 of them would be several times the rows. Versions decide
//! who is right: an observation that is older than what is known changes nothing, wherever it came from. After a restored
//! backup, and where a kind is read from another place, versions begin anew: what is known of before is over then.

mod names;
mod pods;
mod row;
mod scalers;
mod seen;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;
use nagi_core::id::{Name, Namespace, PoolName, ReplicaName, Resource, Uid, Version, WorkloadId};
use nagi_core::intent::Change;
use nagi_core::quantity::{Replicas, WakeCount};
use nagi_core::release::Marks;
use nagi_core::status::Counts;
use nagi_core::workload::{Autoscaler, Workload};
use nagi_ports::{See, Selection, WorkloadEvent};
use tokio::sync::broadcast;

use crate::annotate::Notes;
use crate::kind::Kind;
use crate::names::POOL_LABELS;
use crate::pods::PodRow;
use crate::reflect::Listed;
use crate::wire::{Labels, Scaled, Template};
use row::default_host;
use seen::Seen;

/// Events a slow subscriber may lag behind before it must list again (the port promises 1,024).
const EVENTS: usize = 4_096;

/// In place of the number of a list: only the answer to a call brought it so far.
const BY_CALL: u32 = u32::MAX;

/// The same where no list counts any more; lists count from 1.
const NO_LIST: u32 = 0;

/// Who brings an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// A list, or the watch after it.
    Watch(Listed),
    /// The answer to a call; the watch of the kind has come as far as this version.
    Call {
        /// Everything up to this version was seen by the watch.
        seen: u64,
    },
}

/// What is known of the cluster.
#[derive(Debug)]
pub(crate) struct Store {
    inner: RwLock<Inner>,
    events: broadcast::Sender<WorkloadEvent>,
}

#[derive(Debug, Default)]
struct Inner {
    rows: BTreeMap<Resource, BTreeMap<Namespace, BTreeMap<Name, Row>>>,
    pods: HashMap<WorkloadId, BTreeMap<ReplicaName, (PodRow, u32)>>,
    scalers: HashMap<WorkloadId, BTreeMap<Box<str>, (Replicas, u32)>>,
    pools: HashMap<Box<str>, Arc<PoolName>>,
    /// Kinds whose plural is not the one of convention, by that one.
    plurals: HashMap<Resource, Resource>,
    /// The last revision that was given to any workload.
    revision: u64,
}

/// One workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    uid: Box<str>,
    version: u64,
    /// How often versions began anew.
    timeline: u32,
    /// They begin anew: whatever comes next is newer.
    is_over: bool,
    revision: u64,
    desired: u32,
    /// At zero: what was wanted before, when nothing that was written since tells of it; else 0.
    unrecorded: u32,
    /// It was at zero when it was seen before, nothing was ever written of it, and nobody has looked who raised it.
    rose: bool,
    current: u32,
    available: u32,
    /// The list that last held it.
    listed: u32,
    notes: Option<Box<Notes>>,
    labels: Labels,
    pool: Option<Arc<PoolName>>,
    /// Why no pods can be made for it.
    failure: Option<Box<str>>,
}

/// The namespaces that a list is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Within<'a> {
    /// All of them.
    Everywhere,
    /// This one.
    Namespace(&'a Namespace),
}

// === impl Within ===

impl Within<'_> {
    fn covers(self, namespace: &Namespace) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Namespace(only) => only == namespace,
        }
    }
}

// === impl Store ===

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            inner: RwLock::default(),
            events: broadcast::Sender::new(EVENTS),
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<WorkloadEvent> {
        self.events.subscribe()
    }

    /// One workload, as far as it is known here.
    pub(crate) fn workload(&self, id: &WorkloadId, observed_at: Timestamp) -> Option<Workload> {
        let inner = self.read();
        let row = inner.row(id)?;
        Some(inner.snapshot(id, row, observed_at))
    }

    /// The term of the leader that wrote it last, and what it carries of ours.
    pub(crate) fn fencing(&self, id: &WorkloadId) -> Option<(u64, Marks)> {
        let notes = self.read().row(id)?.notes.clone();
        Some(notes.map_or((0, Marks::None), |notes| (notes.epoch, notes.marks())))
    }

    /// Shows the selected workloads, in the order of ids, until `see` has enough.
    pub(crate) fn visit(
        &self,
        selection: Selection<'_>,
        observed_at: Timestamp,
        see: &mut See<'_>,
    ) {
        let inner = self.read();
        for (id, row) in inner.selected(selection) {
            let seen = Seen {
                inner: &inner,
                id: &id,
                row,
                observed_at,
            };
            if see(&seen).is_break() {
                return;
            }
        }
    }

    /// Every change that the objects themselves remember.
    pub(crate) fn each_change(&self, mut see: impl FnMut(&WorkloadId, &Change)) {
        let inner = self.read();
        for (id, row) in inner.selected(Selection::default()) {
            for change in &row.intent().changes {
                see(&id, change);
            }
        }
    }

    /// Takes an observation of a workload in.
    pub(crate) fn apply(&self, kind: &Kind, object: &Scaled, from: From, now: Timestamp) {
        let metadata = &object.metadata;
        let Some(id) = kind.id(&metadata.namespace, &metadata.name) else {
            return;
        };
        let mut inner = self.write();
        // What a Deployment made, or took over, is the Deployment's business.
        if kind.may_be_owned() && metadata.controller().is_some() {
            if inner.row(&id).is_some() {
                inner.remove(&id);
                drop(self.events.send(WorkloadEvent::Deleted(id)));
            }
            return;
        }
        let known = inner.row(&id);
        let version = metadata.version();
        // It is on its way out, and only a finalizer holds it: no count makes a pod of it any more.
        if metadata.deletion_timestamp {
            if known.is_some_and(|known| known.is_behind_or_at(version)) {
                inner.remove(&id);
                drop(self.events.send(WorkloadEvent::Deleted(id)));
            }
            return;
        }
        let listed = match (from, known) {
            (From::Watch(by), _) => by.number,
            (From::Call { .. }, Some(known)) => known.listed,
            // The watch is past it and holds no such object: it was deleted since.
            (From::Call { seen }, None) if seen >= version => return,
            (From::Call { .. }, None) => BY_CALL,
        };
        // A backup may be restored behind a version that was raised, so that only its objects are seen to be older.
        let is_over = known.is_some_and(|known| {
            known.is_over || matches!(from, From::Watch(by) if by.is_before(known.version, version))
        });
        if let Some(known) = known
            && !is_over
            && known.version >= version
        {
            let earlier = Row::of(object, listed, None);
            if let Some(known) = inner.row_mut(&id) {
                known.listed = listed;
                known.learn_from(&earlier);
            }
            return;
        }
        let pool = inner.pool(&object.spec.template);
        let mut row = Row::of(object, listed, pool);
        if let Some(before) = inner.row_mut(&id) {
            before.is_over = is_over;
            row.follow(before);
        }
        row.warn_of_unreadable(&id, known_notes(inner.row(&id)));
        inner.insert(&id, row);
        self.tell(&mut inner, &id, now);
    }

    /// The count of a workload was written through its `scale`. Does nothing where all else that is known of it may be wrong.
    pub(crate) fn apply_count(&self, id: &WorkloadId, count: u32, version: u64, now: Timestamp) {
        let mut inner = self.write();
        if let Some(row) = inner.row_mut(id)
            && !row.is_over
            && row.version < version
        {
            row.version = version;
            row.desired = count;
            row.unrecorded = 0;
            self.tell(&mut inner, id, now);
        }
    }

    /// A workload that has no record was raised by somebody who keeps none.
    pub(crate) fn leave_unrecorded(&self, id: &WorkloadId) {
        let mut inner = self.write();
        if let Some(row) = inner.row_mut(id) {
            row.rose = false;
        }
    }

    /// A workload is gone.
    pub(crate) fn remove(&self, id: &WorkloadId, version: u64) {
        let mut inner = self.write();
        if inner
            .row(id)
            .is_some_and(|row| row.is_behind_or_at(version))
        {
            inner.remove(id);
            drop(self.events.send(WorkloadEvent::Deleted(id.clone())));
        }
    }

    /// The newest version of a workload of this kind, by a watch or by a call; 0 without any.
    pub(crate) fn newest(&self, resource: &Resource) -> u64 {
        let inner = self.read();
        let namespaces = inner.rows.get(resource).into_iter().flatten();
        let rows = namespaces.flat_map(|(_, names)| names.values());
        let rows = rows.filter(|row| !row.is_over);
        rows.map(|row| row.version).max().unwrap_or(0)
    }

    /// Another timeline begins for workloads of this kind: whatever comes next is newer, and the next list that is complete says
    /// which of them there are.
    pub(crate) fn begin_timeline(&self, resource: &Resource, within: Within<'_>) {
        let mut inner = self.write();
        let namespaces = inner.rows.get_mut(resource).into_iter().flatten();
        for (_, names) in namespaces.filter(|(namespace, _)| within.covers(namespace)) {
            for row in names.values_mut() {
                row.is_over = true;
                row.listed = NO_LIST;
            }
        }
    }

    /// Whether what was read of a workload at this version is of the timeline that goes on; so it is of one that is not known.
    pub(crate) fn goes_on(&self, id: &WorkloadId, version: Version) -> bool {
        let inner = self.read();
        let row = inner.row(id);
        row.is_none_or(|row| !row.is_over && row.timeline == version.timeline)
    }

    /// A kind is served no more: none of its workloads is known.
    pub(crate) fn forget(&self, resource: &Resource) {
        let mut inner = self.write();
        for (namespace, names) in inner.rows.remove(resource).into_iter().flatten() {
            for name in names.into_keys() {
                let id = WorkloadId {
                    resource: resource.clone(),
                    namespace: namespace.clone(),
                    name,
                };
                drop(self.events.send(WorkloadEvent::Deleted(id)));
            }
        }
    }

    /// A list is complete, as of `version`: workloads of its kind that it did not hold are gone.
    pub(crate) fn sweep(&self, resource: &Resource, within: Within<'_>, list: u32, version: u64) {
        let mut inner = self.write();
        let Some(namespaces) = inner.rows.get(resource) else {
            return;
        };
        let mut gone = Vec::new();
        for (namespace, names) in namespaces {
            if !within.covers(namespace) {
                continue;
            }
            // One that a call brought later than the list stays: the watch that follows tells.
            let stale = names.iter().filter(|(_, row)| {
                row.listed != list && (row.listed != BY_CALL || row.version <= version)
            });
            gone.extend(stale.map(|(name, _)| WorkloadId {
                resource: resource.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
            }));
        }
        for id in gone {
            inner.remove(&id);
            drop(self.events.send(WorkloadEvent::Deleted(id)));
        }
    }

    /// Facts of a workload have changed: gives it a new revision and tells subscribers how it is now. Under the lock, so that
    /// they see one order.
    fn tell(&self, inner: &mut Inner, id: &WorkloadId, now: Timestamp) {
        inner.revise(id);
        if self.events.receiver_count() == 0 {
            return;
        }
        if let Some(row) = inner.row(id) {
            let workload = Arc::new(inner.snapshot(id, row, now));
            drop(self.events.send(WorkloadEvent::Changed(workload)));
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // No section leaves it half changed.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    fn row(&self, id: &WorkloadId) -> Option<&Row> {
        self.rows
            .get(&id.resource)?
            .get(&id.namespace)?
            .get(&id.name)
    }

    fn row_mut(&mut self, id: &WorkloadId) -> Option<&mut Row> {
        self.rows
            .get_mut(&id.resource)?
            .get_mut(&id.namespace)?
            .get_mut(&id.name)
    }

    /// The rows of a selection, in the order of ids.
    fn selected<'a>(
        &'a self,
        selection: Selection<'a>,
    ) -> impl Iterator<Item = (WorkloadId, &'a Row)> {
        let Selection {
            resource,
            namespace,
            after,
        } = selection;
        let from = after.map_or(Unbounded, |after| Included(&after.resource));
        let kinds = self.rows.range((from, Unbounded));
        let kinds = kinds.filter(move |(kind, _)| resource.is_none_or(|only| only == *kind));
        let parts = kinds.flat_map(move |(kind, namespaces)| {
            let after = after.filter(|after| after.resource == *kind);
            let from = after.map_or(Unbounded, |after| Included(&after.namespace));
            let parts = namespaces.range((from, Unbounded));
            parts.map(move |(part, names)| (kind, part, names, after))
        });
        let parts = parts.filter(move |(_, part, ..)| namespace.is_none_or(|only| only == *part));
        parts.flat_map(|(kind, part, names, after)| {
            let after = after.filter(|after| after.namespace == *part);
            let from = after.map_or(Unbounded, |after| Excluded(&after.name));
            names.range((from, Unbounded)).map(move |(name, row)| {
                let id = WorkloadId {
                    resource: kind.clone(),
                    namespace: part.clone(),
                    name: name.clone(),
                };
                (id, row)
            })
        })
    }

    fn revise(&mut self, id: &WorkloadId) {
        self.revision += 1;
        let revision = self.revision;
        if let Some(row) = self.row_mut(id) {
            row.revision = revision;
        }
    }

    fn insert(&mut self, id: &WorkloadId, row: Row) {
        let namespaces = self.rows.entry(id.resource.clone()).or_default();
        let names = namespaces.entry(id.namespace.clone()).or_default();
        names.insert(id.name.clone(), row);
    }

    fn remove(&mut self, id: &WorkloadId) {
        let Some(namespaces) = self.rows.get_mut(&id.resource) else {
            return;
        };
        let Some(names) = namespaces.get_mut(&id.namespace) else {
            return;
        };
        names.remove(&id.name);
        if names.is_empty() {
            namespaces.remove(&id.namespace);
        }
    }

    /// The pool that a workload asks for by its node selector. Names are few and shared.
    fn pool(&mut self, template: &Template) -> Option<Arc<PoolName>> {
        let selector = &template.spec.node_selector;
        let name = POOL_LABELS.iter().find_map(|label| selector.get(*label))?;
        if let Some(known) = self.pools.get(name) {
            return Some(Arc::clone(known));
        }
        let pool = Arc::new(PoolName::new(&**name).ok()?);
        self.pools.insert(name.clone(), Arc::clone(&pool));
        Some(pool)
    }

    fn snapshot(&self, id: &WorkloadId, row: &Row, observed_at: Timestamp) -> Workload {
        let notes = row.notes.as_deref();
        let unrecorded = row.unrecorded();
        let mut intent = row.intent().clone();
        intent.remembered = WakeCount::new(row.unrecorded).or(intent.remembered);
        let hosts = notes.and_then(|notes| notes.hosts.clone());
        let Counts {
            desired,
            current,
            available,
        } = self.counts(id, row);
        Workload {
            id: id.clone(),
            uid: Uid::new(&*row.uid),
            version: Version {
                timeline: row.timeline,
                number: row.version,
            },
            desired,
            current,
            available,
            intent,
            unrecorded,
            awake_replicas: notes.and_then(|notes| notes.awake_replicas),
            // What sleeps when idle on a cluster is for policies to say, and nobody has told the leader of any use yet.
            idle_after: None,
            autoscaler: self.autoscaler(id),
            hosts: hosts.unwrap_or_else(|| default_host(id)),
            labels: row
                .labels
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            pool: row.pool.as_deref().cloned(),
            replicas: self.alive(id).map(|pod| pod.replica.clone()).collect(),
            pending: row.pending(self.alive(id)),
            observed_at,
        }
    }

    /// The pods of a workload that have not ended for good.
    fn alive(&self, id: &WorkloadId) -> impl Iterator<Item = &PodRow> + Clone {
        let pods = self.pods.get(id).into_iter().flat_map(BTreeMap::values);
        pods.map(|(pod, _)| pod).filter(|pod| !pod.finished)
    }

    fn counts(&self, id: &WorkloadId, row: &Row) -> Counts {
        let count = u32::try_from(self.alive(id).count()).unwrap_or(u32::MAX);
        Counts {
            desired: Replicas(row.desired),
            // Stopping pods are in no status: the pods themselves are counted.
            current: Replicas(row.current.max(count)),
            available: Replicas(row.available),
        }
    }

    /// The autoscaler with the highest minimum counts: a wake below it would be raised at once.
    fn autoscaler(&self, id: &WorkloadId) -> Option<Autoscaler> {
        let scalers = self.scalers.get(id)?.iter();
        let (name, (minimum, _)) = scalers.max_by_key(|(_, (minimum, _))| *minimum)?;
        Some(Autoscaler {
            name: name.to_string(),
            minimum: *minimum,
        })
    }
}

fn known_notes(row: Option<&Row>) -> Option<&Notes> {
    row?.notes.as_deref()
}
