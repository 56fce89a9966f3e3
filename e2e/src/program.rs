//! Programs that a test starts beside a cluster: they belong to it, so they end with it, whatever becomes of the test.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::control_plane::{ControlPlane, log};
use crate::process::{Component, Place, Process, Started, last_lines};

/// A running program; it is killed when this is dropped.
#[derive(Debug)]
pub struct Program {
    started: Started,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Starts a program in the machine's network. What it prints is added to the log of its name.
    pub fn start_program(
        &self,
        name: &str,
        program: &Path,
        arguments: &[String],
        environment: &[(&str, String)],
    ) -> anyhow::Result<Program> {
        let component = Component {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            place: Place::default(),
            log: log(self.directory(), name),
        };
        let started = component.start(self.directory())?;
        Ok(Program { started })
    }
}

// === impl Program ===

impl Program {
    /// Its process.
    pub fn process(&self) -> Process {
        self.started.recorded.process
    }

    /// Fails, with the end of its log, when it does not run any more.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.started.check()
    }

    /// Sends it a signal; one that has ended already gets none.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.process().signal(signal)
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.started.kill()
    }

    /// Where its output goes.
    pub fn log(&self) -> PathBuf {
        self.started.recorded.component.log.clone()
    }

    /// The end of its output, for an error.
    pub fn last_lines(&self) -> String {
        last_lines(&self.started.recorded.component.log)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            crate::say(&format!("a program could not be ended: {error:#}"));
        }
    }
}
