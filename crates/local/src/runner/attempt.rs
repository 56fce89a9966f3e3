//! One attempt of one replica, from the order to start it until nothing of it is left.
//!
//! Each attempt has a task of its own that starts the supervisor (or takes over one that runs), asks the replica whether it
//! serves, passes on the order to stop, and waits for the supervisor's end on a pidfd. Whatever happens it ends with one
//! [`Report::Ended`], and only when no process of the attempt is left that could be found: an end without an exit record
//! means that the supervisor was killed, and then everything that carries the attempt's mark is killed first.
//! Dropping the task leaves the replica running; the next engine adopts it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nagi_runtime::Blocking;
use rustix::process::{Signal, WaitId, WaitIdOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::ShimCommand;
use super::probe::{Heard, Questions};
use crate::disk;
use crate::engine::explained;
use crate::file::Readiness;
use crate::process::cgroup::ControlGroup;
use crate::process::{ProcessId, descendants, marked};
use crate::shim::record::{self, Ending, Exit, Kind, Launch, REPLICA_VARIABLE, Running};
use crate::world::ReplicaId;

/// How long after the end of the grace period a supervisor may still be busy before it is ended with all it has.
const SUPERVISOR_GRACE: Duration = Duration::from_secs(3);
/// Between two tries to end an attempt whose supervisor does not.
const FORCE_AGAIN: Duration = Duration::from_secs(2);
/// Between two looks for processes that a killed supervisor left behind. A process in the middle of `exec` shows no mark for
/// some microseconds, so the end is believed after two looks.
const SWEEP_PAUSE: Duration = Duration::from_millis(10);
/// Between two looks whether the command of a replica without a port has been started.
const COMMAND_PAUSE: Duration = Duration::from_millis(5);
/// How long the command of a replica without a port has to run before it counts as ready. It cannot be asked, so only
/// staying tells it from one that ends at once; most of what is wrong with a command (a missing file, a wrong argument)
/// ends it well within a second, and nobody sends a request that would wait for it.
pub(super) const RUNS_AT_LEAST: Duration = Duration::from_secs(1);

/// What an attempt tells the runner.
#[derive(Debug)]
pub(super) enum Report {
    /// The supervisor runs.
    Started,
    /// The replica serves, or does no longer.
    Serves(bool),
    /// Why it does not serve.
    Unready(String),
    /// Nothing of it is left.
    Ended(Ending),
}

/// A report and who it is about.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: ReplicaId,
    pub(super) attempt: String,
    pub(super) report: Report,
}

/// The task of an attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) id: ReplicaId,
    /// Directory of the replica.
    pub(super) directory: PathBuf,
    pub(super) launch: Launch,
    pub(super) readiness: Readiness,
    /// How long it has to run before it counts as ready, where nothing else tells.
    pub(super) settles: Duration,
    pub(super) shim: Arc<ShimCommand>,
    pub(super) blocking: Blocking,
    /// Becomes the grace period when the replica is to stop.
    pub(super) stop: watch::Receiver<Option<Duration>>,
    pub(super) reports: mpsc::Sender<Message>,
}

// === impl Attempt ===

impl Attempt {
    /// Where a replica with this launch record listens.
    pub(super) fn address(launch: &Launch) -> Option<SocketAddr> {
        launch
            .port
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// Starts the supervisor and sees the attempt to its end.
    pub(super) async fn launch(mut self) {
        let (shim, directory, launch) = (
            Arc::clone(&self.shim),
            self.directory.clone(),
            self.launch.clone(),
        );
        let started = self
            .blocking
            .run(move || start(&shim, &directory, &launch))
            .await;
        let why = match started {
            Ok(Ok(supervisor)) => return self.live(supervisor).await,
            Ok(Err(error)) => explained(&error),
            Err(error) => explained(&error),
        };
        let (directory, launch) = (self.directory.clone(), self.launch.clone());
        // What cannot be removed now is found by the next engine.
        drop(
            self.blocking
                .run(move || remove_records(&directory, &launch))
                .await,
        );
        self.end_with(Ending::NotStarted(why)).await;
    }

    /// Sees an attempt to its end whose supervisor was started by an earlier engine.
    pub(super) async fn adopt(mut self, supervisor: OwnedFd) {
        self.live(supervisor).await;
    }

    async fn live(&mut self, supervisor: OwnedFd) {
        self.tell(Report::Started).await;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, because a type may lie about its descriptor; an OwnedFd does not"
        )]
        let handle = match AsyncFd::with_interest(supervisor, Interest::READABLE) {
            Ok(handle) => handle,
            Err(error) => {
                // Out of descriptors or watches: an attempt that cannot be watched must not stay.
                self.force().await;
                return self.end_with(Ending::NotStarted(error.to_string())).await;
            }
        };
        let (mut stop, mut stopping) = (self.stop.clone(), false);
        let mut force_at: Option<Instant> = None;
        let this = &*self;
        let mut asking = std::pin::pin!(this.ask());
        loop {
            // Cancel-safe, each of them: a pidfd stays readable, a watch keeps its value, the instant is fixed
            // outside, and the questions go on where they were.
            tokio::select! {
                _ended = handle.readable() => break,
                grace = wanted_stop(&mut stop) => {
                    // A second order shortens the first.
                    let margin = if stopping { Duration::ZERO } else { SUPERVISOR_GRACE };
                    force_at = Some(Instant::now() + grace + margin);
                    if !stopping {
                        this.terminate(handle.get_ref(), grace).await;
                    }
                    stopping = true;
                }
                () = sleep_until(force_at.unwrap_or_else(Instant::now)), if force_at.is_some() => {
                    this.force().await;
                    force_at = Some(Instant::now() + FORCE_AGAIN);
                }
                () = &mut asking, if !stopping => {}
            }
        }
        let ending = this.clean(handle.into_inner()).await;
        this.end_with(ending).await;
    }

    /// Asks for ever whether the replica serves, and tells when the answer changes.
    async fn ask(&self) {
        let Some(address) = Self::address(&self.launch) else {
            let running = Kind::Running.path(&self.directory, &self.launch.attempt);
            // A record is a small file in the page cache: reading it blocks nobody.
            while record::read::<Running>(&running).is_none_or(|record| record.command.is_none()) {
                sleep(COMMAND_PAUSE).await;
            }
            // Dropped when the supervisor ends, so only a command that still runs is told of.
            sleep(self.settles).await;
            self.tell(Report::Serves(true)).await;
            return std::future::pending().await;
        };
        let mut questions = Questions::to(address, self.readiness.clone());
        loop {
            let report = match questions.news().await {
                Heard::Serves(serves) => Report::Serves(serves),
                Heard::Unready(why) => Report::Unready(why),
            };
            self.tell(report).await;
        }
    }

    /// Tells the supervisor to stop, with the grace period as the file states it now.
    async fn terminate(&self, supervisor: &OwnedFd, grace: Duration) {
        let stop_grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        if stop_grace_ms != self.launch.stop_grace_ms {
            let path = Kind::Launch.path(&self.directory, &self.launch.attempt);
            let launch = Launch {
                stop_grace_ms,
                ..self.launch.clone()
            };
            let written = self
                .blocking
                .run(move || record::write(&path, &launch))
                .await;
            if !matches!(written, Ok(Ok(()))) {
                tracing::warn!(
                    attempt = self.launch.attempt,
                    "Grace period could not be changed"
                );
            }
        }
        // A failure says that it is gone, which the pidfd says too.
        rustix::process::pidfd_send_signal(supervisor, Signal::TERM).ok();
    }

    /// Kills the supervisor and everything below and beside it.
    async fn force(&self) {
        tracing::warn!(
            namespace = %self.id.workload.namespace, workload = %self.id.workload.name,
            replica = %self.id.name(), "Replica did not stop and is killed"
        );
        let (directory, launch) = (self.directory.clone(), self.launch.clone());
        let killed = self.blocking.run(move || {
            let path = Kind::Running.path(&directory, &launch.attempt);
            let running: Option<Running> = record::read(&path);
            if let Some(running) = running {
                for process in descendants(running.supervisor.pid) {
                    drop(process.signal(Signal::KILL));
                }
                drop(running.supervisor.signal(Signal::KILL));
            }
            kill_marked(&launch);
        });
        if let Err(error) = killed.await {
            tracing::error!(error = %error, "Replica could not be killed");
        }
    }

    /// After the supervisor's end: how it ended, when nothing of the attempt is left.
    async fn clean(&self, supervisor: OwnedFd) -> Ending {
        // Its own parent has to take it off the process table. For an adopted one that is somebody else.
        let status = rustix::process::waitid(
            WaitId::PidFd(supervisor.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
        let code = status
            .ok()
            .flatten()
            .and_then(|status| status.exit_status());
        let exit = Kind::Exit.path(&self.directory, &self.launch.attempt);
        let ending = record::read::<Exit>(&exit).map(|exit| exit.ending);
        if ending.is_none() {
            // Before what takes time: nobody is to be sent there any more.
            self.tell(Report::Serves(false)).await;
            self.sweep().await;
        }
        let (directory, launch) = (self.directory.clone(), self.launch.clone());
        let removed = self
            .blocking
            .run(move || remove_records(&directory, &launch))
            .await;
        if let Err(error) = removed {
            tracing::error!(error = %error, "Records of a replica could not be removed");
        }
        match (ending, code) {
            (Some(ending), _) => ending,
            (None, Some(code)) => {
                // It ended by itself and could not say so: no record can be read or written.
                let why = format!("its supervisor ended with exit code {code} (is the disk full?)");
                Ending::NotStarted(why)
            }
            (None, None) => Ending::Lost,
        }
    }

    /// Kills what a killed supervisor left behind, and returns when nothing is.
    async fn sweep(&self) {
        let mut clean_looks = 0;
        while clean_looks < 2 {
            let launch = self.launch.clone();
            let found = self.blocking.run(move || kill_marked(&launch)).await;
            clean_looks = if matches!(found, Ok(0)) {
                clean_looks + 1
            } else {
                0
            };
            sleep(SWEEP_PAUSE).await;
        }
    }

    async fn end_with(&self, ending: Ending) {
        self.tell(Report::Ended(ending)).await;
    }

    async fn tell(&self, report: Report) {
        let (id, attempt) = (self.id.clone(), self.launch.attempt.clone());
        // Refused only when the runner is gone, and then there is nobody to tell.
        drop(
            self.reports
                .send(Message {
                    id,
                    attempt,
                    report,
                })
                .await,
        );
    }
}

/// Waits for the next order to stop. A runner that is gone orders nothing.
async fn wanted_stop(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    while stop.changed().await.is_ok() {
        if let Some(grace) = *stop.borrow_and_update() {
            return grace;
        }
    }
    std::future::pending().await
}

/// Writes the launch record and starts the supervisor. The handle means exactly this process: it is our child, and is
/// waited for by nobody else.
#[expect(
    clippy::disallowed_methods,
    reason = "the local engine runs supervisors; this is where"
)]
fn start(shim: &ShimCommand, directory: &std::path::Path, launch: &Launch) -> io::Result<OwnedFd> {
    disk::make_directory(directory).map_err(io::Error::other)?;
    let path = Kind::Launch.path(directory, &launch.attempt);
    record::write(&path, launch).map_err(io::Error::other)?;
    Command::new(&shim.program)
        .args(&shim.arguments)
        .arg(directory)
        .arg(&launch.attempt)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .and_then(|child| {
            let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
            let process = ProcessId::of(pid).ok_or_else(|| io::Error::other("no such process"))?;
            process
                .open()?
                .ok_or_else(|| io::Error::other("no such process"))
        })
}

/// Kills every process that carries the mark of an attempt or is in its control group. How many there were.
pub(super) fn kill_marked(launch: &Launch) -> usize {
    let group = launch.control_group.clone().map(ControlGroup::at);
    let inside = group.as_ref().map_or(0, |group| group.members().len());
    if let Some(group) = &group {
        // What this misses carries the mark.
        drop(group.kill());
    }
    let marked = marked(&format!("{REPLICA_VARIABLE}={}", launch.mark));
    for process in &marked {
        drop(process.signal(Signal::KILL));
    }
    inside.max(marked.len())
}

/// Removes the records of an attempt that has ended, and its empty control group.
pub(super) fn remove_records(directory: &std::path::Path, launch: &Launch) {
    // The launch record last: while it is there, the next engine knows whom to look for.
    for kind in [Kind::Running, Kind::Exit, Kind::Launch] {
        disk::remove_file(&kind.path(directory, &launch.attempt));
    }
    if let Some(group) = launch.control_group.clone() {
        ControlGroup::at(group).remove();
    }
}
