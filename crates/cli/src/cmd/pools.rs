//! `nagi pools`: nodes, and what they cost and saved.

use clap::Args;
use nagi_api::{NodeItem, PoolItem};

use super::raw;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{Detail, Place, words};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  nagi pools
  nagi pools --output wide                           with every node
  nagi pools --output json | jq '[.items[].saved] | add'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PoolsArgs {}

/// Runs the command.
pub(crate) async fn run(_args: &PoolsArgs, session: &Session) -> Result<(), Failure> {
    let answer = session.client()?.pools().await?;
    let items = &answer.body.items;
    session
        .output
        .body(&raw(&answer.raw)?, Place::Alone, |detail| {
            if items.is_empty() {
                return String::new();
            }
            let mut text = session.output.table(&table(items));
            if detail == Detail::Wide && items.iter().any(|pool| !pool.nodes.is_empty()) {
                text.push('\n');
                text.push_str(&session.output.table(&nodes(items)));
            }
            text
        })?;
    if items.is_empty() {
        session.output.note("no pools");
    }
    Ok(())
}

fn table(items: &[PoolItem]) -> Table {
    let mut table = Table::new(["POOL", "NODES", "REPLICAS", "PRICE/H", "SPENT", "SAVED"]);
    for pool in items {
        let booting = pool.nodes.iter().filter(|node| node.phase == "booting");
        let booting = match booting.count() {
            0 => String::new(),
            count => format!(" ({count} booting)"),
        };
        let most = pool
            .nodes_max
            .map_or_else(String::new, |most| format!(" of {most}"));
        let replicas: u32 = pool.nodes.iter().map(|node| node.replicas).sum();
        table.row([
            Cell::from(words::clean(&pool.name)),
            Cell::from(format!("{}{most}{booting}", pool.nodes.len())),
            Cell::from(replicas.to_string()),
            Cell::or_dash(pool.price_per_hour.map(|price| format!("{price:.2}"))),
            Cell::or_dash(pool.spent.map(|spent| format!("{spent:.4}"))),
            Cell::or_dash(pool.saved.map(|saved| format!("{saved:.4}"))),
        ]);
    }
    table
}

fn nodes(items: &[PoolItem]) -> Table {
    let mut table = Table::new(["POOL", "NODE", "PHASE", "REPLICAS", "NEXT"]);
    for (pool, node) in items
        .iter()
        .flat_map(|pool| pool.nodes.iter().map(move |node| (pool, node)))
    {
        table.row([
            Cell::from(words::clean(&pool.name)),
            Cell::from(words::clean(&node.name)),
            Cell::from(words::clean(&node.phase)),
            Cell::from(node.replicas.to_string()),
            Cell::or_dash(next(node)),
        ]);
    }
    table
}

/// What the node waits for.
fn next(node: &NodeItem) -> Option<String> {
    let ready = node
        .ready_in_seconds
        .map(|seconds| format!("ready in {}", words::seconds(seconds)));
    ready.or_else(|| {
        node.released_in_seconds
            .map(|seconds| format!("released in {}", words::seconds(seconds)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::style::Style;

    #[test]
    fn pools_show_nodes_cost_and_savings() {
        let pools: Vec<PoolItem> = serde_json::from_value(serde_json::json!([
            {"name": "gpu", "nodes_max": 2, "price_per_hour": 3.06, "spent": 0.01234, "saved": 12.5, "nodes": [
                {"name": "gpu-0", "phase": "ready", "replicas": 1},
                {"name": "gpu-1", "phase": "booting", "replicas": 0, "ready_in_seconds": 4.04}]},
            {"name": "web", "nodes_max": 1, "price_per_hour": 0.1, "spent": 0.0, "saved": 0.0, "nodes": [
                {"name": "web-0", "phase": "ready", "replicas": 0, "released_in_seconds": 1.0}]},
            {"name": "system", "nodes": [{"name": "system-1", "phase": "ready", "replicas": 2}]}
        ]))
        .unwrap();
        assert_eq!(
            table(&pools).text(Style::Plain, None),
            "POOL     NODES                REPLICAS   PRICE/H   SPENT    SAVED\n\
             gpu      2 of 2 (1 booting)   1          3.06      0.0123   12.5000\n\
             web      1 of 1               0          0.10      0.0000   0.0000\n\
             system   1                    2          -         -        -\n"
        );
        assert_eq!(
            nodes(&pools).text(Style::Plain, None),
            "POOL     NODE       PHASE     REPLICAS   NEXT\n\
             gpu      gpu-0      ready     1          -\n\
             gpu      gpu-1      booting   0          ready in 4.0 s\n\
             web      web-0      ready     0          released in 1.0 s\n\
             system   system-1   ready     2          -\n"
        );
    }
}
