//! What travels over the wire between the Scale API and its callers: routes, bodies, and their checks.
//!
//! The types here are promises to others, so they are apart from the types of the domain and joined to them by
//! `From`. Server and client share them; the OpenAPI document is generated from them. Reading a request body is a
//! pure function from bytes to an order, strict about what JSON is and indifferent to fields that it does not know.
//! There is deliberately no HTTP here and no rule of scaling.

pub mod body;
pub mod events;
pub mod health;
pub mod history;
pub mod list;
pub mod logs;
pub mod pools;
pub mod problem;
pub mod routes;
pub mod scale;
pub mod time;
pub mod workload;

pub use body::{BodyError, FieldError, Json};
pub use events::{Event, EventKind, EventValue};
pub use health::{HealthAnswer, ReadyAnswer};
pub use history::{HistoryAnswer, HistoryItem};
pub use list::{ListAnswer, ScheduledItem, ScheduledListAnswer, UnreadKind};
pub use logs::{LogItem, LogsAnswer};
pub use pools::{NodeItem, PoolItem, PoolsAnswer};
pub use problem::ErrorBody;
pub use scale::{
    ScaleAnswer, ScaleResult, ScaleToZeroRequest, ScaleUpRequest, ScheduleAnswer, ScheduleResult,
    WakeAnswer, WakeRequest, WakeResult,
};
pub use time::Time;
pub use workload::{StatusAnswer, WorkloadItem};
