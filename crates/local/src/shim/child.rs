//! The command of a replica and everything that came from it: start, signal, wait, end.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions};
use tokio::net::unix::pipe;

use super::Pipe;
use super::output::Stream;
use super::record::{Ending, Launch};
use crate::process::cgroup::ControlGroup;
use crate::process::{ProcessId, descendants};

/// First pause between two attempts to end what is left; doubles up to [`END_PAUSE_MAX`].
const END_PAUSE: Duration = Duration::from_millis(2);
/// A process that survives SIGKILL this long hangs in the kernel; looking more often does not help it.
const END_PAUSE_MAX: Duration = Duration::from_millis(100);
/// Passes over the descendants to bring all of them into the control group. Each pass is left with those that were born
/// outside it during the last one, so two are normally enough.
const CONFINE_PASSES_MAX: usize = 8;

/// A started command.
#[derive(Debug)]
pub(super) struct Child {
    own: ProcessId,
    process: ProcessId,
    group: Option<ControlGroup>,
    /// Set once the command was waited for. From then on its pid may belong to somebody else.
    ended: bool,
}

/// Starts the command in a process group of its own, with two pipes.
///
/// # Errors
/// What the system said: no such program, no such directory, too many processes.
#[expect(
    clippy::disallowed_methods,
    reason = "the local engine runs commands; this is where"
)]
pub(super) fn start(launch: &Launch, own: ProcessId) -> io::Result<(Child, [Pipe; 2])> {
    let (program, arguments) = launch
        .command
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "empty command"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&launch.environment)
        .current_dir(&launch.working_directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    // It cannot be gone: a child that ended stays a zombie until we wait for it.
    let process = ProcessId::of(pid).ok_or_else(|| io::Error::other("/proc does not show it"))?;
    let stdout = receiver(child.stdout.take().map(OwnedFd::from))?;
    let stderr = receiver(child.stderr.take().map(OwnedFd::from))?;
    let group = launch.control_group.clone().map(ControlGroup::at);
    let child = Child {
        own,
        process,
        group,
        ended: false,
    };
    Ok((
        child,
        [
            Pipe::new(stdout, Stream::Stdout),
            Pipe::new(stderr, Stream::Stderr),
        ],
    ))
}

/// Says in one line why a command could not be started.
pub(super) fn explain(launch: &Launch, error: &io::Error) -> String {
    let program = launch.command.first().map_or("", |program| program);
    let directory = launch.working_directory.display();
    if error.kind() == io::ErrorKind::NotFound && !launch.working_directory.is_dir() {
        return format!("cannot start {program:?}: no directory {directory}");
    }
    format!("cannot start {program:?} in {directory}: {error}")
}

fn receiver(pipe: Option<OwnedFd>) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(pipe.ok_or_else(|| io::Error::other("no pipe to the command"))?)
}

/// True when this process has nothing to wait for: then there is no descendant, because all of them come to it when their
/// parents end.
pub(super) fn nothing_is_left() -> bool {
    matches!(
        rustix::process::wait(WaitOptions::NOHANG),
        Err(rustix::io::Errno::CHILD)
    )
}

// === impl Child ===

impl Child {
    /// The command itself.
    pub(super) const fn process(&self) -> ProcessId {
        self.process
    }

    /// Brings the command, and what it forked meanwhile, into the control group.
    ///
    /// After the start and not before: the first move on a quiet machine waits about 12 ms for the kernel, and the
    /// command uses that time to start. A group that cannot be used is given up; walking descendants remains.
    pub(super) fn confine(&mut self) {
        let Some(group) = &self.group else { return };
        if group.take(self.process.pid).is_err() {
            self.group = None;
            return;
        }
        for _ in 0..CONFINE_PASSES_MAX {
            let inside = group.members();
            let outside: Vec<ProcessId> = descendants(self.own.pid)
                .into_iter()
                .filter(|process| !inside.contains(&process.pid))
                .collect();
            if outside.is_empty() {
                return;
            }
            for process in outside {
                // One that ended meanwhile needs no group.
                drop(group.take(process.pid));
            }
        }
    }

    /// Asks the command and everything that came from it to end. Each is asked once: to many a program a second SIGTERM means
    /// to leave everything and go. One that is forked at this moment outside the process group may be missed; its grace is
    /// the same.
    pub(super) fn terminate(&self) {
        let members = self.group.as_ref().map(ControlGroup::members);
        let mut others: BTreeSet<ProcessId> = descendants(self.own.pid).into_iter().collect();
        others.extend(members.into_iter().flatten().filter_map(ProcessId::of));
        // Those of the group are reached by its signal, in one step of the kernel.
        others.retain(|process| !self.is_in_process_group(*process));
        self.signal_group(Signal::TERM);
        for process in others {
            // One that is gone, or somebody else's; the latter is waited for.
            drop(process.signal(Signal::TERM));
        }
    }

    /// Kills the command, its process group and the control group.
    pub(super) fn kill(&self) {
        self.signal_group(Signal::KILL);
        if let Some(group) = &self.group {
            // A failure is met by the walk over descendants that follows in any case.
            drop(group.kill());
        }
    }

    /// Waits for everything that has ended; how the command ended, if it was among them.
    pub(super) fn reap(&mut self) -> Option<Ending> {
        let mut ending = None;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid.as_raw_pid() != self.process.pid || self.ended {
                continue;
            }
            self.ended = true;
            let signal = status.terminating_signal().map(Ending::Signal);
            ending =
                Some(signal.unwrap_or_else(|| Ending::Code(status.exit_status().unwrap_or(0))));
        }
        ending
    }

    /// Kills whatever is left of the replica and returns when nothing is.
    pub(super) async fn end_everything(&mut self) {
        let mut pause = END_PAUSE;
        while !self.is_everything_gone() {
            if let Some(group) = &self.group {
                drop(group.kill());
            }
            for process in descendants(self.own.pid) {
                // Somebody else's process (a set-user-id program) cannot be killed; it is waited for.
                drop(process.signal(Signal::KILL));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(END_PAUSE_MAX);
        }
        if let Some(group) = &self.group {
            group.remove();
        }
    }

    fn is_everything_gone(&mut self) -> bool {
        self.reap();
        nothing_is_left()
            && self
                .group
                .as_ref()
                .is_none_or(|group| group.members().is_empty())
    }

    fn is_in_process_group(&self, process: ProcessId) -> bool {
        !self.ended
            && rustix::process::getpgid(Pid::from_raw(process.pid))
                .is_ok_and(|group| group.as_raw_pid() == self.process.pid)
    }

    fn signal_group(&self, signal: Signal) {
        if self.ended {
            return;
        }
        // Not yet waited for, so neither the pid nor the group can belong to anybody else. The group is empty of others
        // when the command moved itself to another one; then the command alone is meant.
        if let Some(pid) = Pid::from_raw(self.process.pid)
            && rustix::process::kill_process_group(pid, signal).is_err()
        {
            rustix::process::kill_process(pid, signal).ok();
        }
    }
}
