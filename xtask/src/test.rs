//! `cargo xtask test`: everything that a change must pass; `cargo xtask check`: the fast part of it.
//!
//! The order is from cheap to dear, and a failed step does not stop the next one: one run names all that is wrong.
//! The tests run once, instrumented, so that coverage costs no second run.

use std::time::Duration;

use anyhow::{Context, bail};
use nagi_e2e::Where;
use nagi_e2e::tools::{self, Tool};

use crate::checkout::{Checkout, remove_directory};
use crate::command::{Network, Run};
use crate::setup::{self, CARGO_DENY};
use crate::steps::{Counts, Failures, Outcome, Steps, counts_in_line, skipped_in_line};
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
    on_kubernetes(&mut steps, checkout, &[DELIVERY]);
    steps.finish()
}

/// Runs the tests on a real Kubernetes that they start here.
pub(crate) fn on_cluster(checkout: &Checkout, _arguments: &[String]) -> anyhow::Result<()> {
    let mut steps = Steps::default();
    on_kubernetes(&mut steps, checkout, &[DELIVERY, HARNESS, PRODUCT]);
    steps.run("image by a container engine, the same", || {
        image::run(checkout, &["--prove".to_owned()])?;
        Ok(Outcome::Held)
    });
    steps.run("a control plane of static pods", || {
        counted(soak::static_pods(checkout))
    });
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
        // Cargo leaves out those that do not run with the unit tests.
        let run = Run::cargo()
            .arguments(["clippy", "--locked", "--package", "nagi-e2e"])
            .arguments(["--package", "nagi-kube", "--test", "*"])
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

/// A test program of `e2e/tests`, and what is made for it before, so that no test waits for a build.
#[derive(Debug, Clone, Copy)]
struct OnKubernetes {
    step: &'static str,
    test: &'static str,
    tools: &'static [Tool],
    made: Made,
}

/// What a test program takes from this working copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Nothing,
    /// The tests of the adapter against a real API server, and those of a diagnosis against a real etcd.
    TestsOnRealPrograms,
    /// The product and the samples, as images for nodes.
    Images,
}

const HARNESS: OnKubernetes = OnKubernetes {
    step: "the harness of a real Kubernetes",
    test: "harness",
    tools: tools::ALL,
    made: Made::Nothing,
};

/// It needs no nodes, so it runs everywhere, and is a part of [`everything`].
const DELIVERY: OnKubernetes = OnKubernetes {
    step: "manifests, chart and adapter before a real API server",
    test: "delivery",
    tools: &[tools::KUBERNETES, tools::ETCD, tools::HELM],
    made: Made::TestsOnRealPrograms,
};

const PRODUCT: OnKubernetes = OnKubernetes {
    step: "the product on a real Kubernetes",
    test: "product",
    tools: tools::ALL,
    made: Made::Images,
};

/// Where nodes cannot be, control planes alone are tested, and each test that needs nodes says that it is skipped.
fn on_kubernetes(steps: &mut Steps, checkout: &Checkout, programs: &[OnKubernetes]) {
    steps.run("what a real Kubernetes is made of", || {
        setup::for_cluster(checkout)?;
        for program in programs {
            make(checkout, program)?;
        }
        Ok(Outcome::Held)
    });
    for program in programs {
        steps.run(program.step, || {
            let run = Run::cargo()
                .arguments(["test", "--package", "nagi-e2e", "--test", program.test])
                .argument("--locked");
            counted(run.within(checkout.root()))
        });
    }
}

fn make(checkout: &Checkout, program: &OnKubernetes) -> anyhow::Result<()> {
    for tool in program.tools {
        tool.build()?;
    }
    match program.made {
        Made::TestsOnRealPrograms => {
            for package in ["nagi-kube", "nagi-cli"] {
                Run::cargo()
                    .arguments(["test", "--package", package, "--test", "real"])
                    .arguments(["--locked", "--quiet", "--no-run"])
                    .within(checkout.root())
                    .finish()?;
            }
            Ok(())
        }
        Made::Images if Where::best() == Where::Namespace => {
            let directory = checkout.root().join(image::OUTPUT);
            image::archives(checkout, &image::Kind::ALL, &directory).map(drop)
        }
        // Without nodes nothing runs the images.
        Made::Nothing | Made::Images => Ok(()),
    }
}

/// Runs a `cargo test` and adds up what its test programs report.
pub(crate) fn counted(run: Run) -> anyhow::Result<Outcome> {
    let mut total = Counts::default();
    let mut said = 0;
    let mut failures = Failures::default();
    let ended = run.finish_reading(|line| {
        failures.line(line);
        if let Some(skipped) = skipped_in_line(line) {
            total.skipped.push(skipped);
            said += 1;
        }
        if let Some(program) = counts_in_line(line) {
            total.passed += program.passed_of(said);
            total.failed += program.failed;
            said = 0;
        }
    });
    total.failures = failures.finish();
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
