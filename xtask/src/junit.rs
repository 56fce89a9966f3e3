//! `cargo xtask junit`: runs the unit tests and leaves a JUnit report for each crate in `target/junit/`.
//!
//! Rust's own test harness writes the report. It calls that format unstable, so the switch that allows unstable
//! options is set, for the test programs only and for nothing that ships.
//!
//! It also names the tests that take longer than A-186 allows. On a busy machine any test may, so that is no failure.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::checkout::Checkout;
use crate::command::Run;

/// What a unit test may take.
const TEST_TIME_MAX: Duration = Duration::from_millis(100);

/// A built test program.
#[derive(Debug, PartialEq, Eq)]
struct TestProgram {
    package: String,
    path: PathBuf,
    /// Tests expect to run where their crate is.
    directory: PathBuf,
}

/// Runs the unit tests of the workspace.
pub(crate) fn run(checkout: &Checkout, _arguments: &[String]) -> anyhow::Result<()> {
    let messages = Run::cargo()
        .arguments([
            "test",
            "--locked",
            "--workspace",
            "--lib",
            "--bins",
            "--no-run",
            "--message-format=json",
        ])
        .within(checkout.root())
        .output()?;
    let reports = checkout.root().join("target/junit");
    std::fs::create_dir_all(&reports).context("create target/junit")?;
    let mut failed = Vec::new();
    for program in test_programs(&messages)? {
        let (report, ended) = Run::new(&program.path)
            .arguments(["-Zunstable-options", "--format=junit", "--report-time"])
            .environment("RUSTC_BOOTSTRAP", "1")
            .within(&program.directory)
            .output_of_any_end()?;
        let file = reports.join(format!("{}.xml", program.package));
        std::fs::write(&file, &report).with_context(|| format!("write {}", file.display()))?;
        println!("{}: target/junit/{}.xml", program.package, program.package);
        for (name, time) in slow_tests(&report) {
            println!("{}: {name} took {} ms", program.package, time.as_millis());
        }
        if !ended {
            failed.push(program.package);
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("tests failed in {}", failed.join(", "))
    }
}

/// The test programs that cargo built, from what it says in JSON.
fn test_programs(messages: &str) -> anyhow::Result<Vec<TestProgram>> {
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: cargo_metadata::Message =
            serde_json::from_str(line).context("read what 'cargo test' says in JSON")?;
        let cargo_metadata::Message::CompilerArtifact(artifact) = message else {
            continue;
        };
        let Some(path) = artifact.executable.filter(|_| artifact.profile.test) else {
            continue;
        };
        let directory = artifact
            .manifest_path
            .parent()
            .context("a manifest lies in a directory")?;
        programs.push(TestProgram {
            package: artifact.target.name,
            path: path.into_std_path_buf(),
            directory: directory.as_std_path().to_owned(),
        });
    }
    Ok(programs)
}

/// The tests of a report that took too long, with their times.
fn slow_tests(report: &str) -> Vec<(&str, Duration)> {
    let mut slow = Vec::new();
    for case in report.split("<testcase ").skip(1) {
        let attribute = |name: &str| {
            let (_, after) = case.split_once(&format!("{name}=\""))?;
            after.split_once('"').map(|(value, _)| value)
        };
        let (Some(name), Some(seconds)) = (
            attribute(" name").or_else(|| attribute("name")),
            attribute("time"),
        ) else {
            continue;
        };
        let time = seconds
            .parse()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        slow.extend(
            time.filter(|time| *time > TEST_TIME_MAX)
                .map(|time| (name, time)),
        );
    }
    slow
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_over_the_limit_is_named() {
        let report = "<testsuites><testsuite name=\"t\"><testcase classname=\"a\" name=\"b\" time=\"0.02\"/>\
            <testcase classname=\"a\" name=\"c\" time=\"0.25\"></testcase></testsuite></testsuites>";
        assert_eq!(slow_tests(report), [("c", Duration::from_millis(250))]);
    }
}
