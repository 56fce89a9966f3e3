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

/// A whole run takes about half an hour; longer means that something hangs.
const LIMIT: Duration = Duration::from_mins(50);

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
    let is_bars = |argument: &String| argument == "bars";
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    // Some figures are told by tests, which a quick run leaves out: their build takes longer than it.
    let tests = if !is_quick || arguments.iter().any(is_bars) {
        tests(checkout)?
    } else {
        Vec::new()
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
    .arguments(tests.iter().flat_map(|test| ["--tests", test.as_str()]))
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

/// Builds the tests that tell figures, and gives their programs by target: `TARGET=PROGRAM`.
fn tests(checkout: &Checkout) -> anyhow::Result<Vec<String>> {
    const BUILT: [&[&str]; 2] = [
        &[
            "nagi-cli", "--test", "cli", "--test", "system", "--test", "real",
        ],
        &["nagi-guard", "--lib", "--test", "disk"],
    ];
    let mut programs = Vec::new();
    for words in BUILT {
        let built = Run::cargo()
            .arguments(["test", "--locked", "--no-run", "--message-format=json"])
            .argument("--package")
            .arguments(words)
            .within(checkout.root());
        for line in built.output()?.lines() {
            let artifact: serde_json::Value = serde_json::from_str(line)?;
            if artifact["profile"]["test"] == true
                && let Some(target) = artifact["target"]["name"].as_str()
                && let Some(program) = artifact["executable"].as_str()
            {
                programs.push(format!("{target}={program}"));
            }
        }
    }
    Ok(programs)
}
