//! The paths of the API, each defined once, and how a caller fills them in.

use nagi_core::id::{Resource, WorkloadId};

/// Liveness.
pub const HEALTH: &str = "/health";
/// Readiness.
pub const READY: &str = "/ready";
/// The OpenAPI document.
pub const OPENAPI: &str = "/openapi.json";
/// The readable page of the API.
pub const DOCS: &str = "/docs";
/// Prometheus metrics, on their own listener.
pub const METRICS: &str = "/metrics";
/// A CPU profile of the process.
pub const PROFILE: &str = "/debug/pprof/profile";
/// Its tasks and threads.
pub const GOROUTINE: &str = "/debug/pprof/goroutine";
/// All workloads of one kind.
pub const RESOURCE: &str = "/api/v1/{resource}";
/// All workloads of all kinds.
pub const WORKLOADS: &str = "/api/v1/workloads";
/// Pending one-off wakes.
pub const SCHEDULED_SCALE_UPS: &str = "/api/v1/scheduled-scale-ups";
/// Pools of nodes.
pub const POOLS: &str = "/api/v1/pools";
/// Server-sent events.
pub const EVENTS: &str = "/api/v1/events";
/// Past changes.
pub const HISTORY: &str = "/api/v1/history";
/// Sleep.
pub const SCALE_TO_ZERO: &str = "/api/v1/{resource}/{namespace}/{name}/scale-to-zero";
/// Set the number of replicas.
pub const SCALE_UP: &str = "/api/v1/{resource}/{namespace}/{name}/scale-up";
/// Where a workload stands.
pub const STATUS: &str = "/api/v1/{resource}/{namespace}/{name}/status";
/// Wake to the remembered number of replicas.
pub const WAKE: &str = "/api/v1/{resource}/{namespace}/{name}/wake";
/// The pending one-off wake of one workload.
pub const SCHEDULED_SCALE_UP: &str = "/api/v1/{resource}/{namespace}/{name}/scheduled-scale-up";
/// What its replicas printed.
pub const LOGS: &str = "/api/v1/{resource}/{namespace}/{name}/logs";

/// Every template.
pub const ALL: [&str; 19] = [
    HEALTH,
    READY,
    OPENAPI,
    DOCS,
    METRICS,
    PROFILE,
    GOROUTINE,
    RESOURCE,
    WORKLOADS,
    SCHEDULED_SCALE_UPS,
    POOLS,
    EVENTS,
    HISTORY,
    SCALE_TO_ZERO,
    SCALE_UP,
    STATUS,
    WAKE,
    SCHEDULED_SCALE_UP,
    LOGS,
];

/// Header with the id of a request, in both directions.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// The path of a template that names one workload.
pub fn of_workload(template: &str, id: &WorkloadId) -> String {
    template
        .replace("{resource}", id.resource.as_str())
        .replace("{namespace}", id.namespace.as_str())
        .replace("{name}", id.name.as_str())
}

/// The path of the list of one kind.
pub fn of_resource(resource: &Resource) -> String {
    RESOURCE.replace("{resource}", resource.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nagi_core::id::{Name, Namespace};

    //
    #[test]
    fn paths_are_those_of_the_founding_documents() {
        let id = WorkloadId::deployment(
            Namespace::new("project-a").unwrap(),
            Name::new("sample-app-a").unwrap(),
        );
        let path = |template| of_workload(template, &id);
        assert_eq!(
            path(SCALE_TO_ZERO),
            "/api/v1/deployments/project-a/sample-app-a/scale-to-zero"
        );
        assert_eq!(
            path(SCALE_UP),
            "/api/v1/deployments/project-a/sample-app-a/scale-up"
        );
        assert_eq!(
            path(STATUS),
            "/api/v1/deployments/project-a/sample-app-a/status"
        );
        assert_eq!(of_resource(&Resource::deployments()), "/api/v1/deployments");
    }
}
