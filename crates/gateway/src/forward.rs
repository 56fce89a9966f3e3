//! One exchange with a replica: send, wait for the head of the answer, pass the bodies through.
//!
//! What may be sent again (DESIGN §6): while no byte of a request was written, any request; afterwards only one with an
//! idempotent method (RFC 9110 §9.2.2) and no body, and only while no byte of an answer has come. hyper hands a request
//! back exactly when it did not begin to write it, which is the line between the two.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, Uri, Version, request};
use hyper::body::{Body, Incoming};
use nagi_core::id::RequestId;
use nagi_runtime::random_bits;

use crate::answer::Manner;
use crate::backend::{Arrival, Visit};
use crate::body::{Lease, RequestBody, ResponseBody, Sent};
use crate::client::Client;
use crate::headers::{
    UpgradeTo, add_forwarding, ask_upgrade, foreign_coding, mark_passed, strip_hop_by_hop,
    upgrade_of,
};
use crate::pulse::Pulse;
use crate::settings::Forwarded;
use crate::shared::Shared;
use crate::tunnel;
use crate::upstream::{Checkout, ConnectError, Place};

/// How often a request that was written is sent again after its connection broke: a second break within one exchange
/// is no longer the race with an idle close.
const RESENDS_MAX: u32 = 2;

/// The id that a client or a proxy gave the request, or that it gets when it is held; a wake that it causes is recorded
/// with it, and the replica sees it.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request on its way to a replica.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The head for the replica. Absent only while a message that may not be sent again is under way.
    head: Option<request::Parts>,
    body: Option<Incoming>,
    upgrade: Option<(UpgradeTo, hyper::upgrade::OnUpgrade)>,
    resends: u32,
    pulse: Arc<Pulse>,
}

/// How one attempt ended.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The replica answers.
    Answered(Box<Response<ResponseBody>>),
    /// Nothing was written: this replica cannot be reached. The count of the request comes back with it.
    Unsent(Box<Outgoing>, Option<Visit>, ConnectError),
    /// It was written, no answer came, and it may be sent again.
    Again(Box<Outgoing>, Option<Visit>),
    /// It was written, no answer came, and it may not be sent again.
    Broken,
    /// No answer came in time.
    TimedOut,
    /// The body that the client sends cannot be read.
    BadBody,
}

// === impl Outgoing ===

impl Outgoing {
    /// Takes the request that a client sent for this host.
    pub(crate) fn new(
        mut request: Request<Incoming>,
        client: &Client,
        host: &HeaderValue,
        trust: Forwarded,
    ) -> Self {
        let upgrade = upgrade_of(request.headers())
            .filter(|_| request.version() == Version::HTTP_11 && request.body().is_end_stream())
            .map(|to| (to, hyper::upgrade::on(&mut request)));
        let (mut head, body) = request.into_parts();
        let body = Some(body).filter(|body| !body.is_end_stream());
        strip_hop_by_hop(&mut head.headers);
        // After the stripping, so that `Connection` cannot name what is added here.
        add_forwarding(&mut head.headers, client.peer.ip(), host, trust);
        if let Some((to, _)) = &upgrade {
            ask_upgrade(&mut head.headers, to);
        }
        // hyper takes a GET with a body of unknown length for one without; then the body would be lost.
        if body.is_some() && !head.headers.contains_key(CONTENT_LENGTH) {
            head.headers
                .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        head.extensions.clear();
        head.version = Version::HTTP_11;
        if let Some(target) = head.uri.path_and_query() {
            head.uri = Uri::from(target.clone());
        }
        Self {
            head: Some(head),
            body,
            upgrade,
            resends: 0,
            pulse: Arc::clone(&client.pulse),
        }
    }

    fn may_be_sent_again(&self) -> bool {
        let idempotent = [
            Method::GET,
            Method::HEAD,
            Method::OPTIONS,
            Method::TRACE,
            Method::PUT,
            Method::DELETE,
        ];
        self.body.is_none()
            && self.upgrade.is_none()
            && self.resends < RESENDS_MAX
            && self
                .head
                .as_ref()
                .is_some_and(|head| idempotent.contains(&head.method))
    }

    /// How the client likes to be told that it has to wait.
    pub(crate) fn manner(&self) -> Manner {
        self.head.as_ref().map_or(Manner::PLAIN, |head| {
            Manner::of(&head.method, &head.headers)
        })
    }

    /// What is noted of a request that is held. One that names no id that we take (R21) gets one of ours.
    pub(crate) fn arrival(&mut self) -> Arrival {
        let Some(head) = &mut self.head else {
            return Arrival::default();
        };
        let mut named = head.headers.get_all(X_REQUEST_ID).iter();
        let only = named.next().filter(|_| named.next().is_none());
        let named = only.and_then(|value| RequestId::accept(value.to_str().ok()?));
        let request_id = named.unwrap_or_else(|| {
            let ours = RequestId::from_random(random_bits());
            // Hexadecimal digits always are a value.
            if let Ok(value) = HeaderValue::from_str(ours.as_str()) {
                head.headers.insert(X_REQUEST_ID, value);
            }
            ours
        });
        let fields = head
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4);
        let target = head
            .uri
            .path_and_query()
            .map_or(0, |target| target.as_str().len());
        Arrival {
            head_bytes: fields.sum::<usize>() + target,
            request_id: Some(request_id),
        }
    }

    /// Makes the message. One that may be sent again leaves its head here; of any other, hyper gives it back together
    /// with the body if it did not begin to write.
    fn message(&mut self) -> Option<(Request<RequestBody>, Sent)> {
        let head = if self.may_be_sent_again() {
            self.head.clone()
        } else {
            self.head.take()
        }?;
        let (body, sent) = match self.body.take() {
            Some(incoming) => RequestBody::streamed(incoming, Arc::clone(&self.pulse)),
            None => RequestBody::empty(),
        };
        Some((Request::from_parts(head, body), sent))
    }

    /// Takes back a message of which nothing was written.
    fn take_back(&mut self, message: Request<RequestBody>) {
        let (head, body) = message.into_parts();
        self.head = Some(head);
        self.body = body.into_incoming();
    }
}

/// Sends a request to the replica of `place` and waits for the head of its answer.
///
/// Dropping the future closes the connection to the replica: HTTP/1.1 has no other way to say "no longer wanted".
pub(crate) async fn send(
    shared: &Arc<Shared>,
    place: Place,
    mut outgoing: Box<Outgoing>,
    visit: Option<Visit>,
) -> Attempt {
    let limits = &shared.settings.upstream;
    loop {
        let again = outgoing.may_be_sent_again();
        let checkout = match place.upstream().checkout(limits.idle_timeout).await {
            Some(checkout) => Ok(checkout),
            None => {
                place
                    .upstream()
                    .connect(limits.connect_timeout, &shared.links)
                    .await
            }
        };
        let Checkout { mut sender, reused } = match checkout {
            Ok(checkout) => checkout,
            Err(error) => return Attempt::Unsent(outgoing, visit, error),
        };
        let Some((message, sent)) = outgoing.message() else {
            return Attempt::Broken;
        };
        let due = outgoing.pulse.expect_answer();
        let answer = tokio::select! {
            // Cancel-safe in the sense of this function: what is dropped was not wanted any more.
            answer = sender.try_send_request(message) => answer,
            // Cancel-safe: says so itself.
            () = due.overdue() => return Attempt::TimedOut,
        };
        drop(due);
        match answer {
            Ok(response) => {
                let lease = Lease {
                    sender,
                    place,
                    sent,
                    idle_max: limits.idle_connections,
                };
                return answered(shared, response, lease, *outgoing, visit);
            }
            Err(mut error) => {
                if let Some(message) = error.take_message() {
                    // Not written. A connection that was open before may have died of age; a new one tells more.
                    outgoing.take_back(message);
                    if reused {
                        continue;
                    }
                    return Attempt::Unsent(
                        outgoing,
                        visit,
                        ConnectError::Handshake(error.into_error()),
                    );
                }
                tracing::debug!(
                    replica = %place.upstream().name, error = %error.error(), reused,
                    "Connection broke before an answer"
                );
                if sent.is_unreadable() {
                    return Attempt::BadBody;
                }
                if again {
                    outgoing.resends += 1;
                    return Attempt::Again(outgoing, visit);
                }
                return Attempt::Broken;
            }
        }
    }
}

fn answered(
    shared: &Arc<Shared>,
    response: Response<Incoming>,
    lease: Lease,
    outgoing: Outgoing,
    visit: Option<Visit>,
) -> Attempt {
    if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        // A change of protocol that nobody asked for leaves no way to read what follows.
        let Some((_, client)) = outgoing.upgrade else {
            return Attempt::Broken;
        };
        return tunnel::open(shared, response, lease, client, visit)
            .map_or(Attempt::Broken, |response| {
                Attempt::Answered(Box::new(response))
            });
    }
    if foreign_coding(response.headers()).is_some() {
        // It was not asked for (RFC 9110 §10.1.4), and the client could not know of it.
        return Attempt::Broken;
    }
    let (mut head, incoming) = response.into_parts();
    strip_hop_by_hop(&mut head.headers);
    mark_passed(&mut head.headers);
    head.version = Version::HTTP_11;
    head.extensions.clear();
    let body = ResponseBody::proxied(incoming, lease, visit);
    Attempt::Answered(Box::new(Response::from_parts(head, body)))
}
