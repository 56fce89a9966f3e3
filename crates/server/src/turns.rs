//! Orders about one workload that met each other take turns, so that a crowd of callers does not fail on itself.
//!
//! A write has a condition: it fails when somebody wrote since the read. That alone decides; nothing here is needed for it.
//! But of a hundred callers at once ninety-nine would fail and try again, and some fail five times in a row. So an
//! order that failed once waits for its turn, and while somebody waits, those that come later wait too.
//! An order that meets nobody waits for nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nagi_core::id::WorkloadId;
use tokio::sync::OwnedMutexGuard;

/// The queues of the workloads that several orders are about.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<WorkloadId, Arc<tokio::sync::Mutex<()>>>>);

/// It is this order's turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    id: &'a WorkloadId,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for a turn if anybody else waits or has one; gives none at once otherwise. Cancel-safe.
    pub(crate) async fn after_others<'a>(&'a self, id: &'a WorkloadId) -> Option<Turn<'a>> {
        let queue = self.lock().get(id).cloned()?;
        Some(self.wait(id, queue).await)
    }

    /// Waits for a turn. Cancel-safe.
    pub(crate) async fn next<'a>(&'a self, id: &'a WorkloadId) -> Turn<'a> {
        let queue = Arc::clone(self.lock().entry(id.clone()).or_default());
        self.wait(id, queue).await
    }

    async fn wait<'a>(
        &'a self,
        id: &'a WorkloadId,
        queue: Arc<tokio::sync::Mutex<()>>,
    ) -> Turn<'a> {
        // Made first, so that a caller who goes away while it waits leaves nothing behind.
        let mut turn = Turn {
            turns: self,
            id,
            guard: None,
        };
        turn.guard = Some(queue.lock_owned().await);
        turn
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkloadId, Arc<tokio::sync::Mutex<()>>>> {
        // No section leaves the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queues = self.turns.lock();
        // Lets the next one go on; under the lock, so that nobody joins a queue that is about to be forgotten.
        self.guard = None;
        if queues
            .get(self.id)
            .is_some_and(|queue| Arc::strong_count(queue) == 1)
        {
            queues.remove(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nagi_core::id::{Name, Namespace};
    use tokio::time::timeout;

    use super::*;

    fn id(name: &str) -> WorkloadId {
        WorkloadId::deployment(Namespace::new("a").unwrap(), Name::new(name).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_while_others_take_turns_waits_and_nobody_else_does() {
        let turns = Turns::default();
        let (one, other) = (id("one"), id("other"));
        assert!(turns.after_others(&one).await.is_none());
        let first = turns.next(&one).await;
        assert!(turns.after_others(&other).await.is_none());
        let soon = Duration::from_millis(1);
        assert!(timeout(soon, turns.after_others(&one)).await.is_err());
        drop(first);
        // The one that gave up waiting is not in the way, and nothing is remembered.
        assert!(turns.after_others(&one).await.is_none());
        assert!(turns.lock().is_empty());
    }

    #[tokio::test]
    async fn turns_come_one_after_another_and_leave_nothing_behind() {
        let (turns, one) = (Turns::default(), id("one"));
        let inside = std::sync::atomic::AtomicU32::new(0);
        let orders = (0..50).map(async |_| {
            let _turn = turns.next(&one).await;
            assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
            tokio::task::yield_now().await;
            inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        });
        futures_util::future::join_all(orders).await;
        assert!(turns.lock().is_empty());
    }
}
