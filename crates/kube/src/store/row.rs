//! One row: made of an observation, and what it learns from the one before.

use std::sync::{Arc, LazyLock};

use nagi_core::guardrail::Guardrails;
use nagi_core::id::{Host, PoolName, WorkloadId};
use nagi_core::intent::Intent;
use nagi_core::quantity::{Replicas, WakeCount};
use nagi_core::workload::Pending;

use super::Row;
use crate::annotate::{self, Notes};
use crate::pods::{PodRow, shortened, urgency};
use crate::wire::{Scaled, ScaledStatus};

// === impl Row ===

impl Row {
    pub(super) fn of(object: &Scaled, listed: u32, pool: Option<Arc<PoolName>>) -> Self {
        let metadata = &object.metadata;
        let annotations = &metadata.annotations.0;
        let notes = (!annotations.is_empty()).then(|| Box::new(annotate::read(annotations)));
        Self {
            uid: metadata.uid.clone(),
            version: metadata.version(),
            timeline: 0,
            is_over: false,
            // Given with the event that tells of it.
            revision: 0,
            // The API server writes its default of 1 into every object.
            desired: object.spec.replicas.unwrap_or(1),
            unrecorded: 0,
            rose: false,
            current: object.status.replicas.unwrap_or(0),
            available: object.status.available_replicas.unwrap_or(0),
            listed,
            notes,
            labels: metadata.labels.clone(),
            pool,
            failure: failure(&object.status),
        }
    }

    pub(super) fn intent(&self) -> &Intent {
        static NOTHING: LazyLock<Intent> = LazyLock::new(Intent::default);
        self.notes.as_ref().map_or(&NOTHING, |notes| &notes.intent)
    }

    /// What was wanted before, as far as nobody recorded it.
    pub(super) fn unrecorded(&self) -> Option<Replicas> {
        if self.rose {
            return Some(Replicas::ZERO);
        }
        WakeCount::new(self.unrecorded).map(WakeCount::replicas)
    }

    /// Whether an object that is gone at this version is this one.
    pub(super) const fn is_behind_or_at(&self, version: u64) -> bool {
        self.is_over || self.version <= version
    }

    /// Takes the place of an earlier observation. From one of another timeline nothing is learned: what it says may never have
    /// been.
    pub(super) fn follow(&mut self, earlier: &Self) {
        self.timeline = earlier.timeline;
        if earlier.is_over {
            self.timeline = self.timeline.saturating_add(1);
        } else {
            self.learn_from(earlier);
        }
    }

    /// Learns from an earlier observation what was wanted just before the count became zero, unless somebody wrote a record
    /// in between; and of a workload without any record that its count was zero.
    pub(super) fn learn_from(&mut self, earlier: &Self) {
        // The same facts may be seen twice: that they are no news takes nothing back.
        self.rose |= self.desired > 0
            && self.uid == earlier.uid
            && self.intent().changes.is_empty()
            && (earlier.desired == 0 || earlier.rose);
        let (Some(now), Some(before)) = (self.notes.as_deref(), earlier.notes.as_deref()) else {
            return;
        };
        let is_silent = self.desired == 0
            && self.uid == earlier.uid
            && !now.intent.changes.is_empty()
            && now.intent == before.intent;
        if !is_silent {
            return;
        }
        let wanted = match earlier.desired {
            0 => earlier.unrecorded,
            wanted => wanted,
        };
        let count = WakeCount::new(wanted);
        if count.is_some() && count != now.intent.remembered {
            self.unrecorded = wanted;
        }
    }

    /// Why fewer serve than are wanted.
    pub(super) fn pending<'a>(
        &self,
        mut pods: impl Iterator<Item = &'a PodRow> + Clone,
    ) -> Option<Pending> {
        if self.desired == 0 {
            return pods.next().map(|_| Pending::Stopping);
        }
        if self.available >= self.desired {
            return None;
        }
        let worst = pods
            .filter(|pod| !pod.replica.stopping)
            .filter_map(|pod| pod.pending.as_ref())
            .max_by_key(|p| urgency(p));
        let failure = self
            .failure
            .as_deref()
            .map(|words| Pending::Engine(words.to_owned()));
        worst.cloned().or(failure)
    }

    pub(super) fn warn_of_unreadable(&self, id: &WorkloadId, known: Option<&Notes>) {
        let Some(notes) = &self.notes else {
            return;
        };
        if known.is_some_and(|known| known.unreadable == notes.unreadable) {
            return;
        }
        for (name, why) in &notes.unreadable {
            tracing::warn!(
                namespace = %id.namespace, workload = %id.name, annotation = name, error = %why,
                "Annotation cannot be read and counts as not there"
            );
        }
    }
}

/// What keeps the controllers from making pods: an exhausted quota, a policy that refuses them.
fn failure(status: &ScaledStatus) -> Option<Box<str>> {
    let mut conditions = status.conditions.iter();
    let failed = conditions
        .find(|condition| &*condition.kind == "ReplicaFailure" && &*condition.status == "True")?;
    let message = failed.message.as_deref().or(failed.reason.as_deref())?;
    Some(format!("no pod can be made: {}", shortened(message)).into())
}

/// The host that a workload has when nobody gave it one. What must not be woken is not put behind the gateway unasked.
pub(super) fn default_host(id: &WorkloadId) -> Vec<Host> {
    if Guardrails::default().check(&id.namespace).is_err() {
        return Vec::new();
    }
    id.default_host().into_iter().collect()
}
