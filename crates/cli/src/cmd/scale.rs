//! `nagi scale`: exactly so many replicas.

use clap::Args;
use nagi_api::{ScaleResult, ScaleUpRequest};

use super::raw;
use super::wake::awake_line;
use crate::failure::Failure;
use crate::order::{self, OrderArgs};
use crate::output::{Place, words};
use crate::session::Session;
use crate::target::{TargetArgs, explain};
use crate::wait::{Goal, WaitArgs, Waiting};

const EXAMPLES: &str = "\
Examples:
  nagi scale sample-app-a 2 -n project-a --wait
  nagi scale sample-app-a --replicas 2               as kubectl has it
  nagi scale project-a/sample-app-a 1 --reason \"night\"
  nagi sleep sample-app-a                            for none at all";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ScaleArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// How many replicas: 1 to the limit of the server (100 by default)
    #[arg(
        value_name = "COUNT",
        value_parser = parse_count,
        allow_negative_numbers = true,
        required_unless_present = "replicas",
    )]
    count: Option<u32>,

    /// The same as COUNT, spelled as kubectl does
    #[arg(
        long,
        value_name = "COUNT",
        value_parser = parse_count,
        allow_negative_numbers = true,
        conflicts_with = "count",
    )]
    replicas: Option<u32>,

    /// Why, for the history: 1 to 500 characters
    #[arg(short, long, value_name = "TEXT", default_value = "by nagi scale")]
    reason: String,

    #[command(flatten)]
    order: OrderArgs,

    #[command(flatten)]
    wait: WaitArgs,
}

/// Reads a count; its upper limit is the server's to say.
fn parse_count(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "must be a whole number from 1 to the limit of the server".to_owned())
}

/// Runs the command.
pub(crate) async fn run(args: &ScaleArgs, session: &Session) -> Result<(), Failure> {
    let wanted = args.count.or(args.replicas).unwrap_or_default();
    if wanted == 0 {
        return Err(Failure::usage("0 replicas is sleep").hint("use 'nagi sleep'"));
    }
    let client = session.client()?;
    let id = args.target.resolve(&client).await?;
    let waiting = if args.wait.wait && !args.order.dry_run {
        Some(Waiting::prepare(&client).await)
    } else {
        None
    };
    let request = ScaleUpRequest {
        replicas: wanted,
        reason: args.reason.clone(),
    };
    let answer = match client.scale_up(&id, &request, args.order.dry_run()).await {
        Ok(answer) => answer,
        Err(error) => return Err(explain(&client, &id, error).await),
    };
    let result = &answer.body.deployment;
    let Some(waiting) = waiting else {
        let body = raw(&answer.raw)?;
        return order::show(
            session,
            &id,
            &args.order,
            &body,
            &line(result),
            &answer.body.warnings,
        );
    };
    for warning in &answer.body.warnings {
        session.output.warn(&words::clean(warning));
    }
    let goal = Goal::Replicas(result.target_replicas);
    let version = &result.resource_version;
    let (status, took) = waiting
        .until(goal, &id, version, args.wait.timeout, &client, session)
        .await?;
    session.output.body(&raw(&status.raw)?, Place::Alone, |_| {
        format!("{id}: {}", awake_line(&status.body, took))
    })
}

fn line(result: &ScaleResult) -> String {
    let wanted = words::count(u64::from(result.target_replicas), "replica");
    if result.previous_replicas == result.target_replicas {
        format!("has {wanted} already")
    } else {
        format!("scales from {} to {wanted}", result.previous_replicas)
    }
}
