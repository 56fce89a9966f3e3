//! B16: what it costs to have `nagi guard` on a node while nothing happens.
//!
//! It guards the disk that the benchmark lies on, with its defaults: a look every two seconds, thirty times as often as the bar
//! asks for, and ballast and owners switched off, of which the one is a single call and the other an hourly walk that `disk`
//! measures. Its root is a directory, so that it needs no rights and finds nothing to remember but levels.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::nagi::{memory, processor_time, program};
use crate::report::{Report, Row, Sense, Weight};
use crate::{Options, clock};

const MEBIBYTE: f64 = 1_048_576.0;
/// The first looks are done, and what was read at the start is given back.
const SETTLE: Duration = Duration::from_secs(5);

/// A guard that runs.
struct Guard {
    child: Child,
    /// Whoever reads its log: without one its lines would be errors.
    log: BufReader<ChildStdout>,
}

/// Measures memory, processor time and writes of an idle guard.
pub(crate) fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let beside = options
        .nagi
        .parent()
        .context("the binary lies in a directory")?;
    let directory = tempfile::Builder::new()
        .prefix("bench-guard-")
        .tempdir_in(beside)
        .context("make a directory")?;
    for below in ["run", "var/lib", "var/log"] {
        std::fs::create_dir_all(directory.path().join(below)).context("make a directory")?;
    }
    let guard = Guard::start(options, directory.path())?;
    clock::wait(SETTLE)?;
    let window = Duration::from_secs(options.pick(60, 10));
    let id = guard.child.id();
    let (used, written) = (processor_time(id)?, written(id)?);
    clock::wait(window)?;
    let used = processor_time(id)?.saturating_sub(used);
    let written = self::written(id)? - written;
    let resident = memory(id)?.resident;
    drop(guard);
    let seconds = window.as_secs();
    report.row(Row {
        id: "B16",
        what: format!("idle `nagi guard`: resident memory after {seconds} s"),
        unit: "MiB",
        sense: Sense::AtMost,
        goal: 10.0,
        seen: resident / MEBIBYTE,
        peer: String::new(),
        weight: Weight::Printed,
    });
    report.row(Row {
        id: "B16",
        what: format!("idle `nagi guard`: processor over {seconds} s, of one core"),
        unit: "%",
        sense: Sense::AtMost,
        goal: 0.1,
        seen: used.as_secs_f64() / window.as_secs_f64() * 100.0,
        peer: String::new(),
        weight: Weight::Printed,
    });
    report.row(Row {
        id: "B16",
        what: format!("idle `nagi guard`: written to disks over {seconds} s"),
        unit: "bytes",
        sense: Sense::AtMost,
        goal: 0.0,
        seen: written,
        peer: String::new(),
        weight: Weight::Printed,
    });
    Ok(())
}

/// What a process had written to storage so far, in bytes.
fn written(id: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/io")).context("read /proc")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes:"));
    line.context("find write_bytes")?
        .trim()
        .parse()
        .context("read write_bytes")
}

impl Guard {
    fn start(options: &Options, root: &std::path::Path) -> anyhow::Result<Self> {
        let mut command = program(&options.nagi);
        command
            .arg("guard")
            .arg("--root")
            .arg(root)
            .args([
                "--no-ballast",
                "--no-owners",
                "--clean",
                "off",
                "--alert-log",
                "none",
            ])
            .args(["--metrics-listen", "127.0.0.1:0"])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("start the guard")?;
        let output = child.stdout.take().context("its output is piped")?;
        let mut guard = Self {
            child,
            log: BufReader::new(output),
        };
        let mut line = String::new();
        guard.log.read_line(&mut line).context("read its log")?;
        ensure!(line.contains("Guard starting"), "it did not start: {line}");
        Ok(guard)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It has no state here; one that has ended already is gone.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}
