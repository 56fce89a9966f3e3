//! What the replicas of a workload printed.

use std::fmt::Debug;

use async_trait::async_trait;
use nagi_core::id::{ReplicaName, WorkloadId};

use crate::error::PortError;

/// One printed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// By which replica.
    pub replica: ReplicaName,
    /// The line, without its end; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// The last so many lines of each replica; ignored when `after` is set.
    pub tail: usize,
    /// Everything since an earlier page's cursor.
    pub after: Option<String>,
}

/// Lines, oldest first for each replica, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// Opaque; pass it as `after` to get what came later. Output that was rotated away meanwhile is skipped.
    pub cursor: String,
}

/// The output of replicas.
#[async_trait]
pub trait Logs: Debug + Send + Sync {
    /// Reads a page of at most 1 MiB.
    async fn read(&self, id: &WorkloadId, query: &LogQuery) -> Result<LogPage, PortError>;
}
