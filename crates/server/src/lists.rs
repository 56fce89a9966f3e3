//! Lists of workloads and of pending wakes (R18).

use std::ops::ControlFlow;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use jiff::Timestamp;
use nagi_api::problem::Succeeded;
use nagi_api::{ListAnswer, ScheduledItem, ScheduledListAnswer, Time, UnreadKind, routes};
use nagi_core::id::{LABEL_CHARS_MAX, Name, Namespace, Resource, WorkloadId};
use nagi_core::status::Status;
use nagi_ports::{Glance, Selection, Visited};

use crate::answer::{counted, json, not_encoded};
use crate::app::App;
use crate::call::Reader;
use crate::items::Item;
use crate::page::{Page, unknown_token};
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
    // Before the look, so that a wake that ends meanwhile is at worst looked for in vain.
    let waking = app.wakes.under_way();
    let keep = |glance: &dyn Glance| {
        filters.pass(glance).then(|| {
            let revision = glance.revision();
            let kept = (!waking.contains(glance.id())).then(|| app.items.get(revision));
            let new = || Item::New(revision, glance.workload());
            kept.flatten().map_or_else(new, Item::Kept)
        })
    };
    let cut = cut(app, call, &page, filters.selection(), keep).await?;
    let envelope = ListAnswer {
        status: Succeeded::Success,
        message: counted(cut.items.len(), "workload"),
        items: Vec::new(),
        continue_token: cut.token(&page, now),
        observed_at: Time::in_millis(cut.visited.observed_at),
        unread: unread(&cut.visited),
    };
    let answer = app
        .items
        .answer(&envelope, &cut.items, |workload| item(app, workload));
    answer.map_err(|error| not_encoded(&error))
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
    let selection = Selection {
        namespace: namespace.as_ref(),
        ..Selection::default()
    };
    let keep = |glance: &dyn Glance| {
        glance
            .intent()
            .scheduled
            .is_some()
            .then(|| glance.workload())
    };
    let cut = cut(&app, &call, &page, selection, keep).await?;
    let answer = ScheduledListAnswer {
        status: Succeeded::Success,
        message: counted(cut.items.len(), "scheduled scale up"),
        items: cut
            .items
            .iter()
            .filter_map(|workload| ScheduledItem::of(workload))
            .collect(),
        continue_token: cut.token(&page, now),
        observed_at: Time::in_millis(cut.visited.observed_at),
        unread: unread(&cut.visited),
    };
    Ok(json(StatusCode::OK, &answer))
}

/// What a page shows.
#[derive(Debug)]
struct Cut<T> {
    items: Vec<T>,
    /// The last item, when more follow.
    last: Option<WorkloadId>,
    visited: Visited,
}

impl<T> Cut<T> {
    fn token(&self, page: &Page, now: Timestamp) -> Option<String> {
        let last = self.last.as_ref()?;
        Some(page.token(&position(last), now))
    }
}

/// The kinds of which the list shows nothing, or what was known before.
fn unread(visited: &Visited) -> Vec<UnreadKind> {
    let told = visited.unread.iter().map(|unread| UnreadKind {
        resource: unread.facts.to_string(),
        reason: unread.problem.to_string(),
    });
    told.collect()
}

/// Takes of a selection what the key may see and `keep` keeps, from where the page begins until it is full.
async fn cut<T: Send>(
    app: &App,
    call: &Reader,
    page: &Page,
    selection: Selection<'_>,
    keep: impl Fn(&dyn Glance) -> Option<T> + Send + Sync,
) -> Result<Cut<T>, Problem> {
    let after = match &page.after {
        None => None,
        Some(position) => Some(placed(position).ok_or_else(unknown_token)?),
    };
    let selection = Selection {
        after: after.as_ref(),
        ..selection
    };
    let mut items = Vec::new();
    let mut latest = None;
    let mut more = false;
    let see = &mut |glance: &dyn Glance| {
        let id = glance.id();
        if !call.sight.covers(id) {
            return ControlFlow::Continue(());
        }
        // The one behind a full page only shows that there is one: it is made and thrown away, once for each page.
        let Some(item) = keep(glance) else {
            return ControlFlow::Continue(());
        };
        if items.len() == page.limit {
            more = true;
            return ControlFlow::Break(());
        }
        items.push(item);
        if items.len() == page.limit {
            latest = Some(id.clone());
        }
        ControlFlow::Continue(())
    };
    let visit = app.workloads.visit(selection, see);
    let visited = call.exchange.upstream(visit).await;
    let visited = visited.map_err(|error| Problem::port(&error, Doing::Read("workloads"), None))?;
    Ok(Cut {
        items,
        last: latest.filter(|_| more),
        visited,
    })
}

/// Between the parts of a position: below every character of a name, so that positions sort as ids do.
const SEPARATOR: char = '\u{1}';

/// The place of a workload in the order of ids.
fn position(id: &WorkloadId) -> String {
    let WorkloadId {
        resource,
        namespace,
        name,
    } = id;
    format!("{resource}{SEPARATOR}{namespace}{SEPARATOR}{name}")
}

/// The workload at a place; it need not exist any more.
fn placed(position: &str) -> Option<WorkloadId> {
    let mut parts = position.split(SEPARATOR);
    let id = WorkloadId {
        resource: Resource::new(parts.next()?).ok()?,
        namespace: Namespace::new(parts.next()?).ok()?,
        name: Name::new(parts.next()?).ok()?,
    };
    parts.next().is_none().then_some(id)
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

    fn selection(&self) -> Selection<'_> {
        Selection {
            resource: self.resource.as_ref(),
            namespace: self.namespace.as_ref(),
            after: None,
        }
    }

    /// Does one of the selection pass the others?
    fn pass(&self, glance: &dyn Glance) -> bool {
        self.status.is_none_or(|wanted| wanted == glance.status())
            && self.labels.iter().all(|label| label.is_on(glance))
    }

    /// The list and its filters, for tokens.
    fn scope(&self, list: &str) -> String {
        format!("{list} {self:?}")
    }
}

impl Label {
    fn is_on(&self, glance: &dyn Glance) -> bool {
        let found = glance.label(&self.key);
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
