//! The life of one connection: requests one after another, then an end that loses no answer.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nagi_runtime::Shutdown;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::Door;
use super::crowd::{Admitted, Phase};
use super::wire::Wire;
use crate::exchange;

/// How long a client gets to take the last answer before the connection is gone for good: a round trip round the world,
/// several times. Closing at once with unread bytes resets the connection, and the answer with it.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes thrown away meanwhile: four times the largest body.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// How the part of hyper ended.
enum End {
    /// Nothing more to say: the client is gone, or was told to go.
    Done,
    /// The client sent no complete head in time.
    HeadTooSlow,
    /// Somebody else needs the place more.
    GiveWay,
    /// hyper answered bytes that it cannot read, or gave up on the connection.
    Refused(Option<StatusCode>),
}

/// Serves one connection until it ends.
pub(super) async fn serve<S>(
    door: Door,
    stream: S,
    peer: IpAddr,
    place: Admitted,
    shutdown: Shutdown,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = tokio::time::Instant::now();
    let wire = Wire::new(stream, Arc::clone(&place.pulse), &door.limits);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        place.pulse.begin(Phase::Busy);
        let pulse = Arc::clone(&place.pulse);
        // hyper asks for a future that may move.
        Box::pin(exchange::serve(door.site.clone(), peer, pulse, request))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The wire says when a half-closed connection counts as closed.
        .half_close(false)
        .header_read_timeout(None)
        .max_buf_size(door.limits.head_bytes_max)
        .serve_connection(TokioIo::new(wire), service);
    let mut draining = false;
    let outcome = loop {
        tokio::select! {
            // Cancel-safe: polls the connection, which keeps its state.
            outcome = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break Some(outcome),
            // Cancel-safe: a permit of Notify is kept until taken.
            () = place.leave.notified() => break None,
            // Cancel-safe: a watch.
            () = shutdown.draining(), if !draining => {
                draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let wire = connection.into_parts().io.into_inner();
    let (phase, _) = place.pulse.get();
    let end = match outcome {
        None => End::GiveWay,
        Some(_) if wire.timed_out() => match phase {
            Phase::Head => End::HeadTooSlow,
            Phase::Idle | Phase::Body | Phase::Busy | Phase::Streaming => End::Done,
        },
        Some(Ok(())) => End::Done,
        Some(Err(error)) => End::Refused(answered_by_hyper(&error)),
    };
    let mut stream = wire.into_stream();
    let status = match end {
        End::GiveWay => return,
        End::Done => None,
        End::HeadTooSlow => {
            answer(&mut stream, "408 Request Timeout").await;
            Some(StatusCode::REQUEST_TIMEOUT)
        }
        End::Refused(Some(StatusCode::HTTP_VERSION_NOT_SUPPORTED)) => {
            answer(&mut stream, "400 Bad Request").await;
            Some(StatusCode::BAD_REQUEST)
        }
        End::Refused(status) => status,
    };
    if let Some(status) = status {
        exchange::bare(&door.site.app, peer, status, begun.elapsed());
    }
    // What is left may be cut short for somebody who has more to say.
    place.pulse.begin(Phase::Idle);
    tokio::select! {
        // Cancel-safe: what is dropped here was to be thrown away.
        () = linger(stream) => {}
        () = place.leave.notified() => {}
    }
}

/// The status of the bare answer that hyper sent, if it sent one. 505 stands for HTTP/2, which it leaves to us.
fn answered_by_hyper(error: &hyper::Error) -> Option<StatusCode> {
    if error.is_parse_version_h2() {
        return Some(StatusCode::HTTP_VERSION_NOT_SUPPORTED);
    }
    if error.is_parse_too_large() {
        return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    error.is_parse().then_some(StatusCode::BAD_REQUEST)
}

/// A bare answer to bytes that made no request.
async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, status: &str) {
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    // A client that reads nothing gets nothing.
    drop(tokio::time::timeout(LINGER, stream.write_all(text.as_bytes())).await);
}

/// Says that nothing more comes, and lets the client finish before the connection goes.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let drained = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut scratch = [0; 4096];
        let mut left = LINGER_BYTES_MAX;
        while let Ok(read) = stream.read(&mut scratch).await {
            left = left.saturating_sub(read);
            if read == 0 || left == 0 {
                return;
            }
        }
    };
    // Time is up or the client is gone: either way the connection ends here.
    drop(tokio::time::timeout(LINGER, drained).await);
}
