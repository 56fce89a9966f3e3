//! `cargo xtask cluster`: sets up what a cluster is made of, and hands over to the harness in `e2e/`.

use crate::checkout::Checkout;
use crate::setup;

/// Runs one of the harness's commands.
pub(crate) fn run(checkout: &Checkout, arguments: &[String]) -> anyhow::Result<()> {
    if nagi_e2e::command::needs_set_up(arguments) {
        setup::for_cluster(checkout)?;
    }
    nagi_e2e::command::run(arguments)
}
