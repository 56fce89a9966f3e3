//! What this process says about itself: the JSON log, the metrics, the profiles.
//!
//! - [`Log`] writes one compact JSON object per line; the founding documents' `jq` and `grep`
//!   commands read it, so its bytes are an interface. Request lines go in as [`RequestLine`],
//!   everything else through `tracing` macros.
//! - [`Metrics`] is the set of typed Prometheus families, rendered for `/metrics`.
//! - [`profile`] takes CPU profiles and dumps tasks and threads.
//! - [`names`] holds every field and metric name, once.
//!
//! It deliberately serves no HTTP, reads no environment and knows no type of the domain: label
//! values come in as enums or `&'static str`, so that no client input can become a time series.

mod level;
mod log;
mod metrics;
pub mod names;
pub mod profile;

pub use level::{LevelFilter, LevelFilterError};
pub use log::{
    EmitLayer, Failure, FieldValue, LINE_BYTES_MAX, LinesDropped, Log, LogError, RequestLine, Sink,
};
pub use metrics::{
    Authentication, CONTENT_TYPE, ConfigFile, CountGuard, DepthGauge, DiskFacts, Metrics,
    MetricsError, OwnerFacts,
};
