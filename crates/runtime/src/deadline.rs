//! One deadline from end to end, on the monotonic clock.
//!
//! A request gets one [`Deadline`] when it arrives and hands it down; every step spends from the same
//! rest instead of bringing a timeout of its own. It deliberately holds no wall time: wall clocks jump.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

/// Thirty years, what tokio itself takes as "far": longer durations would overflow the timer.
const FAR: Duration = Duration::from_hours(30 * 365 * 24);

/// An instant on the monotonic clock after which work is no longer wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

/// The deadline passed before the work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("deadline passed")]
pub struct DeadlinePassed;

// === impl Deadline ===

impl Deadline {
    /// The deadline `duration` from now. Durations above thirty years count as thirty years.
    pub fn in_(duration: Duration) -> Self {
        Self(Instant::now() + duration.min(FAR))
    }

    /// The deadline at `instant`.
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// The instant itself, for `tokio::time::sleep_until`.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// True once nothing is left.
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// The earlier one of two deadlines.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        self.min(other)
    }

    /// This deadline, brought forward to at most `limit` from now: a step's own limit within the
    /// request's deadline.
    #[must_use]
    pub fn at_most(self, limit: Duration) -> Self {
        self.earlier(Self::in_(limit))
    }

    /// Waits until the deadline. Cancel-safe.
    pub async fn passed(self) {
        tokio::time::sleep_until(self.0).await;
    }

    /// Runs `work` until the deadline; past it, `work` is dropped. Work that is ready at once is
    /// answered even when the deadline has passed. As cancel-safe as `work`.
    ///
    /// # Errors
    /// [`DeadlinePassed`] when the deadline came first.
    pub async fn timeout<F: Future>(self, work: F) -> Result<F::Output, DeadlinePassed> {
        let mut work = pin!(work);
        // Most work is ready at once (reads from memory) and needs no timer.
        let first = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
        if let Poll::Ready(output) = first {
            return Ok(output);
        }
        tokio::time::timeout_at(self.0, work)
            .await
            .map_err(|_elapsed| DeadlinePassed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn steps_spend_from_one_deadline() {
        let deadline = Deadline::in_(Duration::from_secs(10));
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(deadline.remaining(), Duration::from_secs(6));
        assert_eq!(
            deadline
                .timeout(tokio::time::sleep(Duration::from_secs(5)))
                .await,
            Ok(())
        );
        assert_eq!(deadline.remaining(), Duration::from_secs(1));
        let late = deadline
            .timeout(tokio::time::sleep(Duration::from_secs(5)))
            .await;
        assert_eq!(late, Err(DeadlinePassed));
        assert!(deadline.has_passed());
        assert_eq!(deadline.remaining(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_deadline_wins() {
        let near = Deadline::in_(Duration::from_secs(1));
        let far = Deadline::in_(Duration::from_secs(9));
        assert_eq!(near.earlier(far), near);
        assert_eq!(far.earlier(near), near);
        assert_eq!(far.at_most(Duration::from_secs(1)), near);
        assert_eq!(near.at_most(Duration::from_secs(9)), near);
    }

    #[tokio::test(start_paused = true)]
    async fn ready_work_is_answered_after_the_deadline() {
        let deadline = Deadline::in_(Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(deadline.timeout(std::future::ready(7)).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn endless_duration_does_not_overflow() {
        let deadline = Deadline::in_(Duration::MAX);
        assert!(!deadline.has_passed());
        assert_eq!(
            deadline
                .timeout(tokio::time::sleep(Duration::from_mins(1)))
                .await,
            Ok(())
        );
    }
}
