//! Bodies of requests: read within the limits of size and pace (R08, R23), parsed whatever their type says (K-07).

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use nagi_api::Json;
use nagi_api::body::is_blank;
use tokio::time::{Duration, Instant};

use crate::config::Limits;
use crate::exchange::Exchange;
use crate::problem::Problem;
use crate::serve::crowd::Phase;

/// What a body holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// Nothing, or blanks only (K-05).
    Blank,
    /// A JSON object.
    Object(Json),
}

/// Reads a whole body and parses it.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    exchange: &Exchange,
    limits: &Limits,
) -> Result<Content, Problem> {
    // While it arrives, the connection waits for its client, and may have to give way.
    exchange.pulse.begin(Phase::Body);
    let bytes = collect(headers, body, limits).await;
    exchange.pulse.begin(Phase::Busy);
    let bytes = bytes?;
    if is_blank(&bytes) {
        return Ok(Content::Blank);
    }
    Json::read(&bytes)
        .map(Content::Object)
        .map_err(|error| Problem::body(&error))
}

async fn collect(headers: &HeaderMap, mut body: Body, limits: &Limits) -> Result<Vec<u8>, Problem> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok());
    let most = u64::try_from(limits.body_bytes_max).unwrap_or(u64::MAX);
    if declared.is_some_and(|length| length > most) {
        return Err(too_large(limits));
    }
    let begun = Instant::now();
    let mut bytes = Vec::new();
    loop {
        let due = begun + time_for(bytes.len(), limits);
        let frame = tokio::time::timeout_at(due, body.frame()).await;
        let Some(frame) = frame.map_err(|_elapsed| too_slow())? else {
            return Ok(bytes);
        };
        let frame = frame.map_err(|_error| broken())?;
        // Trailers say nothing to us.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > limits.body_bytes_max {
            return Err(too_large(limits));
        }
        bytes.extend_from_slice(&data);
    }
}

/// When a body of which this much has arrived must be further: the grace, or what the least pace makes of it.
fn time_for(bytes: usize, limits: &Limits) -> Duration {
    let pace = f64::from(limits.body_bytes_per_second_min.max(1));
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let at_least_pace = Duration::from_secs_f64(f64::from(bytes) / pace);
    limits.body_grace.max(at_least_pace)
}

fn too_large(limits: &Limits) -> Problem {
    let limit = format!("at most {} bytes", limits.body_bytes_max);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "Request body too large")
        .error(&format!("the body must be {limit}"))
        .field("body", &limit)
        .closing()
}

fn too_slow() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "Request body too slow")
        .error("the body did not arrive in time")
        .closing()
}

fn broken() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "Invalid request body")
        .error("the body ended before its time, or its chunks are malformed")
        .field("body", "as long as it says")
        .closing()
}

#[cfg(test)]
mod tests {
    use super::*;

    // R23
    #[test]
    fn the_pace_counts_after_the_grace() {
        let limits = Limits::default();
        assert_eq!(time_for(0, &limits), Duration::from_secs(10));
        assert_eq!(time_for(10 * 1024, &limits), Duration::from_secs(10));
        assert_eq!(time_for(64 * 1024, &limits), Duration::from_secs(64));
    }
}
