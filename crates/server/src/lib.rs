//! The Scale API: authenticate, parse, call, render.
//!
//! [`Server`] takes ports, keys and listeners, and serves `/health`, `/ready`, `/api/v1/…`, `/docs` on one of them and
//! `/metrics` on another. The way of a request: `serve` accepts the connection and holds its limits, `exchange` gives it an
//! id, a deadline and its log line, the router finds its handler, `call` judges who may call (R01), the handler reads the
//! body, `order` lets the core decide and writes, `problem` or `answer` renders.
//!
//! It decides nothing about workloads: that is `nagi_core`. It knows no engine, reads no environment, and binds no
//! address.

mod answer;
mod app;
mod body;
mod call;
mod config;
mod debug;
mod docs;
mod events;
mod exchange;
mod health;
mod history;
mod host;
mod items;
pub mod keys;
mod lists;
mod logs;
mod metrics;
mod network;
mod openapi;
mod order;
mod page;
mod path;
mod pools;
mod problem;
mod query;
mod scale;
mod schedule;
mod serve;
mod status;
#[cfg(test)]
mod tests;
mod turns;
mod visitors;
mod wake;

use hyper_util::service::TowerToHyperService;
use nagi_runtime::Shutdown;
use tokio::net::TcpListener;

pub use app::Ports;
pub use config::{Limits, ServerConfig};
pub use keys::{KeySources, Keyring, KeyringError};
pub use network::{Network, NetworkError};

use app::App;
use exchange::{Lines, Site};
use serve::Door;

/// The Scale API, ready to serve.
#[derive(Debug, Clone)]
pub struct Server {
    app: App,
}

/// Where the API listens.
#[derive(Debug)]
pub struct Listeners {
    /// The API itself; `None` for a role that serves none.
    pub api: Option<TcpListener>,
    /// `/metrics`, `/health` and `/ready`, when they are wanted on their own port.
    pub metrics: Option<TcpListener>,
}

impl Server {
    /// An API on these ports under this configuration. Once the process drains it says so in `/ready`, ends event
    /// streams and accepts nothing more.
    pub fn new(config: ServerConfig, ports: Ports, keys: Keyring, shutdown: Shutdown) -> Self {
        Self {
            app: App::new(config, ports, keys, shutdown),
        }
    }

    /// Serves until the process drains and running requests have ended or their time is over
    /// ([`Limits::drain_time`]). To be owned by a supervisor: it never ends before.
    pub async fn run(self, listeners: Listeners) {
        let app = self.app;
        let shutdown = app.shutdown.clone();
        let api = self::site(&app, app.api(), Lines::All);
        let api = Door::new(api, app.config.limits.clone(), "api-connections");
        let metrics = self::site(&app, app.metrics(listeners.api.is_some()), Lines::Failures);
        let metrics = Door::new(metrics, scraping(&app.config.limits), "metrics-connections");
        if let Some(listener) = &listeners.api {
            announce("Scale API listens", listener);
        }
        if let Some(listener) = &listeners.metrics {
            announce("Metrics listen", listener);
        }
        let called = async {
            if let Some(listener) = listeners.api {
                tokio::join!(
                    api.serve(listener, shutdown.clone()),
                    events::feed(app.clone(), shutdown.clone()),
                );
            }
        };
        let scraped = async {
            if let Some(listener) = listeners.metrics {
                metrics.serve(listener, shutdown.clone()).await;
            }
        };
        let farewell = async {
            shutdown.draining().await;
            tracing::info!("Shutting down server...");
        };
        tokio::join!(
            called,
            scraped,
            app.keys.clone().follow(shutdown.clone()),
            farewell,
        );
    }
}

/// The OpenAPI document of this API, as `GET /openapi.json` serves it under the default configuration.
pub fn openapi() -> utoipa::openapi::OpenApi {
    openapi::document(
        ServerConfig::default().rails.replicas_max,
        openapi::KeyNeeded::Yes,
    )
}

fn site(app: &App, routes: axum::Router, lines: Lines) -> Site {
    Site {
        app: app.clone(),
        routes: TowerToHyperService::new(routes),
        lines,
    }
}

/// Scrapers are few: a small share of the connections is theirs.
fn scraping(limits: &Limits) -> Limits {
    let share = (limits.connections_max / 8).max(8);
    Limits {
        connections_max: share,
        connections_per_peer_max: share,
        ..limits.clone()
    }
}

fn announce(message: &'static str, listener: &TcpListener) {
    match listener.local_addr() {
        Ok(address) => tracing::info!(address = %address, port = address.port(), "{message}"),
        Err(error) => tracing::warn!(error = %error, "Listener has no address"),
    }
}
