//! Runs tests that share clusters: one after another, in the order of their list, with the closing line of `cargo test`.
//!
//! The standard test runner knows no test that cannot run on this machine, and nothing that is taken down after the last test.
//! Here a test that needs more than the machine allows is counted as ignored and says why, and after Ctrl-C no
//! further test begins, so that what owns a cluster is dropped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;

use crate::control_plane::Where;
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
    /// Makes namespaces, mounts and control groups, as root may.
    Namespaces,
}

/// What is done after a test, with its name, how long it took and how it ended; what it returns counts.
pub type After<World> =
    fn(&mut World, &'static str, Duration, anyhow::Result<()>) -> anyhow::Result<()>;

/// How the tests ended.
#[derive(Debug, Default)]
struct Counts {
    passed: u32,
    failed: Vec<&'static str>,
    ignored: usize,
    filtered: usize,
}

/// Runs the tests whose name holds one of the arguments; without arguments, all.
///
/// A test that builds on what an earlier one made must be able to make it itself: it may run alone.
pub fn run<World: Default>(tests: &[Test<World>]) -> ExitCode {
    run_each(tests, |_, _, _, ended| ended)
}

/// As [`run`], with something that is done after each test that ran.
pub fn run_each<World: Default>(tests: &[Test<World>], after: After<World>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run_matching(tests, &arguments, after) {
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
    after: After<World>,
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
    let has_namespaces = Where::best() == Where::Namespace;
    let mut counts = Counts::default();
    let started = wait::now();
    let mut world = World::default();
    for test in tests {
        if !wanted.is_empty() && !wanted.iter().any(|part| test.name.contains(part)) {
            counts.filtered += 1;
            continue;
        }
        if test.needs == Needs::Namespaces && !has_namespaces {
            println!("skipped {}: only root may make namespaces", test.name);
            counts.ignored += 1;
            continue;
        }
        wait::check_interrupted()?;
        let begun = wait::now();
        let ended = catch_unwind(AssertUnwindSafe(|| (test.run)(&mut world)))
            .unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked; the message is above")));
        let ended = after(&mut world, test.name, begun.elapsed(), ended);
        let took = begun.elapsed().as_secs_f64();
        match ended {
            Ok(()) => {
                counts.passed += 1;
                println!("test {} ... ok ({took:.1} s)", test.name);
            }
            Err(error) => {
                counts.failed.push(test.name);
                println!(
                    "test {0} ... FAILED ({took:.1} s)\n---- {0} ----\n{error:#}",
                    test.name
                );
            }
        }
    }
    drop(world);
    let verdict = if counts.failed.is_empty() {
        "ok"
    } else {
        "FAILED"
    };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        counts.passed,
        counts.failed.len(),
        counts.ignored,
        counts.filtered,
        started.elapsed().as_secs_f64()
    );
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shared world counts the tests that ran before.
    fn tests() -> [Test<u32>; 3] {
        let test = |name, run| Test {
            name,
            needs: Needs::Nothing,
            run,
        };
        [
            test("holds", |count| {
                *count += 1;
                Ok(())
            }),
            test("panics", |_| panic!("on purpose")),
            test("sees_what_came_before", |count| {
                anyhow::ensure!(*count == 1, "{count}");
                Ok(())
            }),
        ]
    }

    fn run(arguments: &[&str]) -> anyhow::Result<Counts> {
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        run_matching(&tests(), &arguments, |_, _, _, ended| ended)
    }

    #[test]
    fn what_is_done_after_a_test_decides_how_it_ended() {
        let turned = run_matching(&tests(), &[], |_, name, _, ended| match ended {
            Ok(()) => anyhow::bail!("{name} held"),
            Err(_) => Ok(()),
        });
        let counts = turned.expect("it comes to its end");
        assert_eq!(
            (counts.passed, counts.failed),
            (1, vec!["holds", "sees_what_came_before"])
        );
    }

    #[test]
    fn tests_share_their_world_and_a_panic_is_one_failure() {
        let counts = run(&[]).expect("it comes to its end");
        assert_eq!((counts.passed, counts.failed), (2, vec!["panics"]));
    }

    #[test]
    fn only_tests_that_are_named_run() {
        let counts = run(&["before", "--nocapture"]).expect("it comes to its end");
        assert_eq!(
            counts.failed,
            ["sees_what_came_before"],
            "nothing came before"
        );
        assert_eq!(counts.filtered, 2);
        assert!(run(&["--unknown"]).is_err());
    }
}
