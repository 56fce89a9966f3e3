//! Liveness and readiness, with exactly the fields that the founding documents show.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Time;

/// What `/ready` says in `error` when a Kubernetes API does not answer (A-016, K-09).
pub const KUBERNETES_UNREACHABLE: &str = "unable to connect to Kubernetes API";
/// The same for the local engine (R03).
pub const LOCAL_UNREACHABLE: &str =
    "the local engine does not answer, or its state directory is away: the log says which";

/// `GET /health`: the process lives. Exactly two fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthAnswer {
    /// Always `healthy`.
    #[schema(example = "healthy")]
    pub status: String,
    /// Now.
    pub time: Time,
}

/// `GET /ready`: the engine can be reached, or not (A-016, A-071, R03).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReadyAnswer {
    /// `ready` or `not ready`.
    #[schema(example = "ready")]
    pub status: String,
    /// `connected`; on the Kubernetes engine while it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "connected")]
    pub kubernetes: Option<String>,
    /// `local`; on the local engine while it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub engine: Option<String>,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<String>,
    /// Now.
    pub time: Time,
}
