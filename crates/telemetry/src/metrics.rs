//! The Prometheus metrics of this process, as typed families.
//!
//! One [`Metrics`] is made at the start and cloned to whoever counts; `/metrics` renders it. Label
//! values are our own enums or `&'static str` of the caller's enums, and statuses are those that we
//! answer, so the number of series does not grow with what clients send.
//! It deliberately has no global registry: two servers in one test do not count into each other.

mod disk;
mod process;
mod text;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::log::LinesDropped;
use crate::names::metric;
use disk::DiskFamilies;

pub use disk::{DiskFacts, OwnerFacts};

/// The `Content-Type` of [`Metrics::encode`]: the text format that every Prometheus reads.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// API calls take from 0.3 ms (a read from memory) over 5 ms (a durable write) to 30 s (the limit).
const HTTP_SECONDS: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Stages take from milliseconds (a local process) to 15 minutes (a GPU node that joins slowly).
const STAGE_SECONDS: [f64; 15] = [
    0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 150.0, 300.0, 600.0, 900.0,
];

/// The metrics could not be rendered.
#[derive(Debug, thiserror::Error)]
#[error("cannot render the metrics")]
pub struct MetricsError(#[source] fmt::Error);

/// Whether the API asks for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// Requests need a key.
    Enabled,
    /// Requests are taken without a key.
    Disabled,
}

/// A file that is followed while the process runs; a bad state of it is refused, and the former one stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigFile {
    /// The workload file of the local engine.
    Workloads,
    /// `NAGI_KEYS_FILE`.
    Keys,
    /// `API_KEY_FILE`.
    ApiKey,
}

/// All metrics of this process. Cheap to clone; clones count into the same families.
#[derive(Debug, Clone)]
pub struct Metrics {
    families: Arc<Families>,
}

#[derive(Debug)]
struct Families {
    registry: Registry,
    http_requests: Family<HttpLabels, Counter>,
    http_durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    scale_operations: Family<ScaleLabels, Counter>,
    wakes: Family<WakeLabels, Counter>,
    wake_stages: Family<StageLabels, Histogram, fn() -> Histogram>,
    workloads: Family<StatusLabels, Gauge>,
    workloads_observed: Gauge<f64, AtomicU64>,
    scheduled_scale_ups: Gauge,
    auth_disabled: Gauge,
    files_in_force: Family<FileLabels, Gauge>,
    queues: Family<QueueLabels, Gauge>,
    gateway_requests: Family<ResultLabels, Counter>,
    gateway_held: Gauge,
    gateway_in_flight: Gauge,
    disks: DiskFamilies,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    method: MethodLabel,
    route: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScaleLabels {
    action: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WakeLabels {
    trigger: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FileLabels {
    file: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

/// The method of a request: one of those that HTTP defines, or `other`, since clients may invent
/// methods as they like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct MethodLabel(&'static str);

/// Counts one thing up while it lives and down when it is dropped.
#[derive(Debug)]
#[must_use = "the count goes down when this is dropped"]
pub struct CountGuard {
    gauge: Gauge,
}

/// The depth of one queue.
#[derive(Debug, Clone)]
pub struct DepthGauge {
    gauge: Gauge,
}

// === impl Metrics ===

impl Metrics {
    /// Registers every family. `version` goes to `nagi_build_info`; `lines_dropped` is the count of
    /// the process's log.
    pub fn new(version: &'static str, lines_dropped: LinesDropped) -> Self {
        let http: fn() -> Histogram = || Histogram::new(HTTP_SECONDS);
        let stage: fn() -> Histogram = || Histogram::new(STAGE_SECONDS);
        let mut families = Families {
            registry: Registry::default(),
            http_requests: Family::default(),
            http_durations: Family::new_with_constructor(http),
            scale_operations: Family::default(),
            wakes: Family::default(),
            wake_stages: Family::new_with_constructor(stage),
            workloads: Family::default(),
            workloads_observed: Gauge::default(),
            scheduled_scale_ups: Gauge::default(),
            auth_disabled: Gauge::default(),
            files_in_force: Family::default(),
            queues: Family::default(),
            gateway_requests: Family::default(),
            gateway_held: Gauge::default(),
            gateway_in_flight: Gauge::default(),
            disks: DiskFamilies::default(),
        };
        families.register(version, lines_dropped);
        Self {
            families: Arc::new(families),
        }
    }

    /// Counts one answered API request. `route` is the template of the matched route, or one fixed
    /// word for all unknown paths; `method` is as sent.
    pub fn http_request(&self, method: &str, route: &'static str, status: u16, elapsed: Duration) {
        let labels = HttpLabels {
            method: MethodLabel::from(method),
            route,
            status,
        };
        self.families.http_requests.get_or_create(&labels).inc();
        let labels = RouteLabels { route };
        self.families
            .http_durations
            .get_or_create(&labels)
            .observe(elapsed.as_secs_f64());
    }

    /// Counts one scale operation, such as `scale-up` with `changed`.
    pub fn scale_operation(&self, action: &'static str, result: &'static str) {
        self.families
            .scale_operations
            .get_or_create(&ScaleLabels { action, result })
            .inc();
    }

    /// Counts one wake that ended.
    pub fn wake(&self, trigger: &'static str, result: &'static str) {
        self.families
            .wakes
            .get_or_create(&WakeLabels { trigger, result })
            .inc();
    }

    /// Records the time that a wake spent in one stage.
    pub fn wake_stage(&self, stage: &'static str, elapsed: Duration) {
        self.families
            .wake_stages
            .get_or_create(&StageLabels { stage })
            .observe(elapsed.as_secs_f64());
    }

    /// Sets how many workloads have this status. Set every status each time, zeros too.
    pub fn set_workloads(&self, status: &'static str, count: usize) {
        self.families
            .workloads
            .get_or_create(&StatusLabels { status })
            .set(clamped(count));
    }

    /// Sets when the workloads were seen that are counted: the time since 1970.
    pub fn set_workloads_observed(&self, since_epoch: Duration) {
        let seconds = since_epoch.as_secs_f64();
        self.families.workloads_observed.set(seconds);
    }

    /// Sets how many one-off scheduled scale-ups are pending.
    pub fn set_scheduled_scale_ups(&self, count: usize) {
        self.families.scheduled_scale_ups.set(clamped(count));
    }

    /// Sets whether the API asks for a key.
    pub fn set_authentication(&self, authentication: Authentication) {
        self.families.auth_disabled.set(match authentication {
            Authentication::Enabled => 0,
            Authentication::Disabled => 1,
        });
    }

    /// Sets whether the present content of this file is in force. Nothing is told of a file that is not configured.
    pub fn set_file_in_force(&self, file: ConfigFile, in_force: bool) {
        let file = match file {
            ConfigFile::Workloads => "workloads",
            ConfigFile::Keys => "keys",
            ConfigFile::ApiKey => "api-key",
        };
        self.families
            .files_in_force
            .get_or_create(&FileLabels { file })
            .set(i64::from(in_force));
    }

    /// The depth gauge of one bounded queue, channel or set of waiters.
    pub fn queue(&self, queue: &'static str) -> DepthGauge {
        DepthGauge {
            gauge: self
                .families
                .queues
                .get_or_create_owned(&QueueLabels { queue }),
        }
    }

    /// Counts one request that the gateway finished.
    pub fn gateway_request(&self, result: &'static str) {
        self.families
            .gateway_requests
            .get_or_create(&ResultLabels { result })
            .inc();
    }

    /// Counts a request that the gateway holds, until the guard is dropped.
    pub fn gateway_held(&self) -> CountGuard {
        CountGuard::new(&self.families.gateway_held)
    }

    /// Counts a request that the gateway forwarded, until the guard is dropped.
    pub fn gateway_in_flight(&self) -> CountGuard {
        CountGuard::new(&self.families.gateway_in_flight)
    }

    /// Renders everything as Prometheus text; see [`CONTENT_TYPE`]. Reads a few files under `/proc`,
    /// which takes well below a millisecond.
    ///
    /// # Errors
    /// When a family cannot be encoded, which no input of ours causes.
    pub fn encode(&self) -> Result<String, MetricsError> {
        text::encode(&self.families.registry).map_err(MetricsError)
    }
}

// === impl Families ===

impl Families {
    fn register(&mut self, version: &'static str, lines_dropped: LinesDropped) {
        let registry = &mut self.registry;
        let build: Family<BuildLabels, Gauge> = Family::default();
        build.get_or_create(&BuildLabels { version }).set(1);
        registry.register(
            metric::BUILD_INFO,
            "Version of this binary, always 1",
            build,
        );
        registry.register(
            metric::counter_base(metric::HTTP_REQUESTS_TOTAL),
            "API requests answered, by method, route template and status",
            self.http_requests.clone(),
        );
        registry.register(
            metric::HTTP_REQUEST_DURATION_SECONDS,
            "Time from an API request's arrival to the end of its answer",
            self.http_durations.clone(),
        );
        registry.register(
            metric::counter_base(metric::SCALE_OPERATIONS_TOTAL),
            "Scale operations, by action and result",
            self.scale_operations.clone(),
        );
        registry.register(
            metric::counter_base(metric::WAKES_TOTAL),
            "Wakes that ended, by trigger and result",
            self.wakes.clone(),
        );
        registry.register(
            metric::WAKE_STAGE_SECONDS,
            "Time that wakes spent in each stage",
            self.wake_stages.clone(),
        );
        registry.register(
            metric::WORKLOADS,
            "Workloads, by status",
            self.workloads.clone(),
        );
        registry.register(
            metric::WORKLOADS_OBSERVED_TIMESTAMP_SECONDS,
            "When the workloads that are counted were seen, in seconds since 1970",
            self.workloads_observed.clone(),
        );
        registry.register(
            metric::SCHEDULED_SCALE_UPS,
            "One-off scheduled scale-ups that are pending",
            self.scheduled_scale_ups.clone(),
        );
        registry.register(
            metric::AUTH_DISABLED,
            "1 while the API takes requests without a key",
            self.auth_disabled.clone(),
        );
        registry.register(
            metric::FILE_IN_FORCE,
            "1 while what a configuration file holds now is in force, 0 while it is not",
            self.files_in_force.clone(),
        );
        registry.register(
            metric::counter_base(metric::LOG_LINES_DROPPED_TOTAL),
            "Log lines lost because their reader was too slow or gone",
            lines_dropped,
        );
        registry.register(
            metric::QUEUE_DEPTH,
            "Entries in each bounded queue",
            self.queues.clone(),
        );
        registry.register(
            metric::counter_base(metric::GATEWAY_REQUESTS_TOTAL),
            "Requests that the gateway finished, by result",
            self.gateway_requests.clone(),
        );
        registry.register(
            metric::GATEWAY_HELD_REQUESTS,
            "Requests held until their workload is awake",
            self.gateway_held.clone(),
        );
        registry.register(
            metric::GATEWAY_IN_FLIGHT_REQUESTS,
            "Requests forwarded and not finished",
            self.gateway_in_flight.clone(),
        );
        self.disks.register(registry);
        registry.register_collector(Box::new(process::ProcessCollector));
    }
}

// === impl MethodLabel ===

impl MethodLabel {
    const OTHER: Self = Self("other");
    const KNOWN: [&'static str; 9] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE",
    ];
}

impl From<&str> for MethodLabel {
    fn from(method: &str) -> Self {
        Self::KNOWN
            .into_iter()
            .find(|known| *known == method)
            .map_or(Self::OTHER, Self)
    }
}

impl EncodeLabelValue for MethodLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

// === impl CountGuard ===

impl CountGuard {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self {
            gauge: gauge.clone(),
        }
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

// === impl DepthGauge ===

impl DepthGauge {
    /// Sets the number of entries.
    pub fn set(&self, depth: usize) {
        self.gauge.set(clamped(depth));
    }

    /// Counts one entry until the guard is dropped.
    pub fn enter(&self) -> CountGuard {
        CountGuard::new(&self.gauge)
    }
}

fn clamped(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
