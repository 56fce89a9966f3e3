//! What the pods of a workload printed, through the API server.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use nagi_core::id::{Namespace, ReplicaName, WorkloadId};
use nagi_ports::{LogLine, LogPage, LogQuery, Logs, PortError};
use serde::Deserialize;

use crate::api::{ApiError, Call};
use crate::engine::{KubeEngine, LIVE, Shared};
use crate::reflect::encoded;

/// A page is at most this long, over all pods (the port promises 1 MiB).
const PAGE_BYTES: usize = 1024 * 1024;
/// Pods that are asked for one page.
const PODS_MAX: usize = 20;
/// The annotation of a pod that names the container which kubectl shows.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

#[async_trait]
impl Logs for KubeEngine {
    async fn read(&self, id: &WorkloadId, query: &LogQuery) -> Result<LogPage, PortError> {
        let shared = &self.shared;
        let after = query.after.as_deref().map(|text| {
            text.parse::<Timestamp>()
                .map_err(|_| PortError::Refused("is no cursor of this engine".to_owned()))
        });
        let after = after.transpose()?;
        let pods = shared.store.pods(id);
        let mut newest = after;
        let mut lines = Vec::new();
        // One that has not started yet has printed nothing.
        let pods: Vec<_> = pods
            .into_iter()
            .filter(|pod| pod.node.is_some())
            .take(PODS_MAX)
            .collect();
        let which = match after {
            // Whole seconds: what came twice is dropped below.
            Some(after) => format!("sinceTime={}", encoded(&seconds(after))),
            None => format!("tailLines={}", query.tail),
        };
        let share = PAGE_BYTES / pods.len().max(1);
        for pod in pods {
            let name = &pod.replica.name;
            for body in shared.printed(&id.namespace, name, &which, share).await? {
                take(&body, name, after, &mut newest, &mut lines);
            }
        }
        let cursor = newest.unwrap_or_else(|| shared.clock.now());
        Ok(LogPage {
            lines,
            cursor: cursor.to_string(),
        })
    }
}

impl Shared {
    /// What the containers of a pod printed, `share` bytes at most: the one that people see by default, else each.
    async fn printed(
        &self,
        namespace: &Namespace,
        pod: &ReplicaName,
        which: &str,
        share: usize,
    ) -> Result<Vec<Bytes>, PortError> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?timestamps=true&{which}");
        let whole = format!("{path}&limitBytes={share}");
        match self.api.call(&Call::get(whole), LIVE).await {
            Ok(body) => return Ok(vec![body]),
            Err(error) if has_printed_nothing(&error) => return Ok(Vec::new()),
            // It has several.
            Err(ApiError::Status { code: 400, .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bodies = Vec::new();
        let containers = self.containers(namespace, pod).await?;
        let share = share / containers.len().max(1);
        for container in containers {
            let name = encoded(&container);
            let call = Call::get(format!("{path}&limitBytes={share}&container={name}"));
            match self.api.call(&call, LIVE).await {
                Ok(body) => bodies.push(body),
                Err(error) if has_printed_nothing(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(bodies)
    }

    /// The names of the containers of a pod whose logs are meant; none when it is gone.
    async fn containers(
        &self,
        namespace: &Namespace,
        pod: &ReplicaName,
    ) -> Result<Vec<String>, PortError> {
        let selector = encoded(&format!("metadata.name={pod}"));
        let collection = format!("/api/v1/namespaces/{namespace}/pods");
        let query = format!("&fieldSelector={selector}");
        let pods: Vec<Manned> = self.list_live(&collection, &query).await?;
        Ok(pods.into_iter().flat_map(Manned::meant).collect())
    }
}

/// A pod, as far as its containers are named.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Manned {
    metadata: MannedMeta,
    spec: MannedSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MannedMeta {
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MannedSpec {
    containers: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

impl Manned {
    fn meant(mut self) -> Vec<String> {
        match self.metadata.annotations.remove(DEFAULT_CONTAINER) {
            Some(name) => vec![name],
            None => self
                .spec
                .containers
                .into_iter()
                .map(|one| one.name)
                .collect(),
        }
    }
}

/// Its container is not there yet, or the pod is gone.
fn has_printed_nothing(error: &ApiError) -> bool {
    match error {
        ApiError::Status { code, message, .. } => {
            *code == 404 || (*code == 400 && message.contains("is waiting to start"))
        }
        ApiError::Unreachable(_) | ApiError::Timeout(_) | ApiError::Broken(_) => false,
    }
}

/// Takes the lines of one pod that are later than `after`.
fn take(
    body: &[u8],
    replica: &ReplicaName,
    after: Option<Timestamp>,
    newest: &mut Option<Timestamp>,
    lines: &mut Vec<LogLine>,
) {
    let text = String::from_utf8_lossy(body);
    for line in text.lines() {
        let (stamp, words) = line.split_once(' ').unwrap_or((line, ""));
        let Ok(at) = stamp.parse::<Timestamp>() else {
            // The end of a line that was cut at the limit.
            continue;
        };
        if after.is_some_and(|after| at <= after) {
            continue;
        }
        *newest = Some(newest.map_or(at, |newest| newest.max(at)));
        lines.push(LogLine {
            replica: replica.clone(),
            text: words.to_owned(),
        });
    }
}

fn seconds(instant: Timestamp) -> String {
    instant.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
