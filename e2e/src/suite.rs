//! Runs tests that share clusters: one after another, in the order of their list, with the closing line of `cargo test`.
//!
//! The standard test runner knows no test that cannot run on this machine, and nothing that is taken down after the last test.
//! Here a test that needs root is counted as ignored where there is none, in one line that says so, and after Ctrl-C no
//! further test begins, so that what owns a cluster is dropped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use anyhow::bail;

use crate::wait;

/// One test. `World` is what the tests share; it is dropped after the last one.
#[derive(Debug)]
pub struct Test<World> {
    /// The rule that it proves.
    pub name: &'static str,
    /// What a machine must allow.
    pub needs: Needs,
    /// Fails by an error or a panic.
    pub run: fn(&mut World) -> anyhow::Result<()>,
}

/// What a machine must allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Runs everywhere.
    Nothing,
    /// Makes namespaces, mounts and control groups.
    Root,
}

/// How the tests ended.
#[derive(Debug, Default)]
struct Counts {
    passed: u32,
    failed: Vec<&'static str>,
    ignored: Vec<&'static str>,
    filtered: usize,
}

/// Runs the tests whose name holds one of the arguments; without arguments, all.
///
/// A test that builds on what an earlier one made must be able to make it itself: it may run alone.
pub fn run<World: Default>(tests: &[Test<World>]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run_matching(tests, &arguments) {
        Ok(counts) if counts.failed.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            crate::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stdout,
    reason = "the report of a test program, as `cargo test` reads it"
)]
fn run_matching<World: Default>(
    tests: &[Test<World>],
    arguments: &[String],
) -> anyhow::Result<Counts> {
    let mut wanted = Vec::new();
    for argument in arguments {
        match argument.as_str() {
            "--nocapture" | "--quiet" | "-q" => {}
            option if option.starts_with('-') => bail!(
                "these tests know no '{option}'\nhint: give parts of the names of the tests to run"
            ),
            part => wanted.push(part),
        }
    }
    wait::heed_signals()?;
    let is_root = rustix::process::geteuid().is_root();
    let mut counts = Counts::default();
    let started = wait::now();
    let mut world = World::default();
    for test in tests {
        if !wanted.is_empty() && !wanted.iter().any(|part| test.name.contains(part)) {
            counts.filtered += 1;
            continue;
        }
        if test.needs == Needs::Root && !is_root {
            counts.ignored.push(test.name);
            continue;
        }
        wait::check_interrupted()?;
        let begun = wait::now();
        let ended = catch_unwind(AssertUnwindSafe(|| (test.run)(&mut world)))
            .unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked; the message is above")));
        let took = begun.elapsed().as_secs_f64();
        match ended {
            Ok(()) => {
                counts.passed += 1;
                println!("test {} ... ok ({took:.1} s)", test.name);
            }
            Err(error) => {
                counts.failed.push(test.name);
                println!("test {} ... FAILED ({took:.1} s)\n{error:#}", test.name);
            }
        }
    }
    drop(world);
    if !counts.ignored.is_empty() {
        println!(
            "skipped {} tests that make namespaces, which needs root: {}",
            counts.ignored.len(),
            counts.ignored.join(", ")
        );
    }
    let verdict = if counts.failed.is_empty() {
        "ok"
    } else {
        "FAILED"
    };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        counts.passed,
        counts.failed.len(),
        counts.ignored.len(),
        counts.filtered,
        started.elapsed().as_secs_f64()
    );
    Ok(counts)
}
