//! `GET /api/v1/history`: past changes, newest first (R20).

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use nagi_api::problem::Succeeded;
use nagi_api::workload::ChangeItem;
use nagi_api::{HistoryAnswer, HistoryItem, Time, routes};
use nagi_core::access::{Reach, Sight};
use nagi_core::id::Name;
use nagi_ports::{HistoryEntry, HistoryQuery};

use crate::answer::{counted, json};
use crate::app::App;
use crate::call::Reader;
use crate::page::Page;
use crate::problem::{Doing, Problem};
use crate::query::Query;

/// Pages of the journal that are read for one answer at most. A key that sees one busy namespace in a thousand gets a
/// short page and a token to go on, rather than an answer that takes for ever.
const READS_MAX: usize = 20;

/// Past changes that the key may see, newest first.
#[utoipa::path(
    get, path = routes::HISTORY, tag = "history", operation_id = "history",
    params(crate::openapi::ListQuery, crate::openapi::HistoryFilters),
    responses(
        (status = 200, description = "A page of changes", body = HistoryAnswer),
        crate::openapi::ListErrors,
    )
)]
pub(crate) async fn history(State(app): State<App>, call: Reader) -> Result<Response, Problem> {
    call.query
        .only(&["limit", "continue", "namespace", "name", "since"])?;
    let now = app.clock.now();
    let namespace = call.namespace()?;
    let name = name_filter(&call.query)?;
    let since = since(&call.query)?;
    let scope = format!("history {namespace:?} {name:?} {since:?}");
    let page = Page::of(&call.query, scope, now)?;
    let before = page.after.as_deref().and_then(|id| id.parse().ok());
    let only = match &call.sight {
        Sight::Reach(Reach::Only(set)) if set.len() == 1 => set.first().cloned(),
        Sight::Reach(Reach::Only(_) | Reach::All) | Sight::Kinds(_) => None,
    };
    let query = HistoryQuery {
        namespace: namespace.or(only),
        name,
        since,
        before,
        limit: page.limit,
    };
    let read = collect(&app, &call, query).await?;
    let answer = HistoryAnswer {
        status: Succeeded::Success,
        message: counted(read.entries.len(), "change"),
        continue_token: read.resume.map(|id| page.token(&id.to_string(), now)),
        items: read.entries.iter().map(item).collect(),
        reaches_back_to: read.reaches_back_to.map(Time::in_millis),
        observed_at: Time::in_millis(now),
    };
    Ok(json(StatusCode::OK, &answer))
}

/// What was read for one answer.
#[derive(Debug, Default)]
struct Gathered {
    entries: Vec<HistoryEntry>,
    /// The id to go on before, when there is more.
    resume: Option<u64>,
    reaches_back_to: Option<Timestamp>,
}

/// Reads pages until enough entries are visible to the key.
async fn collect(app: &App, call: &Reader, mut query: HistoryQuery) -> Result<Gathered, Problem> {
    let mut gathered = Gathered::default();
    for _ in 0..READS_MAX {
        let read = call.exchange.upstream(app.journal.history(&query)).await;
        let read = read.map_err(|error| Problem::port(&error, Doing::Read("history"), None))?;
        gathered.reaches_back_to = read.reaches_back_to;
        let last_read = read.entries.last().map(|entry| entry.id);
        for entry in read.entries {
            if !call.sight.covers(&entry.workload) {
                continue;
            }
            if gathered.entries.len() == query.limit {
                gathered.resume = gathered.entries.last().map(|entry| entry.id);
                return Ok(gathered);
            }
            gathered.entries.push(entry);
        }
        gathered.resume = last_read.filter(|_| read.more);
        if gathered.resume.is_none() || gathered.entries.len() == query.limit {
            return Ok(gathered);
        }
        query.before = last_read;
    }
    Ok(gathered)
}

fn item(entry: &HistoryEntry) -> HistoryItem {
    let change = ChangeItem::from(&entry.change);
    HistoryItem {
        id: entry.id,
        time: change.time,
        resource: entry.workload.resource.to_string(),
        namespace: entry.workload.namespace.to_string(),
        name: entry.workload.name.to_string(),
        action: change.action,
        actor: change.actor,
        reason: change.reason,
        request_id: change.request_id,
        from: change.from,
        to: change.to,
        source: entry.source.to_owned(),
    }
}

fn name_filter(query: &Query) -> Result<Option<Name>, Problem> {
    let limit = "a DNS subdomain of at most 253 characters";
    let checked = |text| Name::new(text).map_err(|error| Problem::parameter("name", error, limit));
    query.text("name")?.map(checked).transpose()
}

fn since(query: &Query) -> Result<Option<Timestamp>, Problem> {
    let limit = "RFC 3339 with 'T' and a zone";
    let checked = |text: &str| {
        // A plus sign that was not percent-encoded arrives as a blank.
        let text = text.replace(' ', "+");
        text.parse::<Timestamp>()
            .map_err(|_| Problem::parameter("since", format_args!("must be {limit}"), limit))
    };
    query.text("since")?.map(checked).transpose()
}
