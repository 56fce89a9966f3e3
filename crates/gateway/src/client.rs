//! The connections of clients: accepted within a limit, served by hyper, watched for a client that goes away.
//!
//! [`Wire`] is a socket that hyper reads and writes while the request's own task can see whether the client has hung
//! up, also when a body waits unread in the socket, where hyper does not look. That is what frees a held request's
//! place at once.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nagi_runtime::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::framing::HeadScan;
use crate::gateway::Gateway;
use crate::pulse::Pulse;

/// The socket of one client.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    inner: Arc<WireInner>,
}

#[derive(Debug)]
struct WireInner {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    scan: Mutex<HeadScan>,
}

/// One client: where it is, and whether it is still there.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) peer: SocketAddr,
    pub(crate) pulse: Arc<Pulse>,
    wire: Wire,
}

/// Serves one connection until it ends, stands still for too long, or the process drains.
pub(crate) async fn serve(
    gateway: Gateway,
    stream: TcpStream,
    peer: SocketAddr,
    shutdown: Shutdown,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "Client connection was gone at once");
        return;
    }
    let settings = &gateway.shared().settings.client;
    let mut builder = http1::Builder::new();
    builder
        .max_headers(settings.headers)
        .max_header_size(settings.head_bytes)
        .max_buf_size(settings.head_bytes.max(MINIMUM_BUFFER));
    let pulse = gateway.shared().pulses.enter();
    let scan = Mutex::new(HeadScan::new());
    let wire = Wire {
        inner: Arc::new(WireInner {
            stream,
            pulse: Arc::clone(&pulse),
            scan,
        }),
    };
    let client = Client {
        peer,
        pulse: Arc::clone(&pulse),
        wire: wire.clone(),
    };
    let service = service_fn(move |request| {
        let (gateway, client) = (gateway.clone(), client.clone());
        async move { Ok::<_, std::convert::Infallible>(gateway.answer(request, client).await) }
    });
    let connection = builder
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut draining = false;
    loop {
        tokio::select! {
            // Cancel-safe: the connection is polled on in the next round.
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(remote_ip = %peer.ip(), error = %error, "Client connection ended with an error");
                }
                return;
            }
            // Cancel-safe: waiting on a watch channel loses nothing.
            () = shutdown.draining(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            // Cancel-safe: says so itself.
            () = pulse.cut() => {
                tracing::debug!(remote_ip = %peer.ip(), "Client connection stood still and was cut");
                return;
            }
        }
    }
}

/// hyper asks for at least this buffer.
const MINIMUM_BUFFER: usize = 8192;

// === impl Client ===

impl Client {
    /// The head that was just parsed named its length in two ways.
    pub(crate) fn take_framing_conflict(&self) -> bool {
        self.wire.inner.scan().take_conflict()
    }

    /// Waits until the client has closed its sending side or the connection broke. Cancel-safe.
    pub(crate) async fn gone(&self) {
        // tokio counts "the peer has closed" to this interest too, and urgent data is never sent to HTTP servers;
        // unlike readability, unread body bytes do not fulfil it.
        let ended = self.wire.inner.stream.ready(Interest::PRIORITY).await;
        if let Err(error) = ended {
            tracing::debug!(error = %error, "Client connection broke");
        }
    }
}

// === impl Wire ===

impl WireInner {
    fn scan(&self) -> MutexGuard<'_, HeadScan> {
        // Feeding cannot panic half-way; were it to, the scan is only a second look.
        self.scan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do with the result of a write that did not block, or that did.
    fn wrote(&self, result: &io::Result<usize>) -> bool {
        let blocked = matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.pulse.set_write_blocked(blocked);
        !blocked
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let WireInner { stream, pulse, .. } = &*self.inner;
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let before = buf.filled().len();
            match stream.try_read_buf(buf) {
                Ok(count) => {
                    if count > 0 && pulse.reads_head() {
                        self.inner
                            .scan()
                            .feed(buf.filled().get(before..).unwrap_or_default());
                        pulse.received();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.inner.stream.poll_write_ready(cx))?;
            let result = self.inner.stream.try_write(bytes);
            if self.inner.wrote(&result) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.inner.stream.poll_write_ready(cx))?;
            let result = self.inner.stream.try_write_vectored(slices);
            if self.inner.wrote(&result) {
                return Poll::Ready(result);
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(&self.inner.stream, rustix::net::Shutdown::Write) {
            // The client was faster.
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(errno) => Poll::Ready(Err(errno.into())),
        }
    }
}
