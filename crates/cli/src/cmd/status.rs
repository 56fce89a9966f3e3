//! `nagi status`: one workload in full.

use std::fmt::Write as _;

use clap::Args;
use jiff::Timestamp;
use nagi_api::{Time, WorkloadItem};
use nagi_client::Client;
use nagi_core::id::WorkloadId;

use super::{list, raw};
use crate::failure::Failure;
use crate::output::style::{Style, Tone};
use crate::output::{Place, words};
use crate::session::Session;
use crate::target::{TargetArgs, explain};
use crate::watch::{self, Shown};

const EXAMPLES: &str = "\
Examples:
  nagi status sample-app-a -n project-a
  nagi status project-a/sample-app-a --watch
  nagi status sample-app-a --output json | jq -r .deployment.status";

/// Width of the names in front of the facts.
const NAME_WIDTH: usize = 15;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// Show it again whenever it changes, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

/// Runs the command.
pub(crate) async fn run(args: &StatusArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let id = args.target.resolve(&client).await?;
    if args.watch {
        let look = async || look(&client, &id, session).await;
        return watch::run(session, list::LOOK_EVERY, look).await;
    }
    look(&client, &id, session)
        .await?
        .print(&session.output, Place::Alone)
}

async fn look(client: &Client, id: &WorkloadId, session: &Session) -> Result<Shown, Failure> {
    let answer = match client.status(id, None).await {
        Ok(answer) => answer,
        Err(error) => return Err(explain(client, id, error).await),
    };
    let text = text(
        &answer.body.deployment,
        session.now(),
        session.output.style(),
    );
    Ok(Shown::text(raw(&answer.raw)?, text))
}

/// One workload as lines of facts.
pub(crate) fn text(item: &WorkloadItem, now: Timestamp, style: Style) -> String {
    let mut facts = Facts {
        text: String::new(),
        style,
    };
    facts.heading(item);
    facts.replicas(item);
    facts.sleep(item, now);
    facts.place(item);
    facts.text
}

struct Facts {
    text: String,
    style: Style,
}

impl Facts {
    fn heading(&mut self, item: &WorkloadItem) {
        let name = words::clean(&format!("{}/{}", item.namespace, item.name));
        let status = words::clean(&item.status);
        writeln!(
            self.text,
            "{}   {}",
            self.style.paint(Tone::Strong, &name),
            self.style.paint(list::tone(&item.status), &status)
        )
        .unwrap_or(());
        self.fact_some("reason", item.reason.as_deref());
    }

    fn replicas(&mut self, item: &WorkloadItem) {
        self.fact(
            "replicas",
            &format!(
                "{} wanted, {} there, {} serving",
                item.desired_replicas, item.current_replicas, item.available_replicas
            ),
        );
        for replica in &item.replicas {
            let mut line = replica.stage.clone();
            if replica.stopping {
                line.push_str(", stopping");
            }
            if replica.restarts > 0 {
                let restarts = words::count(u64::from(replica.restarts), "restart");
                line.extend([", ", restarts.as_str()]);
            }
            if let Some(address) = &replica.address {
                line.extend([", ", address.as_str()]);
            }
            self.fact(&format!("  {}", replica.name), &line);
        }
        if let Some(wake) = &item.wake {
            let eta = wake
                .eta_seconds
                .map(|seconds| format!(", about {} left", words::seconds(seconds)));
            let line = format!(
                "{} (by {}){}",
                wake.stage,
                wake.trigger,
                eta.unwrap_or_default()
            );
            self.fact("waking", &line);
            for stage in &wake.stages {
                self.fact(
                    &format!("  {}", stage.stage),
                    &format!("after {}", words::seconds(stage.after_seconds)),
                );
            }
            self.fact_some("  failure", wake.failure.as_deref());
        }
    }

    fn sleep(&mut self, item: &WorkloadItem, now: Timestamp) {
        let at = |time: Option<Time>| {
            time.map(|time| format!("{time} ({})", words::relative(time.0, now)))
        };
        let changed = item.last_change.as_ref().map(|change| change.time);
        self.fact_some("last change", at(changed).as_deref());
        if let Some(change) = &item.last_change {
            let line = format!(
                "{} by {}, from {} to {}: {}",
                change.action, change.actor, change.from, change.to, change.reason
            );
            self.fact("", &line);
        }
        // Not every change is one of the count: a schedule that is set or cancelled leaves it.
        let scaled = item.last_scale_time.filter(|time| Some(*time) != changed);
        self.fact_some("last scaled", at(scaled).as_deref());
        let asleep = at(item.asleep_since).map(|since| match &item.asleep_by {
            Some(by) => format!("{since}, by {by}"),
            None => since,
        });
        self.fact_some("asleep since", asleep.as_deref());
        let remembered = item
            .remembered_replicas
            .map(|count| words::count(u64::from(count), "replica"));
        self.fact_some("next wake", remembered.as_deref());
        self.fact_some("wakes at", at(item.scheduled_scale_up).as_deref());
        self.fact_some("keeps awake", at(item.keep_awake_until).as_deref());
        let idle = item.idle_after_seconds.map(|seconds| {
            words::span(std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default())
        });
        self.fact_some("idle after", idle.as_deref());
        self.fact_some("unattended", item.unattended.as_deref());
    }

    fn place(&mut self, item: &WorkloadItem) {
        self.fact_some("pool", item.pool.as_deref());
        self.fact_some("autoscaler", item.autoscaler.as_deref());
        if !item.hosts.is_empty() {
            self.fact("hosts", &item.hosts.join(", "));
        }
        let open = item.in_flight_requests.unwrap_or(0);
        let held = item.held_requests.unwrap_or(0);
        if item.in_flight_requests.is_some() || item.held_requests.is_some() {
            self.fact("requests", &format!("{open} open, {held} held"));
        }
        if !item.labels.is_empty() {
            let labels = item
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"));
            self.fact("labels", &labels.collect::<Vec<_>>().join(", "));
        }
    }

    fn fact_some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.fact(name, value);
        }
    }

    fn fact(&mut self, name: &str, value: &str) {
        let name = words::clean(name);
        let name = self.style.paint(Tone::Dim, &format!("{name:<NAME_WIDTH$}"));
        // Writing to a string cannot fail.
        writeln!(self.text, "  {name} {}", words::clean(value)).unwrap_or(());
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample_item;
    use super::*;

    #[test]
    fn a_status_says_all_that_is_known() {
        let now = "2030-01-31T07:00:05Z".parse().unwrap();
        assert_eq!(
            text(&sample_item(), now, Style::Plain),
            "project-b/sample-app-b   scaling
  reason          waiting for a node of pool gpu
  replicas        1 wanted, 1 there, 0 serving
    sample-app-b-0 waiting-for-node, 2 restarts
  waking          waiting-for-node (by call), about 4.2 s left
    accepted      after 0.0 s
    waiting-for-node after 0.0 s
  last change     2030-01-31T07:00:00.000Z (5s ago)
                  wake by key/ops, from 0 to 1: サンプルアプリ開始のため
  next wake       1 replica
  idle after      10m
  pool            gpu
  hosts           sample-app-b.project-b.localhost
  requests        0 open, 3 held
  labels          app=sample-app-b
"
        );
    }

    #[test]
    fn a_change_that_leaves_the_count_has_its_own_time() {
        let mut item = sample_item();
        let change = item.last_change.as_mut().unwrap();
        change.time = Time("2030-01-31T07:00:03Z".parse().unwrap());
        change.action = "schedule-cancelled".to_owned();
        let now = "2030-01-31T07:00:05Z".parse().unwrap();
        let text = text(&item, now, Style::Plain);
        let expected = "  last change     2030-01-31T07:00:03.000Z (2s ago)
                  schedule-cancelled by key/ops, from 0 to 1: サンプルアプリ開始のため
  last scaled     2030-01-31T07:00:00.000Z (5s ago)
";
        assert!(text.contains(expected), "{text}");
    }

    // Issue 4: whoever relies on idle sleep sees that nobody does it.
    #[test]
    fn what_nobody_carries_out_is_told_beside_what_was_asked_for() {
        let item = WorkloadItem {
            unattended: Some("the Lease cannot be used".to_owned()),
            ..sample_item()
        };
        let now = "2030-01-31T07:00:05Z".parse().unwrap();
        let text = text(&item, now, Style::Plain);
        let expected = "  idle after      10m\n  unattended      the Lease cannot be used\n";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let bare = WorkloadItem {
            reason: None,
            last_scale_time: None,
            last_change: None,
            remembered_replicas: None,
            idle_after_seconds: None,
            pool: None,
            hosts: Vec::new(),
            labels: std::collections::BTreeMap::new(),
            replicas: Vec::new(),
            wake: None,
            in_flight_requests: None,
            held_requests: None,
            status: "unknown".to_owned(),
            ..sample_item()
        };
        let now = "2030-01-31T07:00:05Z".parse().unwrap();
        assert_eq!(
            text(&bare, now, Style::Plain),
            "project-b/sample-app-b   unknown\n  replicas        1 wanted, 1 there, 0 serving\n"
        );
    }
}
