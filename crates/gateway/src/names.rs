//! Names that clients of the gateway see: headers, words and paths, each defined once.
//!
//! They are an interface: a script that reads `Nagi-Status` breaks when one of them changes.

/// Response header of every answer that the gateway gave itself: one of the words of [`status`].
pub const STATUS_HEADER: &str = "nagi-status";
/// The gateway's own path on every host that it serves: where a wake stands, as JSON. Neither wakes nor keeps awake.
pub const STATUS_PATH: &str = "/.nagi/status";
/// Our name in `Via` (RFC 9110 §7.6.3).
pub const VIA: &str = "1.1 nagi";
/// The `User-Agent` of readiness probes.
pub const PROBE_USER_AGENT: &str = "nagi-gateway-probe";

/// Values of [`STATUS_HEADER`], also the `result` of `nagi_gateway_requests_total`.
pub mod status {
    /// Forwarded and answered by the workload (metric only).
    pub const PROXIED: &str = "proxied";
    /// The client went away while it was held (metric only).
    pub const CLIENT_GONE: &str = "client-gone";
    /// The request breaks HTTP or a rule of the gateway.
    pub const BAD_REQUEST: &str = "bad-request";
    /// No workload has this host.
    pub const UNKNOWN_HOST: &str = "unknown-host";
    /// The gateway has not read its routes yet.
    pub const STARTING: &str = "starting";
    /// The workload sleeps and this request may not wake it.
    pub const ASLEEP: &str = "asleep";
    /// The workload is on its way; come again.
    pub const WAKING: &str = "waking";
    /// The wake cannot succeed as things are; a person must act.
    pub const WAKE_FAILED: &str = "wake-failed";
    /// More requests are held than the limits allow.
    pub const HOLD_FULL: &str = "hold-full";
    /// The replica could not be reached, or its connection broke before an answer came.
    pub const UPSTREAM_FAILED: &str = "upstream-failed";
    /// The replica did not begin to answer in time.
    pub const UPSTREAM_TIMEOUT: &str = "upstream-timeout";
    /// The gateway is shutting down.
    pub const STOPPING: &str = "stopping";
    /// The answer of [`super::STATUS_PATH`] while the workload serves.
    pub const READY: &str = "ready";
}
