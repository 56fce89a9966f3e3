//! `nagi cancel`: forgets the scheduled wake.

use clap::Args;

use super::raw;
use crate::failure::Failure;
use crate::order::{self, OrderArgs};
use crate::session::Session;
use crate::target::{TargetArgs, explain};

const EXAMPLES: &str = "\
Examples:
  nagi list --scheduled                              which wakes are pending
  nagi cancel sample-app-a -n project-a";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    order: OrderArgs,
}

/// Runs the command.
pub(crate) async fn run(args: &CancelArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let id = args.target.resolve(&client).await?;
    let answer = match client.cancel_schedule(&id, args.order.dry_run()).await {
        Ok(answer) => answer,
        Err(error) => return Err(explain(&client, &id, error).await),
    };
    let at = answer.body.deployment.scheduled_scale_up;
    let line = format!("no longer wakes at {at}");
    order::show(session, &id, &args.order, &raw(&answer.raw)?, &line, &[])
}
