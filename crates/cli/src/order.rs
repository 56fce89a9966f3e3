//! What the commands that change something share: reason, dry run, and the answer in one line.

use clap::Args;
use nagi_client::DryRun;
use nagi_core::id::WorkloadId;
use serde_json::Value;

use crate::failure::Failure;
use crate::output::Place;
use crate::session::Session;

/// Options of every change.
#[derive(Debug, Clone, Args)]
pub(crate) struct OrderArgs {
    /// Say what would happen, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl OrderArgs {
    /// For the client.
    pub(crate) const fn dry_run(&self) -> DryRun {
        if self.dry_run {
            DryRun::Yes
        } else {
            DryRun::No
        }
    }
}

/// Shows what an order came to: the body, or a line for people, and the warnings.
pub(crate) fn show(
    session: &Session,
    id: &WorkloadId,
    args: &OrderArgs,
    body: &Value,
    line: &str,
    warnings: &[String],
) -> Result<(), Failure> {
    let would = if args.dry_run {
        " (dry run: nothing was changed)"
    } else {
        ""
    };
    session
        .output
        .body(body, Place::Alone, |_| format!("{id}: {line}{would}"))?;
    for warning in warnings {
        session.output.warn(&crate::output::words::clean(warning));
    }
    Ok(())
}
