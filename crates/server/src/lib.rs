//! The Scale API: authenticate, parse, call, render.
//!
//! [`Server`] takes ports, keys and listeners, and serves `/health`, `/ready`, `/api/v1/…`, `/docs` on one of them and
//! `/metrics` on another. The way of a request: [`serve`] accepts the connection and holds its limits, [`exchange`] gives it an
//! id, a deadline and its log line, the router finds its handler, [`call`] judges who may call (R01), the handler reads the
//! body, [`order`] lets the core decide and writes, [`problem`] or [`answer`] renders.
//!
//! It decides nothing about workloads: that is `nagi_core`. It knows no engine, reads no environment, and binds no
//! address.

mod answer;
mod app;
mod body;
mod call;
mod config;
mod exchange;
mod health;
pub mod keys;
mod lists;
mod network;
mod openapi;
mod order;
mod page;
mod path;
mod problem;
mod query;
mod scale;
mod serve;
mod status;
#[cfg(test)]
mod tests;

use nagi_runtime::Shutdown;
use tokio::net::TcpListener;

pub use app::Ports;
pub use config::{Limits, ServerConfig};
pub use keys::{KeySources, Keyring, KeyringError};
pub use network::{Network, NetworkError};

use app::App;
use serve::Door;

/// The Scale API, ready to serve.
#[derive(Debug, Clone)]
pub struct Server {
    app: App,
}

/// Where the API listens.
#[derive(Debug)]
pub struct Listeners {
    /// The API itself.
    pub api: TcpListener,
    /// `/metrics` and `/health`, when they are wanted on their own port.
    pub metrics: Option<TcpListener>,
}

impl Server {
    /// An API on these ports under this configuration.
    pub fn new(config: ServerConfig, ports: Ports, keys: Keyring) -> Self {
        Self {
            app: App::new(config, ports, keys),
        }
    }

    /// Serves until the process drains and running requests have ended or their time is over
    /// ([`Limits::drain_time`]). To be owned by a supervisor: it never ends before.
    pub async fn run(self, listeners: Listeners, shutdown: Shutdown) {
        let app = self.app;
        let limits = app.config.limits.clone();
        let api = Door::new(app.clone(), app.router(), limits, "api-connections");
        let announced = async {
            shutdown.draining().await;
            tracing::info!("Shutting down server...");
        };
        tokio::join!(
            api.serve(listeners.api, shutdown.clone()),
            app.keys.clone().follow(shutdown.clone()),
            announced,
        );
    }
}
