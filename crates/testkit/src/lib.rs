//! Doubles of the ports for tests, and builders for the facts they hold.
//!
//! [`MemoryWorkloads`] keeps the contract of the port (conditions on writes, versions that grow, events for every
//! change) and does on demand what a real engine will not: conflict, refuse, vanish, hang. A development dependency
//! only: `cargo xtask tidy` refuses it anywhere else.

pub mod contract;
pub mod journal;
mod telling;

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use nagi_core::id::{Name, Namespace, ReplicaName, Uid, Version, WorkloadId};
use nagi_core::idle::Activity;
use nagi_core::intent::{CountWriter, Intent, IntentUpdate};
use nagi_core::quantity::Replicas;
use nagi_core::status::Counts;
use nagi_core::wake::Stage;
use nagi_core::workload::{Readiness, Replica, Workload};
use nagi_ports::{
    Clock, Engine, Glance, PortError, Read, Revision, See, Selection, Settled, Traffic, Visited,
    WorkloadEvent, Workloads,
};
use tokio::sync::broadcast;

pub use telling::{Bar, may_mount, measured, skipped};

/// The instant at which test clocks start.
///
/// # Panics
/// Never: the constant lies inside the range.
pub fn epoch() -> Timestamp {
    Timestamp::from_second(1_900_000_000).expect("a constant inside the range")
}

/// Wall time that starts at [`epoch`] and goes on with tokio's clock, paused or not.
#[derive(Debug)]
pub struct TestClock {
    start: tokio::time::Instant,
    /// Added to wall time: lets a test make the wall clock jump.
    pub jump: Mutex<jiff::SignedDuration>,
}

impl TestClock {
    /// Starts now.
    pub fn start() -> Arc<Self> {
        Arc::new(Self {
            start: tokio::time::Instant::now(),
            jump: Mutex::new(jiff::SignedDuration::ZERO),
        })
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let jump = *self.jump.lock().unwrap_or_else(PoisonError::into_inner);
        epoch() + self.start.elapsed() + jump
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// `NAMESPACE/NAME` of a Deployment.
///
/// # Panics
/// When the text is no such id.
pub fn id(text: &str) -> WorkloadId {
    let (namespace, name) = text.split_once('/').expect("NAMESPACE/NAME");
    WorkloadId::deployment(
        Namespace::new(namespace).expect("a namespace"),
        Name::new(name).expect("a name"),
    )
}

/// A workload with these counts and as many replicas as `current`, the first `available` of them ready.
///
/// # Panics
/// When `text` is no `NAMESPACE/NAME`.
pub fn workload(text: &str, desired: u32, current: u32, available: u32) -> Workload {
    let id = id(text);
    let replicas = (0..current)
        .map(|n| Replica {
            name: ReplicaName::new(format!("{}-{n}", id.name)).expect("a replica name"),
            stage: if n < available {
                Stage::Ready
            } else {
                Stage::Starting
            },
            address: None,
            readiness: Readiness::Tcp,
            ready: n < available,
            stopping: false,
            restarts: 0,
        })
        .collect();
    Workload {
        id,
        uid: Uid::new("1"),
        version: Version::new(1),
        desired: Replicas(desired),
        current: Replicas(current),
        available: Replicas(available),
        intent: Intent::default(),
        unrecorded: None,
        awake_replicas: None,
        idle_after: None,
        autoscaler: None,
        hosts: vec![],
        labels: BTreeMap::new(),
        pool: None,
        replicas,
        pending: None,
        observed_at: epoch(),
    }
}

/// What the next call of a kind does instead of working.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers with this error and changes nothing.
    Error(PortError),
    /// Never answers.
    Hang,
    /// Takes effect, and then answers with this error: the answer was lost.
    AfterEffect(PortError),
    /// A write is denied with a conflict though nobody else wrote, as an admission webhook may.
    Denied,
    /// An admission webhook changes what is written, seeing how it was before.
    Kept(fn(&Workload, &mut Workload)),
}

#[derive(Debug, Default)]
struct World {
    /// Why nobody carries out what is due by itself.
    unattended: Option<PortError>,
    workloads: BTreeMap<WorkloadId, Arc<Workload>>,
    version: u64,
    read_faults: VecDeque<Fault>,
    write_faults: VecDeque<Fault>,
    forever: Option<(Option<Fault>, Option<Fault>)>,
    writes: Vec<(WorkloadId, IntentUpdate)>,
    tries: usize,
    count_writer: Option<CountWriter>,
}

/// Workloads in memory.
#[derive(Debug)]
pub struct MemoryWorkloads {
    engine: Engine,
    world: Mutex<World>,
    events: broadcast::Sender<WorkloadEvent>,
}

impl MemoryWorkloads {
    /// An engine of this kind with these workloads.
    pub fn new(engine: Engine, workloads: impl IntoIterator<Item = Workload>) -> Arc<Self> {
        let (events, _) = broadcast::channel(1024);
        let this = Self {
            engine,
            world: Mutex::new(World::default()),
            events,
        };
        for workload in workloads {
            this.put(workload);
        }
        Arc::new(this)
    }

    /// Sets the facts of a workload, as the engine would report them; the version grows.
    pub fn put(&self, mut workload: Workload) {
        let mut world = self.lock();
        world.version += 1;
        workload.version = Version::new(world.version);
        let workload = Arc::new(workload);
        world
            .workloads
            .insert(workload.id.clone(), Arc::clone(&workload));
        drop(self.events.send(WorkloadEvent::Changed(workload)));
    }

    /// Changes the facts of a workload.
    ///
    /// # Panics
    /// When it is not there.
    pub fn change(&self, id: &WorkloadId, change: impl FnOnce(&mut Workload)) {
        let mut workload = (*self.peek(id)).clone();
        change(&mut workload);
        self.put(workload);
    }

    /// The same without a word to anybody, as what only grows less with time.
    ///
    /// # Panics
    /// When it is not there.
    pub fn change_untold(&self, id: &WorkloadId, change: impl FnOnce(&mut Workload)) {
        let mut workload = (*self.peek(id)).clone();
        change(&mut workload);
        self.lock().workloads.insert(id.clone(), Arc::new(workload));
    }

    /// Makes the replicas of a workload what is wanted, all of them ready.
    pub fn settle(&self, id: &WorkloadId) {
        self.change(id, |w| {
            let desired = w.desired.0;
            let full = self::workload(&w.id.to_string(), desired, desired, desired);
            w.current = w.desired;
            w.available = w.desired;
            w.replicas = full.replicas;
            w.pending = None;
        });
    }

    /// Takes a workload away.
    pub fn delete(&self, id: &WorkloadId) {
        self.lock().workloads.remove(id);
        drop(self.events.send(WorkloadEvent::Deleted(id.clone())));
    }

    /// The facts as they are.
    ///
    /// # Panics
    /// When it is not there.
    pub fn peek(&self, id: &WorkloadId) -> Arc<Workload> {
        Arc::clone(
            self.lock()
                .workloads
                .get(id)
                .expect("the workload is there"),
        )
    }

    /// Every update that took effect, in order.
    pub fn writes(&self) -> Vec<(WorkloadId, IntentUpdate)> {
        self.lock().writes.clone()
    }

    /// How often a write was tried, whatever came of it.
    pub fn tries(&self) -> usize {
        self.lock().tries
    }

    /// Whoever sets a count without leaving a record is this one from now on.
    pub fn name_count_writer(&self, writer: CountWriter) {
        self.lock().count_writer = Some(writer);
    }

    /// The next read does this instead.
    pub fn fail_read(&self, fault: Fault) {
        self.lock().read_faults.push_back(fault);
    }

    /// The next write does this instead.
    pub fn fail_write(&self, fault: Fault) {
        self.lock().write_faults.push_back(fault);
    }

    /// From now on nobody carries out what is due by itself, and schedules are refused for that reason.
    pub fn leave_unattended(&self, problem: PortError) {
        self.lock().unattended = Some(problem);
    }

    /// From now on every read and every write does this; `None` works.
    pub fn fail_always(&self, read: Option<Fault>, write: Option<Fault>) {
        self.lock().forever = Some((read, write));
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_fault(&self) -> Result<(), PortError> {
        let fault = {
            let mut world = self.lock();
            let next = world.read_faults.pop_front();
            next.or_else(|| world.forever.clone().and_then(|(read, _)| read))
        };
        match fault {
            // Some befall only writes.
            None | Some(Fault::Denied | Fault::Kept(_)) => Ok(()),
            Some(Fault::Error(error) | Fault::AfterEffect(error)) => Err(error),
            Some(Fault::Hang) => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Workloads for MemoryWorkloads {
    fn engine(&self) -> Engine {
        self.engine
    }

    async fn reachable(&self) -> Result<(), PortError> {
        let deadline = Duration::from_secs(2);
        match tokio::time::timeout(deadline, self.read_fault()).await {
            Ok(answer) => answer,
            Err(_) => Err(PortError::Timeout("no answer within 2 s".to_owned())),
        }
    }

    async fn get(&self, id: &WorkloadId, read: Read) -> Result<Arc<Workload>, PortError> {
        self.read_fault().await?;
        let workload = self.lock().workloads.get(id).cloned();
        let workload = workload.ok_or(PortError::NotFound)?;
        match read {
            Read::AtLeast(asked) if asked > workload.version => Err(PortError::NoSuchVersion {
                asked,
                newest: workload.version,
            }),
            Read::AtLeast(_) | Read::Cached | Read::Live => Ok(workload),
        }
    }

    async fn visit(
        &self,
        selection: Selection<'_>,
        see: &mut See<'_>,
    ) -> Result<Visited, PortError> {
        self.read_fault().await?;
        let world = self.lock();
        let mut selected = world.workloads.values().filter(|w| selection.covers(&w.id));
        while let Some(workload) = selected.next()
            && see(&Seen(workload)).is_continue()
        {}
        Ok(Visited::all(epoch()))
    }

    async fn rehearse(&self, before: &Workload, update: &IntentUpdate) -> Result<(), PortError> {
        let problem = self.unattended().filter(|_| {
            update.intent.scheduled.is_some() && update.intent.scheduled != before.intent.scheduled
        });
        problem.map_or(Ok(()), Err)
    }

    fn unattended(&self) -> Option<PortError> {
        self.lock().unattended.clone()
    }

    async fn write(
        &self,
        before: &Workload,
        update: IntentUpdate,
    ) -> Result<Arc<Workload>, PortError> {
        self.rehearse(before, &update).await?;
        let fault = {
            let mut world = self.lock();
            world.tries += 1;
            let next = world.write_faults.pop_front();
            next.or_else(|| world.forever.clone().and_then(|(_, write)| write))
        };
        match &fault {
            Some(Fault::Error(error)) => {
                if *error == PortError::Conflict {
                    // Somebody else wrote, or there would be none.
                    self.change(&before.id, |_| {});
                }
                return Err(error.clone());
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Denied) => return Err(PortError::Conflict),
            Some(Fault::AfterEffect(_) | Fault::Kept(_)) | None => {}
        }
        let mut world = self.lock();
        let now = world.workloads.get(&before.id).ok_or(PortError::NotFound)?;
        if now.version != before.version || now.uid != before.uid {
            return Err(PortError::Conflict);
        }
        let mut next = (**now).clone();
        next.desired = update.desired;
        next.intent = update.intent.clone();
        next.unrecorded = None;
        if let Some(Fault::Kept(change)) = &fault {
            change(now, &mut next);
        }
        world.version += 1;
        next.version = Version::new(world.version);
        let next = Arc::new(next);
        world.workloads.insert(before.id.clone(), Arc::clone(&next));
        world.writes.push((before.id.clone(), update));
        drop(self.events.send(WorkloadEvent::Changed(Arc::clone(&next))));
        match fault {
            Some(Fault::AfterEffect(error)) => Err(error),
            Some(Fault::Error(_) | Fault::Hang | Fault::Denied | Fault::Kept(_)) | None => Ok(next),
        }
    }

    async fn count_writer(&self, _workload: &Workload) -> Result<Option<CountWriter>, PortError> {
        Ok(self.lock().count_writer.clone())
    }

    fn subscribe(&self) -> broadcast::Receiver<WorkloadEvent> {
        self.events.subscribe()
    }
}

/// One workload as a visit shows it.
struct Seen<'a>(&'a Arc<Workload>);

impl Glance for Seen<'_> {
    fn id(&self) -> &WorkloadId {
        &self.0.id
    }

    fn revision(&self) -> Revision {
        // No two writes of one world have the same version.
        Revision(self.0.version.number)
    }

    fn counts(&self) -> Counts {
        self.0.counts()
    }

    fn intent(&self) -> &Intent {
        &self.0.intent
    }

    fn unrecorded(&self) -> Option<Replicas> {
        self.0.unrecorded
    }

    fn idle_after(&self) -> Option<Duration> {
        self.0.idle_after
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.0.labels.get(key).map(String::as_str)
    }

    fn workload(&self) -> Arc<Workload> {
        Arc::clone(self.0)
    }
}

/// Everything that an engine shows, in its order.
///
/// # Errors
/// As [`Workloads::visit`].
pub async fn listed(workloads: &dyn Workloads) -> Result<Vec<Arc<Workload>>, PortError> {
    let mut all = Vec::new();
    nagi_ports::each(workloads, |workload| all.push(workload)).await?;
    Ok(all)
}

/// Checks what every engine promises of a visit: for each selection that its workloads allow, what is selected and nothing else,
/// in order; glances that say what the whole workloads say; one revision for each that stays while nothing changes.
///
/// # Panics
/// When it is not so.
pub async fn check_visits(workloads: &dyn Workloads) {
    let all = listed(workloads).await.expect("it lists");
    assert!(all.is_sorted_by(|a, b| a.id < b.id));
    let choices = || std::iter::once(None).chain(all.iter().map(Some));
    let mut revisions = BTreeMap::new();
    for kind in choices() {
        for part in choices() {
            for after in choices() {
                let selection = Selection {
                    resource: kind.map(|w| &w.id.resource),
                    namespace: part.map(|w| &w.id.namespace),
                    after: after.map(|w| &w.id),
                };
                let mut seen = Vec::new();
                let see = &mut |glance: &dyn Glance| {
                    let whole = glance.workload();
                    assert_eq!(glance.counts(), whole.counts());
                    assert_eq!(*glance.intent(), whole.intent);
                    assert_eq!(glance.idle_after(), whole.idle_after);
                    for (key, value) in &whole.labels {
                        assert_eq!(glance.label(key), Some(value.as_str()));
                    }
                    assert_eq!(glance.label("nobody.has/this"), None);
                    seen.push((glance.id().clone(), glance.revision().0));
                    ControlFlow::Continue(())
                };
                workloads.visit(selection, see).await.expect("it visits");
                let wanted = all.iter().map(|w| &w.id).filter(|id| selection.covers(id));
                assert!(seen.iter().map(|(id, _)| id).eq(wanted), "{selection:?}");
                for (id, revision) in seen {
                    assert_eq!(*revisions.entry(revision).or_insert(id.clone()), id);
                }
            }
        }
    }
    assert_eq!(revisions.len(), all.len(), "one revision for each");
    let mut seen = 0;
    let see = &mut |_: &dyn Glance| {
        seen += 1;
        ControlFlow::Break(())
    };
    workloads
        .visit(Selection::default(), see)
        .await
        .expect("it visits");
    assert_eq!(seen, all.len().min(1), "a visit ends when it is told to");
}

/// Traffic that a test sets, and the hand-shakes that were asked of it.
#[derive(Debug, Default)]
pub struct MemoryTraffic {
    state: Mutex<TrafficState>,
}

#[derive(Debug, Default)]
struct TrafficState {
    activity: BTreeMap<WorkloadId, Activity>,
    at_prepare: BTreeMap<WorkloadId, Option<Activity>>,
    settled: Vec<(WorkloadId, Settled)>,
}

impl MemoryTraffic {
    /// Nobody knows anything yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Sets what is known; `None` is unknown.
    pub fn set(&self, id: &WorkloadId, activity: Option<Activity>) {
        let mut state = self.lock();
        match activity {
            Some(activity) => state.activity.insert(id.clone(), activity),
            None => state.activity.remove(id),
        };
    }

    /// What `prepare` will find, when it differs from what `activity` said.
    pub fn set_at_prepare(&self, id: &WorkloadId, activity: Option<Activity>) {
        self.lock().at_prepare.insert(id.clone(), activity);
    }

    /// Every hand-shake that was settled, in order.
    pub fn settled(&self) -> Vec<(WorkloadId, Settled)> {
        self.lock().settled.clone()
    }

    fn lock(&self) -> MutexGuard<'_, TrafficState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Traffic for MemoryTraffic {
    async fn activity(&self, id: &WorkloadId) -> Option<Activity> {
        self.lock().activity.get(id).copied()
    }

    async fn prepare(&self, id: &WorkloadId) -> Option<Activity> {
        let state = self.lock();
        state
            .at_prepare
            .get(id)
            .copied()
            .unwrap_or_else(|| state.activity.get(id).copied())
    }

    async fn settle(&self, id: &WorkloadId, settled: Settled) {
        self.lock().settled.push((id.clone(), settled));
    }
}
