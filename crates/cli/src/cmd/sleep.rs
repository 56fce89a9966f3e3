//! `nagi sleep`: scale to zero, and perhaps set when to wake.

use clap::Args;
use nagi_api::{ScaleResult, ScaleToZeroRequest};

use super::raw;
use crate::failure::Failure;
use crate::order::{self, OrderArgs};
use crate::output::{Place, words};
use crate::session::Session;
use crate::target::{TargetArgs, explain};
use crate::wait::{Goal, WaitArgs, Waiting};
use crate::when::When;

const EXAMPLES: &str = "\
Examples:
  nagi sleep sample-app-a -n project-a
  nagi sleep project-a/sample-app-a --reason \"weekend\" --wait
  nagi sleep sample-app-a --wake-at 2030-01-31T07:00:00+09:00
  nagi sleep sample-app-a --wake-at +10m             asleep already: only the wake is set
  nagi sleep sample-app-a --dry-run";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SleepArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// Why, for the history: 1 to 500 characters
    #[arg(short, long, value_name = "TEXT", default_value = "by nagi sleep")]
    reason: String,

    /// When to wake it again: RFC 3339 with a zone, or a span from now like +10m
    #[arg(long, visible_aliases = ["at", "until"], value_name = "TIME", value_parser = When::parse, allow_hyphen_values = true)]
    wake_at: Option<When>,

    #[command(flatten)]
    order: OrderArgs,

    #[command(flatten)]
    wait: WaitArgs,
}

/// Runs the command.
pub(crate) async fn run(args: &SleepArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let id = args.target.resolve(&client).await?;
    let waiting = if args.wait.wait && !args.order.dry_run {
        Some(Waiting::prepare(&client).await)
    } else {
        None
    };
    let request = ScaleToZeroRequest {
        reason: args.reason.clone(),
        scheduled_scale_up: args.wake_at.as_ref().map(|when| when.text(session.now())),
    };
    let sent = client
        .scale_to_zero(&id, &request, args.order.dry_run())
        .await;
    let answer = match sent {
        Ok(answer) => answer,
        Err(error) => {
            let failure = explain(&client, &id, error).await;
            return Err(failure.naming("scheduled_scale_up", "--wake-at"));
        }
    };
    let result = &answer.body.deployment;
    let Some(waiting) = waiting else {
        let body = raw(&answer.raw)?;
        let line = line(result, session.now());
        return order::show(
            session,
            &id,
            &args.order,
            &body,
            &line,
            &answer.body.warnings,
        );
    };
    for warning in &answer.body.warnings {
        session.output.warn(&words::clean(warning));
    }
    let version = &result.resource_version;
    let (status, took) = waiting
        .until(
            Goal::Asleep,
            &id,
            version,
            args.wait.timeout,
            &client,
            session,
        )
        .await?;
    session.output.body(&raw(&status.raw)?, Place::Alone, |_| {
        format!("{id}: asleep after {}", words::took(took))
    })
}

fn line(result: &ScaleResult, now: jiff::Timestamp) -> String {
    let line = if result.previous_replicas == 0 {
        "asleep already".to_owned()
    } else {
        let before = words::count(u64::from(result.previous_replicas), "replica");
        format!("goes to sleep, had {before}")
    };
    if let Some(at) = result.scheduled_scale_up {
        let relative = words::relative(at.0, now);
        return format!("{line}, wakes {relative} ({at})");
    }
    line
}
