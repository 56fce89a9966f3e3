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
    let summary = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .context("schemathesis prints a summary")?;
    println!("{summary}");
    Ok(())
}
