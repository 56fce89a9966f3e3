//! Workloads that the file does not name any more: what is wanted of them is kept for when they come back.
//!
//! A file that was saved by halves, or a section that somebody comments out for an hour, must not cost the count to restore or
//! a schedule (invariant 7). So leaving the file is a change like any other: written down durably before anything is ended, recorded
//! in the history, and taken back by the next file that names the workload. Its life goes on: the uid is the same.
//!
//! At a start, what is remembered of workloads that the file does not name left it while Nagi was down.

use std::collections::BTreeMap;

use jiff::Timestamp;
use nagi_core::id::{Version, WorkloadId};
use nagi_core::intent::{Action, Actor, Change, IntentUpdate};
use nagi_core::quantity::Replicas;
use nagi_core::text::ReasonText;

use super::Shared;
use crate::engine::explained;
use crate::store::{Remembered, StoreError};

/// Workloads kept at most: as many as one file can name, so that emptying the largest one by mistake loses nothing. Beyond
/// that, those that left first are forgotten. Each takes 8 KiB of the disk.
const KEPT_MAX: usize = 1_000;

const REMOVED: &str = "removed from the workload file";
const RETURNED: &str = "back in the workload file";

impl Shared {
    /// Finds what left the file while nobody looked. Returns all that is kept, for the history.
    ///
    /// # Errors
    /// [`StoreError::Write`] when a removal could not be written down. What cannot be read is left alone and logged: nobody
    /// asks for it now.
    pub(crate) fn take_stock(&self) -> Result<Vec<(WorkloadId, Vec<Change>)>, StoreError> {
        let mut found = Vec::new();
        for id in self.store.workloads() {
            if self.lock().workloads.contains_key(&id) {
                continue;
            }
            let state = match self.store.read_workload(&id) {
                Ok(Some(state)) => state,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(
                        namespace = %id.namespace, workload = %id.name, error = explained(&error),
                        "What was wanted of a workload that left the workload file cannot be read"
                    );
                    continue;
                }
            };
            let state = match state.removed {
                Some(since) => {
                    self.lock().kept.insert(id.clone(), since);
                    state
                }
                None => self.keep(&id, state)?,
            };
            found.push((id, state.update.intent.changes));
        }
        self.bound_kept();
        Ok(found)
    }

    /// Writes down that a workload left the file, and tells who may miss it.
    pub(super) fn keep(
        &self,
        id: &WorkloadId,
        state: Remembered,
    ) -> Result<Remembered, StoreError> {
        let acknowledged = state.version;
        let (state, change) = removed(state, self.store.next_version(), self.clock.now());
        self.store.write_workload(id, Some(acknowledged), &state)?;
        self.lock()
            .kept
            .extend(state.removed.map(|since| (id.clone(), since)));
        let IntentUpdate { desired, intent } = &state.update;
        let remembered = intent.remembered.map(|count| count.replicas().0);
        if let Some(scheduled) = &intent.scheduled {
            tracing::warn!(
                namespace = %id.namespace, workload = %id.name, replicas = desired.0, remembered,
                scheduled_scale_up = %scheduled.at,
                "Workload left the workload file, its scheduled wake waits until it is back"
            );
        } else {
            tracing::info!(
                namespace = %id.namespace, workload = %id.name, replicas = desired.0, remembered,
                "Workload left the workload file, what is wanted of it is kept"
            );
        }
        self.record(id, vec![change]);
        Ok(state)
    }

    /// Writes down that a workload is back, as it was wanted when it left.
    pub(super) fn take_back(
        &self,
        id: &WorkloadId,
        state: Remembered,
        declared: Replicas,
    ) -> Result<Remembered, StoreError> {
        let acknowledged = state.version;
        let (state, change) = returned(state, self.store.next_version(), self.clock.now());
        // Its count in the file may have changed as well; the controller records that as a change of its own.
        let state = super::declared_anew(state, declared);
        self.store.write_workload(id, Some(acknowledged), &state)?;
        self.lock().kept.remove(id);
        tracing::info!(
            namespace = %id.namespace, workload = %id.name, replicas = state.update.desired.0,
            "Workload is back in the workload file, as it was wanted before"
        );
        self.record(id, vec![change]);
        Ok(state)
    }

    /// Forgets those that left first beyond [`KEPT_MAX`].
    pub(super) fn bound_kept(&self) {
        let surplus = surplus(&self.lock().kept, KEPT_MAX);
        for id in surplus {
            tracing::warn!(
                namespace = %id.namespace, workload = %id.name,
                "Workload left the workload file long ago and is forgotten"
            );
            self.store.forget_workload(&id);
            self.lock().kept.remove(&id);
        }
    }
}

/// The state of a workload that left the file. What is wanted stays as it is; the change says that nothing runs meanwhile.
fn removed(state: Remembered, version: Version, now: Timestamp) -> (Remembered, Change) {
    let change = outside(now, REMOVED, state.update.desired, Replicas(0));
    let state = Remembered {
        version,
        removed: Some(now),
        ..state
    };
    recorded(state, change)
}

/// The state of one that is back.
fn returned(state: Remembered, version: Version, now: Timestamp) -> (Remembered, Change) {
    let change = outside(now, RETURNED, Replicas(0), state.update.desired);
    let state = Remembered {
        version,
        removed: None,
        ..state
    };
    recorded(state, change)
}

fn recorded(mut state: Remembered, change: Change) -> (Remembered, Change) {
    state.update.intent.record(change.clone());
    (state, change)
}

fn outside(time: Timestamp, reason: &str, from: Replicas, to: Replicas) -> Change {
    Change {
        time,
        action: Action::OutsideChange,
        actor: Actor::Outside,
        reason: ReasonText::new(reason).expect("a constant of a few words"),
        request_id: None,
        from,
        to,
    }
}

/// Those that left first, beyond so many.
fn surplus(kept: &BTreeMap<WorkloadId, Timestamp>, most: usize) -> Vec<WorkloadId> {
    let mut by_age: Vec<_> = kept.iter().map(|(id, since)| (*since, id)).collect();
    by_age.sort_unstable();
    let many = by_age.len().saturating_sub(most);
    by_age
        .into_iter()
        .take(many)
        .map(|(_, id)| id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use nagi_core::id::{Name, Namespace};

    use super::*;

    #[test]
    fn beyond_the_limit_those_that_left_first_are_forgotten() {
        let id = |name: &str| {
            WorkloadId::deployment(Namespace::new("a").unwrap(), Name::new(name).unwrap())
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let kept = BTreeMap::from([(id("x"), at(3)), (id("y"), at(1)), (id("z"), at(2))]);
        assert_eq!(surplus(&kept, 3), []);
        assert_eq!(surplus(&kept, 2), [id("y")]);
        assert_eq!(surplus(&kept, 0), [id("y"), id("z"), id("x")]);
    }
}
