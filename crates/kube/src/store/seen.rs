//! What a visit shows of a row, without making a copy of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nagi_core::id::WorkloadId;
use nagi_core::intent::Intent;
use nagi_core::quantity::Replicas;
use nagi_core::status::Counts;
use nagi_core::workload::Workload;
use nagi_ports::{Glance, Revision};

use super::{Inner, Row};

/// One workload as a visit shows it.
pub(super) struct Seen<'a> {
    pub(super) inner: &'a Inner,
    pub(super) id: &'a WorkloadId,
    pub(super) row: &'a Row,
    pub(super) observed_at: Timestamp,
}

impl Glance for Seen<'_> {
    fn id(&self) -> &WorkloadId {
        self.id
    }

    fn revision(&self) -> Revision {
        Revision(self.row.revision)
    }

    fn counts(&self) -> Counts {
        self.inner.counts(self.id, self.row)
    }

    fn intent(&self) -> &Intent {
        self.row.intent()
    }

    fn unrecorded(&self) -> Option<Replicas> {
        self.row.unrecorded()
    }

    fn idle_after(&self) -> Option<Duration> {
        None
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.row.labels.get(key)
    }

    fn workload(&self) -> Arc<Workload> {
        let workload = self.inner.snapshot(self.id, self.row, self.observed_at);
        Arc::new(workload)
    }
}
