//! `cargo xtask schemathesis`: calls every operation of the REST API with input made from its OpenAPI document.
//!
//! The binary runs `nagi all` on real child processes, with a key, in a network of its own where the machine allows
//! that. What counts as a failure is schemathesis's own list: server errors, answers that the document does not
//! describe, malformed requests that are accepted, good ones that are refused. The stream of events is left out.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::checkout::Checkout;
use crate::command::Run;
use crate::docs::{Plan, Session};
use crate::setup;

/// A run takes a minute or two; ten mean that something hangs.
const LIMIT: Duration = Duration::from_mins(10);

/// The stream of events.
const LEFT_OUT: u32 = 1;

/// Known to this run only.
const KEY: &str = "schemathesis-key";

/// Runs against a debug build.
pub(crate) fn run(checkout: &Checkout, _arguments: &[String]) -> anyhow::Result<()> {
    Run::cargo()
        .arguments(["build", "--locked", "--package", "nagi-cli"])
        .within(checkout.root())
        .finish()?;
    run_binary(checkout, &checkout.root().join("target/debug"))
}

/// Runs against the `nagi` in a directory.
pub(crate) fn run_binary(checkout: &Checkout, binaries: &Path) -> anyhow::Result<()> {
    let program = setup::schemathesis()?;
    let scratch = checkout.root().join("target/schemathesis");
    let session = Session::prepare(
        checkout,
        &checkout.paths()?,
        scratch.clone(),
        binaries,
        LIMIT,
    )?;
    // Limits on the rate of writes would answer most calls with 429; they have tests of their own.
    let server = format!(
        "nagi all --workloads xtask/schemathesis/workloads.yaml --state-dir ../state --log-file ../nagi.log \
         --api-key {KEY} --rate-limit 0 --on-exit stop"
    );
    let calls = format!(
        "'{}' --config-file xtask/schemathesis/schemathesis.toml run http://127.0.0.1:8080/openapi.json \
         --header 'Authorization: Bearer {KEY}' --continue-on-failure\n",
        program.display()
    );
    let ended = session.run(&Plan::background_and_block(&server, &calls))?;
    let report = scratch.join("blocks/0.out");
    let text = std::fs::read_to_string(&report).unwrap_or_default();
    if let Some(failure) = ended.into_iter().find_map(|block| block.failure) {
        bail!("{failure}");
    }
    let reach = Reach::read(&text).context("schemathesis prints how many operations it tested")?;
    println!(
        "{} of {} operations tested: {}",
        reach.tested, reach.all, reach.cases
    );
    if reach.tested + LEFT_OUT != reach.all {
        bail!(
            "{} operations were to be left out, see {}",
            LEFT_OUT,
            report.display()
        );
    }
    Ok(())
}

/// How far a run reached.
#[derive(Debug, PartialEq, Eq)]
struct Reach {
    all: u32,
    tested: u32,
    /// The words about the calls that were made.
    cases: String,
}

// === impl Reach ===

impl Reach {
    /// Reads what schemathesis prints at the end.
    fn read(summary: &str) -> Option<Self> {
        let value = |name: &str| {
            summary
                .lines()
                .find_map(|line| line.trim().strip_prefix(name))
                .map(str::trim)
        };
        let (_, all) = value("Selected:")?.split_once('/')?;
        let cases = summary
            .lines()
            .skip_while(|line| line.trim() != "Test cases:")
            .nth(1)?;
        Some(Self {
            all: all.parse().ok()?,
            tested: value("Tested:")?.parse().ok()?,
            cases: cases.trim().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_says_how_far_the_run_reached() {
        let summary = "API Operations:\n  Selected: 16/17\n  Tested: 16\n\nTest cases:\n  9 generated, 9 passed\n";
        let reach = Reach {
            all: 17,
            tested: 16,
            cases: "9 generated, 9 passed".to_owned(),
        };
        assert_eq!(Reach::read(summary), Some(reach));
        assert_eq!(Reach::read("No operations\n"), None);
    }
}
