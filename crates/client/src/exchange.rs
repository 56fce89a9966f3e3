//! One call: connect, send, read the whole answer or its stream, and say what came of it.
//!
//! The connection is driven by whoever waits for the answer, inside the same future: no task is left behind when the
//! caller goes away.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    USER_AGENT,
};
use http::response::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nagi_api::problem::NO_SUCH_PATH;
use nagi_api::routes::REQUEST_ID_HEADER;
use nagi_api::{ErrorBody, Event, events};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::time::timeout;

use crate::address::ServerAddress;
use crate::connect::connect;
use crate::error::{ClientError, Refusal};
use crate::sse::{MESSAGE_BYTES_MAX, Message, Parser};

/// How long a call may take. The server answers a read within 2 s whatever its engine does, and a write within 15 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an event stream may be silent: three of the server's comment lines, which come every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(50);
/// Largest answer that is read. A page of 1 MiB of log lines is at most 6 MiB as JSON, a page of 500 workloads less.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// An API key. It is never shown.
#[derive(Clone)]
pub struct Key(HeaderValue);

/// The text cannot be an API key: it holds blanks, line ends or other characters that no header may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be printable ASCII without blanks")]
pub struct KeyError;

/// Calls one server.
#[derive(Debug, Clone)]
pub struct Client {
    server: ServerAddress,
    key: Option<Key>,
    call_timeout: Duration,
}

/// An answer: what it means, and how it came.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    /// What it means.
    pub body: T,
    /// The body as it came; fields that this version does not know are in here.
    pub raw: Bytes,
    /// The HTTP status.
    pub status: u16,
    /// The id under which the server logged the call.
    pub request_id: Option<String>,
}

/// What a call needs beside its path.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) json: Option<Vec<u8>>,
}

/// A stream of events under way.
#[derive(Debug)]
pub struct EventStream {
    server: ServerAddress,
    path: String,
    link: Link,
    body: Incoming,
    parser: Parser,
    ready: VecDeque<Message>,
    last_id: Option<String>,
}

/// One thing that came over an event stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvent {
    /// Something changed.
    Event {
        /// What.
        event: Box<Event>,
        /// The same as it came.
        raw: String,
    },
    /// Events were missed; the current state follows as events.
    Reset,
    /// A kind that this version does not know.
    Unknown {
        /// Its type.
        kind: String,
    },
}

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection, and whether it still has to be driven.
struct Link {
    driver: Option<Driver>,
}

// === impl Key ===

impl Key {
    /// Checks and takes a key.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyError);
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| KeyError)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

// === impl Client ===

impl Client {
    /// A client of one server. Nothing is sent yet.
    pub fn new(server: ServerAddress, key: Option<Key>) -> Self {
        Self {
            server,
            key,
            call_timeout: CALL_TIMEOUT,
        }
    }

    /// The same client with another limit for each call (30 s by default). Streams are limited only until they begin.
    #[must_use]
    pub fn with_call_timeout(mut self, limit: Duration) -> Self {
        self.call_timeout = limit;
        self
    }

    /// Where it calls.
    pub fn server(&self) -> &ServerAddress {
        &self.server
    }

    /// Makes a call and reads its answer; an HTTP status of 400 or more is an error.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        call: Call,
    ) -> Result<Answer<T>, ClientError> {
        let path = call.path.clone();
        let (parts, raw) = self.exchange(call).await?;
        if !parts.status.is_success() {
            return Err(self.refused(&parts, &raw));
        }
        self.understand(&path, &parts, raw)
    }

    /// As [`Self::call`], for the one answer whose 503 has the same form as its 200.
    pub(crate) async fn call_ready<T: DeserializeOwned>(
        &self,
        call: Call,
    ) -> Result<Answer<T>, ClientError> {
        let path = call.path.clone();
        let (parts, raw) = self.exchange(call).await?;
        if !parts.status.is_success() && parts.status != StatusCode::SERVICE_UNAVAILABLE {
            return Err(self.refused(&parts, &raw));
        }
        self.understand(&path, &parts, raw)
    }

    /// Begins to read the event stream after an earlier event, or from now on.
    ///
    /// # Errors
    /// As every call; a break later on is an error of [`EventStream::next`].
    pub async fn open_events(
        &self,
        path: String,
        last_id: Option<String>,
    ) -> Result<EventStream, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = &last_id {
            let id = HeaderValue::from_str(id).map_err(|e| ClientError::Request(e.into()))?;
            headers.insert(LAST_EVENT_ID, id);
        }
        let call = Call {
            method: Method::GET,
            path: path.clone(),
            json: None,
        };
        let begun = timeout(self.call_timeout, async {
            let (parts, body, mut link) = self.begin(call, headers).await?;
            if parts.status.is_success() {
                return Ok((body, link));
            }
            let raw = self.collect(&path, body, &mut link).await?;
            Err(self.refused(&parts, &raw))
        });
        let (body, link) = begun
            .await
            .map_err(|_| self.timed_out(self.call_timeout))??;
        Ok(EventStream {
            server: self.server.clone(),
            path,
            link,
            body,
            parser: Parser::default(),
            ready: VecDeque::new(),
            last_id,
        })
    }

    async fn exchange(&self, call: Call) -> Result<(Parts, Bytes), ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let path = call.path.clone();
        let whole = timeout(self.call_timeout, async {
            let (parts, body, mut link) = self.begin(call, headers).await?;
            let raw = self.collect(&path, body, &mut link).await?;
            Ok((parts, raw))
        });
        whole.await.map_err(|_| self.timed_out(self.call_timeout))?
    }

    async fn begin(
        &self,
        call: Call,
        headers: HeaderMap,
    ) -> Result<(Parts, Incoming, Link), ClientError> {
        let request = self.request(call, headers)?;
        let stream = connect(&self.server)
            .await
            .map_err(|source| ClientError::Connect {
                server: self.server.clone(),
                source,
            })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.broken(source))?;
        let mut link = Link {
            driver: Some(Box::pin(connection)),
        };
        let answer = link.drive(sender.send_request(request)).await;
        let (parts, body) = answer.map_err(|source| self.broken(source))?.into_parts();
        Ok((parts, body, link))
    }

    fn request(&self, call: Call, headers: HeaderMap) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder()
            .method(call.method)
            .uri(self.server.path(&call.path))
            .header(HOST, self.server.authority())
            .header(USER_AGENT, concat!("nagi/", env!("CARGO_PKG_VERSION")));
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.0.clone());
        }
        if call.json.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = Full::new(Bytes::from(call.json.unwrap_or_default()));
        let mut request = request.body(body).map_err(ClientError::Request)?;
        request.headers_mut().extend(headers);
        Ok(request)
    }

    async fn collect(
        &self,
        path: &str,
        mut body: Incoming,
        link: &mut Link,
    ) -> Result<Bytes, ClientError> {
        let mut whole = Vec::new();
        while let Some(frame) = link.drive(body.frame()).await {
            let frame = frame.map_err(|source| self.broken(source))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if whole.len().saturating_add(data.len()) > ANSWER_BYTES_MAX {
                return Err(ClientError::TooLarge {
                    server: self.server.clone(),
                    path: path.to_owned(),
                    limit: ANSWER_BYTES_MAX,
                });
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.into())
    }

    fn understand<T: DeserializeOwned>(
        &self,
        path: &str,
        parts: &Parts,
        raw: Bytes,
    ) -> Result<Answer<T>, ClientError> {
        let status = parts.status.as_u16();
        match serde_json::from_slice(&raw) {
            Ok(body) => Ok(Answer {
                body,
                raw,
                status,
                request_id: text(&parts.headers, REQUEST_ID_HEADER),
            }),
            Err(_) if !is_json(&parts.headers) => Err(self.not_the_api(status)),
            Err(source) => Err(ClientError::Answer {
                server: self.server.clone(),
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn refused(&self, parts: &Parts, raw: &[u8]) -> ClientError {
        let status = parts.status.as_u16();
        let request_id = text(&parts.headers, REQUEST_ID_HEADER);
        // Every answer of the API has an id; those of Nagi's gateway look alike and have none. Its port for metrics knows
        // none of the paths that are asked for here.
        let is_the_api =
            |body: &ErrorBody| request_id.is_some() && body.error.as_deref() != Some(NO_SUCH_PATH);
        match serde_json::from_slice::<ErrorBody>(raw) {
            Ok(body) if is_the_api(&body) => ClientError::Refused(Box::new(Refusal {
                status,
                body,
                request_id,
                retry_after: text(&parts.headers, RETRY_AFTER.as_str())
                    .and_then(|seconds| seconds.parse().ok())
                    .map(Duration::from_secs),
            })),
            Ok(_) | Err(_) => self.not_the_api(status),
        }
    }

    fn not_the_api(&self, status: u16) -> ClientError {
        ClientError::NotTheApi {
            server: self.server.clone(),
            status,
        }
    }

    fn broken(&self, source: hyper::Error) -> ClientError {
        ClientError::Broken {
            server: self.server.clone(),
            source,
        }
    }

    fn timed_out(&self, after: Duration) -> ClientError {
        ClientError::Timeout {
            server: self.server.clone(),
            after,
        }
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn is_json(headers: &HeaderMap) -> bool {
    text(headers, CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("application/json"))
}

// === impl EventStream ===

impl EventStream {
    /// The next event; `None` when the server ended the stream. Cancel-safe: bytes that were read are kept.
    ///
    /// # Errors
    /// The connection broke or fell silent, or something that is no event came.
    pub async fn next(&mut self) -> Result<Option<ServerEvent>, ClientError> {
        loop {
            while let Some(message) = self.ready.pop_front() {
                if let Some(id) = &message.id {
                    self.last_id = Some(id.clone());
                }
                if message.data.is_empty() && message.event.is_empty() {
                    continue;
                }
                return self.event(message).map(Some);
            }
            let frame = timeout(SILENCE_MAX, self.link.drive(self.body.frame())).await;
            let Some(frame) = frame.map_err(|_| ClientError::Timeout {
                server: self.server.clone(),
                after: SILENCE_MAX,
            })?
            else {
                return Ok(None);
            };
            let frame = frame.map_err(|source| ClientError::Broken {
                server: self.server.clone(),
                source,
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let messages = self.parser.push(&data).map_err(|_| ClientError::TooLarge {
                server: self.server.clone(),
                path: self.path.clone(),
                limit: MESSAGE_BYTES_MAX,
            })?;
            self.ready.extend(messages);
        }
    }

    /// The id of the last event that was read.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    fn event(&self, message: Message) -> Result<ServerEvent, ClientError> {
        if message.event == events::RESET {
            return Ok(ServerEvent::Reset);
        }
        let known = [
            nagi_api::EventKind::Scale,
            nagi_api::EventKind::Status,
            nagi_api::EventKind::Wake,
            nagi_api::EventKind::Schedule,
        ];
        if !known.iter().any(|kind| kind.as_str() == message.event) {
            return Ok(ServerEvent::Unknown {
                kind: message.event,
            });
        }
        let event = serde_json::from_str(&message.data).map_err(|source| ClientError::Answer {
            server: self.server.clone(),
            path: self.path.clone(),
            source,
        })?;
        Ok(ServerEvent::Event {
            event: Box::new(event),
            raw: message.data,
        })
    }
}

// === impl Link ===

impl Link {
    /// Waits for `work` while the connection moves. What ends the connection reaches `work` as its own error.
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            let Some(driver) = &mut self.driver else {
                return work.await;
            };
            tokio::select! {
                biased; // An answer that is complete counts, even if the connection ended in the same moment.
                // Cancel-safe: pinned and polled again.
                out = &mut work => return out,
                // Cancel-safe: pinned in `self` and polled again.
                _ended = driver => self.driver = None,
            }
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("open", &self.driver.is_some())
            .finish()
    }
}
