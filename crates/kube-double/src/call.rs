//! What a call of a collection, an object or a part of it does to the store, and how it is answered.

use std::sync::Arc;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::answer::{self, Answer, Refusal};
use crate::patch;
use crate::path::{Query, Target};
use crate::resources::{Description, Resource};
use crate::server::Shared;
use crate::store::{Key, Selection, Writer, key_of, scale_of, set_count};
use crate::watch::Watch;

/// Lines that a watch may be ahead of its reader.
const LINES_MAX: usize = 256;

/// One call of a collection or an object.
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) target: &'a Target,
    pub(crate) resource: Resource,
    pub(crate) description: Description,
    pub(crate) query: &'a Query,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a Bytes,
    pub(crate) manager: String,
}

// === impl Call ===

impl Call<'_> {
    pub(crate) fn answer(&self, method: &Method) -> Result<Response<Answer>, Refusal> {
        let Some(name) = &self.target.name else {
            return match *method {
                Method::GET if self.query.flag("watch") => Ok(self.watch()),
                Method::GET => self.list(),
                Method::POST => self.create(),
                _ => Err(Refusal::new(405, "the method is not allowed")),
            };
        };
        let key = (
            self.target.namespace.clone().unwrap_or_default(),
            name.clone(),
        );
        match (method, self.target.subresource.as_deref()) {
            (&Method::GET, None) => {
                let found = self.shared.store().bytes(&self.resource, &key);
                let json = found.ok_or_else(|| self.not_found(name))?;
                Ok(answer::whole(StatusCode::OK, json))
            }
            (&Method::GET, Some("scale")) => {
                let object = self.object(&key)?;
                let scale = scale_of(&object, &self.description);
                Ok(ok(&scale.ok_or_else(|| self.not_found(name))?))
            }
            (&Method::GET, Some("log")) => self.log(&key),
            (&Method::PATCH, None) => {
                let mut object = self.object(&key)?;
                let before = object.clone();
                patch::apply(self.headers, self.body, &mut object)?;
                self.store(&before, object)
            }
            (&Method::PATCH, Some("scale")) => self.patch_scale(&key),
            (&Method::PUT, None) => {
                let before = self.object(&key)?;
                self.store(&before, self.read_body()?)
            }
            (&Method::DELETE, None) => {
                let gone = self.shared.store().delete(&self.resource, &key);
                let gone = gone.ok_or_else(|| self.not_found(name))?;
                self.shared.tick();
                Ok(ok(&gone))
            }
            _ => Err(Refusal::new(
                404,
                "the server could not find the requested resource",
            )),
        }
    }

    fn object(&self, key: &Key) -> Result<Value, Refusal> {
        let found = self.shared.store().get(&self.resource, key);
        found.ok_or_else(|| self.not_found(&key.1))
    }

    fn not_found(&self, name: &str) -> Refusal {
        let group = &self.resource.group;
        let dot = if group.is_empty() { "" } else { "." };
        Refusal::new(
            404,
            format!("{}{dot}{group} {name:?} not found", self.resource.plural),
        )
    }

    fn conflict(&self, name: &str) -> Refusal {
        Refusal::new(
            409,
            format!(
                "Operation cannot be fulfilled on {} {name:?}: the object has been modified; please apply your changes to the latest version and try again",
                self.resource.plural
            ),
        )
    }

    fn read_body(&self) -> Result<Value, Refusal> {
        serde_json::from_slice(self.body).map_err(|error| Refusal::new(400, error.to_string()))
    }

    /// Stores what a write made of an object, if the version in it is the present one.
    fn store(&self, before: &Value, object: Value) -> Result<Response<Answer>, Refusal> {
        let name = self.target.name.as_deref().unwrap_or_default();
        let version = object["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default();
        if !version.is_empty() && before["metadata"]["resourceVersion"] != version {
            return Err(self.conflict(name));
        }
        if before["metadata"]["uid"] != object["metadata"]["uid"] {
            return Err(Refusal::new(
                422,
                "metadata.uid: Invalid value: field is immutable",
            ));
        }
        if let Some((wanted, _)) = &self.description.scale
            && object
                .pointer(wanted)
                .is_some_and(|count| count.as_u64().is_none())
        {
            return Err(Refusal::new(
                422,
                "spec.replicas: Invalid value: must be greater than or equal to 0",
            ));
        }
        let stored = self.write(object, None);
        Ok(ok(&stored))
    }

    fn write(&self, object: Value, subresource: Option<&str>) -> Value {
        let writer = Writer {
            manager: &self.manager,
            subresource,
        };
        let stored = self.shared.store().put(&self.resource, object, writer);
        self.shared.tick();
        stored
    }

    fn patch_scale(&self, key: &Key) -> Result<Response<Answer>, Refusal> {
        let mut object = self.object(key)?;
        let scale = scale_of(&object, &self.description);
        let mut scale = scale.ok_or_else(|| self.not_found(&key.1))?;
        let before = scale["metadata"]["resourceVersion"].clone();
        patch::apply(self.headers, self.body, &mut scale)?;
        if scale["metadata"]["resourceVersion"] != before {
            return Err(self.conflict(&key.1));
        }
        let count = match scale["spec"].get("replicas") {
            None => 0,
            Some(count) => count
                .as_u64()
                .ok_or_else(|| Refusal::new(422, "spec.replicas: Invalid value"))?,
        };
        // Everything but the count is dropped without a word, as the real one does.
        if let Some((wanted, _)) = &self.description.scale {
            set_count(&mut object, wanted, count);
        }
        let stored = self.write(object, Some("scale"));
        let scale = scale_of(&stored, &self.description).unwrap_or_default();
        Ok(ok(&scale))
    }

    fn create(&self) -> Result<Response<Answer>, Refusal> {
        let mut object = self.read_body()?;
        if let Some(namespace) = &self.target.namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        if object["metadata"]["name"].is_null()
            && let Some(prefix) = object["metadata"]["generateName"].as_str()
        {
            let name = format!("{prefix}{:05x}", self.shared.store().version());
            object["metadata"]["name"] = json!(name);
        }
        let key = key_of(&object);
        if self.shared.store().get(&self.resource, &key).is_some() {
            let mut refusal = Refusal::new(
                409,
                format!("{} {:?} already exists", self.resource.plural, key.1),
            );
            refusal.reason = "AlreadyExists";
            return Err(refusal);
        }
        let stored = self.write(object, None);
        Ok(answer::whole(
            StatusCode::CREATED,
            stored.to_string().into(),
        ))
    }

    fn list(&self) -> Result<Response<Answer>, Refusal> {
        let selection = Selection::new(self.target.namespace.clone(), self.query);
        let page = self
            .shared
            .store()
            .list(&self.resource, &selection, self.query)?;
        let mut metadata = json!({ "resourceVersion": page.version.to_string() });
        if let Some(next) = page.next {
            metadata["continue"] = json!(next);
            metadata["remainingItemCount"] = json!(page.remaining);
        }
        let accepted = self
            .headers
            .get(ACCEPT)
            .and_then(|value| value.to_str().ok());
        let heads_only = accepted.is_some_and(|text| text.contains("as=PartialObjectMetadataList"));
        if heads_only {
            return Ok(heads(&metadata, &page.items));
        }
        let size: usize = page.items.iter().map(|item| item.len() + 1).sum();
        let mut json = Vec::with_capacity(size + 256);
        let head = format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
            self.description.kind,
            self.target.group_version.api_version()
        );
        json.extend_from_slice(head.as_bytes());
        for (n, item) in page.items.iter().enumerate() {
            if n > 0 {
                json.push(b',');
            }
            json.extend_from_slice(item);
        }
        json.extend_from_slice(b"]}");
        Ok(answer::whole(StatusCode::OK, json.into()))
    }

    fn watch(&self) -> Response<Answer> {
        let (lines, received) = mpsc::channel(LINES_MAX);
        let watch = Watch {
            resource: self.resource.clone(),
            group_version: self.target.group_version.clone(),
            kind: self.description.kind.clone(),
            selection: Selection::new(self.target.namespace.clone(), self.query),
            query: self.query.clone(),
            lines,
        };
        let (ticks, cuts) = self.shared.signals();
        let running = watch.run(Arc::clone(self.shared), ticks, cuts);
        if self.shared.watches.try_spawn(running).is_err() {
            return Refusal::new(429, "too many watches").response();
        }
        answer::stream(received)
    }

    fn log(&self, key: &Key) -> Result<Response<Answer>, Refusal> {
        let pod = self.object(key)?;
        let container = self.query.get("container");
        let names = pod["spec"]["containers"].as_array().cloned();
        let names: Vec<String> = names
            .unwrap_or_default()
            .iter()
            .filter_map(|one| one["name"].as_str().map(str::to_owned))
            .collect();
        if names.len() > 1 && container.is_none() {
            let message = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                key.1,
                names.join(" ")
            );
            return Err(Refusal::new(400, message));
        }
        let lines = self.shared.log(key, container);
        let since = self.query.get("sinceTime").unwrap_or_default().to_owned();
        // Whole seconds, as in the real one: RFC 3339 in UTC compares as text.
        let lines: Vec<_> = lines
            .iter()
            .filter(|(time, _)| time.get(..19) >= since.get(..19))
            .collect();
        let tail = self
            .query
            .number("tailLines")
            .map(|tail| usize::try_from(tail).unwrap_or(usize::MAX));
        let skip = tail.map_or(0, |tail| lines.len().saturating_sub(tail));
        let mut text = String::new();
        for (time, line) in lines.into_iter().skip(skip) {
            if self.query.flag("timestamps") {
                text.push_str(time);
                text.push(' ');
            }
            text.push_str(line);
            text.push('\n');
        }
        // In the middle of a line, as the real one.
        if let Some(limit) = self.query.number("limitBytes") {
            text.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        Ok(answer::text(text))
    }
}

/// A page of which only the metadata of each object is told.
fn heads(metadata: &Value, items: &[Bytes]) -> Response<Answer> {
    let head = |item: &Bytes| {
        let object: Value = serde_json::from_slice(item).unwrap_or_default();
        json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"],
        })
    };
    // An API server says `null` where there are none.
    let items: Option<Vec<Value>> = (!items.is_empty()).then(|| items.iter().map(head).collect());
    ok(&json!({
        "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata, "items": items,
    }))
}

pub(crate) fn ok(object: &Value) -> Response<Answer> {
    answer::whole(StatusCode::OK, object.to_string().into())
}
