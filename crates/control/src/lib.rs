//! The loops that decide and act on their own: idle sleep, scheduled wakes, changes made by others.
//!
//! Level-triggered: an event or a timer only says "look at this workload now"; the look reads the whole state, asks
//! the core, acts, and says when to look again. Each workload has one look under way at most, so an engine that
//! hangs on one of them delays no other. A look that fails is repeated; nothing is remembered that a restart must not
//! lose.
//!
//! What it deliberately does not do: decide (the core does), follow a wake (the wake crate does), count requests
//! (the gateway does, behind the `Traffic` port).

mod agenda;
mod look;

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use nagi_core::guardrail::Guardrails;
use nagi_core::id::WorkloadId;
use nagi_core::workload::Workload;
use nagi_ports::{
    Clock, Glance, Leadership, PortError, Selection, Traffic, WorkloadEvent, Workloads,
};
use nagi_runtime::{Deadline, Shutdown, TaskSet};
use nagi_telemetry::Metrics;
use nagi_wake::Wakes;
use tokio::sync::{broadcast, mpsc};

use crate::agenda::Agenda;
use crate::look::Looker;

/// Looks under way at once. Each costs a task and at most one write in flight; 64 keeps a slow API server busy
/// without flooding it.
const LOOKS_MAX: usize = 64;
/// Everything is looked at this often even when no event came, in case one was lost.
const LOOK_AT_ALL: Duration = Duration::from_secs(30);
/// A listing that failed is tried again after this.
const LIST_RETRY: Duration = Duration::from_secs(1);
/// Time that looks under way get to finish when the process ends; their writes have deadlines of their own.
const DRAIN: Duration = Duration::from_secs(5);

/// What the loops work on.
#[derive(Debug, Clone)]
pub struct Ports {
    /// The workloads.
    pub workloads: Arc<dyn Workloads>,
    /// Who uses them.
    pub traffic: Arc<dyn Traffic>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Wakes under way, so that a scheduled one is followed like any other.
    pub wakes: Wakes,
    /// What may be changed.
    pub rails: Guardrails,
    /// Counters.
    pub metrics: Metrics,
}

/// The loops of one process. They run only while it leads: each time anew, since nothing is remembered that the objects do
/// not hold.
#[derive(Debug)]
pub struct Controller {
    ports: Ports,
    tasks: TaskSet,
    /// When to look at each workload that there is something to decide about.
    agenda: Agenda,
    /// Looks under way, and whether something happened since they began.
    busy: HashMap<WorkloadId, bool>,
    /// Since when each workload that may sleep by itself was seen fully awake, in monotonic time.
    awake_since: HashMap<WorkloadId, Duration>,
    /// Workloads whose last looks failed.
    failing: HashMap<WorkloadId, look::Failures>,
    /// Workloads on the agenda that a listing put there.
    found: HashSet<WorkloadId>,
    /// Why the last listing failed, as it was logged.
    unlisted: Option<PortError>,
    report: mpsc::Sender<look::Report>,
    reports: mpsc::Receiver<look::Report>,
}

// === impl Controller ===

impl Controller {
    /// Nothing on the agenda yet.
    pub fn new(ports: Ports) -> Self {
        // One report for each look under way: a send never waits for long.
        let (report, reports) = mpsc::channel(LOOKS_MAX);
        Self {
            ports,
            tasks: TaskSet::new("looks", LOOKS_MAX),
            agenda: Agenda::default(),
            busy: HashMap::new(),
            awake_since: HashMap::new(),
            failing: HashMap::new(),
            found: HashSet::new(),
            unlisted: None,
            report,
            reports,
        }
    }

    /// Runs until the process drains, while it leads.
    pub async fn run(mut self, mut leadership: Leadership, shutdown: Shutdown) {
        while !shutdown.is_draining() {
            tokio::select! {
                // Cancel-safe: waiting on a watch channel loses nothing.
                () = shutdown.draining() => break,
                () = leadership.gained() => {}
            }
            tokio::select! {
                // Looks under way are dropped with the set below: what they were about to write is another's now.
                () = leadership.lost() => {}
                () = self.lead(&shutdown) => {}
            }
            if !shutdown.is_draining() {
                self = Self::new(self.ports.clone());
            }
        }
        self.tasks.drain(Deadline::in_(DRAIN)).await;
    }

    async fn lead(&mut self, shutdown: &Shutdown) {
        let mut events = self.ports.workloads.subscribe();
        let mut next_listing = self.look_at_all().await;
        while !shutdown.is_draining() {
            let now = self.ports.clock.monotonic();
            let due = self.start_due(now);
            let wait = due.min(next_listing.saturating_sub(now));
            tokio::select! {
                () = shutdown.draining() => break,
                // Cancel-safe: a broadcast receiver keeps its place.
                event = events.recv() => match event {
                    Ok(WorkloadEvent::Changed(workload)) => self.changed(&workload),
                    Ok(WorkloadEvent::Deleted(id)) => self.forget(&id),
                    Err(broadcast::error::RecvError::Lagged(_)) => next_listing = Duration::ZERO,
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                // Cancel-safe: nothing is taken when the other branch wins.
                Some(report) = self.reports.recv() => self.take(report),
                () = tokio::time::sleep(wait) => {}
            }
            if self.ports.clock.monotonic() >= next_listing {
                next_listing = self.look_at_all().await;
            }
        }
    }

    /// Puts every workload that there is something to decide about on the agenda and forgets all others. Returns when to do it
    /// again.
    async fn look_at_all(&mut self) -> Duration {
        let now = self.ports.clock.monotonic();
        let mut concerned = HashSet::new();
        let see = &mut |glance: &dyn Glance| {
            let wanted = (glance.counts().desired, glance.unrecorded());
            if look::concerns(wanted, glance.intent(), glance.idle_after()) {
                concerned.insert(glance.id().clone());
            }
            ControlFlow::Continue(())
        };
        let seen = self.ports.workloads.visit(Selection::default(), see).await;
        match seen {
            Ok(_visited) => {
                self.unlisted = None;
                self.agenda.retain(|id| concerned.contains(id));
                self.awake_since.retain(|id, _| concerned.contains(id));
                self.failing.retain(|id, _| concerned.contains(id));
                self.found.clear();
                for id in concerned {
                    if !self.failing.contains_key(&id) {
                        self.found.insert(id.clone());
                    }
                    self.look_now(id);
                }
                now + LOOK_AT_ALL
            }
            Err(error) => {
                if self.unlisted.as_ref() != Some(&error) {
                    tracing::warn!(error = %error, "Workloads could not be listed, will try again");
                    self.unlisted = Some(error);
                }
                now + LIST_RETRY
            }
        }
    }

    fn changed(&mut self, workload: &Workload) {
        let wanted = (workload.desired, workload.unrecorded);
        if look::concerns(wanted, &workload.intent, workload.idle_after) {
            self.found.remove(&workload.id);
            self.look_now(workload.id.clone());
        } else {
            self.forget(&workload.id);
        }
    }

    /// One whose last look failed has a time of its own: what happened may be its own write, of which something else kept a part.
    fn look_now(&mut self, id: WorkloadId) {
        if let Some(happened) = self.busy.get_mut(&id) {
            *happened = true;
        } else if !self.failing.contains_key(&id) {
            let now = self.ports.clock.monotonic();
            self.agenda.bring_forward(id, now);
        }
    }

    fn forget(&mut self, id: &WorkloadId) {
        self.agenda.remove(id);
        self.awake_since.remove(id);
        self.failing.remove(id);
        self.found.remove(id);
    }

    /// Starts what is due and returns the time until the next look.
    fn start_due(&mut self, now: Duration) -> Duration {
        while let Some(id) = self.agenda.due(now) {
            let looker = Looker {
                ports: self.ports.clone(),
                id: id.clone(),
                awake_since: self.awake_since.get(&id).copied(),
                failures: self.failing.get(&id).copied().unwrap_or_default(),
                is_found: self.found.remove(&id),
                report: self.report.clone(),
            };
            if self.tasks.try_spawn(looker.run()).is_err() {
                // The next report makes room; it ends the wait of the loop too.
                return LIST_RETRY;
            }
            self.agenda.remove(&id);
            self.busy.insert(id, false);
        }
        self.agenda
            .next()
            .map_or(LOOK_AT_ALL, |at| at.saturating_sub(now))
    }

    fn take(&mut self, report: look::Report) {
        let happened = self.busy.remove(&report.id).unwrap_or(false);
        match report.awake_since {
            Some(since) => self.awake_since.insert(report.id.clone(), since),
            None => self.awake_since.remove(&report.id),
        };
        match report.failures.count {
            0 => self.failing.remove(&report.id),
            _ => self.failing.insert(report.id.clone(), report.failures),
        };
        let now = self.ports.clock.monotonic();
        if happened && report.failures.count == 0 {
            self.agenda.set(report.id, now);
        } else if let Some(after) = report.look_again {
            self.agenda.set(report.id, now + after);
        }
    }
}

#[cfg(test)]
mod tests;
