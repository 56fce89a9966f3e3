//! Which host leads to which workload, kept current from the engine's events.
//!
//! One table behind one pointer: a request clones the pointer and looks up; a change makes a new table. The default host of
//! a workload is its own, whoever else claims it. Of two workloads that claim another host, the one whose id sorts first
//! keeps it, everywhere and after every restart, and a warning names the other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use nagi_core::id::{Host, WorkloadId};
use nagi_core::workload::Workload;
use nagi_ports::{Facts, PortError, Unread, WorkloadEvent, Workloads, each};
use nagi_runtime::{Backoff, Shutdown};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::backend::Backend;
use crate::shared::Shared;

/// First and longest pause before the list is read again after the engine could not be reached.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// A list is read this often even without events, so that a lost one is made good.
const LIST_EVERY: Duration = Duration::from_mins(1);
/// The same while some kind could not be read.
const LIST_EVERY_PARTIAL: Duration = Duration::from_secs(5);
/// News that are taken at once at most: as many as the engine keeps for whoever is behind.
const NEWS_MAX: usize = 1024;
/// How often connections without a request are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The routes of one gateway.
#[derive(Debug)]
pub(crate) struct Routes {
    shared: Arc<Shared>,
    table: RwLock<Arc<Table>>,
    /// The table was read at least once.
    loaded: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Table {
    loaded: bool,
    /// Some kind could not be read when it was read last.
    partial: bool,
    hosts: HashMap<String, Arc<Backend>>,
    backends: BTreeMap<WorkloadId, Arc<Backend>>,
    /// Workloads with a host that belongs to another, and whose it is.
    doubles: BTreeSet<(WorkloadId, Host, WorkloadId)>,
}

/// What came at once, in its order: a new table for each of a thousand new workloads is dear.
#[derive(Debug, Default)]
struct News {
    events: Vec<WorkloadEvent>,
    missed_some: bool,
    are_over: bool,
}

/// What a host leads to.
#[derive(Debug)]
pub(crate) enum Route {
    /// This workload.
    To(Arc<Backend>),
    /// Nothing.
    Unknown,
    /// The table was not read yet, or not as a whole.
    NotLoaded,
}

impl News {
    /// The first, and what has come since.
    fn of(
        first: Result<WorkloadEvent, RecvError>,
        events: &mut broadcast::Receiver<WorkloadEvent>,
    ) -> Self {
        let mut news = Self::default();
        let mut next = first;
        loop {
            match next {
                Ok(event) => news.events.push(event),
                Err(RecvError::Lagged(_)) => news.missed_some = true,
                Err(RecvError::Closed) => news.are_over = true,
            }
            if news.are_over || news.events.len() >= NEWS_MAX {
                return news;
            }
            next = match events.try_recv() {
                Ok(event) => Ok(event),
                Err(TryRecvError::Empty) => return news,
                Err(TryRecvError::Lagged(count)) => Err(RecvError::Lagged(count)),
                Err(TryRecvError::Closed) => Err(RecvError::Closed),
            };
        }
    }
}

impl Routes {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            table: RwLock::default(),
            loaded: watch::Sender::new(false),
        }
    }

    /// What this host, already in its normal form, leads to.
    pub(crate) fn find(&self, host: &str) -> Route {
        let table = self.table();
        match table.hosts.get(host) {
            _ if !table.loaded => Route::NotLoaded,
            Some(backend) => Route::To(Arc::clone(backend)),
            None if !table.partial => Route::Unknown,
            None => Route::NotLoaded,
        }
    }

    /// Follows whether the table was read.
    pub(crate) fn loaded(&self) -> watch::Receiver<bool> {
        self.loaded.subscribe()
    }

    /// The workload, if the gateway is in front of it.
    pub(crate) fn backend(&self, id: &WorkloadId) -> Option<Arc<Backend>> {
        self.table().backends.get(id).cloned()
    }

    /// Every workload that the gateway is in front of.
    pub(crate) fn backends(&self) -> Vec<Arc<Backend>> {
        self.table().backends.values().cloned().collect()
    }

    /// Follows the engine until the process stops serving.
    pub(crate) async fn follow(&self, workloads: &dyn Workloads, shutdown: &Shutdown) {
        // Subscribed before the list, so that no event after it is missed.
        let mut events = workloads.subscribe();
        let mut list_at = Instant::now();
        let mut retry = Backoff::new(RETRY.0, RETRY.1, 0);
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Cancel-safe: waiting on a watch channel loses nothing.
                () = shutdown.stopped() => return,
                // Cancel-safe: a broadcast receiver keeps its place.
                event = events.recv() => {
                    let news = News::of(event, &mut events);
                    self.take(news.events);
                    if news.missed_some {
                        list_at = Instant::now();
                    }
                    if news.are_over {
                        // The engine is ending, and so is this process; routes stay as they are.
                        return shutdown.stopped().await;
                    }
                },
                // Cancel-safe: it waits for a point in time. While lists fail, events are taken all the same.
                () = tokio::time::sleep_until(list_at) => {
                    let listed = tokio::select! {
                        // Cancel-safe: waiting on a watch channel loses nothing.
                        () = shutdown.stopped() => return,
                        // Cancel-safe: the table is replaced in one step, after the last wait.
                        listed = self.list(workloads) => listed,
                    };
                    list_at = Instant::now() + self.listed(listed, &mut retry);
                },
                // Cancel-safe: a tick that was not taken comes again.
                _ = sweep.tick() => {
                    for backend in self.backends() {
                        backend.sweep();
                    }
                }
            }
        }
    }

    /// When to list again after a list that ended so.
    fn listed(&self, listed: Result<(), PortError>, retry: &mut Backoff) -> Duration {
        match listed {
            Ok(()) => {
                retry.reset();
                if self.table().partial {
                    LIST_EVERY_PARTIAL
                } else {
                    LIST_EVERY
                }
            }
            Err(error) => {
                if retry.attempts() == 0 {
                    let loaded = self.table().loaded;
                    tracing::warn!(error = %error, loaded, "Routes could not be read, will try again");
                }
                retry.next_delay()
            }
        }
    }

    async fn list(&self, workloads: &dyn Workloads) -> Result<(), PortError> {
        let table = self.table();
        let mut gone: HashSet<WorkloadId> = table.backends.keys().cloned().collect();
        let mut moved = Vec::new();
        let take = |workload: Arc<Workload>| {
            gone.remove(&workload.id);
            moved.extend(table.observe_in_place(workload));
        };
        let unread = each(workloads, take).await?;
        // Where nothing is known of replicas from the first moment on, every request would wait for what is there already.
        let is_blind = |unread: &&Unread| unread.facts == Facts::Pods && !unread.in_part;
        let mut pods = unread.iter().filter(is_blind);
        if let Some(unread) = pods.next().filter(|_| !table.loaded) {
            return Err(unread.problem.clone());
        }
        // A host that is not in the table may be one of theirs.
        let hidden = unread.iter().find(|unread| unread.may_hide_workloads());
        let partial = hidden.is_some();
        if let Some(unread) = hidden.filter(|_| !table.partial) {
            tracing::warn!(what = %unread, error = %unread.problem, "Not all workloads are known, hosts of none are not told as unknown");
        }
        if table.loaded && table.partial == partial && gone.is_empty() && moved.is_empty() {
            return Ok(());
        }
        self.update(|next, shared| {
            next.loaded = true;
            next.partial = partial;
            next.backends.retain(|id, _| !gone.contains(id));
            for workload in moved {
                next.observe(workload, shared);
            }
        });
        for id in &gone {
            if let Some(backend) = table.backends.get(id) {
                backend.deleted();
            }
        }
        self.loaded.send_replace(true);
        Ok(())
    }

    /// Takes news in their order. A new table is made when one of them changes it, once for all.
    fn take(&self, news: Vec<WorkloadEvent>) {
        let table = self.table();
        let mut changes = Vec::new();
        // Behind one that changes the table, those about the same workload wait for their turn.
        let mut waiting = HashSet::new();
        for event in news {
            match event {
                WorkloadEvent::Changed(workload) if !waiting.contains(&workload.id) => {
                    if let Some(moved) = table.observe_in_place(workload) {
                        waiting.insert(moved.id.clone());
                        changes.push(WorkloadEvent::Changed(moved));
                    }
                }
                WorkloadEvent::Deleted(id)
                    if !waiting.contains(&id) && !table.backends.contains_key(&id) => {}
                WorkloadEvent::Deleted(id) => {
                    waiting.insert(id.clone());
                    changes.push(WorkloadEvent::Deleted(id));
                }
                WorkloadEvent::Changed(workload) => {
                    changes.push(WorkloadEvent::Changed(workload));
                }
            }
        }
        if changes.is_empty() {
            return;
        }
        let mut gone = Vec::new();
        self.update(|next, shared| {
            for change in changes {
                match change {
                    WorkloadEvent::Changed(workload) => next.observe(workload, shared),
                    WorkloadEvent::Deleted(id) => gone.extend(next.backends.remove(&id)),
                }
            }
        });
        for backend in gone {
            backend.deleted();
        }
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a new table out of the one that is there. Only the follower calls this, so no change is lost.
    fn update(&self, change: impl FnOnce(&mut Table, &Arc<Shared>)) {
        let now = self.table();
        let mut next = Table {
            loaded: now.loaded,
            partial: now.partial,
            hosts: HashMap::new(),
            backends: now.backends.clone(),
            doubles: now.doubles.clone(),
        };
        change(&mut next, &self.shared);
        next.index();
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
    }
}

impl Table {
    /// Tells a backend how its workload is now. Gives the workload back when that changes the table.
    fn observe_in_place(&self, workload: Arc<Workload>) -> Option<Arc<Workload>> {
        match self.backends.get(&workload.id) {
            Some(backend) if backend.workload().hosts == workload.hosts => {
                backend.observe(workload);
                None
            }
            None if workload.hosts.is_empty() => None,
            Some(_) | None => Some(workload),
        }
    }

    fn observe(&mut self, workload: Arc<Workload>, shared: &Arc<Shared>) {
        if let Some(backend) = self.backends.get(&workload.id) {
            backend.observe(Arc::clone(&workload));
            if workload.hosts.is_empty() {
                self.backends.remove(&workload.id);
            }
        } else if !workload.hosts.is_empty() {
            self.backends.insert(
                workload.id.clone(),
                Backend::new(workload, Arc::clone(shared)),
            );
        }
    }

    fn index(&mut self) {
        let own = |id: &WorkloadId, host: &Host| id.default_host().is_ok_and(|own| own == *host);
        let mut doubles = BTreeSet::new();
        // Whoever may write on one workload must not take the requests of another: its default host is given out first.
        for owned in [true, false] {
            for (id, backend) in &self.backends {
                for host in &backend.workload().hosts {
                    if own(id, host) != owned {
                        continue;
                    }
                    if let Some(owner) = self.hosts.get(host.as_str()) {
                        let double = (id.clone(), host.clone(), owner.id.clone());
                        // Said once, and not with every workload that comes or goes.
                        if !self.doubles.contains(&double) {
                            tracing::warn!(
                                namespace = %id.namespace, workload = %id.name, resource = %id.resource, host = %host,
                                owner = %owner.id, owner_resource = %owner.id.resource,
                                "Host belongs to another workload"
                            );
                        }
                        doubles.insert(double);
                    } else {
                        self.hosts
                            .insert(host.as_str().to_owned(), Arc::clone(backend));
                    }
                }
            }
        }
        self.doubles = doubles;
    }
}
