//! The connections of clients: accepted within a limit, served by hyper, watched for a client that goes away.
//!
//! [`Wire`] is a socket that hyper reads and writes while the request's own task can see whether the client has hung
//! up, also when a body waits unread in the socket, where hyper does not look. That is what frees a held request's
//! place at once.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nagi_runtime::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::gateway::Gateway;

/// The socket of one client.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    stream: Arc<TcpStream>,
}

/// One client: where it is, and whether it is still there.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) peer: SocketAddr,
    wire: Wire,
}

/// Serves one connection until it ends or the process drains.
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
        .timer(TokioTimer::new())
        .header_read_timeout(settings.head_timeout)
        .max_headers(settings.headers)
        .max_header_size(settings.head_bytes)
        // A message that hyper parses must fit its buffer with room for the body's first part.
        .max_buf_size(settings.head_bytes.max(MINIMUM_BUFFER))
        .auto_date_header(true);
    let wire = Wire {
        stream: Arc::new(stream),
    };
    let client = Client {
        peer,
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
    let ended = tokio::select! {
        // Cancel-safe: the connection is polled on below.
        ended = connection.as_mut() => ended,
        // Cancel-safe: waiting on a watch channel loses nothing.
        () = shutdown.draining() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(remote_ip = %peer.ip(), error = %error, "Client connection ended with an error");
    }
}

/// hyper asks for at least this buffer.
const MINIMUM_BUFFER: usize = 8192;

// === impl Client ===

impl Client {
    /// Waits until the client has closed its sending side or the connection broke. Cancel-safe.
    pub(crate) async fn gone(&self) {
        // tokio counts "the peer has closed" to this interest too, and urgent data is never sent to HTTP servers;
        // unlike readability, unread body bytes do not fulfil it.
        let ended = self.wire.stream.ready(Interest::PRIORITY).await;
        if let Err(error) = ended {
            tracing::debug!(error = %error, "Client connection broke");
        }
    }
}

// === impl Wire ===

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read_buf(buf) {
                Ok(_) => return Poll::Ready(Ok(())),
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
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
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
        match rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Write) {
            // The client was faster.
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(errno) => Poll::Ready(Err(errno.into())),
        }
    }
}
