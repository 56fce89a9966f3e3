//! Time, as a need of the domain.

use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;

/// Where wall time and elapsed time come from.
pub trait Clock: Debug + Send + Sync {
    /// Wall time. It may jump; use it for instants that are stored or shown.
    fn now(&self) -> Timestamp;

    /// Time since a fixed start of this process. It never goes back; use it for elapsed times.
    fn monotonic(&self) -> Duration;
}

/// The clock of the machine. Elapsed time is tokio's, so that paused time in tests drives both.
#[derive(Debug)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

impl SystemClock {
    /// Starts to count elapsed time now.
    #[expect(
        clippy::new_without_default,
        reason = "starting a clock is an act, not a default value"
    )]
    pub fn new() -> Self {
        Self {
            start: tokio::time::Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
