//! Autoscalers: which workloads they aim at, and the least counts that they go to.

use jiff::Timestamp;
use nagi_core::id::{Namespace, WorkloadId};
use nagi_core::quantity::Replicas;

use super::{Store, Within};

impl Store {
    /// Takes an observation of an autoscaler in: `name` with its kind.
    pub(crate) fn apply_scaler(
        &self,
        target: &WorkloadId,
        name: &str,
        minimum: Replicas,
        list: u32,
        now: Timestamp,
    ) {
        let mut inner = self.write();
        let target = &inner.named(target);
        let same_name = |known: &str| known == name;
        // It may have aimed at another workload before.
        let mut former = Vec::new();
        for (id, scalers) in &mut inner.scalers {
            if id.namespace == target.namespace && id != target {
                let before = scalers.len();
                scalers.retain(|known, _| !same_name(known));
                if scalers.len() != before {
                    former.push(id.clone());
                }
            }
        }
        for id in former {
            self.tell(&mut inner, &id, now);
        }
        let scalers = inner.scalers.entry(target.clone()).or_default();
        let before = scalers.insert(name.into(), (minimum, list));
        if before.is_none_or(|(known, _)| known != minimum) {
            self.tell(&mut inner, target, now);
        }
    }

    /// An autoscaler of a namespace is gone.
    pub(crate) fn remove_scaler(&self, namespace: &Namespace, name: &str, now: Timestamp) {
        self.drop_scalers(now, |id, known, _| {
            id.namespace == *namespace && known == name
        });
    }

    /// A list of autoscalers of this kind is complete.
    pub(crate) fn sweep_scalers(&self, kind: &str, within: Within<'_>, list: u32, now: Timestamp) {
        self.drop_scalers(now, |id, known, listed| {
            within.covers(&id.namespace)
                && known.split_once('/').is_some_and(|(of, _)| of == kind)
                && listed != list
        });
    }

    fn drop_scalers(&self, now: Timestamp, gone: impl Fn(&WorkloadId, &str, u32) -> bool) {
        let mut inner = self.write();
        let mut changed = Vec::new();
        inner.scalers.retain(|id, scalers| {
            let before = scalers.len();
            scalers.retain(|known, (_, listed)| !gone(id, known, *listed));
            if scalers.len() != before {
                changed.push(id.clone());
            }
            !scalers.is_empty()
        });
        for id in changed {
            self.tell(&mut inner, &id, now);
        }
    }
}
