//! CPU profiles and dumps of tasks and threads, for `/debug/pprof/…`.
//!
//! [`cpu`] samples all threads by a timer of the kernel and returns a pprof protobuf, which `go tool
//! pprof` and others read. Setting up, waiting, resolving symbols and encoding happen on a thread of
//! their own; the caller only awaits. The profiler is one per process, so a second call is refused.
//!
//! Stacks are unwound inside the signal handler by `framehop`, from tables read beforehand and with
//! every address probed before it is read: it takes no lock and allocates nothing, where the unwinder
//! of the C library does both and can stop or kill the process that it is to explain. Its tables are
//! loaded by the first sample, so the first profile of a process begins with a short warm-up.
//!
//! The first profile costs about 75 MB of memory, most of which stays: buffers for 16,384 stacks of
//! 128 frames, the tables, the symbols. It needs a temporary directory that can be written.
//! It deliberately serves no HTTP and checks no rights.

mod threads;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use pprof::ProfilerGuardBuilder;
use pprof::protos::Message;
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
/// Objects in which the warm-up takes no sample. Loading the tables allocates memory and walks the
/// list of loaded objects; a thread that was interrupted in here may hold the locks for both.
const WARM_UP_BLOCKED_OBJECTS: [&str; 4] = ["libc", "ld-", "pthread", "libgcc"];
/// Longest warm-up. It ends with the first sample, which comes after some 10 ms.
const WARM_UP_MAX: Duration = Duration::from_secs(1);

/// True once the tables for unwinding are loaded.
static WARM: AtomicBool = AtomicBool::new(false);
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
    if !WARM.load(Ordering::Acquire) {
        warm_up()?;
        WARM.store(true, Ordering::Release);
    }
    let guard = ProfilerGuardBuilder::default()
        .frequency(FREQUENCY_HERTZ)
        .build();
    let guard = guard.map_err(ProfileError::Start)?;
    match abandoned.recv_timeout(duration) {
        Err(RecvTimeoutError::Timeout) => {}
        Ok(()) | Err(RecvTimeoutError::Disconnected) => return Err(ProfileError::Lost),
    }
    let report = guard.report().build().map_err(ProfileError::Build)?;
    drop(guard);
    let profile = report.pprof().map_err(ProfileError::Build)?;
    let mut bytes = Vec::with_capacity(profile.encoded_len());
    let encoded = profile.encode(&mut bytes);
    encoded.map_err(|error| ProfileError::Encode {
        reason: error.to_string(),
    })?;
    Ok(bytes)
}

/// Lets the first sample of the process fall where loading the tables is safe: most likely in this
/// thread, which does nothing but count, and in no thread that is inside the C library.
#[expect(
    clippy::disallowed_methods,
    reason = "runs on the profiler's own thread"
)]
fn warm_up() -> Result<(), ProfileError> {
    let guard = ProfilerGuardBuilder::default()
        .frequency(FREQUENCY_HERTZ)
        .blocklist(&WARM_UP_BLOCKED_OBJECTS)
        .build()
        .map_err(ProfileError::Start)?;
    let begin = Instant::now();
    while begin.elapsed() < WARM_UP_MAX {
        // Two milliseconds of work between looks, since looking locks samples out.
        for number in 0..1_000_000_u32 {
            std::hint::black_box(number);
        }
        let report = guard
            .report()
            .build_unresolved()
            .map_err(ProfileError::Build)?;
        if !report.data.is_empty() {
            break;
        }
    }
    Ok(())
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
