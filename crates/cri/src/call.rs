//! One call of gRPC over a socket: a frame there, frames back, and a status.
//!
//! Whoever asks acts on what is missing from an answer: a lease, a container. So an answer counts only with the word of the
//! server that it is whole, and never because nothing more came.

use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, header};
use nagi_runtime::Deadline;
use thiserror::Error;
use tokio::net::UnixStream;

use crate::Client;

/// What containerd itself sends at most.
const ANSWER_MAX: usize = 16 << 20;
/// Before each message: a flag, and its length.
const HEAD: usize = 5;
/// gRPC's number for a method that a server does not have.
const UNIMPLEMENTED: u32 = 12;
/// And for a thing that is not there.
const NOT_FOUND: u32 = 5;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// This process may not connect.
    #[error("{0}")]
    Denied(String),
    /// Nobody listens.
    #[error("{0}")]
    Down(String),
    /// It took the call and did not answer in this time.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// It answered that it does not do this.
    #[error("gRPC status {status}: {said}")]
    Refused {
        /// gRPC's number.
        status: u32,
        /// In its words.
        said: String,
    },
    /// The connection broke, or its answer is none of this protocol.
    #[error("{0}")]
    Failed(String),
}

/// How a call ended that is no refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With the word that all of it was said.
    Good,
    /// Without one: what was read may be a part.
    NotSaid,
}

// === impl CallError ===

impl CallError {
    /// The server does not have this method: it is another runtime, or an older one.
    pub const fn is_unknown_method(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == UNIMPLEMENTED)
    }

    /// What was asked about is not there.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == NOT_FOUND)
    }

    pub(crate) fn not_understood() -> Self {
        Self::Failed("the answer cannot be understood".to_owned())
    }
}

/// Waits on this thread for calls, for those who have no runtime of their own. They bring their deadlines with them.
///
/// # Errors
/// What the calls say, or the kernel has no descriptor left.
pub fn wait<T>(calls: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| CallError::Failed(error.to_string()))?
        .block_on(calls)
}

// === impl Client ===

impl Client {
    /// Calls a method of the CRI, or of containerd where a namespace is named, and returns the messages of its answer. The
    /// question is a message of [`crate::field`]s.
    ///
    /// Cancel-safe: whatever is left ends with the connection, which nobody uses again.
    ///
    /// # Errors
    /// There is no answer, or it is a refusal.
    pub async fn call(
        &self,
        method: &str,
        namespace: Option<&str>,
        message: &[u8],
        deadline: Deadline,
    ) -> Result<Vec<Bytes>, CallError> {
        let whole = deadline.remaining();
        let stream = match deadline.timeout(UnixStream::connect(&self.socket)).await {
            Err(_) => return Err(CallError::Silent(whole)),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(CallError::Denied(error.to_string()));
            }
            Ok(Err(error)) => return Err(CallError::Down(error.to_string())),
            Ok(Ok(stream)) => stream,
        };
        let answer = deadline.timeout(exchange(stream, method, namespace, message));
        answer.await.unwrap_or(Err(CallError::Silent(whole)))
    }
}

async fn exchange(
    stream: UnixStream,
    method: &str,
    namespace: Option<&str>,
    message: &[u8],
) -> Result<Vec<Bytes>, CallError> {
    let failed = |error: h2::Error| CallError::Failed(error.to_string());
    let (client, connection) = h2::client::handshake(stream).await.map_err(failed)?;
    let call = async {
        let mut client = client.ready().await.map_err(failed)?;
        let mut request = Request::post(format!("http://localhost/{method}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers");
        if let Some(namespace) = namespace {
            request = request.header("containerd-namespace", namespace);
        }
        let request = request
            .body(())
            .map_err(|error| CallError::Failed(error.to_string()))?;
        let (answer, mut send) = client.send_request(request, false).map_err(failed)?;
        send.send_data(framed(message)?, true).map_err(failed)?;
        let (head, mut body) = answer.await.map_err(failed)?.into_parts();
        let mut end = said(&head.headers)?;
        if head.status != StatusCode::OK {
            return Err(CallError::Failed(format!("HTTP status {}", head.status)));
        }
        if !body.is_end_stream() {
            // What was said before the messages says nothing of them.
            end = End::NotSaid;
        }
        let mut bytes = BytesMut::new();
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(failed)?;
            body.flow_control()
                .release_capacity(piece.len())
                .map_err(failed)?;
            bytes.extend_from_slice(&piece);
            if bytes.len() > ANSWER_MAX {
                return Err(CallError::Failed("the answer is too long".to_owned()));
            }
        }
        if let Some(trailers) = body.trailers().await.map_err(failed)? {
            end = said(&trailers)?;
        }
        match end {
            End::Good => messages(bytes.freeze()).ok_or_else(CallError::not_understood),
            End::NotSaid => Err(CallError::Failed("the answer has no end".to_owned())),
        }
    };
    let driven = async {
        drop(connection.await);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // Cancel-safe: whichever is left ends with the connection, which nobody uses again.
        answer = call => answer,
        () = driven => Err(CallError::Failed("the connection was closed".to_owned())),
    }
}

fn framed(message: &[u8]) -> Result<Bytes, CallError> {
    let length = u32::try_from(message.len())
        .map_err(|_| CallError::Failed("the question is too long".to_owned()))?;
    let head = [&[0][..], &length.to_be_bytes()].concat();
    Ok(Bytes::from([&head[..], message].concat()))
}

/// The messages of a body, each behind a flag and a length. None when it is cut off, or packed, which was not asked for.
pub(crate) fn messages(mut body: Bytes) -> Option<Vec<Bytes>> {
    let mut all = Vec::new();
    while !body.is_empty() {
        let (head, _) = body.split_at_checked(HEAD)?;
        let (flag, length) = head.split_first()?;
        let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?;
        if *flag != 0 || body.len() < HEAD + length {
            return None;
        }
        let message = body.split_to(HEAD + length);
        all.push(message.slice(HEAD..));
    }
    Some(all)
}

/// The status of a call stands in its trailers, or in its headers where nothing comes behind them; 0 is good.
fn said(headers: &http::HeaderMap) -> Result<End, CallError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None => Ok(End::NotSaid),
        Some("0") => Ok(End::Good),
        Some(status) => Err(CallError::Refused {
            status: status.parse().unwrap_or(u32::MAX),
            said: text("grpc-message").unwrap_or("-").to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
