//! The nodes and their account on the disk, so that a restart neither boots a pool anew nor forgets what it cost.
//!
//! Instants that lie ahead are stored as what was left of them, with the wall time of the write; reading takes off what has
//! passed since. A wall clock that went back has let no time pass. Losing the file means to boot again, nothing worse.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nagi_core::id::{NodeName, PoolName};
use nagi_runtime::Blocking;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::disk::WriteError;
use crate::engine::explained;
use crate::engine::shared::Shared;
use crate::world::account::Account;
use crate::world::{NodeState, Phase};

/// The file in the state directory.
pub(crate) const FILE: &str = "nodes.json";

/// What lies on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredNodes {
    #[serde(with = "crate::stamp")]
    at: Timestamp,
    nodes: Vec<StoredNode>,
    accounts: BTreeMap<String, Account>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredNode {
    name: String,
    pool: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready_in: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    release_in: Option<Duration>,
}

/// Writes the state of the nodes, the newest when several came meanwhile.
#[derive(Debug)]
pub(crate) struct NodeWriter {
    pub(super) shared: Arc<Shared>,
    pub(super) to_write: watch::Receiver<Option<StoredNodes>>,
}

/// Nodes and accounts in monotonic time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Nodes {
    pub(super) nodes: Vec<NodeState>,
    pub(super) accounts: BTreeMap<PoolName, Account>,
}

// === impl Nodes ===

impl Nodes {
    /// Every pool has an account from the moment it is described: what it saves while it sleeps counts too.
    pub(super) fn open_accounts<'a>(&mut self, pools: impl IntoIterator<Item = &'a PoolName>) {
        for pool in pools {
            self.accounts.entry(pool.clone()).or_default();
        }
    }

    /// Counts a stretch of time for every pool.
    pub(super) fn pass(&mut self, time: Duration) {
        for (pool, account) in &mut self.accounts {
            let nodes = self.nodes.iter().filter(|node| node.pool == *pool).count();
            account.pass(time, u32::try_from(nodes).unwrap_or(u32::MAX));
        }
    }

    /// What to write at these two readings of one moment.
    pub(super) fn stored(&self, at: Timestamp, now: Duration) -> StoredNodes {
        let nodes = self.nodes.iter().map(|node| {
            let (ready_in, release_in) = match node.phase {
                Phase::Booting { ready_at } => (Some(ready_at.saturating_sub(now)), None),
                Phase::Ready { release_at } => (None, release_at.map(|at| at.saturating_sub(now))),
            };
            let (name, pool) = (node.name.to_string(), node.pool.to_string());
            StoredNode {
                name,
                pool,
                ready_in,
                release_in,
            }
        });
        let accounts = self
            .accounts
            .iter()
            .map(|(pool, account)| (pool.to_string(), *account));
        StoredNodes {
            at,
            nodes: nodes.collect(),
            accounts: accounts.collect(),
        }
    }

    /// What was written, some time later.
    pub(super) fn restored(stored: StoredNodes, at: Timestamp, now: Duration) -> Self {
        let passed = Duration::try_from(at.duration_since(stored.at)).unwrap_or(Duration::ZERO);
        let from_now = |left: Duration| now + left.saturating_sub(passed);
        let nodes = stored.nodes.into_iter().filter_map(|node| {
            let phase = match (node.ready_in, node.release_in) {
                (Some(left), _) => Phase::Booting {
                    ready_at: from_now(left),
                },
                (None, left) => Phase::Ready {
                    release_at: left.map(from_now),
                },
            };
            let name = NodeName::new(node.name).ok()?;
            Some(NodeState {
                name,
                pool: PoolName::new(node.pool).ok()?,
                phase,
            })
        });
        let accounts = stored.accounts.into_iter();
        let mut restored = Self {
            nodes: nodes.collect(),
            accounts: accounts
                .filter_map(|(pool, account)| Some((PoolName::new(pool).ok()?, account)))
                .collect(),
        };
        restored.pass(passed);
        restored
    }
}

// === impl NodeWriter ===

impl NodeWriter {
    /// Writes until the runner has ended and its last state is written.
    pub(crate) async fn run(mut self) {
        let blocking = Blocking::new("nodes", 1);
        // An error says that the runner is gone and that everything it sent was seen.
        while self.to_write.changed().await.is_ok() {
            let Some(newest) = self.to_write.borrow_and_update().clone() else {
                continue;
            };
            let shared = Arc::clone(&self.shared);
            let written = blocking
                .run(move || shared.store.write(FILE, &newest))
                .await;
            if let Ok(Err(error)) = written {
                // The next change is written again; a restart before it boots anew.
                warn_not_written(&error);
            }
        }
    }
}

fn warn_not_written(error: &WriteError) {
    tracing::warn!(
        error = explained(error),
        "State of the nodes could not be written"
    );
}

#[cfg(test)]
mod tests {
    use nagi_core::pool::Money;

    use super::*;

    fn node(name: &str, phase: Phase) -> NodeState {
        let pool = PoolName::new("gpu").unwrap();
        NodeState {
            name: NodeName::new(name).unwrap(),
            pool,
            phase,
        }
    }

    #[test]
    fn what_was_left_goes_on_after_a_restart_and_time_that_passed_is_charged() {
        let seconds = Duration::from_secs;
        let booting = Phase::Booting {
            ready_at: seconds(110),
        };
        let empty = Phase::Ready {
            release_at: Some(seconds(103)),
        };
        let nodes = vec![node("gpu-0", booting), node("gpu-1", empty)];
        let mut before = Nodes {
            nodes,
            accounts: BTreeMap::new(),
        };
        before.open_accounts([&PoolName::new("gpu").unwrap()]);
        let at = Timestamp::from_second(1_000).unwrap();
        let text = serde_json::to_string(&before.stored(at, seconds(100))).unwrap();
        let read = || serde_json::from_str::<StoredNodes>(&text).unwrap();
        // Four seconds later, in a process whose monotonic clock starts at one second.
        let later = Timestamp::from_second(1_004).unwrap();
        let after = Nodes::restored(read(), later, seconds(1));
        let phases: Vec<_> = after.nodes.iter().map(|node| node.phase).collect();
        let expected = [
            Phase::Booting {
                ready_at: seconds(7),
            },
            Phase::Ready {
                release_at: Some(seconds(1)),
            },
        ];
        assert_eq!(phases, expected);
        let account = after.accounts.values().next().unwrap();
        assert_eq!(account.spent(Money { micros: 3_600_000 }).micros, 8_000);
        // A clock that went back has let no time pass.
        let earlier = Timestamp::from_second(10).unwrap();
        let back = Nodes::restored(read(), earlier, seconds(1));
        assert_eq!(
            back.nodes[0].phase,
            Phase::Booting {
                ready_at: seconds(11)
            }
        );
    }
}
