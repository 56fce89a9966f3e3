//! `nagi logs`: what the replicas of a workload printed.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use nagi_api::LogItem;
use nagi_api::logs::{TAIL_DEFAULT, TAIL_MAX};
use nagi_client::LogsFrom;
use tokio::time::sleep;

use super::raw;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::away::Away;
use crate::output::style::{Style, Tone};
use crate::output::{Place, words};
use crate::session::Session;
use crate::target::{TargetArgs, explain};

const EXAMPLES: &str = "\
Examples:
  nagi logs sample-app-a -n project-a --tail 20
  nagi logs sample-app-a --follow                    until Ctrl-C
  nagi logs sample-app-a | grep -i error";

/// How often new lines are asked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// The last so many lines of each replica, at most 10000
    #[arg(short, long, value_name = "COUNT", default_value_t = TAIL_DEFAULT, value_parser = parse_tail)]
    tail: usize,

    /// Go on with what is printed from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
}

fn parse_tail(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| *count <= TAIL_MAX)
        .ok_or_else(|| format!("must be a whole number from 0 to {TAIL_MAX}"))
}

/// Runs the command.
pub(crate) async fn run(args: &LogsArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let id = args.target.resolve(&client).await?;
    let output = &session.output;
    let place = if args.follow {
        Place::InSeries
    } else {
        Place::Alone
    };
    let mut from = LogsFrom::Tail(args.tail);
    let mut replicas = BTreeSet::new();
    let mut begun = false;
    let mut away = Away::default();
    loop {
        match client.logs(&id, &from).await {
            Ok(answer) => {
                let items = &answer.body.items;
                replicas.extend(items.iter().map(|item| item.replica.clone()));
                if !begun || !items.is_empty() {
                    output.body(&raw(&answer.raw)?, place, |_| {
                        let safe = output.terminal().stdout_columns.is_some();
                        text(items, replicas.len() > 1, safe, output.style())
                    })?;
                }
                if !begun && items.is_empty() && !args.follow {
                    output.note("nothing was printed");
                }
                begun = true;
                away.is_back();
                from = LogsFrom::After(answer.body.cursor);
            }
            Err(error) if begun && error.is_passing() => away.warn(output, error),
            Err(error) => {
                let failure = explain(&client, &id, error).await;
                // What was printed is gone with its workload; the caller has seen it.
                if begun && failure.exit == Exit::NotFound {
                    output.note(&failure.message);
                    return Ok(());
                }
                return Err(failure);
            }
        }
        if !args.follow {
            return Ok(());
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The lines. Several replicas are told apart by name; on a terminal lines cannot act on it.
fn text(items: &[LogItem], several: bool, on_terminal: bool, style: Style) -> String {
    let mut text = String::new();
    for item in items {
        if several {
            let name = format!("[{}]", words::clean(&item.replica));
            text.push_str(&style.paint(Tone::Dim, &name));
            text.push(' ');
        }
        if on_terminal {
            text.push_str(&words::clean(&item.text));
        } else {
            text.push_str(&item.text);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(replica: &str, text: &str) -> LogItem {
        LogItem {
            replica: replica.into(),
            text: text.into(),
        }
    }

    #[test]
    fn lines_are_whole_in_a_pipe_and_harmless_on_a_terminal() {
        let items = [item("a-1", "\u{1b}[2Jx\ty")];
        assert_eq!(text(&items, false, false, Style::Plain), "\u{1b}[2Jx\ty\n");
        assert_eq!(text(&items, false, true, Style::Plain), "\u{fffd}[2Jx y\n");
    }

    #[test]
    fn several_replicas_are_told_apart() {
        let items = [item("a-1", "x"), item("a-2", "y")];
        assert_eq!(
            text(&items, true, false, Style::Plain),
            "[a-1] x\n[a-2] y\n"
        );
    }
}
