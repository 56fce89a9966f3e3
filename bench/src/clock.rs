//! The clock of the measurements: `CLOCK_MONOTONIC`, which all processes of a machine share.
//!
//! `std::time::Instant` is the same clock but cannot be written down, and a child has to tell its parent a time.

use std::time::Duration;

use nagi_e2e::wait;
use rustix::time::{ClockId, clock_gettime};

/// Time since the machine started.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds)
        + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or_default())
}

/// Lets a window of a measurement pass on this thread; fails when the person pressed Ctrl-C meanwhile.
pub(crate) fn wait(time: Duration) -> anyhow::Result<()> {
    /// Nobody notices that it takes this much longer to end.
    const SLICE: Duration = Duration::from_millis(100);
    let until = now() + time;
    loop {
        wait::check_interrupted()?;
        let left = until.saturating_sub(now());
        if left.is_zero() {
            return Ok(());
        }
        pause(left.min(SLICE));
    }
}

/// Waits on this thread. Measurements pace themselves; nothing else runs on their threads.
#[expect(clippy::disallowed_methods, reason = "a measuring thread of its own")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
