//! `cargo xtask soak`: every fault on a real control plane, also those that take minutes, and the pages about them; a control
//! plane that is broken in every way and brought back; and the cleaning of disks in as many trees and deaths as its goals name.
//!
//! `cargo xtask test-cluster` runs those that take less than a minute, and writes nothing.

use crate::checkout::Checkout;
use crate::command::Run;
use crate::generate;
use crate::setup;
use crate::steps::{Outcome, Steps};
use crate::test::counted;

/// Makes the tests run every case and write down what they saw.
const ALL: (&str, &str) = ("NAGI_TEST_SOAK", "1");

/// Runs all cases, or those whose names hold one of the arguments; then writes the pages anew.
pub(crate) fn run(checkout: &Checkout, arguments: &[String]) -> anyhow::Result<()> {
    let mut steps = Steps::default();
    steps.run("set-up", || {
        setup::for_cluster(checkout)?;
        Ok(Outcome::Held)
    });
    steps.run("faults, all of them", || {
        let run = faults(checkout)
            .argument("--")
            .arguments(arguments)
            .environment(ALL.0, ALL.1);
        counted(run)
    });
    // With arguments, one chooses among the faults.
    if arguments.is_empty() {
        steps.run("a control plane broken in every way, and back", || {
            counted(static_pods(checkout).environment(ALL.0, ALL.1))
        });
        steps.run(
            "cleaning of disks, as often as the goals name, and ten million files",
            || counted(cleaning(checkout).environment(ALL.0, ALL.1)),
        );
        steps.run("recovery of a node, killed as often", || {
            counted(recovery(checkout).environment(ALL.0, ALL.1))
        });
        steps.run(
            "recovery of a real etcd, as often as its goal names",
            || counted(real(checkout).environment(ALL.0, ALL.1)),
        );
    }
    steps.run("pages of faults", || {
        generate::fault_pages(checkout)?;
        Ok(Outcome::Held)
    });
    steps.finish()
}

/// Runs the cases that take less than a minute.
pub(crate) fn short(checkout: &Checkout) -> anyhow::Result<Outcome> {
    setup::for_cluster(checkout)?;
    counted(faults(checkout))
}

fn faults(checkout: &Checkout) -> Run {
    Run::cargo()
        .arguments(["test", "--package", "nagi-e2e", "--test", "faults"])
        .argument("--locked")
        .within(checkout.root())
}

/// A node of static pods whose full disk takes its API server down, and back, in less than six minutes; with all cases, the
/// other ways to break it too. Each waits for what really takes its time, and together they take a quarter of an hour.
pub(crate) fn static_pods(checkout: &Checkout) -> Run {
    Run::cargo()
        .arguments(["test", "--package", "nagi-e2e", "--test", "recovery"])
        .argument("--locked")
        .within(checkout.root())
}

/// Trees made by chance, kills and shutdowns of filesystems, a thousand pods that are begun meanwhile: what `nagi disk clean`
/// must bear; and ten million files.
fn cleaning(checkout: &Checkout) -> Run {
    Run::cargo()
        .arguments(["test", "--package", "nagi-guard", "--test", "disk"])
        .arguments(["--locked", "--", "clean::", "many::"])
        .within(checkout.root())
}

/// Kills of `nagi recover run`.
fn recovery(checkout: &Checkout) -> Run {
    Run::cargo()
        .arguments(["test", "--package", "nagi-cli", "--test", "cli"])
        .arguments(["--locked", "--", "recover::runs"])
        .within(checkout.root())
}

/// What needs a real etcd, which the tests of what is delivered have.
fn real(checkout: &Checkout) -> Run {
    Run::cargo()
        .arguments(["test", "--package", "nagi-e2e", "--test", "delivery"])
        .arguments(["--locked", "--", "a_dead_cluster"])
        .within(checkout.root())
}
