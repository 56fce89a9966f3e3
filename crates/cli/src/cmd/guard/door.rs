//! `/metrics`, `/health` and `/ready` of the guard. Both of the latter say whether it still looks.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use nagi_ports::Clock;
use nagi_telemetry::{CONTENT_TYPE, Metrics};
use serde_json::json;
use tokio::sync::watch;

/// A loop that has not looked for so long is stuck itself, or there is no disk any more: no disk that hangs holds it up.
const LATE: Duration = Duration::from_secs(30);

/// When the guard looked last.
#[derive(Debug, Clone)]
pub(super) struct Health {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    /// On the clock that never goes back.
    pub(super) looked_at: watch::Receiver<Duration>,
    pub(super) every: Duration,
}

/// The routes.
pub(super) fn routes(health: Health) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(self::health))
        .route("/ready", get(self::health))
        .with_state(health)
}

async fn metrics(State(health): State<Health>) -> Response {
    match health.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn health(State(health): State<Health>) -> Response {
    let looked_at = *health.looked_at.borrow();
    let late = health.clock.monotonic().saturating_sub(looked_at);
    let is_well = late <= LATE + health.every * 2;
    let (code, status) = if is_well {
        (StatusCode::OK, "healthy")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "disks cannot be looked at")
    };
    let body = json!({
        "status": status,
        "time": format!("{:.3}", health.clock.now()),
        "looked_seconds_ago": late.as_secs(),
    });
    (code, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use nagi_telemetry::{LevelFilter, Log, Sink};
    use nagi_testkit::TestClock;
    use tower::ServiceExt as _;

    // Kubelet restarts a guard that hangs, and leaves one alone that looks.
    #[tokio::test(start_paused = true)]
    async fn a_guard_that_looks_no_more_is_not_healthy() {
        let log = Log::start(
            LevelFilter::default(),
            Sink::Writer(Box::new(std::io::sink())),
        )
        .unwrap();
        let (looked, looked_at) = watch::channel(Duration::ZERO);
        let clock = TestClock::start();
        let app = routes(Health {
            clock: clock.clone(),
            metrics: Metrics::new("0", log.lines_dropped()),
            looked_at,
            every: Duration::from_secs(2),
        });
        let ask = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            app.clone()
                .oneshot(request)
                .await
                .unwrap()
                .status()
                .as_u16()
        };
        assert_eq!((ask("/health").await, ask("/metrics").await), (200, 200));
        tokio::time::advance(Duration::from_secs(35)).await;
        assert_eq!((ask("/health").await, ask("/ready").await), (503, 503));
        looked.send_replace(clock.monotonic());
        assert_eq!(ask("/health").await, 200);
        assert_eq!(ask("/elsewhere").await, 404);
    }
}
