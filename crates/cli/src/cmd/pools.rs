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
        let replicas: u32 = pool.nodes.iter().map(|node| node.replicas).sum();
        table.row([
            Cell::from(words::clean(&pool.name)),
            Cell::from(format!(
                "{} of {}{booting}",
                pool.nodes.len(),
                pool.nodes_max
            )),
            Cell::from(replicas.to_string()),
            Cell::from(format!("{:.2}", pool.price_per_hour)),
            Cell::from(format!("{:.4}", pool.spent)),
            Cell::from(format!("{:.4}", pool.saved)),
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
