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
use nagi_runtime::{SignalError, Supervisor, SupervisorError, Termination};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::small_door::Door;

/// More connections wait in the kernel's backlog. A demo has a handful; a load test against the gateway pools below this.
const CONNECTIONS_MAX: usize = 1024;
/// What is running when SIGTERM comes may take this long; below the engine's wait before SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

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
    let door = Door {
        name: "sample connections",
        connections_max: CONNECTIONS_MAX,
        grace: GRACE,
        not_accepted: |error| print_line(&format!("Cannot accept: {error}")),
    };
    supervisor.spawn("sample app", door.serve(listener, router, shutdown));
    supervisor
        .run_until_terminated(termination, GRACE)
        .await
        .map_err(ServeError::Ended)?;
    print_line(&format!("Sample app {name} ends"));
    Ok(())
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
