//! The OpenAPI document, generated from the handlers.
//!
//! Each handler describes itself with `utoipa::path`; this file holds what they share: parameters, error answers,
//! the security scheme.

use std::collections::BTreeMap;

use nagi_api::ErrorBody;
use serde::Deserialize;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{ContentBuilder, Ref, RefOr};
use utoipa::{IntoParams, IntoResponses};

/// Names of a workload in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes parameters, is never made")]
pub(crate) struct WorkloadPath {
    /// Plural of the kind: `deployments`, `statefulsets`, `replicasets`, or `plural.group`.
    #[param(example = "deployments")]
    resource: String,
    /// Namespace: a DNS label.
    #[param(example = "project-a", max_length = 63)]
    namespace: String,
    /// Name: a DNS subdomain.
    #[param(example = "sample-app-a", max_length = 253)]
    name: String,
}

/// A kind in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes parameters, is never made")]
pub(crate) struct ResourcePath {
    /// Plural of the kind: `deployments`, `statefulsets`, `replicasets`, or `plural.group`.
    #[param(example = "deployments")]
    resource: String,
}

/// Parameters of every write.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters, is never made")]
pub(crate) struct WriteQuery {
    /// `true`: judge it by all rules and answer as if it were done, but write nothing.
    #[param(inline, required = false)]
    dry_run: Option<bool>,
}

/// Freshness of a read.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters, is never made")]
pub(crate) struct VersionQuery {
    /// Read at least this version: the `resource_version` of an earlier answer.
    #[param(minimum = 0)]
    min_resource_version: Option<u64>,
}

/// Pages of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters, is never made")]
pub(crate) struct ListQuery {
    /// Items of the page at most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// `continue` of the previous page; the filters must be the same.
    r#continue: Option<String>,
}

/// Only one namespace.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters, is never made")]
pub(crate) struct NamespaceFilter {
    /// Only of this namespace.
    #[param(max_length = 63)]
    namespace: Option<String>,
}

/// Filters of a list of workloads.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters, is never made")]
pub(crate) struct WorkloadFilters {
    /// Only of this namespace.
    #[param(max_length = 63)]
    namespace: Option<String>,
    /// Only with this status: `active`, `inactive`, `scaling`, `unknown`.
    status: Option<String>,
    /// Only with this label: `KEY` or `KEY=VALUE`; may stand more than once, all must hold.
    label: Option<Vec<String>>,
}

/// Answers of a write that failed.
pub(crate) struct WriteErrors;
/// Answers of a read of one workload that failed.
pub(crate) struct ReadErrors;
/// Answers of a list that failed.
pub(crate) struct ListErrors;

type Responses = BTreeMap<String, RefOr<Response>>;

impl IntoResponses for WriteErrors {
    fn responses() -> Responses {
        errors(&[400, 401, 403, 404, 408, 413, 429, 500, 503])
    }
}

impl IntoResponses for ReadErrors {
    fn responses() -> Responses {
        errors(&[400, 401, 403, 404, 500, 503])
    }
}

impl IntoResponses for ListErrors {
    fn responses() -> Responses {
        errors(&[400, 401, 403, 404, 410, 500, 503])
    }
}

fn errors(statuses: &[u16]) -> Responses {
    statuses
        .iter()
        .map(|status| (status.to_string(), error(*status)))
        .collect()
}

fn error(status: u16) -> RefOr<Response> {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(
            <ErrorBody as utoipa::ToSchema>::name(),
        )))
        .build();
    ResponseBuilder::new()
        .description(meaning(status))
        .content("application/json", content)
        .build()
        .into()
}

const fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request breaks a rule; `field` and `limit` say which",
        401 => "A key is needed, or the one sent does not count",
        403 => "The key does not reach so far, or the namespace is protected",
        404 => "There is no such thing",
        408 => "The body came too slowly",
        410 => "The continue token is too old",
        413 => "The body is too large",
        429 => "Too many writes; `Retry-After` says when to come back",
        500 => "The engine refused, or the server failed",
        503 => "The engine cannot be reached, or its storage is full",
        _ => "It failed",
    }
}
