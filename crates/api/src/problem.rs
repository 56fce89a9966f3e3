//! The one body of every error (A-149, W-A31).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Time;

/// The `error` of a 404 for a path that this listener does not have, which is not about any workload.
pub const NO_SUCH_PATH: &str = "no such path";

/// The word in `status` of an answer that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Failed {
    /// It failed.
    Error,
}

/// The word in `status` of an answer that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Succeeded {
    /// It succeeded.
    Success,
}

/// The body of every answer whose HTTP status is 400 or above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// Always `error`.
    pub status: Failed,
    /// What failed, in words that stay the same.
    #[schema(example = "Deployment project-a/sample-app-a not found")]
    pub message: String,
    /// Why it failed this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<String>,
    /// The field, parameter or path segment at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "replicas")]
    pub field: Option<String>,
    /// What that field must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "an integer from 1 to 100")]
    pub limit: Option<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hint: Option<String>,
    /// When the answer was made.
    pub timestamp: Time,
}
