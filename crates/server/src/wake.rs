//! `POST …/wake`: wake to the remembered count, and say how far it is (R14).

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use nagi_api::problem::Succeeded;
use nagi_api::scale::{ToWake, warning};
use nagi_api::{Time, WakeAnswer, WakeRequest, WakeResult, routes};
use nagi_core::scale::{Order, Request, Warning};
use nagi_core::wake::{Progress, Stage};
use nagi_core::workload::Workload;
use nagi_ports::PortError;
use nagi_telemetry::names::field;
use nagi_wake::{Ticket, WakeError};

use crate::answer::json;
use crate::app::App;
use crate::body::{self, Content};
use crate::call::Change;
use crate::order::{self, Mode};
use crate::problem::{Doing, Problem};
use crate::status::wake;

/// What a call for a wake came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// It wrote the count, or would.
    Started,
    /// The count was wanted already, and nothing serves yet.
    UnderWay,
    /// Something serves.
    Awake,
}

/// What is shown of a wake, whether it is real or not.
struct Shown {
    came: Came,
    result: WakeResult,
    warnings: Vec<Warning>,
}

/// Wakes a sleeping workload.
///
/// To the count that is remembered for it, or to the one in the body. A pending scheduled wake stays. A wake that is under way is joined; awake already: nothing is changed.
#[utoipa::path(
    post, path = routes::WAKE, tag = "scale", operation_id = "wake",
    params(crate::openapi::WorkloadPath, crate::openapi::WriteQuery),
    request_body(content = WakeRequest, description = "May be left out"),
    responses(
        (status = 200, description = "It serves already", body = WakeAnswer),
        (status = 202, description = "It is waking, by this call or an earlier one", body = WakeAnswer,
            headers(("Location" = String, description = "The status of the workload"))),
        crate::openapi::WriteErrors,
    )
)]
pub(crate) async fn post(
    State(app): State<App>,
    call: Change,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let asked = match body::read(&headers, body, &call.exchange, &app.config.limits).await? {
        Content::Blank => ToWake::default(),
        Content::Object(body) => ToWake::read(&body, app.config.rails.replicas_max)
            .map_err(|error| Problem::body_field(&error))?,
    };
    let mode = Mode::of(&call)?;
    let order = Order::Wake {
        replicas: asked.replicas,
        reason: asked.reason,
        default_allowed: false,
    };
    let shown = match mode {
        Mode::DryRun => rehearsed(&app, &call, order).await?,
        Mode::Real => woken(&app, &call, order).await?,
    };
    Ok(answer(&app, &call, shown, mode))
}

/// The plan alone.
async fn rehearsed(app: &App, call: &Change, order: Order) -> Result<Shown, Problem> {
    let outcome = order::execute(app, call, order, Mode::DryRun).await?;
    let (came, stage) = match (&outcome.plan.update, furthest(&outcome.after)) {
        (Some(_), _) => (Came::Started, Stage::Accepted),
        (None, Stage::Ready) => (Came::Awake, Stage::Ready),
        (None, under_way) => (Came::UnderWay, under_way),
    };
    let result = WakeResult {
        previous_replicas: outcome.plan.from.0,
        target_replicas: outcome.plan.to.0,
        stage: stage.as_str().to_owned(),
        eta_seconds: None,
        ..described(call, &outcome.after)
    };
    Ok(Shown {
        came,
        result,
        warnings: outcome.plan.warnings,
    })
}

/// The flight, as soon as its count is durable.
async fn woken(app: &App, call: &Change, order: Order) -> Result<Shown, Problem> {
    let request = Request {
        order,
        actor: call.actor.clone(),
        request_id: Some(call.exchange.id.clone()),
    };
    order::note_order(&call.exchange, &request, Mode::Real);
    let asked = async { Ok(app.wakes.wake(&call.id, request).await) };
    let begun = call.exchange.upstream(asked).await;
    let begun = begun.unwrap_or_else(|late| Err(WakeError::Port(late)));
    let result = match &begun {
        Ok(ticket) if ticket.has_joined() || ticket.view().already_awake => "unchanged",
        Ok(_) => "changed",
        Err(WakeError::Refused(_) | WakeError::Port(PortError::NotFound)) => "refused",
        Err(WakeError::Port(_) | WakeError::Busy) => "failed",
    };
    app.metrics.scale_operation("wake", result);
    let ticket = begun.map_err(|error| failed(&error, call))?;
    let shown = shown(call, &ticket);
    call.exchange
        .note(field::FROM, shown.result.previous_replicas);
    call.exchange.note(field::TO, shown.result.target_replicas);
    Ok(shown)
}

fn shown(call: &Change, ticket: &Ticket) -> Shown {
    let view = ticket.view();
    let item = wake(&view);
    let facts = view.workload.as_deref();
    let furthest = facts.map(furthest);
    let serves = view.progress == Progress::Ready || furthest == Some(Stage::Ready);
    let came = match (ticket.has_joined() || view.already_awake, serves) {
        (false, _) => Came::Started,
        (true, false) => Came::UnderWay,
        (true, true) => Came::Awake,
    };
    let known = facts.map(|workload| described(call, workload));
    let result = WakeResult {
        // A call that joins changes nothing.
        previous_replicas: match came {
            Came::Started => view.from.0,
            Came::UnderWay | Came::Awake => view.to.0,
        },
        target_replicas: view.to.0,
        stage: match (&view.progress, furthest) {
            (Progress::Under(_), Some(stage)) if view.already_awake => stage.as_str().to_owned(),
            (Progress::Under(_) | Progress::Ready | Progress::Failed(_), _) => item.stage,
        },
        eta_seconds: item.eta_seconds,
        resource_version: view.version.unwrap_or_default().to_string(),
        ..known.unwrap_or_else(|| named(call))
    };
    Shown {
        came,
        result,
        warnings: vec![],
    }
}

/// How far the replicas of a workload that is wanted have come.
fn furthest(workload: &Workload) -> Stage {
    if !workload.available.is_zero() {
        return Stage::Ready;
    }
    let living = workload.replicas.iter().filter(|replica| !replica.stopping);
    let furthest = living.map(|replica| replica.stage).max();
    furthest.map_or(Stage::Scaling, |stage| stage.min(Stage::Starting))
}

fn named(call: &Change) -> WakeResult {
    WakeResult {
        name: call.id.name.to_string(),
        namespace: call.id.namespace.to_string(),
        resource: call.id.resource.to_string(),
        previous_replicas: 0,
        current_replicas: 0,
        target_replicas: 0,
        stage: Stage::Accepted.as_str().to_owned(),
        eta_seconds: None,
        scheduled_scale_up: None,
        resource_version: "0".to_owned(),
    }
}

fn described(call: &Change, workload: &Workload) -> WakeResult {
    let scheduled = workload.intent.scheduled.as_ref();
    WakeResult {
        current_replicas: workload.current.0,
        scheduled_scale_up: scheduled.map(|scheduled| Time(scheduled.at)),
        resource_version: workload.version.to_string(),
        ..named(call)
    }
}

fn failed(error: &WakeError, call: &Change) -> Problem {
    match error {
        WakeError::Refused(refusal) => order::refused(refusal),
        WakeError::Port(error) => Problem::port(error, Doing::Scale, Some(&call.id)),
        WakeError::Busy => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Wake not possible now")
            .error(error)
            .retry_after(1)
            .failure(nagi_telemetry::Failure::Overloaded),
    }
}

fn answer(app: &App, call: &Change, shown: Shown, mode: Mode) -> Response {
    let (status, message) = match shown.came {
        Came::Started => (StatusCode::ACCEPTED, "Wake started"),
        Came::UnderWay => (StatusCode::ACCEPTED, "Already waking"),
        Came::Awake => (StatusCode::OK, "Already awake"),
    };
    let body = WakeAnswer {
        status: Succeeded::Success,
        message: message.to_owned(),
        deployment: shown.result,
        warnings: shown.warnings.iter().map(warning).collect(),
        dry_run: mode.shown(),
        timestamp: Time::in_millis(app.clock.now()),
    };
    let mut response = json(status, &body);
    let location = routes::of_workload(routes::STATUS, &call.id);
    if status == StatusCode::ACCEPTED
        && let Ok(location) = HeaderValue::from_str(&location)
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
