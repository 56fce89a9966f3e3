//! What the runner sees of workloads, replicas and nodes, and how the ports show it.
//!
//! Facts hold instants, the ports show what is left until then: the passing of time alone is no change of a fact.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use nagi_core::id::PoolName;
use nagi_core::pool::{Cost, Money, Node, NodePhase, Pool};
use nagi_core::wake::Stage;
use nagi_core::workload::{Pending, Readiness, Replica};

use crate::file::PoolSpec;
use crate::world::account::Account;
use crate::world::{NodeState, Phase, ReplicaId};

/// What the runner sees of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    pub(crate) replicas: Vec<ReplicaFacts>,
    pub(crate) pending: Option<Pending>,
    /// With a pending [`Pending::NodeBooting`]: when the node is expected, in monotonic time.
    pub(crate) node_ready_at: Option<Duration>,
}

/// What the runner sees of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplicaFacts {
    pub(crate) id: ReplicaId,
    pub(crate) stage: Stage,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) ready: bool,
    pub(crate) stopping: bool,
    pub(crate) restarts: u32,
}

/// What the runner sees of the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct NodeFacts {
    pub(crate) nodes: Vec<NodeState>,
    /// Replicas on each node, in the order of `nodes`.
    pub(crate) replicas: Vec<u32>,
    pub(crate) accounts: BTreeMap<PoolName, Account>,
    /// Until when the accounts are counted, in monotonic time.
    pub(crate) accounted_at: Duration,
}

// === impl ReplicaFacts ===

impl ReplicaFacts {
    pub(super) fn shown(&self, readiness: &Readiness) -> Replica {
        Replica {
            name: self.id.name(),
            stage: self.stage,
            address: self.address,
            readiness: readiness.clone(),
            ready: self.ready,
            stopping: self.stopping,
            restarts: self.restarts,
        }
    }
}

// === impl NodeFacts ===

impl NodeFacts {
    pub(super) fn pool(&self, spec: &PoolSpec, now: Duration) -> Pool {
        let left = |at: Duration| at.saturating_sub(now);
        let nodes: Vec<Node> = (self.nodes.iter().zip(&self.replicas))
            .filter(|(node, _)| node.pool == spec.name)
            .map(|(node, replicas)| Node {
                name: node.name.clone(),
                phase: match node.phase {
                    Phase::Booting { ready_at } => NodePhase::Booting {
                        ready_in: Some(left(ready_at)),
                    },
                    Phase::Ready { release_at } => NodePhase::Ready {
                        released_in: release_at.map(left),
                    },
                },
                replicas: *replicas,
            })
            .collect();
        let mut account = self.accounts.get(&spec.name).copied().unwrap_or_default();
        // What has passed since the runner last counted.
        let since = now.saturating_sub(self.accounted_at);
        account.pass(since, u32::try_from(nodes.len()).unwrap_or(u32::MAX));
        let price_per_hour = Money {
            micros: spec.price_per_hour_micro,
        };
        Pool {
            name: spec.name.clone(),
            nodes,
            nodes_max: Some(spec.nodes_max),
            cost: Some(Cost {
                price_per_hour,
                spent: account.spent(price_per_hour),
                saved: account.saved(price_per_hour),
            }),
        }
    }
}
