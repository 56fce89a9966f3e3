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
    if let Some(failure) = &failure {
        exchange.note_port_error(failure);
    }
    let engine = app.workloads.engine();
    let error = match engine {
        Engine::Kubernetes if failure.is_some() => Some(KUBERNETES_UNREACHABLE),
        Engine::Local if failure.is_some() => Some(LOCAL_UNREACHABLE),
        Engine::Kubernetes | Engine::Local => not_serving(&app),
    };
    let (kubernetes, engine) = match engine {
        Engine::Kubernetes => (Some("connected".to_owned()), None),
        Engine::Local => (None, Some("local".to_owned())),
    };
    answer(&app, error, kubernetes, engine)
}

/// The same of a gateway alone: it forwards to what runs, whether the engine answers or not, and must not lose its place behind
/// its Service because of that.
pub(crate) async fn gateway_ready(State(app): State<App>) -> Response {
    answer(&app, not_serving(&app), None, None)
}

/// Why this process takes no connections, whatever the engine does.
fn not_serving(app: &App) -> Option<&'static str> {
    let knows = app.routes.as_ref().is_none_or(|loaded| *loaded.borrow());
    if app.shutdown.is_draining() {
        Some(SHUTTING_DOWN)
    } else {
        (!knows).then_some(ROUTES_NOT_READ)
    }
}

fn answer(
    app: &App,
    error: Option<&str>,
    kubernetes: Option<String>,
    engine: Option<String>,
) -> Response {
    let (code, status) = match error {
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        None => (StatusCode::OK, "ready"),
    };
    let body = ReadyAnswer {
        status: status.to_owned(),
        kubernetes: kubernetes.filter(|_| error.is_none()),
        engine: engine.filter(|_| error.is_none()),
        error: error.map(str::to_owned),
        time: Time::in_millis(app.clock.now()),
    };
    json(code, &body)
}
