//! Runs other programs for the tasks: with their output captured, or passed on while some of it is read.
//!
//! A failure names the program, its arguments and how it ended, so that a person can repeat it by hand.
//! No shell is involved.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// A program to run.
#[derive(Debug)]
pub(crate) struct Run {
    command: Command,
    line: String,
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

    /// Cargo itself, the very one that built this program.
    pub(crate) fn cargo() -> Self {
        Self::new(option_env!("CARGO").unwrap_or("cargo"))
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
