//! What can be set, with defaults, units and why each bound is what it is.
//!
//! Values come validated from the composition root; nothing here reads a file or the environment.

use std::time::Duration;

use crate::exclusion::Exclusion;

/// Requests held per workload by default: at 8 KiB each 8 MiB, and more than one replica serves in a hold budget.
const HELD_PER_WORKLOAD: usize = 1_000;
/// Requests held in all by default: at 8 KiB of memory each, 80 MiB.
const HELD_TOTAL: usize = 10_000;
/// Bytes of held heads in all by default: beside the buffers of their connections.
const HELD_BYTES: usize = 64 * 1024 * 1024;
/// Below the 30 s that many proxies and clients give up after (DESIGN §6).
const HOLD_BUDGET: Duration = Duration::from_secs(25);

/// Limits of what is held while a workload wakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldSettings {
    /// Requests per workload. Default 1,000.
    pub per_workload: usize,
    /// Requests in all. Default 10,000.
    pub total: usize,
    /// Bytes of request heads in all. Default 64 MiB. Bodies are not read while held.
    pub bytes: usize,
    /// How long a request is held at most. Default 25 s.
    pub budget: Duration,
}

/// Limits on the side of the clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Open connections; more wait in the kernel's backlog. Default 16,384.
    pub connections: usize,
    /// Bytes of a request head. Default 32 KiB; 16 KiB are common for cookies and tokens.
    pub head_bytes: usize,
    /// Header fields of a request. Default 100.
    pub headers: usize,
    /// From the first byte of a request head to its end. Default 10 s.
    pub head_timeout: Duration,
    /// A connection without a request, and a body or an answer that makes no progress, may stand still so long.
    /// Default 75 s, as nginx: longer than the 60 s of load balancers, so that they close first.
    pub idle_timeout: Duration,
    /// Whose `X-Forwarded-*` are believed.
    pub forwarded: Forwarded,
}

/// Whose `X-Forwarded-*` and `Forwarded` are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// Nobody's: they are replaced by what the gateway sees. Right when clients connect directly.
    Replace,
    /// The peer's: it is a load balancer that sets them; the gateway appends.
    Append,
}

/// Limits on the side of the replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Connections kept without a request, per replica. Default 64.
    pub idle_connections: usize,
    /// How long one is kept. Default 4 s: below the 5 s after which Node.js closes, so that reuse rarely races a close.
    pub idle_timeout: Duration,
    /// How long a connection attempt to a serving replica may take. Default 1 s: the kernel repeats a lost SYN then.
    pub connect_timeout: Duration,
    /// From the sent request to the head of the answer. Default 300 s: inference is slow, a hang is not forever.
    pub answer_timeout: Duration,
}

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// While a workload wakes.
    pub hold: HoldSettings,
    /// Towards clients.
    pub client: ClientSettings,
    /// Towards replicas.
    pub upstream: UpstreamSettings,
    /// Traffic that neither wakes nor keeps awake. Default [`Exclusion::DEFAULTS`].
    pub excluded: Vec<Exclusion>,
    /// What requests in flight get at shutdown. Default 30 s; the end of the process cuts it shorter where it must.
    pub grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hold: HoldSettings {
                per_workload: HELD_PER_WORKLOAD,
                total: HELD_TOTAL,
                bytes: HELD_BYTES,
                budget: HOLD_BUDGET,
            },
            client: ClientSettings {
                connections: 16_384,
                head_bytes: 32 * 1024,
                headers: 100,
                head_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(75),
                forwarded: Forwarded::Replace,
            },
            upstream: UpstreamSettings {
                idle_connections: 64,
                idle_timeout: Duration::from_secs(4),
                connect_timeout: Duration::from_secs(1),
                answer_timeout: Duration::from_mins(5),
            },
            excluded: Exclusion::DEFAULTS.to_vec(),
            grace: Duration::from_secs(30),
        }
    }
}
