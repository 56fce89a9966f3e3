//! `cargo xtask bench`: builds the shipped binary and the program that measures it, and runs the measurements.
//!
//! What is measured, and how, is in `bench/`: a package of its own, because a load generator must be compiled for speed
//! and developer tasks need not be.

use std::time::Duration;

use anyhow::Context;
use nagi_e2e::{tools, wait};

use crate::checkout::Checkout;
use crate::command::{Network, Run};
use crate::setup;
use crate::test::RELEASE_BINARY;

/// A whole run takes about a quarter of an hour; longer means that something hangs.
const LIMIT: Duration = Duration::from_mins(20);

/// What the clusters of a full run are made of.
const TOOLS: [tools::Tool; 6] = [
    tools::KUBERNETES,
    tools::ETCD,
    tools::COREDNS,
    tools::METRICS_SERVER,
    tools::KWOK,
    tools::STAND_INS,
];

/// What a line of the measurements begins with that says why they do not hold.
const NOT_HELD: &str = "not held: ";

/// Measures; `--quick` makes it short, `--json FILE` keeps the raw rounds.
pub(crate) fn run(checkout: &Checkout, arguments: &[String]) -> anyhow::Result<()> {
    let mut peers = Vec::new();
    if !arguments.iter().any(|argument| argument == "--quick") {
        // Here, where there is a network, and outside the limit: the first time it takes minutes.
        setup::for_cluster(checkout)?;
        for tool in TOOLS {
            tool.build()?;
        }
        peers = vec!["--pdu".into(), setup::pdu()?.into_os_string()];
    }
    // One build each: built together, the two would share the features that either of them asks for, and the binary would
    // not be the one that ships.
    for package in ["nagi-cli", "nagi-bench"] {
        Run::cargo()
            .arguments(["build", "--release", "--locked", "--package", package])
            .within(checkout.root())
            .finish()?;
    }
    let is_recovery = |argument: &String| argument == "recovery";
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    // Some figures are told by tests, which a quick run leaves out: their build takes longer than it.
    let tests = if !is_quick || arguments.iter().any(is_recovery) {
        Some(tests(checkout)?)
    } else {
        None
    };
    let binary = checkout.root().join(RELEASE_BINARY);
    // Ctrl-C reaches the measurements too: they take down what they started, and this waits for them.
    wait::heed_signals()?;
    let mut missed = Vec::new();
    let measured = Run::limited(
        checkout.root().join("target/release/nagi-bench"),
        LIMIT,
        Network::Own,
    )
    .argument("--nagi")
    .argument(binary)
    .arguments(peers)
    .arguments(tests.iter().flat_map(|tests| ["--tests", tests.as_str()]))
    .arguments(arguments)
    .finish_reading(|line| {
        if line.starts_with(NOT_HELD) {
            missed.push(line.to_owned());
        }
    });
    // The table of steps shows the error last, far below the measurements.
    if missed.is_empty() {
        measured
    } else {
        measured.context(missed.join("\n"))
    }
}

/// Builds the tests of the command line, and gives their program.
fn tests(checkout: &Checkout) -> anyhow::Result<String> {
    const BUILT: [&str; 8] = [
        "test",
        "--locked",
        "--package",
        "nagi-cli",
        "--test",
        "cli",
        "--no-run",
        "--message-format=json",
    ];
    let built = Run::cargo().arguments(BUILT).within(checkout.root());
    let told = built.output()?;
    let lines = told.lines().map(serde_json::from_str::<serde_json::Value>);
    let artifacts: Vec<serde_json::Value> = lines.collect::<Result<_, _>>()?;
    let is_test = |artifact: &&serde_json::Value| {
        artifact["target"]["name"] == "cli" && artifact["profile"]["test"] == true
    };
    let test = artifacts.iter().find(is_test);
    let program = test.and_then(|artifact| artifact["executable"].as_str());
    program
        .map(str::to_owned)
        .context("find the program of the tests")
}
