//! The data plane: routes by host, holds and wakes, probes, proxies, counts (DESIGN §6, inline HTTP/1.1).
//!
//! A request for a workload that serves is forwarded to a replica. One for a workload that does not is held, with only
//! its head in memory, while the workload is woken once however many wait; the replica is probed from the moment it has
//! an address, and the first request travels on the connection that the probe opened. Counts are exact and go to the
//! idle loop through the `Traffic` port. Everything that the gateway answers itself says so in `Nagi-Status`.
//!
//! [`Gateway::new`] takes the ports, [`Gateway::follow`] keeps the routes current, [`Gateway::serve`] accepts on a
//! listener that the caller opened. What it deliberately does not do: decide about wakes or sleeps, know an engine,
//! speak TLS or HTTP/2, leave the path while a workload is awake.

mod answer;
mod backend;
mod body;
mod client;
mod exclusion;
mod forward;
mod framing;
mod gateway;
mod headers;
mod hold;
mod host;
mod journey;
pub mod names;
mod page;
mod probe;
mod pulse;
mod route;
mod settings;
mod shared;
mod traffic;
mod tunnel;
mod upstream;

pub use exclusion::Exclusion;
pub use gateway::{Gateway, GatewayError};
pub use settings::{ClientSettings, Forwarded, HoldSettings, Settings, UpstreamSettings};

#[cfg(test)]
mod tests;
