//! What the pods of a workload printed, through the API server.

use async_trait::async_trait;
use jiff::Timestamp;
use nagi_core::id::{ReplicaName, WorkloadId};
use nagi_ports::{LogLine, LogPage, LogQuery, Logs, PortError};

use crate::api::{ApiError, Call};
use crate::engine::{KubeEngine, LIVE};
use crate::reflect::encoded;

/// A page is at most this long, over all pods (the port promises 1 MiB).
const PAGE_BYTES: usize = 1024 * 1024;
/// Pods that are asked for one page.
const PODS_MAX: usize = 20;

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
        let share = PAGE_BYTES / pods.len().max(1);
        for pod in pods {
            let path = format!(
                "/api/v1/namespaces/{}/pods/{}/log",
                id.namespace, pod.replica.name
            );
            let which = match after {
                // Whole seconds: what came twice is dropped below.
                Some(after) => format!("sinceTime={}", encoded(&seconds(after))),
                None => format!("tailLines={}", query.tail),
            };
            let call = Call::get(format!("{path}?timestamps=true&limitBytes={share}&{which}"));
            let body = match shared.api.call(&call, LIVE).await {
                Ok(body) => body,
                // Its container is not there yet, or it is gone.
                Err(ApiError::Status {
                    code: 400 | 404, ..
                }) => continue,
                Err(error) => return Err(error.into()),
            };
            take(&body, &pod.replica.name, after, &mut newest, &mut lines);
        }
        let cursor = newest.unwrap_or_else(|| shared.clock.now());
        Ok(LogPage {
            lines,
            cursor: cursor.to_string(),
        })
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
