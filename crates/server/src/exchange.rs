//! One request and its answer: what both share, and the one log line that they leave behind.
//!
//! [`serve`] wraps the router: it gives the request an id and a client address, cleans its path, catches panics,
//! renders problems, and hands the log line to the body of the answer, which emits it when the answer has ended,
//! however it ends. Handlers note on the [`Exchange`] what the line should tell.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::Either;
use hyper::body::{Frame, SizeHint};
use hyper_util::service::TowerToHyperService;
use nagi_api::{Time, routes};
use nagi_core::id::{KeyId, RequestId, WorkloadId};
use nagi_ports::PortError;
use nagi_runtime::Deadline;
use nagi_telemetry::names::field;
use nagi_telemetry::{Failure, FieldValue, RequestLine};
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::app::App;
use crate::host;
use crate::network::client_of;
use crate::path;
use crate::problem::Problem;
use crate::serve::crowd::{Phase, Pulse};

/// The route label of paths that no route has, so that clients cannot make series.
const UNKNOWN_ROUTE: &str = "unknown";
/// What the log line says when the client went away before there was an answer. Not a status that is ever sent.
const CLIENT_GONE: u16 = 499;
/// Longest part of an error that goes into the log line, in characters.
const ERROR_CHARS_MAX: usize = 500;

/// What handlers and the log line share about one request.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The id, from the client or ours.
    pub(crate) id: RequestId,
    /// The address of the other end of the connection.
    pub(crate) peer: IpAddr,
    /// The client: the peer, unless a trusted proxy says otherwise.
    pub(crate) remote_ip: IpAddr,
    /// What its connection is doing.
    pub(crate) pulse: Arc<Pulse>,
    begun: Instant,
    upstream_nanos: AtomicU64,
    upstream_deadline: OnceLock<Deadline>,
    upstream_time: Duration,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    route: Option<&'static str>,
    key: Option<KeyId>,
    failure: Option<Failure>,
    error: Option<String>,
    fields: Vec<(&'static str, Note)>,
}

/// The value of a further field of the log line.
#[derive(Debug, Clone)]
pub(crate) enum Note {
    Text(String),
    Number(u64),
    Flag(bool),
}

impl From<&str> for Note {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Note {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u32> for Note {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Note {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

// === impl Exchange ===

impl Exchange {
    /// The client as limits count it.
    pub(crate) fn client(&self) -> IpAddr {
        client_of(self.remote_ip)
    }

    /// Runs a call that leaves the process: its time counts as upstream, and all such calls of one request share one
    /// deadline, which begins with the first of them. As cancel-safe as `call`.
    pub(crate) async fn upstream<T>(
        &self,
        call: impl Future<Output = Result<T, PortError>>,
    ) -> Result<T, PortError> {
        let begun = Instant::now();
        let deadline = *self
            .upstream_deadline
            .get_or_init(|| Deadline::at(begun + self.upstream_time));
        let answer = deadline.timeout(call).await;
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.upstream_nanos.fetch_add(nanos, Ordering::Relaxed);
        answer.unwrap_or_else(|_passed| {
            Err(PortError::Timeout(format!(
                "no answer within {} s",
                self.upstream_time.as_secs()
            )))
        })
    }

    /// The workload that the log line names.
    pub(crate) fn note_workload(&self, id: &WorkloadId) {
        self.note(field::NAMESPACE, id.namespace.as_str());
        self.note(field::WORKLOAD, id.name.as_str());
    }

    /// The key that the log line names.
    pub(crate) fn note_key(&self, key: Option<&KeyId>) {
        self.notes().key = key.cloned();
    }

    /// A further field of the log line.
    pub(crate) fn note(&self, name: &'static str, value: impl Into<Note>) {
        self.notes().fields.push((name, value.into()));
    }

    /// The engine failed behind an answer that has a body of its own (`/ready`).
    pub(crate) fn note_port_error(&self, error: &PortError) {
        let mut notes = self.notes();
        notes.failure = crate::problem::failure_of(error);
        notes.error = Some(shortened(&error.to_string()));
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // No section leaves the notes half changed.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands behind a listener.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) app: App,
    pub(crate) routes: TowerToHyperService<Router>,
    pub(crate) lines: Lines,
}

/// Which requests leave a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// All.
    All,
    /// Those that failed: a scraper calls four times a minute, for ever.
    Failures,
}

/// Serves one request of one connection. The answer is complete: problems are rendered, panics became answers.
pub(crate) async fn serve<B>(
    site: Site,
    peer: IpAddr,
    pulse: Arc<Pulse>,
    request: hyper::Request<B>,
) -> Result<Response<AnswerBody>, Infallible>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let Site { app, routes, lines } = site;
    let (mut parts, body) = request.into_parts();
    let values = || parts.headers.get_all(routes::REQUEST_ID_HEADER).iter();
    let exchange = Arc::new(Exchange {
        id: request_id(values()),
        peer,
        remote_ip: remote_ip(&app, peer, &parts.headers),
        pulse,
        begun: Instant::now(),
        upstream_nanos: AtomicU64::new(0),
        upstream_deadline: OnceLock::new(),
        upstream_time: app.config.limits.request_time,
        notes: Mutex::default(),
    });
    if let Some(uri) = path::normal(&parts.uri) {
        parts.uri = uri;
    }
    let user_agent = parts.headers.get(header::USER_AGENT);
    let mut line = Line {
        app: app.clone(),
        exchange: Arc::clone(&exchange),
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        user_agent: user_agent.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        status: CLIENT_GONE,
        lines,
    };
    let response = match host::check(parts.version, &parts.headers) {
        Ok(()) => {
            parts.extensions.insert(Arc::clone(&exchange));
            routed(routes, Request::from_parts(parts, Body::new(body))).await
        }
        Err(problem) => problem.into_response(),
    };
    let response = finish(&app, &exchange, response);
    line.status = response.status().as_u16();
    Ok(response.map(|inner| AnswerBody { inner, _line: line }))
}

/// The answer of the routes; a panic in one of them is an answer too.
async fn routed(routes: TowerToHyperService<Router>, request: Request) -> Response<Body> {
    let answer = hyper::service::Service::call(&routes, request);
    let answer = AssertUnwindSafe(answer).catch_unwind().await;
    let answer = answer.map(|done| done.unwrap_or_else(|never| match never {}));
    answer.unwrap_or_else(|_panic| {
        // The panic hook has logged what happened.
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error")
            .error("the server failed while it handled this request")
            .hint("the log line with this request id says more")
            .into_response()
    })
}

/// Layer inside the router: notes the template of the route, and refuses paths that only look like it. A service of its own,
/// because the middleware functions of axum cost each request several allocations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoteRoute;

/// A route whose template is noted.
#[derive(Debug, Clone)]
pub(crate) struct Noted<S>(S);

impl<S> Layer<S> for NoteRoute {
    type Service = Noted<S>;

    fn layer(&self, route: S) -> Noted<S> {
        Noted(route)
    }
}

impl<S> Service<Request> for Noted<S>
where
    S: Service<Request, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if let Some(matched) = request.extensions().get::<MatchedPath>() {
            if !path::fits(matched.as_str(), request.uri().path()) {
                return Either::Right(ready(Ok(Problem::no_route().into_response())));
            }
            if let Some(exchange) = request.extensions().get::<Arc<Exchange>>() {
                // One of ours, so that it can be a label.
                let mut ours = routes::ALL.into_iter();
                exchange.notes().route = ours.find(|template| *template == matched.as_str());
            }
        }
        Either::Left(self.0.call(request))
    }
}

fn finish(app: &App, exchange: &Exchange, mut response: Response<Body>) -> Response<Body> {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = render(app, exchange, response, &problem);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(exchange.id.as_str()) {
        headers.insert(HeaderName::from_static(routes::REQUEST_ID_HEADER), id);
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

fn render(
    app: &App,
    exchange: &Exchange,
    mut response: Response<Body>,
    problem: &Problem,
) -> Response<Body> {
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if problem.status == StatusCode::UNAUTHORIZED {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"scale-api\""),
        );
    }
    if let Some(seconds) = problem.retry_after_seconds {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if problem.close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let mut notes = exchange.notes();
    notes.failure = problem.failure;
    notes.error = problem.error.as_deref().map(shortened);
    drop(notes);
    response.map(|_empty| Body::from(body(app, problem)))
}

fn body(app: &App, problem: &Problem) -> Vec<u8> {
    let body = problem.render(Time::in_millis(app.clock.now()));
    // A struct of strings always encodes.
    serde_json::to_vec(&body).unwrap_or_default()
}

fn shortened(error: &str) -> String {
    error.chars().take(ERROR_CHARS_MAX).collect()
}

fn request_id<'a>(mut values: impl Iterator<Item = &'a HeaderValue>) -> RequestId {
    let only = values.next().filter(|_| values.next().is_none());
    let taken = only
        .and_then(|value| value.to_str().ok())
        .and_then(RequestId::accept);
    taken.unwrap_or_else(|| RequestId::from_random(nagi_runtime::random_bits()))
}

/// The client behind trusted proxies: from the right, the first address that no trusted proxy added.
fn remote_ip(app: &App, peer: IpAddr, headers: &axum::http::HeaderMap) -> IpAddr {
    static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    let mut client = peer.to_canonical();
    if app.config.trusted_proxies.is_empty() {
        return client;
    }
    let lines: Vec<&HeaderValue> = headers.get_all(&FORWARDED_FOR).iter().collect();
    let addresses = lines
        .iter()
        .rev()
        .flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    for address in addresses {
        if !app.config.trusts(client) {
            break;
        }
        let Ok(address) = address.trim().parse::<IpAddr>() else {
            break;
        };
        client = address.to_canonical();
    }
    client
}

/// The answer to bytes that made no request, as it goes out, after which the connection ends; and its log line.
pub(crate) fn bare(app: &App, peer: IpAddr, problem: &Problem, latency: Duration) -> Vec<u8> {
    const NOTHING: &str = "-";
    let id = request_id(std::iter::empty());
    app.log.emit(&RequestLine {
        method: NOTHING,
        path: NOTHING,
        status: problem.status.as_u16(),
        latency,
        latency_upstream: Duration::ZERO,
        remote_ip: peer,
        user_agent: None,
        request_id: id.as_str(),
        failure: None,
        key_id: None,
        error: problem.error.as_deref(),
        fields: &[],
    });
    let status = problem.status;
    app.metrics
        .http_request(NOTHING, UNKNOWN_ROUTE, status.as_u16(), latency);
    let body = body(app, problem);
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}: {id}\r\n\
         cache-control: no-store\r\nconnection: close\r\n\r\n",
        body.len(),
        routes::REQUEST_ID_HEADER,
    );
    [head.into_bytes(), body].concat()
}

/// The log line of one request, emitted when this is dropped.
#[derive(Debug)]
struct Line {
    app: App,
    exchange: Arc<Exchange>,
    method: Method,
    path: String,
    user_agent: Option<String>,
    status: u16,
    lines: Lines,
}

impl Drop for Line {
    fn drop(&mut self) {
        let ended = self.exchange.pulse.begin(Phase::Idle);
        let latency = ended.saturating_duration_since(self.exchange.begun);
        let notes = self.exchange.notes();
        let upstream = Duration::from_nanos(self.exchange.upstream_nanos.load(Ordering::Relaxed));
        let fields: Vec<(&'static str, FieldValue<'_>)> = notes
            .fields
            .iter()
            .map(|(name, note)| (*name, FieldValue::from(note)))
            .collect();
        let wanted = match self.lines {
            Lines::All => true,
            Lines::Failures => self.status >= 400,
        };
        let line = RequestLine {
            method: self.method.as_str(),
            path: &self.path,
            status: self.status,
            latency,
            latency_upstream: upstream.min(latency),
            remote_ip: self.exchange.remote_ip,
            user_agent: self.user_agent.as_deref(),
            request_id: self.exchange.id.as_str(),
            failure: notes.failure,
            key_id: notes.key.as_ref().map(KeyId::as_str),
            error: notes.error.as_deref(),
            fields: &fields,
        };
        if wanted {
            self.app.log.emit(&line);
        }
        let route = notes.route.unwrap_or(UNKNOWN_ROUTE);
        self.app
            .metrics
            .http_request(self.method.as_str(), route, self.status, latency);
    }
}

impl<'a> From<&'a Note> for FieldValue<'a> {
    fn from(note: &'a Note) -> Self {
        match note {
            Note::Text(text) => Self::Text(text),
            Note::Number(number) => Self::Unsigned(*number),
            Note::Flag(flag) => Self::Flag(*flag),
        }
    }
}

/// The body of an answer; its end is the end of the exchange.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    inner: Body,
    _line: Line,
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
