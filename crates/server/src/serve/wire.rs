//! Time limits under hyper: a stream that fails when its client takes too long (R23).
//!
//! hyper asks to read while it waits for a head or a body, and to write while an answer goes out. Here each of these
//! waits gets its end: a head must be complete in its time however slowly bytes trickle in, an idle connection may wait longer, a
//! client that takes nothing of its answer is cut. The pace of bodies is judged where bodies are read. A half-closed
//! connection is open while a request is answered, and closed while a stream goes out that would never end.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::crowd::{Phase, Pulse};

/// A stream with limits.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    pulse: Arc<Pulse>,
    head_time: Duration,
    idle: Duration,
    write_time: Duration,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Pin<Box<Sleep>>,
    write_waits: bool,
    timed_out: bool,
    kept_back: bool,
    /// The last bytes that were read.
    tail: [u8; 4],
}

impl<S> Wire<S> {
    pub(crate) fn new(stream: S, pulse: Arc<Pulse>, limits: &crate::config::Limits) -> Self {
        let now = Instant::now();
        Self {
            stream,
            pulse,
            head_time: limits.head_time,
            idle: limits.idle,
            write_time: limits.write_time,
            read_timer: Box::pin(sleep_until(now)),
            write_timer: Box::pin(sleep_until(now)),
            write_waits: false,
            timed_out: false,
            kept_back: false,
            tail: [0; 4],
        }
    }

    /// True when a read failed here because its time was over.
    pub(crate) fn timed_out(&self) -> bool {
        self.timed_out
    }

    /// True when hyper refused what it read and its empty answer did not go out: the caller has a better one.
    pub(crate) fn kept_back(&self) -> bool {
        self.kept_back
    }

    /// Whether this write is hyper's own refusal, which nobody is to see. No answer of ours looks like it: ours with these
    /// statuses have a body. One that hyper sends together with the rest of an earlier answer goes out as it is.
    fn keeps_back(&mut self, bytes: &[u8]) -> bool {
        let between_requests = matches!(self.pulse.get().0, Phase::Idle | Phase::Head);
        if between_requests && is_empty_refusal(bytes) {
            self.kept_back = true;
        }
        self.kept_back
    }

    /// The stream without its limits.
    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    /// Until when the client may take for what it is doing.
    fn read_deadline(&self) -> Option<Instant> {
        let (phase, since) = self.pulse.get();
        match phase {
            Phase::Idle => Some(since + self.idle),
            Phase::Head => Some(since + self.head_time),
            Phase::Body | Phase::Busy | Phase::Streaming => None,
        }
    }

    /// Keeps the end of what was read.
    fn keep_tail(&mut self, read: &[u8]) {
        for byte in read.iter().skip(read.len().saturating_sub(self.tail.len())) {
            self.tail.rotate_left(1);
            self.tail[3] = *byte;
        }
    }

    /// A read that waits: how long may it?
    fn wait_to_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The beginning of the next head may have come together with a request before it, and waits in hyper since.
        if self.pulse.ended_with_head() && self.tail != *b"\r\n\r\n" {
            self.pulse.turn(Phase::Idle, Phase::Head);
        }
        let deadline = self.read_deadline().or_else(|| {
            // The next phase may have a limit. Asked again once it is sure to wake this task, so that none is missed.
            self.pulse.wake_at_next(cx);
            self.read_deadline()
        });
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        if self.read_timer.deadline() != deadline {
            self.read_timer.as_mut().reset(deadline);
        }
        if self.read_timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.timed_out = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// A write that waits or has gone on: how long may it still?
    fn judge_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_waits = false;
            return written;
        }
        if !self.write_waits {
            self.write_waits = true;
            let deadline = Instant::now() + self.write_time;
            self.write_timer.as_mut().reset(deadline);
        }
        if self.write_timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                let this = &mut *self;
                this.keep_tail(buffer.filled().get(before..).unwrap_or_default());
                // The first byte after a pause begins a head.
                self.pulse.turn(Phase::Idle, Phase::Head);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(())) => {
                self.pulse.wake_at_next(cx);
                match self.pulse.get().0 {
                    // A client that has sent its request and closed its half still wants the answer.
                    Phase::Busy => Poll::Pending,
                    Phase::Idle | Phase::Head | Phase::Body | Phase::Streaming => {
                        Poll::Ready(Ok(()))
                    }
                }
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.wait_to_read(cx),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.keeps_back(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [bytes] = slices
            && self.keeps_back(bytes)
        {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge_write(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// One whole answer with a status of 4xx and nothing in it.
fn is_empty_refusal(bytes: &[u8]) -> bool {
    let after = |version: &[u8]| bytes.strip_prefix(version);
    let Some(head) = after(b"HTTP/1.1 4")
        .or_else(|| after(b"HTTP/1.0 4"))
        .and_then(|rest| rest.strip_suffix(b"\r\n\r\n"))
    else {
        return false;
    };
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let only_one = !head.windows(4).any(|four| four == b"\r\n\r\n");
    only_one && lines.any(|line| line.eq_ignore_ascii_case(b"content-length: 0"))
}
