//! The history: the last changes on the objects themselves, and Events for as long as the API server keeps them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use nagi_core::id::{Name, Namespace, WorkloadId};
use nagi_core::intent::Change;
use nagi_ports::{HistoryEntry, HistoryPage, HistoryQuery, Journal, PortError};
use serde::Deserialize;

use crate::annotate;
use crate::engine::KubeEngine;
use crate::names::{REPORTER, annotation};
use crate::reflect::encoded;
use crate::wire::Annotations;

/// An entry that only the object itself knew.
const SOURCE_OBJECT: &str = "object";
/// An entry that an Event holds.
const SOURCE_EVENT: &str = "journal";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EventObject {
    metadata: EventMeta,
    regarding: Regarding,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EventMeta {
    namespace: String,
    annotations: Annotations,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Regarding {
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
}

/// What orders and identifies an entry: when, and of what.
type Key = (Timestamp, WorkloadId, u32, u32);

#[async_trait]
impl Journal for KubeEngine {
    async fn history(&self, query: &HistoryQuery) -> Result<HistoryPage, PortError> {
        let mut known: BTreeMap<Key, (Change, &'static str)> = BTreeMap::new();
        self.shared.store.each_change(|id, change| {
            known.insert(key(id, change), (change.clone(), SOURCE_OBJECT));
        });
        for (id, change) in self.events(query.namespace.as_ref()).await? {
            known.insert(key(&id, &change), (change, SOURCE_EVENT));
        }
        let reaches_back_to = known.keys().next().map(|(time, ..)| *time);
        let mut entries = numbered(known);
        entries.retain(|entry| {
            let HistoryEntry {
                workload, change, ..
            } = entry;
            query
                .namespace
                .as_ref()
                .is_none_or(|only| *only == workload.namespace)
                && query
                    .name
                    .as_ref()
                    .is_none_or(|only| *only == workload.name)
                && query.since.is_none_or(|since| change.time >= since)
                && query.before.is_none_or(|before| entry.id < before)
        });
        entries.reverse();
        let more = entries.len() > query.limit;
        entries.truncate(query.limit);
        Ok(HistoryPage {
            entries,
            more,
            reaches_back_to,
        })
    }
}

impl KubeEngine {
    /// The changes that Events hold. Whoever may not list Events has the shorter history.
    async fn events(
        &self,
        only: Option<&Namespace>,
    ) -> Result<Vec<(WorkloadId, Change)>, PortError> {
        let shared = &self.shared;
        let selector = format!(
            "&fieldSelector={}",
            encoded(&format!("reportingController={REPORTER}"))
        );
        let collections = match (only, &shared.namespaces) {
            (Some(only), _) => vec![events_of(only)],
            (None, None) => vec!["/apis/events.k8s.io/v1/events".to_owned()],
            (None, Some(all)) => all.iter().map(events_of).collect(),
        };
        let mut changes = Vec::new();
        for collection in collections {
            let events: Vec<EventObject> = match shared.list_live(&collection, &selector).await {
                Ok(events) => events,
                Err(PortError::Refused(_) | PortError::NotFound) => continue,
                Err(error) => return Err(error),
            };
            for event in events {
                let text = event.metadata.annotations.0.get(annotation::CHANGES);
                // Somebody else's words in our annotation are no history.
                let told = text
                    .and_then(|text| annotate::changes(text).ok())
                    .unwrap_or_default();
                // Whoever may write Events in one namespace says nothing of another.
                let is_at_home = event.metadata.namespace == event.regarding.namespace;
                let Some(id) = shared.regarded(&event.regarding).filter(|_| is_at_home) else {
                    continue;
                };
                changes.extend(told.into_iter().map(|change| (id.clone(), change)));
            }
        }
        Ok(changes)
    }
}

impl crate::engine::Shared {
    /// The workload that an Event is about.
    fn regarded(&self, regarding: &Regarding) -> Option<WorkloadId> {
        let watched = self.all_watched();
        let mut kinds = watched.iter().map(|watched| &watched.kind);
        let kind = kinds.find(|kind| {
            *kind.name == *regarding.kind && kind.api_version() == regarding.api_version
        })?;
        Some(WorkloadId {
            resource: kind.resource.clone(),
            namespace: Namespace::new(&*regarding.namespace).ok()?,
            name: Name::new(&*regarding.name).ok()?,
        })
    }
}

pub(crate) fn events_of(namespace: &Namespace) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events")
}

fn key(id: &WorkloadId, change: &Change) -> Key {
    (change.time, id.clone(), change.from.0, change.to.0)
}

/// Ids that grow in time and are the same whenever they are asked for: the millisecond and, within it, a count.
fn numbered(known: BTreeMap<Key, (Change, &'static str)>) -> Vec<HistoryEntry> {
    let mut last = 0;
    let entries = known
        .into_iter()
        .map(|((time, workload, ..), (change, source))| {
            let millis = u64::try_from(time.as_millisecond()).unwrap_or(0);
            last = (millis << 10).max(last + 1);
            HistoryEntry {
                id: last,
                workload,
                change,
                source,
            }
        });
    entries.collect()
}
