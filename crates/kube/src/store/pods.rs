//! The pods of workloads.

use std::collections::BTreeMap;

use jiff::Timestamp;
use nagi_core::id::{ReplicaName, WorkloadId};

use super::{Store, Within};
use crate::pods::{Advice, PodRow};
use crate::reflect::Listed;

impl Store {
    /// The replicas of a workload, with the node of each.
    pub(crate) fn pods(&self, id: &WorkloadId) -> Vec<PodRow> {
        let inner = self.read();
        let pods = inner.pods.get(id).into_iter().flat_map(BTreeMap::values);
        pods.map(|(row, _)| row.clone()).collect()
    }

    /// Every pod of a known workload, with its workload.
    pub(crate) fn each_pod(&self, mut see: impl FnMut(&WorkloadId, &PodRow)) {
        let inner = self.read();
        for (id, pods) in &inner.pods {
            for (row, _) in pods.values() {
                see(id, row);
            }
        }
    }

    /// Of pods, whatever comes next is newer.
    pub(crate) fn forget_pod_versions(&self, within: Within<'_>) {
        let mut inner = self.write();
        let of_workloads = inner.pods.iter_mut();
        for (_, pods) in of_workloads.filter(|(id, _)| within.covers(&id.namespace)) {
            for (pod, _) in pods.values_mut() {
                pod.version = 0;
            }
        }
    }

    /// Takes an observation of a pod in.
    pub(crate) fn apply_pod(&self, id: &WorkloadId, pod: PodRow, by: Listed, now: Timestamp) {
        let list = by.number;
        let mut inner = self.write();
        let id = &inner.named(id);
        let pods = inner.pods.entry(id.clone()).or_default();
        let name = pod.replica.name.clone();
        match pods.get_mut(&name) {
            Some((known, listed))
                if known.version >= pod.version && !by.is_before(known.version, pod.version) =>
            {
                *listed = list;
            }
            Some((known, listed)) => {
                let seen = |pod: &PodRow| (pod.replica.clone(), pod.pending.clone(), pod.finished);
                let mut pod = pod;
                pod.keep_advice(known);
                let changed = seen(known) != seen(&pod);
                (*known, *listed) = (pod, list);
                if changed {
                    self.tell(&mut inner, id, now);
                }
            }
            None => {
                pods.insert(name, (pod, list));
                self.tell(&mut inner, id, now);
            }
        }
    }

    /// Something was said about a pod that waits for a node.
    pub(crate) fn advise(
        &self,
        id: &WorkloadId,
        name: &ReplicaName,
        advice: Option<Advice>,
        now: Timestamp,
    ) {
        let mut inner = self.write();
        let Some((pod, _)) = inner.pods.get_mut(id).and_then(|pods| pods.get_mut(name)) else {
            return;
        };
        let before = pod.clone();
        if let Some(advice) = advice {
            pod.advise(&advice);
        }
        if *pod != before {
            self.tell(&mut inner, id, now);
        }
    }

    /// A pod is gone.
    pub(crate) fn remove_pod(
        &self,
        id: &WorkloadId,
        name: &ReplicaName,
        version: u64,
        now: Timestamp,
    ) {
        let mut inner = self.write();
        let id = &inner.named(id);
        let Some(pods) = inner.pods.get_mut(id) else {
            return;
        };
        if pods
            .get(name)
            .is_some_and(|(known, _)| known.version <= version)
        {
            pods.remove(name);
            if pods.is_empty() {
                inner.pods.remove(id);
            }
            self.tell(&mut inner, id, now);
        }
    }

    /// A list of pods is complete.
    pub(crate) fn sweep_pods(&self, within: Within<'_>, list: u32, now: Timestamp) {
        let mut inner = self.write();
        let mut changed = Vec::new();
        inner.pods.retain(|id, pods| {
            if !within.covers(&id.namespace) {
                return true;
            }
            let before = pods.len();
            pods.retain(|_, (_, listed)| *listed == list);
            if pods.len() != before {
                changed.push(id.clone());
            }
            !pods.is_empty()
        });
        for id in changed {
            self.tell(&mut inner, &id, now);
        }
    }
}
