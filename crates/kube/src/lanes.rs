//! Which write goes first: wakes never wait, sleeps and status writes wait for room of their own.
//!
//! A person waits for a wake. So no wake stands behind anything, a sleep only behind sleeps, and what merely records
//! something only behind its like. Reads are not counted.

use std::sync::Arc;

use nagi_core::quantity::Replicas;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Sleeps and other changes of counts downwards that are under way at once.
const SLEEPS_MAX: usize = 24;
/// Writes under way at once that change no count.
const RECORDS_MAX: usize = 4;

/// How urgent a write is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// More replicas.
    Wake,
    /// Fewer.
    Sleep,
    /// As many as before: only what is remembered changes.
    Record,
}

#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    sleeps: Arc<Semaphore>,
    records: Arc<Semaphore>,
}

impl Lane {
    pub(crate) fn of(from: Replicas, to: Replicas) -> Self {
        match to.cmp(&from) {
            std::cmp::Ordering::Greater => Self::Wake,
            std::cmp::Ordering::Less => Self::Sleep,
            std::cmp::Ordering::Equal => Self::Record,
        }
    }
}

impl Lanes {
    pub(crate) fn new() -> Self {
        Self {
            sleeps: Arc::new(Semaphore::new(SLEEPS_MAX)),
            records: Arc::new(Semaphore::new(RECORDS_MAX)),
        }
    }

    /// Waits for room; it is held until the permit is dropped. Cancel-safe.
    pub(crate) async fn enter(&self, lane: Lane) -> Option<OwnedSemaphorePermit> {
        let room = match lane {
            Lane::Wake => return None,
            Lane::Sleep => &self.sleeps,
            Lane::Record => &self.records,
        };
        Arc::clone(room).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wake_waits_for_nobody_and_a_sleep_not_for_records() {
        let lanes = Lanes::new();
        let mut held = Vec::new();
        for _ in 0..RECORDS_MAX {
            held.push(lanes.enter(Lane::Record).await);
        }
        assert!(lanes.records.try_acquire().is_err());
        for _ in 0..SLEEPS_MAX {
            held.push(lanes.enter(Lane::Sleep).await);
        }
        assert!(lanes.sleeps.try_acquire().is_err());
        assert!(lanes.enter(Lane::Wake).await.is_none());
        drop(held);
        assert!(lanes.enter(Lane::Record).await.is_some());
        assert_eq!(Lane::of(Replicas(0), Replicas(1)), Lane::Wake);
        assert_eq!(Lane::of(Replicas(1), Replicas(0)), Lane::Sleep);
        assert_eq!(Lane::of(Replicas(1), Replicas(1)), Lane::Record);
    }
}
