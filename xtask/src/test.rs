//! `cargo xtask test`: everything that a change must pass; `cargo xtask check`: the fast part of it.
//!
//! The order is from cheap to dear, and a failed step does not stop the next one: one run names all that is wrong.
//! The tests run once, instrumented, so that coverage costs no second run.

use std::time::Duration;

use anyhow::{Context, bail};

use crate::checkout::{Checkout, remove_directory};
use crate::command::{Network, Run};
use crate::setup::{self, CARGO_DENY};
use crate::steps::{Counts, Outcome, Steps, counts_in_line, skipped_in_line};
use crate::{bench, coverage, docs, generate, image, schemathesis, soak, tidy};

/// The release binary, below the root of the working copy.
pub(crate) const RELEASE_BINARY: &str = "target/release/nagi";

/// The release binary may be this large: 25 MB, as goal and as promise in the README.
const BINARY_BYTES_MAX: u64 = 25_000_000;

/// The tour takes less than a minute; a build may come before it.
const DEMO_LIMIT: Duration = Duration::from_mins(10);

/// What a log line of the demo holds when its tour looked at something: it reads with GET, as our own client.
const DEMO_LOOK: &str = "\"method\":\"GET\"";

/// Looks of the tour at most: about two for each of the twenty things that it waits for.
const DEMO_LOOKS_MAX: usize = 50;

/// Runs every check.
pub(crate) fn everything(checkout: &Checkout, _arguments: &[String]) -> anyhow::Result<()> {
    let mut steps = Steps::default();
    steps.run("set-up", || {
        setup::for_tests(checkout)?;
        Ok(Outcome::Held)
    });
    cheap(&mut steps, checkout);
    steps.run("bans, licences, sources", || {
        bans(checkout)?;
        Ok(Outcome::Held)
    });
    steps.run("generated files", || {
        generate::run(checkout, &["--check".to_owned()])?;
        Ok(Outcome::Held)
    });
    steps.run("tests", || coverage::run_tests(checkout));
    steps.run("coverage", || {
        coverage::judge(checkout)?;
        Ok(Outcome::Held)
    });
    steps.run("documentation of the code", || {
        Run::cargo()
            .arguments([
                "doc",
                "--workspace",
                "--no-deps",
                "--document-private-items",
                "--locked",
                "--quiet",
            ])
            .environment(
                "RUSTDOCFLAGS",
                "-D warnings -A rustdoc::private_intra_doc_links",
            )
            .within(checkout.root())
            .finish()?;
        Ok(Outcome::Held)
    });
    steps.run("release binary and its size", || {
        release_build(checkout)?;
        Ok(Outcome::Held)
    });
    let binaries = checkout.root().join("target/release");
    steps.run("demo", || {
        demo(checkout)?;
        Ok(Outcome::Held)
    });
    steps.run("speed and size, in short", || {
        bench::run(checkout, &["--quick".to_owned()])?;
        Ok(Outcome::Held)
    });
    steps.run("REST API against its document", || {
        schemathesis::run_binary(checkout, &binaries)?;
        Ok(Outcome::Held)
    });
    steps.run("shell blocks of the documents", || {
        docs::run_pages(checkout, &binaries, &[])
    });
    steps.finish()
}

/// Runs the tests of the product on a real Kubernetes that they start here. Not yet a part of [`everything`]: its tour of
/// the founding documents' commands has not been seen green on a quiet machine often enough to hold up every change.
pub(crate) fn on_cluster(checkout: &Checkout, _arguments: &[String]) -> anyhow::Result<()> {
    let mut steps = Steps::default();
    steps.run("a real Kubernetes", || on_kubernetes(checkout));
    steps.run("faults on a real control plane", || soak::short(checkout));
    steps.finish()
}

/// Runs the checks of the edit loop.
pub(crate) fn fast(checkout: &Checkout, _arguments: &[String]) -> anyhow::Result<()> {
    let mut steps = Steps::default();
    cheap(&mut steps, checkout);
    steps.run("unit tests", || {
        let run = Run::cargo().arguments(["test", "--workspace", "--lib", "--bins", "--quiet"]);
        counted(run.within(checkout.root()))
    });
    steps.finish()
}

fn cheap(steps: &mut Steps, checkout: &Checkout) {
    steps.run("format", || {
        let run = Run::cargo().arguments(["fmt", "--all", "--check"]);
        run.within(checkout.root()).finish()?;
        Ok(Outcome::Held)
    });
    steps.run("lints", || {
        let run = Run::cargo()
            .arguments(["clippy", "--workspace", "--all-targets", "--locked"])
            .arguments(["--", "-D", "warnings"]);
        run.within(checkout.root()).finish()?;
        Ok(Outcome::Held)
    });
    steps.run("tidy", || {
        tidy::run(checkout, &[])?;
        Ok(Outcome::Held)
    });
}

/// Advisories are left to the forge's CI: their database is not in any package registry.
fn bans(checkout: &Checkout) -> anyhow::Result<()> {
    Run::new(CARGO_DENY.program()?)
        .arguments([
            "--offline",
            "--locked",
            "check",
            "--allow",
            "unused-wrapper",
        ])
        .arguments(["bans", "licenses", "sources"])
        .within(checkout.root())
        .finish()
}

/// Compares the dependencies with the database of known weaknesses, which is fetched from the network.
pub(crate) fn advisories(checkout: &Checkout, _arguments: &[String]) -> anyhow::Result<()> {
    setup::cargo_deny()?;
    Run::new(CARGO_DENY.program()?)
        .arguments(["--locked", "check", "advisories"])
        .within(checkout.root())
        .finish()
}

fn release_build(checkout: &Checkout) -> anyhow::Result<()> {
    let run = Run::cargo().arguments(["build", "--release", "--locked", "--package", "nagi-cli"]);
    run.within(checkout.root()).finish()?;
    let binary = checkout.root().join(RELEASE_BINARY);
    let size = binary
        .metadata()
        .with_context(|| format!("look at {RELEASE_BINARY}"))?
        .len();
    println!("{RELEASE_BINARY}: {size} bytes, at most {BINARY_BYTES_MAX}");
    if size > BINARY_BYTES_MAX {
        bail!("the release binary has {size} bytes, and {BINARY_BYTES_MAX} are allowed");
    }
    Ok(())
}

/// `make demo` as a newcomer runs it, but without a terminal: it takes the tour, checks each step and ends.
fn demo(checkout: &Checkout) -> anyhow::Result<()> {
    let state = checkout.root().join("target/demo");
    remove_directory(&state)?;
    Run::limited("make", DEMO_LIMIT, Network::Own)
        .argument("demo")
        .argument(format!("ARGUMENTS=--state-dir {}", state.display()))
        .environment("CARGO_NET_OFFLINE", "true")
        .within(checkout.root())
        .finish()?;
    // Its log is to tell of the demo, and not of the tour that looks at it.
    let log =
        std::fs::read_to_string(state.join("nagi.log")).context("read the log of the demo")?;
    let looks = log.lines().filter(|line| line.contains(DEMO_LOOK)).count();
    println!(
        "{looks} of {} log lines are looks of the tour, at most {DEMO_LOOKS_MAX}",
        log.lines().count()
    );
    if looks > DEMO_LOOKS_MAX {
        bail!(
            "the log of the demo has {looks} lines of the tour's own looks, and {DEMO_LOOKS_MAX} are allowed"
        );
    }
    Ok(())
}

/// Without root there are no nodes: the tests say in one line that they are skipped, and need neither images nor tools.
fn on_kubernetes(checkout: &Checkout) -> anyhow::Result<Outcome> {
    if setup::is_root()? {
        setup::for_cluster(checkout)?;
        image::archives(
            checkout,
            &image::Kind::ALL,
            &checkout.root().join(image::OUTPUT),
        )?;
    }
    let run = Run::cargo().arguments([
        "test",
        "--package",
        "nagi-e2e",
        "--test",
        "product",
        "--locked",
    ]);
    counted(run.within(checkout.root()))
}

/// Runs a `cargo test` and adds up what its test programs report.
pub(crate) fn counted(run: Run) -> anyhow::Result<Outcome> {
    let mut total = Counts::default();
    let ended = run.finish_reading(|line| {
        if let Some(counts) = counts_in_line(line) {
            total.passed += counts.passed;
            total.failed += counts.failed;
        }
        total.skipped.extend(skipped_in_line(line));
    });
    // Failed tests are counted one by one; any other failure (a build error) is the error of the step.
    if total.failed == 0 {
        ended?;
    }
    Ok(Outcome::Tests(total))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    /// the workflow parses, runs the unit tests' `make ci` on push and pull request to main, and keeps the
    /// coverage report.
    #[test]
    fn workflow_runs_the_checks_that_make_runs() {
        let text = include_str!("../../.github/workflows/ci.yml");
        let workflow: Value = serde_saphyr::from_str(text).expect("the workflow is valid YAML");
        for event in ["push", "pull_request"] {
            assert_eq!(
                workflow["on"][event]["branches"],
                serde_json::json!(["main"]),
                "{event}"
            );
        }
        let jobs = workflow["jobs"].as_object().expect("there are jobs");
        let steps: Vec<&Value> = jobs
            .values()
            .flat_map(|job| job["steps"].as_array().expect("steps"))
            .collect();
        for command in [
            "make -C tests/unit ci",
            "bash .ci/run",
            "cargo xtask advisories",
        ] {
            assert!(steps.iter().any(|step| step["run"] == command), "{command}");
        }
        assert!(
            steps
                .iter()
                .any(|step| step["with"]["path"] == super::coverage::REPORT),
            "coverage is kept"
        );
        assert!(
            jobs.values().all(|job| job["timeout-minutes"].is_u64()),
            "every job ends"
        );
    }
}
