//! The names that the outside relies on: log fields and metrics, each defined once.
//!
//! Dashboards, alerts and the founding documents' `jq` commands use them; changing one is a breaking
//! change. It deliberately holds no label values: those come from the enums of their owners.

/// Names of log fields.
pub mod field {
    /// When the line was written: RFC 3339, UTC, milliseconds. On every line.
    pub const TIMESTAMP: &str = "timestamp";
    /// The same instant again, under the name that the API reference uses. On every line.
    pub const TIME: &str = "time";
    /// `debug`, `info`, `warn` or `error`. On every line.
    pub const LEVEL: &str = "level";
    /// Constant text of low cardinality. On every line.
    pub const MESSAGE: &str = "message";
    /// HTTP method of the request. Request lines only.
    pub const METHOD: &str = "method";
    /// Path of the request URL, without the query. Request lines; elsewhere a file path.
    pub const PATH: &str = "path";
    /// HTTP status, a JSON number. Request lines only: the documents select with `.status >= 400`,
    /// and in `jq` every string is greater than every number.
    pub const STATUS: &str = "status";
    /// Time from the request's arrival to the end of the answer, as `<decimal>ms`. Request lines only.
    pub const LATENCY: &str = "latency";
    /// The share of it spent waiting for the engine or Kubernetes, as `<decimal>ms`. Request lines only.
    pub const LATENCY_UPSTREAM: &str = "latency_upstream";
    /// Address of the client as the server trusts it.
    pub const REMOTE_IP: &str = "remote_ip";
    /// The `User-Agent` of the request, `-` without one. Request lines only.
    pub const USER_AGENT: &str = "user_agent";
    /// The id of the request, also in the answer's `X-Request-ID`.
    pub const REQUEST_ID: &str = "request_id";
    /// The id of the key that was used, never the key.
    pub const KEY_ID: &str = "key_id";
    /// An error with its causes, joined by `: `.
    pub const ERROR: &str = "error";
    /// Why something was decided, or the reason that a caller gave.
    pub const REASON: &str = "reason";
    /// Namespace of the workload.
    pub const NAMESPACE: &str = "namespace";
    /// Name of the workload.
    pub const WORKLOAD: &str = "workload";
    /// Name of the node.
    pub const NODE: &str = "node";
    /// What was done, such as `scale-up`.
    pub const ACTION: &str = "action";
    /// The user of the cluster who called with a token of theirs, never the token.
    pub const USER: &str = "user";
    /// Who did it: `key/ID`, `user/NAME`, `anonymous`, `gateway`, `idle`, `schedule`, `outside`.
    pub const ACTOR: &str = "actor";
    /// Wanted count before a change, a JSON number.
    pub const FROM: &str = "from";
    /// Wanted count after a change, a JSON number.
    pub const TO: &str = "to";
    /// The instant of a one-off wake that is pending after a change, or was cancelled by it.
    pub const SCHEDULED_SCALE_UP: &str = "scheduled_scale_up";
    /// `true` when nothing was written.
    pub const DRY_RUN: &str = "dry_run";
    /// Stage or phase of something that takes time.
    pub const PHASE: &str = "phase";
    /// A duration in milliseconds, a JSON number.
    pub const ELAPSED_MS: &str = "elapsed_ms";
    /// Module that wrote the line: on `debug` lines and on those of libraries.
    pub const TARGET: &str = "target";
    /// `true` when a value of the line was shortened or left out to keep the line within its limit.
    pub const TRUNCATED: &str = "truncated";
    /// The text of a panic.
    pub const PANIC: &str = "panic";
    /// Source file, line and column of a panic.
    pub const LOCATION: &str = "location";
    /// Name of the thread that panicked.
    pub const THREAD: &str = "thread";
    /// The stack of a panic, when `RUST_BACKTRACE` asks for it.
    pub const BACKTRACE: &str = "backtrace";
    /// How many lines were lost before this one.
    pub const LINES: &str = "lines";
}

/// Names of metrics, as they are scraped. `prometheus-client` appends `_total` to counters itself;
/// [`counter_base`](super::names::metric::counter_base) takes it off for registration.
pub mod metric {
    /// Counter `{method, route, status}`: requests that the API answered.
    pub const HTTP_REQUESTS_TOTAL: &str = "nagi_http_requests_total";
    /// Histogram `{route}`: time from a request's arrival to the end of the answer.
    pub const HTTP_REQUEST_DURATION_SECONDS: &str = "nagi_http_request_duration_seconds";
    /// Counter `{action, result}`: scale operations asked for.
    pub const SCALE_OPERATIONS_TOTAL: &str = "nagi_scale_operations_total";
    /// Counter `{trigger, result}`: wakes that ended.
    pub const WAKES_TOTAL: &str = "nagi_wakes_total";
    /// Histogram `{stage}`: time that wakes spent in each stage.
    pub const WAKE_STAGE_SECONDS: &str = "nagi_wake_stage_seconds";
    /// Gauge `{status}`: workloads by status.
    pub const WORKLOADS: &str = "nagi_workloads";
    /// Gauge: when the workloads were seen that are counted, in seconds since 1970; of what was seen at different times, the
    /// earliest.
    pub const WORKLOADS_OBSERVED_TIMESTAMP_SECONDS: &str =
        "nagi_workloads_observed_timestamp_seconds";
    /// Gauge: one-off scheduled scale-ups that are pending.
    pub const SCHEDULED_SCALE_UPS: &str = "nagi_scheduled_scale_ups";
    /// Gauge: 1 while the API takes requests without a key, else 0.
    pub const AUTH_DISABLED: &str = "nagi_auth_disabled";
    /// Gauge `{file}`: 1 while what a configuration file holds now is in force, 0 while it is not.
    pub const FILE_IN_FORCE: &str = "nagi_file_in_force";
    /// Gauge `{version}`: always 1.
    pub const BUILD_INFO: &str = "nagi_build_info";
    /// Counter: log lines lost because their reader was too slow or gone.
    pub const LOG_LINES_DROPPED_TOTAL: &str = "nagi_log_lines_dropped_total";
    /// Gauge `{queue}`: entries in each bounded queue.
    pub const QUEUE_DEPTH: &str = "nagi_queue_depth";
    /// Counter `{result}`: requests that the gateway finished.
    pub const GATEWAY_REQUESTS_TOTAL: &str = "nagi_gateway_requests_total";
    /// Gauge: requests that the gateway holds until their workload is awake.
    pub const GATEWAY_HELD_REQUESTS: &str = "nagi_gateway_held_requests";
    /// Gauge: requests that the gateway forwarded and that are not finished.
    pub const GATEWAY_IN_FLIGHT_REQUESTS: &str = "nagi_gateway_in_flight_requests";
    /// Gauge `{disk, state}`: bytes of a disk of this node.
    pub const DISK_BYTES: &str = "nagi_disk_bytes";
    /// Gauge `{disk, state}`: its inodes.
    pub const DISK_INODES: &str = "nagi_disk_inodes";
    /// Gauge `{disk, resource}`: its level, 0 to 4.
    pub const DISK_LEVEL: &str = "nagi_disk_level";
    /// Gauge `{disk, resource, bound}`: time until it is full; missing when not in sight.
    pub const DISK_FULL_SECONDS: &str = "nagi_disk_full_seconds";
    /// Gauge `{disk}`: what the guard holds back.
    pub const DISK_BALLAST_BYTES: &str = "nagi_disk_ballast_bytes";
    /// Gauge `{disk}`: when it was looked at last.
    pub const DISK_LOOKED_AT_SECONDS: &str = "nagi_disk_looked_at_seconds";
    /// Gauge `{disk, owner}`: what belongs to an owner.
    pub const DISK_OWNER_BYTES: &str = "nagi_disk_owner_bytes";
    /// Gauge `{disk, owner, bound}`: how fast what belongs to an owner grows.
    pub const DISK_OWNER_GROWTH_BYTES_PER_HOUR: &str = "nagi_disk_owner_growth_bytes_per_hour";
    /// Gauge `{disk, owner}`: its part of the growth of the disk.
    pub const DISK_OWNER_GROWTH_RATIO: &str = "nagi_disk_owner_growth_ratio";
    /// Gauge `{disk, owner, bound}`: time until the disk is full at the rate of an owner alone; missing when not in sight.
    pub const DISK_OWNER_FULL_SECONDS: &str = "nagi_disk_owner_full_seconds";
    /// Counter `{sink, result}`: alerts of the guard.
    pub const DISK_ALERTS_TOTAL: &str = "nagi_disk_alerts_total";
    /// Counter `{kind}`: bytes that cleaning gave back.
    pub const DISK_FREED_BYTES_TOTAL: &str = "nagi_disk_freed_bytes_total";
    /// Counter: CPU time of this process, user and system.
    pub const PROCESS_CPU_SECONDS_TOTAL: &str = "process_cpu_seconds_total";
    /// Gauge: resident memory of this process.
    pub const PROCESS_RESIDENT_MEMORY_BYTES: &str = "process_resident_memory_bytes";
    /// Gauge: open file descriptors of this process.
    pub const PROCESS_OPEN_FDS: &str = "process_open_fds";
    /// Gauge: when this process started, in seconds since 1970.
    pub const PROCESS_START_TIME_SECONDS: &str = "process_start_time_seconds";
    /// Gauge: threads of this process.
    pub const PROCESS_THREADS: &str = "process_threads";

    /// The name under which a counter is registered: without `_total`, which the encoder appends.
    pub(crate) fn counter_base(name: &'static str) -> &'static str {
        name.strip_suffix("_total").unwrap_or(name)
    }
}
