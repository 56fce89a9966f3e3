//! The gateway: what happens to one request, from its head to the end of its answer.
//!
//! Route → may it wake? → count → a serving replica, or hold and wake → forward. Each request carries one deadline for
//! being held; a replica that cannot be reached sends it back to the same decision, with what is left of it.

use std::sync::Arc;
use std::time::Duration;

use http::header::EXPECT;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use nagi_ports::{Clock, Workloads};
use nagi_runtime::{Deadline, Shutdown, TaskSet};
use nagi_telemetry::Metrics;
use nagi_wake::Wakes;
use thiserror::Error;
use tokio::net::TcpListener;

use crate::answer::{self, Answer, Manner};
use crate::backend::{Admission, Backend, Release, Turned, Visit, Waiting};
use crate::body::ResponseBody;
use crate::client::{self, Client};
use crate::exclusion::excludes;
use crate::forward::{Attempt, Outgoing, send};
use crate::headers::hops;
use crate::host::host_of;
use crate::names::{STATUS_PATH, status};
use crate::page;
use crate::route::{Route, Routes};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::upstream::ConnectError;

/// A request that passed this many gateways of ours runs in a circle.
const HOPS_MAX: usize = 4;
/// Replicas that one request tries to reach at most; each failure takes one out until a probe reaches it again.
const ATTEMPTS_MAX: u32 = 8;
/// Pause after an accept that failed for want of descriptors: an immediate retry would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the gateway cannot serve.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// The listener is unusable.
    #[error("cannot use the gateway's listener")]
    Listener(#[source] std::io::Error),
}

/// The gateway. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    routes: Routes,
    workloads: Arc<dyn Workloads>,
    clients: TaskSet,
    shutdown: Shutdown,
}

// === impl Gateway ===

impl Gateway {
    /// A gateway in front of `workloads` that serves nothing until [`Gateway::serve`] runs.
    pub fn new(
        workloads: Arc<dyn Workloads>,
        wakes: Wakes,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        settings: Settings,
        shutdown: Shutdown,
    ) -> Self {
        let clients = TaskSet::new("gateway clients", settings.client.connections);
        let shared = Shared::new(settings, wakes, clock, metrics);
        let routes = Routes::new(Arc::clone(&shared));
        Self {
            inner: Arc::new(Inner {
                shared,
                routes,
                workloads,
                clients,
                shutdown,
            }),
        }
    }

    /// Keeps the routes current until the process has stopped serving. Run exactly one.
    pub async fn follow(&self) {
        self.inner
            .routes
            .follow(&*self.inner.workloads, &self.inner.shutdown)
            .await;
    }

    /// Accepts connections until the process drains, then finishes what is in flight within the grace period: held
    /// requests are told at once, idle connections closed, the rest cut at the end of it.
    ///
    /// # Errors
    /// The listener is unusable.
    pub async fn serve(&self, listener: TcpListener) -> Result<(), GatewayError> {
        listener.local_addr().map_err(GatewayError::Listener)?;
        tokio::select! {
            // Not cancelled here: the other branch never ends.
            () = self.serve_until_drained(listener) => Ok(()),
            // Cancel-safe: it only ticks.
            () = self.shared().pulses.run() => Ok(()),
        }
    }

    async fn serve_until_drained(&self, listener: TcpListener) {
        let shutdown = &self.inner.shutdown;
        tokio::select! {
            // Cancel-safe: a connection that was not accepted stays in the backlog and is reset with the listener.
            () = self.accept(&listener) => {}
            // Cancel-safe: waiting on a watch channel loses nothing.
            () = shutdown.draining() => {}
        }
        drop(listener);
        for backend in self.inner.routes.backends() {
            backend.turn_all(&Turned::Stopping);
        }
        let deadline = Deadline::in_(self.shared().settings.grace);
        let clients = self.inner.clients.drain(deadline).await;
        let tunnels = self.shared().tunnels.drain(deadline).await;
        if clients + tunnels > 0 {
            tracing::warn!(
                clients,
                tunnels,
                "Connections were cut at the end of the grace period"
            );
        }
        self.shared().drivers.drain(deadline).await;
        self.shared()
            .links
            .drain(Deadline::in_(Duration::ZERO))
            .await;
    }

    async fn accept(&self, listener: &TcpListener) {
        loop {
            // Beyond the limit clients wait in the kernel's backlog.
            let Ok(room) = self.inner.clients.room().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    room.spawn(client::serve(
                        self.clone(),
                        stream,
                        peer,
                        self.inner.shutdown.clone(),
                    ));
                }
                Err(error) => {
                    tracing::warn!(error = %error, "Connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.inner.routes
    }

    /// Answers one request.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        client: Client,
    ) -> Response<ResponseBody> {
        let pulse = Arc::clone(&client.pulse);
        pulse.busy();
        let mut response = match self.route(&request, &client) {
            Ok((backend, host)) => self.pass(request, client, backend, &host).await,
            Err(answer) => self.refuse(&answer),
        };
        response.body_mut().then_idle(pulse);
        response
    }

    /// Passes a request on to its workload.
    async fn pass(
        &self,
        request: Request<Incoming>,
        client: Client,
        backend: Arc<Backend>,
        host: &HeaderValue,
    ) -> Response<ResponseBody> {
        if request.uri().path() == STATUS_PATH {
            let view = self.shared().wakes.flight(&backend.id);
            return answer::status_of(&backend, view.as_ref(), self.shared().clock.now());
        }
        tracing::debug!(
            namespace = %backend.id.namespace, workload = %backend.id.name, method = %request.method(),
            "Request arrived"
        );
        let settings = &self.shared().settings;
        let excluded = excludes(&settings.excluded, request.headers());
        let visit = (!excluded).then(|| backend.enter());
        let manner = Manner::of(request.method(), request.headers());
        let head_bytes = head_bytes(&request);
        let outgoing = Outgoing::new(request, &client, host, settings.client.forwarded);
        let outgoing = Box::new(outgoing);
        let journey = Journey {
            gateway: self,
            backend,
            client,
            manner,
            head_bytes,
            deadline: None,
        };
        match visit {
            Some(visit) => journey.run(outgoing, visit).await,
            None => journey.run_excluded(outgoing).await,
        }
    }

    fn route(
        &self,
        request: &Request<Incoming>,
        client: &Client,
    ) -> Result<(Arc<Backend>, HeaderValue), Answer> {
        let bad = |message: &str| {
            Answer::new(StatusCode::BAD_REQUEST, status::BAD_REQUEST, message).closing()
        };
        if client.take_framing_conflict() {
            return Err(bad(
                "the request names its length twice, by Content-Length and Transfer-Encoding",
            ));
        }
        if *request.method() == Method::CONNECT {
            let message = "CONNECT is not served: the gateway is no forward proxy";
            return Err(
                Answer::new(StatusCode::NOT_IMPLEMENTED, status::BAD_REQUEST, message).closing(),
            );
        }
        if hops(request.headers()) >= HOPS_MAX {
            let message = "the request runs in a circle through the gateway";
            return Err(Answer::new(
                StatusCode::LOOP_DETECTED,
                status::BAD_REQUEST,
                message,
            ));
        }
        if let Some(expected) = request.headers().get(EXPECT)
            && !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")
        {
            let message = "no expectation but 100-continue can be met";
            return Err(Answer::new(
                StatusCode::EXPECTATION_FAILED,
                status::BAD_REQUEST,
                message,
            ));
        }
        let host =
            host_of(request.uri(), request.headers()).map_err(|error| bad(&error.to_string()))?;
        match self.inner.routes.find(&host.key) {
            Route::To(backend) => Ok((backend, host.sent)),
            Route::Unknown => Err(Answer::new(
                StatusCode::NOT_FOUND,
                status::UNKNOWN_HOST,
                "no workload is served under this host",
            )),
            Route::NotLoaded => Err(Answer::new(
                StatusCode::SERVICE_UNAVAILABLE,
                status::STARTING,
                "the gateway is starting and does not know its workloads yet",
            )
            .retry_after(Duration::from_secs(1))),
        }
    }

    fn refuse(&self, answer: &Answer) -> Response<ResponseBody> {
        self.shared().metrics.gateway_request(answer.status());
        answer.render(self.shared().clock.now())
    }
}

/// One request on its way.
struct Journey<'a> {
    gateway: &'a Gateway,
    backend: Arc<Backend>,
    client: Client,
    manner: Manner,
    head_bytes: usize,
    /// Until when it may be held; set when it is held first.
    deadline: Option<Deadline>,
}

// === impl Journey ===

impl Journey<'_> {
    async fn run(mut self, mut outgoing: Box<Outgoing>, visit: Visit) -> Response<ResponseBody> {
        let mut visit = Some(visit);
        for _ in 0..ATTEMPTS_MAX {
            let place = match self.backend.admit(self.head_bytes) {
                Admission::Go(place) => place,
                Admission::Turned(why) => return self.turned(&why),
                Admission::Hold(waiting) => match self.hold(waiting).await {
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
                Attempt::Again(back, counted) => (outgoing, visit) = (back, counted),
                Attempt::Broken => return self.broken(),
                Attempt::TimedOut => return self.timed_out(),
            }
        }
        self.broken()
    }

    /// Probes and scrapers: forwarded uncounted while a replica serves, answered plainly while none does.
    async fn run_excluded(self, mut outgoing: Box<Outgoing>) -> Response<ResponseBody> {
        for _ in 0..ATTEMPTS_MAX {
            let Some(place) = self.backend.place() else {
                break;
            };
            match send(self.gateway.shared(), place, outgoing, None).await {
                Attempt::Answered(response) => return self.proxied(*response),
                Attempt::Unsent(_, _, _) | Attempt::Broken => return self.broken(),
                Attempt::Again(back, _) => outgoing = back,
                Attempt::TimedOut => return self.timed_out(),
            }
        }
        let view = self.gateway.shared().wakes.flight(&self.backend.id);
        let word = answer::word_of(&self.backend, view.as_ref());
        let message = format!(
            "{} does not serve now, and this kind of request does not wake it",
            self.backend.id
        );
        self.gateway
            .refuse(&Answer::new(StatusCode::SERVICE_UNAVAILABLE, word, message))
    }

    /// Waits for a replica. Dropping the future, as hyper does when the client goes, frees the place at once.
    async fn hold(
        &mut self,
        mut waiting: Waiting,
    ) -> Result<crate::upstream::Place, Box<Response<ResponseBody>>> {
        if self.gateway.inner.shutdown.is_draining() {
            return Err(Box::new(self.turned(&Turned::Stopping)));
        }
        let patience = self.patience();
        let deadline = *self.deadline.get_or_insert_with(|| Deadline::in_(patience));
        let release = tokio::select! {
            // Cancel-safe: says so itself.
            release = waiting.released() => release,
            // Cancel-safe: a timer.
            () = deadline.passed() => return Err(Box::new(self.out_of_time())),
            // Cancel-safe: says so itself.
            () = self.client.gone() => {
                self.gateway.shared().metrics.gateway_request(status::CLIENT_GONE);
                let answer = Answer::new(StatusCode::BAD_REQUEST, status::CLIENT_GONE, "the client went away").closing();
                return Err(Box::new(answer.render(self.gateway.shared().clock.now())));
            }
        };
        match release {
            Release::Go(place) => Ok(place),
            Release::Turned(why) => Err(Box::new(self.turned(&why))),
        }
    }

    /// How long this request may be held. A browser that has seen the waiting page gets the next one soon, so that the
    /// page follows the stages.
    fn patience(&self) -> Duration {
        let budget = self.gateway.shared().settings.hold.budget;
        let asked = self.manner.wait.map_or(budget, |wait| wait.min(budget));
        if self.manner.is_navigation() && self.backend.waking_for() >= budget {
            asked.min(page::REFRESH)
        } else {
            asked
        }
    }

    fn out_of_time(&self) -> Response<ResponseBody> {
        let view = self.gateway.shared().wakes.flight(&self.backend.id);
        let answer = answer::still_waking(&self.backend, view.as_ref());
        self.waiting_answer(&answer)
    }

    fn turned(&self, why: &Turned) -> Response<ResponseBody> {
        self.waiting_answer(&answer::turned(why, &self.backend))
    }

    fn waiting_answer(&self, answer: &Answer) -> Response<ResponseBody> {
        let shared = self.gateway.shared();
        shared.metrics.gateway_request(answer.status());
        let view = shared.wakes.flight(&self.backend.id);
        answer::waiting(
            answer,
            self.manner,
            &self.backend,
            view.as_ref(),
            shared.clock.now(),
        )
    }

    fn proxied(&self, response: Response<ResponseBody>) -> Response<ResponseBody> {
        self.gateway
            .shared()
            .metrics
            .gateway_request(status::PROXIED);
        response
    }

    fn broken(&self) -> Response<ResponseBody> {
        let message = format!(
            "the connection to a replica of {} broke before it answered",
            self.backend.id
        );
        self.gateway.refuse(&Answer::new(
            StatusCode::BAD_GATEWAY,
            status::UPSTREAM_FAILED,
            message,
        ))
    }

    fn overloaded(&self) -> Response<ResponseBody> {
        let message = "too many connections to replicas are open";
        let answer = Answer::new(
            StatusCode::SERVICE_UNAVAILABLE,
            status::UPSTREAM_FAILED,
            message,
        );
        self.gateway
            .refuse(&answer.retry_after(Duration::from_secs(1)))
    }

    fn timed_out(&self) -> Response<ResponseBody> {
        let message = format!(
            "a replica of {} did not begin to answer in time",
            self.backend.id
        );
        self.gateway.refuse(&Answer::new(
            StatusCode::GATEWAY_TIMEOUT,
            status::UPSTREAM_TIMEOUT,
            message,
        ))
    }
}

/// What the head of a request takes in memory, about.
fn head_bytes(request: &Request<Incoming>) -> usize {
    let fields: usize = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let target = request
        .uri()
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    fields + target
}
