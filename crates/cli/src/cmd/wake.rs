//! `nagi wake`: back to the remembered number of replicas.

use clap::Args;
use nagi_api::{StatusAnswer, WakeAnswer, WakeRequest};
use nagi_core::wake::Stage;

use super::raw;
use crate::failure::Failure;
use crate::order::{self, OrderArgs};
use crate::output::{Place, words};
use crate::session::Session;
use crate::target::{TargetArgs, explain};
use crate::wait::{Goal, WaitArgs, Waiting};

const EXAMPLES: &str = "\
Examples:
  nagi wake sample-app-a -n project-a                start it, and return at once
  nagi wake sample-app-a -n project-a --wait         show the stages with their times as they pass
  nagi wake sample-app-b --replicas 2 --wait --timeout 20m
  nagi wake sample-app-b --wait && curl http://sample-app-b.project-b.localhost:8000/
  nagi sleep sample-app-a --wake-at +10m             to set a wake for later";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct WakeArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// To how many replicas, when not to the remembered number; one that is awake keeps its number (see nagi scale)
    #[arg(long, value_name = "COUNT")]
    replicas: Option<u32>,

    /// Why, for the history: 1 to 500 characters
    #[arg(short, long, value_name = "TEXT", default_value = "by nagi wake")]
    reason: String,

    #[command(flatten)]
    order: OrderArgs,

    #[command(flatten)]
    wait: WaitArgs,
}

/// Runs the command.
pub(crate) async fn run(args: &WakeArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let id = args.target.resolve(&client).await?;
    let waiting = if args.wait.wait && !args.order.dry_run {
        Some(Waiting::prepare(&client).await)
    } else {
        None
    };
    let request = WakeRequest {
        replicas: args.replicas,
        reason: Some(args.reason.clone()),
    };
    let answer = match client.wake(&id, &request, args.order.dry_run()).await {
        Ok(answer) => answer,
        Err(error) => return Err(explain(&client, &id, error).await),
    };
    let target = answer.body.deployment.target_replicas;
    if let Some(asked) = args.replicas
        && asked != target
    {
        session.output.warn(&format!(
            "it was not asleep and keeps {}: 'nagi scale {id} {asked}' changes that",
            words::count(u64::from(target), "replica")
        ));
    }
    let Some(waiting) = waiting else {
        let body = raw(&answer.raw)?;
        let line = line(&answer.body);
        order::show(
            session,
            &id,
            &args.order,
            &body,
            &line,
            &answer.body.warnings,
        )?;
        if answer.body.dry_run.is_none() && !is_awake(&answer.body) {
            session.output.hint(&format!(
                "'nagi status {id}' shows how it goes, --wait waits"
            ));
        }
        return Ok(());
    };
    for warning in &answer.body.warnings {
        session.output.warn(&words::clean(warning));
    }
    let version = &answer.body.deployment.resource_version;
    let (status, took) = waiting
        .until(
            Goal::Awake,
            &id,
            version,
            args.wait.timeout,
            &client,
            session,
        )
        .await?;
    session.output.body(&raw(&status.raw)?, Place::Alone, |_| {
        format!("{id}: {}", awake_line(&status.body, took))
    })
}

/// It serves already.
fn is_awake(answer: &WakeAnswer) -> bool {
    answer.deployment.previous_replicas > 0 && answer.deployment.stage == Stage::Ready.as_str()
}

fn line(answer: &WakeAnswer) -> String {
    let result = &answer.deployment;
    let wanted = words::count(u64::from(result.target_replicas), "replica");
    let mut line = match result.previous_replicas {
        _ if is_awake(answer) => format!("awake already, {wanted}"),
        0 => format!("wakes to {wanted}"),
        _ => format!("waking already, to {wanted}"),
    };
    if let Some(seconds) = result.eta_seconds
        && !is_awake(answer)
    {
        line.push_str(", in about ");
        line.push_str(&words::seconds(seconds));
    }
    if let Some(at) = result.scheduled_scale_up {
        return format!("{line}; the wake scheduled for {at} stays");
    }
    line
}

pub(super) fn awake_line(status: &StatusAnswer, took: std::time::Duration) -> String {
    let item = &status.deployment;
    let serving = words::count(u64::from(item.available_replicas), "replica");
    format!("awake after {}, {serving} serving", words::took(took))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 3: awake is what serves.
    #[test]
    fn the_line_tells_waking_from_awake() {
        for (before, stage, expected) in [
            (0, "scaling", "wakes to 2 replicas, in about 5.0 s"),
            (
                2,
                "starting",
                "waking already, to 2 replicas, in about 5.0 s",
            ),
            (2, "ready", "awake already, 2 replicas"),
        ] {
            let answer: WakeAnswer = serde_json::from_value(serde_json::json!({
                "status": "success", "message": "", "timestamp": "2030-01-31T07:00:00Z",
                "deployment": {
                    "name": "web", "namespace": "project-a", "resource": "deployments",
                    "previous_replicas": before, "current_replicas": 0, "target_replicas": 2, "stage": stage,
                    "eta_seconds": 5.0, "scheduled_scale_up": null, "resource_version": "1"
                }
            }))
            .unwrap();
            assert_eq!(line(&answer), expected);
        }
    }
}
