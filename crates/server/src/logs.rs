//! `GET …/logs`: what the replicas of a workload printed.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use nagi_api::logs::{TAIL_DEFAULT, TAIL_MAX};
use nagi_api::problem::Succeeded;
use nagi_api::{LogItem, LogsAnswer, Time, routes};
use nagi_ports::{LogQuery, PortError};

use crate::answer::{counted, json};
use crate::app::App;
use crate::call::Target;
use crate::problem::{Doing, Problem};

/// Longest cursor that is passed on to the engine, in bytes.
const CURSOR_BYTES_MAX: usize = 4096;

/// The last lines of each replica, or everything since an earlier page.
#[utoipa::path(
    get, path = routes::LOGS, tag = "workloads", operation_id = "logs",
    params(crate::openapi::WorkloadPath, crate::openapi::LogsQuery),
    responses(
        (status = 200, description = "A page of lines", body = LogsAnswer),
        crate::openapi::ReadErrors,
    )
)]
pub(crate) async fn logs(State(app): State<App>, call: Target) -> Result<Response, Problem> {
    call.query.only(&["tail", "after"])?;
    let tail = call.query.number("tail", 0, TAIL_MAX)?;
    let after = call.query.text("after")?;
    let cursor = "the cursor of an earlier page";
    if after.is_some_and(|after| after.is_empty() || after.len() > CURSOR_BYTES_MAX) {
        return Err(Problem::parameter("after", "is no cursor", cursor));
    }
    call.check_logs(&app).await?;
    // A workload that is not there must be told from one that printed nothing.
    crate::status::read(&app, &call).await?;
    let query = LogQuery {
        tail: tail.unwrap_or(TAIL_DEFAULT),
        after: after.map(str::to_owned),
    };
    let page = call
        .exchange
        .upstream(app.logs.read(&call.id, &query))
        .await;
    let page = page.map_err(|error| match error {
        PortError::Refused(why) if after.is_some() => Problem::parameter("after", why, cursor),
        PortError::Refused(_)
        | PortError::NotFound
        | PortError::NoSuchVersion { .. }
        | PortError::Conflict
        | PortError::Unreachable(_)
        | PortError::Timeout(_)
        | PortError::Busy { .. }
        | PortError::StorageFull(_)
        | PortError::Internal(_) => Problem::port(&error, Doing::Read("logs"), Some(&call.id)),
    })?;
    let items: Vec<LogItem> = page
        .lines
        .into_iter()
        .map(|line| LogItem {
            replica: line.replica.to_string(),
            text: line.text,
        })
        .collect();
    let answer = LogsAnswer {
        status: Succeeded::Success,
        message: counted(items.len(), "line"),
        items,
        cursor: page.cursor,
        timestamp: Time::in_millis(app.clock.now()),
    };
    Ok(json(StatusCode::OK, &answer))
}
