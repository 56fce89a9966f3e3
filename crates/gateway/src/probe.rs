//! Finds out at once that a new replica serves, and keeps the connection that found it (DESIGN §6).
//!
//! A refused port is tried every millisecond or two for the first second, then every 20 ms. Once it opens, one
//! connection stays: a replica with a readiness path is asked on it at once, then after 5 ms, doubling to 100 ms; one
//! without has proved enough. The connection goes to the replica's stack of open ones, so the first request travels on
//! it. One prober per replica, only while somebody waits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Limited};
use nagi_core::workload::Readiness;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::body::RequestBody;
use crate::hold::BATCH;
use crate::names;
use crate::upstream::{Sender, Upstream, speak_http};

/// Between attempts while the port is refused, in the first second.
const REFUSED_FAST: Duration = Duration::from_millis(1);
/// How long that pace is kept: processes that open their port at all quickly do so within it.
const FAST_FOR: Duration = Duration::from_secs(1);
/// The pace afterwards, and after errors that say nothing about the port.
const REFUSED_SLOW: Duration = Duration::from_millis(20);
/// An attempt without any answer is given up: the kernel repeats a lost SYN only after 1 s.
const CONNECT_LIMIT: Duration = Duration::from_millis(20);
/// First pause between two questions for readiness, doubling …
const ASK_FIRST: Duration = Duration::from_millis(5);
/// … to this one.
const ASK_LAST: Duration = Duration::from_millis(100);
/// An answer to a readiness question may take so long, as kubelet's default `timeoutSeconds`.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Bytes of such an answer that are read so that the connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What asking on one connection came to.
enum Asked {
    Ready(Sender),
    /// The connection broke.
    Lost,
    /// Nobody wants to know any more, or the engine said it first: the connection is good all the same.
    Unwanted(Sender),
}

/// Probes one replica until it serves or nobody waits.
pub(crate) async fn probe(backend: Arc<Backend>, upstream: Arc<Upstream>) {
    let _probing = Probing {
        backend: &backend,
        upstream: &upstream,
    };
    let began = Instant::now();
    while backend.wants_probe(&upstream) {
        let stream =
            match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(upstream.address)).await {
                Ok(Ok(stream)) if !is_ourselves(&stream) => stream,
                Ok(Err(error)) if error.kind() != io::ErrorKind::ConnectionRefused => {
                    tokio::time::sleep(REFUSED_SLOW).await;
                    continue;
                }
                Ok(Ok(_) | Err(_)) => {
                    let fast = began.elapsed() < FAST_FOR;
                    tokio::time::sleep(if fast { REFUSED_FAST } else { REFUSED_SLOW }).await;
                    continue;
                }
                Err(_elapsed) => continue,
            };
        let Ok(sender) = speak_http(stream, &backend.shared.links).await else {
            tokio::time::sleep(REFUSED_SLOW).await;
            continue;
        };
        let asked = match &upstream.readiness {
            Readiness::Http { path } => ask(&backend, &upstream, path, sender).await,
            Readiness::Tcp | Readiness::Engine => Asked::Ready(sender),
        };
        let idle_max = backend.shared.settings.upstream.idle_connections;
        match asked {
            Asked::Ready(sender) => {
                upstream.give_back(sender, idle_max);
                backend.reached(&upstream, BATCH);
                backend.shared.wakes.served(&backend.id);
                tracing::debug!(
                    namespace = %backend.id.namespace, workload = %backend.id.name, replica = %upstream.name,
                    elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "Replica was reached"
                );
            }
            Asked::Unwanted(sender) => upstream.give_back(sender, idle_max),
            Asked::Lost => tokio::time::sleep(pace(began)).await,
        }
    }
}

/// The pause between two attempts.
fn pace(began: Instant) -> Duration {
    if began.elapsed() < FAST_FOR {
        REFUSED_FAST
    } else {
        REFUSED_SLOW
    }
}

/// A connection to a local port that nobody listens on can meet itself: the kernel may choose the wanted port as the
/// source (TCP simultaneous open). It is closed by reset, so that the port is free for its owner at once.
fn is_ourselves(stream: &TcpStream) -> bool {
    let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else {
        return false;
    };
    let ourselves = local == peer;
    if ourselves {
        // Failing to set it leaves the port in TIME_WAIT, which listeners with SO_REUSEADDR do not mind.
        drop(stream.set_zero_linger());
    }
    ourselves
}

async fn ask(backend: &Backend, upstream: &Arc<Upstream>, path: &str, mut sender: Sender) -> Asked {
    let mut pause = ASK_FIRST;
    loop {
        match ask_once(backend, upstream, path, &mut sender).await {
            Some(true) => return Asked::Ready(sender),
            Some(false) => {}
            None => return Asked::Lost,
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(ASK_LAST);
        if !backend.wants_probe(upstream) {
            return Asked::Unwanted(sender);
        }
    }
}

/// One question. `None` when the connection is of no more use.
async fn ask_once(
    backend: &Backend,
    upstream: &Upstream,
    path: &str,
    sender: &mut Sender,
) -> Option<bool> {
    let host = backend
        .workload()
        .hosts
        .first()
        .map_or_else(|| upstream.address.to_string(), ToString::to_string);
    let (body, _sent) = RequestBody::empty();
    let mut request = Request::get(path).body(body).ok()?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::try_from(host).ok()?);
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(names::PROBE_USER_AGENT),
    );
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    let exchange = async {
        sender.ready().await.ok()?;
        let response = sender.send_request(request).await.ok()?;
        let good = response.status().is_success() || response.status().is_redirection();
        Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .ok()?;
        Some(good)
    };
    tokio::time::timeout(ANSWER_LIMIT, exchange)
        .await
        .ok()
        .flatten()
}

/// Makes room for another prober when this one ends, however it ends.
struct Probing<'a> {
    backend: &'a Backend,
    upstream: &'a Arc<Upstream>,
}

impl Drop for Probing<'_> {
    fn drop(&mut self) {
        self.backend.probe_ended(self.upstream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_to_itself_is_no_replica() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap();
        let itself = socket.connect(port).await.unwrap();
        assert!(is_ourselves(&itself));
        drop(itself);
        let listener = tokio::net::TcpListener::bind(port)
            .await
            .expect("the port is free at once");
        assert!(!is_ourselves(
            &TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap()
        ));
    }
}
