//! Asking an owner through its own program, for never longer than it may take.
//!
//! Programs of owners wait for daemons, and a daemon on a full disk may never answer. So each call has a deadline, after
//! which it is killed with everything that it started; what it prints is read up to a limit. It gets on stdin what it is given, and a
//! language that does not change with the node's settings.

use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nagi_ports::Clock;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use thiserror::Error;

/// Longer answers are no answers: a list of all snaps has a few kilobytes.
const ANSWER_MAX: u64 = 1 << 20;
/// Of what a program says on stderr so much is passed on.
const SAID_MAX: usize = 300;
/// A process that was killed ends within this time, or hangs in the kernel, where nothing reaches it.
const KILLED_WITHIN: Duration = Duration::from_secs(1);

/// Why an owner did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AskError {
    /// Its program is not on this node.
    #[error("{0} is not there")]
    Missing(&'static str),
    /// The program cannot be started, or not be waited for.
    #[error("{program} cannot be run: {why}")]
    Run {
        /// The program.
        program: &'static str,
        /// Why.
        why: String,
    },
    /// It did not end in time.
    #[error("{program} did not answer within {} s", .within.as_secs())]
    Hangs {
        /// The program.
        program: &'static str,
        /// The deadline.
        within: Duration,
    },
    /// It refused.
    #[error("{program}: {said}")]
    Refused {
        /// The program.
        program: &'static str,
        /// What it said.
        said: String,
    },
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// It is missing, refuses, or hangs.
pub(super) fn ask(
    program: &'static str,
    arguments: &[String],
    within: Duration,
    clock: &dyn Clock,
) -> Result<String, AskError> {
    let answer = ask_with(program, arguments, &[], within, clock)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The same for bytes, with something on stdin.
///
/// # Errors
/// As [`ask`].
pub(crate) fn ask_with(
    program: &'static str,
    arguments: &[String],
    input: &[u8],
    within: Duration,
    clock: &dyn Clock,
) -> Result<Vec<u8>, AskError> {
    let failed = |why: &dyn std::fmt::Display| AskError::Run {
        program,
        why: why.to_string(),
    };
    // In memory: nothing is written where the disk is full, and nobody has to read while the program runs.
    let files = [c"answer", c"said", c"input"].map(|name| {
        rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).map(std::fs::File::from)
    });
    let [answer, said, given] = files;
    let (mut answer, mut said) = (
        answer.map_err(|e| failed(&e))?,
        said.map_err(|e| failed(&e))?,
    );
    let mut given = given.map_err(|e| failed(&e))?;
    given
        .write_all(input)
        .and_then(|()| given.rewind())
        .map_err(|e| failed(&e))?;
    let hand = |file: &std::fs::File| file.try_clone().map_err(|error| failed(&error));
    let mut command = command(program);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(given)
        .stdout(hand(&answer)?)
        .stderr(hand(&said)?)
        .process_group(0);
    let child = match command.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(AskError::Missing(program));
        }
        other => other.map_err(|error| failed(&error))?,
    };
    let ended = wait(child, within, clock).map_err(|error| failed(&error))?;
    let Some(status) = ended else {
        return Err(AskError::Hangs { program, within });
    };
    if !status.success() {
        let text = read(&mut said).map_err(|error| failed(&error))?;
        let text = String::from_utf8_lossy(&text);
        let text: String = text.trim().chars().take(SAID_MAX).collect();
        let said = if text.is_empty() {
            status.to_string()
        } else {
            text
        };
        return Err(AskError::Refused { program, said });
    }
    read(&mut answer).map_err(|error| failed(&error))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place of this crate that starts programs: those of owners, who alone may give their space back"
)]
fn command(program: &str) -> Command {
    Command::new(program)
}

/// None when it did not end in time; then it was killed with its group.
fn wait(
    mut child: Child,
    within: Duration,
    clock: &dyn Clock,
) -> std::io::Result<Option<ExitStatus>> {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return child.wait().map(Some);
    };
    let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    if ends(&handle, within, clock)? {
        return child.wait().map(Some);
    }
    match rustix::process::kill_process_group(pid, Signal::KILL) {
        // It ended at this moment.
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error.into()),
    }
    if ends(&handle, KILLED_WITHIN, clock)? {
        child.wait()?;
    }
    Ok(None)
}

/// The process ends within this time.
fn ends(
    handle: &rustix::fd::OwnedFd,
    within: Duration,
    clock: &dyn Clock,
) -> std::io::Result<bool> {
    let end = clock.monotonic().saturating_add(within);
    loop {
        let left = end.saturating_sub(clock.monotonic());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut watched = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut watched, Some(&left)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn read(file: &mut std::fs::File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(ANSWER_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nagi_ports::SystemClock;

    fn shell(script: &str, within: Duration) -> Result<String, AskError> {
        let arguments = ["-c", script].map(str::to_owned);
        ask("sh", &arguments, within, &SystemClock::new())
    }

    // W-B10: a dead daemon does not hold the cleaner up, nor does what its program started.
    #[test]
    fn a_program_that_hangs_is_ended_with_what_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let clock = SystemClock::new();
        // So long that a shell has begun by then on a machine that has much to do.
        let within = Duration::from_secs(5);
        let hung = shell(&script, within);
        assert_eq!(
            hung,
            Err(AskError::Hangs {
                program: "sh",
                within
            })
        );
        assert!(clock.monotonic() < Duration::from_secs(30));
        let pid = std::fs::read_to_string(file).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            // It was told to end, which takes it a moment.
            Ok(handle) => assert!(ends(&handle, Duration::from_secs(30), &clock).unwrap()),
            Err(error) => assert_eq!(error, rustix::io::Errno::SRCH),
        }
    }

    #[test]
    fn what_an_owner_says_is_passed_on() {
        let long = Duration::from_mins(1);
        assert_eq!(shell("echo a; echo b >&2", long), Ok("a\n".to_owned()));
        let refused = shell("echo no >&2; exit 3", long);
        assert_eq!(refused.unwrap_err().to_string(), "sh: no");
        assert_eq!(
            shell("exit 3", long).unwrap_err().to_string(),
            "sh: exit status: 3"
        );
        let missing = ask("no-such-program", &[], long, &SystemClock::new());
        assert_eq!(missing, Err(AskError::Missing("no-such-program")));
    }
}
