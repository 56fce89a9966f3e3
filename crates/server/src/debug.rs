//! `/debug/pprof/…`: where the time goes, and what the threads do (A-051, A-052, K-12).
//!
//! Open to callers on the machine itself, which is where `kubectl exec` and `kubectl port-forward` arrive, under rights that
//! Kubernetes has checked. Everybody else needs a key of the role admin, also while the API itself asks for none.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use nagi_api::routes;
use nagi_core::access::{Holder, Role};
use nagi_telemetry::Failure;
use nagi_telemetry::profile::{self, DURATION_DEFAULT, DURATION_MAX, DURATION_MIN, ProfileError};

use crate::app::App;
use crate::call::{Proven, authenticate, denied, exchange, refuse_other_sites};
use crate::host;
use crate::problem::Problem;
use crate::query::Query;

/// Headers by which a proxy says that it speaks for somebody else, who need not be on this machine.
const FORWARDED: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

/// A caller who may look inside the process.
#[derive(Debug)]
pub(crate) struct Insider {
    query: Query,
}

impl FromRequestParts<App> for Insider {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let exchange = exchange(parts)?;
        let is_here = exchange.peer.to_canonical().is_loopback()
            && speaks_for_itself(&parts.headers)
            && host::refuse_owned_name(&parts.headers).is_ok();
        if is_here {
            // A profile costs time: a page of some other site must not take one through a browser on this machine.
            refuse_other_sites(&parts.headers)?;
        } else {
            let grant = match authenticate(app, &exchange, &parts.headers).await? {
                Proven::Grant(grant) => grant,
                // Rights in the cluster say nothing about the inside of this process.
                Proven::Visitor(_) => {
                    return Err(Problem::new(StatusCode::FORBIDDEN, "Forbidden")
                        .error("profiles are open to callers on the same machine, and to keys of the role admin")
                        .hint("call it on the machine itself, or with such a key"));
                }
            };
            if grant.holder == Holder::Anybody {
                return Err(Problem::new(StatusCode::FORBIDDEN, "Forbidden")
                    .error("profiles are open to callers on the same machine only")
                    .hint("call it on the machine itself, or configure keys and use one of the role admin"));
            }
            grant.check_role(Role::Admin).map_err(denied)?;
        }
        Ok(Self {
            query: Query::of(&parts.uri)?,
        })
    }
}

fn speaks_for_itself(headers: &HeaderMap) -> bool {
    !FORWARDED.iter().any(|name| headers.contains_key(*name))
}

/// A CPU profile of the process as pprof protobuf, for `go tool pprof` and others.
#[utoipa::path(
    get, path = routes::PROFILE, tag = "debug", operation_id = "profile",
    // From the loopback address no key is asked.
    security((), ("key" = [])),
    params(crate::openapi::ProfileQuery),
    responses(
        (status = 200, description = "A profile", content_type = "application/octet-stream", body = Vec<u8>),
        crate::openapi::PlainErrors,
    )
)]
pub(crate) async fn cpu(State(app): State<App>, caller: Insider) -> Result<Response, Problem> {
    let (least, most) = (DURATION_MIN.as_secs(), DURATION_MAX.as_secs());
    let seconds = caller.query.number("seconds", least, most)?;
    let duration = seconds.map_or(DURATION_DEFAULT, Duration::from_secs);
    let taken = tokio::select! {
        // Cancel-safe: dropping the profile stops it.
        taken = profile::cpu(duration) => taken,
        // A watch. An orderly end does not wait for a profile.
        () = app.shutdown.draining() => return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Shutting down")
            .error("the process is ending")
            .failure(Failure::ShuttingDown)),
    };
    let bytes = taken.map_err(|error| failed(&error))?;
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"profile\""),
    );
    Ok(response)
}

/// Tasks and threads of the process as text: what Go calls goroutines.
#[utoipa::path(
    get, path = routes::GOROUTINE, tag = "debug", operation_id = "goroutine",
    // From the loopback address no key is asked.
    security((), ("key" = [])),
    params(crate::openapi::DumpQuery),
    responses(
        (status = 200, description = "Tasks and threads", content_type = "text/plain", body = String),
        crate::openapi::PlainErrors,
    )
)]
pub(crate) async fn threads(caller: Insider) -> Result<Response, Problem> {
    // Every level of detail is the same text.
    caller.query.number("debug", 0, 2)?;
    let mut response = Response::new(Body::from(profile::tasks_and_threads()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Ok(response)
}

fn failed(error: &ProfileError) -> Problem {
    match error {
        ProfileError::Busy => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Profile not possible now")
                .error(error)
                .retry_after(DURATION_MIN.as_secs())
                .failure(Failure::Overloaded)
        }
        ProfileError::Duration { .. }
        | ProfileError::Start(_)
        | ProfileError::StartThread(_)
        | ProfileError::Build(_)
        | ProfileError::Encode { .. }
        | ProfileError::Lost => Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Failed to take a profile",
        )
        .error(error),
    }
}
