//! The task that turns changes of workloads and wakes into events.
//!
//! It compares what it sees with what it saw last. Facts that it missed are made up for by a listing; what the object itself
//! records (its last changes) is then still told. It acts on nothing.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;
use nagi_api::workload::FAILED_STAGE;
use nagi_api::{Event, EventKind, EventValue, Time};
use nagi_core::id::WorkloadId;
use nagi_core::intent::{Action, Change, Intent};
use nagi_core::status::Status;
use nagi_core::wake::Progress;
use nagi_core::workload::Workload;
use nagi_ports::{Glance, Selection, WorkloadEvent};
use nagi_runtime::Shutdown;
use nagi_wake::WakeEvent;
use tokio::sync::broadcast::error::RecvError;

use crate::app::App;

/// Pause before another listing when one failed.
const LIST_AGAIN: Duration = Duration::from_secs(1);
/// A listing that takes longer is given up; the next one follows.
const LIST_TIME: Duration = Duration::from_secs(10);

/// What was last seen of one workload.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    status: Status,
    scheduled: Option<Timestamp>,
    last_change: Option<Box<Change>>,
}

/// What was last seen of everything.
#[derive(Debug, Default)]
struct Memory {
    workloads: BTreeMap<WorkloadId, Seen>,
    stages: BTreeMap<WorkloadId, String>,
    /// What happened up to here was seen.
    as_of: Timestamp,
}

/// Feeds events until the process drains.
pub(crate) async fn feed(app: App, shutdown: Shutdown) {
    let mut changes = app.workloads.subscribe();
    let mut wakes = app.wakes.subscribe();
    let mut memory = Memory::default();
    // What is there at the start is no news.
    let mut news = News::Learn;
    let mut listed = false;
    loop {
        if !listed {
            listed = list(&app, &mut memory, news).await;
            if listed {
                news = News::Tell;
            }
        }
        tokio::select! {
            // Cancel-safe: a watch, timers, and broadcast receivers that keep their place.
            () = shutdown.draining() => return,
            () = tokio::time::sleep(LIST_AGAIN), if !listed => {}
            event = changes.recv(), if listed || news == News::Tell => match event {
                Ok(WorkloadEvent::Changed(workload)) => {
                    memory.changed(&app, &workload);
                    memory.as_of = app.clock.now();
                }
                Ok(WorkloadEvent::Deleted(id)) => memory.deleted(&app, &id),
                Err(RecvError::Lagged(_)) => listed = false,
                // The engine is ending, and this process with it.
                Err(RecvError::Closed) => return shutdown.draining().await,
            },
            event = wakes.recv() => match event {
                Ok(event) => memory.woke(&app, &event),
                // A stage that was missed is named by the next one.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return shutdown.draining().await,
            },
        }
    }
}

/// Is a difference news?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// It is only learned.
    Learn,
    /// It is told.
    Tell,
}

/// Compares everything. True when the listing succeeded.
async fn list(app: &App, memory: &mut Memory, news: News) -> bool {
    let mut gone = Vec::new();
    let mut changed = Vec::new();
    let mut learned = BTreeMap::new();
    // Both are in the order of ids: one walk finds who is missing.
    let mut known = memory.workloads.iter().peekable();
    let see = &mut |glance: &dyn Glance| {
        while let Some((id, _)) = known.next_if(|(id, _)| *id < glance.id()) {
            gone.push(id.clone());
        }
        let before = known.next_if(|(id, _)| *id == glance.id());
        let seen = Seen::of(glance.status(), glance.intent());
        match news {
            News::Learn => {
                learned.insert(glance.id().clone(), seen);
            }
            News::Tell if before.is_some_and(|(_, before)| *before == seen) => {}
            News::Tell => changed.push(glance.workload()),
        }
        ControlFlow::Continue(())
    };
    let visit = app.workloads.visit(Selection::default(), see);
    match tokio::time::timeout(LIST_TIME, visit).await {
        Ok(Ok(_visited)) => {}
        Ok(Err(error)) => {
            tracing::debug!(error = %error, "Workloads could not be listed for events");
            return false;
        }
        Err(_elapsed) => return false,
    }
    gone.extend(known.map(|(id, _)| id.clone()));
    for id in &gone {
        memory.deleted(app, id);
    }
    memory.workloads.append(&mut learned);
    for workload in &changed {
        memory.changed(app, workload);
    }
    memory.as_of = app.clock.now();
    true
}

// === impl Memory ===

impl Memory {
    fn changed(&mut self, app: &App, workload: &Workload) {
        let before = self.workloads.get(&workload.id);
        let after = Seen::of(workload.status(), &workload.intent);
        if before == Some(&after) {
            return;
        }
        let now = app.clock.now();
        for event in differences(before, workload, (self.as_of, now)) {
            app.events.publish(workload.id.clone(), event);
        }
        self.workloads.insert(workload.id.clone(), after);
    }

    fn deleted(&mut self, app: &App, id: &WorkloadId) {
        self.stages.remove(id);
        let Some(before) = self.workloads.remove(id) else {
            return;
        };
        let event = Event {
            reason: Some("it is gone".to_owned()),
            from: Some(EventValue::Text(before.status.as_str().to_owned())),
            ..blank(EventKind::Status, id, app.clock.now())
        };
        app.events.publish(id.clone(), event);
    }

    fn woke(&mut self, app: &App, event: &WakeEvent) {
        let view = &event.view;
        // Waiting for a workload that is awake is no wake; that it cannot be waited for is news to whoever asked.
        if view.already_awake && !matches!(view.progress, Progress::Failed(_)) {
            return;
        }
        let (stage, reason) = match &view.progress {
            Progress::Failed(failure) => (FAILED_STAGE, Some(failure.to_string())),
            Progress::Under(_) | Progress::Ready => (view.stage().as_str(), None),
        };
        let before = if view.has_ended() {
            self.stages.remove(&event.id)
        } else {
            self.stages.insert(event.id.clone(), stage.to_owned())
        };
        if before.as_deref() == Some(stage) {
            return;
        }
        let workload = view.workload.as_deref();
        let change = workload.and_then(|workload| workload.intent.changes.last());
        let told = Event {
            actor: change.map(|change| change.actor.to_string()),
            reason,
            from: before.map(EventValue::Text),
            to: Some(EventValue::Text(stage.to_owned())),
            ..blank(EventKind::Wake, &event.id, app.clock.now())
        };
        app.events.publish(event.id.clone(), told);
    }
}

// === impl Seen ===

impl Seen {
    fn of(status: Status, intent: &Intent) -> Self {
        Self {
            status,
            scheduled: intent.scheduled.as_ref().map(|s| s.at),
            last_change: intent.changes.last().cloned().map(Box::new),
        }
    }
}

/// What changed between two looks, in the order in which people expect it: who did what, then what came of it. Everything is
/// known as of the first instant; the second is now.
fn differences(
    before: Option<&Seen>,
    workload: &Workload,
    (as_of, now): (Timestamp, Timestamp),
) -> Vec<Event> {
    let id = &workload.id;
    let after = Seen::of(workload.status(), &workload.intent);
    let mut events: Vec<Event> = Vec::new();
    let fresh = match before {
        Some(before) => fresh(before, &workload.intent.changes),
        None => since(as_of, &workload.intent.changes),
    };
    let text = |word: &str| Some(EventValue::Text(word.to_owned()));
    for change in fresh.iter().filter(|change| change.from != change.to) {
        events.push(Event {
            actor: Some(change.actor.to_string()),
            reason: Some(change.reason.to_string()),
            from: Some(EventValue::Count(change.from.0)),
            to: Some(EventValue::Count(change.to.0)),
            ..blank(EventKind::Scale, id, change.time)
        });
    }
    let scheduled_before = before.and_then(|seen| seen.scheduled);
    if scheduled_before != after.scheduled {
        let change = schedule_change(fresh).or_else(|| fresh.last());
        let instant = |at: Option<Timestamp>| at.map(|at| EventValue::Text(Time(at).to_string()));
        events.push(Event {
            actor: change.map(|change| change.actor.to_string()),
            reason: change.map(|change| change.reason.to_string()),
            from: instant(scheduled_before),
            to: instant(after.scheduled),
            ..blank(
                EventKind::Schedule,
                id,
                change.map_or(now, |change| change.time),
            )
        });
    }
    let status_before = before.map(|seen| seen.status);
    if status_before != Some(after.status) {
        events.push(Event {
            reason: workload.pending.as_ref().map(ToString::to_string),
            from: status_before.and_then(|status| text(status.as_str())),
            to: text(after.status.as_str()),
            ..blank(EventKind::Status, id, now)
        });
    }
    events
}

/// The changes behind the one that was seen last. When that one has fallen off the object, all of them are new.
fn fresh<'c>(before: &Seen, changes: &'c [Change]) -> &'c [Change] {
    let last = before.last_change.as_deref();
    let seen = last.and_then(|last| changes.iter().rposition(|change| change == last));
    let from = seen.map_or(0, |at| at + 1);
    changes.get(from..).unwrap_or_default()
}

/// The changes of a workload that is new here. It may have been here before, and told them then (it left the workload file and
/// is back): what is older than the last look at anything is no news.
fn since(as_of: Timestamp, changes: &[Change]) -> &[Change] {
    let old = changes.iter().rposition(|change| change.time <= as_of);
    let from = old.map_or(0, |at| at + 1);
    changes.get(from..).unwrap_or_default()
}

fn schedule_change(changes: &[Change]) -> Option<&Change> {
    changes.iter().rev().find(|change| match change.action {
        Action::ScheduleSet | Action::ScheduleCancelled | Action::ScheduledWake => true,
        Action::ScaleToZero
        | Action::ScaleUp
        | Action::Wake
        | Action::WakeOnRequest
        | Action::IdleSleep
        | Action::OutsideChange => false,
    })
}

/// An event that says nothing yet. Its id is given when it is published.
pub(super) fn blank(kind: EventKind, id: &WorkloadId, time: Timestamp) -> Event {
    Event {
        id: String::new(),
        time: Time::in_millis(time),
        kind,
        resource: id.resource.to_string(),
        namespace: id.namespace.to_string(),
        name: id.name.to_string(),
        actor: None,
        reason: None,
        from: None,
        to: None,
    }
}
