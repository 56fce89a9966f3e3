//! Pools of nodes: how many run, what they cost, what sleeping saved.

use std::time::Duration;

use nagi_core::pool::{Money, Node, NodePhase, Pool};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Succeeded;
use crate::time::Time;
use crate::workload::seconds;

/// `GET /api/v1/pools`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolsAnswer {
    /// Always `success`.
    pub status: Succeeded,
    /// How many pools there are, in words.
    pub message: String,
    /// The pools, by name.
    pub items: Vec<PoolItem>,
    /// When they were observed.
    pub observed_at: Time,
}

/// One pool. Amounts are in the unit that its price is stated in, exact to a millionth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolItem {
    /// Its name.
    pub name: String,
    /// Its nodes now.
    pub nodes: Vec<NodeItem>,
    /// The most nodes that it may have; left out where the engine does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub nodes_max: Option<u32>,
    /// Price of one node for one hour; left out, like the two below, where nobody stated one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub price_per_hour: Option<f64>,
    /// Cost of its nodes since the account was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub spent: Option<f64>,
    /// What it would have cost on top, had the largest number of nodes it needed so far run all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub saved: Option<f64>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeItem {
    /// Its name.
    pub name: String,
    /// `booting` or `ready`.
    #[schema(example = "ready")]
    pub phase: String,
    /// Replicas on it.
    pub replicas: u32,
    /// While booting: seconds until it is expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ready_in_seconds: Option<f64>,
    /// While empty: seconds until it is released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub released_in_seconds: Option<f64>,
}

impl From<&Pool> for PoolItem {
    fn from(pool: &Pool) -> Self {
        Self {
            name: pool.name.to_string(),
            nodes: pool.nodes.iter().map(NodeItem::from).collect(),
            nodes_max: pool.nodes_max,
            price_per_hour: pool.cost.map(|cost| amount(cost.price_per_hour)),
            spent: pool.cost.map(|cost| amount(cost.spent)),
            saved: pool.cost.map(|cost| amount(cost.saved)),
        }
    }
}

impl From<&Node> for NodeItem {
    fn from(node: &Node) -> Self {
        let rounded = |d: Duration| seconds(d);
        let (phase, ready_in, released_in) = match node.phase {
            NodePhase::Booting { ready_in } => ("booting", ready_in, None),
            NodePhase::Ready { released_in } => ("ready", None, released_in),
        };
        Self {
            name: node.name.to_string(),
            phase: phase.to_owned(),
            replicas: node.replicas,
            ready_in_seconds: ready_in.map(rounded),
            released_in_seconds: released_in.map(rounded),
        }
    }
}

/// Millionths as a decimal number: the nearest double prints back with the same six decimals up to eight billion.
fn amount(money: Money) -> f64 {
    Duration::from_micros(money.micros).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_keep_their_millionths() {
        for micros in [0, 1, 12_345_678, 8_000_000_000_000_001] {
            let shown = format!("{:.6}", amount(Money { micros }));
            let whole = micros / 1_000_000;
            assert_eq!(shown, format!("{whole}.{:06}", micros % 1_000_000));
        }
    }
}
