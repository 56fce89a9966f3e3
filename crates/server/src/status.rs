//! `GET …/status`: counts, the status word, and everything that explains it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use nagi_api::problem::Succeeded;
use nagi_api::workload::WakeItem;
use nagi_api::{StatusAnswer, Time, WorkloadItem, routes};
use nagi_core::id::{Version, WorkloadId};
use nagi_core::idle::Activity;
use nagi_core::status::Status;
use nagi_core::wake::Progress;
use nagi_core::workload::Workload;
use nagi_ports::Read;
use nagi_runtime::Deadline;
use nagi_wake::FlightView;

use crate::answer::json;
use crate::app::App;
use crate::call::Target;
use crate::exchange::Exchange;
use crate::problem::{Doing, Problem};
use crate::query::{MIN_RESOURCE_VERSION, Query};

/// Where a workload stands.
///
/// Wanted, existing and serving replicas, why they differ, and what is remembered.
#[utoipa::path(
    get, path = routes::STATUS, tag = "workloads", operation_id = "status",
    params(crate::openapi::WorkloadPath, crate::openapi::VersionQuery),
    responses(
        (status = 200, description = "Where it stands", body = StatusAnswer),
        crate::openapi::ReadErrors,
    )
)]
pub(crate) async fn status(State(app): State<App>, call: Target) -> Result<Response, Problem> {
    call.query.only(&[MIN_RESOURCE_VERSION])?;
    let workload = read(&app, &call).await?;
    let mut deployment = item(&app, &workload);
    // The gateways are asked only here: a list would ask them once for each workload.
    if let Some(activity) = activity(&app, &call.exchange, &call.id).await {
        deployment.in_flight_requests = Some(activity.in_flight);
        deployment.held_requests = Some(activity.held);
    }
    if workload.idle_after.is_some() || workload.intent.scheduled.is_some() {
        let problem = app.workloads.unattended();
        deployment.unattended = problem.map(|problem| problem.to_string());
    }
    let answer = StatusAnswer {
        status: Succeeded::Success,
        message: format!("{} status retrieved successfully", call.id.resource.kind()),
        deployment,
        timestamp: Time::in_millis(app.clock.now()),
    };
    Ok(json(StatusCode::OK, &answer))
}

/// The workload of a call, at least as new as the caller asks.
pub(crate) async fn read(app: &App, call: &Target) -> Result<Arc<Workload>, Problem> {
    let read = app.workloads.get(&call.id, freshness(&call.query)?);
    let found = call.exchange.upstream(read).await;
    found.map_err(|error| Problem::port(&error, Doing::Status, Some(&call.id)))
}

/// How long an answer waits for counts that are only shown.
const ACTIVITY_TIME: Duration = Duration::from_millis(500);
/// The largest version that may be asked for: what `int64`, its format in the OpenAPI document, can hold.
const VERSION_MAX: u64 = u64::MAX >> 1;

/// `min_resource_version`: no replica of the API contradicts another to somebody who passes it (DESIGN §5).
fn freshness(query: &Query) -> Result<Read, Problem> {
    let version = query.number(MIN_RESOURCE_VERSION, 0, VERSION_MAX)?;
    Ok(version.map_or(Read::Cached, |version| Read::AtLeast(Version::new(version))))
}

/// What the gateways count now; `None` when they do not tell in time. It is shown beside the facts, and never decides.
pub(crate) async fn activity(app: &App, exchange: &Exchange, id: &WorkloadId) -> Option<Activity> {
    let asked = Deadline::in_(ACTIVITY_TIME).timeout(app.traffic.activity(id));
    let asked = exchange.upstream(async { Ok(asked.await) }).await;
    asked.ok()?.ok()?
}

/// A workload as answers show it, with the wake that is under way.
pub(crate) fn item(app: &App, workload: &Workload) -> WorkloadItem {
    let mut item = WorkloadItem::from(workload);
    item.wake = app.wakes.flight(&workload.id).as_ref().map(wake);
    if workload.status() == Status::Scaling && item.reason.is_none() {
        item.reason = Some(counts_differ(workload));
    }
    item
}

/// A wake as answers show it.
pub(crate) fn wake(view: &FlightView) -> WakeItem {
    let failure = match &view.progress {
        Progress::Failed(failure) => Some(failure.to_string()),
        Progress::Under(_) | Progress::Ready => None,
    };
    WakeItem::new(view.stage(), &view.marks, view.eta, view.trigger, failure)
}

/// Why it is scaling, when the engine gives no reason (R09).
fn counts_differ(workload: &Workload) -> String {
    format!(
        "{} wanted, {} there, {} serving",
        workload.desired, workload.current, workload.available
    )
}
