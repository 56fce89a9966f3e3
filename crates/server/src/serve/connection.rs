//! The life of one connection: requests one after another, then an end that loses no answer.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nagi_runtime::Shutdown;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::Door;
use super::crowd::{Admitted, Phase};
use super::wire::Wire;
use crate::config::Limits;
use crate::exchange;
use crate::problem::Problem;

/// How long a client gets to take the last answer before the connection is gone for good: a round trip round the world,
/// several times. Closing at once with unread bytes resets the connection, and the answer with it.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes thrown away meanwhile: four times the largest body.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// How the part of hyper ended.
enum End {
    /// Nothing more to say: the client is gone, or was told to go.
    Done,
    /// Somebody else needs the place more.
    GiveWay,
    /// What came made no request.
    Refused {
        problem: Problem,
        /// hyper has answered it in its own way.
        answered: bool,
    },
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
        place.pulse.take_request(request.body().is_end_stream());
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
            Phase::Head => End::Refused {
                problem: too_slow(&door.limits),
                answered: false,
            },
            Phase::Idle | Phase::Body | Phase::Busy | Phase::Streaming => End::Done,
        },
        Some(Ok(())) => End::Done,
        Some(Err(error)) => refused(&error, &wire, &door.limits),
    };
    let mut stream = wire.into_stream();
    match end {
        End::GiveWay => return,
        End::Done => {}
        End::Refused { problem, answered } => {
            let answer = exchange::bare(&door.site.app, peer, &problem, begun.elapsed());
            if !answered {
                // A client that reads nothing gets nothing.
                drop(tokio::time::timeout(LINGER, stream.write_all(&answer)).await);
            }
        }
    }
    // What is left may be cut short for somebody who has more to say.
    place.pulse.begin(Phase::Idle);
    tokio::select! {
        // Cancel-safe: what is dropped here was to be thrown away.
        () = linger(stream) => {}
        () = place.leave.notified() => {}
    }
}

/// What to say of bytes that hyper cannot read; `Done` when it only gave up on the connection.
fn refused<S>(error: &hyper::Error, wire: &Wire<S>, limits: &Limits) -> End {
    let problem = if error.is_parse_too_large() {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Problem::new(status, "Request head too large")
            .error("request line and headers are larger than this server reads")
            .field("head", &format!("at most {} bytes", limits.head_bytes_max))
    } else if error.is_parse() || error.is_parse_version_h2() {
        Problem::new(StatusCode::BAD_REQUEST, "Invalid request")
            .error(&format!("this is no HTTP/1.1 request: {error}"))
            .field(
                "head",
                "a request of HTTP/1.1; neither TLS nor HTTP/2 is spoken on this port",
            )
    } else {
        return End::Done;
    };
    // HTTP/2 is left to whoever speaks it.
    let answered = !error.is_parse_version_h2() && !wire.kept_back();
    End::Refused { problem, answered }
}

fn too_slow(limits: &Limits) -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "Request timeout")
        .error("the head of the request was not complete in time")
        .field(
            "head",
            &format!("complete within {} s", limits.head_time.as_secs()),
        )
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
