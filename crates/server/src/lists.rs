//! Lists of workloads and of pending wakes (R18).

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use nagi_api::problem::Succeeded;
use nagi_api::{ListAnswer, ScheduledItem, ScheduledListAnswer, Time, routes};
use nagi_core::id::{LABEL_CHARS_MAX, Name, Namespace, Resource, WorkloadId};
use nagi_core::status::Status;
use nagi_core::workload::Workload;
use nagi_ports::Listing;

use crate::answer::{counted, json};
use crate::app::App;
use crate::call::Reader;
use crate::page::Page;
use crate::path;
use crate::problem::{Doing, Problem};
use crate::query::Query;
use crate::status::item;

/// Every workload of every kind that the key may see.
#[utoipa::path(
    get, path = routes::WORKLOADS, tag = "workloads", operation_id = "list_workloads",
    params(crate::openapi::ListQuery, crate::openapi::WorkloadFilters),
    responses(
        (status = 200, description = "A page of workloads", body = ListAnswer),
        crate::openapi::ListErrors,
    )
)]
pub(crate) async fn workloads(State(app): State<App>, call: Reader) -> Result<Response, Problem> {
    list(&app, &call, None).await
}

/// Every workload of one kind that the key may see.
#[utoipa::path(
    get, path = routes::RESOURCE, tag = "workloads", operation_id = "list_resource",
    params(crate::openapi::ResourcePath, crate::openapi::ListQuery, crate::openapi::WorkloadFilters),
    responses(
        (status = 200, description = "A page of workloads", body = ListAnswer),
        crate::openapi::ListErrors,
    )
)]
pub(crate) async fn resource(
    State(app): State<App>,
    call: Reader,
    uri: Uri,
) -> Result<Response, Problem> {
    let resource = path::resource(uri.path()).ok_or_else(Problem::no_route)?;
    list(&app, &call, Some(resource)).await
}

async fn list(app: &App, call: &Reader, resource: Option<Resource>) -> Result<Response, Problem> {
    call.query
        .only(&["limit", "continue", "namespace", "status", "label"])?;
    let filters = Filters::of(call, resource)?;
    let now = app.clock.now();
    let page = Page::of(&call.query, filters.scope("workloads"), now)?;
    let listing = fetch(app, call).await?;
    let passing = |workload: &Workload| filters.pass(workload) && call.sight.covers(&workload.id);
    let (items, last) = cut(&listing, &page, passing, |workload| {
        Some(item(app, workload))
    });
    let answer = ListAnswer {
        status: Succeeded::Success,
        message: counted(items.len(), "workload"),
        items,
        continue_token: last.map(|last| page.token(&last, now)),
        observed_at: Time::in_millis(listing.observed_at),
    };
    Ok(json(StatusCode::OK, &answer))
}

/// Pending one-off wakes that the key may see.
#[utoipa::path(
    get, path = routes::SCHEDULED_SCALE_UPS, tag = "schedules", operation_id = "list_scheduled_scale_ups",
    params(crate::openapi::ListQuery, crate::openapi::NamespaceFilter),
    responses(
        (status = 200, description = "A page of pending wakes", body = ScheduledListAnswer),
        crate::openapi::ListErrors,
    )
)]
pub(crate) async fn scheduled(State(app): State<App>, call: Reader) -> Result<Response, Problem> {
    call.query.only(&["limit", "continue", "namespace"])?;
    let namespace = call.namespace()?;
    let now = app.clock.now();
    let scope = format!("scheduled {namespace:?}");
    let page = Page::of(&call.query, scope, now)?;
    let listing = fetch(&app, &call).await?;
    let passing = |workload: &Workload| {
        namespace
            .as_ref()
            .is_none_or(|wanted| *wanted == workload.id.namespace)
            && call.sight.covers(&workload.id)
            && workload.intent.scheduled.is_some()
    };
    let (items, last) = cut(&listing, &page, passing, ScheduledItem::of);
    let answer = ScheduledListAnswer {
        status: Succeeded::Success,
        message: counted(items.len(), "scheduled scale up"),
        items,
        continue_token: last.map(|last| page.token(&last, now)),
        observed_at: Time::in_millis(listing.observed_at),
    };
    Ok(json(StatusCode::OK, &answer))
}

async fn fetch(app: &App, call: &Reader) -> Result<Listing, Problem> {
    let listed = call.exchange.upstream(app.workloads.list()).await;
    listed.map_err(|error| Problem::port(&error, Doing::Read("workloads"), None))
}

/// The items of a page, and the position of its last one when more follow. The listing is ordered by id.
fn cut<T>(
    listing: &Listing,
    page: &Page,
    passing: impl Fn(&Workload) -> bool,
    make: impl Fn(&Workload) -> Option<T>,
) -> (Vec<T>, Option<String>) {
    let mut rest = listing
        .items
        .iter()
        .filter(|workload| passing(workload))
        .map(|workload| (position(&workload.id), workload))
        .skip_while(|(at, _)| page.after.as_ref().is_some_and(|after| at <= after));
    let mut items = Vec::new();
    let mut last = None;
    for (at, workload) in rest.by_ref().take(page.limit) {
        items.extend(make(workload));
        last = Some(at);
    }
    let more = rest.next().is_some();
    (items, last.filter(|_| more))
}

/// The place of a workload in the order of ids: a separator below every character of a name keeps the order.
fn position(id: &WorkloadId) -> String {
    format!("{}\u{1}{}\u{1}{}", id.resource, id.namespace, id.name)
}

/// What a caller wants to see of a list.
#[derive(Debug)]
struct Filters {
    resource: Option<Resource>,
    namespace: Option<Namespace>,
    status: Option<Status>,
    labels: Vec<Label>,
}

/// A label that must be there, perhaps with a value.
#[derive(Debug)]
struct Label {
    key: String,
    value: Option<String>,
}

impl Filters {
    fn of(call: &Reader, resource: Option<Resource>) -> Result<Self, Problem> {
        let status = match call.query.text("status")? {
            None => None,
            Some(text) => Some(status(text)?),
        };
        Ok(Self {
            resource,
            namespace: call.namespace()?,
            status,
            labels: labels(&call.query)?,
        })
    }

    fn pass(&self, workload: &Workload) -> bool {
        let WorkloadId {
            resource,
            namespace,
            name: _,
        } = &workload.id;
        self.resource
            .as_ref()
            .is_none_or(|wanted| wanted == resource)
            && self
                .namespace
                .as_ref()
                .is_none_or(|wanted| wanted == namespace)
            && self.status.is_none_or(|wanted| wanted == workload.status())
            && self.labels.iter().all(|label| label.is_on(workload))
    }

    /// The list and its filters, for tokens.
    fn scope(&self, list: &str) -> String {
        format!("{list} {self:?}")
    }
}

impl Label {
    fn is_on(&self, workload: &Workload) -> bool {
        let found = workload.labels.get(&self.key);
        match &self.value {
            None => found.is_some(),
            Some(value) => found == Some(value),
        }
    }
}

fn status(text: &str) -> Result<Status, Problem> {
    let words = Status::ALL.map(Status::as_str).join(", ");
    Status::parse(text)
        .ok_or_else(|| Problem::parameter("status", format_args!("must be one of {words}"), &words))
}

fn labels(query: &Query) -> Result<Vec<Label>, Problem> {
    let wanted = query.all("label").flat_map(|text| text.split(','));
    wanted
        .map(|text| {
            let (key, value) = match text.split_once('=') {
                Some((key, value)) => (key, Some(value.strip_prefix('=').unwrap_or(value))),
                None => (text, None),
            };
            if !is_label_key(key) || !value.is_none_or(is_label_value) {
                let limit = "KEY or KEY=VALUE, each as Kubernetes has labels";
                return Err(Problem::parameter("label", "names no label", limit));
            }
            Ok(Label {
                key: key.to_owned(),
                value: value.map(str::to_owned),
            })
        })
        .collect()
}

/// A name of at most 63 letters, digits, `-`, `_` and `.`, perhaps behind a DNS subdomain and a slash.
fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        None => is_label_name(text),
        Some((prefix, name)) => Name::new(prefix).is_ok() && is_label_name(name),
    }
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_name(text)
}

fn is_label_name(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= LABEL_CHARS_MAX
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}
