//! The other ports: history and Events, logs, pools; custom kinds; what autoscalers of nodes say.

use nagi_core::id::{Name, Namespace, Resource, WorkloadId};
use nagi_core::pool::NodePhase;
use nagi_core::wake::Stage;
use nagi_core::workload::Workload;
use nagi_kube_double::{Effect, Fault, objects};
use nagi_ports::{HistoryQuery, Journal, LogQuery, Logs, Nodes, PortError, Read, Workloads};
use nagi_testkit::listed;
use serde_json::{Value, json};

use crate::lab::{Lab, eventually, id, sleep, wake};

fn query() -> HistoryQuery {
    HistoryQuery {
        limit: 10,
        ..HistoryQuery::default()
    }
}

fn events(lab: &Lab) -> Vec<Value> {
    let posted = lab.double.requests().into_iter();
    posted
        .filter(|request| request.method == "POST" && request.path.contains("/events.k8s.io/"))
        .map(|request| serde_json::from_slice(&request.body).unwrap())
        .collect()
}

// Issue 4 item 2: Events on the workload
#[tokio::test]
async fn a_change_is_an_event_on_the_workload() {
    let lab = Lab::new().await;
    let before = lab.get().await;
    lab.engine.write(&before, sleep(&before)).await.unwrap();
    eventually("the event", async || events(&lab).len() == 1).await;
    let event = &events(&lab)[0];
    assert_eq!(event["regarding"]["name"], "sample-app-a");
    assert_eq!(event["regarding"]["uid"], before.uid.as_str());
    assert_eq!(event["reason"], "ScaledToZero");
    assert_eq!(event["note"], "2 → 0 by key/ops: コスト最適化のため");
}

// R20: the leader records the wake on the object, and that is what the history tells
#[tokio::test]
async fn the_event_of_a_gateway_is_no_second_entry_of_the_history() {
    let lab = Lab::new().await;
    let before = lab.get().await;
    let asleep = lab.engine.write(&before, sleep(&before)).await.unwrap();
    eventually("the sleep", async || events(&lab).len() == 1).await;
    let gateway = lab.second(nagi_kube::Rights::ScaleOnly);
    gateway.synced().await;
    gateway
        .engine
        .write(&asleep, wake(&asleep, 2))
        .await
        .unwrap();
    eventually("the wake", async || events(&lab).len() == 2).await;
    let told = &events(&lab)[1];
    assert_eq!(told["reason"], "Waking");
    assert_eq!(told["regarding"]["name"], "sample-app-a");
    let page = lab.engine.history(&query()).await.unwrap();
    assert_eq!(page.entries.len(), 1, "the sleep alone: {page:?}");
}

#[tokio::test]
async fn an_event_that_cannot_be_written_delays_no_write() {
    let lab = Lab::new().await;
    lab.double
        .inject(Fault::always(nagi_kube_double::Effect::Hang).at("/events.k8s.io/"));
    let mut now = lab.get().await;
    for _ in 0..3 {
        now = lab.engine.write(&now, sleep(&now)).await.unwrap();
        now = lab.engine.write(&now, wake(&now, 2)).await.unwrap();
    }
    assert_eq!(now.desired.0, 2);
}

// R20
#[tokio::test]
async fn the_history_reaches_further_back_than_the_object_while_events_are_kept() {
    let lab = Lab::new().await;
    let mut now = lab.get().await;
    for n in 0..8_u32 {
        let mut update = if n % 2 == 0 {
            sleep(&now)
        } else {
            wake(&now, 2)
        };
        let time =
            crate::lab::at("2030-01-01T00:00:00Z") + std::time::Duration::from_secs(n.into());
        update.intent.changes.last_mut().unwrap().time = time;
        now = lab.engine.write(&now, update).await.unwrap();
    }
    eventually("all eight", async || {
        lab.engine.history(&query()).await.unwrap().entries.len() == 8
    })
    .await;
    // What repeats word for word is one Event with a count.
    assert_eq!(events(&lab).len(), 2);
    let page = lab.engine.history(&query()).await.unwrap();
    assert_eq!(
        page.reaches_back_to,
        Some(crate::lab::at("2030-01-01T00:00:00Z"))
    );
    let ids: Vec<_> = page.entries.iter().map(|entry| entry.id).collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "newest first: {ids:?}");
    let rest = lab
        .engine
        .history(&HistoryQuery {
            before: Some(ids[2]),
            limit: 3,
            ..query()
        })
        .await
        .unwrap();
    assert_eq!(
        rest.entries
            .iter()
            .map(|entry| entry.id)
            .collect::<Vec<_>>(),
        ids[3..6]
    );
    assert!(rest.more);
    // Whoever may not list Events has what the objects remember.
    lab.double.inject(Fault::status(403).at("/events.k8s.io/"));
    let shorter = lab.engine.history(&query()).await.unwrap();
    assert_eq!(shorter.entries.len(), 5);
    assert_eq!(
        shorter.reaches_back_to,
        Some(crate::lab::at("2030-01-01T00:00:03Z"))
    );
}

// R20
#[tokio::test]
async fn an_event_that_could_not_be_written_is_written_when_it_repeats() {
    let lab = Lab::new().await;
    let first = Fault::status(500).on(http::Method::POST);
    lab.double.inject(first.at("/events").times(1));
    let mut now = lab.get().await;
    now = lab.engine.write(&now, sleep(&now)).await.unwrap();
    now = lab.engine.write(&now, wake(&now, 2)).await.unwrap();
    lab.engine.write(&now, sleep(&now)).await.unwrap();
    // The first sleep in vain, the wake, and the sleep again.
    eventually("three that were begun", async || events(&lab).len() == 3).await;
}

#[tokio::test]
async fn logs_come_from_the_pods_and_go_on_where_they_ended() {
    let lab = Lab::new().await;
    let pod = objects::running(objects::pod("project-a", "sample-app-a", "x1"), "10.0.0.7");
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    lab.double.put(pod);
    lab.sees("the pod", |w| !w.replicas.is_empty()).await;
    let first = ("2030-01-01T00:00:00.100000000Z", "one");
    let second = ("2030-01-01T00:00:00.900000000Z", "two");
    lab.double.log("project-a", &name, &[first, second]);
    let page = lab
        .engine
        .read(
            &id(),
            &LogQuery {
                tail: 1,
                after: None,
            },
        )
        .await
        .unwrap();
    let texts = |page: &nagi_ports::LogPage| {
        page.lines
            .iter()
            .map(|line| line.text.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(texts(&page), ["two"]);
    lab.double.log(
        "project-a",
        &name,
        &[first, second, ("2030-01-01T00:00:00.950000000Z", "three")],
    );
    let next = lab
        .engine
        .read(
            &id(),
            &LogQuery {
                tail: 1,
                after: Some(page.cursor),
            },
        )
        .await
        .unwrap();
    assert_eq!(
        texts(&next),
        ["three"],
        "the same second, but nothing twice"
    );
    let broken = lab
        .engine
        .read(
            &id(),
            &LogQuery {
                tail: 1,
                after: Some("x".into()),
            },
        )
        .await;
    assert!(matches!(broken.unwrap_err(), PortError::Refused(_)));
}

// cost unknown is not zero
#[tokio::test]
async fn pools_are_told_by_their_labels_and_their_cost_is_unknown() {
    let lab = Lab::new().await;
    let node = |name: &str, labels: Value, ready: &str| {
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        })
    };
    lab.double
        .put(node("b1", json!({ "project": "b" }), "False"));
    lab.double
        .put(node("node-1", json!({ "agentpool": "system" }), "True"));
    lab.double.put(node("bare", json!({}), "True"));
    lab.double.put(objects::running(
        objects::pod("project-a", "sample-app-a", "x1"),
        "10.0.0.7",
    ));
    lab.sees("the pod", |w| !w.replicas.is_empty()).await;
    let pools = lab.engine.pools().await.unwrap();
    let shown: Vec<_> = pools
        .iter()
        .map(|pool| (pool.name.as_str(), pool.nodes[0].replicas, pool.cost))
        .collect();
    assert_eq!(
        shown,
        [("b", 0, None), ("default", 0, None), ("system", 1, None)]
    );
    assert!(matches!(
        pools[0].nodes[0].phase,
        NodePhase::Booting { ready_in: None }
    ));
}

// A pod with a sidecar has two logs, and the API server wants to hear which.
#[tokio::test]
async fn logs_of_a_pod_with_several_containers_are_those_of_each_or_of_its_default() {
    for (default, expected) in [
        (None, vec!["of web", "of side"]),
        (Some("side"), vec!["of side"]),
    ] {
        let lab = Lab::new().await;
        let pod = objects::pod("project-a", "sample-app-a", "x1");
        let mut pod = objects::running(pod, "10.0.0.7");
        let side = json!({ "name": "side", "image": "example/side:1" });
        pod["spec"]["containers"].as_array_mut().unwrap().push(side);
        if let Some(default) = default {
            pod["metadata"]["annotations"] =
                json!({ "kubectl.kubernetes.io/default-container": default });
        }
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        lab.double.put(pod);
        lab.sees("the pod", |w| !w.replicas.is_empty()).await;
        let time = "2030-01-01T00:00:00.100000000Z";
        for container in ["web", "side"] {
            let text = format!("of {container}");
            lab.double.log(
                "project-a",
                &format!("{name}/{container}"),
                &[(time, &text)],
            );
        }
        let query = LogQuery {
            tail: 10,
            after: None,
        };
        let page = lab.engine.read(&id(), &query).await.unwrap();
        let texts: Vec<String> = page.lines.into_iter().map(|line| line.text).collect();
        assert_eq!(texts, expected);
        // The page as a whole is bounded.
        let asked = lab.double.requests().into_iter();
        let shares: Vec<String> = asked
            .filter(|asked| asked.path.contains("&container="))
            .map(|asked| asked.path)
            .collect();
        let share = format!("limitBytes={}", 1024 * 1024 / expected.len());
        assert_eq!(shares.len(), expected.len());
        assert!(
            shares.iter().all(|path| path.contains(&share)),
            "{shares:?}"
        );
    }
}

// DESIGN §5: kinds other than the built-in ones
#[tokio::test]
async fn a_custom_kind_with_a_scale_subresource_is_a_workload_like_any_other() {
    let lab = Lab::new().await;
    let runner = WorkloadId {
        resource: Resource::new("runners.example.com").unwrap(),
        namespace: Namespace::new("project-a").unwrap(),
        name: Name::new("one").unwrap(),
    };
    let refused = lab.engine.get(&runner, Read::Cached).await.unwrap_err();
    assert!(
        matches!(&refused, PortError::Refused(words) if words.contains("specReplicasPath")),
        "{refused}"
    );
    lab.double.put(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "runners.example.com" },
        "spec": { "group": "example.com", "scope": "Namespaced", "names": { "plural": "runners", "kind": "Runner" },
            "versions": [{ "name": "v1", "served": true, "subresources": { "scale": { "specReplicasPath": ".spec.workers", "statusReplicasPath": ".status.workers" } } }] },
    }));
    lab.double.put(json!({
        "apiVersion": "example.com/v1", "kind": "Runner", "metadata": { "namespace": "project-a", "name": "one" },
        "spec": { "workers": 3 }, "status": { "workers": 3 },
    }));
    let before = lab.engine.get(&runner, Read::Cached).await.unwrap();
    assert_eq!((before.desired.0, before.current.0), (3, 3));
    let asleep = lab.engine.write(&before, sleep(&before)).await.unwrap();
    assert_eq!(asleep.desired.0, 0);
    let object = lab
        .double
        .get("/apis/example.com/v1/namespaces/project-a/runners/one")
        .unwrap();
    assert_eq!(object["spec"], json!({ "workers": 0 }));
    assert_eq!(object["metadata"]["annotations"]["nagi.dev/replicas"], "3");
    eventually("it in lists", async || {
        listed(&lab.engine)
            .await
            .is_ok_and(|all| all.iter().any(|w| w.id == runner))
    })
    .await;
}

fn definition(version: &str, path: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "runners.example.com" },
        "spec": { "group": "example.com", "scope": "Namespaced", "names": { "plural": "runners", "kind": "Runner" },
            "versions": [
                { "name": "v0", "served": false, "subresources": { "scale": { "specReplicasPath": ".spec.old", "statusReplicasPath": ".status.old" } } },
                { "name": version, "served": true, "subresources": { "scale": { "specReplicasPath": path, "statusReplicasPath": ".status.workers" } } },
            ] },
    })
}

// DESIGN §5, invariant 7: a count of another place is nobody's count.
#[tokio::test]
async fn a_definition_that_changes_is_followed() {
    let lab = Lab::new().await;
    let runner = WorkloadId {
        resource: Resource::new("runners.example.com").unwrap(),
        namespace: Namespace::new("project-a").unwrap(),
        name: Name::new("one").unwrap(),
    };
    let object = |version: &str| {
        json!({
            "apiVersion": format!("example.com/{version}"), "kind": "Runner",
            "metadata": { "namespace": "project-a", "name": "one" },
            "spec": { "workers": 3, "count": 5 }, "status": { "workers": 3 },
        })
    };
    lab.double.put(definition("v1", ".spec.workers"));
    lab.double.put(object("v1"));
    let before = lab.engine.get(&runner, Read::Cached).await.unwrap();
    assert_eq!(before.desired.0, 3);
    // Its count lies elsewhere, and the object itself is what it was. Who asks for what is not known makes us look.
    lab.double.put(definition("v1", ".spec.count"));
    let other = WorkloadId {
        resource: Resource::new("others.example.com").unwrap(),
        ..runner.clone()
    };
    assert!(lab.engine.get(&other, Read::Cached).await.is_err());
    eventually("the count of the new place", async || {
        let now = lab.engine.get(&runner, Read::Cached).await;
        now.is_ok_and(|now| now.desired.0 == 5)
    })
    .await;
    // Its version is served no more: what fails by that says so, and is over soon.
    lab.double.put(definition("v2", ".spec.count"));
    let now = lab.engine.get(&runner, Read::Cached).await.unwrap();
    let failed = lab.engine.write(&now, sleep(&now)).await.unwrap_err();
    assert!(
        matches!(&failed, PortError::Internal(words) if words.contains("no longer served as v1")),
        "{failed}"
    );
    eventually("the new version", async || {
        let Ok(now) = lab.engine.get(&runner, Read::Live).await else {
            return false;
        };
        lab.engine.write(&now, sleep(&now)).await.is_ok()
    })
    .await;
    let path = "/apis/example.com/v2/namespaces/project-a/runners/one";
    assert_eq!(lab.double.get(path).unwrap()["spec"]["count"], 0);
}

// Invariant 7: what was not written is not told as written.
#[tokio::test]
async fn a_count_that_a_webhook_keeps_is_no_sleep() {
    let lab = Lab::new().await;
    let before = lab.get().await;
    let keeps = Fault::always(Effect::KeepObject).on(http::Method::PATCH);
    lab.double.inject(keeps);
    let kept = lab.engine.write(&before, sleep(&before)).await.unwrap_err();
    assert!(
        matches!(&kept, PortError::Refused(words) if words.contains("2 is what it has")),
        "{kept}"
    );
}

/// What an autoscaler says of a pod.
fn said(pod: &Value, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "namespace": "project-a", "name": "e1" },
        "involvedObject": { "kind": "Pod", "uid": pod["metadata"]["uid"] },
        "reason": reason, "message": message, "lastTimestamp": "2030-01-01T00:00:00Z",
    })
}

// F24: Pending and its reason, never "running"
#[tokio::test]
async fn what_the_autoscaler_of_nodes_says_is_part_of_the_reason() {
    let lab = Lab::new().await;
    let mut pod = objects::pod("project-a", "sample-app-a", "x1");
    pod["status"]["conditions"] = json!([{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available.",
    }]);
    let pod = lab.double.put(pod);
    lab.double
        .edit(crate::lab::PATH, |object| object["status"] = json!({}));
    let words = "pod triggered scale-up: [{projecta 0->1 (max: 3)}]";
    lab.double.put(said(&pod, "TriggeredScaleUp", words));
    let told = lab
        .sees("the autoscaler's words", |w| {
            w.pending
                .as_ref()
                .is_some_and(|pending| pending.to_string().contains("projecta 0->1"))
        })
        .await;
    assert_eq!(told.replicas[0].stage, Stage::NodeJoining);
    assert!(
        told.pending
            .as_ref()
            .unwrap()
            .to_string()
            .contains("0/3 nodes are available")
    );
}

// F24: a node that is there and has no device yet is told from one that is still to come, and from one that is full
#[tokio::test]
async fn a_node_whose_device_is_still_to_come_is_told() {
    let lab = Lab::new().await;
    let node = |name: &str, project: &str, allocatable: serde_json::Value| {
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "labels": { "project": project } },
            "status": {
                "conditions": [{ "type": "Ready", "status": "True" }], "allocatable": allocatable,
            },
        })
    };
    let gpu = |count: &str| json!({ "cpu": "4", "nvidia.com/gpu": count });
    lab.double.put(node("full", "b", gpu("1")));
    lab.double.put(node("other", "a", json!({ "cpu": "4" })));
    // It was there before the pod, so it did not come for it.
    let mut old = node("old", "b", json!({ "cpu": "4" }));
    old["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
    lab.double.put(old);
    let mut pod = objects::pod("project-a", "sample-app-a", "x1");
    pod["spec"]["nodeSelector"] = json!({ "project": "b" });
    pod["spec"]["containers"][0]["resources"] =
        json!({ "limits": { "cpu": "1", "nvidia.com/gpu": "1" } });
    pod["status"]["conditions"] = json!([{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/2 nodes are available: 1 Insufficient nvidia.com/gpu.",
    }]);
    let pod = lab.double.put(pod);
    lab.double
        .edit(crate::lab::PATH, |object| object["status"] = json!({}));
    let words = "Pod should schedule on: nodeclaim/gpu-x";
    lab.double.put(said(&pod, "Nominated", words));
    let says = |w: &Workload, words: &str| {
        let pending = w.pending.as_ref();
        pending.is_some_and(|pending| pending.to_string().contains(words))
    };
    let coming = lab
        .sees("the node on its way", |w| says(w, "nodeclaim/gpu-x"))
        .await;
    assert_eq!(coming.replicas[0].stage, Stage::NodeJoining);
    lab.double.put(node("new", "b", gpu("0")));
    let there = lab
        .sees("the node without its device", |w| {
            says(w, "node new is ready but has no nvidia.com/gpu yet")
        })
        .await;
    assert_eq!(there.replicas[0].stage, Stage::Driver);
    let words = there.pending.as_ref().unwrap().to_string();
    assert!(words.contains("1 Insufficient nvidia.com/gpu"), "{words}");
    assert!(!words.contains("autoscaler"), "{words}");
}

// who set the count is told by managed fields
#[tokio::test]
async fn whoever_set_the_count_is_named() {
    let lab = Lab::new().await;
    let workload = lab.get().await;
    let writer = lab.engine.count_writer(&workload).await.unwrap();
    assert_eq!(
        writer,
        Some(nagi_core::intent::CountWriter::Other("kubectl".into()))
    );
    let asleep = lab.engine.write(&workload, sleep(&workload)).await.unwrap();
    let gateway = lab.second(nagi_kube::Rights::ScaleOnly);
    gateway.synced().await;
    gateway
        .engine
        .write(&asleep, wake(&asleep, 2))
        .await
        .unwrap();
    let writer = lab.engine.count_writer(&workload).await.unwrap();
    assert_eq!(writer, Some(nagi_core::intent::CountWriter::Gateway));
}
