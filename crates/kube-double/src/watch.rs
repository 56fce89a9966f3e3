//! Watches: the changes of a collection as lines, with bookmarks, until they are cut.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::answer::Refusal;
use crate::path::Query;
use crate::resources::{GroupVersion, Resource};
use crate::server::Shared;
use crate::store::Selection;

/// Without `timeoutSeconds` the real one picks 30 to 60 minutes.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(30);

pub(crate) struct Watch {
    pub(crate) resource: Resource,
    pub(crate) group_version: GroupVersion,
    pub(crate) kind: String,
    pub(crate) selection: Selection,
    pub(crate) query: Query,
    pub(crate) lines: mpsc::Sender<Bytes>,
}

impl Watch {
    pub(crate) async fn run(
        self,
        shared: std::sync::Arc<Shared>,
        mut ticks: watch::Receiver<u64>,
        mut cuts: watch::Receiver<u64>,
    ) {
        cuts.mark_unchanged();
        let timeout = self.query.number("timeoutSeconds");
        let end = Instant::now() + timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
        let Some(mut version) = self.begin(&shared).await else {
            return;
        };
        let mut bookmarked = Instant::now();
        loop {
            ticks.mark_unchanged();
            let changes = shared
                .store()
                .changes(&self.resource, &self.selection, version);
            match changes {
                Err(refusal) => {
                    self.send("ERROR", &refusal.status()).await;
                    return;
                }
                Ok(changes) => {
                    for change in changes {
                        version = change.version;
                        if !self.send_bytes(change.kind, &change.json).await {
                            return;
                        }
                    }
                }
            }
            let next_bookmark = bookmarked + shared.bookmark_every();
            tokio::select! {
                // Cancel-safe: watch channels keep their value.
                _ = ticks.changed() => {
                    tokio::select! {
                        // Cancel-safe: a timer, and a watch channel.
                        () = tokio::time::sleep(shared.watch_lag()) => {}
                        _ = cuts.changed() => return,
                    }
                }
                _ = cuts.changed() => return,
                () = self.lines.closed() => return,
                () = tokio::time::sleep_until(end) => return,
                () = tokio::time::sleep_until(next_bookmark) => {
                    bookmarked = Instant::now();
                    version = version.max(shared.store().version());
                    if self.query.flag("allowWatchBookmarks") && !self.bookmark(version, None).await {
                        return;
                    }
                }
            }
        }
    }

    /// Sends what comes before the changes; says from which version on they follow.
    async fn begin(&self, shared: &Shared) -> Option<u64> {
        let asked = self.query.get("resourceVersion").unwrap_or_default();
        let initial = self.query.flag("sendInitialEvents");
        if !initial && !matches!(asked, "" | "0") {
            let Ok(version) = asked.parse() else {
                let refusal = Refusal::new(400, "invalid resource version");
                self.send("ERROR", &refusal.status()).await;
                return None;
            };
            return Some(version);
        }
        let page = shared
            .store()
            .list(&self.resource, &self.selection, &Query::default())
            .ok()?;
        for json in page.items {
            if !self.send_bytes("ADDED", &json).await {
                return None;
            }
        }
        let end = json!({ "k8s.io/initial-events-end": "true" });
        if initial && !self.bookmark(page.version, Some(end)).await {
            return None;
        }
        Some(page.version)
    }

    async fn bookmark(&self, version: u64, annotations: Option<Value>) -> bool {
        let mut metadata =
            json!({ "resourceVersion": version.to_string(), "creationTimestamp": null });
        if let Some(annotations) = annotations {
            metadata["annotations"] = annotations;
        }
        let object = json!({
            "kind": self.kind, "apiVersion": self.group_version.api_version(), "metadata": metadata,
        });
        self.send("BOOKMARK", &object).await
    }

    async fn send(&self, kind: &str, object: &Value) -> bool {
        self.send_bytes(kind, object.to_string().as_bytes()).await
    }

    async fn send_bytes(&self, kind: &str, json: &[u8]) -> bool {
        let mut line = Vec::with_capacity(json.len() + 40);
        line.extend_from_slice(b"{\"type\":\"");
        line.extend_from_slice(kind.as_bytes());
        line.extend_from_slice(b"\",\"object\":");
        line.extend_from_slice(json);
        line.extend_from_slice(b"}\n");
        self.lines.send(line.into()).await.is_ok()
    }
}
