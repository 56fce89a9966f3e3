//! How a walk that nobody waits for keeps out of the way: it rests nine times as long as it works, and gives up on a tree that is
//! larger than it may take.
//!
//! What it gave up is not known at all. A part of the owners of a disk would look like a disk that shrank.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::ClockId;

/// Entries from one rest to the next: about a millisecond of work.
const STRIDE: u64 = 256;
/// A tenth of a core while it walks.
const REST: u32 = 9;
/// Longer than this it never rests at once, whatever its clock says.
const REST_MAX: Duration = Duration::from_secs(1);

/// The pace of one walk, by one thread.
#[derive(Debug)]
pub(crate) struct Pace {
    entries_max: u64,
    waiting_max: usize,
    entries: AtomicU64,
    /// Processor time of the thread at the last rest, in nanoseconds.
    worked: AtomicU64,
    is_over: AtomicBool,
}

// === impl Pace ===

impl Pace {
    /// Gives up beyond so many entries, or when more directories wait at once.
    pub(crate) fn new(entries_max: u64, waiting_max: usize) -> Self {
        Self {
            entries_max,
            waiting_max,
            entries: AtomicU64::new(0),
            worked: AtomicU64::new(nanoseconds(processor_time())),
            is_over: AtomicBool::new(false),
        }
    }

    /// It has given up.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Before each entry: rests when it is time for that. False when it is to give up.
    pub(super) fn step(&self) -> bool {
        let entries = self.entries.fetch_add(1, Ordering::Relaxed) + 1;
        if entries > self.entries_max {
            self.is_over.store(true, Ordering::Relaxed);
        }
        if entries.is_multiple_of(STRIDE) {
            self.rest();
        }
        !self.is_over()
    }

    /// After each directory.
    pub(super) fn see_waiting(&self, waiting: usize) {
        if waiting > self.waiting_max {
            self.is_over.store(true, Ordering::Relaxed);
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the walk has a thread of its own, and nobody waits for it"
    )]
    fn rest(&self) {
        let now = processor_time();
        let before = self.worked.swap(nanoseconds(now), Ordering::Relaxed);
        let worked = now.saturating_sub(Duration::from_nanos(before));
        std::thread::sleep((worked * REST).min(REST_MAX));
    }
}

/// What the processor has done for this thread.
pub(crate) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Nobody's thread has worked for 584 years.
fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_up_beyond_its_limits_and_not_at_them() {
        let pace = Pace::new(600, 10);
        assert!((0..600).all(|_| pace.step()));
        pace.see_waiting(10);
        assert!(!pace.is_over());
        assert!(!pace.step() && pace.is_over());
        let pace = Pace::new(600, 10);
        pace.see_waiting(11);
        assert!(pace.is_over() && !pace.step());
    }
}
