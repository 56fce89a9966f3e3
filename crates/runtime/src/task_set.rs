//! Many short tasks of one kind, owned together and bounded.
//!
//! Connections, wake flights and the like run here. The set holds at most its limit of unfinished
//! tasks; dropping the last clone aborts them all. It deliberately does not restart or time out a
//! task: a task carries its own [`Deadline`].

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::Deadline;

/// A bounded set of running tasks. Clones share it.
#[derive(Debug, Clone)]
pub struct TaskSet {
    name: &'static str,
    limit: usize,
    permits: Arc<Semaphore>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

/// The set holds as many tasks as it may, or it is draining; the work was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("task set {name} takes no more tasks: limit {limit}")]
pub struct TaskSetFull {
    /// The name given to [`TaskSet::new`].
    pub name: &'static str,
    /// The limit given to [`TaskSet::new`].
    pub limit: usize,
}

/// The set is draining; the work was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("task set {name} is draining")]
pub struct TaskSetClosed {
    /// The name given to [`TaskSet::new`].
    pub name: &'static str,
}

// === impl TaskSet ===

impl TaskSet {
    /// An empty set of at most `limit` unfinished tasks (at least 1). `name` appears in errors.
    pub fn new(name: &'static str, limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(limit));
        Self {
            name,
            limit,
            permits,
            tasks: Arc::new(Mutex::new(JoinSet::new())),
        }
    }

    /// How many tasks are unfinished.
    pub fn len(&self) -> usize {
        self.limit.saturating_sub(self.permits.available_permits())
    }

    /// True when no task is unfinished.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts `task` now, or refuses it.
    ///
    /// # Errors
    /// [`TaskSetFull`] at the limit and once the set drains.
    pub fn try_spawn<F>(&self, task: F) -> Result<(), TaskSetFull>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let full = TaskSetFull {
            name: self.name,
            limit: self.limit,
        };
        let permit = Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(|_error| full)?;
        self.start(permit, task);
        Ok(())
    }

    /// Waits for room. An accept loop that waits here before it accepts leaves the rest of the
    /// clients in the kernel's backlog. Cancel-safe: a permit that is dropped unused comes back.
    ///
    /// # Errors
    /// [`TaskSetClosed`] once the set drains.
    pub async fn room(&self) -> Result<Room, TaskSetClosed> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        permit
            .map(|permit| Room {
                set: self.clone(),
                permit,
            })
            .map_err(|_closed| TaskSetClosed { name: self.name })
    }

    /// Takes no more tasks, waits for those that run until `deadline`, then aborts the rest.
    /// Returns how many were aborted. Not cancel-safe in one way: the tasks stay refused.
    pub async fn drain(&self, deadline: Deadline) -> usize {
        self.permits.close();
        let mut tasks = std::mem::take(&mut *self.lock());
        let waited = deadline
            .timeout(async { while tasks.join_next().await.is_some() {} })
            .await;
        if waited.is_ok() {
            return 0;
        }
        while tasks.try_join_next().is_some() {}
        // Dropping the set aborts them.
        tasks.len()
    }

    fn start<F>(&self, permit: OwnedSemaphorePermit, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = self.lock();
        // Finished tasks leave here, so the set never holds more than its limit for long.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let _permit = permit;
            task.await;
        });
    }

    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        // Nothing inside the short sections leaves the set half changed.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for one task in a [`TaskSet`], kept until it is used or dropped.
#[derive(Debug)]
pub struct Room {
    set: TaskSet,
    permit: OwnedSemaphorePermit,
}

// === impl Room ===

impl Room {
    /// Starts `task` in this room.
    pub fn spawn<F>(self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.set.start(self.permit, task);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn set_refuses_above_its_limit_and_takes_again_when_one_ends() {
        let set = TaskSet::new("connections", 2);
        assert!(set.is_empty());
        let (end, ended) = oneshot::channel::<()>();
        set.try_spawn(async { drop(ended.await) }).unwrap();
        set.try_spawn(std::future::pending()).unwrap();
        assert_eq!(set.len(), 2);
        let full = set.try_spawn(async {}).unwrap_err();
        assert_eq!(
            full.to_string(),
            "task set connections takes no more tasks: limit 2"
        );

        end.send(()).unwrap();
        set.room().await.unwrap().spawn(std::future::pending());
        assert_eq!(set.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn finished_tasks_do_not_pile_up() {
        let set = TaskSet::new("connections", 3);
        for _ in 0..1000 {
            set.room().await.unwrap().spawn(async {});
        }
        assert!(set.lock().len() <= 3, "{}", set.lock().len());
    }

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_the_running_cuts_the_rest_and_refuses_new_ones() {
        let set = TaskSet::new("connections", 8);
        set.try_spawn(sleep(Duration::from_secs(1))).unwrap();
        set.try_spawn(std::future::pending()).unwrap();
        set.try_spawn(std::future::pending()).unwrap();
        let begin = Instant::now();
        assert_eq!(set.drain(Deadline::in_(Duration::from_secs(5))).await, 2);
        assert_eq!(begin.elapsed(), Duration::from_secs(5));
        assert!(set.try_spawn(async {}).is_err());
        assert_eq!(
            set.room().await.unwrap_err().to_string(),
            "task set connections is draining"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn drain_of_an_idle_set_returns_at_once() {
        let set = TaskSet::new("connections", 1);
        assert_eq!(set.drain(Deadline::in_(Duration::from_secs(5))).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn panic_in_one_task_gives_its_room_back() {
        let set = TaskSet::new("connections", 1);
        set.try_spawn(async { assert!(std::hint::black_box(false), "boom") })
            .unwrap();
        set.room().await.unwrap().spawn(async {});
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_set_aborts_its_tasks() {
        let set = TaskSet::new("connections", 1);
        let (alive, mut gone) = oneshot::channel::<()>();
        set.try_spawn(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        })
        .unwrap();
        drop(set);
        assert!((&mut gone).await.is_err());
    }
}
