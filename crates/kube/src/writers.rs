//! Who set a count, from `managedFields`: read on demand, since they are larger than everything else of an object.
//!
//! They do not always tell. Who writes a zero through `scale`, as `kubectl scale` and autoscalers do, leaves a count that belongs to
//! nobody, and who raises it through `scale` from there is not noted. A gateway says what it did in an Event as well.

use std::time::Duration;

use jiff::Timestamp;
use nagi_core::intent::CountWriter;
use nagi_core::workload::Workload;
use serde::Deserialize;
use serde_json::Value;

use crate::engine::Shared;
use crate::journal::events_of;
use crate::kind::{Counts, Kind};
use crate::names::{FIELD_MANAGER_GATEWAY, REPORTER};
use crate::record::WAKING;
use crate::reflect::encoded;

/// Pauses between looks for the Event of a gateway: it is written beside the wake, and may come a moment later.
const EVENT_LOOKS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(300),
    Duration::from_millis(700),
];
/// Clocks of two processes differ by less.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Managed {
    metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    managed_fields: Vec<Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Entry {
    manager: String,
    time: String,
    fields_v1: Value,
}

/// The manager that set the count last.
pub(crate) fn count_writer(
    kind: &Kind,
    body: &[u8],
) -> Result<Option<CountWriter>, serde_json::Error> {
    let object: Managed = serde_json::from_slice(body)?;
    let pointer = match &kind.counts {
        Counts::BuiltIn => "/spec/replicas",
        Counts::Paths { wanted, .. } => wanted,
    };
    let owns = |entry: &&Entry| {
        let mut parts = pointer.split('/').skip(1);
        parts
            .try_fold(&entry.fields_v1, |fields, part| {
                fields.get(format!("f:{part}"))
            })
            .is_some()
    };
    let entries = object.metadata.managed_fields.iter();
    // Several may own a field that they agree on; times are RFC 3339 in UTC and compare as text.
    let last = entries.filter(owns).max_by(|a, b| a.time.cmp(&b.time));
    Ok(last.map(|entry| {
        if entry.manager == FIELD_MANAGER_GATEWAY {
            CountWriter::Gateway
        } else {
            CountWriter::Other(entry.manager.clone())
        }
    }))
}

/// An Event of ours about a workload.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Told {
    reporting_controller: String,
    event_time: Option<Timestamp>,
    series: Option<Series>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Series {
    last_observed_time: Option<Timestamp>,
}

impl Told {
    fn last_time(&self) -> Option<Timestamp> {
        let series = self.series.as_ref();
        let repeated = series.and_then(|series| series.last_observed_time);
        repeated.or(self.event_time)
    }
}

impl Shared {
    /// Whether a gateway says in an Event that it woke this workload, after all that is recorded of it. Where Events cannot be read
    /// nobody tells.
    pub(crate) async fn told_waking(&self, workload: &Workload) -> bool {
        let recorded = workload.intent.changes.last().map(|change| change.time);
        let collection = events_of(&workload.id.namespace);
        let selector = format!("regarding.uid={},reason={WAKING}", workload.uid.as_str());
        let selector = format!("&fieldSelector={}", encoded(&selector));
        for pause in EVENT_LOOKS {
            tokio::time::sleep(pause).await;
            let told: Vec<Told> = match self.list_live(&collection, &selector).await {
                Ok(told) => told,
                Err(error) => {
                    tracing::debug!(namespace = %workload.id.namespace, error = %error, "Events cannot be read");
                    return false;
                }
            };
            // Somebody else may use the same word.
            let mut ours = told
                .iter()
                .filter(|told| told.reporting_controller == REPORTER);
            let is_later = |told: &Told| match (told.last_time(), recorded) {
                (Some(time), Some(recorded)) => time + CLOCKS_DIFFER > recorded,
                (time, None) => time.is_some(),
                (None, Some(_)) => false,
            };
            if ours.any(is_later) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_owner_of_the_count_is_named() {
        let [kind, ..] = Kind::built_in();
        let entry = |manager: &str, time: &str, fields: Value| json!({ "manager": manager, "time": time, "fieldsV1": fields });
        let replicas = json!({ "f:spec": { "f:replicas": {} } });
        let named = |entries: Value| {
            let body = json!({ "metadata": { "managedFields": entries } }).to_string();
            count_writer(&kind, body.as_bytes()).unwrap()
        };
        assert_eq!(named(json!([])), None);
        let other = json!({ "f:spec": { "f:paused": {} } });
        assert_eq!(
            named(json!([
                entry("apply", "2029-01-01T00:00:00Z", replicas.clone()),
                entry("kubectl-scale", "2030-01-01T00:00:00Z", replicas.clone()),
                entry("later", "2031-01-01T00:00:00Z", other),
            ])),
            Some(CountWriter::Other("kubectl-scale".into()))
        );
        assert_eq!(
            named(json!([entry(
                "nagi-gateway",
                "2030-01-01T00:00:00Z",
                replicas
            )])),
            Some(CountWriter::Gateway)
        );
    }
}
