//! Serves a sample app: bounded connections, one line per request on stdout, a graceful end on SIGTERM.
//!
//! The lines are what `nagi logs` shows. It deliberately has no configuration beyond its address.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nagi_runtime::{
    Deadline, Shutdown, SignalError, Supervisor, SupervisorError, TaskSet, Termination,
};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// More connections wait in the kernel's backlog. A demo has a handful; a load test against the gateway pools below this.
const CONNECTIONS_MAX: usize = 1024;
/// A head that takes longer than this comes from a client that is broken or hostile.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// What is running when SIGTERM comes may take this long; below the engine's wait before SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// After a failed accept (no file descriptors left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a sample app ended with an error.
#[derive(Debug, Error)]
pub(crate) enum ServeError {
    /// The port is taken or may not be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot prepare the shutdown")]
    Signals(#[source] SignalError),
    /// The server ended although nobody asked for it.
    #[error("the sample app ended")]
    Ended(#[source] SupervisorError),
}

/// Serves `router` until SIGTERM or SIGINT.
pub(super) async fn run(
    name: &'static str,
    address: SocketAddr,
    router: Router,
) -> Result<(), ServeError> {
    let termination = Termination::listen().map_err(ServeError::Signals)?;
    let failed = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    print_line(&format!("Sample app {name} listens on {address}"));
    let router = router.layer(middleware::from_fn(print_request));
    let mut supervisor = Supervisor::new();
    let shutdown = supervisor.shutdown();
    supervisor.spawn("sample app", accept(listener, router, shutdown));
    supervisor
        .run_until_terminated(termination, GRACE)
        .await
        .map_err(ServeError::Ended)?;
    print_line(&format!("Sample app {name} ends"));
    Ok(())
}

async fn accept(listener: TcpListener, router: Router, shutdown: Shutdown) {
    let connections = TaskSet::new("sample connections", CONNECTIONS_MAX);
    loop {
        let next = async {
            let room = connections.room().await.ok()?;
            Some((room, listener.accept().await))
        };
        let accepted = tokio::select! {
            // Cancel-safe: `room` gives its permit back, `accept` loses no connection.
            accepted = next => accepted,
            // Cancel-safe: a state, not an event.
            () = shutdown.draining() => break,
        };
        match accepted {
            Some((room, Ok((stream, _)))) => {
                room.spawn(connection(stream, router.clone(), shutdown.clone()));
            }
            Some((_, Err(error))) => {
                print_line(&format!("Cannot accept: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None => break,
        }
    }
    drop(listener);
    connections.drain(Deadline::in_(GRACE)).await;
}

async fn connection(stream: TcpStream, router: Router, shutdown: Shutdown) {
    // A sample app without TCP_NODELAY would be measured as Nagi's delay. Failure costs speed only.
    drop(stream.set_nodelay(true));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(served);
    let ended = tokio::select! {
        // Cancel-safe: pinned and polled again below.
        ended = served.as_mut() => ended,
        // Cancel-safe: a state, not an event.
        () = shutdown.draining() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    // The client went away or spoke no HTTP: its problem, and nobody reads about it here.
    drop(ended);
}

async fn print_request(request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let what = format!("{} {}", request.method(), request.uri().path());
    let response = next.run(request).await;
    let millis = begin.elapsed().as_secs_f64() * 1000.0;
    print_line(&format!(
        "{what} {} {millis:.1}ms",
        response.status().as_u16()
    ));
    response
}

fn print_line(line: &str) {
    // Whoever read the output is gone: the app goes on, as a web server would.
    drop(writeln!(io::stdout(), "{line}"));
}

#[cfg(test)]
pub(super) mod tests {
    use axum::body::Body;
    use tower::ServiceExt;

    use super::*;

    /// Calls a router without a socket; returns status and body.
    pub(in crate::sample) async fn call(
        app: &Router,
        method: &str,
        path: &str,
        body: impl Into<Body>,
    ) -> (u16, String) {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(body.into()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }
}
