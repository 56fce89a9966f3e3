//! CPU profiles and dumps of tasks and threads, for `/debug/pprof/…`.
//!
//! [`cpu`] samples all threads by a timer of the kernel and returns a pprof protobuf, which `go tool
//! pprof` and others read. Setting up, waiting, resolving symbols and encoding happen on a thread of
//! their own; the caller only awaits. The profiler is one per process, so a second call is refused.
//! Samples that fall into the C library are left out: unwinding from there is not safe in a signal
//! handler. Time inside system calls and `memcpy` is therefore not shown.
//! It deliberately serves no HTTP and checks no rights.

mod threads;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use pprof::protos::Message;
use pprof::{Frames, ProfilerGuardBuilder, Symbol};
use tokio::sync::oneshot;

pub use threads::tasks_and_threads;

/// Shortest profile: below, too few samples fall.
pub const DURATION_MIN: Duration = Duration::from_secs(1);
/// Longest profile: what a person waits for, and below the timeouts of most clients.
pub const DURATION_MAX: Duration = Duration::from_mins(1);
/// Length when the caller names none, as Go's handler takes.
pub const DURATION_DEFAULT: Duration = Duration::from_secs(30);

/// Samples a second for each CPU in use. Not 100: a prime beat does not fall into step with timers of
/// the program. The overhead is below one percent.
const FREQUENCY_HERTZ: i32 = 99;
/// Shared objects whose samples are left out, as `pprof` advises: a signal that interrupts them may
/// hold locks that unwinding takes, and the unwind tables of the vDSO are not reliable.
const BLOCKED_OBJECTS: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

/// True while a profile is taken.
static BUSY: AtomicBool = AtomicBool::new(false);

/// No profile could be taken.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Another profile is being taken; there can be one at a time in a process.
    #[error("another profile is being taken")]
    Busy,
    /// The duration is outside 1 to 60 seconds.
    #[error("duration {seconds} s is outside 1 to 60 s")]
    Duration {
        /// What was asked for, in seconds.
        seconds: u64,
    },
    /// The profiler could not be started.
    #[error("cannot start the profiler")]
    Start(#[source] pprof::Error),
    /// The thread for it could not be started.
    #[error("cannot start the thread of the profiler")]
    StartThread(#[source] std::io::Error),
    /// The samples could not be made into a profile.
    #[error("cannot build the profile")]
    Build(#[source] pprof::Error),
    /// The profile could not be encoded.
    #[error("cannot encode the profile: {reason}")]
    Encode {
        /// What the encoder said.
        reason: String,
    },
    /// The thread of the profiler ended without a result; the panic hook has logged why.
    #[error("the profiler ended without a result")]
    Lost,
}

/// Takes a CPU profile of all threads for `duration` (1 to 60 s) and returns it as pprof protobuf,
/// not compressed.
///
/// Cancel-safe: dropping the future stops the profiler within milliseconds.
///
/// # Errors
/// [`ProfileError::Busy`] while another one runs; otherwise what could not be done.
pub async fn cpu(duration: Duration) -> Result<Vec<u8>, ProfileError> {
    if duration < DURATION_MIN || duration > DURATION_MAX {
        return Err(ProfileError::Duration {
            seconds: duration.as_secs(),
        });
    }
    let busy = BusyGuard::take()?;
    // Dropped with this future, which ends the wait of the thread.
    let (_alive, abandoned) = mpsc::sync_channel::<()>(0);
    let (answer, result) = oneshot::channel();
    let work = move || {
        let profile = sample(duration, &abandoned);
        // The process can be profiled again before the caller learns of the end.
        drop(busy);
        // Nobody waits any more when the caller has gone.
        drop(answer.send(profile));
    };
    // The handle is not kept: the thread ends by itself within `duration`, or when the caller goes.
    thread::Builder::new()
        .name("nagi-profile".to_owned())
        .spawn(work)
        .map_err(ProfileError::StartThread)?;
    result.await.unwrap_or(Err(ProfileError::Lost))
}

/// Samples until `duration` is over. When the caller has gone, what was sampled is thrown away.
fn sample(duration: Duration, abandoned: &mpsc::Receiver<()>) -> Result<Vec<u8>, ProfileError> {
    let guard = ProfilerGuardBuilder::default()
        .frequency(FREQUENCY_HERTZ)
        .blocklist(&BLOCKED_OBJECTS)
        .build()
        .map_err(ProfileError::Start)?;
    match abandoned.recv_timeout(duration) {
        Err(RecvTimeoutError::Timeout) => {}
        Ok(()) | Err(RecvTimeoutError::Disconnected) => return Err(ProfileError::Lost),
    }
    let mut builder = guard.report();
    builder.frames_post_processor(without_profiler);
    let report = builder.build().map_err(ProfileError::Build)?;
    drop(guard);
    let profile = report.pprof().map_err(ProfileError::Build)?;
    let mut bytes = Vec::with_capacity(profile.encoded_len());
    let encoded = profile.encode(&mut bytes);
    encoded.map_err(|error| ProfileError::Encode {
        reason: error.to_string(),
    })?;
    Ok(bytes)
}

/// Takes the profiler's own frames off the top of a stack. `pprof` takes off its signal handler, and
/// what that called to unwind would else look like the function in which all time was spent.
fn without_profiler(stack: &mut Frames) {
    let own = stack
        .frames
        .iter()
        .take_while(|symbols| symbols.iter().all(is_profiler))
        .count();
    stack.frames.drain(..own);
}

/// By file where there is debug information, which then holds short names; else by the full name.
fn is_profiler(symbol: &Symbol) -> bool {
    let (name, file) = (symbol.name(), symbol.filename());
    let name = name.trim_start_matches('<');
    ["pprof::", "backtrace::"]
        .iter()
        .any(|module| name.starts_with(module))
        || ["/pprof-", "/backtrace-"]
            .iter()
            .any(|package| file.contains(package))
}

/// The right to profile, given back when dropped.
#[derive(Debug)]
struct BusyGuard;

// === impl BusyGuard ===

impl BusyGuard {
    fn take() -> Result<Self, ProfileError> {
        if BUSY.swap(true, Ordering::AcqRel) {
            Err(ProfileError::Busy)
        } else {
            Ok(Self)
        }
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
