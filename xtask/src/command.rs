//! Runs other programs for the tasks: with their output captured, or passed on while some of it is read.
//!
//! A failure names the program, its arguments and how it ended, so that a person can repeat it by hand.
//! No shell is involved.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

/// The path of a program that the shell would find.
#[expect(
    clippy::disallowed_methods,
    reason = "the search path of the person who runs the task"
)]
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// How a program meets the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// As everything else on this machine.
    OfThisMachine,
    /// With nothing but a loopback of its own, so that no port of this machine is in its way and nothing outside can
    /// be reached; where the machine does not allow that, as everything else.
    Own,
}

/// A program to run.
#[derive(Debug)]
pub(crate) struct Run {
    command: Command,
    line: String,
}

fn can_isolate() -> bool {
    on_path("ip").is_some()
        && on_path("unshare").is_some()
        && Run::new("unshare")
            .arguments(["--net", "--", "ip", "link", "set", "lo", "up"])
            .quiet()
            .finish()
            .is_ok()
}

// === impl Run ===

impl Run {
    /// Starts describing a run of `program`.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where a task starts a program"
    )]
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let line = program.as_ref().to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Self { command, line }
    }

    /// Cargo, in the version that the toolchain file of the working copy names.
    pub(crate) fn cargo() -> Self {
        Self::new("cargo")
    }

    /// A program that is ended, with all that it started, when it takes longer than `limit`: a hanging test must not
    /// keep the other steps, and their table, from the person who waits.
    pub(crate) fn limited(program: impl AsRef<OsStr>, limit: Duration, network: Network) -> Self {
        // At a terminal Ctrl-C must reach the tests too, so they stay in the foreground.
        let foreground = std::io::stdin().is_terminal().then_some("--foreground");
        let run = Self::new("timeout")
            .arguments(foreground)
            .arguments(["--kill-after=10".to_owned(), limit.as_secs().to_string()]);
        let run = match network {
            Network::Own if can_isolate() => run
                .arguments(["unshare", "--net", "--", "sh", "-c"])
                .argument("ip link set lo up && exec \"$0\" \"$@\""),
            Network::Own | Network::OfThisMachine => run,
        };
        run.argument(program)
    }

    /// Adds one argument.
    pub(crate) fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.line.push(' ');
        self.line.push_str(&argument.as_ref().to_string_lossy());
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub(crate) fn arguments<I>(self, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        arguments.into_iter().fold(self, Self::argument)
    }

    /// Sets an environment variable.
    pub(crate) fn environment(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Passes no variable of this process on.
    pub(crate) fn bare_environment(mut self) -> Self {
        self.command.env_clear();
        self
    }

    /// Says nothing on either output.
    pub(crate) fn quiet(mut self) -> Self {
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        self
    }

    /// Says what it says on standard error, since what a task prints on standard output may be read by a shell.
    pub(crate) fn aside(mut self) -> Self {
        self.command.stdout(std::io::stderr());
        self
    }

    /// Runs in `directory`.
    pub(crate) fn within(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Runs to the end and returns what was printed on standard output.
    pub(crate) fn output(mut self) -> anyhow::Result<String> {
        let output = self
            .command
            .output()
            .with_context(|| format!("start '{}'", self.line))?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!(
                "'{}' ended with {}\n{}",
                self.line,
                output.status,
                errors.trim_end()
            );
        }
        String::from_utf8(output.stdout)
            .with_context(|| format!("read what '{}' printed", self.line))
    }

    /// Runs to the end and returns what was printed on standard output, and whether it ended well.
    pub(crate) fn output_of_any_end(mut self) -> anyhow::Result<(String, bool)> {
        let child = self.command.stdout(Stdio::piped());
        let output = child
            .output()
            .with_context(|| format!("start '{}'", self.line))?;
        Ok((
            String::from_utf8_lossy(&output.stdout).into_owned(),
            output.status.success(),
        ))
    }

    /// Runs to the end with the terminal of this process.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        let status = self
            .command
            .status()
            .with_context(|| format!("start '{}'", self.line))?;
        if !status.success() {
            bail!("'{}' ended with {status}", self.line);
        }
        Ok(())
    }

    /// Runs to the end, passing each line of standard output on and showing it to `reader` as well.
    pub(crate) fn finish_reading(mut self, mut reader: impl FnMut(&str)) -> anyhow::Result<()> {
        let mut child = self
            .command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start '{}'", self.line))?;
        let output = child.stdout.take().context("standard output is piped")?;
        for line in BufReader::new(output).split(b'\n') {
            let line = line.with_context(|| format!("read what '{}' prints", self.line))?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            reader(&line);
        }
        let status = child
            .wait()
            .with_context(|| format!("wait for '{}'", self.line))?;
        if !status.success() {
            bail!("'{}' ended with {status}", self.line);
        }
        Ok(())
    }
}
