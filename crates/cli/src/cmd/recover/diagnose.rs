//! `nagi recover diagnose`: facts, judged; the cause first.
//!
//! It asks and prints. What is looked at and what it means is in `nagi-ops`; what is known of disks comes from `nagi-guard`,
//! through [`disks`].

pub(super) mod body;
pub(super) mod disks;
mod text;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use nagi_ops::{Diagnosis, Policy, Request, Verdict};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Place;
use crate::session::Session;
use crate::when::parse_span;
use disks::NodeDisks;

use super::node::NodeArgs;
use super::on_node::{self, CutOff, OnNodeArgs};

const EXAMPLES: &str = "\
Examples:
  nagi recover diagnose                              here: on a node, or where kubectl fails
  nagi recover diagnose --ssh ubuntu@NODE            on a node that kubectl does not reach, also without nagi there
  nagi recover diagnose --log tunnel.log             with what a tunnel of ssh said
  nagi recover diagnose --root /mnt --files-only     the disk of a node that does not start, in a rescue system
  nagi recover diagnose --output json | jq -r '.cause.id, .cause.next'
                                                     the cause, and the next command";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DiagnoseArgs {
    #[command(flatten)]
    node: NodeArgs,

    /// Look at files only: the node below --root does not run
    #[arg(long)]
    files_only: bool,

    /// Read this log too: the output of a tunnel, or a saved journal; may be given several times
    #[arg(long, value_name = "FILE")]
    log: Vec<PathBuf>,

    /// How far back lines of logs count: 30m, 2h
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = parse_span)]
    since: Duration,

    /// How long each probe may take; they run at the same time
    #[arg(long, value_name = "SPAN", default_value = "1500ms", value_parser = parse_span)]
    timeout: Duration,

    #[command(flatten)]
    on_node: OnNodeArgs,
}

/// Runs the command.
pub(crate) async fn run(args: &DiagnoseArgs, session: &Session) -> Result<(), Failure> {
    if let Some(ended) = on_node::instead(&args.on_node, CutOff::Harmless, session).await {
        return ended;
    }
    let request = Request {
        files_only: args.files_only,
        logs: args.log.clone(),
        window: args.since,
        ..args.node.request(args.timeout, session.now())
    };
    let disks = Arc::new(NodeDisks::of(&request.root));
    let observed = Box::pin(nagi_ops::observe(&request, disks)).await;
    let observed = observed.map_err(|error| {
        let root = request.root.display();
        Failure::of(Exit::Usage, format!("cannot open {root}"), &error)
    })?;
    let diagnosis = nagi_ops::decide(&Policy::default(), &observed, request.now);
    let raw = serde_json::to_value(body::Answer::of(&diagnosis, &observed))
        .map_err(|error| Failure::of(Exit::Failed, "cannot write the answer", &error))?;
    session.output.body(&raw, Place::Alone, |_detail| {
        text::whole(&diagnosis, &session.output)
    })?;
    if observed.endpoint.is_ok() && proxy_is_set() {
        session.output.note(
            "HTTPS_PROXY is set, and this called the API server directly; kubectl goes over the proxy unless NO_PROXY has the host",
        );
    }
    ended(&diagnosis, session)
}

/// Neither is followed here; Go reads both spellings.
#[expect(
    clippy::disallowed_methods,
    reason = "variables of others, which are told and not followed"
)]
fn proxy_is_set() -> bool {
    let is_said = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    ["HTTPS_PROXY", "https_proxy"].into_iter().any(is_said)
}

fn ended(diagnosis: &Diagnosis, session: &Session) -> Result<(), Failure> {
    match (diagnosis.verdict, diagnosis.cause()) {
        (Verdict::Cause, Some(cause)) => Err(Failure::new(
            Exit::CauseFound,
            format!("{} at {}", cause.cause.id(), cause.subject),
        )),
        (Verdict::Sound, _) => {
            session
                .output
                .note("nothing is wrong that can be seen from here");
            Ok(())
        }
        (Verdict::Unclear, _) | (Verdict::Cause, None) => Err(unclear()),
    }
}

/// Nothing was found where not everything could be seen.
pub(super) fn unclear() -> Failure {
    Failure::new(
        Exit::Unclear,
        "nothing wrong was seen, and not everything could be looked at",
    )
    .hint("run it on a node of the control plane, as root; or name a kubeconfig")
}

#[cfg(test)]
mod tests {
    use nagi_ops::ROWS;

    // D-26: the page has what the code decides by, in its order.
    #[test]
    fn the_page_has_every_cause_as_the_code_has_it() {
        let cell = |text: &str| text.replace('|', "\\|");
        let rows: Vec<String> = ROWS
            .iter()
            .map(|row| {
                let (when, next) = (cell(row.when), cell(row.next));
                format!(
                    "| `{}` | {when} | `{next}` | {} |",
                    row.id,
                    cell(row.disproof)
                )
            })
            .collect();
        let rows = rows.join("\n");
        let page = include_str!("../../../../../docs/recovery.md");
        assert!(page.contains(&rows), "docs/recovery.md must have:\n{rows}");
        let twin = include_str!("../../../../../docs/ja/recovery.md");
        for row in ROWS {
            assert!(twin.contains(&format!("| `{}` |", row.id)), "{}", row.id);
        }
    }
}
