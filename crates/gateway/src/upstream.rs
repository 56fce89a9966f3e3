//! One replica as the gateway reaches it: its address, its open connections, what runs on it now.
//!
//! Connections are hyper's HTTP/1.1 client connections. Those without a request wait here, newest first, so that a
//! burst's surplus ages out. A connection is given back only after request and answer both ended; hyper closes it in
//! every other case, so no byte of one exchange can reach another.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nagi_core::id::ReplicaName;
use nagi_core::workload::Readiness;
use nagi_runtime::TaskSet;
use nagi_telemetry::{CountGuard, Metrics};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::body::RequestBody;

/// How long a connection that was given back may take to be ready again. Both messages have ended, so it only waits
/// for its task to run; past this it is not worth waiting for.
const READY_WAIT: Duration = Duration::from_millis(50);

/// The sending side of one connection.
pub(crate) type Sender = http1::SendRequest<RequestBody>;

/// Why no connection could be made.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error("no answer to the connection attempt in time")]
    Timeout,
    #[error("too many connections to replicas are open")]
    Full,
    #[error("cannot speak HTTP on the connection")]
    Handshake(#[source] hyper::Error),
}

/// One replica.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) name: ReplicaName,
    pub(crate) address: SocketAddr,
    pub(crate) readiness: Readiness,
    in_flight: AtomicUsize,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since: Instant,
}

/// One request's place on a replica: it counts there until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    upstream: Arc<Upstream>,
    _gauge: CountGuard,
}

/// A connection to send one request on.
#[derive(Debug)]
pub(crate) struct Checkout {
    pub(crate) sender: Sender,
    /// It carried a request before, so the replica may be closing it at this moment.
    pub(crate) reused: bool,
}

// === impl Upstream ===

impl Upstream {
    pub(crate) fn new(name: ReplicaName, address: SocketAddr, readiness: Readiness) -> Arc<Self> {
        Arc::new(Self {
            name,
            address,
            readiness,
            in_flight: AtomicUsize::new(0),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Requests on it now.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Takes a place.
    pub(crate) fn enter(self: &Arc<Self>, metrics: &Metrics) -> Place {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Place {
            upstream: Arc::clone(self),
            _gauge: metrics.gateway_in_flight(),
        }
    }

    /// An open connection that has no request, if there is one younger than `age_max`.
    pub(crate) async fn checkout(&self, age_max: Duration) -> Option<Checkout> {
        loop {
            let Idle { mut sender, since } = self.lock().pop()?;
            if since.elapsed() > age_max {
                // The stack grows younger towards the top: all below are older.
                self.clear();
                return None;
            }
            if sender.is_closed() {
                continue;
            }
            if sender.is_ready()
                || tokio::time::timeout(READY_WAIT, sender.ready())
                    .await
                    .is_ok_and(|r| r.is_ok())
            {
                return Some(Checkout {
                    sender,
                    reused: true,
                });
            }
        }
    }

    /// Puts a connection without a request back, unless there are enough.
    pub(crate) fn give_back(&self, sender: Sender, idle_max: usize) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.lock();
        if idle.len() < idle_max {
            idle.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }

    /// Closes connections without a request that are older than `age_max`.
    pub(crate) fn sweep(&self, age_max: Duration) {
        let old: Vec<Idle> = {
            let mut idle = self.lock();
            let first_young = idle.partition_point(|i| i.since.elapsed() > age_max);
            idle.drain(..first_young).collect()
        };
        drop(old);
    }

    /// Closes every connection without a request.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.lock());
        drop(all);
    }

    /// Connections without a request that the replica has not closed.
    #[cfg(test)]
    pub(crate) fn idle_open(&self) -> usize {
        self.lock()
            .iter()
            .filter(|idle| !idle.sender.is_closed())
            .count()
    }

    /// Opens a new connection.
    pub(crate) async fn connect(
        &self,
        timeout: Duration,
        tasks: &TaskSet,
    ) -> Result<Checkout, ConnectError> {
        let stream = tokio::time::timeout(timeout, TcpStream::connect(self.address))
            .await
            .map_err(|_elapsed| ConnectError::Timeout)?
            .map_err(ConnectError::Connect)?;
        let sender = speak_http(stream, tasks).await?;
        Ok(Checkout {
            sender,
            reused: false,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        // No section leaves the stack half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes an HTTP/1.1 client connection of an open one; its task is owned by `tasks`. Nothing is sent yet.
pub(crate) async fn speak_http(stream: TcpStream, tasks: &TaskSet) -> Result<Sender, ConnectError> {
    // A small request must not wait for the answer to an earlier one's last segment.
    stream.set_nodelay(true).map_err(ConnectError::Connect)?;
    let (sender, connection) = http1::Builder::new()
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ConnectError::Handshake)?;
    let task = async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(error = %error, "Connection to a replica ended with an error");
        }
    };
    tasks.try_spawn(task).map_err(|_full| ConnectError::Full)?;
    Ok(sender)
}

// === impl Place ===

impl Place {
    pub(crate) fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.upstream.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
