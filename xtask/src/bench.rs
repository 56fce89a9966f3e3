//! `cargo xtask bench`: builds the shipped binary and the program that measures it, and runs the measurements.
//!
//! What is measured, and how, is in `bench/`: a package of its own, because a load generator must be compiled for speed
//! and developer tasks need not be.

use std::time::Duration;

use crate::checkout::Checkout;
use crate::command::{Network, Run};
use crate::test::RELEASE_BINARY;

/// A whole run takes about six minutes; longer means that something hangs.
const LIMIT: Duration = Duration::from_mins(20);

/// Measures; `--quick` makes it short, `--json FILE` keeps the raw rounds.
pub(crate) fn run(checkout: &Checkout, arguments: &[String]) -> anyhow::Result<()> {
    // One build each: built together, the two would share the features that either of them asks for, and the binary would
    // not be the one that ships.
    for package in ["nagi-cli", "nagi-bench"] {
        Run::cargo()
            .arguments(["build", "--release", "--locked", "--package", package])
            .within(checkout.root())
            .finish()?;
    }
    let binary = checkout.root().join(RELEASE_BINARY);
    Run::limited(
        checkout.root().join("target/release/nagi-bench"),
        LIMIT,
        Network::Own,
    )
    .argument("--nagi")
    .argument(binary)
    .arguments(arguments)
    .finish()
}
