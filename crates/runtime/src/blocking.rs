//! Blocking work off the workers, behind a limit.
//!
//! File writes with fsync, key digests and the like go to tokio's blocking threads, at most a stated
//! number at a time; the rest wait in order. It deliberately does not interrupt a closure: a thread
//! cannot be cut, so whoever stops waiting leaves it to finish, and its permit comes back then.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Runs blocking closures, at most a fixed number at a time. Clones share the limit.
#[derive(Debug, Clone)]
pub struct Blocking {
    name: &'static str,
    permits: Arc<Semaphore>,
}

/// A blocking closure gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum BlockingError {
    /// The closure panicked; the panic hook has logged it.
    #[error("blocking task {name} panicked")]
    Panicked {
        /// The name given to [`Blocking::new`].
        name: &'static str,
    },
    /// The runtime is shutting down and ran the closure no more.
    #[error("blocking task {name} was not run: the runtime is shutting down")]
    Cancelled {
        /// The name given to [`Blocking::new`].
        name: &'static str,
    },
}

// === impl Blocking ===

impl Blocking {
    /// At most `limit` closures at a time (at least 1). `name` appears in errors.
    pub fn new(name: &'static str, limit: usize) -> Self {
        Self {
            name,
            permits: Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS))),
        }
    }

    /// Waits for a permit, then runs `work` on a blocking thread.
    ///
    /// Dropping the future before the work began withdraws it; afterwards the work runs to its end
    /// without anybody waiting, so write it such that this is correct.
    ///
    /// # Errors
    /// [`BlockingError`] when the work panicked or the runtime is shutting down.
    pub async fn run<T, F>(&self, work: F) -> Result<T, BlockingError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let name = self.name;
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let Ok(permit) = permit else {
            return Err(BlockingError::Cancelled { name });
        };
        let task = tokio::task::spawn_blocking(move || {
            // The permit lives as long as the work, not as long as somebody waits for it.
            let _permit = permit;
            work()
        });
        task.await.map_err(|error| {
            if error.is_panic() {
                BlockingError::Panicked { name }
            } else {
                BlockingError::Cancelled { name }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_above_the_limit_waits_for_a_permit() {
        let blocking = Blocking::new("test", 1);
        let (release, held) = mpsc::sync_channel::<()>(1);
        let runs = Arc::new(AtomicUsize::new(0));
        let (started, seen) = tokio::sync::oneshot::channel();

        let first_runs = Arc::clone(&runs);
        let first = blocking.run(move || {
            first_runs.fetch_add(1, Ordering::SeqCst);
            started.send(()).unwrap();
            held.recv().unwrap();
        });
        let second_runs = Arc::clone(&runs);
        let second = blocking.run(move || second_runs.fetch_add(1, Ordering::SeqCst));
        let observe = async {
            seen.await.unwrap();
            // The first holds the only permit, so the second cannot have begun.
            assert_eq!(blocking.permits.available_permits(), 0);
            assert_eq!(runs.load(Ordering::SeqCst), 1);
            release.send(()).unwrap();
        };
        let (first, second, ()) = tokio::join!(first, second, observe);
        first.unwrap();
        assert_eq!(second.unwrap(), 1);
    }

    #[tokio::test]
    async fn permit_is_held_while_the_work_runs_and_free_afterwards() {
        let blocking = Blocking::new("test", 1);
        let permits = Arc::clone(&blocking.permits);
        let free_inside = blocking
            .run(move || permits.available_permits())
            .await
            .unwrap();
        assert_eq!(free_inside, 0);
        assert_eq!(blocking.permits.available_permits(), 1);
    }

    #[tokio::test]
    async fn panic_is_an_error_and_gives_its_permit_back() {
        let blocking = Blocking::new("test", 1);
        let end = blocking
            .run(|| assert!(std::hint::black_box(false), "boom"))
            .await;
        assert!(matches!(end, Err(BlockingError::Panicked { name: "test" })));
        assert_eq!(blocking.run(|| 5).await.unwrap(), 5);
    }
}
