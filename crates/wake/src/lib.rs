//! One wake in flight per workload, however many wait for it.
//!
//! [`Wakes::wake`] joins the flight of a workload or begins one. A flight reads the workload, lets the core decide,
//! writes the wanted count on the condition that nothing changed meanwhile, and then follows the observations until
//! a replica serves or the core's machine gives up. Everybody who waits holds a [`Ticket`] of that flight and is
//! woken by it alone. A flight belongs to this crate, not to the request that began it: a client that goes away
//! takes nothing with it.
//!
//! What it deliberately does not do: hold requests (the gateway does), decide counts (the core does), know an
//! engine or a wire format.

mod flight;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nagi_core::guardrail::Guardrails;
use nagi_core::id::{Version, WorkloadId};
use nagi_core::quantity::Replicas;
use nagi_core::scale::{Order, Refusal, Request};
use nagi_core::wake::{Flight, Mark, Progress, Stage, Trigger};
use nagi_core::workload::Workload;
use nagi_ports::{Clock, PortError, Read, Workloads};
use nagi_runtime::{Deadline, TaskSet};
use nagi_telemetry::Metrics;
use thiserror::Error;
use tokio::sync::{broadcast, watch};

/// Flights under way at most: one for each workload of a large cluster. At under 2 KiB each this is 20 MiB.
pub const FLIGHTS_MAX: usize = 10_000;
/// Stage changes that a slow listener may lag behind before it loses some.
const EVENTS_MAX: usize = 1024;

/// Why no wake was begun, or how its beginning failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WakeError {
    /// The core refused the order.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The engine could not be read or written.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Too many wakes are under way, or the process is ending.
    #[error("too many wakes are under way (limit {FLIGHTS_MAX}), or this process is ending")]
    Busy,
}

/// What is known of a flight at one moment.
#[derive(Debug, Clone)]
pub struct FlightView {
    /// Where it stands.
    pub progress: Progress,
    /// The stages entered so far and when, counted from its beginning.
    pub marks: Vec<Mark>,
    /// Time that it is likely to take from now on; `None` before anything was learned.
    pub eta: Option<Duration>,
    /// Who began it.
    pub trigger: Trigger,
    /// The workload as last observed.
    pub workload: Option<Arc<Workload>>,
    /// The version that made the wanted count durable, or that was found to have it; `None` before that. What is observed
    /// later may be somebody else's write.
    pub version: Option<Version>,
    /// Wanted count before.
    pub from: Replicas,
    /// Wanted count now.
    pub to: Replicas,
    /// Nothing was written: the count was above zero when the flight began.
    pub already_awake: bool,
}

/// A stage change of some flight.
#[derive(Debug, Clone)]
pub struct WakeEvent {
    /// Whose.
    pub id: WorkloadId,
    /// What is known now.
    pub view: FlightView,
}

/// A wake that was written already.
#[derive(Debug, Clone)]
pub struct Written {
    /// The workload as it was written, above zero.
    pub workload: Arc<Workload>,
    /// Wanted count before.
    pub from: Replicas,
    /// What it was written for.
    pub trigger: Trigger,
    /// Who wrote it.
    pub by: Writer,
}

/// Who wrote the count of a wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// This process, which logs and counts the wake.
    ThisProcess,
    /// A gateway that may write nothing else: it logs and counts the wake, and cannot store what it taught.
    Gateway,
}

/// All flights of this process. Clones share them.
#[derive(Debug, Clone)]
pub struct Wakes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    workloads: Arc<dyn Workloads>,
    clock: Arc<dyn Clock>,
    rails: Guardrails,
    metrics: Metrics,
    tasks: TaskSet,
    flights: Mutex<HashMap<WorkloadId, Entry>>,
    events: broadcast::Sender<WakeEvent>,
}

/// A flight as the map holds it. `number` tells a flight from a later one of the same workload.
#[derive(Debug, Clone)]
struct Entry {
    number: u64,
    state: watch::Receiver<State>,
    served: Arc<tokio::sync::Notify>,
}

/// What a flight tells its waiters.
#[derive(Debug, Clone)]
enum State {
    /// The count is not durable yet.
    Deciding(FlightView),
    /// It is, or needed no write.
    Under(FlightView),
    /// It never began.
    Refused(WakeError),
}

/// One waiter's hold on a flight.
#[derive(Debug, Clone)]
pub struct Ticket {
    state: watch::Receiver<State>,
    last: FlightView,
    joined: bool,
}

// === impl Wakes ===

impl Wakes {
    /// No flight yet. Writes go to `workloads`; whoever writes with other rights gives another one.
    pub fn new(
        workloads: Arc<dyn Workloads>,
        clock: Arc<dyn Clock>,
        rails: Guardrails,
        metrics: Metrics,
    ) -> Self {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let flights = Mutex::new(HashMap::new());
        let tasks = TaskSet::new("wakes", FLIGHTS_MAX);
        Self {
            inner: Arc::new(Inner {
                workloads,
                clock,
                rails,
                metrics,
                tasks,
                flights,
                events,
            }),
        }
    }

    /// Joins the flight of this workload or begins one, and returns when the wanted count is durable.
    ///
    /// Cancel-safe: dropping the future leaves the flight running.
    ///
    /// # Errors
    /// The order is refused, the engine cannot be reached, or there is no room for another flight.
    pub async fn wake(&self, id: &WorkloadId, request: Request) -> Result<Ticket, WakeError> {
        let mut overtaken = None;
        loop {
            let (joined, state) = self.join_or_begin(id, &request, overtaken)?;
            let mut ticket = durable(state).await?;
            ticket.joined = joined.is_some();
            // A flight learns from an event that the workload was put to sleep again. Whoever calls after the sleep was
            // answered, and before that event, must not be answered by the wake from before it.
            match joined {
                Some(number) if self.slept_since(id, &ticket.last).await => {
                    overtaken = Some(number);
                }
                Some(_) | None => return Ok(ticket),
            }
        }
    }

    /// Follows a wake that was written already, as any other is followed, unless one of this workload is under way.
    ///
    /// # Errors
    /// There is no room for another flight.
    pub fn follow(&self, written: Written) -> Result<(), WakeError> {
        let mut flights = self.inner.lock();
        let id = written.workload.id.clone();
        if flights.get(&id).is_some_and(Entry::is_under_way) {
            return Ok(());
        }
        let trigger = written.trigger;
        self.begin(&mut flights, &id, flight::Task::Written(written), trigger)?;
        Ok(())
    }

    /// Has somebody put the workload to sleep after the wake of this flight was durable? Unknown is no.
    async fn slept_since(&self, id: &WorkloadId, view: &FlightView) -> bool {
        let now = self.inner.workloads.get(id, Read::Cached).await;
        now.is_ok_and(|now| now.desired.is_zero() && Some(now.version) > view.version)
    }

    /// The flight under way, if there is one.
    pub fn flight(&self, id: &WorkloadId) -> Option<FlightView> {
        let state = self.inner.lock().get(id)?.state.borrow().clone();
        match state {
            State::Deciding(view) | State::Under(view) => Some(view),
            State::Refused(_) => None,
        }
    }

    /// Every workload with a flight.
    pub fn under_way(&self) -> HashSet<WorkloadId> {
        self.inner.lock().keys().cloned().collect()
    }

    /// Every stage change from now on. A receiver that lags loses the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<WakeEvent> {
        self.inner.events.subscribe()
    }

    /// Somebody reached a replica of this workload: as good as the engine's word that it is ready.
    pub fn served(&self, id: &WorkloadId) {
        if let Some(entry) = self.inner.lock().get(id) {
            entry.served.notify_one();
        }
    }

    /// Begins no more flights and waits for those under way until `deadline`. They write nothing that a restart
    /// would miss, so the rest are simply cut.
    pub async fn drain(&self, deadline: Deadline) -> usize {
        self.inner.tasks.drain(deadline).await
    }

    /// Joins the flight of this workload, unless it is the one that was overtaken, or begins one. The number is that of
    /// a flight which was joined.
    fn join_or_begin(
        &self,
        id: &WorkloadId,
        request: &Request,
        overtaken: Option<u64>,
    ) -> Result<(Option<u64>, watch::Receiver<State>), WakeError> {
        let mut flights = self.inner.lock();
        if let Some(entry) = flights.get(id)
            && asks_nothing_else(request)
            && overtaken != Some(entry.number)
            && entry.is_under_way()
        {
            return Ok((Some(entry.number), entry.state.clone()));
        }
        let task = flight::Task::Order(request.clone());
        let state = self.begin(&mut flights, id, task, trigger(request))?;
        Ok((None, state))
    }

    fn begin(
        &self,
        flights: &mut HashMap<WorkloadId, Entry>,
        id: &WorkloadId,
        task: flight::Task,
        trigger: Trigger,
    ) -> Result<watch::Receiver<State>, WakeError> {
        let number = flights.get(id).map_or(0, |entry| entry.number + 1);
        let now = self.inner.clock.monotonic();
        let flight = Flight::accepted(now);
        let view = FlightView {
            progress: flight.progress().clone(),
            marks: flight.marks().to_vec(),
            eta: None,
            trigger,
            workload: None,
            version: None,
            from: Replicas::ZERO,
            to: Replicas::ZERO,
            already_awake: false,
        };
        let (sender, state) = watch::channel(State::Deciding(view.clone()));
        let served = Arc::new(tokio::sync::Notify::new());
        let entry = Entry {
            number,
            state: state.clone(),
            served: Arc::clone(&served),
        };
        let run = flight::Run {
            inner: Arc::clone(&self.inner),
            id: id.clone(),
            number,
            task,
            flight,
            view,
            sender,
            served,
        };
        self.inner
            .tasks
            .try_spawn(run.run())
            .map_err(|_full| WakeError::Busy)?;
        flights.insert(id.clone(), entry);
        Ok(state)
    }
}

/// Waits until the wanted count of a flight is durable. Cancel-safe.
async fn durable(mut state: watch::Receiver<State>) -> Result<Ticket, WakeError> {
    loop {
        let now = state.borrow_and_update().clone();
        match now {
            State::Refused(error) => return Err(error),
            State::Under(view) => {
                return Ok(Ticket {
                    state,
                    last: view,
                    joined: false,
                });
            }
            State::Deciding(_) => {}
        }
        // Cancel-safe: watch keeps the value. A sender that is gone means that the process is ending.
        if state.changed().await.is_err() {
            return Err(WakeError::Busy);
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkloadId, Entry>> {
        // No section leaves the map half changed.
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, id: &WorkloadId, number: u64) {
        let mut flights = self.lock();
        if flights.get(id).is_some_and(|entry| entry.number == number) {
            flights.remove(id);
        }
    }
}

/// A call that names a count of its own is not answered by a flight that goes to another.
fn asks_nothing_else(request: &Request) -> bool {
    match &request.order {
        Order::Wake { replicas, .. } => replicas.is_none(),
        Order::ToZero { .. } | Order::Up { .. } | Order::CancelSchedule => false,
    }
}

fn trigger(request: &Request) -> Trigger {
    use nagi_core::intent::Actor;
    match request.actor {
        Actor::Gateway => Trigger::Request,
        Actor::Schedule => Trigger::Schedule,
        Actor::Key(_) | Actor::User(_) | Actor::Anonymous | Actor::Idle | Actor::Outside => {
            Trigger::Call
        }
    }
}

// === impl Entry ===

impl Entry {
    /// It may be joined: it has not ended, and neither has its task.
    fn is_under_way(&self) -> bool {
        let ended = match &*self.state.borrow() {
            State::Deciding(_) => false,
            State::Under(view) => view.has_ended(),
            State::Refused(_) => true,
        };
        !ended && self.state.has_changed().is_ok()
    }
}

// === impl FlightView ===

impl FlightView {
    /// The stage it is in, also after it ended.
    pub fn stage(&self) -> Stage {
        self.marks.last().map_or(Stage::Accepted, |mark| mark.stage)
    }

    /// True when it became ready or was given up.
    pub fn has_ended(&self) -> bool {
        !matches!(self.progress, Progress::Under(_))
    }
}

// === impl Ticket ===

impl Ticket {
    /// Somebody else had begun the flight.
    pub const fn has_joined(&self) -> bool {
        self.joined
    }

    /// What is known now.
    pub fn view(&self) -> FlightView {
        match &*self.state.borrow() {
            State::Deciding(view) | State::Under(view) => view.clone(),
            State::Refused(_) => self.last.clone(),
        }
    }

    /// Waits for the next change; when there will be none, returns what is known. Cancel-safe.
    pub async fn changed(&mut self) -> FlightView {
        // An error means that the flight is over and its last word is in the channel.
        drop(self.state.changed().await);
        self.last = self.view();
        self.last.clone()
    }

    /// Waits for the end; the caller brings the deadline. A flight that was cut by the end of the process returns
    /// as it stood. Cancel-safe.
    pub async fn ended(&mut self) -> FlightView {
        loop {
            let view = self.view();
            if view.has_ended() || self.state.changed().await.is_err() {
                self.last = self.view();
                return self.last.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests;
