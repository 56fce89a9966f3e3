//! `nagi list`: workloads in a table.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use nagi_api::{ScheduledItem, UnreadKind, WorkloadItem};
use nagi_client::{Client, ListFilter};
use nagi_core::id::{Namespace, Resource};
use nagi_core::status::Status;
use serde_json::Value;

use super::raw;
use crate::failure::Failure;
use crate::output::style::Tone;
use crate::output::table::{Cell, Table};
use crate::output::{Detail, Place, words};
use crate::session::Session;
use crate::target::{nearest, parse_namespace};
use crate::watch::{self, Shown};

const EXAMPLES: &str = "\
Examples:
  nagi list                                          everything that your key reaches
  nagi list -n project-a --status inactive           what sleeps in one namespace
  nagi list --label app=sample-app-a --output wide
  nagi list --scheduled                              pending wakes
  nagi list --watch                                  follow it
  nagi list --output json | jq -r '.items[].name'";

/// How often a watched list is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Items of a page: the most that the API gives, so that few calls are needed.
const PAGE: usize = 500;
/// Pages at most: fifty thousand workloads.
const PAGES_MAX: usize = 100;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListArgs {
    /// Only of this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Only in this status: active, inactive, scaling or unknown
    #[arg(short, long, value_name = "STATUS", value_parser = parse_status)]
    status: Option<Status>,

    /// Only with this label: KEY or KEY=VALUE
    #[arg(short, long, value_name = "LABEL")]
    label: Option<String>,

    /// At most this many, 1 to 500 [default: all]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: Option<u16>,

    /// Pending scheduled wakes instead of workloads
    #[arg(long, conflicts_with_all = ["status", "label"])]
    scheduled: bool,

    /// Show it again whenever it changes, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

fn parse_status(text: &str) -> Result<Status, String> {
    Status::parse(text).ok_or_else(|| "must be active, inactive, scaling or unknown".to_owned())
}

/// Runs the command.
pub(crate) async fn run(args: &ListArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let namespace = args.namespace.as_deref().map(parse_namespace).transpose()?;
    let filter = ListFilter {
        namespace,
        status: args.status,
        label: args.label.clone(),
        limit: Some(args.limit.map_or(PAGE, usize::from)),
        ..ListFilter::default()
    };
    if args.watch {
        let look = async || look(args, &client, &filter, session).await;
        return watch::run(session, LOOK_EVERY, look).await;
    }
    let shown = look(args, &client, &filter, session).await?;
    shown.print(&session.output, Place::Alone)?;
    let unread = unread(shown.body());
    if !unread.is_empty() {
        let names: Vec<&str> = unread.iter().map(|kind| &*kind.resource).collect();
        session.output.warn(&format!(
            "not read now, so old or missing here: {}; 'nagi preflight' says why and what to do",
            names.join(", ")
        ));
    }
    if shown.is_empty() {
        session.output.note("nothing to show");
        if let Some(namespace) = &filter.namespace {
            hint_namespace(&client, namespace, session).await;
        }
    }
    Ok(())
}

async fn look(
    args: &ListArgs,
    client: &Client,
    filter: &ListFilter,
    session: &Session,
) -> Result<Shown, Failure> {
    let whole = args.limit.is_none();
    let now = session.now();
    if args.scheduled {
        let (items, body) = scheduled(client, filter, whole).await?;
        return Ok(Shown::new(&session.output, body, items.is_empty(), |_| {
            scheduled_table(&items, now)
        }));
    }
    let (items, body) = workloads(client, filter, whole).await?;
    Ok(Shown::new(
        &session.output,
        body,
        items.is_empty(),
        |detail| table(&items, now, detail),
    ))
}

async fn workloads(
    client: &Client,
    filter: &ListFilter,
    whole: bool,
) -> Result<(Vec<WorkloadItem>, Value), Failure> {
    let mut filter = filter.clone();
    let first = client.list(&filter).await?;
    let mut body = raw(&first.raw)?;
    let (mut items, mut next) = (first.body.items, first.body.continue_token);
    for _page in 1..PAGES_MAX {
        if next.is_none() || !whole {
            break;
        }
        filter.after = next.take();
        let page = client.list(&filter).await?;
        append(&mut body, &raw(&page.raw)?);
        items.extend(page.body.items);
        next = page.body.continue_token;
    }
    Ok((items, body))
}

async fn scheduled(
    client: &Client,
    filter: &ListFilter,
    whole: bool,
) -> Result<(Vec<ScheduledItem>, Value), Failure> {
    let mut filter = filter.clone();
    let first = client.scheduled(&filter).await?;
    let mut body = raw(&first.raw)?;
    let (mut items, mut next) = (first.body.items, first.body.continue_token);
    for _page in 1..PAGES_MAX {
        if next.is_none() || !whole {
            break;
        }
        filter.after = next.take();
        let page = client.scheduled(&filter).await?;
        append(&mut body, &raw(&page.raw)?);
        items.extend(page.body.items);
        next = page.body.continue_token;
    }
    Ok((items, body))
}

/// The kinds of which an answer shows nothing, or what was known before.
fn unread(body: &Value) -> Vec<UnreadKind> {
    let told = body.get("unread").cloned().unwrap_or_default();
    // An older server says nothing of it.
    serde_json::from_value(told).unwrap_or_default()
}

/// Puts the items of a later page behind those of the first, whose token then has nothing left to say.
fn append(body: &mut Value, page: &Value) {
    let Some(object) = body.as_object_mut() else {
        return;
    };
    if let (Some(items), Some(more)) = (
        object.get_mut("items").and_then(Value::as_array_mut),
        page.get("items").and_then(Value::as_array),
    ) {
        items.extend(more.iter().cloned());
    }
    match page.get("continue") {
        Some(token) => object.insert("continue".to_owned(), token.clone()),
        None => object.shift_remove("continue"),
    };
}

/// An empty namespace may be one that is written wrong.
async fn hint_namespace(client: &Client, namespace: &Namespace, session: &Session) {
    let Ok(items) = crate::target::all(client, &ListFilter::default()).await else {
        return;
    };
    let names: std::collections::BTreeSet<&str> =
        items.iter().map(|item| item.namespace.as_str()).collect();
    if names.contains(namespace.as_str()) {
        return;
    }
    for name in nearest(namespace.as_str(), names) {
        session.output.hint(&format!("did you mean -n {name}?"));
    }
}

/// Workloads as a table.
pub(crate) fn table(items: &[WorkloadItem], now: Timestamp, detail: Detail) -> Table {
    let mut headings = vec![
        "NAMESPACE",
        "NAME",
        "STATUS",
        "REPLICAS",
        "LAST SCALED",
        "NOTE",
    ];
    if detail == Detail::Wide {
        headings = vec![
            "NAMESPACE",
            "NAME",
            "STATUS",
            "REPLICAS",
            "REMEMBERED",
            "LAST SCALED",
            "POOL",
            "IDLE AFTER",
            "HOSTS",
            "LAST CHANGE",
            "NOTE",
        ];
    }
    // Most lists are of one kind, and then it is not worth a column.
    let is_mixed = items
        .iter()
        .any(|item| item.resource != Resource::deployments().as_str());
    if is_mixed {
        headings.insert(1, "KIND");
    }
    let mut table = Table::new(headings);
    for item in items {
        let scaled = item
            .last_scale_time
            .map(|time| words::span(words::between(time.0, now)));
        let mut row = vec![
            Cell::from(words::clean(&item.namespace)),
            Cell::from(words::clean(&item.name)),
            Cell::toned(tone(&item.status), words::clean(&item.status)),
            Cell::from(replicas(item)),
        ];
        if is_mixed {
            row.insert(1, Cell::from(words::clean(&item.resource)));
        }
        if detail == Detail::Wide {
            row.push(Cell::or_dash(
                item.remembered_replicas.map(|count| count.to_string()),
            ));
        }
        row.push(Cell::or_dash(scaled));
        if detail == Detail::Wide {
            row.push(Cell::or_dash(item.pool.as_deref().map(words::clean)));
            row.push(Cell::or_dash(item.idle_after_seconds.map(|seconds| {
                words::span(Duration::try_from_secs_f64(seconds).unwrap_or_default())
            })));
            let hosts = words::clean(&item.hosts.join(","));
            row.push(Cell::or_dash(Some(hosts).filter(|text| !text.is_empty())));
            row.push(Cell::or_dash(item.last_change.as_ref().map(|change| {
                words::clean(&format!("{} by {}", change.action, change.actor))
            })));
        }
        row.push(Cell::from(note(item, now)));
        table.row(row);
    }
    table
}

/// `1/2`: replicas that serve of replicas that are wanted.
fn replicas(item: &WorkloadItem) -> String {
    format!("{}/{}", item.available_replicas, item.desired_replicas)
}

/// What is worth knowing beside the status.
fn note(item: &WorkloadItem, now: Timestamp) -> String {
    let mut parts = Vec::new();
    if let Some(wake) = &item.wake {
        let eta = wake
            .eta_seconds
            .map(|seconds| format!(", {} left", words::seconds(seconds)));
        parts.push(format!(
            "waking: {}{}",
            words::clean(&wake.stage),
            eta.unwrap_or_default()
        ));
    }
    parts.extend(item.reason.as_deref().map(words::clean));
    if let Some(at) = item.scheduled_scale_up {
        parts.push(format!("wakes {}", words::relative(at.0, now)));
    }
    parts.join("; ")
}

/// How a status is painted.
pub(crate) fn tone(status: &str) -> Tone {
    match Status::parse(status) {
        Some(Status::Active) => Tone::Good,
        Some(Status::Inactive) => Tone::Calm,
        Some(Status::Scaling) => Tone::Busy,
        Some(Status::Unknown) | None => Tone::Bad,
    }
}

fn scheduled_table(items: &[ScheduledItem], now: Timestamp) -> Table {
    let mut table = Table::new(["NAMESPACE", "NAME", "WAKES AT", "IN", "REPLICAS", "SET BY"]);
    for item in items {
        table.row([
            Cell::from(words::clean(&item.namespace)),
            Cell::from(words::clean(&item.name)),
            Cell::from(item.scheduled_scale_up.to_string()),
            Cell::from(words::relative(item.scheduled_scale_up.0, now)),
            Cell::or_dash(item.target_replicas.map(|count| count.to_string())),
            Cell::from(words::clean(&item.actor)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::sample_item;
    use super::*;
    use crate::output::style::Style;

    fn now() -> Timestamp {
        "2030-01-31T07:03:12Z".parse().unwrap()
    }

    fn shown(items: &[WorkloadItem], detail: Detail) -> String {
        table(items, now(), detail).text(Style::Plain, None)
    }

    #[test]
    fn a_list_says_what_a_workload_waits_for() {
        let asleep = WorkloadItem {
            name: "凪".to_owned(),
            status: "inactive".to_owned(),
            desired_replicas: 0,
            reason: None,
            wake: None,
            last_scale_time: None,
            scheduled_scale_up: Some("2030-01-31T07:13:12Z".parse::<Timestamp>().unwrap().into()),
            ..sample_item()
        };
        assert_eq!(
            shown(&[sample_item(), asleep], Detail::Normal),
            "NAMESPACE   NAME           STATUS     REPLICAS   LAST SCALED   NOTE\n\
             project-b   sample-app-b   scaling    0/1        3m12s         waking: waiting-for-node, 4.2 s left; \
             waiting for a node of pool gpu\n\
             project-b   凪             inactive   0/0        -             wakes in 10m\n"
        );
    }

    // As it is written on the command line: KIND/NAMESPACE/NAME.
    #[test]
    fn a_list_of_several_kinds_names_them() {
        let set = WorkloadItem {
            resource: "statefulsets".to_owned(),
            ..sample_item()
        };
        let text = shown(&[sample_item(), set], Detail::Normal);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().take(3).collect())
            .collect();
        assert_eq!(
            rows,
            [
                ["NAMESPACE", "KIND", "NAME"],
                ["project-b", "deployments", "sample-app-b"],
                ["project-b", "statefulsets", "sample-app-b"],
            ]
        );
    }

    #[test]
    fn a_wide_list_has_a_cell_for_each_heading() {
        let text = shown(&[sample_item()], Detail::Wide);
        let (heads, row) = text.split_once('\n').unwrap();
        for (head, cell) in [
            ("REMEMBERED", "1"),
            ("POOL", "gpu"),
            ("IDLE AFTER", "10m"),
            ("HOSTS", "sample-app-b.project-b.localhost"),
            ("LAST CHANGE", "wake by key/ops"),
            ("NOTE", "waking: "),
        ] {
            let at = heads.find(head).unwrap();
            assert!(row.get(at..).unwrap().starts_with(cell), "{head}: {text}");
        }
    }

    // A workload may be named by somebody else.
    #[test]
    fn text_of_others_is_made_safe() {
        let evil = WorkloadItem {
            name: "a\u{1b}[2Jb".to_owned(),
            reason: Some("x\ny".to_owned()),
            ..sample_item()
        };
        let text = shown(&[evil], Detail::Wide);
        assert!(
            !text.contains('\u{1b}') && text.lines().count() == 2,
            "{text:?}"
        );
    }

    // R18: more than one page.
    #[test]
    fn pages_become_one_body() {
        let mut body = serde_json::json!({"items": [1], "continue": "t1"});
        append(
            &mut body,
            &serde_json::json!({"items": [2, 3], "continue": "t2"}),
        );
        assert_eq!(
            body,
            serde_json::json!({"items": [1, 2, 3], "continue": "t2"})
        );
        append(&mut body, &serde_json::json!({"items": []}));
        assert_eq!(body, serde_json::json!({"items": [1, 2, 3]}));
    }
}
