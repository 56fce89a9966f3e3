//! Pools of like nodes, what they cost, and what sleeping saved.

use std::fmt;
use std::time::Duration;

use crate::id::{NodeName, PoolName};

/// An amount of money in millionths of the unit that prices are stated in; which currency is the reader's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Money {
    /// Millionths.
    pub micros: u64,
}

impl Money {
    /// The cost of `node_time` at this price per hour. Rounds down to a millionth; saturates.
    #[must_use]
    pub fn for_time(self, node_time: Duration) -> Self {
        const HOUR_MILLIS: u128 = 60 * 60 * 1000;
        let micros = u128::from(self.micros).saturating_mul(node_time.as_millis()) / HOUR_MILLIS;
        Self {
            micros: u64::try_from(micros).unwrap_or(u64::MAX),
        }
    }
}

impl fmt::Display for Money {
    /// Four decimals, rounded to nearest: `0.0123`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.micros.saturating_add(50) / 100;
        write!(f, "{}.{:04}", parts / 10_000, parts % 10_000)
    }
}

/// How far a node has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodePhase {
    /// Ordered, not usable yet.
    Booting {
        /// Time until it is expected, where the engine knows.
        ready_in: Option<Duration>,
    },
    /// Usable.
    Ready {
        /// Set while it carries no replica: time until it is released.
        released_in: Option<Duration>,
    },
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// How far it has come.
    pub phase: NodePhase,
    /// Replicas on it.
    pub replicas: u32,
}

/// One pool as observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// Its nodes now, in a stable order.
    pub nodes: Vec<Node>,
    /// The most nodes that it may have, where the engine knows.
    pub nodes_max: Option<u32>,
    /// What it costs; `None` where nobody stated a price, which is not the same as nothing.
    pub cost: Option<Cost>,
}

/// What a pool costs and saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Price of one node for one hour.
    pub price_per_hour: Money,
    /// Cost of its nodes since the account was opened.
    pub spent: Money,
    /// What the same pool would have cost on top, had the largest number of nodes it needed so far run all the time.
    pub saved: Money,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_time_times_price_without_drift() {
        let price = Money { micros: 3_600_000 };
        assert_eq!(
            price.for_time(Duration::from_secs(1)),
            Money { micros: 1000 }
        );
        assert_eq!(price.for_time(Duration::from_hours(1)), price);
        assert_eq!(
            Money { micros: u64::MAX }
                .for_time(Duration::from_secs(u64::MAX))
                .micros,
            u64::MAX
        );
        assert_eq!(Money { micros: 12_345_678 }.to_string(), "12.3457");
        assert_eq!(Money::default().to_string(), "0.0000");
    }
}
