//! Answers that the gateway gives itself: each says in a header, a status and words what is going on and when to come
//! again. Never a 2xx for work that was not done (invariant 3).

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use jiff::Timestamp;
use nagi_core::wake::{Failure, Progress};
use nagi_ports::PortError;
use nagi_wake::{FlightView, WakeError};
use serde_json::json;

use crate::backend::{Backend, Turned};
use crate::body::ResponseBody;
use crate::names::{STATUS_HEADER, STATUS_PATH, status};
use crate::page;

/// When to come again while a wake is under way and nothing was learned yet.
const COME_AGAIN: Duration = Duration::from_secs(2);
/// Longest wait that is ever asked for: an estimate above it is no more than a guess.
const COME_AGAIN_MAX: Duration = Duration::from_mins(5);

const NAGI_STATUS: HeaderName = HeaderName::from_static(STATUS_HEADER);
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// How a client likes to be told that it has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manner {
    /// A person's browser opens a page.
    navigation: bool,
    /// `Prefer: respond-async` (RFC 7240).
    respond_async: bool,
    /// `Prefer: wait=N`.
    pub(crate) wait: Option<Duration>,
}

/// An answer of the gateway before it is rendered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    code: StatusCode,
    status: &'static str,
    message: String,
    hint: Option<&'static str>,
    retry_after: Option<Duration>,
    close: bool,
}

// === impl Manner ===

impl Manner {
    /// No wish was uttered.
    pub(crate) const PLAIN: Self = Self {
        navigation: false,
        respond_async: false,
        wait: None,
    };

    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Self {
        let texts = |name: &HeaderName| {
            headers
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok())
        };
        let html = texts(&ACCEPT).any(|text| text.contains("text/html"));
        let fetch = headers
            .get(&SEC_FETCH_MODE)
            .is_none_or(|mode| mode == "navigate");
        let preferences = || {
            texts(&PREFER)
                .flat_map(|text| text.split(','))
                .map(str::trim)
        };
        let wait = preferences()
            .find_map(|preference| preference.strip_prefix("wait=")?.trim().parse().ok());
        Self {
            navigation: *method == Method::GET && html && fetch,
            respond_async: preferences()
                .any(|preference| preference.eq_ignore_ascii_case("respond-async")),
            wait: wait.map(Duration::from_secs),
        }
    }

    /// A browser that opens a page.
    pub(crate) const fn is_navigation(self) -> bool {
        self.navigation
    }
}

// === impl Answer ===

impl Answer {
    pub(crate) fn new(code: StatusCode, status: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            status,
            message: message.into(),
            hint: None,
            retry_after: None,
            close: false,
        }
    }

    /// What to do about it.
    pub(crate) const fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    pub(crate) const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The connection is not used again: what follows on it may not be what it seems.
    pub(crate) const fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// The word for the metric.
    pub(crate) const fn status(&self) -> &'static str {
        self.status
    }

    /// As JSON, in the envelope that the API uses.
    pub(crate) fn render(&self, now: Timestamp) -> Response<ResponseBody> {
        let mut body = json!({
            "status": "error",
            "message": self.message,
            "error": self.status,
            "timestamp": timestamp(now),
        });
        if let Some(hint) = self.hint {
            body["hint"] = json!(hint);
        }
        let mut response = response(self.code, self.status, "application/json", body.to_string());
        self.decorate(response.headers_mut());
        response
    }

    /// In the manner that the client likes: a person reads a page.
    pub(crate) fn render_in(&self, manner: Manner, now: Timestamp) -> Response<ResponseBody> {
        if !manner.navigation {
            return self.render(now);
        }
        self.page(page::refusal(&self.message, self.hint))
    }

    fn page(&self, html: String) -> Response<ResponseBody> {
        let mut response = response(self.code, self.status, "text/html; charset=utf-8", html);
        self.decorate(response.headers_mut());
        response
            .headers_mut()
            .insert(VARY, HeaderValue::from_static("accept"));
        response
    }

    fn decorate(&self, headers: &mut HeaderMap) {
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds_up(after)));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// What a request that is not held, or no longer, is told.
pub(crate) fn turned(why: &Turned, backend: &Backend) -> Answer {
    let id = &backend.id;
    let waking =
        |message: String| Answer::new(StatusCode::SERVICE_UNAVAILABLE, status::WAKING, message);
    let failed = |message: String| {
        Answer::new(
            StatusCode::SERVICE_UNAVAILABLE,
            status::WAKE_FAILED,
            message,
        )
        .hint("whoever runs it sees more with 'nagi status' and 'nagi history'")
    };
    // It was to wake for want of a replica that serves; more than none may be wanted all the same.
    let is = if backend.workload().desired.is_zero() {
        "is asleep"
    } else {
        "does not serve"
    };
    match why {
        Turned::Full => Answer::new(
            StatusCode::SERVICE_UNAVAILABLE,
            status::HOLD_FULL,
            format!("{id} is waking and too many requests wait for it already"),
        )
        .retry_after(COME_AGAIN),
        Turned::TooLong(eta) => waking(format!(
            "{id} is waking; it is expected in {} s, which is longer than a request is held",
            seconds_up(*eta)
        ))
        .retry_after((*eta).clamp(Duration::from_secs(1), COME_AGAIN_MAX)),
        Turned::NotBegun(WakeError::Refused(refusal)) => {
            failed(format!("{id} {is} and cannot be woken: {refusal}"))
        }
        Turned::NotBegun(WakeError::Port(PortError::NotFound)) | Turned::Gone => Answer::new(
            StatusCode::NOT_FOUND,
            status::UNKNOWN_HOST,
            format!("{id} no longer exists"),
        ),
        Turned::NotBegun(WakeError::Busy) => failed(format!(
            "{id} {is} and could not be woken: too many wakes are under way"
        ))
        .retry_after(COME_AGAIN),
        Turned::NotBegun(WakeError::Port(error)) => {
            let why = told_outside(error);
            let answer = failed(format!("{id} {is} and could not be woken: {why}"));
            if error.is_retryable() {
                answer.retry_after(COME_AGAIN)
            } else {
                answer
            }
        }
        Turned::Failed(failure) => {
            let answer = failed(format!("the wake of {id} failed: {failure}"));
            match failure {
                Failure::SleptAgain | Failure::GaveUp | Failure::Crashing(_) => {
                    answer.retry_after(COME_AGAIN)
                }
                Failure::Impossible(_) | Failure::Deleted => answer,
            }
        }
        Turned::NoPort => failed(format!("the pods of {id} serve, and declare no port"))
            .hint("declare it in the template: 'ports: [{containerPort: 8080}]' in its container"),
        Turned::Cut => broken(backend),
        Turned::Stopping => stopping(),
    }
}

/// What strangers are told of an engine that fails. Its own words name accounts, rights and addresses; the log has them.
fn told_outside(error: &PortError) -> String {
    let words = match error {
        // It says no more than that.
        PortError::StorageFull(_) => return error.to_string(),
        PortError::Unreachable(_) | PortError::Timeout(_) => "what runs it cannot be reached",
        PortError::Busy { .. } => "what runs it takes no more requests for now",
        PortError::Conflict => "somebody else changes it at the same time",
        PortError::Refused(_) => "what runs it refuses the wake",
        PortError::NotFound | PortError::NoSuchVersion { .. } | PortError::Internal(_) => {
            "what runs it failed"
        }
    };
    words.to_owned()
}

/// The connection to the replica that had the request is gone.
pub(crate) fn broken(backend: &Backend) -> Answer {
    let id = &backend.id;
    let message = if backend.is_asleep() {
        format!(
            "{id} was put to sleep before it answered; the request may have been executed, and the next one wakes it"
        )
    } else {
        format!("the connection to a replica of {id} broke before it answered")
    };
    Answer::new(StatusCode::BAD_GATEWAY, status::UPSTREAM_FAILED, message)
}

/// The hold budget is spent.
pub(crate) fn still_waking(backend: &Backend, view: Option<&FlightView>) -> Answer {
    let after = view
        .and_then(|view| view.eta)
        .map_or(COME_AGAIN, |eta| eta.clamp(COME_AGAIN, COME_AGAIN_MAX));
    let workload = view.and_then(|view| view.workload.clone());
    let workload = workload.unwrap_or_else(|| backend.workload());
    if workload.replicas.is_empty() && !workload.available.is_zero() {
        let message = format!(
            "{} serves, and this gateway cannot read where: the pods of its namespace are not known here; the request was not executed",
            backend.id
        );
        return Answer::new(StatusCode::SERVICE_UNAVAILABLE, status::WAKING, message)
            .hint("the log of the gateway says why; 'nagi preflight' names a right that is missing")
            .retry_after(after);
    }
    // The engine calls one without a probe ready as soon as it runs.
    let mut running = workload
        .replicas
        .iter()
        .filter(|one| one.ready && !one.stopping);
    if let Some(address) = running.find_map(|one| one.address) {
        let message = format!(
            "a replica of {} runs, and nothing answers on its port {}; the request was not executed",
            backend.id,
            address.port()
        );
        return Answer::new(StatusCode::SERVICE_UNAVAILABLE, status::WAKING, message)
            .hint("requests go to the port named http, else to the first that the containers declare; one that opens late needs a readiness probe")
            .retry_after(after);
    }
    let is_awake = view.is_some_and(|view| view.already_awake);
    let state = if is_awake {
        "does not serve yet"
    } else {
        "is still waking"
    };
    let why = workload.pending.as_ref();
    let why = why.map_or_else(String::new, |why| format!(" ({why})"));
    let message = format!("{} {state}{why}; the request was not executed", backend.id);
    Answer::new(StatusCode::SERVICE_UNAVAILABLE, status::WAKING, message).retry_after(after)
}

/// The gateway is shutting down.
pub(crate) fn stopping() -> Answer {
    Answer::new(
        StatusCode::SERVICE_UNAVAILABLE,
        status::STOPPING,
        "the gateway is shutting down",
    )
    .retry_after(Duration::from_secs(1))
    .closing()
}

/// Renders an answer about waiting in the manner that the client likes.
pub(crate) fn waiting(
    answer: &Answer,
    manner: Manner,
    backend: &Backend,
    view: Option<&FlightView>,
    now: Timestamp,
) -> Response<ResponseBody> {
    if answer.status != status::WAKING {
        return answer.render_in(manner, now);
    }
    if manner.respond_async {
        return accepted(answer, backend, view, now);
    }
    if manner.navigation {
        return answer.page(page::waiting(backend, view, &answer.message));
    }
    answer.render(now)
}

/// `202`: the wake was accepted, the request itself was not executed, and the body says so.
fn accepted(
    answer: &Answer,
    backend: &Backend,
    view: Option<&FlightView>,
    now: Timestamp,
) -> Response<ResponseBody> {
    let mut body = progress(backend, view, now);
    body["message"] = json!(
        "the workload is waking; this request itself was NOT executed: send it again once ready"
    );
    body["executed"] = json!(false);
    body["status_url"] = json!(STATUS_PATH);
    let mut response = response(
        StatusCode::ACCEPTED,
        answer.status,
        "application/json",
        body.to_string(),
    );
    answer.decorate(response.headers_mut());
    response
        .headers_mut()
        .insert(LOCATION, HeaderValue::from_static(STATUS_PATH));
    response.headers_mut().insert(
        PREFERENCE_APPLIED,
        HeaderValue::from_static("respond-async"),
    );
    response
}

/// Where a workload stands, for [`STATUS_PATH`].
pub(crate) fn status_of(
    backend: &Backend,
    view: Option<&FlightView>,
    now: Timestamp,
) -> Response<ResponseBody> {
    let word = word_of(backend, view);
    response(
        StatusCode::OK,
        word,
        "application/json",
        progress(backend, view, now).to_string(),
    )
}

/// The state of a workload in one word.
pub(crate) fn word_of(backend: &Backend, view: Option<&FlightView>) -> &'static str {
    if backend.serves() {
        return status::READY;
    }
    let failed = matches!(view.map(|view| &view.progress), Some(Progress::Failed(_)));
    if failed {
        status::WAKE_FAILED
    } else if view.is_some() || !backend.workload().desired.is_zero() {
        status::WAKING
    } else {
        status::ASLEEP
    }
}

fn progress(backend: &Backend, view: Option<&FlightView>, now: Timestamp) -> serde_json::Value {
    let workload = backend.workload();
    let marks: Vec<_> = view
        .map(|view| view.marks.as_slice())
        .unwrap_or_default()
        .iter()
        .map(|mark| json!({ "stage": mark.stage.as_str(), "after_ms": millis(mark.after) }))
        .collect();
    json!({
        "status": word_of(backend, view),
        "namespace": workload.id.namespace.as_str(),
        "name": workload.id.name.as_str(),
        "stage": view.map(|view| view.stage().as_str()),
        "stages": marks,
        "eta_ms": view.and_then(|view| view.eta).map(millis),
        "pending": pending(backend, view),
        "timestamp": timestamp(now),
    })
}

/// What it waits for, in words. A wake that is followed knows it as of this second, the gateway as of the last change.
pub(crate) fn pending(backend: &Backend, view: Option<&FlightView>) -> Option<String> {
    let known = backend.workload();
    let workload = view
        .and_then(|view| view.workload.as_deref())
        .unwrap_or(&known);
    workload.pending.as_ref().map(ToString::to_string)
}

fn response(
    code: StatusCode,
    word: &'static str,
    content_type: &'static str,
    body: String,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::own(Bytes::from(body)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(NAGI_STATUS, HeaderValue::from_static(word));
    response
}

fn seconds_up(duration: Duration) -> u64 {
    let whole = duration.as_secs();
    if duration.subsec_nanos() > 0 {
        whole.saturating_add(1)
    } else {
        whole
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339, UTC, milliseconds, as everywhere.
fn timestamp(now: Timestamp) -> String {
    format!("{now:.3}")
}
