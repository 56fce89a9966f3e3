//! When to look at which workload: the next one is found without going through all of them.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use nagi_core::id::WorkloadId;

/// At most one time for each workload, in monotonic time.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    times: HashMap<WorkloadId, Duration>,
    order: BTreeSet<(Duration, WorkloadId)>,
}

impl Agenda {
    /// Looks at this one at that time, and at no other.
    pub(crate) fn set(&mut self, id: WorkloadId, at: Duration) {
        self.remove(&id);
        self.times.insert(id.clone(), at);
        self.order.insert((at, id));
    }

    /// Looks at this one at that time at the latest.
    pub(crate) fn bring_forward(&mut self, id: WorkloadId, at: Duration) {
        if self.times.get(&id).is_none_or(|known| *known > at) {
            self.set(id, at);
        }
    }

    pub(crate) fn remove(&mut self, id: &WorkloadId) {
        if let Some((id, at)) = self.times.remove_entry(id) {
            self.order.remove(&(at, id));
        }
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&WorkloadId) -> bool) {
        self.times.retain(|id, _| keep(id));
        self.order.retain(|(_, id)| keep(id));
    }

    /// The first one whose time has come; it stays until it is removed.
    pub(crate) fn due(&self, now: Duration) -> Option<WorkloadId> {
        let (at, id) = self.order.first()?;
        (*at <= now).then(|| id.clone())
    }

    /// The first time of all.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_comes_first_and_each_workload_has_one() {
        let (a, b) = (nagi_testkit::id("p/a"), nagi_testkit::id("p/b"));
        let at = Duration::from_secs;
        let mut agenda = Agenda::default();
        agenda.set(a.clone(), at(5));
        agenda.set(b.clone(), at(3));
        assert_eq!((agenda.next(), agenda.due(at(2))), (Some(at(3)), None));
        assert_eq!(agenda.due(at(9)), Some(b.clone()));
        agenda.set(a.clone(), at(1));
        assert_eq!(agenda.due(at(9)), Some(a.clone()), "its later time is gone");
        agenda.bring_forward(a.clone(), at(2));
        assert_eq!(agenda.next(), Some(at(1)), "it had an earlier time");
        agenda.remove(&a);
        assert_eq!(agenda.next(), Some(at(3)));
        agenda.retain(|id| *id != b);
        assert_eq!((agenda.next(), agenda.due(at(9))), (None, None));
    }
}
