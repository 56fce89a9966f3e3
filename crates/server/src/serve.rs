//! Listening: connections in, requests to the routes, and an orderly end.
//!
//! One task per connection, owned by a bounded set. [`wire`] puts time limits under hyper, so that a slow client costs
//! a file descriptor and nothing else; [`crowd`] says who gives way when connections run out. When the process drains, no
//! connection is accepted any more, running requests get their time, idle connections end at once.

mod connection;
pub(crate) mod crowd;
pub(crate) mod wire;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nagi_runtime::{Deadline, Room, Shutdown, TaskSet};
use tokio::net::{TcpListener, TcpStream};

use crate::config::Limits;
use crate::exchange::Site;
use crowd::Crowd;

/// Tasks beyond the limit of connections: those that were told to go and are still closing.
const CLOSING_MAX: usize = 64;
/// Pause after a failed accept: long enough not to spin while file descriptors are short, short enough not to be felt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What a client past the limit is told, when no connection could give way.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n";

/// One listener and what stands behind it.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    site: Site,
    limits: Limits,
    crowd: Crowd,
    tasks: TaskSet,
}

impl Door {
    pub(crate) fn new(site: Site, limits: Limits, name: &'static str) -> Self {
        let crowd = Crowd::new(limits.connections_max, limits.connections_per_peer_max);
        let tasks = TaskSet::new(name, limits.connections_max + CLOSING_MAX);
        Self {
            site,
            limits,
            crowd,
            tasks,
        }
    }

    /// Accepts and serves until the process drains, then gives running requests their time.
    pub(crate) async fn serve(self, listener: TcpListener, shutdown: Shutdown) {
        loop {
            let next = async {
                // Room first: those who were told to go are gone in a moment, and newcomers wait in the kernel.
                let room = self.tasks.room().await;
                (room, listener.accept().await)
            };
            let (room, accepted) = tokio::select! {
                // Cancel-safe: a watch; room that is dropped comes back, and an accept loses no connection.
                () = shutdown.draining() => break,
                next = next => next,
            };
            let Ok(room) = room else {
                break;
            };
            match accepted {
                Ok((stream, peer)) => self.take(room, stream, peer, &shutdown),
                Err(error) => self.not_accepted(&error).await,
            }
        }
        // The port is free for the next process before the last request here has ended.
        drop(listener);
        let cut = self
            .tasks
            .drain(Deadline::in_(self.limits.drain_time))
            .await;
        if cut > 0 {
            tracing::warn!(
                connections = cut,
                "Requests were cut at the end of the grace period"
            );
        }
    }

    fn take(&self, room: Room, stream: TcpStream, peer: SocketAddr, shutdown: &Shutdown) {
        // Small answers must not wait for a full segment.
        drop(stream.set_nodelay(true));
        let Some(admitted) = self.crowd.admit(peer.ip()) else {
            // The kernel's buffer is empty, so that this either fits or is not worth waiting for.
            drop(stream.try_write(FULL));
            tracing::warn!(remote_ip = %peer.ip(), "Connection refused, all are busy");
            return;
        };
        let task = connection::serve(self.clone(), stream, peer.ip(), admitted, shutdown.clone());
        room.spawn(task);
    }

    async fn not_accepted(&self, error: &io::Error) {
        tracing::warn!(error = %error, "Connection could not be accepted");
        // Most likely the process has no file descriptor left: make one.
        self.crowd.make_room();
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
