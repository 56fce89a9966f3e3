//! One method for each operation of the API.

use http::Method;
use nagi_api::{
    HealthAnswer, HistoryAnswer, ListAnswer, LogsAnswer, PoolsAnswer, ReadyAnswer, ScaleAnswer,
    ScaleToZeroRequest, ScaleUpRequest, ScheduleAnswer, ScheduledListAnswer, StatusAnswer,
    WakeAnswer, WakeRequest, routes,
};
use nagi_core::id::{Name, Namespace, Resource, WorkloadId};
use nagi_core::status::Status;
use serde::Serialize;

use crate::error::ClientError;
use crate::exchange::{Answer, Call, Client, EventStream};
use crate::query::Query;

/// Whether an order is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    /// Carry it out.
    No,
    /// Judge it by the same rules and answer the same, but write nothing (R13).
    Yes,
}

/// Which workloads are wanted (R18).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListFilter {
    /// Only of this kind.
    pub resource: Option<Resource>,
    /// Only of this namespace.
    pub namespace: Option<Namespace>,
    /// Only in this status.
    pub status: Option<Status>,
    /// Only with this label: `key=value` or `key`.
    pub label: Option<String>,
    /// At most this many on a page, 1 to 500.
    pub limit: Option<usize>,
    /// The next page: `continue` of the answer before.
    pub after: Option<String>,
}

/// Which changes are wanted (R20).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryFilter {
    /// Only of this namespace.
    pub namespace: Option<Namespace>,
    /// Only of workloads of this name.
    pub name: Option<Name>,
    /// Not older than this: RFC 3339.
    pub since: Option<String>,
    /// At most this many on a page, 1 to 500.
    pub limit: Option<usize>,
    /// The next page: `continue` of the answer before.
    pub after: Option<String>,
}

/// Where to begin to read the output of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogsFrom {
    /// The last so many lines of each replica.
    Tail(usize),
    /// What came after an earlier answer: its `cursor`.
    After(String),
}

impl Client {
    /// Does the server live?
    pub async fn health(&self) -> Result<Answer<HealthAnswer>, ClientError> {
        self.call(get(routes::HEALTH)).await
    }

    /// Can it reach its engine? A server that cannot is an answer, not an error.
    pub async fn ready(&self) -> Result<Answer<ReadyAnswer>, ClientError> {
        self.call_ready(get(routes::READY)).await
    }

    /// A page of workloads.
    pub async fn list(&self, filter: &ListFilter) -> Result<Answer<ListAnswer>, ClientError> {
        let path = filter
            .resource
            .as_ref()
            .map_or_else(|| routes::WORKLOADS.to_owned(), routes::of_resource);
        let query = Query::default()
            .with_some(
                "namespace",
                filter.namespace.as_ref().map(Namespace::as_str),
            )
            .with_some("status", filter.status.map(Status::as_str))
            .with_some("label", filter.label.as_deref())
            .with_some("limit", filter.limit.map(|n| n.to_string()).as_deref())
            .with_some("continue", filter.after.as_deref());
        self.call(get(&query.on(&path))).await
    }

    /// A page of pending one-off wakes. Status and label of the filter do not apply.
    pub async fn scheduled(
        &self,
        filter: &ListFilter,
    ) -> Result<Answer<ScheduledListAnswer>, ClientError> {
        let query = Query::default()
            .with_some(
                "namespace",
                filter.namespace.as_ref().map(Namespace::as_str),
            )
            .with_some("limit", filter.limit.map(|n| n.to_string()).as_deref())
            .with_some("continue", filter.after.as_deref());
        self.call(get(&query.on(routes::SCHEDULED_SCALE_UPS))).await
    }

    /// Where a workload stands. `at_least` is the `resource_version` of a write that the answer must not be older than.
    pub async fn status(
        &self,
        id: &WorkloadId,
        at_least: Option<&str>,
    ) -> Result<Answer<StatusAnswer>, ClientError> {
        let query = Query::default().with_some("min_resource_version", at_least);
        self.call(get(&query.on(&routes::of_workload(routes::STATUS, id))))
            .await
    }

    /// Puts it to sleep, and perhaps sets when it wakes by itself.
    pub async fn scale_to_zero(
        &self,
        id: &WorkloadId,
        request: &ScaleToZeroRequest,
        dry_run: DryRun,
    ) -> Result<Answer<ScaleAnswer>, ClientError> {
        self.order(routes::SCALE_TO_ZERO, id, request, dry_run)
            .await
    }

    /// Gives it exactly this many replicas.
    pub async fn scale_up(
        &self,
        id: &WorkloadId,
        request: &ScaleUpRequest,
        dry_run: DryRun,
    ) -> Result<Answer<ScaleAnswer>, ClientError> {
        self.order(routes::SCALE_UP, id, request, dry_run).await
    }

    /// Wakes it; does nothing to a workload that is awake.
    pub async fn wake(
        &self,
        id: &WorkloadId,
        request: &WakeRequest,
        dry_run: DryRun,
    ) -> Result<Answer<WakeAnswer>, ClientError> {
        self.order(routes::WAKE, id, request, dry_run).await
    }

    /// Forgets its pending one-off wake.
    pub async fn cancel_schedule(
        &self,
        id: &WorkloadId,
        dry_run: DryRun,
    ) -> Result<Answer<ScheduleAnswer>, ClientError> {
        let path = dry_run
            .query()
            .on(&routes::of_workload(routes::SCHEDULED_SCALE_UP, id));
        self.call(Call {
            method: Method::DELETE,
            path,
            json: None,
        })
        .await
    }

    /// A page of past changes, newest first.
    pub async fn history(
        &self,
        filter: &HistoryFilter,
    ) -> Result<Answer<HistoryAnswer>, ClientError> {
        let query = Query::default()
            .with_some(
                "namespace",
                filter.namespace.as_ref().map(Namespace::as_str),
            )
            .with_some("name", filter.name.as_ref().map(Name::as_str))
            .with_some("since", filter.since.as_deref())
            .with_some("limit", filter.limit.map(|n| n.to_string()).as_deref())
            .with_some("continue", filter.after.as_deref());
        self.call(get(&query.on(routes::HISTORY))).await
    }

    /// The pools of nodes.
    pub async fn pools(&self) -> Result<Answer<PoolsAnswer>, ClientError> {
        self.call(get(routes::POOLS)).await
    }

    /// What the replicas of a workload printed.
    pub async fn logs(
        &self,
        id: &WorkloadId,
        from: &LogsFrom,
    ) -> Result<Answer<LogsAnswer>, ClientError> {
        let query = match from {
            LogsFrom::Tail(lines) => Query::default().with("tail", &lines.to_string()),
            LogsFrom::After(cursor) => Query::default().with("after", cursor),
        };
        self.call(get(&query.on(&routes::of_workload(routes::LOGS, id))))
            .await
    }

    /// The OpenAPI document of the server.
    pub async fn openapi(&self) -> Result<Answer<serde_json::Value>, ClientError> {
        self.call(get(routes::OPENAPI)).await
    }

    /// The event stream, after an earlier event or from now on.
    pub async fn events(&self, after: Option<String>) -> Result<EventStream, ClientError> {
        self.open_events(routes::EVENTS.to_owned(), after).await
    }

    async fn order<B: Serialize, T: serde::de::DeserializeOwned>(
        &self,
        template: &str,
        id: &WorkloadId,
        body: &B,
        dry_run: DryRun,
    ) -> Result<Answer<T>, ClientError> {
        let path = dry_run.query().on(&routes::of_workload(template, id));
        // Request bodies are plain structs of strings and numbers, which always have a JSON form.
        let json = serde_json::to_vec(body).unwrap_or_default();
        self.call(Call {
            method: Method::POST,
            path,
            json: Some(json),
        })
        .await
    }
}

impl DryRun {
    fn query(self) -> Query {
        match self {
            Self::No => Query::default(),
            Self::Yes => Query::default().with("dry_run", "true"),
        }
    }
}

fn get(path: &str) -> Call {
    Call {
        method: Method::GET,
        path: path.to_owned(),
        json: None,
    }
}
