//! One HTTP/1.1 call over a connection that is there, with a limit on the answer.

use ::http::{HeaderValue, Method, Request, Response, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use nagi_runtime::Deadline;
use tokio::io::{AsyncRead, AsyncWrite};

use super::tls::CLOSED;

/// The longest answer of these is etcd's `/metrics`, with some hundred kilobytes.
const ANSWER_MAX: usize = 2 << 20;

/// What is asked.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    /// JSON.
    pub(crate) body: Option<String>,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
    /// The `Date` of the server.
    pub(crate) date: Option<Timestamp>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallError {
    TimedOut,
    Closed,
    Failed(String),
}

// === impl CallError ===

impl CallError {
    /// In words.
    pub(crate) fn words(&self) -> &str {
        match self {
            Self::TimedOut => "no answer in time",
            Self::Closed => "the connection was closed",
            Self::Failed(why) => why,
        }
    }
}

/// Asks, and reads the whole answer.
pub(crate) async fn call<S>(stream: S, call: &Call, deadline: Deadline) -> Result<Answer, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match deadline.timeout(Box::pin(exchange(stream, call))).await {
        Err(_) => Err(CallError::TimedOut),
        Ok(ended) => ended,
    }
}

/// Asks, and hands on the pieces of an answer of any length as they come; of one that is no success, its text is the error.
pub(crate) async fn stream<S>(
    stream: S,
    call: &Call,
    deadline: Deadline,
    mut piece: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let streamed = exchanged(stream, call, async |answer: Response<Incoming>| {
        let status = answer.status().as_u16();
        if status != 200 {
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            let body = body.map_err(|error| CallError::Failed(error.to_string()))?;
            let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            return Err(CallError::Failed(format!("status {status}: {text}")));
        }
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| of(&error))?;
            if let Some(data) = frame.data_ref() {
                piece(data).map_err(CallError::Failed)?;
            }
        }
        Ok(())
    });
    match deadline.timeout(Box::pin(streamed)).await {
        Err(_) => Err(CallError::TimedOut),
        Ok(ended) => ended,
    }
}

async fn exchange<S>(stream: S, call: &Call) -> Result<Answer, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    exchanged(stream, call, async |answer: Response<Incoming>| {
        let status = answer.status().as_u16();
        let date = answer.headers().get(header::DATE).and_then(date);
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| CallError::Failed(error.to_string()))?;
        Ok(Answer {
            status,
            text: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            date,
        })
    })
    .await
}

/// Asks, and reads the answer in one way or another.
async fn exchanged<S, T>(
    stream: S,
    call: &Call,
    read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, CallError>,
) -> Result<T, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = request(call)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| of(&e))?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|e| of(&e))?;
        read(answer).await
    };
    // The connection moves the bytes; it ends with the answer, or before it with the same error.
    let driven = async {
        drop(connection.await);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // Cancel-safe: whichever is left ends with the connection, which nobody uses again.
        answer = answer => answer,
        () = driven => Err(CallError::Closed),
    }
}

fn request(call: &Call) -> Result<Request<Full<Bytes>>, CallError> {
    let failed = |error: ::http::Error| CallError::Failed(error.to_string());
    let mut request = Request::builder()
        .method(&call.method)
        .uri(&call.path)
        .header(header::HOST, &call.host)
        .header(header::USER_AGENT, "nagi")
        .header(header::CONNECTION, "close");
    if call.body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    if let Some(token) = &call.token {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| CallError::Failed("the token is none that HTTP can carry".to_owned()))?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    let body = Bytes::from(call.body.clone().unwrap_or_default());
    request.body(Full::new(body)).map_err(failed)
}

fn date(value: &HeaderValue) -> Option<Timestamp> {
    let parsed = jiff::fmt::rfc2822::parse(value.to_str().ok()?).ok()?;
    Some(parsed.timestamp())
}

fn of(error: &hyper::Error) -> CallError {
    let is_io_end = std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<std::io::Error>())
        .is_some_and(|cause| CLOSED.contains(&cause.kind()));
    if error.is_closed() || error.is_incomplete_message() || is_io_end {
        return CallError::Closed;
    }
    CallError::Failed(error.to_string())
}
