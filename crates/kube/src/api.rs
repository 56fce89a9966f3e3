//! Calls of the API server: one deadline each, errors in our classes, credentials made anew when they are refused.
//!
//! Nothing is repeated here but what cannot have taken effect: a call that was refused with 401 after the credentials were
//! read again, and one that the server asked to repeat (429) while there is time left. Every answer of any kind is noted:
//! by it the engine knows that the API server lives.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, DATE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use jiff::fmt::rfc2822;
use kube::Client;
use kube::client::Body;
use nagi_ports::PortError;
use nagi_runtime::{Blocking, Deadline};
use thiserror::Error;
use tokio::time::Instant;

use crate::source::{Source, SourceError, explained};
use crate::wire::Status;

/// A configuration is read again this often at most.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// After the API server could not be reached, certificates may have changed: the configuration is read again, but no more
/// often than this, since it may run a program.
const REFRESH_UNREACHABLE: Duration = Duration::from_secs(10);
/// An exec plugin gets this long.
const REFRESH_TIME: Duration = Duration::from_secs(15);
/// Bodies of answers are this long at most: a page of 500 objects of 64 KiB.
const BODY_MAX: usize = 32 * 1024 * 1024;
/// What is waited after a 429 that does not say how long.
const RETRY_DEFAULT: Duration = Duration::from_millis(200);

/// As whom calls are made, for whoever reads the API server's audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agent {
    /// The engine, which asks for nothing that it does not need.
    Engine,
    /// A survey, which asks to find out what it may.
    Survey,
}

impl Agent {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Engine => concat!("nagi/", env!("CARGO_PKG_VERSION")),
            Self::Survey => concat!("nagi-survey/", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// Kinds of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Json,
    MergePatch,
    JsonPatch,
}

/// Asks for the metadata of listed objects, or else for all of them.
const HEADS: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json";

/// One call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) body: Option<(Content, Bytes)>,
    /// Of each object in a list only its metadata.
    heads_only: bool,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ApiError {
    /// The API server answered with an error.
    #[error("the API server answered {code}: {message}")]
    Status {
        code: u16,
        message: String,
        retry_after: Option<Duration>,
    },
    /// It could not be reached.
    #[error("{0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("the API server did not answer within {0:?}")]
    Timeout(Duration),
    /// Its answer is longer than we take.
    #[error("the answer of the API server is longer than {} MiB", BODY_MAX >> 20)]
    TooLarge,
    /// It answered something that cannot be read.
    #[error("the answer of the API server cannot be read: {0}")]
    Broken(String),
}

/// The API server. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    source: Source,
    agent: Agent,
    blocking: Blocking,
    connected: Mutex<Connected>,
    refreshing: tokio::sync::Mutex<()>,
    start: Instant,
    /// Milliseconds after `start` of the last answer, plus 1; 0 before the first.
    answered: AtomicU64,
}

#[derive(Default)]
struct Connected {
    client: Option<Client>,
    own_namespace: Option<String>,
    /// Grows with every client.
    generation: u64,
    tried: Option<Instant>,
    /// The present client could not reach the API server.
    suspect: bool,
    problem: Option<String>,
}

// === impl Call ===

impl Call {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            body: None,
            heads_only: false,
        }
    }

    /// The same of a list, of whose objects only the metadata is told: an API server that does not know how sends them whole.
    pub(crate) fn heads(path: impl Into<String>) -> Self {
        Self {
            heads_only: true,
            ..Self::get(path)
        }
    }

    pub(crate) fn with(
        method: Method,
        path: impl Into<String>,
        content: Content,
        body: &serde_json::Value,
    ) -> Self {
        Self {
            method,
            path: path.into(),
            body: Some((content, body.to_string().into())),
            heads_only: false,
        }
    }

    fn request(&self, agent: Agent) -> Result<Request<Body>, http::Error> {
        let accepted = if self.heads_only {
            HEADS
        } else {
            "application/json"
        };
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(&self.path)
            .header(ACCEPT, HeaderValue::from_static(accepted))
            .header(USER_AGENT, HeaderValue::from_static(agent.as_str()));
        let body = match &self.body {
            None => Body::empty(),
            Some((content, body)) => {
                request = request.header(CONTENT_TYPE, HeaderValue::from_static(content.as_str()));
                Body::from(body.clone())
            }
        };
        request.body(body)
    }
}

impl Content {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::MergePatch => "application/merge-patch+json",
            Self::JsonPatch => "application/json-patch+json",
        }
    }
}

// === impl Api ===

impl Api {
    pub(crate) fn new(source: Source, agent: Agent) -> Self {
        Self {
            inner: Arc::new(Inner {
                source,
                agent,
                // One refresh at a time, and one that hangs.
                blocking: Blocking::new("kubernetes credentials", 2),
                connected: Mutex::default(),
                refreshing: tokio::sync::Mutex::new(()),
                start: Instant::now(),
                answered: AtomicU64::new(0),
            }),
        }
    }

    /// How long ago the API server last answered anything; `None` before its first answer.
    pub(crate) fn silent_for(&self) -> Option<Duration> {
        let at = self.inner.answered.load(Ordering::Relaxed).checked_sub(1)?;
        Some(
            self.inner
                .start
                .elapsed()
                .saturating_sub(Duration::from_millis(at)),
        )
    }

    /// The namespace of the pod that this process runs in.
    pub(crate) fn own_namespace(&self) -> Option<String> {
        self.connected().own_namespace.clone()
    }

    /// The body of the answer to a call.
    ///
    /// # Errors
    /// [`ApiError`]; after a timeout of a write nobody knows whether it took effect.
    pub(crate) async fn call(&self, call: &Call, time: Duration) -> Result<Bytes, ApiError> {
        let deadline = Deadline::in_(time);
        let mut refreshed = false;
        loop {
            let (client, generation) = self.client(deadline, time).await?;
            let answered = deadline
                .timeout(self.attempt(&client, call))
                .await
                .map_err(|_passed| ApiError::Timeout(time))
                .flatten();
            match answered {
                Err(ApiError::Status { code: 401, .. }) if !refreshed => {
                    refreshed = true;
                    self.refresh(generation, deadline, time).await?;
                }
                Err(ApiError::Status {
                    code: 429,
                    retry_after,
                    ..
                }) if retry_after.unwrap_or(RETRY_DEFAULT) < deadline.remaining() => {
                    tokio::time::sleep(retry_after.unwrap_or(RETRY_DEFAULT)).await;
                }
                Err(error @ (ApiError::Unreachable(_) | ApiError::Timeout(_))) => {
                    self.suspect(generation);
                    return Err(error);
                }
                other => return other,
            }
        }
    }

    /// The answer to a call as a stream: its head within `time`, its body as long as it takes.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub(crate) async fn stream(&self, call: &Call, time: Duration) -> Result<Body, ApiError> {
        let deadline = Deadline::in_(time);
        let (client, generation) = self.client(deadline, time).await?;
        let answered = deadline
            .timeout(self.head(&client, call))
            .await
            .map_err(|_passed| ApiError::Timeout(time))
            .flatten();
        match answered {
            Ok(response) => Ok(response.into_body()),
            Err(error) => {
                match &error {
                    ApiError::Status { code: 401, .. } => {
                        self.refresh(generation, deadline, time).await?;
                    }
                    ApiError::Unreachable(_) | ApiError::Timeout(_) => self.suspect(generation),
                    ApiError::Status { .. } | ApiError::TooLarge | ApiError::Broken(_) => {}
                }
                Err(error)
            }
        }
    }

    /// The API server showed that it lives.
    pub(crate) fn note_answer(&self) {
        let at = u64::try_from(self.inner.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.inner.answered.fetch_max(at + 1, Ordering::Relaxed);
    }

    async fn attempt(&self, client: &Client, call: &Call) -> Result<Bytes, ApiError> {
        let response = self.head(client, call).await?;
        let body = collect(response.into_body()).await?;
        self.note_answer();
        Ok(body)
    }

    /// The head of a successful answer; the whole of one that is none becomes an error.
    async fn head(&self, client: &Client, call: &Call) -> Result<Response<Body>, ApiError> {
        let request = call
            .request(self.inner.agent)
            .map_err(|error| ApiError::Broken(error.to_string()))?;
        let response = client.send(request).await.map_err(|error| {
            ApiError::Unreachable(format!(
                "cannot reach the API server: {}",
                explained(&error)
            ))
        })?;
        self.note_answer();
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_success() {
            return Ok(response);
        }
        let body = collect(response.into_body()).await.unwrap_or_default();
        Err(refused(status, &headers, &body))
    }

    async fn client(&self, deadline: Deadline, time: Duration) -> Result<(Client, u64), ApiError> {
        let (client, generation, stale) = {
            let connected = self.connected();
            let old = connected
                .tried
                .is_none_or(|tried| tried.elapsed() >= REFRESH_UNREACHABLE);
            let stale = connected.suspect && old;
            (connected.client.clone(), connected.generation, stale)
        };
        match client {
            Some(client) if !stale => Ok((client, generation)),
            _ => {
                self.refresh(generation, deadline, time).await?;
                let connected = self.connected();
                let client = connected.client.clone();
                client
                    .map(|client| (client, connected.generation))
                    .ok_or_else(|| {
                        ApiError::Unreachable(connected.problem.clone().unwrap_or_default())
                    })
            }
        }
    }

    /// Reads the configuration again, unless somebody did since the client of `generation` was made. What there is stays
    /// when it cannot be read.
    async fn refresh(
        &self,
        generation: u64,
        deadline: Deadline,
        time: Duration,
    ) -> Result<(), ApiError> {
        let refreshing = deadline
            .timeout(self.inner.refreshing.lock())
            .await
            .map_err(|_passed| ApiError::Timeout(time))?;
        {
            let mut connected = self.connected();
            let recent = connected
                .tried
                .is_some_and(|tried| tried.elapsed() < REFRESH_EVERY);
            if connected.generation != generation || recent {
                return Ok(());
            }
            connected.tried = Some(Instant::now());
        }
        let made = deadline
            .earlier(Deadline::in_(REFRESH_TIME))
            .timeout(self.make())
            .await;
        drop(refreshing);
        let mut connected = self.connected();
        match made {
            Ok(Ok((client, own_namespace))) => {
                connected.client = Some(client);
                connected.own_namespace = own_namespace;
                connected.generation += 1;
                connected.suspect = false;
                if connected.problem.take().is_some() || generation == 0 {
                    tracing::info!("Kubernetes client initialized");
                }
            }
            Ok(Err(error)) => {
                let problem = explained(&error);
                if connected.problem.as_ref() != Some(&problem) {
                    tracing::warn!(error = %problem, "Kubernetes configuration cannot be used");
                }
                connected.problem = Some(problem);
            }
            Err(_passed) => return Err(ApiError::Timeout(time)),
        }
        Ok(())
    }

    async fn make(&self) -> Result<(Client, Option<String>), RefreshError> {
        let loaded = self.inner.source.load().await?;
        let own_namespace = loaded.own_namespace.clone();
        let client = self.inner.blocking.run(move || loaded.client()).await??;
        Ok((client, own_namespace))
    }

    fn suspect(&self, generation: u64) {
        let mut connected = self.connected();
        if connected.generation == generation {
            connected.suspect = true;
        }
    }

    fn connected(&self) -> MutexGuard<'_, Connected> {
        // No section leaves it half changed.
        self.inner
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Error)]
enum RefreshError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the configuration could not be read")]
    Blocking(#[from] nagi_runtime::BlockingError),
}

async fn collect(body: Body) -> Result<Bytes, ApiError> {
    let collected = Limited::new(body, BODY_MAX).collect().await;
    let collected = collected.map_err(|error| {
        if error.is::<LengthLimitError>() {
            return ApiError::TooLarge;
        }
        ApiError::Unreachable(format!("the answer of the API server broke off: {error}"))
    })?;
    Ok(collected.to_bytes())
}

fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ApiError {
    let said: Status = serde_json::from_slice(body).unwrap_or_default();
    ApiError::Status {
        code: status.as_u16(),
        message: said
            .message
            .or(said.reason)
            .unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason").to_owned()),
        retry_after: asked_to_wait(headers),
    }
}

/// How long the answer asks to wait: seconds, or a date (RFC 9110 §10.2.3), which is compared with the date that the answer
/// itself carries, since clocks differ.
fn asked_to_wait(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok();
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text| Some(rfc2822::parse(text).ok()?.timestamp());
    let wait = date(asked)?.duration_since(date(text(DATE)?)?);
    // A date that has passed asks for no wait.
    Some(Duration::try_from(wait).unwrap_or_default())
}

impl From<ApiError> for PortError {
    fn from(error: ApiError) -> Self {
        let words = error.to_string();
        match error {
            ApiError::Status {
                code,
                message,
                retry_after,
            } => match code {
                404 => Self::NotFound,
                409 => Self::Conflict,
                // Credentials that are refused are read again with every call: it heals by itself.
                401 => Self::Unreachable(format!("the credentials are not accepted: {message}")),
                429 => Self::Busy { retry_after },
                503 => Self::Unreachable(words),
                504 => Self::Timeout(words),
                400..=499 => Self::Refused(words),
                _ => Self::Internal(words),
            },
            ApiError::Unreachable(words) => Self::Unreachable(words),
            ApiError::Timeout(_) => Self::Timeout(words),
            ApiError::TooLarge | ApiError::Broken(_) => Self::Internal(words),
        }
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_asked_for_in_seconds_or_by_a_date() {
        let wait = |asked: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, asked.parse().unwrap());
            if let Some(date) = date {
                headers.insert(DATE, date.parse().unwrap());
            }
            asked_to_wait(&headers).map(|wait| wait.as_secs())
        };
        let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(wait("3", None), Some(3));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:07 GMT", now), Some(30));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:07 GMT", now), Some(0));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:07 GMT", None), None);
        assert_eq!(wait("soon", now), None);
        assert_eq!(asked_to_wait(&HeaderMap::new()), None);
    }
}
