//! Bodies on their way through: streamed, never gathered, and counted to their last byte.
//!
//! [`RequestBody`] tells when all of it was sent, [`ResponseBody`] carries what must live until the client has the
//! answer: the count of the request, its place on the replica, and the connection, which goes back for reuse.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::backend::Visit;
use crate::pulse::Pulse;
use crate::upstream::{Place, Sender};

/// The body of a request towards a replica: the client's, or none.
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
    sent: Sent,
    /// Notes when the client leaves the replica waiting for more.
    pulse: Option<Arc<Pulse>>,
}

/// Tells whether a request body was sent to its end. Without a body there is nothing to send.
#[derive(Debug, Clone)]
pub(crate) struct Sent(Option<Arc<Progress>>);

#[derive(Debug, Default)]
struct Progress {
    whole: AtomicBool,
    unreadable: AtomicBool,
}

/// The body of an answer: the replica's, or one of ours.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    kind: Kind,
    /// Counts the request until its answer has ended.
    visit: Option<Visit>,
    /// The client connection that is free for its next request afterwards.
    pulse: Option<Arc<Pulse>>,
}

#[derive(Debug)]
enum Kind {
    Own(Option<Bytes>),
    Proxied {
        incoming: Incoming,
        lease: Option<Lease>,
    },
}

/// A connection in use by one exchange.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) sender: Sender,
    pub(crate) place: Place,
    pub(crate) sent: Sent,
    pub(crate) idle_max: usize,
}

// === impl RequestBody ===

impl RequestBody {
    /// No body.
    pub(crate) fn empty() -> (Self, Sent) {
        (
            Self {
                incoming: None,
                sent: Sent(None),
                pulse: None,
            },
            Sent(None),
        )
    }

    /// The client's body.
    pub(crate) fn streamed(incoming: Incoming, pulse: Arc<Pulse>) -> (Self, Sent) {
        let sent = Sent(Some(Arc::default()));
        (
            Self {
                incoming: Some(incoming),
                sent: sent.clone(),
                pulse: Some(pulse),
            },
            sent,
        )
    }

    /// The client's body again, when nothing of it was read.
    pub(crate) fn into_incoming(self) -> Option<Incoming> {
        self.incoming
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self {
            incoming,
            sent,
            pulse,
        } = &mut *self;
        let Some(incoming) = incoming else {
            return Poll::Ready(None);
        };
        let poll = Pin::new(&mut *incoming).poll_frame(cx);
        if let Some(pulse) = pulse {
            pulse.body_moved(poll.is_pending());
        }
        let frame = ready!(poll);
        match &frame {
            Some(Err(_)) => sent.mark(|progress| &progress.unreadable),
            None => sent.mark(|progress| &progress.whole),
            Some(Ok(_)) if incoming.is_end_stream() => sent.mark(|progress| &progress.whole),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Sent {
    fn mark(&self, which: impl Fn(&Progress) -> &AtomicBool) {
        if let Some(progress) = &self.0 {
            which(progress).store(true, Ordering::Release);
        }
    }

    fn is_whole(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|progress| progress.whole.load(Ordering::Acquire))
    }

    /// The client sent something that is no body, or went away.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|progress| progress.unreadable.load(Ordering::Acquire))
    }
}

// === impl ResponseBody ===

impl ResponseBody {
    /// An answer of ours.
    pub(crate) fn own(bytes: impl Into<Bytes>) -> Self {
        Self {
            kind: Kind::Own(Some(bytes.into())),
            visit: None,
            pulse: None,
        }
    }

    /// No body.
    pub(crate) fn empty() -> Self {
        Self {
            kind: Kind::Own(None),
            visit: None,
            pulse: None,
        }
    }

    /// The replica's answer.
    pub(crate) fn proxied(incoming: Incoming, lease: Lease, visit: Option<Visit>) -> Self {
        let mut body = Self {
            kind: Kind::Proxied {
                incoming,
                lease: Some(lease),
            },
            visit,
            pulse: None,
        };
        if body.is_end_stream() {
            // The count stays until the head is on its way.
            body.free_connection();
        }
        body
    }

    /// Marks the client connection as idle once this answer has ended.
    pub(crate) fn then_idle(&mut self, pulse: Arc<Pulse>) {
        self.pulse = Some(pulse);
    }

    /// Both messages have ended: the connection is free and the request no longer counts.
    fn finish(&mut self) {
        self.free_connection();
        self.visit = None;
    }

    fn free_connection(&mut self) {
        if let Kind::Proxied { lease, .. } = &mut self.kind
            && let Some(Lease {
                sender,
                place,
                sent,
                idle_max,
            }) = lease.take()
            && sent.is_whole()
        {
            place.upstream().give_back(sender, idle_max);
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(pulse) = &self.pulse {
            pulse.idle();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.kind {
            Kind::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Proxied { incoming, .. } => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                if frame.is_none() || incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own(bytes) => bytes.is_none(),
            Kind::Proxied { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
            Kind::Proxied { incoming, .. } => incoming.size_hint(),
        }
    }
}
