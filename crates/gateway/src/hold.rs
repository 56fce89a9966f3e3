//! The driver of one workload that somebody waits for: wakes it once, has its replicas probed, lets the waiters go.
//!
//! It is level-triggered: each turn looks at the whole state and does one thing. However many requests wait, there is
//! one driver and one wake. It ends when nobody waits; the wake itself goes on without it.
//! Waiters go in the order of their arrival and in batches, so that a replica that has just opened its port does not
//! get ten thousand connections within one scheduler tick.

use std::sync::Arc;
use std::time::Duration;

use nagi_core::intent::Actor;
use nagi_core::scale::{Order, Request};
use nagi_core::wake::{Failure, Progress};
use nagi_core::workload::Workload;
use nagi_wake::Ticket;

use crate::backend::{Backend, Look, Mark, Turned, Wake};
use crate::probe::probe;

/// Waiters that go at once: half of the shortest listen backlog in common use (128).
pub(crate) const BATCH: usize = 64;
/// Pause between two batches: 10,000 held requests are on their way within 160 ms.
const BATCH_PAUSE: Duration = Duration::from_millis(1);
/// How soon to look again when no wake is under way and no replica can be reached: the observation that explains it is
/// on its way, or a prober is at work.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Runs until nobody waits for this workload.
pub(crate) async fn drive(backend: Arc<Backend>) {
    let mut driving = Driving {
        backend: &backend,
        ended: false,
    };
    let mut asked = None;
    loop {
        match backend.look() {
            Look::Nobody => {
                driving.ended = true;
                return;
            }
            Look::Prepared => {
                asked = None;
                backend.changed().await;
            }
            Look::Serve => {
                asked = None;
                if backend.release(BATCH) > 0 {
                    tokio::time::sleep(BATCH_PAUSE).await;
                }
            }
            Look::Probe(targets, wake) => {
                for upstream in targets {
                    // Without room for a prober the engine's own word still ends the wait.
                    if let Err(full) = backend
                        .shared
                        .drivers
                        .try_spawn(probe(Arc::clone(&backend), Arc::clone(&upstream)))
                    {
                        tracing::warn!(error = %full, "Replica is not probed");
                        backend.probe_ended(&upstream);
                    }
                }
                asked = match (asked, wake) {
                    (Some(asked), _) => follow(&backend, asked).await,
                    (None, Wake::Wanted) => begin(&backend).await,
                    (None, Wake::Unwanted) => {
                        wait(&backend).await;
                        None
                    }
                };
            }
        }
    }
}

/// A wake, and who waited already before it was asked for. An order to sleep that overtakes the wake was told of these;
/// whoever came later may have come after that order, and wakes it again.
struct Asked {
    ticket: Ticket,
    before: Mark,
}

/// Begins the wake or joins the one under way.
async fn begin(backend: &Backend) -> Option<Asked> {
    let before = backend.mark();
    let order = Order::Wake {
        replicas: None,
        reason: None,
        // A workload that may sleep by itself may be woken by a request.
        default_allowed: backend.workload().idle_after.is_some(),
    };
    let request = Request {
        order,
        actor: Actor::Gateway,
        request_id: backend.woken_for(),
    };
    tokio::select! {
        // Cancel-safe: the wake goes on, and the next turn joins it.
        woken = backend.shared.wakes.wake(&backend.id, request) => match woken {
            Ok(ticket) => Some(Asked { ticket, before }),
            Err(error) => {
                backend.turn_all(&Turned::NotBegun(error));
                None
            }
        },
        // Cancel-safe: says so itself.
        () = backend.changed() => None,
    }
}

/// Looks at the wake once, then waits for news of it or of the workload.
async fn follow(backend: &Backend, mut asked: Asked) -> Option<Asked> {
    let view = asked.ticket.view();
    match view.progress {
        Progress::Failed(Failure::SleptAgain) => {
            backend.turn_before(asked.before, &Turned::Failed(Failure::SleptAgain));
            None
        }
        Progress::Failed(Failure::Deleted) => {
            backend.turn_all(&Turned::Gone);
            None
        }
        Progress::Failed(
            failure @ (Failure::Impossible(_) | Failure::Crashing(_) | Failure::GaveUp),
        ) => {
            backend.turn_all(&Turned::Failed(failure));
            None
        }
        Progress::Ready => {
            // The flight may have seen more than our own watch.
            if let Some(workload) = view.workload {
                backend.catch_up(workload);
            }
            if is_portless(&backend.workload()) {
                backend.turn_all(&Turned::NoPort);
            } else if !backend.serves() {
                wait(backend).await;
            }
            None
        }
        Progress::Under(_) => {
            if let Some(eta) = view
                .eta
                .filter(|eta| *eta > backend.shared.settings.hold.budget)
            {
                backend.turn_all(&Turned::TooLong(eta));
                return Some(asked);
            }
            tokio::select! {
                // Cancel-safe: watch keeps the value.
                _ = asked.ticket.changed() => {}
                // Cancel-safe: says so itself.
                () = backend.changed() => {}
            }
            Some(asked)
        }
    }
}

/// Replicas serve, and none says where.
fn is_portless(workload: &Workload) -> bool {
    let mut ready = workload
        .replicas
        .iter()
        .filter(|replica| replica.ready && !replica.stopping);
    let first = ready.next();
    first.is_some_and(|first| first.address.is_none()) && ready.all(|one| one.address.is_none())
}

/// Waits for news of the workload where no wake brings any, and not for long.
async fn wait(backend: &Backend) {
    tokio::select! {
        // Cancel-safe: says so itself.
        () = backend.changed() => {}
        // Cancel-safe: a timer.
        () = tokio::time::sleep(ASK_AGAIN) => {}
    }
}

/// Keeps the promise that nobody waits without a driver, also when its task is aborted.
struct Driving<'a> {
    backend: &'a Backend,
    ended: bool,
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.backend.driver_lost();
        }
    }
}
