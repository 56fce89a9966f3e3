//! What all parts of one gateway share: ports, settings, limits and the owners of its tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use nagi_ports::Clock;
use nagi_runtime::TaskSet;
use nagi_telemetry::{CountGuard, Metrics};
use nagi_wake::Wakes;

use crate::pulse::Pulses;
use crate::settings::Settings;

/// Tasks that drive held workloads and probe replicas, at most: every workload and two replicas of a large cluster.
const DRIVERS_MAX: usize = 32_768;

/// Shared by all parts.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) wakes: Wakes,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    /// Drivers of held workloads, probers, and the timers of `prepare`.
    pub(crate) drivers: TaskSet,
    /// Connections to replicas.
    pub(crate) links: TaskSet,
    /// Upgraded connections.
    pub(crate) tunnels: TaskSet,
    /// Client connections and what they wait for.
    pub(crate) pulses: Arc<Pulses>,
    held: AtomicUsize,
    held_bytes: AtomicUsize,
    tokens: AtomicU64,
}

/// One held request within the limits of the whole gateway.
#[derive(Debug)]
pub(crate) struct Held {
    shared: Arc<Shared>,
    bytes: usize,
    _gauge: CountGuard,
}

impl Shared {
    pub(crate) fn new(
        settings: Settings,
        wakes: Wakes,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Arc<Self> {
        let connections = settings.client.connections;
        Arc::new(Self {
            // Each client connection has at most one exchange, and as many connections may idle or probe.
            links: TaskSet::new("gateway links", connections.saturating_mul(2)),
            tunnels: TaskSet::new("gateway tunnels", connections),
            drivers: TaskSet::new("gateway drivers", DRIVERS_MAX),
            pulses: Pulses::new(&settings),
            settings,
            wakes,
            clock,
            metrics,
            held: AtomicUsize::new(0),
            held_bytes: AtomicUsize::new(0),
            tokens: AtomicU64::new(0),
        })
    }

    /// Room for one held request with a head of so many bytes; `None` at the limits.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let limits = &self.settings.hold;
        let room = |counter: &AtomicUsize, add: usize, max: usize| {
            counter
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                    now.checked_add(add).filter(|sum| *sum <= max)
                })
                .is_ok()
        };
        if !room(&self.held, 1, limits.total) {
            return None;
        }
        if !room(&self.held_bytes, bytes, limits.bytes) {
            self.held.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Held {
            shared: Arc::clone(self),
            bytes,
            _gauge: self.metrics.gateway_held(),
        })
    }

    /// A number that no earlier `prepare` had.
    pub(crate) fn next_token(&self) -> u64 {
        self.tokens.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.held.fetch_sub(1, Ordering::Relaxed);
        self.shared
            .held_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
