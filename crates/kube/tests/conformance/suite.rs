//! What Nagi relies on of an API server, asked of any.
//!
//! Each case makes what it needs, so that the same server may be asked again.

#[path = "reviews.rs"]
mod reviews;

use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use nagi_kube_double::{Double, objects};
use serde_json::{Value, json};

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);
const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const JSON: &str = "application/json";
const NAMESPACE: &str = "nagi-conformance";

/// Asks everything of an API server. `double` is the double behind `client`, if it is one.
pub(crate) async fn ask_everything(client: Client, double: Option<Double>) {
    suite(&Server { client, double }).await;
}

async fn suite(server: &Server) {
    let namespace =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    server.post("/api/v1/namespaces", &namespace).await;
    merge_patches_keep_their_precondition(server).await;
    scale_drops_annotations_and_hides_zero(server).await;
    a_wake_through_scale_takes_effect_once(server).await;
    the_writer_of_a_count_is_named(server).await;
    bad_writes_are_refused(server).await;
    lists_come_in_pages(server).await;
    watches_bring_every_change(server).await;
    old_watches_are_refused(server).await;
    leases_are_taken_once(server).await;
    events_are_found_by_their_reporter(server).await;
    custom_kinds_scale(server).await;
    reviews::answer_and_keep_nothing(server).await;
}

struct Server {
    client: Client,
    /// To play what a real one does in hours.
    double: Option<Double>,
}

impl Server {
    /// Patches on the version of now: a controller may write a status between a read and a patch. Gives what was read and
    /// what came of it.
    async fn patch_newest(&self, path: &str, patch: impl Fn(&str) -> Value) -> (Value, Value) {
        let mut tries = 0;
        loop {
            let (_, before) = self.get(path).await;
            let (status, after) = self.patch(path, MERGE, &patch(&version(&before))).await;
            if status == 200 {
                return (before, after);
            }
            assert_eq!(status, 409, "{after}");
            tries += 1;
            assert!(tries < 20, "a conflict each time at {path}");
        }
    }

    /// A list in another form.
    async fn list_as(&self, accepted: &str, path: &str) -> (u16, Value) {
        let request = Request::get(path).header("accept", accepted);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn ask(&self, method: &str, path: &str, content: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content);
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> (u16, Value) {
        let asked = tokio::time::timeout(PATIENCE, self.client.send(request));
        let response = asked.await.unwrap().unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, JSON, &Value::Null).await
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask("POST", path, JSON, body).await
    }

    async fn patch(&self, path: &str, content: &str, body: &Value) -> (u16, Value) {
        self.ask("PATCH", path, content, body).await
    }

    /// A Deployment of its own for each case.
    async fn deployment(&self, name: &str, replicas: u32) -> String {
        let collection = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
        let path = format!("{collection}/{name}");
        self.ask("DELETE", &path, JSON, &Value::Null).await;
        let mut object = objects::deployment(NAMESPACE, name, replicas);
        object.as_object_mut().unwrap().remove("status");
        let (status, _) = self.post(&collection, &object).await;
        assert_eq!(status, 201, "{name}");
        path
    }

    /// The lines of a watch until `enough`.
    async fn watch(&self, path: &str, enough: impl Fn(&[Value]) -> bool) -> (u16, Vec<Value>) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let watching = async {
            let response = self.client.send(request).await.unwrap();
            let status = response.status().as_u16();
            let mut body = response.into_body();
            let (mut text, mut lines) = (Vec::new(), Vec::new());
            while !enough(&lines) {
                let Some(frame) = body.frame().await else {
                    break;
                };
                text.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    lines.push(serde_json::from_slice(&line).unwrap());
                }
            }
            if status != 200 {
                lines.push(serde_json::from_slice(&text).unwrap_or_default());
            }
            (status, lines)
        };
        tokio::time::timeout(PATIENCE, watching)
            .await
            .expect("the watch brings it")
    }
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn merge_patches_keep_their_precondition(server: &Server) {
    let path = server.deployment("precondition", 2).await;
    let patch = |version: &str, replicas: u32, annotation: Value| {
        json!({
            "metadata": { "resourceVersion": version, "annotations": { "nagi.dev/replicas": annotation } },
            "spec": { "replicas": replicas },
        })
    };
    let at = format!("{path}?fieldManager=nagi");
    let (before, after) = server
        .patch_newest(&at, |version| patch(version, 0, json!("2")))
        .await;
    assert_eq!(
        after["spec"]["replicas"], 0,
        "zero is written out on the object"
    );
    assert_eq!(after["metadata"]["annotations"]["nagi.dev/replicas"], "2");
    let number = |object: &Value| version(object).parse::<u64>().unwrap();
    assert!(
        number(&after) > number(&before),
        "versions are numbers that grow"
    );
    let (status, refused) = server
        .patch(&at, MERGE, &patch(&version(&before), 5, json!("9")))
        .await;
    assert_eq!((status, &refused["reason"]), (409, &json!("Conflict")));
    let (unchanged, after) = server
        .patch_newest(&at, |version| patch(version, 0, Value::Null))
        .await;
    assert_eq!(unchanged["spec"]["replicas"], 0);
    assert!(
        after["metadata"]["annotations"]
            .get("nagi.dev/replicas")
            .is_none(),
        "null removes"
    );
    // Deleted and made again: the version of the old one writes nothing on the new one.
    let again = server.deployment("precondition", 1).await;
    let (status, _) = server
        .patch(&again, MERGE, &patch(&version(&after), 0, json!("1")))
        .await;
    assert_eq!(status, 409);
    let (status, missing) = server.get(&format!("{path}-missing")).await;
    assert_eq!(
        (status, &missing["kind"], &missing["reason"]),
        (404, &json!("Status"), &json!("NotFound"))
    );
}

async fn scale_drops_annotations_and_hides_zero(server: &Server) {
    let path = server.deployment("scale", 2).await;
    let scale = format!("{path}/scale");
    let (status, shown) = server.get(&scale).await;
    assert_eq!(
        (status, &shown["kind"], &shown["spec"]),
        (200, &json!("Scale"), &json!({ "replicas": 2 }))
    );
    // A controller may write a status between two reads, a few times.
    let mut tries = 0;
    loop {
        let (_, before) = server.get(&path).await;
        let (_, shown) = server.get(&scale).await;
        if version(&shown) == version(&before) {
            break;
        }
        tries += 1;
        assert!(tries < 20, "a Scale has the version of its object");
    }
    let patch = json!({ "metadata": { "annotations": { "nagi.dev/replicas": "2" } }, "spec": { "replicas": 0 } });
    let (status, shown) = server.patch(&scale, MERGE, &patch).await;
    assert_eq!(
        (status, &shown["spec"]),
        (200, &json!({})),
        "zero is left out"
    );
    let (_, object) = server.get(&path).await;
    assert_eq!(object["spec"]["replicas"], 0);
    assert!(
        object["metadata"]["annotations"]
            .get("nagi.dev/replicas")
            .is_none(),
        "dropped without a word"
    );
    let stale = json!({ "metadata": { "resourceVersion": "1" }, "spec": { "replicas": 3 } });
    assert_eq!(server.patch(&scale, MERGE, &stale).await.0, 409);
}

async fn a_wake_through_scale_takes_effect_once(server: &Server) {
    let path = server.deployment("wake", 0).await;
    let scale = format!("{path}/scale?fieldManager=nagi-gateway");
    let patch = json!([
        { "op": "test", "path": "/spec", "value": {} },
        { "op": "add", "path": "/spec/replicas", "value": 2 },
    ]);
    let (status, shown) = server.patch(&scale, JSON_PATCH, &patch).await;
    assert_eq!((status, &shown["spec"]["replicas"]), (200, &json!(2)));
    let (status, refused) = server.patch(&scale, JSON_PATCH, &patch).await;
    assert_eq!(status, 422, "{refused}");
}

async fn the_writer_of_a_count_is_named(server: &Server) {
    let path = server.deployment("writer", 1).await;
    let owners = async |server: &Server| {
        let (_, object) = server.get(&path).await;
        let entries = object["metadata"]["managedFields"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let owning = entries
            .into_iter()
            .filter(|entry| entry["fieldsV1"]["f:spec"].get("f:replicas").is_some());
        owning
            .map(|entry| {
                (
                    entry["manager"].as_str().unwrap().to_owned(),
                    entry["subresource"].clone(),
                )
            })
            .collect::<Vec<_>>()
    };
    let patch = json!({ "spec": { "replicas": 4 } });
    server
        .patch(
            &format!("{path}/scale?fieldManager=kubectl-scale"),
            MERGE,
            &patch,
        )
        .await;
    assert_eq!(
        owners(server).await,
        [("kubectl-scale".to_owned(), json!("scale"))]
    );
    let patch = json!({ "spec": { "replicas": 0 } });
    server
        .patch(&format!("{path}?fieldManager=nagi"), MERGE, &patch)
        .await;
    assert_eq!(owners(server).await, [("nagi".to_owned(), Value::Null)]);
    // A zero that is written through `scale` belongs to nobody, and so does what is raised from there.
    for count in [3, 0, 2] {
        let patch = json!({ "spec": { "replicas": count } });
        let scale = format!("{path}/scale?fieldManager=kubectl-scale");
        assert_eq!(server.patch(&scale, MERGE, &patch).await.0, 200);
    }
    assert_eq!(owners(server).await, []);
}

async fn bad_writes_are_refused(server: &Server) {
    let path = server.deployment("bad", 1).await;
    let negative = json!({ "spec": { "replicas": -1 } });
    assert_eq!(server.patch(&path, MERGE, &negative).await.0, 422);
    let other_uid = json!({ "metadata": { "uid": "11111111-2222-4333-8444-555555555555" } });
    // The real one says either, depending on where it notices.
    let (status, _) = server.patch(&path, MERGE, &other_uid).await;
    assert!(matches!(status, 409 | 422), "{status}");
    assert_eq!(server.patch(&path, "text/plain", &negative).await.0, 415);
    assert_eq!(
        server
            .patch(
                &path,
                JSON_PATCH,
                &json!([{ "op": "test", "path": "/spec/replicas", "value": 9 }])
            )
            .await
            .0,
        422
    );
}

async fn lists_come_in_pages(server: &Server) {
    for n in 0..5 {
        server.deployment(&format!("page-{n}"), 0).await;
    }
    let collection = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    let (mut names, mut next, mut first) = (Vec::new(), String::new(), None);
    loop {
        let (status, page) = server.get(&format!("{collection}?limit=2{next}")).await;
        assert_eq!(status, 200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(
            items
                .iter()
                .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()),
        );
        let version = version(&page);
        assert_eq!(
            *first.get_or_insert(version.clone()),
            version,
            "one version for all pages"
        );
        let Some(token) = page["metadata"]["continue"].as_str() else {
            break;
        };
        let escaped: String = token
            .replace('=', "%3D")
            .replace('/', "%2F")
            .replace('+', "%2B");
        next = format!("&continue={escaped}");
    }
    // Of the metadata alone, where that is asked for.
    let accepted =
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json";
    let (status, heads) = server
        .list_as(accepted, &format!("{collection}?limit=2"))
        .await;
    assert_eq!(
        (status, &heads["kind"]),
        (200, &json!("PartialObjectMetadataList"))
    );
    assert!(!version(&heads).is_empty() && heads["metadata"]["continue"].is_string());
    let head = &heads["items"][0];
    assert_eq!(head["kind"], "PartialObjectMetadata");
    assert_eq!(head["metadata"]["name"], names[0]);
    assert!(
        !version(head).is_empty() && head.get("spec").is_none(),
        "{head}"
    );
    let none = format!("{collection}?fieldSelector=metadata.name%3Dnobody");
    let (status, none) = server.list_as(accepted, &none).await;
    assert_eq!((status, &none["items"]), (200, &Value::Null), "{none}");
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(names, sorted);
    assert!(
        names
            .iter()
            .filter(|name| name.starts_with("page-"))
            .count()
            == 5
    );
    assert_eq!(
        server
            .get(&format!("{collection}?limit=2&continue=nonsense"))
            .await
            .0,
        400
    );
}

async fn watches_bring_every_change(server: &Server) {
    let collection = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    let (_, list) = server.get(&collection).await;
    let path = server.deployment("watched", 1).await;
    server
        .patch(&path, MERGE, &json!({ "spec": { "replicas": 2 } }))
        .await;
    server.ask("DELETE", &path, JSON, &Value::Null).await;
    let of = |lines: &[Value]| {
        let ours = lines
            .iter()
            .filter(|line| line["object"]["metadata"]["name"] == "watched");
        ours.map(|line| line["type"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let watch = format!(
        "{collection}?watch=true&allowWatchBookmarks=true&resourceVersion={}",
        version(&list)
    );
    let (status, lines) = server
        .watch(&watch, |lines| {
            of(lines).last().is_some_and(|last| last == "DELETED")
        })
        .await;
    assert_eq!(status, 200);
    let mut seen = of(&lines);
    seen.dedup();
    assert_eq!(seen, ["ADDED", "MODIFIED", "DELETED"]);
    let deleted = lines
        .iter()
        .rfind(|line| line["type"] == "DELETED")
        .unwrap();
    let number = |object: &Value| version(object).parse::<u64>().unwrap();
    assert!(
        number(&deleted["object"]) > number(&list),
        "a deletion has a version of its own"
    );
    // With the initial events asked for, a bookmark marks their end.
    let initial = format!(
        "{collection}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    );
    let is_end = |line: &Value| {
        line["type"] == "BOOKMARK"
            && line["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
    };
    let (_, lines) = server
        .watch(&initial, |lines| lines.last().is_some_and(is_end))
        .await;
    assert!(lines.iter().any(|line| line["type"] == "ADDED"));
    let bookmark = lines.last().unwrap();
    assert_eq!(bookmark["object"]["kind"], "Deployment");
    assert!(number(&bookmark["object"]) >= number(&deleted["object"]));
}

async fn old_watches_are_refused(server: &Server) {
    // A real one that was started anew has forgotten what was before, as after some hours.
    if let Some(double) = &server.double {
        double.compact();
    }
    let collection = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    let (status, lines) = server
        .watch(
            &format!("{collection}?watch=true&resourceVersion=1"),
            |lines| !lines.is_empty(),
        )
        .await;
    let last = lines.last().unwrap();
    // A line of the stream, not the status of the answer.
    assert_eq!((status, &last["type"]), (200, &json!("ERROR")), "{last}");
    assert_eq!(last["object"]["code"], 410);
    assert_eq!(last["object"]["reason"], "Expired");
}

async fn leases_are_taken_once(server: &Server) {
    let collection = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");
    let path = format!("{collection}/nagi-leader");
    server.ask("DELETE", &path, JSON, &Value::Null).await;
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "nagi-leader" },
        "spec": { "holderIdentity": "a", "leaseDurationSeconds": 15, "leaseTransitions": 1, "renewTime": "2030-01-01T00:00:00.000001Z" },
    });
    let (status, held) = server.post(&collection, &lease).await;
    assert_eq!(status, 201);
    let (status, refused) = server.post(&collection, &lease).await;
    assert_eq!((status, &refused["reason"]), (409, &json!("AlreadyExists")));
    let take = |version: &str| {
        json!({
            "metadata": { "resourceVersion": version }, "spec": { "holderIdentity": "b", "leaseTransitions": 2 },
        })
    };
    let (status, taken) = server.patch(&path, MERGE, &take(&version(&held))).await;
    assert_eq!(
        (status, &taken["spec"]["leaseTransitions"]),
        (200, &json!(2))
    );
    assert_eq!(
        server.patch(&path, MERGE, &take(&version(&held))).await.0,
        409
    );
    let released = json!({ "spec": { "holderIdentity": "", "leaseDurationSeconds": 1 } });
    assert_eq!(server.patch(&path, MERGE, &released).await.0, 200);
}

async fn events_are_found_by_their_reporter(server: &Server) {
    let path = server.deployment("told", 0).await;
    let (_, object) = server.get(&path).await;
    let collection = format!("/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events");
    let name = "told.1";
    server
        .ask(
            "DELETE",
            &format!("{collection}/{name}"),
            JSON,
            &Value::Null,
        )
        .await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": name, "annotations": { "nagi.dev/changes": "{}" } },
        "eventTime": "2030-01-01T00:00:00.000000Z", "type": "Normal", "reason": "ScaledToZero", "action": "ScaledToZero",
        "reportingController": "nagi.dev/scale-api", "reportingInstance": "scale-api-1", "note": "2 → 0",
        "regarding": { "apiVersion": "apps/v1", "kind": "Deployment", "namespace": NAMESPACE, "name": "told", "uid": object["metadata"]["uid"] },
    });
    let (status, answer) = server.post(&collection, &event).await;
    assert_eq!(status, 201, "{answer}");
    let series =
        json!({ "series": { "count": 2, "lastObservedTime": "2030-01-01T00:01:00.000000Z" } });
    let (status, answer) = server
        .patch(&format!("{collection}/{name}"), MERGE, &series)
        .await;
    assert_eq!(
        (status, &answer["series"]["count"]),
        (200, &json!(2)),
        "{answer}"
    );
    for (selector, found) in [("nagi.dev%2Fscale-api", 1), ("somebody-else", 0)] {
        let (status, list) = server
            .get(&format!(
                "{collection}?fieldSelector=reportingController%3D{selector}"
            ))
            .await;
        assert_eq!(
            (status, list["items"].as_array().map(Vec::len)),
            (200, Some(found)),
            "{list}"
        );
    }
}

async fn custom_kinds_scale(server: &Server) {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "runners.conformance.nagi.dev" },
        "spec": {
            "group": "conformance.nagi.dev", "scope": "Namespaced",
            "names": { "plural": "runners", "singular": "runner", "kind": "Runner", "listKind": "RunnerList" },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
                "subresources": { "status": {}, "scale": { "specReplicasPath": ".spec.workers", "statusReplicasPath": ".status.workers" } },
            }],
        },
    });
    server
        .post(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            &definition,
        )
        .await;
    let collection = format!("/apis/conformance.nagi.dev/v1/namespaces/{NAMESPACE}/runners");
    let path = format!("{collection}/one");
    let served = async {
        while server.get(&collection).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served)
        .await
        .expect("the kind is served");
    server.ask("DELETE", &path, JSON, &Value::Null).await;
    let object = json!({
        "apiVersion": "conformance.nagi.dev/v1", "kind": "Runner", "metadata": { "name": "one" }, "spec": { "workers": 2 },
    });
    assert_eq!(server.post(&collection, &object).await.0, 201);
    let (_, before) = server.get(&path).await;
    let patch = json!({
        "metadata": { "resourceVersion": version(&before), "annotations": { "nagi.dev/replicas": "2" } }, "spec": { "workers": 0 },
    });
    let (status, after) = server.patch(&path, MERGE, &patch).await;
    assert_eq!((status, &after["spec"]["workers"]), (200, &json!(0)));
    let wake = json!([
        { "op": "test", "path": "/spec", "value": {} },
        { "op": "add", "path": "/spec/replicas", "value": 2 },
    ]);
    let scale = format!("{path}/scale");
    assert_eq!(server.patch(&scale, JSON_PATCH, &wake).await.0, 200);
    assert_eq!(server.patch(&scale, JSON_PATCH, &wake).await.0, 422);
    let (_, woken) = server.get(&path).await;
    assert_eq!(woken["spec"]["workers"], 2);
}
