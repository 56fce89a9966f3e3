//! What happened: changes, newest first. Losing it loses history, never correctness.

use std::fmt::Debug;

use async_trait::async_trait;
use jiff::Timestamp;
use nagi_core::id::{Name, Namespace, WorkloadId};
use nagi_core::intent::Change;

use crate::error::PortError;

/// One change of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Unique and growing in time.
    pub id: u64,
    /// Which workload.
    pub workload: WorkloadId,
    /// What happened.
    pub change: Change,
    /// Where the entry was read: `journal`, or `object` when only the object itself still knew it.
    pub source: &'static str,
}

/// Which changes are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryQuery {
    /// Only of this namespace.
    pub namespace: Option<Namespace>,
    /// Only of workloads of this name.
    pub name: Option<Name>,
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Only entries with a smaller id: the next page.
    pub before: Option<u64>,
    /// At most this many.
    pub limit: usize,
}

/// Some changes, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// The changes.
    pub entries: Vec<HistoryEntry>,
    /// More entries follow the last one.
    pub more: bool,
    /// How far back the history reaches at all; `None` when it is empty.
    pub reaches_back_to: Option<Timestamp>,
}

/// The history of changes.
#[async_trait]
pub trait Journal: Debug + Send + Sync {
    /// Reads a page.
    async fn history(&self, query: &HistoryQuery) -> Result<HistoryPage, PortError>;
}
