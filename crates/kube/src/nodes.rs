//! Pools of nodes, by the labels that say which pool a node belongs to.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use nagi_core::id::{NodeName, PoolName};
use nagi_core::pool::{Node, NodePhase, Pool};
use nagi_ports::{Nodes, PortError};
use serde::Deserialize;

use crate::engine::{KubeEngine, Shared};
use crate::names::POOL_LABELS;
use crate::wire::{Condition, Labels};

/// A node without any of these labels stands in this pool.
const NO_POOL: &str = "default";

/// A node, as far as it matters to pools and pods.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeObject {
    pub(crate) metadata: NodeMeta,
    status: NodeStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeMeta {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    /// RFC 3339 in UTC, which compares as text.
    pub(crate) creation_timestamp: Box<str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    conditions: Vec<Condition>,
    allocatable: BTreeMap<Box<str>, Box<str>>,
}

// === impl NodeObject ===

impl NodeObject {
    pub(crate) fn is_ready(&self) -> bool {
        let mut conditions = self.status.conditions.iter();
        conditions.any(|known| &*known.kind == "Ready" && &*known.status == "True")
    }

    /// Whether it can give a pod this resource, used ones included.
    pub(crate) fn has(&self, resource: &str) -> bool {
        let count = self.status.allocatable.get(resource);
        count.is_some_and(|count| &**count != "0")
    }
}

#[async_trait]
impl Nodes for KubeEngine {
    async fn pools(&self) -> Result<Vec<Pool>, PortError> {
        let shared = &self.shared;
        let nodes = shared.nodes("").await?;
        let mut replicas: HashMap<Box<str>, u32> = HashMap::new();
        shared.store.each_pod(|_, pod| {
            if let Some(node) = &pod.node
                && !pod.finished
            {
                *replicas.entry(node.clone()).or_default() += 1;
            }
        });
        let mut pools: BTreeMap<PoolName, Vec<Node>> = BTreeMap::new();
        for node in nodes {
            let Some((pool, node)) = placed(&node, &replicas) else {
                continue;
            };
            pools.entry(pool).or_default().push(node);
        }
        let pools = pools.into_iter().map(|(name, mut nodes)| {
            nodes.sort_by(|a, b| a.name.cmp(&b.name));
            Pool {
                name,
                nodes,
                // Both are the cloud's business.
                nodes_max: None,
                cost: None,
            }
        });
        Ok(pools.collect())
    }
}

impl Shared {
    /// All nodes that a query (`&labelSelector=…`, or nothing) chooses, read from the API server.
    pub(crate) async fn nodes(&self, query: &str) -> Result<Vec<NodeObject>, PortError> {
        self.list_live("/api/v1/nodes", query).await
    }
}

fn placed(node: &NodeObject, replicas: &HashMap<Box<str>, u32>) -> Option<(PoolName, Node)> {
    let labels = &node.metadata.labels;
    let pool = POOL_LABELS.iter().find_map(|label| labels.get(label));
    let pool = PoolName::new(pool.unwrap_or(NO_POOL)).ok()?;
    let phase = if node.is_ready() {
        NodePhase::Ready { released_in: None }
    } else {
        NodePhase::Booting { ready_in: None }
    };
    let name = NodeName::new(&*node.metadata.name).ok()?;
    let count = replicas.get(&*node.metadata.name).copied().unwrap_or(0);
    Some((
        pool,
        Node {
            name,
            phase,
            replicas: count,
        },
    ))
}
