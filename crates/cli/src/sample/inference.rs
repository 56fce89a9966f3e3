//! sample-app-b: a stand-in for Triton with ResNet50 that speaks the KServe v2 protocol.
//!
//! It is slow to load, as a real model is: until then it is live but not ready. Requests are checked as Triton checks
//! them; the answer has the right shape and depends on every pixel, but it is a fixed projection (`model`), not a
//! trained network. Binary tensors, gRPC and batching across requests are deliberately not here.

mod model;
mod protocol;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use nagi_runtime::Blocking;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use model::{BATCH_MAX, CLASSES, INPUT, MODEL, Model, OUTPUT, SIDE};
use protocol::{InferRequest, ProtocolError};

/// Largest body. A full batch is 8 × 150,528 values; at 25 bytes each, more than any float needs in JSON with its comma,
/// that is 30.1 MB.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A body slower than this holds up memory for nothing.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests that are read and answered at the same time, the rest wait; body and parsed form are at most 4 × 37 MiB.
const INFERENCES_MAX: usize = 4;

#[derive(Debug)]
struct Server {
    ready_at: Instant,
    model: Model,
    slots: Semaphore,
    inferences: Blocking,
}

#[derive(Debug, Deserialize)]
struct Named {
    model: String,
    version: Option<String>,
}

/// The routes of the app; the model is loaded after `load`.
pub(super) fn router(load: Duration) -> Router {
    let server = Server {
        ready_at: Instant::now() + load,
        model: Model::load(),
        slots: Semaphore::new(INFERENCES_MAX),
        inferences: Blocking::new("inferences", INFERENCES_MAX),
    };
    let mut router = Router::new()
        .route("/v2", get(metadata))
        .route("/v2/health/live", get(StatusCode::OK))
        .route("/v2/health/ready", get(ready));
    for prefix in [
        "/v2/models/{model}",
        "/v2/models/{model}/versions/{version}",
    ] {
        router = router
            .route(prefix, get(model_metadata))
            .route(&format!("{prefix}/ready"), get(model_ready))
            .route(&format!("{prefix}/config"), get(model_config))
            .route(&format!("{prefix}/infer"), post(infer));
    }
    router
        .fallback(async || ProtocolError::new(StatusCode::NOT_FOUND, "Not Found"))
        .with_state(Arc::new(server))
}

// === impl Named ===

impl Named {
    fn check(&self) -> Result<(), ProtocolError> {
        let missing = |what: String| Err(ProtocolError::new(StatusCode::NOT_FOUND, what));
        if self.model != MODEL {
            return missing(format!(
                "Request for unknown model: '{}' is not found",
                self.model
            ));
        }
        match self.version.as_deref() {
            None | Some("1") => Ok(()),
            Some(version) => missing(format!(
                "Request for unknown model: '{MODEL}' version {version} is not found"
            )),
        }
    }
}

// === impl Server ===

impl Server {
    fn is_loaded(&self) -> bool {
        Instant::now() >= self.ready_at
    }

    /// Triton answers probes with 400 while a model is not ready.
    fn ready_status(&self) -> StatusCode {
        if self.is_loaded() {
            StatusCode::OK
        } else {
            StatusCode::BAD_REQUEST
        }
    }

    fn loaded(&self) -> Result<(), ProtocolError> {
        if self.is_loaded() {
            return Ok(());
        }
        let left = self.ready_at.saturating_duration_since(Instant::now());
        Err(ProtocolError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "model '{MODEL}' is loading, ready in {:.1} s",
                left.as_secs_f64()
            ),
        ))
    }
}

async fn metadata() -> Json<Value> {
    Json(json!({
        "name": "nagi-sample-inference",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["model_configuration"],
    }))
}

async fn ready(State(server): State<Arc<Server>>) -> StatusCode {
    server.ready_status()
}

async fn model_ready(
    State(server): State<Arc<Server>>,
    Path(named): Path<Named>,
) -> Result<StatusCode, ProtocolError> {
    named.check()?;
    Ok(server.ready_status())
}

async fn model_metadata(
    State(server): State<Arc<Server>>,
    Path(named): Path<Named>,
) -> Result<Json<Value>, ProtocolError> {
    named.check()?;
    server.loaded()?;
    Ok(Json(json!({
        "name": MODEL,
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, 3, SIDE, SIDE]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, CLASSES]}],
    })))
}

/// The configuration of the shipped `config.pbtxt` as Triton renders it.
async fn model_config(
    State(server): State<Arc<Server>>,
    Path(named): Path<Named>,
) -> Result<Json<Value>, ProtocolError> {
    named.check()?;
    server.loaded()?;
    Ok(Json(json!({
        "name": MODEL,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": BATCH_MAX,
        "input": [{"name": INPUT, "data_type": "TYPE_FP32", "format": "FORMAT_NCHW", "dims": [3, SIDE, SIDE]}],
        "output": [{"name": OUTPUT, "data_type": "TYPE_FP32", "dims": [CLASSES]}],
        "instance_group": [{"kind": "KIND_GPU", "count": 1}],
        "optimization": {"cuda": {"graphs": true}},
        "dynamic_batching": {"max_queue_delay_microseconds": 100},
    })))
}

async fn infer(
    State(server): State<Arc<Server>>,
    Path(named): Path<Named>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ProtocolError> {
    named.check()?;
    server.loaded()?;
    if headers.contains_key("inference-header-content-length") {
        return Err(ProtocolError::bad(
            "binary tensor data is not supported by this stand-in; send JSON",
        ));
    }
    // Taken before the body is read: it is the body that costs memory.
    let _slot = server.slots.acquire().await;
    let body = read(body).await?;
    // A full batch takes long enough to hold up a probe on the same thread.
    let shared = Arc::clone(&server);
    let answered = server.inferences.run(move || answer(&shared.model, &body));
    match answered.await {
        Ok(answer) => Ok(Json(answer?).into_response()),
        Err(error) => Err(ProtocolError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("inference failed: {error}"),
        )),
    }
}

fn answer(model: &Model, body: &[u8]) -> Result<Value, ProtocolError> {
    let request = InferRequest::parse(body)?;
    let batch = request.check()?;
    let logits = model.infer(batch.pixels);
    let mut answer = json!({
        "model_name": MODEL,
        "model_version": "1",
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [batch.size, CLASSES], "data": logits}],
    });
    if let (Some(id), Some(answer)) = (request.id, answer.as_object_mut()) {
        answer.insert("id".to_owned(), Value::String(id));
    }
    Ok(answer)
}

async fn read(body: Body) -> Result<Bytes, ProtocolError> {
    let read = axum::body::to_bytes(body, BODY_BYTES_MAX);
    match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(ProtocolError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("request body is broken or larger than {BODY_BYTES_MAX} bytes"),
        )),
        Err(_) => Err(ProtocolError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!(
                "request body was not complete within {} s",
                BODY_TIMEOUT.as_secs()
            ),
        )),
    }
}

#[cfg(test)]
mod tests;
