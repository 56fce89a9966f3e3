//! Waiting, always with a limit, and ending early when the person presses Ctrl-C.
//!
//! The signals only set a flag. Every wait of this crate looks at it and returns an error, so that whoever started something
//! takes it down again on the way out, the same as after any other failure.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How often a wait looks: short beside what is waited for, long beside a look.
const LOOK_EVERY: Duration = Duration::from_millis(20);

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// How many parts of the program are cleaning up.
static UNSTOPPABLE: AtomicUsize = AtomicUsize::new(0);

/// While this exists nothing fails because the person pressed Ctrl-C: cleaning up goes to its end.
#[derive(Debug)]
pub(crate) struct Unstoppable(());

// === impl Unstoppable ===

impl Unstoppable {
    pub(crate) fn begin() -> Self {
        UNSTOPPABLE.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Unstoppable {
    fn drop(&mut self) {
        UNSTOPPABLE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// From now on Ctrl-C and a request to end make waits fail instead of ending the process at once.
pub fn heed_signals() -> anyhow::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&INTERRUPTED))
            .with_context(|| format!("ask for signal {signal}"))?;
    }
    Ok(())
}

/// Whether the process was asked to end.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails when the process was asked to end.
pub fn check_interrupted() -> anyhow::Result<()> {
    if is_interrupted() && UNSTOPPABLE.load(Ordering::Relaxed) == 0 {
        bail!("interrupted");
    }
    Ok(())
}

/// Looks until `look` gives something; what it says last is part of the error.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> anyhow::Result<Look<T>>,
) -> anyhow::Result<T> {
    let started = now();
    loop {
        check_interrupted()?;
        let missing = match look().with_context(|| format!("wait for {what}"))? {
            Look::There(value) => return Ok(value),
            Look::NotYet(missing) => missing,
        };
        if started.elapsed() >= limit {
            bail!("waited {} s for {what}: {missing}", limit.as_secs());
        }
        pause(LOOK_EVERY);
    }
}

/// What one look found.
#[derive(Debug)]
pub enum Look<T> {
    /// What was waited for.
    There(T),
    /// It is not there yet, and this is missing.
    NotYet(String),
}

/// The monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "measures processes of a developer tool, nothing of the product"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Lets other processes go on for a moment.
#[expect(
    clippy::disallowed_methods,
    reason = "a developer tool without an executor; the thread has nothing else to do"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
