//! One request from its arrival at a workload to its answer.
//!
//! A serving replica, or hold and wake; then forward. A request carries one deadline for being held; a replica that
//! cannot be reached sends it back to the same decision with what is left of it.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode};
use nagi_core::id::RequestId;
use nagi_runtime::Deadline;

use crate::answer::{self, Answer, Manner};
use crate::backend::{Admission, Backend, Cause, Release, Turned, Visit, Waiting};
use crate::body::ResponseBody;
use crate::client::Client;
use crate::forward::{Attempt, Outgoing, X_REQUEST_ID, send};
use crate::gateway::Gateway;
use crate::names::status;
use crate::page;
use crate::shared::Shared;
use crate::upstream::{ConnectError, Place};

/// Replicas that one request tries to reach at most; each failure takes one out until a probe reaches it again.
const ATTEMPTS_MAX: u32 = 8;

/// One request on its way.
pub(crate) struct Journey<'a> {
    gateway: &'a Gateway,
    backend: Arc<Backend>,
    client: Client,
    cause: Cause,
    /// Until when it may be held; set when it is held first.
    deadline: Option<Deadline>,
    /// Its id, once it was held.
    request_id: Option<RequestId>,
    /// Its end was counted. A client that goes away ends it without.
    counted: bool,
}

// === impl Journey ===

impl<'a> Journey<'a> {
    pub(crate) fn new(gateway: &'a Gateway, backend: Arc<Backend>, client: Client) -> Self {
        Self {
            gateway,
            backend,
            client,
            cause: Cause::Arrived,
            deadline: None,
            request_id: None,
            counted: false,
        }
    }

    /// The way of a request that wakes and counts.
    pub(crate) async fn run(
        mut self,
        mut outgoing: Box<Outgoing>,
        visit: Visit,
    ) -> Response<ResponseBody> {
        let mut visit = Some(visit);
        for _ in 0..ATTEMPTS_MAX {
            let arrive = || {
                let arrival = outgoing.arrival();
                self.request_id.clone_from(&arrival.request_id);
                arrival
            };
            let place = match self.backend.admit(self.cause, arrive) {
                Admission::Go(place) => place,
                Admission::Turned(why) => return self.turned(&why, outgoing.manner()),
                Admission::Hold(waiting) => match self.hold(waiting, &outgoing).await {
                    Ok(place) => place,
                    Err(answer) => return *answer,
                },
            };
            let upstream = Arc::clone(place.upstream());
            match send(self.gateway.shared(), place, outgoing, visit.take()).await {
                Attempt::Answered(response) => return self.proxied(*response),
                Attempt::Unsent(_, _, ConnectError::Full) => return self.overloaded(),
                Attempt::Unsent(back, counted, error) => {
                    tracing::debug!(replica = %upstream.name, error = %error, "Replica could not be reached");
                    self.backend.refused(&upstream);
                    (outgoing, visit) = (back, counted);
                }
                Attempt::Again(back, counted) => {
                    self.cause = Cause::Broke;
                    (outgoing, visit) = (back, counted);
                }
                Attempt::Broken => return self.broken(),
                Attempt::TimedOut => return self.timed_out(),
                Attempt::BadBody => return self.bad_body(),
            }
        }
        self.broken()
    }

    /// The way of probes and scrapers: forwarded uncounted while a replica serves, answered plainly while none does.
    pub(crate) async fn run_excluded(
        mut self,
        mut outgoing: Box<Outgoing>,
    ) -> Response<ResponseBody> {
        for _ in 0..ATTEMPTS_MAX {
            let Some(place) = self.backend.place() else {
                break;
            };
            match send(self.shared(), place, outgoing, None).await {
                Attempt::Answered(response) => return self.proxied(*response),
                Attempt::Unsent(_, _, _) | Attempt::Broken => return self.broken(),
                Attempt::Again(back, _) => outgoing = back,
                Attempt::TimedOut => return self.timed_out(),
                Attempt::BadBody => return self.bad_body(),
            }
        }
        let view = self.shared().wakes.flight(&self.backend.id);
        let word = answer::word_of(&self.backend, view.as_ref());
        let message = format!(
            "{} does not serve now, and this kind of request does not wake it",
            self.backend.id
        );
        self.refuse(&Answer::new(StatusCode::SERVICE_UNAVAILABLE, word, message))
    }

    /// Waits for a replica. Dropping the future, as hyper does when the client goes, frees the place at once.
    async fn hold(
        &mut self,
        mut waiting: Waiting,
        outgoing: &Outgoing,
    ) -> Result<Place, Box<Response<ResponseBody>>> {
        let manner = outgoing.manner();
        if self.gateway.is_draining() {
            return Err(Box::new(self.turned(&Turned::Stopping, manner)));
        }
        let patience = self.patience(manner);
        let deadline = *self.deadline.get_or_insert_with(|| Deadline::in_(patience));
        let release = tokio::select! {
            // Cancel-safe: says so itself.
            release = waiting.released() => release,
            // Cancel-safe: a timer.
            () = deadline.passed() => return Err(Box::new(self.out_of_time(manner))),
            // Cancel-safe: says so itself.
            () = self.client.gone() => {
                let message = "the client went away";
                let answer = Answer::new(StatusCode::BAD_REQUEST, status::CLIENT_GONE, message).closing();
                return Err(Box::new(self.refuse(&answer)));
            }
        };
        match release {
            Release::Go(place) => Ok(place),
            Release::Turned(why) => Err(Box::new(self.turned(&why, manner))),
        }
    }

    /// How long this request may be held. A browser that has seen the waiting page gets the next one soon, so that the
    /// page follows the stages.
    fn patience(&self, manner: Manner) -> Duration {
        let budget = self.shared().settings.hold.budget;
        let asked = manner.wait.map_or(budget, |wait| wait.min(budget));
        if manner.is_navigation() && self.backend.waking_for() >= budget {
            asked.min(page::REFRESH)
        } else {
            asked
        }
    }

    fn out_of_time(&mut self, manner: Manner) -> Response<ResponseBody> {
        if self.cause == Cause::Broke {
            return self.broken();
        }
        let view = self.shared().wakes.flight(&self.backend.id);
        let answer = answer::still_waking(&self.backend, view.as_ref());
        self.waiting_answer(&answer, manner)
    }

    fn turned(&mut self, why: &Turned, manner: Manner) -> Response<ResponseBody> {
        self.waiting_answer(&answer::turned(why, &self.backend), manner)
    }

    fn waiting_answer(&mut self, answer: &Answer, manner: Manner) -> Response<ResponseBody> {
        self.count(answer.status());
        let view = self.shared().wakes.flight(&self.backend.id);
        self.named(answer::waiting(
            answer,
            manner,
            &self.backend,
            view.as_ref(),
            self.shared().clock.now(),
        ))
    }

    fn proxied(&mut self, response: Response<ResponseBody>) -> Response<ResponseBody> {
        self.count(status::PROXIED);
        response
    }

    fn broken(&mut self) -> Response<ResponseBody> {
        self.refuse(&answer::broken(&self.backend))
    }

    fn bad_body(&mut self) -> Response<ResponseBody> {
        let message =
            "the body of the request cannot be read: its chunks are malformed, or it broke off";
        self.refuse(&Answer::new(StatusCode::BAD_REQUEST, status::BAD_REQUEST, message).closing())
    }

    fn overloaded(&mut self) -> Response<ResponseBody> {
        let message = "too many connections to replicas are open";
        let answer = Answer::new(
            StatusCode::SERVICE_UNAVAILABLE,
            status::UPSTREAM_FAILED,
            message,
        );
        self.refuse(&answer.retry_after(Duration::from_secs(1)))
    }

    fn timed_out(&mut self) -> Response<ResponseBody> {
        let message = format!(
            "a replica of {} did not begin to answer in time",
            self.backend.id
        );
        self.refuse(&Answer::new(
            StatusCode::GATEWAY_TIMEOUT,
            status::UPSTREAM_TIMEOUT,
            message,
        ))
    }

    fn refuse(&mut self, answer: &Answer) -> Response<ResponseBody> {
        self.count(answer.status());
        self.named(answer.render(self.shared().clock.now()))
    }

    /// An answer of our own to a request that was held says under which id log and history know it (R21).
    fn named(&self, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        let id = self.request_id.as_ref();
        // What was accepted as an id always is a value.
        if let Some(id) = id.and_then(|id| HeaderValue::from_str(id.as_str()).ok()) {
            response.headers_mut().insert(X_REQUEST_ID, id);
        }
        response
    }

    fn count(&mut self, result: &'static str) {
        self.counted = true;
        self.shared().metrics.gateway_request(result);
    }

    fn shared(&self) -> &Arc<Shared> {
        self.gateway.shared()
    }
}

impl Drop for Journey<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.count(status::CLIENT_GONE);
        }
    }
}
