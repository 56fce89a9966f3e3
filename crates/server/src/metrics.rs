//! `/metrics`, on its own listener (A-050, R22).
//!
//! Counters are counted where things happen; what is only known by looking (workloads by status, pending wakes) is looked at
//! for each scrape. A look that fails leaves the last values, and the time at which they were seen: no data is not zero.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use jiff::Timestamp;
use nagi_core::status::Status;
use nagi_ports::{Glance, Selection};
use nagi_telemetry::CONTENT_TYPE;

use crate::app::App;
use crate::exchange::Exchange;
use crate::problem::Problem;

/// A scrape waits this long for the engine: a tenth of the usual limit of scrapers.
const LOOK_TIME: Duration = Duration::from_secs(1);

/// Everything that is counted, as Prometheus text.
pub(crate) async fn metrics(
    State(app): State<App>,
    Extension(exchange): Extension<Arc<Exchange>>,
) -> Result<Response, Problem> {
    let mut census = Census::default();
    let see = &mut |glance: &dyn Glance| {
        census.count(glance);
        ControlFlow::Continue(())
    };
    let visit = app.workloads.visit(Selection::default(), see);
    let counted = tokio::time::timeout(LOOK_TIME, exchange.upstream(visit)).await;
    match counted {
        Ok(Ok(visited)) => {
            census.show(&app);
            let since_epoch = visited.observed_at.duration_since(Timestamp::UNIX_EPOCH);
            // A clock before 1970 tells no time.
            app.metrics
                .set_workloads_observed(since_epoch.try_into().unwrap_or_default());
        }
        Ok(Err(error)) => tracing::debug!(error = %error, "Workloads could not be counted"),
        Err(_elapsed) => tracing::debug!("Workloads could not be counted in time"),
    }
    let text = app.metrics.encode().map_err(|error| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Failed to render metrics",
        )
        .error(&error)
    })?;
    let mut response = Response::new(Body::from(text));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    Ok(response)
}

/// How many workloads there are of each kind that is shown.
#[derive(Debug, Default)]
struct Census {
    by_status: BTreeMap<Status, usize>,
    scheduled: usize,
}

impl Census {
    fn count(&mut self, glance: &dyn Glance) {
        *self.by_status.entry(glance.status()).or_default() += 1;
        self.scheduled += usize::from(glance.intent().scheduled.is_some());
    }

    fn show(&self, app: &App) {
        for status in Status::ALL {
            let count = self.by_status.get(&status).copied().unwrap_or(0);
            app.metrics.set_workloads(status.as_str(), count);
        }
        app.metrics.set_scheduled_scale_ups(self.scheduled);
    }
}
