//! One client's stream of events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use jiff::Timestamp;
use nagi_api::events::RESET;
use nagi_api::{Event, EventKind, EventValue, routes};
use nagi_core::access::{Holder, Sight};
use nagi_core::id::{Namespace, WorkloadId};
use nagi_ports::{Glance, Selection};
use nagi_telemetry::CountGuard;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::feed::blank;
use super::{Entry, Listener, Resumed, frame};
use crate::app::App;
use crate::call::{Caller, Reader};
use crate::keys::WatchedKey;
use crate::problem::Problem;
use crate::serve::crowd::Phase;
use crate::visitors;

/// How often a silent stream shows that it lives (R19).
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// Time for the current state after a reset; without it the stream ends and the client comes again.
const STATE_TIME: Duration = Duration::from_secs(5);
/// Workloads of the current state that are read and queued at once: about 128 KiB for a client that takes nothing.
const STATES_MAX: usize = 500;
const COMMENT: &[u8] = b": alive\n\n";
/// Longest `Last-Event-ID` that can be one of ours, in bytes.
const LAST_ID_BYTES_MAX: usize = 64;

/// What happens, as it happens.
///
/// Server-sent events about workloads that the key may see: `scale`, `status`, `wake`, `schedule`, and `reset` when
/// events were missed, after which the current state follows.
#[utoipa::path(
    get, path = routes::EVENTS, tag = "history", operation_id = "events",
    params(
        crate::openapi::NamespaceFilter,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen"),
    ),
    responses(
        (status = 200, description = "The stream", content_type = "text/event-stream", body = Event),
        crate::openapi::PlainErrors,
    )
)]
pub(crate) async fn events(
    State(app): State<App>,
    call: Reader,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    call.query.only(&["namespace"])?;
    let namespace = call.namespace()?;
    let caller = Caller::of(&call.holder, &call.exchange);
    let listener = app.events.enter(&caller).ok_or_else(|| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Too many event streams")
            .error("the limit of open event streams is reached")
            .retry_after(5)
            .failure(nagi_telemetry::Failure::Overloaded)
    })?;
    let last_seen = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let last_seen = last_seen.filter(|id| !id.is_empty());
    let known = last_seen.filter(|id| id.len() <= LAST_ID_BYTES_MAX);
    let (receiver, resumed) = app.events.listen(last_seen.map(|_| known.unwrap_or("-")));
    let mut comments = tokio::time::interval(COMMENT_EVERY);
    comments.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let key = app.keys.watch(call.holder.clone());
    let depth = app.metrics.queue("event-streams").enter();
    // What a user may see is asked anew then: they come back with their token and the last id.
    let over = match &call.holder {
        Holder::User(_) => Some(Instant::now() + visitors::KEPT),
        Holder::Key(_) | Holder::Anybody => None,
    };
    let mut client = Client {
        over,
        app,
        sight: call.sight,
        expires: call.expires,
        namespace,
        receiver,
        comments,
        key,
        waiting: VecDeque::new(),
        state: None,
        _listener: listener,
        _depth: depth,
    };
    match resumed {
        // A stream that breaks before its first event has told its client where it was.
        Resumed::Behind(id) => client
            .waiting
            .push_back(Bytes::from(format!("id: {id}\n\n"))),
        Resumed::After(missed) => client.queue(&missed),
        Resumed::Gone => {
            if !client.reset().await {
                return Err(Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "Failed to read workloads",
                )
                .error("the current state cannot be read now")
                .retry_after(2));
            }
        }
    }
    call.exchange.pulse.begin(Phase::Streaming);
    let body = Body::from_stream(stream::unfold(client, Client::next));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    // Some proxies collect an answer before they pass it on, unless told.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

async fn over(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// One client and what it may see.
#[derive(Debug)]
struct Client {
    /// When the stream ends by itself.
    over: Option<Instant>,
    app: App,
    sight: Sight,
    /// The first instant at which the key no longer counts.
    expires: Option<Timestamp>,
    namespace: Option<Namespace>,
    receiver: Receiver<Arc<Entry>>,
    comments: Interval,
    key: WatchedKey,
    /// Frames that go out before anything new; at most the ring, or a piece of the current state.
    waiting: VecDeque<Bytes>,
    /// The rest of the current state, behind what waits.
    state: Option<Showing>,
    _listener: Listener,
    _depth: CountGuard,
}

/// How much of the current state a client was shown.
#[derive(Debug)]
struct Showing {
    /// Up to this workload, in the order of ids.
    shown: Option<WorkloadId>,
    /// The id of all frames but the last one.
    part: String,
    /// The id of the last one.
    last: String,
}

impl Client {
    /// The next bytes of the stream; `None` ends it.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(frame) = self.waiting.pop_front() {
                return Some((Ok(frame), self));
            }
            if self.state.is_some() {
                if !self.show_state().await {
                    return None;
                }
                continue;
            }
            let shutdown = self.app.shutdown.clone();
            tokio::select! {
                // Cancel-safe: watches, an interval, and a broadcast receiver that keeps its place.
                () = shutdown.draining() => return None,
                // What this client may see is judged anew: it comes back with its key and the last id.
                () = self.key.changed() => return None,
                () = over(self.over) => return None,
                _ = self.comments.tick() => {
                    if self.expires.is_some_and(|expires| self.app.clock.now() >= expires) {
                        return None;
                    }
                    self.waiting.push_back(Bytes::from_static(COMMENT));
                }
                entry = self.receiver.recv() => match entry {
                    Ok(entry) => self.queue(&[entry]),
                    Err(RecvError::Lagged(_)) => {
                        if !self.reset().await {
                            return None;
                        }
                    }
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }

    fn queue(&mut self, entries: &[Arc<Entry>]) {
        for entry in entries {
            if self.sees(&entry.workload) {
                self.waiting.push_back(entry.frame.clone());
            }
        }
    }

    fn sees(&self, id: &WorkloadId) -> bool {
        self.sight.covers(id)
            && self
                .namespace
                .as_ref()
                .is_none_or(|wanted| *wanted == id.namespace)
    }

    /// Says that events were missed, and shows the current state instead. False when it cannot be read.
    async fn reset(&mut self) -> bool {
        // Listen first: what happens meanwhile comes after the state, at worst twice.
        let (receiver, Resumed::Behind(last)) = self.app.events.listen(None) else {
            return false;
        };
        self.receiver = receiver;
        self.waiting.clear();
        self.state = Some(Showing {
            shown: None,
            part: format!("{last}-{RESET}"),
            last,
        });
        self.show_state().await
    }

    /// Queues the next piece of the current state, if there is more of it. False when it cannot be read.
    async fn show_state(&mut self) -> bool {
        let Some(state) = self.state.take() else {
            return true;
        };
        let selection = Selection {
            namespace: self.namespace.as_ref(),
            after: state.shown.as_ref(),
            ..Selection::default()
        };
        let mut seen = Vec::new();
        let mut more = false;
        let see = &mut |glance: &dyn Glance| {
            if !self.sight.covers(glance.id()) {
                return ControlFlow::Continue(());
            }
            more = seen.len() == STATES_MAX;
            if more {
                return ControlFlow::Break(());
            }
            seen.push(glance.workload());
            ControlFlow::Continue(())
        };
        let visit = self.app.workloads.visit(selection, see);
        let Ok(Ok(visited)) = tokio::time::timeout(STATE_TIME, visit).await else {
            return false;
        };
        // Only whoever has seen all of it can go on behind it. Before that, the id is none to go on from, so that a
        // client that comes back in the middle is reset again.
        let mut left = seen.len() + usize::from(more);
        let id = |left| if left == 0 { &state.last } else { &state.part };
        if state.shown.is_none() {
            let reset = serde_json::json!({ "id": id(left) });
            self.waiting.push_back(frame(RESET, Some(id(left)), &reset));
        }
        for workload in &seen {
            left -= 1;
            let event = Event {
                id: id(left).clone(),
                reason: workload.pending.as_ref().map(ToString::to_string),
                to: Some(EventValue::Text(workload.status().as_str().to_owned())),
                ..blank(EventKind::Status, &workload.id, visited.observed_at)
            };
            let kind = event.kind.as_str();
            self.waiting.push_back(frame(kind, Some(&event.id), &event));
        }
        if more {
            let shown = seen.last().map(|workload| workload.id.clone());
            self.state = Some(Showing { shown, ..state });
        }
        true
    }
}
