//! Calls of other programs that end by themselves, each with a limit.
//!
//! A failure names the program, its arguments, how it ended and what it said, so that a person can repeat it by hand.
//! The program has a process group of its own, which is ended when the limit passes or the person presses Ctrl-C.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::wait;

/// Enough for everything but builds.
const LIMIT: Duration = Duration::from_mins(1);

/// The first look at a program that ends at once, as most do.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(20);

/// A program to call.
#[derive(Debug)]
pub struct Call {
    command: Command,
    line: String,
    limit: Duration,
    input: Option<String>,
}

/// How a call ended, and what it printed.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed on standard output.
    pub output: String,
    /// What it printed on standard error.
    pub errors: String,
}

/// The path of a program that the shell would find.
#[expect(
    clippy::disallowed_methods,
    reason = "the search path of the person who runs the task"
)]
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// The search path of components: the person's, and where Debian keeps what only root uses.
#[expect(
    clippy::disallowed_methods,
    reason = "the search path of the person who runs the task"
)]
pub fn search_path() -> anyhow::Result<String> {
    let path = std::env::var("PATH").context("read PATH")?;
    Ok(format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"))
}

// === impl Call ===

impl Call {
    /// Starts describing a call of `program`.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the harness calls a program"
    )]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let line = program.as_ref().to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.process_group(0);
        Self {
            command,
            line,
            limit: LIMIT,
            input: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.line.push(' ');
        self.line.push_str(&argument.as_ref().to_string_lossy());
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<I>(self, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        arguments.into_iter().fold(self, Self::argument)
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs in `directory`.
    #[must_use]
    pub fn within(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Ends it when it takes longer.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Gives it this on standard input.
    #[must_use]
    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.input = Some(text.into());
        self
    }

    /// The command itself, for a program that lives on.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }

    /// Runs to the end and returns what was printed on standard output; fails when the program did.
    pub fn output(self) -> anyhow::Result<String> {
        let line = self.line.clone();
        let ended = self.end()?;
        if !ended.status.success() {
            bail!(
                "'{line}' ended with {}\n{}{}",
                ended.status,
                ended.output,
                ended.errors.trim_end()
            );
        }
        Ok(ended.output)
    }

    /// Runs to a good end.
    pub fn succeed(self) -> anyhow::Result<()> {
        self.output().map(drop)
    }

    /// Runs to any end.
    pub fn end(mut self) -> anyhow::Result<Ended> {
        let input = if self.input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        let mut child = self
            .command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start '{}'", self.line))?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let text = self.input.take();
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || match (stdin, text) {
                (Some(mut pipe), Some(text)) => pipe.write_all(text.as_bytes()),
                (_, _) => Ok(()),
            });
            let output = scope.spawn(move || read(stdout));
            let errors = scope.spawn(move || read(stderr));
            let ended = wait_for(&mut child, self.limit, &self.line);
            // A program that ends without reading everything is judged by how it ends.
            let _written = writer.join();
            let gather = |thread: std::thread::ScopedJoinHandle<'_, std::io::Result<String>>| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(std::io::Error::other("the reader panicked")))
                    .with_context(|| format!("read what '{}' prints", self.line))
            };
            let (output, errors) = (gather(output)?, gather(errors)?);
            Ok(Ended {
                status: ended?,
                output,
                errors,
            })
        })
    }
}

fn read(pipe: Option<impl Read>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn wait_for(child: &mut Child, limit: Duration, line: &str) -> anyhow::Result<ExitStatus> {
    let started = wait::now();
    let mut look = FIRST_LOOK;
    loop {
        if let Some(status) = child
            .try_wait()
            .with_context(|| format!("wait for '{line}'"))?
        {
            return Ok(status);
        }
        let interrupted = wait::check_interrupted();
        let late = started.elapsed() >= limit;
        if late || interrupted.is_err() {
            end_group(child);
            child.wait().with_context(|| format!("wait for '{line}'"))?;
            interrupted.with_context(|| format!("call '{line}'"))?;
            bail!("'{line}' took longer than {} s", limit.as_secs());
        }
        wait::pause(look);
        look = (look * 2).min(LAST_LOOK);
    }
}

/// The child is not waited for yet, so its number is still its own. That the group is gone already is no error.
fn end_group(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _gone = kill_process_group(group, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_gives_what_the_program_prints_and_how_it_ends() {
        let ended = Call::new("sh")
            .arguments(["-c", "cat; echo bad >&2; exit 3"])
            .input("good")
            .end()
            .expect("sh starts");
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!(
            (ended.output.as_str(), ended.errors.as_str()),
            ("good", "bad\n")
        );
    }

    #[test]
    fn failed_call_names_its_line_and_what_it_said() {
        let error = Call::new("sh")
            .arguments(["-c", "echo why >&2; exit 3"])
            .output()
            .expect_err("it fails");
        let text = format!("{error:#}");
        assert!(text.contains("sh -c") && text.contains("why"), "{text}");
    }

    #[test]
    fn call_over_its_limit_is_ended_with_its_children() {
        let error = Call::new("sh")
            .arguments(["-c", "sleep 1000 & sleep 1000"])
            .limit(Duration::from_millis(50))
            .output()
            .expect_err("it is ended, although a child holds the pipe");
        assert!(format!("{error:#}").contains("took longer"));
    }
}
