//! Who set a count, from `managedFields`: read on demand, since they are larger than everything else of an object.

use nagi_core::intent::CountWriter;
use serde::Deserialize;
use serde_json::Value;

use crate::kind::{Counts, Kind};
use crate::names::FIELD_MANAGER_GATEWAY;

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
