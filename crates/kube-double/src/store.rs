//! What the double holds: objects, their versions, and the changes that watches replay.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::answer::Refusal;
use crate::path::Query;
use crate::resources::{Description, GroupVersion, Resource, Resources};

/// Changes that are kept for watches; older ones are compacted away.
const CHANGES_MAX: usize = 20_000;

/// Namespace (empty for none) and name.
pub(crate) type Key = (String, String);

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) resources: Resources,
    version: u64,
    collections: BTreeMap<Resource, Collection>,
}

/// All objects with their versions, as a backup of etcd holds them.
#[derive(Debug, Clone)]
pub struct Backup {
    version: u64,
    objects: BTreeMap<Resource, BTreeMap<Key, Stored>>,
}

#[derive(Debug, Default)]
struct Collection {
    objects: BTreeMap<Key, Stored>,
    changes: VecDeque<Change>,
    /// The newest version whose change is gone.
    compacted: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) json: Bytes,
}

#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) kind: &'static str,
    pub(crate) key: Key,
    pub(crate) json: Bytes,
}

/// Which objects a list or a watch is about.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) namespace: Option<String>,
    fields: Vec<(Vec<String>, String)>,
    labels: Vec<(String, String)>,
}

/// Who writes, and through which part of the object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    pub(crate) subresource: Option<&'a str>,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<Bytes>,
    pub(crate) version: u64,
    pub(crate) next: Option<String>,
    pub(crate) remaining: usize,
}

// === impl Store ===

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            resources: Resources::built_in(),
            // A store that starts at 1 hides mistakes with versions that are 0.
            version: 1000,
            collections: BTreeMap::new(),
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get(&self, resource: &Resource, key: &Key) -> Option<Value> {
        let stored = self.collections.get(resource)?.objects.get(key)?;
        serde_json::from_slice(&stored.json).ok()
    }

    pub(crate) fn bytes(&self, resource: &Resource, key: &Key) -> Option<Bytes> {
        let stored = self.collections.get(resource)?.objects.get(key)?;
        Some(stored.json.clone())
    }

    /// Stores an object. `precondition` is the version that it must have now, as text.
    pub(crate) fn put(
        &mut self,
        resource: &Resource,
        mut object: Value,
        writer: Writer<'_>,
    ) -> Value {
        let key = key_of(&object);
        let before = self.get(resource, &key);
        let metadata = &mut object["metadata"];
        if let Some(before) = &before {
            for kept in ["uid", "creationTimestamp", "managedFields"] {
                if metadata.get(kept).is_none() {
                    metadata[kept] = before["metadata"][kept].clone();
                }
            }
            let generation = before["metadata"]["generation"].as_u64().unwrap_or(1);
            let changed = before["spec"] != object["spec"];
            object["metadata"]["generation"] = json!(generation + u64::from(changed));
        } else {
            if metadata.get("uid").is_none() {
                let number = self.version;
                metadata["uid"] = json!(format!("00000000-0000-4000-8000-{number:012x}"));
            }
            if metadata.get("creationTimestamp").is_none() {
                metadata["creationTimestamp"] = json!(seconds(now()));
            }
            metadata["generation"] = json!(1);
        }
        if let Some((_, description)) = self.resources.of_object(&object)
            && let Some((wanted, _)) = &description.scale
        {
            note_writer(&mut object, before.as_ref(), wanted, writer);
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if resource.plural == "customresourcedefinitions" {
            self.resources.define(&object);
        }
        let kind = if before.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        self.record(resource, key, kind, &object);
        object
    }

    /// Removes an object; `None` when it was not there.
    pub(crate) fn delete(&mut self, resource: &Resource, key: &Key) -> Option<Value> {
        let mut object = self.get(resource, key)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.record(resource, key.clone(), "DELETED", &object);
        Some(object)
    }

    /// Forgets all changes up to now: watches from before must list again, and so must lists under way.
    pub(crate) fn back_up(&self) -> Backup {
        let collections = self.collections.iter();
        Backup {
            version: self.version,
            objects: collections
                .map(|(resource, collection)| (resource.clone(), collection.objects.clone()))
                .collect(),
        }
    }

    /// Versions count on from where the backup was made.
    pub(crate) fn restore(&mut self, backup: &Backup) {
        self.version = backup.version;
        self.collections.clear();
        for (resource, objects) in &backup.objects {
            let collection = Collection {
                objects: objects.clone(),
                changes: VecDeque::new(),
                compacted: backup.version,
            };
            self.collections.insert(resource.clone(), collection);
        }
    }

    /// The next version is later by so many.
    pub(crate) fn raise(&mut self, by: u64) {
        self.version += by;
        self.compact();
    }

    pub(crate) fn compact(&mut self) {
        self.version += 1;
        for collection in self.collections.values_mut() {
            collection.changes.clear();
            collection.compacted = self.version;
        }
    }

    pub(crate) fn list(
        &self,
        resource: &Resource,
        selection: &Selection,
        query: &Query,
    ) -> Result<Page, Refusal> {
        let empty = Collection::default();
        let collection = self.collections.get(resource).unwrap_or(&empty);
        let (version, after) = match query.get("continue").filter(|token| !token.is_empty()) {
            None => (self.version, None),
            Some(token) => {
                let broken = || Refusal::new(400, "continue key is not valid");
                let mut parts = token.splitn(3, '/');
                let version: u64 = parts
                    .next()
                    .unwrap_or_default()
                    .parse()
                    .map_err(|_| broken())?;
                let namespace = parts.next().ok_or_else(broken)?.to_owned();
                let name = parts.next().ok_or_else(broken)?.to_owned();
                if version < collection.compacted {
                    return Err(Refusal::new(
                        410,
                        "The provided continue parameter is too old to display a consistent list result.",
                    ));
                }
                (version, Some((namespace, name)))
            }
        };
        let limit = query.number("limit").filter(|limit| *limit > 0);
        let limit = limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        let start = match &after {
            Some(key) => std::ops::Bound::Excluded(key.clone()),
            None => std::ops::Bound::Unbounded,
        };
        let mut items = Vec::new();
        let mut last = None;
        let mut remaining = 0;
        for (key, stored) in collection
            .objects
            .range((start, std::ops::Bound::Unbounded))
        {
            if !selection.takes(key, &stored.json) {
                continue;
            }
            if items.len() == limit {
                remaining += 1;
            } else {
                items.push(stored.json.clone());
                last = Some(key);
            }
        }
        let next = last.filter(|_| remaining > 0);
        let next = next.map(|(namespace, name)| format!("{version}/{namespace}/{name}"));
        Ok(Page {
            items,
            version,
            next,
            remaining,
        })
    }

    /// What changed after `version`.
    pub(crate) fn changes(
        &self,
        resource: &Resource,
        selection: &Selection,
        version: u64,
    ) -> Result<Vec<Change>, Refusal> {
        let Some(collection) = self.collections.get(resource) else {
            return Ok(Vec::new());
        };
        if version < collection.compacted {
            return Err(Refusal::new(
                410,
                format!(
                    "too old resource version: {version} ({})",
                    collection.compacted
                ),
            ));
        }
        let first = collection
            .changes
            .partition_point(|change| change.version <= version);
        let changes = collection.changes.range(first..);
        Ok(changes
            .filter(|change| selection.takes(&change.key, &change.json))
            .cloned()
            .collect())
    }

    fn record(&mut self, resource: &Resource, key: Key, kind: &'static str, object: &Value) {
        let json = Bytes::from(object.to_string());
        let collection = self.collections.entry(resource.clone()).or_default();
        if kind == "DELETED" {
            collection.objects.remove(&key);
        } else {
            let stored = Stored { json: json.clone() };
            collection.objects.insert(key.clone(), stored);
        }
        collection.changes.push_back(Change {
            version: self.version,
            kind,
            key,
            json,
        });
        if collection.changes.len() > CHANGES_MAX
            && let Some(gone) = collection.changes.pop_front()
        {
            collection.compacted = gone.version;
        }
    }
}

// === impl Selection ===

impl Selection {
    pub(crate) fn new(namespace: Option<String>, query: &Query) -> Self {
        let pairs = |name| {
            let text: &str = query.get(name).unwrap_or_default();
            text.split(',')
                .filter_map(|pair| pair.split_once('='))
                .map(|(left, right)| (left.to_owned(), right.trim_start_matches('=').to_owned()))
                .collect::<Vec<_>>()
        };
        let fields = pairs("fieldSelector").into_iter();
        Self {
            namespace,
            fields: fields
                .map(|(path, value)| (path.split('.').map(str::to_owned).collect(), value))
                .collect(),
            labels: pairs("labelSelector"),
        }
    }

    fn takes(&self, key: &Key, json: &Bytes) -> bool {
        if self
            .namespace
            .as_ref()
            .is_some_and(|namespace| *namespace != key.0)
        {
            return false;
        }
        if self.fields.is_empty() && self.labels.is_empty() {
            return true;
        }
        let object: Value = serde_json::from_slice(json).unwrap_or_default();
        let field = |(path, wanted): &(Vec<String>, String)| {
            let found = path
                .iter()
                .fold(&object, |value, part| &value[part.as_str()]);
            found.as_str().unwrap_or_default() == wanted
        };
        let label = |(name, wanted): &(String, String)| {
            object["metadata"]["labels"][name.as_str()].as_str() == Some(wanted.as_str())
        };
        self.fields.iter().all(field) && self.labels.iter().all(label)
    }
}

pub(crate) fn key_of(object: &Value) -> Key {
    let text = |name: &str| {
        object["metadata"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (text("namespace"), text("name"))
}

/// The object as its `scale`: at zero the count is left out, as the real one does.
pub(crate) fn scale_of(object: &Value, description: &Description) -> Option<Value> {
    let (wanted, observed) = description.scale.as_ref()?;
    let wanted = object.pointer(wanted).and_then(Value::as_u64).unwrap_or(0);
    let observed = object
        .pointer(observed)
        .and_then(Value::as_u64)
        .unwrap_or(0);
    let metadata = &object["metadata"];
    let spec = if wanted == 0 {
        json!({})
    } else {
        json!({ "replicas": wanted })
    };
    Some(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": spec, "status": { "replicas": observed },
    }))
}

/// Writes a count through a pointer like `/spec/replicas`.
pub(crate) fn set_count(object: &mut Value, pointer: &str, count: u64) {
    let mut place = object;
    for part in pointer.split('/').skip(1) {
        place = &mut place[part];
    }
    *place = json!(count);
}

/// Says in `managedFields` who set the count, as far as tests need it: the entry of the last writer, and no other, holds it.
/// Through `scale` a zero is left out and so belongs to nobody, and who raises there what belongs to nobody is not noted.
fn note_writer(object: &mut Value, before: Option<&Value>, pointer: &str, writer: Writer<'_>) {
    let count = object.pointer(pointer).cloned();
    if count.is_none() || before.is_some_and(|before| before.pointer(pointer) == count.as_ref()) {
        return;
    }
    let parts: Vec<String> = pointer
        .split('/')
        .skip(1)
        .map(|part| format!("f:{part}"))
        .collect();
    let mut fields = json!({});
    for part in parts.iter().rev() {
        fields = json!({ part.as_str(): fields });
    }
    let api_version = GroupVersion::of_object(object).api_version();
    let mut entry = json!({
        "manager": writer.manager, "operation": "Update", "apiVersion": api_version,
        "time": seconds(now()), "fieldsType": "FieldsV1", "fieldsV1": fields,
    });
    if let Some(subresource) = writer.subresource {
        entry["subresource"] = json!(subresource);
    }
    let mut entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let by_scale = writer.subresource == Some("scale");
    let owned = parts
        .iter()
        .fold(String::from("/fieldsV1"), |path, part| path + "/" + part);
    if by_scale && !entries.iter().any(|other| other.pointer(&owned).is_some()) {
        return;
    }
    for other in &mut entries {
        let mut place = &mut other["fieldsV1"];
        if let Some((last, way)) = parts.split_last() {
            for part in way {
                if place.get(part).is_none() {
                    break;
                }
                place = &mut place[part.as_str()];
            }
            if let Some(place) = place.as_object_mut() {
                place.remove(last);
            }
        }
    }
    entries.retain(|other| {
        other["manager"] != entry["manager"] || other.get("subresource") != entry.get("subresource")
    });
    if !by_scale || count != Some(json!(0)) {
        entries.push(entry);
    }
    object["metadata"]["managedFields"] = Value::Array(entries);
}

/// An instant as metadata holds it: whole seconds.
pub(crate) fn seconds(instant: Timestamp) -> String {
    instant.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[expect(
    clippy::disallowed_methods,
    reason = "an API server has a clock of its own"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
