//! The run of one flight: decide, write, follow, learn.

use std::sync::Arc;
use std::time::Duration;

use nagi_core::id::WorkloadId;
use nagi_core::intent::IntentUpdate;
use nagi_core::scale::{self, Request};
use nagi_core::wake::{Failure, Flight, Learned, Progress, Stage};
use nagi_core::workload::Workload;
use nagi_ports::{PortError, Read, WorkloadEvent};
use nagi_runtime::Backoff;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;

use crate::{FlightView, Inner, State, WakeError, WakeEvent, Writer, Written};

/// Conflicts in a row after which a wake gives up; each one means that somebody else wrote meanwhile (DESIGN §5).
const ATTEMPTS_MAX: u32 = 5;
/// How long a wake keeps trying to reach an engine that is away: the hold budget of the gateway, after which nobody
/// waits any more.
const PATIENCE: Duration = Duration::from_secs(25);
/// Longest pause before a write is sent again after the engine was away (DESIGN §6: within 1 s).
const RETRY_MAX: Duration = Duration::from_secs(1);
/// The first pause.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// A look at the facts even when no event came: events only say "look now".
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A wake that takes longer is no longer followed. The slowest measured start of a GPU node with its image is under
/// 20 minutes; three times that.
const FLIGHT_MAX: Duration = Duration::from_hours(1);
/// A learned duration is written again only when it moved by more than this share, so that steady wakes cost no write.
const LEARN_STEP: f64 = 0.1;

pub(crate) struct Run {
    pub(crate) inner: Arc<Inner>,
    pub(crate) id: WorkloadId,
    pub(crate) number: u64,
    pub(crate) task: Task,
    pub(crate) flight: Flight,
    pub(crate) view: FlightView,
    pub(crate) sender: watch::Sender<State>,
    pub(crate) served: Arc<Notify>,
}

/// How a flight begins.
#[derive(Debug, Clone)]
pub(crate) enum Task {
    /// Decide, and write what was decided.
    Order(Request),
    /// It was written.
    Written(Written),
}

/// Who wrote the count that a flight follows, and with that who tells of its wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrote {
    /// Nobody for this flight: it was awake.
    Nobody,
    /// This process.
    Here,
    /// Another process, which counts the wake and cannot store what it taught.
    Elsewhere,
}

/// What deciding and writing came to.
struct Begun {
    workload: Arc<Workload>,
    wrote: Wrote,
}

impl Run {
    pub(crate) async fn run(mut self) {
        // Subscribed before the write, so that no event after it is missed.
        let mut events = self.inner.workloads.subscribe();
        let begun = match self.task.clone() {
            Task::Order(request) => self.begin(&request).await,
            Task::Written(written) => Ok(self.written(written)),
        };
        match begun {
            Ok(begun) => self.follow(begun, &mut events).await,
            Err(error) => self.refuse(error),
        }
        self.inner.leave(&self.id, self.number);
    }

    fn written(&mut self, written: Written) -> Begun {
        self.view.from = written.from;
        self.view.to = written.workload.desired;
        Begun {
            wrote: match written.by {
                Writer::ThisProcess => Wrote::Here,
                Writer::Gateway => Wrote::Elsewhere,
            },
            workload: written.workload,
        }
    }

    /// Writes the wanted count, or finds that nothing needs to be written.
    async fn begin(&mut self, request: &Request) -> Result<Begun, WakeError> {
        let deadline = Instant::now() + PATIENCE;
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX, self.number);
        let mut conflicts = 0;
        loop {
            let error = match self.attempt(request).await {
                Ok(begun) => return Ok(begun),
                Err(WakeError::Port(error)) => error,
                Err(error @ (WakeError::Refused(_) | WakeError::Busy)) => return Err(error),
            };
            match error {
                PortError::Conflict if conflicts + 1 < ATTEMPTS_MAX => conflicts += 1,
                PortError::Unreachable(_) | PortError::Timeout(_) | PortError::Busy { .. }
                    if Instant::now() < deadline =>
                {
                    tracing::warn!(
                        namespace = %self.id.namespace, workload = %self.id.name, error = %error,
                        "Wake could not be written, will try again"
                    );
                    let mut asked = Duration::ZERO;
                    if let PortError::Busy {
                        retry_after: Some(after),
                    } = error
                    {
                        asked = after;
                    }
                    tokio::time::sleep(backoff.next_delay().max(asked)).await;
                }
                PortError::Conflict
                | PortError::Unreachable(_)
                | PortError::Timeout(_)
                | PortError::NotFound
                | PortError::NoSuchVersion { .. }
                | PortError::Refused(_)
                | PortError::Busy { .. }
                | PortError::StorageFull(_)
                | PortError::Internal(_) => return Err(WakeError::Port(error)),
            }
        }
    }

    async fn attempt(&mut self, request: &Request) -> Result<Begun, WakeError> {
        let workloads = &self.inner.workloads;
        let decide = |before: &Workload| {
            let now = self.inner.clock.now();
            scale::decide(&self.inner.rails, before, request, now)
        };
        // An order is about the object that was read first; a wake is about what goes by this name when it is written: somebody
        // waits for an answer from there, and one that was made again meanwhile gives it as well.
        let mut before = workloads.get(&self.id, Read::Cached).await?;
        let mut decided = decide(&before);
        if !matches!(&decided, Ok(plan) if plan.update.is_some()) {
            // No write will tell whether these facts are old.
            before = workloads.get(&self.id, Read::Live).await?;
            decided = decide(&before);
        }
        let plan = decided?;
        self.view.from = plan.from;
        self.view.to = plan.to;
        self.view.already_awake = plan.update.is_none();
        let Some(update) = plan.update else {
            return Ok(Begun {
                workload: before,
                wrote: Wrote::Nobody,
            });
        };
        let workload = workloads.write(&before, update).await?;
        Ok(Begun {
            workload,
            wrote: Wrote::Here,
        })
    }

    /// Follows the observations until the flight ends.
    async fn follow(&mut self, begun: Begun, events: &mut broadcast::Receiver<WorkloadEvent>) {
        if begun.wrote == Wrote::Here {
            let request_id = match &self.task {
                Task::Order(request) => request.request_id.as_ref(),
                Task::Written(_) => None,
            };
            tracing::info!(
                namespace = %self.id.namespace, workload = %self.id.name, trigger = self.view.trigger.as_str(),
                request_id = request_id.map(tracing::field::display), from = self.view.from.0, to = self.view.to.0, "Workload is waking"
            );
        }
        self.view.version = Some(begun.workload.version);
        self.flight
            .written(begun.workload.version, self.inner.clock.monotonic());
        self.look(begun.workload);
        self.publish();
        let give_up = Instant::now() + FLIGHT_MAX;
        while !self.view.has_ended() {
            let changed = tokio::select! {
                // Cancel-safe: a broadcast receiver keeps its place.
                event = events.recv() => self.take(event).await,
                // Cancel-safe: a permit of Notify is kept until it is taken.
                () = self.served.notified() => self.flight.served(self.inner.clock.monotonic()),
                () = tokio::time::sleep(LOOK_EVERY) => {
                    let changed = self.look_again().await;
                    // What is still missing grows less by itself; that is no news, but must not be told as it was.
                    if !changed {
                        self.refresh();
                    }
                    changed
                }
                () = tokio::time::sleep_until(give_up) => self.flight.give_up(),
            };
            if changed {
                self.publish();
            }
        }
        self.finish(begun.wrote).await;
    }

    async fn take(&mut self, event: Result<WorkloadEvent, broadcast::error::RecvError>) -> bool {
        match event {
            Ok(WorkloadEvent::Changed(workload)) if workload.id == self.id => self.look(workload),
            Ok(WorkloadEvent::Deleted(id)) if id == self.id => self.flight.deleted(),
            Ok(WorkloadEvent::Changed(_) | WorkloadEvent::Deleted(_)) => false,
            Err(broadcast::error::RecvError::Lagged(_)) => self.look_again().await,
            // The engine is ending; so is this process. Look at the pace of the timer.
            Err(broadcast::error::RecvError::Closed) => {
                tokio::time::sleep(LOOK_EVERY).await;
                false
            }
        }
    }

    async fn look_again(&mut self) -> bool {
        match self.inner.workloads.get(&self.id, Read::Cached).await {
            Ok(workload) => self.look(workload),
            Err(PortError::NotFound) => self.flight.deleted(),
            // Unknown is not a change; the next look tells.
            Err(_) => false,
        }
    }

    fn look(&mut self, workload: Arc<Workload>) -> bool {
        let changed = self.flight.observe(&workload, self.inner.clock.monotonic());
        self.view.workload = Some(workload);
        changed
    }

    fn publish(&mut self) {
        self.refresh();
        // Nobody listening is fine.
        drop(self.inner.events.send(WakeEvent {
            id: self.id.clone(),
            view: self.view.clone(),
        }));
    }

    fn refresh(&mut self) {
        let learned = self
            .view
            .workload
            .as_ref()
            .map(|workload| &workload.intent.learned);
        self.view.eta =
            learned.and_then(|learned| self.flight.eta(learned, self.inner.clock.monotonic()));
        self.view.progress = self.flight.progress().clone();
        self.view.marks = self.flight.marks().to_vec();
        self.sender.send_replace(State::Under(self.view.clone()));
    }

    fn refuse(&self, error: WakeError) {
        tracing::warn!(
            namespace = %self.id.namespace, workload = %self.id.name, trigger = self.view.trigger.as_str(),
            error = %error, "Wake did not begin"
        );
        self.inner
            .metrics
            .wake(self.view.trigger.as_str(), "refused");
        self.sender.send_replace(State::Refused(error));
    }

    async fn finish(&self, wrote: Wrote) {
        let last = self
            .flight
            .marks()
            .last()
            .map_or(Duration::ZERO, |mark| mark.after);
        let elapsed_ms = u64::try_from(last.as_millis()).unwrap_or(u64::MAX);
        match &self.view.progress {
            // Whoever wrote it tells how it failed.
            Progress::Failed(_) if wrote == Wrote::Elsewhere => {}
            Progress::Failed(failure) => {
                tracing::warn!(
                    namespace = %self.id.namespace, workload = %self.id.name, elapsed_ms, reason = %failure,
                    "Wake failed"
                );
                let result = match failure {
                    Failure::SleptAgain => "slept-again",
                    Failure::Deleted => "deleted",
                    Failure::Impossible(_) => "impossible",
                    Failure::Crashing(_) => "crashing",
                    Failure::GaveUp => "gave-up",
                };
                self.inner.metrics.wake(self.view.trigger.as_str(), result);
            }
            Progress::Ready if wrote == Wrote::Here => {
                tracing::info!(
                    namespace = %self.id.namespace, workload = %self.id.name, elapsed_ms, "Workload is awake"
                );
                self.inner.metrics.wake(self.view.trigger.as_str(), "ready");
                for pair in self.flight.marks().windows(2) {
                    if let [mark, next] = pair {
                        let elapsed = next.after.saturating_sub(mark.after);
                        self.inner.metrics.wake_stage(mark.stage.as_str(), elapsed);
                    }
                }
                self.learn().await;
            }
            Progress::Ready if wrote == Wrote::Elsewhere => self.learn().await,
            Progress::Ready | Progress::Under(_) => {}
        }
    }

    /// Writes what this wake taught, once, if it is news. A conflict or an engine that is away loses a lesson, not a wake. A
    /// process that may only wake is refused: whoever records its wakes follows them too.
    async fn learn(&self) {
        let Ok(workload) = self.inner.workloads.get(&self.id, Read::Cached).await else {
            return;
        };
        let learned = workload.intent.learned.after(self.flight.marks());
        if !is_news(&workload.intent.learned, &learned) {
            return;
        }
        let mut intent = workload.intent.clone();
        intent.learned = learned;
        let update = IntentUpdate {
            desired: workload.desired,
            intent,
        };
        if let Err(error) = self.inner.workloads.write(&workload, update).await {
            tracing::debug!(
                namespace = %self.id.namespace, workload = %self.id.name, error = %error,
                "Learned durations were not stored"
            );
        }
    }
}

fn is_news(before: &Learned, after: &Learned) -> bool {
    Stage::ALL.into_iter().any(
        |stage| match (before.to_ready(stage), after.to_ready(stage)) {
            (Some(old), Some(new)) => old.abs_diff(new) > old.mul_f64(LEARN_STEP),
            (None, Some(_)) => true,
            (Some(_) | None, None) => false,
        },
    )
}
