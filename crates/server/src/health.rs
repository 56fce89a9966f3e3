//! `/health` and `/ready`, with exactly the bodies of the founding documents.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::Response;
use nagi_api::health::{KUBERNETES_UNREACHABLE, LOCAL_UNREACHABLE};
use nagi_api::{HealthAnswer, ReadyAnswer, Time, routes};
use nagi_ports::{Engine, PortError};
use nagi_runtime::Deadline;

use crate::answer::json;
use crate::app::App;
use crate::exchange::Exchange;

/// The port promises an answer within 2 s; a quarter more is for a machine under load.
const READY_TIME: Duration = Duration::from_millis(2500);

/// Why a gateway that was just started is not ready.
const ROUTES_NOT_READ: &str = "the gateway does not know its workloads yet";
/// Why a process that is ending is not ready: new connections must go elsewhere.
const SHUTTING_DOWN: &str = "shutting down";

/// The process lives. Says nothing about the engine: a restart would not mend that.
#[utoipa::path(
    get, path = routes::HEALTH, tag = "health", operation_id = "health", security(()),
    responses((status = 200, description = "The process lives", body = HealthAnswer))
)]
pub(crate) async fn health(State(app): State<App>) -> Response {
    json(
        StatusCode::OK,
        &HealthAnswer {
            status: "healthy".to_owned(),
            time: Time::in_millis(app.clock.now()),
        },
    )
}

/// The engine can be reached now (A-016, A-071, R03).
#[utoipa::path(
    get, path = routes::READY, tag = "health", operation_id = "ready", security(()),
    responses(
        (status = 200, description = "The engine can be reached", body = ReadyAnswer),
        (status = 503, description = "It cannot, or the process is ending", body = ReadyAnswer),
    )
)]
pub(crate) async fn ready(
    State(app): State<App>,
    Extension(exchange): Extension<Arc<Exchange>>,
) -> Response {
    let asked = Deadline::in_(READY_TIME)
        .timeout(exchange.upstream(app.workloads.reachable()))
        .await;
    let failure = match asked {
        Ok(answer) => answer.err(),
        Err(_passed) => Some(PortError::Timeout("the engine does not answer".to_owned())),
    };
    let draining = app.shutdown.is_draining();
    let routes = app.routes.as_ref().is_none_or(|loaded| *loaded.borrow());
    let engine = app.workloads.engine();
    let time = Time::in_millis(app.clock.now());
    if let Some(failure) = &failure {
        exchange.note_port_error(failure);
    }
    if failure.is_some() || draining || !routes {
        let error = match engine {
            Engine::Kubernetes | Engine::Local if failure.is_none() && draining => SHUTTING_DOWN,
            Engine::Kubernetes | Engine::Local if failure.is_none() => ROUTES_NOT_READ,
            Engine::Kubernetes => KUBERNETES_UNREACHABLE,
            Engine::Local => LOCAL_UNREACHABLE,
        };
        let body = ReadyAnswer {
            status: "not ready".to_owned(),
            kubernetes: None,
            engine: None,
            error: Some(error.to_owned()),
            time,
        };
        return json(StatusCode::SERVICE_UNAVAILABLE, &body);
    }
    let (kubernetes, engine) = match engine {
        Engine::Kubernetes => (Some("connected".to_owned()), None),
        Engine::Local => (None, Some("local".to_owned())),
    };
    json(
        StatusCode::OK,
        &ReadyAnswer {
            status: "ready".to_owned(),
            kubernetes,
            engine,
            error: None,
            time,
        },
    )
}
