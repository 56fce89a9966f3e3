//! The gateway itself: its parts, how it accepts and drains, and the first look at each request.
//!
//! Judged here: is the message sound, which workload is it for, may this client wake it, does it count. What happens to
//! it then is its [`Journey`].

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
use tokio::sync::watch;

use crate::answer::{self, Answer, Manner};
use crate::backend::{Backend, Turned};
use crate::body::ResponseBody;
use crate::client::{self, Client};
use crate::exclusion::excludes;
use crate::forward::Outgoing;
use crate::headers::{Coding, foreign_coding, hops};
use crate::host::host_of;
use crate::journey::Journey;
use crate::names::{STATUS_PATH, status};
use crate::route::{Route, Routes};
use crate::settings::Settings;
use crate::shared::Shared;

/// A request that passed this many gateways of ours runs in a circle.
const HOPS_MAX: usize = 4;
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

    /// Follows whether it knows its workloads; before that it can only ask its clients to come again.
    pub fn loaded(&self) -> watch::Receiver<bool> {
        self.inner.routes.loaded()
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

    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.inner.shutdown
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
            Err(answer) => {
                let manner = Manner::of(request.method(), request.headers());
                self.refuse(&answer, manner)
            }
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
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if reads && request.uri().path() == STATUS_PATH {
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
        let outgoing = Outgoing::new(request, &client, host, settings.client.forwarded);
        let journey = Journey::new(self, backend, client);
        match visit {
            Some(visit) => journey.run(Box::new(outgoing), visit).await,
            None => journey.run_excluded(Box::new(outgoing)).await,
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
        match foreign_coding(request.headers()) {
            None => {}
            Some(Coding::Repeated) => {
                return Err(bad("the request names the transfer coding chunked twice"));
            }
            Some(Coding::Unknown) => {
                let message = "no transfer coding but chunked is understood";
                return Err(
                    Answer::new(StatusCode::NOT_IMPLEMENTED, status::BAD_REQUEST, message)
                        .closing(),
                );
            }
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
                format!("no workload is served under the host {}", host.key),
            )
            .hint("`nagi list --output wide` shows the hosts of every workload")),
            Route::NotLoaded => Err(Answer::new(
                StatusCode::SERVICE_UNAVAILABLE,
                status::STARTING,
                "the gateway does not know all workloads yet",
            )
            .retry_after(Duration::from_secs(1))),
        }
    }

    /// The process is ending.
    pub(crate) fn is_draining(&self) -> bool {
        self.inner.shutdown.is_draining()
    }

    fn refuse(&self, answer: &Answer, manner: Manner) -> Response<ResponseBody> {
        self.shared().metrics.gateway_request(answer.status());
        answer.render_in(manner, self.shared().clock.now())
    }
}
