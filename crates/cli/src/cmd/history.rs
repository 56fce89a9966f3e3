//! `nagi history`: who changed what, when and why.

use clap::Args;
use nagi_api::HistoryItem;
use nagi_client::HistoryFilter;
use nagi_core::id::Name;

use super::raw;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{Detail, Place, words};
use crate::session::Session;
use crate::target::parse_namespace;
use crate::when;

const EXAMPLES: &str = "\
Examples:
  nagi history --limit 5                             the last five changes
  nagi history sample-app-a -n project-a --since 7d
  nagi history --output json | jq -c '.items[] | {time, actor, action, name}'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct HistoryArgs {
    /// Only of workloads of this name: NAME or NAMESPACE/NAME
    #[arg(value_name = "NAME")]
    workload: Option<String>,

    /// Only of this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Not older than this: RFC 3339 with a zone, or a span before now like 2h or 7d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// At most this many, 1 to 500
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,

    /// The page behind an earlier one: the `continue` of its JSON
    #[arg(long = "continue", value_name = "TOKEN")]
    after: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(args: &HistoryArgs, session: &Session) -> Result<(), Failure> {
    let filter = filter(args, session.now())?;
    let answer = session.client()?.history(&filter).await?;
    let items = &answer.body.items;
    session
        .output
        .body(&raw(&answer.raw)?, Place::Alone, |detail| {
            if items.is_empty() {
                return String::new();
            }
            session.output.table(&table(items, detail))
        })?;
    if items.is_empty() {
        session.output.note("no changes");
    } else if answer.body.continue_token.is_some() {
        session
            .output
            .hint("older ones follow: --limit, --since or --continue show them");
    }
    Ok(())
}

fn filter(args: &HistoryArgs, now: jiff::Timestamp) -> Result<HistoryFilter, Failure> {
    let (namespace, name) = match args.workload.as_deref().map(|text| text.split_once('/')) {
        None => (args.namespace.as_deref(), None),
        Some(Some((namespace, name))) => (Some(namespace), Some(name)),
        Some(None) => (args.namespace.as_deref(), args.workload.as_deref()),
    };
    if let (Some(one), Some(other)) = (namespace, args.namespace.as_deref())
        && one != other
    {
        return Err(Failure::usage(format!(
            "the name says namespace {one}, and --namespace says {other}"
        )));
    }
    let name = name.map(|text| {
        Name::new(text)
            .map_err(|rule| Failure::usage(format!("the name {text:?} of a workload {rule}")))
    });
    let since = args.since.as_deref().map(|text| {
        when::since(text, now).map_err(|rule| Failure::usage(format!("--since {rule}")))
    });
    Ok(HistoryFilter {
        namespace: namespace.map(parse_namespace).transpose()?,
        name: name.transpose()?,
        since: since.transpose()?,
        limit: Some(usize::from(args.limit)),
        after: args.after.clone(),
    })
}

fn table(items: &[HistoryItem], detail: Detail) -> Table {
    let mut headings = vec!["TIME", "WORKLOAD", "ACTION", "REPLICAS", "BY"];
    if detail == Detail::Wide {
        headings.extend(["REQUEST", "SOURCE"]);
    }
    headings.push("REASON");
    let mut table = Table::new(headings);
    for item in items {
        let mut row = vec![
            Cell::from(item.time.to_string()),
            Cell::from(words::clean(&format!("{}/{}", item.namespace, item.name))),
            Cell::from(words::clean(&item.action)),
            Cell::from(format!("{} → {}", item.from, item.to)),
            Cell::from(words::clean(&item.actor)),
        ];
        if detail == Detail::Wide {
            row.push(Cell::or_dash(item.request_id.as_deref().map(words::clean)));
            row.push(Cell::from(words::clean(&item.source)));
        }
        row.push(Cell::from(words::clean(&item.reason)));
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::style::Style;

    #[test]
    fn a_change_is_one_row() {
        let items: Vec<HistoryItem> = serde_json::from_value(serde_json::json!([{
            "id": 7, "time": "2030-01-31T07:00:00Z", "resource": "deployments", "namespace": "project-a",
            "name": "web", "action": "scale-to-zero", "actor": "key/ops", "reason": "コスト\n最適化",
            "request_id": null, "from": 2, "to": 0, "source": "journal"
        }]))
        .unwrap();
        assert_eq!(
            table(&items, Detail::Normal).text(Style::Plain, None),
            "TIME                       WORKLOAD        ACTION          REPLICAS   BY        REASON\n\
             2030-01-31T07:00:00.000Z   project-a/web   scale-to-zero   2 → 0      key/ops   コスト 最適化\n"
        );
        let wide = table(&items, Detail::Wide).text(Style::Plain, None);
        assert!(
            wide.contains("key/ops   -         journal   コスト"),
            "{wide}"
        );
    }
}
