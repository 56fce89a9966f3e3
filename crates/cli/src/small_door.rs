//! A listener for a few routes that are no part of the API: bounded connections, a limit on slow heads, an orderly end.
//!
//! The sample apps and the guard have one each. The API and the gateway have doors of their own, which do much more.

use std::io;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nagi_runtime::{Deadline, Shutdown, TaskSet};
use tokio::net::{TcpListener, TcpStream};

/// A head that takes longer than this comes from a client that is broken or hostile.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptors left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a listener is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door {
    /// The name of its tasks.
    pub(crate) name: &'static str,
    /// More connections wait in the kernel's backlog.
    pub(crate) connections_max: usize,
    /// What is running when the process drains may take this long.
    pub(crate) grace: Duration,
    /// Hears of a connection that could not be accepted.
    pub(crate) not_accepted: fn(&io::Error),
}

impl Door {
    /// Serves the routes until the process drains.
    pub(crate) async fn serve(self, listener: TcpListener, router: Router, shutdown: Shutdown) {
        let connections = TaskSet::new(self.name, self.connections_max);
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
                    (self.not_accepted)(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                None => break,
            }
        }
        drop(listener);
        connections.drain(Deadline::in_(self.grace)).await;
    }
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
