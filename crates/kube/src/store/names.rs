//! What kinds are called: owners of pods and targets of autoscalers name a kind, workloads are known by its plural, and only
//! the definition of a kind tells which plural it has.
//!
//! Pods and autoscalers are there before the definitions are read, so they are kept under the plural of convention until a
//! definition gives another one.

use jiff::Timestamp;
use nagi_core::id::{Resource, WorkloadId};

use super::{Inner, Store};

impl Store {
    /// What is known of workloads of the kind `usual`, by convention, is known of `real` from now on.
    pub(crate) fn rename(&self, usual: Resource, real: &Resource, now: Timestamp) {
        let mut inner = self.write();
        let of_usual = |id: &&WorkloadId| id.resource == usual;
        let mut ids: Vec<WorkloadId> = inner.pods.keys().filter(of_usual).cloned().collect();
        ids.extend(inner.scalers.keys().filter(of_usual).cloned());
        inner.plurals.insert(usual, real.clone());
        for former in ids {
            let id = inner.named(&former);
            if let Some(pods) = inner.pods.remove(&former) {
                inner.pods.entry(id.clone()).or_default().extend(pods);
            }
            if let Some(scalers) = inner.scalers.remove(&former) {
                inner.scalers.entry(id.clone()).or_default().extend(scalers);
            }
            self.tell(&mut inner, &id, now);
        }
    }
}

impl Inner {
    /// The workload that is meant by a kind's plural of convention.
    pub(super) fn named(&self, id: &WorkloadId) -> WorkloadId {
        let real = self.plurals.get(&id.resource);
        WorkloadId {
            resource: real.unwrap_or(&id.resource).clone(),
            ..id.clone()
        }
    }
}
