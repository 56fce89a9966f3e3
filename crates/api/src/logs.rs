//! What the replicas of a workload printed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Succeeded;
use crate::time::Time;

/// Lines of each replica when the caller does not say.
pub const TAIL_DEFAULT: usize = 100;
/// Most lines of each replica.
pub const TAIL_MAX: usize = 10_000;

/// `GET …/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogsAnswer {
    /// Always `success`.
    pub status: Succeeded,
    /// How many lines the page holds, in words.
    pub message: String,
    /// The lines, oldest first for each replica.
    pub items: Vec<LogItem>,
    /// Pass it as `after` to get what came later.
    pub cursor: String,
    /// When the answer was made.
    pub timestamp: Time,
}

/// One printed line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogItem {
    /// By which replica.
    pub replica: String,
    /// The line, without its end.
    pub text: String,
}
