//! Why a request fails: one value that becomes the answer, the log line and the metric.
//!
//! Handlers return a [`Problem`]; nothing is rendered before it reaches [`exchange`](crate::exchange), which knows
//! the time and writes the log line from the same value.

use std::fmt;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use nagi_api::body::{BodyError, FieldError};
use nagi_api::problem::{Failed, NO_SUCH_PATH};
use nagi_api::{ErrorBody, Time};
use nagi_core::id::WorkloadId;
use nagi_ports::PortError;
use nagi_telemetry::Failure;

use crate::query::MIN_RESOURCE_VERSION;

/// A failed request. Boxed, because every handler returns one in place of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem(Box<Details>);

/// What is known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Details {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// What failed, in words that stay the same.
    pub(crate) message: String,
    /// Why this time.
    pub(crate) error: Option<String>,
    /// The field, parameter or path segment at fault.
    pub(crate) field: Option<String>,
    /// What it must be.
    pub(crate) limit: Option<String>,
    /// What to do next.
    pub(crate) hint: Option<String>,
    /// Seconds after which another try makes sense.
    pub(crate) retry_after_seconds: Option<u64>,
    /// What the log line says beyond the status.
    pub(crate) failure: Option<Failure>,
    /// The connection cannot carry another request.
    pub(crate) close: bool,
}

/// What was under way when a port failed: its message, as the founding documents have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// A write.
    Scale,
    /// A read of one workload.
    Status,
    /// Any other read; what it reads.
    Read(&'static str),
}

impl Problem {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            status,
            message: message.into(),
            error: None,
            field: None,
            limit: None,
            hint: None,
            retry_after_seconds: None,
            failure: None,
            close: false,
        }))
    }

    pub(crate) fn error(mut self, error: &(impl fmt::Display + ?Sized)) -> Self {
        self.0.error = Some(error.to_string());
        self
    }

    pub(crate) fn field(mut self, field: &str, limit: &str) -> Self {
        self.0.field = Some(field.to_owned());
        self.0.limit = Some(limit.to_owned());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub(crate) fn failure(mut self, failure: Failure) -> Self {
        self.0.failure = Some(failure);
        self
    }

    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_seconds = Some(seconds);
        self
    }

    pub(crate) fn closing(mut self) -> Self {
        self.0.close = true;
        self
    }

    /// No such path.
    pub(crate) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found")
            .error(NO_SUCH_PATH)
            .hint("GET /docs on the port of the API lists its paths")
    }

    /// The path has no such method; the router adds `Allow`.
    pub(crate) fn no_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
            .error("the path does not take this method")
            .hint("the Allow header names the methods that it takes")
    }

    /// A workload that is not there, in the words of the founding documents.
    pub(crate) fn no_workload(id: &WorkloadId) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("{} {id} not found", id.resource.kind()),
        )
        .error(&format!("no such workload: {} {id}", id.resource))
        .hint(format!(
            "is the namespace right? GET /api/v1/workloads lists all that the key may see, and with ?namespace={} those \
             of this one",
            id.namespace
        ))
    }

    /// A body that cannot be read as a JSON object.
    pub(crate) fn body(error: &BodyError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID_BODY)
            .error(&format!("the body cannot be read: {error}"))
            .field("body", "one JSON object in UTF-8")
    }

    /// A field that breaks its rule.
    pub(crate) fn body_field(error: &FieldError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID_BODY)
            .error(error)
            .field(&error.field, &error.limit)
    }

    /// A query parameter that breaks its rule.
    pub(crate) fn parameter(name: &str, why: impl fmt::Display, limit: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Invalid query parameter")
            .error(&format!("{name} {why}"))
            .field(name, limit)
    }

    /// A port that failed (A-020, A-150, K-08).
    pub(crate) fn port(error: &PortError, doing: Doing, id: Option<&WorkloadId>) -> Self {
        let kind = id.map_or_else(|| "Deployment".to_owned(), |id| id.resource.kind());
        let message = match doing {
            Doing::Scale => format!("Failed to scale {}", kind_in_message(&kind)),
            Doing::Status => format!("Failed to get {} status", kind_in_message(&kind)),
            Doing::Read(what) => format!("Failed to read {what}"),
        };
        let failed = |status| {
            let mut problem = Self::new(status, message).error(error);
            problem.0.failure = failure_of(error);
            problem
        };
        match error {
            PortError::NotFound => id.map_or_else(Self::no_route, Self::no_workload),
            PortError::NoSuchVersion { .. } => Self::parameter(
                MIN_RESOURCE_VERSION,
                format_args!("asks for what cannot be: {error}"),
                "the resource_version of an earlier answer about the same workload",
            ),
            // Nothing was written: a crowd was faster each time. The founding documents answer it with 500.
            PortError::Conflict => failed(StatusCode::INTERNAL_SERVER_ERROR)
                .retry_after(CONFLICT_RETRY_SECONDS)
                .hint("others keep changing it, so nothing was written: look at its history, then try again"),
            PortError::Refused(_) => failed(StatusCode::INTERNAL_SERVER_ERROR).hint(
                "the engine refuses it as it stands: look at the rights of the Scale API and at the object",
            ),
            PortError::Internal(_) => failed(StatusCode::INTERNAL_SERVER_ERROR),
            PortError::Unreachable(_) => failed(StatusCode::SERVICE_UNAVAILABLE)
                .retry_after(RETRY_SECONDS)
                .hint("GET /ready tells when the engine can be reached again"),
            PortError::Timeout(_) => failed(StatusCode::SERVICE_UNAVAILABLE)
                .retry_after(RETRY_SECONDS)
                .hint(match doing {
                    Doing::Scale => {
                        "a change may have taken effect: read the status before trying again"
                    }
                    Doing::Status | Doing::Read(_) => "nothing was changed: try again",
                }),
            PortError::Busy { retry_after } => failed(StatusCode::SERVICE_UNAVAILABLE)
                .retry_after(retry_after.map_or(RETRY_SECONDS, |after| after.as_secs().max(1)))
                .hint("the engine is loaded and nothing was changed: try again after that time"),
            PortError::StorageFull(_) => failed(StatusCode::SERVICE_UNAVAILABLE)
                .retry_after(RETRY_SECONDS)
                .hint("free space where Nagi keeps its state; it goes on by itself"),
        }
    }

    /// The body, made at this moment.
    pub(crate) fn render(&self, now: Time) -> ErrorBody {
        ErrorBody {
            status: Failed::Error,
            message: self.message.clone(),
            error: self.error.clone(),
            field: self.field.clone(),
            limit: self.limit.clone(),
            hint: self.hint.clone(),
            timestamp: now,
        }
    }
}

/// What the log line says about a port that failed.
pub(crate) const fn failure_of(error: &PortError) -> Option<Failure> {
    match error {
        PortError::Unreachable(_) => Some(Failure::UpstreamConnection),
        PortError::Timeout(_) => Some(Failure::UpstreamTimeout),
        PortError::Refused(_) => Some(Failure::UpstreamDenied),
        PortError::StorageFull(_) => Some(Failure::Storage),
        PortError::NotFound
        | PortError::NoSuchVersion { .. }
        | PortError::Conflict
        | PortError::Busy { .. }
        | PortError::Internal(_) => None,
    }
}

/// Message of every 400 about a body.
const INVALID_BODY: &str = "Invalid request body";
/// What a client should wait before it tries again while the engine is away: the pace of its own checks.
const RETRY_SECONDS: u64 = 2;
/// The same after a crowd was faster: the crowd is through in less.
const CONFLICT_RETRY_SECONDS: u64 = 1;

/// The founding documents write `Failed to scale deployment`: the kind in lower case.
fn kind_in_message(kind: &str) -> String {
    kind.to_lowercase()
}

impl std::ops::Deref for Problem {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

impl IntoResponse for Problem {
    /// An empty answer that carries the problem; the exchange renders it.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
