//! What the runner tells the ports after each round: facts of every workload, nodes and their account.

use std::collections::BTreeMap;
use std::time::Duration;

use nagi_core::id::WorkloadId;
use nagi_core::workload::Pending;

use super::Runner;
use super::replica::Replica;
use crate::engine::facts::{Facts, NodeFacts};
use crate::world::{NodeState, Phase, Place, Plan};

impl Runner {
    /// Tells the ports what there is now.
    pub(super) fn publish(&self, plan: &Plan) {
        let mut facts: BTreeMap<WorkloadId, Facts> = BTreeMap::new();
        for (id, replica) in &self.replicas {
            let waiting = plan.waiting.get(id);
            let of_workload = facts.entry(id.workload.clone()).or_default();
            of_workload.replicas.push(replica.facts(id, waiting));
            let (reason, node_ready_at) = self.reason(replica, waiting);
            let Some(reason) = reason else { continue };
            if of_workload
                .pending
                .as_ref()
                .is_none_or(|known| urgency(known) < urgency(&reason))
            {
                of_workload.pending = Some(reason);
                of_workload.node_ready_at = node_ready_at;
            }
        }
        let replicas_on = |node: &NodeState| {
            let on = |replica: &&Replica| matches!(&replica.place, Place::On { node: on, .. } if *on == node.name);
            u32::try_from(self.replicas.values().filter(on).count()).unwrap_or(u32::MAX)
        };
        let nodes = NodeFacts {
            nodes: self.nodes.nodes.clone(),
            replicas: self.nodes.nodes.iter().map(replicas_on).collect(),
            accounts: self.nodes.accounts.clone(),
            accounted_at: self.accounted_at,
        };
        self.shared.publish(facts, nodes);
    }

    /// Why a replica does not serve. The instant a node is expected at is kept apart, so that the passing of time alone is
    /// no change.
    fn reason(
        &self,
        replica: &Replica,
        waiting: Option<&Pending>,
    ) -> (Option<Pending>, Option<Duration>) {
        let now = self.shared.clock.monotonic();
        match waiting {
            Some(Pending::NodeBooting { pool, ready_in }) => {
                let soonest = self.nodes.nodes.iter().filter_map(|node| match node.phase {
                    Phase::Booting { ready_at } if node.pool == *pool => Some(ready_at),
                    Phase::Booting { .. } | Phase::Ready { .. } => None,
                });
                let ready_at = soonest.min().or(ready_in.map(|left| now + left));
                (
                    Some(Pending::NodeBooting {
                        pool: pool.clone(),
                        ready_in: None,
                    }),
                    ready_at,
                )
            }
            Some(other) => (Some(other.clone()), None),
            None if replica.is_stopping() => (Some(Pending::Stopping), None),
            None => (replica.pending(), None),
        }
    }
}

/// Which reason says most about a workload of which several replicas do not serve: the one that waiting will not mend. Of
/// two crash loops the longer one counts: by it a wake is given up.
const fn urgency(pending: &Pending) -> (u8, u32) {
    match pending {
        Pending::DoesNotFit { .. } => (6, 0),
        Pending::PoolAtMaximum { .. } => (5, 0),
        Pending::CrashLoop { restarts, .. } => (4, *restarts),
        Pending::NodeBooting { .. } => (3, 0),
        // One that served and does not answer any more.
        Pending::Engine(_) => (2, 0),
        Pending::Unready(_) => (1, 1),
        Pending::Starting | Pending::Pulling => (1, 0),
        Pending::Stopping => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_crash_loops_the_longer_one_is_told() {
        let crash_loop = |restarts| Pending::CrashLoop {
            restarts,
            last_exit: String::new(),
        };
        assert!(urgency(&crash_loop(1)) < urgency(&crash_loop(6)));
        assert!(urgency(&Pending::Starting) < urgency(&crash_loop(0)));
        let full = Pending::DoesNotFit {
            pool: nagi_core::id::PoolName::new("gpu").unwrap(),
        };
        assert!(urgency(&crash_loop(u32::MAX)) < urgency(&full));
    }
}
