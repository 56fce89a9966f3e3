//! Server-sent events (R19).

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Time;

/// Name of the event that tells a client that events were missed; the current state follows.
pub const RESET: &str = "reset";

/// What kind of event it is; also the name of the SSE event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The wanted count changed; `from` and `to` are counts.
    Scale,
    /// The status changed; `from` and `to` are status words.
    Status,
    /// A wake entered a stage; `from` and `to` are stages, or `failed`.
    Wake,
    /// A one-off wake was set, cancelled or came due; `from` and `to` are instants or `null`.
    Schedule,
}

impl EventKind {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scale => "scale",
            Self::Status => "status",
            Self::Wake => "wake",
            Self::Schedule => "schedule",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What something changed from or to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum EventValue {
    /// A count of replicas.
    Count(u32),
    /// A status, a stage, or an instant.
    Text(String),
}

/// The `data` of one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// The id to resume after, in `Last-Event-ID`.
    pub id: String,
    /// When.
    pub time: Time,
    /// What kind.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// Plural of the kind of the workload.
    pub resource: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Who caused it; `null` when nobody in particular did.
    pub actor: Option<String>,
    /// Why, where there is a reason.
    pub reason: Option<String>,
    /// Before.
    pub from: Option<EventValue>,
    /// After.
    pub to: Option<EventValue>,
}
