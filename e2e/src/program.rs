//! Programs that a test starts beside a cluster: they belong to it, so they end with it, whatever becomes of the test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;

use crate::call::Call;
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

/// The binary as a developer has it, built now: a stale one would prove nothing.
///
/// # Errors
/// It cannot be built.
pub fn build_nagi() -> anyhow::Result<PathBuf> {
    let root = working_copy()?;
    cargo()
        .arguments(["build", "--package", "nagi-cli", "--locked", "--quiet"])
        .within(&root)
        .limit(Duration::from_mins(20))
        .succeed()?;
    Ok(root.join("target/debug/nagi"))
}

fn working_copy() -> anyhow::Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .context("find the working copy")
}

/// A call of the cargo that runs this, without what it told this test of its own package: that makes build scripts of others
/// run again, and all that needs them.
#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells what it runs, and in its environment only, which cargo it is"
)]
pub fn cargo() -> Call {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let own = std::env::vars()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
    Call::new("env")
        .arguments(own.map(|name| format!("--unset={name}")))
        .argument(cargo)
}

/// Two ports of the loopback that were free a moment ago.
///
/// # Errors
/// There is none.
pub fn free_ports() -> anyhow::Result<[u16; 2]> {
    // Both are held until both are known, so that they differ.
    let held = [
        TcpListener::bind("127.0.0.1:0").context("find a free port")?,
        TcpListener::bind("127.0.0.1:0").context("find a free port")?,
    ];
    let mut ports = [0; 2];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr().context("look at a port")?.port();
    }
    Ok(ports)
}
