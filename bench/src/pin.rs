//! Keeps a program, or a thread, on one core: the server on the first, the load on the second.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The core of the server under test.
pub(crate) const SERVER: usize = 0;
/// The core of the load.
pub(crate) const LOAD: usize = 1;

/// Keeps this thread, and what it starts, on a core. Without a second core everything shares the first.
pub(crate) fn keep_on(core: usize) -> anyhow::Result<()> {
    let available = sched_getaffinity(None).context("ask for the cores of this process")?;
    let mut cores = CpuSet::new();
    cores.set(if available.is_set(core) { core } else { SERVER });
    sched_setaffinity(None, &cores).context("keep to one core")
}

/// `pin CORE PROGRAM ARGUMENT…`: becomes the program, on that core.
#[expect(clippy::disallowed_methods, reason = "it becomes the program")]
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [core, program, arguments @ ..] = arguments else {
        bail!("usage: pin CORE PROGRAM ARGUMENT…")
    };
    keep_on(core.parse().context("read a core")?)?;
    let failed = Command::new(program).args(arguments).exec();
    Err(failed).with_context(|| format!("start {program}"))
}
