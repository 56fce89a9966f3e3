//! What the nodes of a pool cost, and what they would have cost had they never slept.

use std::time::Duration;

use nagi_core::pool::Money;
use serde::{Deserialize, Serialize};

/// The account of one pool. Time is counted, money is derived: a changed price applies to all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Account {
    /// Since when there is an account, as a length of time.
    open: Duration,
    /// Time of all nodes together, booting ones included: they cost from the order on.
    node_time: Duration,
    /// The largest number of nodes there were at one time.
    peak: u32,
}

// === impl Account ===

impl Account {
    /// Counts a stretch of time during which there were `nodes` nodes.
    pub fn pass(&mut self, time: Duration, nodes: u32) {
        self.peak = self.peak.max(nodes);
        self.open = self.open.saturating_add(time);
        self.node_time = self.node_time.saturating_add(time.saturating_mul(nodes));
    }

    /// What the nodes cost so far.
    pub fn spent(&self, price_per_hour: Money) -> Money {
        price_per_hour.for_time(self.node_time)
    }

    /// What the largest number of nodes would have cost on top, had it run all the time.
    pub fn saved(&self, price_per_hour: Money) -> Money {
        let always = self.open.saturating_mul(self.peak);
        price_per_hour.for_time(always.saturating_sub(self.node_time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn savings_are_what_always_on_would_have_cost_on_top() {
        let price = Money { micros: 3_600_000 };
        let mut account = Account::default();
        account.pass(Duration::from_secs(100), 0);
        assert_eq!(
            (account.spent(price).micros, account.saved(price).micros),
            (0, 0)
        );
        account.pass(Duration::from_secs(10), 2);
        account.pass(Duration::from_secs(90), 1);
        // 110 node-seconds of 400: a node costs 1,000 millionths a second.
        assert_eq!(account.spent(price).micros, 110_000);
        assert_eq!(account.saved(price).micros, 290_000);
    }
}
