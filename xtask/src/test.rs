//! `cargo xtask test`: everything that a change must pass; `cargo xtask check`: the fast part of it.
//!
//! The order is from cheap to dear, and a failed step does not stop the next one: one run names all that is wrong.

use crate::checkout::Checkout;
use crate::command::Run;
use crate::steps::{Counts, Outcome, Steps, counts_in_line};
use crate::tidy;

/// Runs every check.
pub(crate) fn everything(checkout: &Checkout, _arguments: &[String]) -> anyhow::Result<()> {
    let mut steps = Steps::default();
    cheap(&mut steps, checkout);
    steps.run("tests", || tests(checkout));
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

fn tests(checkout: &Checkout) -> anyhow::Result<Outcome> {
    let run = Run::cargo().arguments(["test", "--workspace", "--locked", "--no-fail-fast"]);
    counted(run.within(checkout.root()))
}

/// Runs a `cargo test` and adds up what its test programs report.
fn counted(run: Run) -> anyhow::Result<Outcome> {
    let mut total = Counts::default();
    let ended = run.finish_reading(|line| {
        if let Some(counts) = counts_in_line(line) {
            total.passed += counts.passed;
            total.failed += counts.failed;
        }
    });
    // Failed tests are counted one by one; any other failure (a build error) is the error of the step.
    if total.failed == 0 {
        ended?;
    }
    Ok(Outcome::Tests(total))
}
