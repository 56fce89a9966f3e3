//! Events on the workloads, for `kubectl describe` and for the history: written beside the changes, never in their way.
//!
//! An Event carries the change itself as an annotation, so that the journal reads back exactly what happened for as long as
//! the API server keeps Events (an hour by default). A change that repeats word for word within some minutes counts the
//! first Event up and joins its annotation instead of making another Event (`series`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use nagi_core::id::WorkloadId;
use nagi_core::intent::{Action, Change};
use nagi_ports::Clock;
use nagi_runtime::Shutdown;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::annotate::changes_text;
use crate::api::{Api, ApiError, Call, Content};
use crate::engine::Rights;
use crate::kind::Kind;
use crate::leader::micros;
use crate::names::{FIELD_MANAGER, REPORTER, annotation};

/// Events that wait to be written. Beyond it they are dropped and counted: history may be lost, nothing else.
const WAITING_MAX: usize = 1_024;
/// One call.
const CALL: Duration = Duration::from_secs(5);
/// A repetition within this time belongs to the same series, as in the recorder of Kubernetes.
const SERIES: Duration = Duration::from_mins(6);
/// Series that are remembered.
const SERIES_MAX: usize = 256;
/// Changes that one Event carries; of a longer series the last ones.
const CHANGES_MAX: usize = 20;
/// Longest note that the API server takes, in bytes.
const NOTE_MAX: usize = 1_024;

/// The reason of a wake that a gateway wrote: the leader tells later what came of it.
pub(crate) const WAKING: &str = "Waking";

/// Where events are handed over.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Noted>,
}

/// A change to be told.
#[derive(Debug)]
struct Noted {
    kind: Arc<Kind>,
    id: WorkloadId,
    uid: String,
    change: Change,
}

/// Writes them.
pub(crate) struct Writer {
    api: Api,
    clock: Arc<dyn Clock>,
    instance: String,
    rights: Rights,
    queue: mpsc::Receiver<Noted>,
    series: VecDeque<Series>,
    problem: Option<String>,
}

struct Series {
    uid: String,
    note: String,
    path: String,
    changes: Vec<Change>,
    count: u32,
    last: Instant,
}

/// Both ends.
pub(crate) fn recorder(
    api: Api,
    clock: Arc<dyn Clock>,
    instance: String,
    rights: Rights,
) -> (Recorder, Writer) {
    let (sender, queue) = mpsc::channel(WAITING_MAX);
    let writer = Writer {
        api,
        clock,
        instance,
        rights,
        queue,
        series: VecDeque::new(),
        problem: None,
    };
    (Recorder { queue: sender }, writer)
}

// === impl Recorder ===

impl Recorder {
    /// Hands a change over; drops it when too many wait.
    pub(crate) fn note(&self, kind: &Arc<Kind>, id: &WorkloadId, uid: &str, change: &Change) {
        let noted = Noted {
            kind: Arc::clone(kind),
            id: id.clone(),
            uid: uid.to_owned(),
            change: change.clone(),
        };
        if self.queue.try_send(noted).is_err() {
            tracing::debug!(namespace = %id.namespace, workload = %id.name, "Event dropped, too many wait");
        }
    }
}

// === impl Writer ===

impl Writer {
    /// Writes until the process has drained; what waits then gets one more moment.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                // Cancel-safe: a channel keeps what was not taken.
                noted = self.queue.recv() => match noted {
                    Some(noted) => self.write(noted).await,
                    None => return,
                },
                // Cancel-safe: waiting on a watch channel loses nothing.
                () = shutdown.stopped() => break,
            }
        }
        while let Ok(noted) = self.queue.try_recv() {
            self.write(noted).await;
        }
    }

    async fn write(&mut self, noted: Noted) {
        let Noted {
            kind,
            id,
            uid,
            change,
        } = noted;
        let note = note(&change);
        self.series.retain(|series| series.last.elapsed() < SERIES);
        let now = micros(self.clock.now());
        let series = self
            .series
            .iter_mut()
            .find(|series| series.uid == uid && series.note == note);
        let known = series.is_some();
        let call = if let Some(series) = series {
            series.count += 1;
            series.last = Instant::now();
            series.changes.push(change);
            let surplus = series.changes.len().saturating_sub(CHANGES_MAX);
            series.changes.drain(..surplus);
            let mut patch = json!({ "series": { "count": series.count, "lastObservedTime": now } });
            if self.rights == Rights::Full {
                let text = changes_text(&series.changes);
                patch["metadata"] = json!({ "annotations": { annotation::CHANGES: text } });
            }
            let at = format!("{}?fieldManager={FIELD_MANAGER}", series.path);
            Call::with(Method::PATCH, at, Content::MergePatch, &patch)
        } else {
            let name = name(&id, &change);
            let events = format!("/apis/events.k8s.io/v1/namespaces/{}/events", id.namespace);
            self.series.push_back(Series {
                uid: uid.clone(),
                note: note.clone(),
                path: format!("{events}/{name}"),
                changes: vec![change.clone()],
                count: 1,
                last: Instant::now(),
            });
            if self.series.len() > SERIES_MAX {
                self.series.pop_front();
            }
            let event = self.event(&kind, &id, &uid, &change, (&name, &note, &now));
            let path = format!("{events}?fieldManager={FIELD_MANAGER}");
            Call::with(Method::POST, path, Content::Json, &event)
        };
        match self.api.call(&call, CALL).await {
            Ok(_) => self.problem = None,
            Err(error) => {
                let words = error.to_string();
                if self.problem.as_ref() != Some(&words) {
                    tracing::warn!(
                        namespace = %id.namespace, workload = %id.name, error = %words,
                        "Event could not be written"
                    );
                }
                self.problem = Some(words);
                if !is_there(&error, known) {
                    self.series
                        .retain(|series| series.uid != uid || series.note != note);
                }
            }
        }
    }

    fn event(
        &self,
        kind: &Kind,
        id: &WorkloadId,
        uid: &str,
        change: &Change,
        (name, note, now): (&str, &str, &str),
    ) -> Value {
        let (reason, annotations) = match self.rights {
            Rights::Full => (
                reason(change.action),
                json!({ annotation::CHANGES: changes_text(std::slice::from_ref(change)) }),
            ),
            // The leader records this wake on the object and tells it again: the history shall know it once.
            Rights::ScaleOnly => (WAKING, json!({})),
        };
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": { "name": name, "namespace": id.namespace.as_str(), "annotations": annotations },
            "eventTime": now, "type": "Normal", "reason": reason, "action": reason,
            "reportingController": REPORTER, "reportingInstance": self.instance, "note": note,
            "regarding": {
                "apiVersion": kind.api_version(), "kind": kind.name, "namespace": id.namespace.as_str(),
                "name": id.name.as_str(), "uid": uid,
            },
        })
    }
}

/// After a call that failed: is the Event there, so that its repetition can be counted on it? One that was known and is not
/// missing, or one that somebody else wrote first.
fn is_there(error: &ApiError, known: bool) -> bool {
    match error {
        ApiError::Status { code: 404, .. } => false,
        ApiError::Status { code: 409, .. } => true,
        ApiError::Status { .. }
        | ApiError::Unreachable(_)
        | ApiError::Timeout(_)
        | ApiError::TooLarge
        | ApiError::Broken(_) => known,
    }
}

/// `2 → 0 by key/ops: コスト最適化のため`, at most as long as the API server takes.
fn note(change: &Change) -> String {
    let note = format!(
        "{} → {} by {}: {}",
        change.from, change.to, change.actor, change.reason
    );
    let mut end = note.len().min(NOTE_MAX);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note.get(..end).unwrap_or_default().to_owned()
}

/// Unique: the same change is written once, whoever writes it.
fn name(id: &WorkloadId, change: &Change) -> String {
    let head: String = id.name.as_str().chars().take(200).collect();
    let head = head.trim_end_matches(['.', '-']);
    format!("{head}.{:x}", change.time.as_nanosecond())
}

const fn reason(action: Action) -> &'static str {
    match action {
        Action::ScaleToZero => "ScaledToZero",
        Action::ScaleUp => "Scaled",
        Action::Wake => "Woken",
        Action::WakeOnRequest => "WokenByRequest",
        Action::IdleSleep => "PutToSleep",
        Action::ScheduledWake => "WokenBySchedule",
        Action::ScheduleSet => "WakeScheduled",
        Action::ScheduleCancelled => "ScheduleCancelled",
        Action::OutsideChange => "ScaledByOthers",
    }
}
