//! Pools of nodes, by the labels that say which pool a node belongs to.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use nagi_core::id::{NodeName, PoolName};
use nagi_core::pool::{Node, NodePhase, Pool};
use nagi_ports::{Nodes, PortError};
use serde::Deserialize;

use crate::engine::KubeEngine;
use crate::names::POOL_LABELS;
use crate::wire::{Condition, Labels};

/// A node without any of these labels stands in this pool.
const NO_POOL: &str = "default";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeObject {
    metadata: NodeMeta,
    status: NodeStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeMeta {
    name: String,
    labels: Labels,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    conditions: Vec<Condition>,
}

#[async_trait]
impl Nodes for KubeEngine {
    async fn pools(&self) -> Result<Vec<Pool>, PortError> {
        let shared = &self.shared;
        let nodes: Vec<NodeObject> = shared.list_live("/api/v1/nodes", "").await?;
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

fn placed(node: &NodeObject, replicas: &HashMap<Box<str>, u32>) -> Option<(PoolName, Node)> {
    let labels = &node.metadata.labels;
    let pool = POOL_LABELS.iter().find_map(|label| labels.get(label));
    let pool = PoolName::new(pool.unwrap_or(NO_POOL)).ok()?;
    let mut conditions = node.status.conditions.iter();
    let ready = conditions.any(|known| &*known.kind == "Ready" && &*known.status == "True");
    let phase = if ready {
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
