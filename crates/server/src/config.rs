//! What an operator may set about the API, already checked.
//!
//! Addresses are not here: the caller binds and hands over listeners. Keys are not here either: see
//! [`keys`](crate::keys).

use std::net::IpAddr;
use std::time::Duration;

use nagi_api::body::BODY_BYTES_MAX;
use nagi_core::guardrail::Guardrails;
use nagi_core::rate::RateLimit;

use crate::network::Network;

/// Settings of the API. `Default` is what an operator gets who sets nothing.
#[derive(Debug, Clone, Default)]
pub struct ServerConfig {
    /// What no caller may do.
    pub rails: Guardrails,
    /// How fast one caller may write.
    pub rate: RateLimit,
    /// Bounds on connections and requests.
    pub limits: Limits,
    /// Peers whose `X-Forwarded-For` is believed. Empty: nobody's (W-A25).
    pub trusted_proxies: Vec<Network>,
}

/// Bounds that keep one client, or five hundred slow ones, from taking the API away from the others.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most bytes of a request's head (R23); past it 431.
    pub head_bytes_max: usize,
    /// Time for a head to be complete, from its first byte on (R23); past it 408.
    pub head_time: Duration,
    /// Most bytes of a request's body (R08); past it 413.
    pub body_bytes_max: usize,
    /// Time that a body may take before its pace is judged (R23) …
    pub body_grace: Duration,
    /// … and the pace that it then must have had from its beginning, in bytes per second; below it 408.
    pub body_bytes_per_second_min: u32,
    /// A connection without a request is closed after this long.
    pub idle: Duration,
    /// A client that takes none of its answer for this long is cut.
    pub write_time: Duration,
    /// Time for the engine's part in one request; past it 503.
    pub request_time: Duration,
    /// Open connections at most. One more closes the one that has waited longest for its client.
    pub connections_max: usize,
    /// Of these, most from one address (an IPv6 network of 64 bits counts as one).
    pub connections_per_peer_max: usize,
    /// Event streams at most, together.
    pub streams_max: usize,
    /// Event streams of one caller at most.
    pub streams_per_caller_max: usize,
    /// Time for running requests to end after the shutdown began.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1024,
            head_time: Duration::from_secs(10),
            body_bytes_max: BODY_BYTES_MAX,
            body_grace: Duration::from_secs(10),
            body_bytes_per_second_min: 1024,
            // Longer than the usual keep-alive of proxies (60 s), so that they and not we end idle connections.
            idle: Duration::from_secs(75),
            write_time: Duration::from_secs(30),
            // Twice what the founding documents call slow (K-34), and what they escalate at.
            request_time: Duration::from_secs(10),
            // Half of the usual 1,024 file descriptors of a process.
            connections_max: 512,
            // 200 callers at once from one machine must not cut each other's answers: a connection that has just been
            // answered still counts until its client closes it. Whoever is slow gives way first in any case.
            connections_per_peer_max: 448,
            streams_max: 128,
            streams_per_caller_max: 32,
            drain_time: Duration::from_secs(30),
        }
    }
}

impl ServerConfig {
    /// True when this peer may say whom it forwards for.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies
            .iter()
            .any(|network| network.holds(peer))
    }
}
