//! One workload as the gateway sees it: what serves, who waits, what is counted.
//!
//! Everything that must agree lives under one short lock: the last observation, the replicas, the gate that
//! `prepare` closes, the waiters in the order of their arrival, and the exact counts. A request that arrives is
//! counted before it is judged, so `prepare` either counts it or holds it; there is no third case (invariant 4).
//!
//! It deliberately starts no wake and probes nothing: [`crate::hold`] and [`crate::probe`] do, one driver per workload
//! while somebody waits.

mod seat;
mod waiting;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nagi_core::id::{RequestId, Version, WorkloadId};
use nagi_core::idle::Activity;
use nagi_core::workload::Workload;
use nagi_ports::Settled;
use tokio::sync::{Notify, oneshot};

use crate::shared::Shared;
use crate::upstream::{Place, Upstream};

use seat::{Reach, Seat};
use waiting::Waiter;
pub(crate) use waiting::{Cause, Release, Turned, Waiting};

/// One workload.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) id: WorkloadId,
    pub(crate) shared: Arc<Shared>,
    state: Mutex<State>,
    /// Something changed that the driver should look at.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    workload: Arc<Workload>,
    gone: bool,
    seats: Vec<Seat>,
    /// Rotates, so that equally loaded replicas share.
    next_seat: usize,
    gate: Gate,
    /// It was put to sleep after this version was observed; an older or equal observation says nothing.
    slept_after: Option<Version>,
    /// Requests that were admitted and have not ended, held ones included.
    open: u64,
    /// When the last of them ended, or counting began.
    last_end: Duration,
    waiters: BTreeMap<u64, Waiter>,
    next_waiter: u64,
    driving: bool,
    /// The request for which it is woken.
    woken_for: Option<RequestId>,
    /// Since when nothing serves and somebody wants it.
    waking_since: Option<Duration>,
}

/// Lets requests through or holds them (`prepare`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Prepared { token: u64 },
}

/// Counts one request from its head to the end of its answer.
#[derive(Debug)]
pub(crate) struct Visit {
    backend: Arc<Backend>,
}

/// What is noted of a request that is held.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    /// What its head takes in memory, about.
    pub(crate) head_bytes: usize,
    /// Its own id, or the one that it got.
    pub(crate) request_id: Option<RequestId>,
}

/// What happens to a request that arrives.
#[derive(Debug)]
pub(crate) enum Admission {
    /// A replica serves: go there.
    Go(Place),
    /// Wait.
    Hold(Waiting),
    /// Do not wait, because of this.
    Turned(Turned),
}

/// A moment in the order of arrivals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark(u64);

/// What the driver should do next.
#[derive(Debug)]
pub(crate) enum Look {
    /// Nobody waits; the driver has been taken off and must end.
    Nobody,
    /// A sleep is being prepared: wait for its end.
    Prepared,
    /// A replica serves: let the next ones go.
    Serve,
    /// Nothing serves; these replicas have an address and nobody probes them yet.
    Probe(Vec<Arc<Upstream>>, Wake),
}

/// May whoever waits wake the workload?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Somebody who waits may.
    Wanted,
    /// Nobody who waits may.
    Unwanted,
}

// === impl Backend ===

impl Backend {
    pub(crate) fn new(workload: Arc<Workload>, shared: Arc<Shared>) -> Arc<Self> {
        let now = shared.clock.monotonic();
        let state = State {
            workload: Arc::clone(&workload),
            gone: false,
            seats: Vec::new(),
            next_seat: 0,
            gate: Gate::Open,
            slept_after: None,
            open: 0,
            last_end: now,
            waiters: BTreeMap::new(),
            next_waiter: 0,
            driving: false,
            woken_for: None,
            waking_since: None,
        };
        let id = workload.id.clone();
        let this = Arc::new(Self {
            id,
            shared,
            state: Mutex::new(state),
            changed: Notify::new(),
        });
        this.observe(workload);
        this
    }

    /// The facts as last observed.
    pub(crate) fn workload(&self) -> Arc<Workload> {
        Arc::clone(&self.lock().workload)
    }

    /// Takes an observation in.
    pub(crate) fn observe(&self, workload: Arc<Workload>) {
        self.lock().observe(workload);
        self.changed.notify_one();
    }

    /// Takes in what somebody else observed, if it is newer than what is known here.
    pub(crate) fn catch_up(&self, workload: Arc<Workload>) {
        let mut state = self.lock();
        if workload.version > state.workload.version {
            state.observe(workload);
        }
    }

    /// A replica serves now.
    pub(crate) fn serves(&self) -> bool {
        self.lock().serves()
    }

    /// No replica is wanted.
    pub(crate) fn is_asleep(&self) -> bool {
        self.lock().is_asleep()
    }

    /// The workload is gone; who waits is told.
    pub(crate) fn deleted(&self) {
        self.lock().gone = true;
        self.turn_all(&Turned::Gone);
    }

    /// Counts a request from now on.
    pub(crate) fn enter(self: &Arc<Self>) -> Visit {
        self.lock().open += 1;
        Visit {
            backend: Arc::clone(self),
        }
    }

    /// A replica that serves now, if any; neither holds nor wakes.
    pub(crate) fn place(&self) -> Option<Place> {
        self.lock().place(&self.shared)
    }

    /// Judges a request that arrives, or comes back because its replica could not be reached.
    pub(crate) fn admit(
        self: &Arc<Self>,
        cause: Cause,
        arrival: impl FnOnce() -> Arrival,
    ) -> Admission {
        let mut state = self.lock();
        if state.gone {
            return Admission::Turned(Turned::Gone);
        }
        if state.gate == Gate::Open
            && let Some(place) = state.place(&self.shared)
        {
            return Admission::Go(place);
        }
        if cause == Cause::Broke && state.is_asleep() {
            return Admission::Turned(Turned::Cut);
        }
        if state.waiters.len() >= self.shared.settings.hold.per_workload {
            return Admission::Turned(Turned::Full);
        }
        let Arrival {
            head_bytes,
            request_id,
        } = arrival();
        let Some(held) = self.shared.hold(head_bytes) else {
            return Admission::Turned(Turned::Full);
        };
        if !state.driving {
            if self
                .shared
                .drivers
                .try_spawn(crate::hold::drive(Arc::clone(self)))
                .is_err()
            {
                return Admission::Turned(Turned::Full);
            }
            state.driving = true;
        }
        if cause == Cause::Arrived && !state.wants_wake() {
            state.woken_for = request_id;
        }
        let (sender, receiver) = oneshot::channel();
        let key = state.next_waiter;
        state.next_waiter += 1;
        state.waiters.insert(key, Waiter { cause, sender });
        Admission::Hold(Waiting::new(Arc::clone(self), key, receiver, held))
    }

    /// What the driver should do next. `Nobody` takes the driver off in the same section that saw nobody.
    pub(crate) fn look(&self) -> Look {
        let mut state = self.lock();
        if state.is_asleep() {
            state.turn(&Turned::Cut, |_, waiter| waiter.cause == Cause::Broke);
        }
        if state.waiters.is_empty() {
            state.driving = false;
            return Look::Nobody;
        }
        if state.gate != Gate::Open {
            return Look::Prepared;
        }
        if state.serves() {
            state.waking_since = None;
            return Look::Serve;
        }
        let now = self.shared.clock.monotonic();
        state.waking_since.get_or_insert(now);
        let wake = if state.wants_wake() {
            Wake::Wanted
        } else {
            Wake::Unwanted
        };
        let asleep = state.is_asleep();
        let targets = state
            .seats
            .iter_mut()
            .filter(|seat| !asleep && seat.wants_probe());
        let targets = targets
            .map(|seat| {
                seat.probing = true;
                Arc::clone(&seat.upstream)
            })
            .collect();
        Look::Probe(targets, wake)
    }

    /// Lets up to `count` waiters go, in the order of their arrival. Returns how many still wait.
    pub(crate) fn release(&self, count: usize) -> usize {
        self.lock().release(count, &self.shared)
    }

    /// Tells everybody who waits to wait no longer.
    pub(crate) fn turn_all(&self, why: &Turned) {
        self.lock().turn(why, |_, _| true);
        self.changed.notify_one();
    }

    /// Tells everybody who waited already at this mark to wait no longer.
    pub(crate) fn turn_before(&self, mark: Mark, why: &Turned) {
        self.lock().turn(why, |key, _| key < mark.0);
        self.changed.notify_one();
    }

    /// Tells those who wait now from those who come later.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.lock().next_waiter)
    }

    /// The request for which the wake is.
    pub(crate) fn woken_for(&self) -> Option<RequestId> {
        self.lock().woken_for.clone()
    }

    /// How long nothing has served although somebody wanted it.
    pub(crate) fn waking_for(&self) -> Duration {
        let now = self.shared.clock.monotonic();
        self.lock()
            .waking_since
            .map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// Waits for something that the driver should look at. Cancel-safe: a permit is kept until it is taken.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The driver ended although somebody may wait (it was aborted): nobody may wait without one (invariant 3).
    pub(crate) fn driver_lost(&self) {
        self.lock().driving = false;
        self.turn_all(&Turned::Stopping);
    }

    // --- probing ---

    /// A prober should go on: somebody waits, and the replica neither serves already nor ends.
    pub(crate) fn wants_probe(&self, upstream: &Arc<Upstream>) -> bool {
        let mut state = self.lock();
        let asleep = state.is_asleep();
        let somebody = !state.waiters.is_empty() && !asleep;
        let Some(seat) = state.seat(upstream) else {
            return false;
        };
        somebody && seat.may_serve() && !seat.serves()
    }

    /// The prober of this replica ended.
    pub(crate) fn probe_ended(&self, upstream: &Arc<Upstream>) {
        let mut state = self.lock();
        if let Some(seat) = state.seat(upstream) {
            seat.probing = false;
        }
        drop(state);
        // Whoever waits now may need another.
        self.changed.notify_one();
    }

    /// The prober reached it: it serves. Lets the first waiters go at once.
    pub(crate) fn reached(&self, upstream: &Arc<Upstream>, first: usize) {
        let mut state = self.lock();
        if let Some(seat) = state.seat(upstream).filter(|seat| seat.may_serve()) {
            seat.reach = Reach::Probed;
        }
        if state.gate == Gate::Open {
            state.release(first, &self.shared);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// It could not be connected to: it does not serve until a probe or the engine says so again.
    pub(crate) fn refused(&self, upstream: &Arc<Upstream>) {
        let mut state = self.lock();
        if let Some(seat) = state.seat(upstream) {
            seat.reach = Reach::Refused;
        }
        upstream.clear();
    }

    /// Closes connections that nobody used for too long.
    pub(crate) fn sweep(&self) {
        let age_max = self.shared.settings.upstream.idle_timeout;
        let upstreams: Vec<_> = self
            .lock()
            .seats
            .iter()
            .map(|seat| Arc::clone(&seat.upstream))
            .collect();
        for upstream in upstreams {
            upstream.sweep(age_max);
        }
    }

    // --- counts and the hand-shake before sleep ---

    /// The exact counts now.
    pub(crate) fn activity(&self) -> Activity {
        self.lock().activity(self.shared.clock.monotonic())
    }

    /// Holds new arrivals from now on. `None` when a sleep is being prepared already.
    pub(crate) fn prepare(&self, token: u64) -> Option<Activity> {
        let mut state = self.lock();
        if state.gone || state.gate != Gate::Open {
            return None;
        }
        state.gate = Gate::Prepared { token };
        Some(state.activity(self.shared.clock.monotonic()))
    }

    /// Ends what `prepare` began.
    pub(crate) fn settle(&self, settled: Settled) {
        let mut state = self.lock();
        if state.gate == Gate::Open {
            // It settled itself already; what was written meanwhile is seen by observation.
            return;
        }
        state.gate = Gate::Open;
        match settled {
            Settled::Asleep => state.slept(),
            Settled::Aborted => {}
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Aborts the `prepare` with this token if nobody settled it.
    pub(crate) fn expire(&self, token: u64) -> bool {
        let mut state = self.lock();
        if state.gate != (Gate::Prepared { token }) {
            return false;
        }
        state.gate = Gate::Open;
        drop(state);
        self.changed.notify_one();
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every section leaves the state valid at every step that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn seat(&mut self, upstream: &Arc<Upstream>) -> Option<&mut Seat> {
        self.seats
            .iter_mut()
            .find(|seat| Arc::ptr_eq(&seat.upstream, upstream))
    }

    fn observe(&mut self, workload: Arc<Workload>) {
        let same_life = workload.uid == self.workload.uid;
        if same_life && workload.version < self.workload.version {
            return;
        }
        if !same_life
            || self
                .slept_after
                .is_some_and(|version| workload.version > version)
        {
            self.slept_after = None;
        }
        let mut before = std::mem::take(&mut self.seats);
        for replica in &workload.replicas {
            let Some(address) = replica.address else {
                continue;
            };
            let known = before
                .iter()
                .position(|seat| same_life && seat.is(replica, address));
            let mut seat = match known {
                Some(index) => before.swap_remove(index),
                None => Seat::new(replica, address),
            };
            seat.observe(replica);
            if workload.desired.is_zero() {
                seat.forget_probe();
            }
            self.seats.push(seat);
        }
        for seat in before {
            seat.upstream.clear();
        }
        self.workload = workload;
        self.gone = false;
        if self.is_asleep() || self.serves() {
            self.waking_since = None;
        }
    }

    fn is_asleep(&self) -> bool {
        self.workload.desired.is_zero() || self.slept_after.is_some()
    }

    fn serves(&self) -> bool {
        !self.gone && !self.is_asleep() && self.seats.iter().any(Seat::serves)
    }

    /// The serving replica with the fewest requests.
    fn place(&mut self, shared: &Shared) -> Option<Place> {
        if !self.serves() {
            return None;
        }
        let count = self.seats.len();
        let start = self.next_seat;
        let best = (0..count)
            .map(|step| (start + step) % count)
            .filter_map(|index| {
                self.seats
                    .get(index)
                    .filter(|seat| seat.serves())
                    .map(|seat| (index, seat))
            })
            .min_by_key(|(_, seat)| seat.upstream.in_flight());
        let (index, seat) = best?;
        let place = seat.upstream.enter(&shared.metrics);
        self.next_seat = (index + 1) % count;
        Some(place)
    }

    fn release(&mut self, count: usize, shared: &Shared) -> usize {
        let mut left = count;
        while left > 0 && !self.waiters.is_empty() {
            let Some(place) = self.place(shared) else {
                break;
            };
            let Some((_, waiter)) = self.waiters.pop_first() else {
                break;
            };
            // Who went away meanwhile gives the turn to the next.
            if waiter.sender.send(Release::Go(place)).is_ok() {
                left -= 1;
            }
        }
        self.waiters.len()
    }

    /// Tells these waiters to wait no longer.
    fn turn(&mut self, why: &Turned, whom: impl Fn(u64, &Waiter) -> bool) {
        for (_, waiter) in self
            .waiters
            .extract_if(.., |key, waiter| whom(*key, waiter))
        {
            // Who went away meanwhile needs no answer.
            drop(waiter.sender.send(Release::Turned(why.clone())));
        }
    }

    /// Somebody who waits may wake it.
    fn wants_wake(&self) -> bool {
        self.waiters
            .values()
            .any(|waiter| waiter.cause == Cause::Arrived)
    }

    fn activity(&self, now: Duration) -> Activity {
        let held = u64::try_from(self.waiters.len()).unwrap_or(u64::MAX);
        let quiet_for = if self.open == 0 {
            now.saturating_sub(self.last_end)
        } else {
            Duration::ZERO
        };
        Activity {
            in_flight: self.open.saturating_sub(held),
            held,
            quiet_for,
        }
    }

    /// The sleep was written. What the cache still shows may be from before.
    fn slept(&mut self) {
        if !self.workload.desired.is_zero() {
            self.slept_after = Some(self.workload.version);
        }
        for seat in &mut self.seats {
            seat.forget_probe();
        }
    }
}

// === impl Visit ===

impl Drop for Visit {
    fn drop(&mut self) {
        let now = self.backend.shared.clock.monotonic();
        let mut state = self.backend.lock();
        state.open = state.open.saturating_sub(1);
        state.last_end = state.last_end.max(now);
    }
}
