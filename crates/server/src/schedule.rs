//! `DELETE …/scheduled-scale-up`: forget a pending one-off wake (R12).

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use nagi_api::problem::Succeeded;
use nagi_api::{ScheduleAnswer, ScheduleResult, Time, routes};
use nagi_core::scale::Order;

use crate::answer::json;
use crate::app::App;
use crate::call::Change;
use crate::order::{self, Mode};
use crate::problem::Problem;

/// Cancels the pending scheduled wake of a workload.
#[utoipa::path(
    delete, path = routes::SCHEDULED_SCALE_UP, tag = "schedules", operation_id = "cancel_scheduled_scale_up",
    params(crate::openapi::WorkloadPath, crate::openapi::WriteQuery),
    responses(
        (status = 200, description = "It is cancelled", body = ScheduleAnswer),
        crate::openapi::WriteErrors,
    )
)]
pub(crate) async fn cancel(State(app): State<App>, call: Change) -> Result<Response, Problem> {
    let mode = Mode::of(&call)?;
    let outcome = order::execute(&app, &call, Order::CancelSchedule, mode).await?;
    let cancelled = outcome.plan.scheduled;
    // A cancel order without a schedule is refused by the core, so there is one.
    let cancelled =
        cancelled.ok_or_else(|| order::refused(&nagi_core::scale::Refusal::NoSchedule))?;
    let answer = ScheduleAnswer {
        status: Succeeded::Success,
        message: "Scheduled scale up cancelled".to_owned(),
        deployment: ScheduleResult::new(cancelled, &outcome.after),
        dry_run: mode.shown(),
        timestamp: Time::in_millis(app.clock.now()),
    };
    Ok(json(StatusCode::OK, &answer))
}
