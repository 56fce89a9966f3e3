//! The OpenAPI document, generated from the handlers.
//!
//! Each handler describes itself with `utoipa::path`; this file holds what they share: parameters, error answers,
//! the security scheme.

use std::collections::BTreeMap;

use nagi_api::{ErrorBody, routes};
use nagi_core::quantity::Replicas;
use serde::Deserialize;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{Array, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Required, Schema};
use utoipa::{IntoParams, IntoResponses, Modify};

/// Names of a workload in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes parameters, is never made")]
pub(crate) struct WorkloadPath {
    /// Plural of the kind: `deployments`, `statefulsets`, `replicasets`, `replicationcontrollers`, or `plural.group`.
    #[param(
        example = "deployments",
        max_length = 253,
        pattern = r"^(deployments|statefulsets|replicasets|replicationcontrollers|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+)$"
    )]
    resource: String,
    /// Namespace: a DNS label.
    #[param(
        example = "project-a",
        max_length = 63,
        pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
    )]
    namespace: String,
    /// Name: a DNS subdomain.
    #[param(
        example = "sample-app-a",
        max_length = 253,
        pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
    )]
    name: String,
}

/// A kind in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes parameters, is never made")]
pub(crate) struct ResourcePath {
    /// Plural of the kind: `deployments`, `statefulsets`, `replicasets`, `replicationcontrollers`, or `plural.group`.
    #[param(
        example = "deployments",
        max_length = 253,
        pattern = r"^(deployments|statefulsets|replicasets|replicationcontrollers|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+)$"
    )]
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
    #[param(pattern = r"^1\.[0-9]+\.[0-9a-f]{16}\.([0-9a-f]{2})+$")]
    r#continue: Option<String>,
}

/// Only one namespace.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters, is never made")]
pub(crate) struct NamespaceFilter {
    /// Only of this namespace.
    #[param(max_length = 63, pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    namespace: Option<String>,
}

/// Filters of a list of workloads.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters, is never made")]
pub(crate) struct WorkloadFilters {
    /// Only of this namespace.
    #[param(max_length = 63, pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    namespace: Option<String>,
    /// Only with this status.
    #[param(pattern = "^(active|inactive|scaling|unknown)$")]
    status: Option<String>,
    /// Only with this label: `KEY` or `KEY=VALUE`, as Kubernetes has labels; may stand more than once, all must hold.
    #[param(schema_with = labels)]
    label: Option<Vec<String>>,
}

/// Filters of the history.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters, is never made")]
pub(crate) struct HistoryFilters {
    /// Only of this namespace.
    #[param(max_length = 63, pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    namespace: Option<String>,
    /// Only of workloads of this name.
    #[param(
        max_length = 253,
        pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
    )]
    name: Option<String>,
    /// Not older than this: RFC 3339 with a zone.
    #[param(format = DateTime)]
    since: Option<String>,
}

/// Which lines are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters, is never made")]
pub(crate) struct LogsQuery {
    /// The last so many lines of each replica; ignored when `after` is given.
    #[param(minimum = 0, maximum = 10000, default = 100)]
    tail: Option<u32>,
    /// Everything since this: the `cursor` of an earlier page.
    #[param(min_length = 1)]
    after: Option<String>,
}

/// How long a profile takes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters, is never made")]
pub(crate) struct ProfileQuery {
    /// Seconds to sample.
    #[param(minimum = 1, maximum = 60, default = 30)]
    seconds: Option<u32>,
}

/// How detailed a dump is.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters, is never made")]
pub(crate) struct DumpQuery {
    /// As Go has it; every level is the same text here.
    #[param(minimum = 0, maximum = 2)]
    debug: Option<u32>,
}

/// The whole API.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Nagi Scale API",
        description = "Puts idle workloads to sleep and wakes them: by call, by schedule, or by the first request.",
        license(name = "MIT", identifier = "MIT")
    ),
    paths(
        crate::health::health,
        crate::health::ready,
        crate::scale::to_zero,
        crate::scale::up,
        crate::wake::post,
        crate::status::status,
        crate::logs::logs,
        crate::lists::workloads,
        crate::lists::resource,
        crate::lists::scheduled,
        crate::schedule::cancel,
        crate::pools::pools,
        crate::history::history,
        crate::events::events,
        crate::docs::openapi,
        crate::docs::docs,
        crate::debug::cpu,
        crate::debug::threads,
    ),
    components(schemas(ErrorBody)),
    security(("key" = [])),
    modifiers(&KeyScheme, &WakeBody),
)]
struct Document;

/// The bearer key.
struct KeyScheme;

impl Modify for KeyScheme {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A key of this API, or on Kubernetes, where it is switched on, a token of the cluster for the audience \
                     scale-api; needed when any is configured"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// The body of a wake, which may be left out (R14) but must not be `null`.
struct WakeBody;

impl Modify for WakeBody {
    fn modify(&self, document: &mut OpenApi) {
        let wake = document.paths.paths.get_mut(routes::WAKE);
        let body = wake.and_then(|path| path.post.as_mut()?.request_body.as_mut());
        if let Some(RefOr::T(body)) = body {
            body.required = Some(Required::False);
        }
    }
}

/// Label filters, as `lists::labels` reads them.
fn labels() -> Array {
    let part = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";
    let name = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?";
    let label = format!(r"({part}(\.{part})*/)?{name}(=({name})?)?");
    Array::new(
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(format!("^{label}(,{label})*$"))),
    )
}

/// Whether callers need a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyNeeded {
    /// They do.
    Yes,
    /// They do not: none is configured.
    No,
}

/// The document, generated anew, with the ceiling for replica counts and the need of a key that are in force.
pub(crate) fn document(ceiling: Replicas, needed: KeyNeeded) -> OpenApi {
    let mut document = <Document as utoipa::OpenApi>::openapi();
    if needed == KeyNeeded::No {
        // An empty requirement beside the key: either will do.
        let either = document.security.get_or_insert_default();
        either.push(SecurityRequirement::default());
    }
    let schemas = document
        .components
        .iter_mut()
        .flat_map(|all| &mut all.schemas);
    for (_, schema) in schemas.filter(|(name, _)| name.ends_with("Request")) {
        if let RefOr::T(Schema::Object(body)) = schema
            && let Some(RefOr::T(Schema::Object(replicas))) = body.properties.get_mut("replicas")
        {
            replicas.maximum = Some(utoipa::Number::UInt(
                usize::try_from(ceiling.0).unwrap_or(usize::MAX),
            ));
        }
    }
    document
}

/// Answers of a write that failed.
pub(crate) struct WriteErrors;
/// Answers of a read of one workload that failed.
pub(crate) struct ReadErrors;
/// Answers of a list that failed.
pub(crate) struct ListErrors;
/// Answers of a read without a place to go on that failed.
pub(crate) struct PlainErrors;

type Responses = BTreeMap<String, RefOr<Response>>;

impl IntoResponses for WriteErrors {
    fn responses() -> Responses {
        errors(&[400, 401, 403, 404, 408, 413, 429, 500, 503])
    }
}

impl IntoResponses for ReadErrors {
    fn responses() -> Responses {
        errors(&[400, 401, 403, 404, 429, 500, 503])
    }
}

impl IntoResponses for ListErrors {
    fn responses() -> Responses {
        errors(&[400, 401, 403, 404, 410, 429, 500, 503])
    }
}

impl IntoResponses for PlainErrors {
    fn responses() -> Responses {
        errors(&[400, 401, 403, 429, 500, 503])
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
        401 => "A key or a token is needed, or the one sent does not count",
        403 => "The key or the user may not do this, or the namespace is protected",
        404 => "There is no such thing",
        408 => "The body came too slowly",
        410 => "The continue token is too old",
        413 => "The body is too large",
        429 => "Too many writes, or too many unknown tokens; `Retry-After` says when to come back",
        500 => "The engine refused, others kept changing the workload, or the server failed",
        503 => {
            "The engine cannot be reached, or its storage is full; `Retry-After` says when to come back"
        }
        _ => "It failed",
    }
}
