//! The supervisor of one replica: a small process of our own binary between the engine and the command.
//!
//! It exists so that the death of the engine changes nothing for the replicas: it holds the pipes, stores the output,
//! knows the exit status and can end everything that the command left behind. It is started as `nagi shim DIRECTORY
//! ATTEMPT`, reads the launch record of that attempt, writes its own record, and only then starts the command.
//!
//! **No double, no orphan.** An engine that takes over a state directory first writes itself into the engine file and
//! then looks for records. A supervisor first writes its record and then reads the engine file; if it finds another
//! engine there, or a dead one, it refuses to start the command. Whichever of the two comes second sees the other:
//! either the new engine finds the record and adopts, or the supervisor finds the new engine and gives way. A process
//! id of a parent would not do: for a moment after its death it is still the parent.
//!
//! **Nothing left over.** It is a child subreaper, so whatever the command forked and abandoned stays its descendant,
//! `setsid` or not; where there is a control group, the command lives in it. An order to stop asks all of them to end, and all
//! have the same grace: a worker behind a shell that is gone at once may be the one with something to finish. When that time is
//! over, or when the command ends by itself, whatever is left is killed and waited for before the exit record is written.
//!
//! It decides nothing: when to start again, and whether, is the engine's business.

pub mod output;
pub mod record;

mod child;

use std::error::Error as _;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nagi_ports::{Clock, SystemClock};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use self::child::Child;
use self::output::{Lines, Output, Stream};
use self::record::{Ending, EngineInCharge, Exit, Kind, Launch, Running};
use crate::disk::WriteError;
use crate::process::{ProcessId, boot_id};

/// Read at once from a pipe. Stored, each line has some 45 bytes more: of the shortest lines this becomes 360 KiB, by which a
/// file may exceed its size.
const READ_BYTES: usize = 16 << 10;
/// Output stored in the long run, each second. A replica that prints more waits in its `write`. At this rate the
/// supervisor needs a few hundredths of a core.
const OUTPUT_BYTES_PER_SECOND: u64 = 8 << 20;
/// What may be stored at once before that rate counts: one second's worth.
const OUTPUT_BURST: Duration = Duration::from_secs(1);
/// After everything is dead, a pipe can only be open because somebody outside holds it: not waited for longer.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// Exit code of a supervisor that could not do its work (`EX_SOFTWARE` of sysexits).
const EXIT_FAILURE: u8 = 70;

/// Why a supervisor could not do its work; the engine sees the exit code and a line on standard error.
#[derive(Debug, thiserror::Error)]
enum ShimError {
    #[error("usage: shim DIRECTORY ATTEMPT")]
    Usage,
    #[error("cannot prepare the supervisor")]
    Prepare(#[source] io::Error),
    #[error("no launch record of attempt {0}")]
    NoLaunch(String),
    #[error("cannot write a record")]
    Write(#[source] WriteError),
}

/// Keeps the pace of the output: each byte moves the time at which all of it would be paid for.
#[derive(Debug)]
struct Pace {
    paid_at: Instant,
}

/// One of the command's two pipes.
struct Pipe {
    receiver: Option<pipe::Receiver>,
    lines: Lines,
    buffer: Vec<u8>,
}

/// Runs a supervisor to its end. `arguments` are those after the subcommand: directory of the replica, attempt.
///
/// Must be called before the process has any other thread. Blocks until nothing of the replica is left.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match supervise(&arguments.into_iter().collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error belongs to the engine here, which has no other way to learn of this.
            let why = error
                .source()
                .map(|source| format!(": {source}"))
                .unwrap_or_default();
            drop(writeln!(io::stderr(), "{error}{why}"));
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn supervise(arguments: &[OsString]) -> Result<(), ShimError> {
    let [directory, attempt] = arguments else {
        return Err(ShimError::Usage);
    };
    let directory = PathBuf::from(directory);
    let attempt = attempt.to_str().ok_or(ShimError::Usage)?;
    // A session of its own: Ctrl-C and a closed terminal mean the engine, not the replicas. It fails only for a
    // process that already leads a group, which has what it needs.
    rustix::process::setsid().ok();
    let own = ProcessId::current().map_err(ShimError::Prepare)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| ShimError::Prepare(error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ShimError::Prepare)?;
    runtime.block_on(attempt_once(&directory, attempt, own))
}

/// The life of one attempt.
async fn attempt_once(directory: &Path, attempt: &str, own: ProcessId) -> Result<(), ShimError> {
    let clock = SystemClock::new();
    // Before anything can be asked of us: a signal that comes early is kept, not deadly.
    let mut stop = signal(SignalKind::terminate()).map_err(ShimError::Prepare)?;
    let mut changed = signal(SignalKind::child()).map_err(ShimError::Prepare)?;
    let launch: Launch = record::read(&Kind::Launch.path(directory, attempt))
        .ok_or_else(|| ShimError::NoLaunch(attempt.to_owned()))?;
    let mut running = Running {
        attempt: attempt.to_owned(),
        supervisor: own,
        boot_id: boot_id().map_err(ShimError::Prepare)?,
        command: None,
        since: clock.now(),
    };
    write(&Kind::Running.path(directory, attempt), &running)?;
    // Only now, after the record: see the head of this file.
    if !engine_is_in_charge(&launch) {
        return write_exit(directory, attempt, &clock, Ending::Superseded);
    }
    let mut output = Output::append_in(directory);
    let (mut child, mut pipes) = match child::start(&launch, own) {
        Ok(started) => started,
        Err(error) => {
            let why = child::explain(&launch, &error);
            output.note(clock.now(), &why);
            return write_exit(directory, attempt, &clock, Ending::NotStarted(why));
        }
    };
    running.command = Some(child.process());
    // Who the command is serves diagnosis only; the supervisor is known already.
    drop(record::write(
        &Kind::Running.path(directory, attempt),
        &running,
    ));
    child.confine();

    let grace = || stop_grace(directory, attempt, &launch);
    let ending = watch(
        &mut child,
        &mut pipes,
        &mut output,
        &clock,
        (&mut stop, &mut changed),
        grace,
    )
    .await;
    let at = clock.now();
    child.end_everything().await;
    // Cancel-safe: what a read had taken when time ran out is not in the buffer yet and stays in the pipe.
    drop(tokio::time::timeout(DRAIN_MAX, drain(&mut pipes, &mut output, &clock)).await);
    for pipe in &mut pipes {
        pipe.end(&mut output, &clock);
    }
    let exit = Exit {
        attempt: attempt.to_owned(),
        at,
        ending,
    };
    write(&Kind::Exit.path(directory, attempt), &exit)
}

/// Stores output and waits until the command has ended by itself, or until it and all that came from it have ended because they
/// were told to, within their grace.
async fn watch(
    child: &mut Child,
    pipes: &mut [Pipe; 2],
    output: &mut Output,
    clock: &SystemClock,
    (stop, changed): (&mut Signal, &mut Signal),
    grace: impl Fn() -> Duration,
) -> Ending {
    let mut pace = Pace {
        paid_at: Instant::now(),
    };
    let mut kill_at: Option<Instant> = None;
    let (mut ended, mut grace_is_over) = (None, false);
    loop {
        ended = ended.or(child.reap());
        if let Some(ending) =
            ended.take_if(|_| kill_at.is_none() || grace_is_over || child::nothing_is_left())
        {
            return ending;
        }
        let [stdout, stderr] = pipes;
        let resume_at = pace.resume_at();
        // Cancel-safe, each of them: signals are kept until received, a read takes nothing unless it completes, and the
        // two instants are fixed outside.
        tokio::select! {
            _ = changed.recv() => {}
            _ = stop.recv(), if kill_at.is_none() => {
                child.terminate();
                kill_at = Some(Instant::now() + grace());
            }
            () = until(kill_at) => {
                child.kill();
                grace_is_over = true;
                // Asked again each second until it is gone: a process in an uninterruptible call dies late.
                kill_at = Some(Instant::now() + Duration::from_secs(1));
            }
            count = async { tokio::time::sleep_until(resume_at).await; stdout.read().await }, if stdout.is_open() => {
                pace.spend(stdout.store(count, output, clock));
            }
            count = async { tokio::time::sleep_until(resume_at).await; stderr.read().await }, if stderr.is_open() => {
                pace.spend(stderr.store(count, output, clock));
            }
        }
    }
}

/// Reads what is left in the pipes until both are closed.
async fn drain(pipes: &mut [Pipe; 2], output: &mut Output, clock: &SystemClock) {
    for pipe in pipes {
        while pipe.is_open() {
            let count = pipe.read().await;
            pipe.store(count, output, clock);
        }
    }
}

/// Waits for an instant, or for ever when there is none.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn engine_is_in_charge(launch: &Launch) -> bool {
    record::read::<EngineInCharge>(&launch.engine_file)
        .is_some_and(|engine| engine.generation == launch.generation && engine.engine.is_alive())
}

/// The grace period as it is now: the engine rewrites the launch record when the workload file changes it.
fn stop_grace(directory: &Path, attempt: &str, launch: &Launch) -> Duration {
    let now: Option<Launch> = record::read(&Kind::Launch.path(directory, attempt));
    Duration::from_millis(now.as_ref().unwrap_or(launch).stop_grace_ms)
}

fn write_exit(
    directory: &Path,
    attempt: &str,
    clock: &SystemClock,
    ending: Ending,
) -> Result<(), ShimError> {
    let exit = Exit {
        attempt: attempt.to_owned(),
        at: clock.now(),
        ending,
    };
    write(&Kind::Exit.path(directory, attempt), &exit)
}

fn write<T: serde::Serialize>(path: &Path, record: &T) -> Result<(), ShimError> {
    record::write(path, record).map_err(ShimError::Write)
}

// === impl Pace ===

impl Pace {
    /// When the next read is due; mostly an instant that has passed.
    fn resume_at(&self) -> Instant {
        self.paid_at
            .checked_sub(OUTPUT_BURST)
            .unwrap_or(self.paid_at)
    }

    fn spend(&mut self, bytes: u64) {
        let cost =
            Duration::from_nanos(bytes.saturating_mul(1_000_000_000 / OUTPUT_BYTES_PER_SECOND));
        self.paid_at = self.paid_at.max(Instant::now()) + cost;
    }
}

// === impl Pipe ===

impl Pipe {
    fn new(receiver: pipe::Receiver, stream: Stream) -> Self {
        let buffer = vec![0; READ_BYTES];
        Self {
            receiver: Some(receiver),
            lines: Lines::of(stream),
            buffer,
        }
    }

    const fn is_open(&self) -> bool {
        self.receiver.is_some()
    }

    async fn read(&mut self) -> usize {
        let Some(receiver) = &mut self.receiver else {
            return 0;
        };
        // A pipe that cannot be read is treated like one that is closed.
        receiver.read(&mut self.buffer).await.unwrap_or(0)
    }

    /// Stores what the last read took; nothing taken means that the pipe is closed. Returns the bytes stored.
    fn store(&mut self, count: usize, output: &mut Output, clock: &SystemClock) -> u64 {
        if count == 0 {
            self.receiver = None;
            return 0;
        }
        let now = clock.now();
        let mut stored = Vec::with_capacity(count + count / 8);
        self.lines.take(
            self.buffer.get(..count).unwrap_or_default(),
            now,
            &mut stored,
        );
        output.append(now, &stored);
        u64::try_from(stored.len()).unwrap_or(u64::MAX)
    }

    fn end(&mut self, output: &mut Output, clock: &SystemClock) {
        let now = clock.now();
        let mut stored = Vec::new();
        self.lines.end(now, &mut stored);
        if !stored.is_empty() {
            output.append(now, &stored);
        }
        self.receiver = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_of_output_is_free_and_the_rest_waits_for_its_time() {
        let begin = Instant::now();
        let mut pace = Pace { paid_at: begin };
        pace.spend(OUTPUT_BYTES_PER_SECOND);
        assert!(pace.resume_at() <= begin, "the burst");
        pace.spend(OUTPUT_BYTES_PER_SECOND / 2);
        let wait = pace.resume_at() - begin;
        assert!(
            wait > Duration::from_millis(450) && wait <= Duration::from_millis(500),
            "{wait:?}"
        );
        // Silence pays for a new burst, but never for more than one.
        tokio::time::sleep(Duration::from_mins(1)).await;
        let later = Instant::now();
        pace.spend(OUTPUT_BYTES_PER_SECOND);
        assert!(pace.resume_at() <= later);
        pace.spend(OUTPUT_BYTES_PER_SECOND);
        assert!(pace.resume_at() > later + Duration::from_millis(900));
    }
}
