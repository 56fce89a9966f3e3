//! What every handler can reach, and the table of routes.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::{delete, get, post};
use nagi_api::routes;
use nagi_core::rate::Buckets;
use nagi_ports::{Accounts, Clock, Journal, Logs, Nodes, Traffic, Workloads};
use nagi_runtime::Shutdown;
use nagi_telemetry::{Log, Metrics};
use nagi_wake::Wakes;
use tokio::sync::watch;

use crate::call::Caller;
use crate::config::ServerConfig;
use crate::docs::Docs;
use crate::events::Events;
use crate::items::Items;
use crate::keys::Keyring;
use crate::problem::Problem;
use crate::turns::Turns;
use crate::visitors::Visitors;
use crate::{
    debug, docs, events, exchange, health, history, lists, logs, metrics, pools, scale, schedule,
    status, wake,
};

/// What the API works on.
#[derive(Debug, Clone)]
pub struct Ports {
    /// The workloads of the engine.
    pub workloads: Arc<dyn Workloads>,
    /// The gateways in front of them.
    pub traffic: Arc<dyn Traffic>,
    /// Past changes.
    pub journal: Arc<dyn Journal>,
    /// Pools of nodes.
    pub nodes: Arc<dyn Nodes>,
    /// What replicas printed.
    pub logs: Arc<dyn Logs>,
    /// The accounts of the engine, when their tokens are taken beside keys.
    pub accounts: Option<Arc<dyn Accounts>>,
    /// Whether the gateway of this process knows its workloads; `None` without one.
    pub routes: Option<watch::Receiver<bool>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Wakes under way.
    pub wakes: Wakes,
    /// Counters of the process.
    pub metrics: Metrics,
    /// The log of the process.
    pub log: Log,
}

/// Everything behind the routes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: ServerConfig,
    pub(crate) workloads: Arc<dyn Workloads>,
    pub(crate) traffic: Arc<dyn Traffic>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) nodes: Arc<dyn Nodes>,
    pub(crate) logs: Arc<dyn Logs>,
    pub(crate) routes: Option<watch::Receiver<bool>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) wakes: Wakes,
    pub(crate) metrics: Metrics,
    pub(crate) log: Log,
    pub(crate) keys: Keyring,
    pub(crate) visitors: Visitors,
    pub(crate) rates: Mutex<Buckets<Caller>>,
    pub(crate) events: Events,
    pub(crate) docs: Docs,
    pub(crate) items: Items,
    pub(crate) turns: Turns,
    pub(crate) shutdown: Shutdown,
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl App {
    pub(crate) fn new(
        config: ServerConfig,
        ports: Ports,
        keys: Keyring,
        shutdown: Shutdown,
    ) -> Self {
        let limits = &config.limits;
        let events = Events::new(limits.streams_max, limits.streams_per_caller_max);
        let rates = Mutex::new(Buckets::new(config.rate));
        Self {
            inner: Arc::new(Inner {
                config,
                workloads: ports.workloads,
                traffic: ports.traffic,
                journal: ports.journal,
                nodes: ports.nodes,
                logs: ports.logs,
                routes: ports.routes,
                clock: ports.clock,
                wakes: ports.wakes,
                metrics: ports.metrics,
                log: ports.log,
                keys,
                visitors: Visitors::new(ports.accounts),
                rates,
                events,
                docs: Docs::default(),
                items: Items::default(),
                turns: Turns::default(),
                shutdown,
            }),
        }
    }

    /// The routes of the API. Made once: it is as dear as it is cheap to clone.
    pub(crate) fn api(&self) -> Router {
        let router = Router::new()
            .route(routes::HEALTH, get(health::health))
            .route(routes::READY, get(health::ready))
            .route(routes::OPENAPI, get(docs::openapi))
            .route(routes::DOCS, get(docs::docs))
            .route(routes::PROFILE, get(debug::cpu))
            .route(routes::GOROUTINE, get(debug::threads))
            .route(routes::WORKLOADS, get(lists::workloads))
            .route(routes::SCHEDULED_SCALE_UPS, get(lists::scheduled))
            .route(routes::POOLS, get(pools::pools))
            .route(routes::HISTORY, get(history::history))
            .route(routes::EVENTS, get(events::events))
            .route(routes::RESOURCE, get(lists::resource))
            .route(routes::SCALE_TO_ZERO, post(scale::to_zero))
            .route(routes::SCALE_UP, post(scale::up))
            .route(routes::WAKE, post(wake::post))
            .route(routes::STATUS, get(status::status))
            .route(routes::LOGS, get(logs::logs))
            .route(routes::SCHEDULED_SCALE_UP, delete(schedule::cancel));
        self.completed(router)
    }

    /// The routes of the metrics listener. Without an API beside it, a gateway is all that has to be ready.
    pub(crate) fn metrics(&self, serves_api: bool) -> Router {
        let ready = if serves_api {
            get(health::ready)
        } else {
            get(health::gateway_ready)
        };
        let router = Router::new()
            .route(routes::METRICS, get(metrics::metrics))
            .route(routes::HEALTH, get(health::health))
            .route(routes::READY, ready);
        self.completed(router)
    }

    fn completed(&self, router: Router<Self>) -> Router {
        router
            .fallback(async || Problem::no_route())
            .method_not_allowed_fallback(async || Problem::no_method())
            .layer(exchange::NoteRoute)
            .with_state(self.clone())
    }
}
