//! `POST …/scale-to-zero` and `POST …/scale-up`.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use nagi_api::body::{FieldError, Json};
use nagi_api::problem::Succeeded;
use nagi_api::scale::{ToZero, Up, warning};
use nagi_api::{ScaleAnswer, ScaleResult, ScaleToZeroRequest, ScaleUpRequest, Time, routes};
use nagi_core::scale::Order;
use nagi_core::text::ReasonText;
use nagi_ports::Read;

use crate::answer::json;
use crate::app::App;
use crate::body::{self, Content};
use crate::call::Change;
use crate::order::{self, Mode, Outcome};
use crate::problem::{Doing, Problem};
use crate::status::activity;

/// Puts a workload to sleep.
///
/// It then has no replicas. The count is remembered and restored by the next wake. Repeating it is a success and changes nothing.
#[utoipa::path(
    post, path = routes::SCALE_TO_ZERO, tag = "scale", operation_id = "scale_to_zero",
    params(crate::openapi::WorkloadPath, crate::openapi::WriteQuery),
    request_body = ScaleToZeroRequest,
    responses(
        (status = 200, description = "Scaled to zero", body = ScaleAnswer),
        crate::openapi::WriteErrors,
    )
)]
pub(crate) async fn to_zero(
    State(app): State<App>,
    call: Change,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let content = body::read(&headers, body, &call.exchange, &app.config.limits).await?;
    let asked = field_by_field(&app, &call, content, |body| {
        ToZero::read(body, app.clock.now())
    });
    let ToZero { reason, wake_at } = asked.await?;
    let mode = Mode::of(&call)?;
    let order = Order::ToZero {
        reason: reason.clone(),
        wake_at,
    };
    let activity = activity(&app, &call.exchange, &call.id).await;
    let mut outcome = order::execute(&app, &call, order, mode).await?;
    order::warn_of_cut(&mut outcome.plan, activity);
    let message = format!("{} scaled to zero", call.id.resource.kind());
    Ok(answer(&app, message, &outcome, &reason, mode))
}

/// Sets the number of replicas.
///
/// Upwards or downwards; a pending scheduled wake is cancelled. Success means that the count is wanted, not that the replicas serve: see the status.
#[utoipa::path(
    post, path = routes::SCALE_UP, tag = "scale", operation_id = "scale_up",
    params(crate::openapi::WorkloadPath, crate::openapi::WriteQuery),
    request_body = ScaleUpRequest,
    responses(
        (status = 200, description = "The count is set", body = ScaleAnswer),
        crate::openapi::WriteErrors,
    )
)]
pub(crate) async fn up(
    State(app): State<App>,
    call: Change,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let content = body::read(&headers, body, &call.exchange, &app.config.limits).await?;
    let ceiling = app.config.rails.replicas_max;
    let Up { replicas, reason } =
        field_by_field(&app, &call, content, |body| Up::read(body, ceiling)).await?;
    let mode = Mode::of(&call)?;
    let order = Order::Up {
        replicas,
        reason: reason.clone(),
    };
    let outcome = order::execute(&app, &call, order, mode).await?;
    let message = format!("{} scaled to {replicas} replicas", call.id.resource.kind());
    Ok(answer(&app, message, &outcome, &reason, mode))
}

/// Checks the fields of a body. Without one, the workload is looked up first, so that a missing one is 404 (K-05).
async fn field_by_field<T>(
    app: &App,
    call: &Change,
    content: Content,
    check: impl Fn(&Json) -> Result<T, FieldError>,
) -> Result<T, Problem> {
    let body = match content {
        Content::Object(body) => body,
        Content::Blank => {
            let read = app.workloads.get(&call.id, Read::Cached);
            let found = call.exchange.upstream(read).await;
            found.map_err(|error| Problem::port(&error, Doing::Scale, Some(&call.id)))?;
            Json::Object(vec![])
        }
    };
    check(&body).map_err(|error| Problem::body_field(&error))
}

fn answer(
    app: &App,
    message: String,
    outcome: &Outcome,
    reason: &ReasonText,
    mode: Mode,
) -> Response {
    json(
        StatusCode::OK,
        &ScaleAnswer {
            status: Succeeded::Success,
            message,
            deployment: ScaleResult::new(&outcome.plan, &outcome.after, reason),
            warnings: outcome.plan.warnings.iter().map(warning).collect(),
            dry_run: mode.shown(),
            timestamp: Time::in_millis(app.clock.now()),
        },
    )
}
