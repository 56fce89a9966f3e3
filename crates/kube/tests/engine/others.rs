//! The other ports: history and Events, pools; what webhooks keep; what autoscalers of nodes say.

use nagi_core::pool::NodePhase;
use nagi_core::wake::Stage;
use nagi_core::workload::Workload;
use nagi_kube_double::{Effect, Fault, objects};
use nagi_ports::{HistoryQuery, Journal, Nodes, PortError, Workloads};
use serde_json::{Value, json};

use crate::lab::{Lab, eventually, sleep, wake};

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

// Whoever may write Events in one namespace does not write the history of another.
#[tokio::test]
async fn an_event_about_another_namespace_is_no_history() {
    let lab = Lab::new().await;
    let now = lab.get().await;
    lab.engine.write(&now, sleep(&now)).await.unwrap();
    eventually("an Event of ours", async || !events(&lab).is_empty()).await;
    let mut forged = events(&lab).remove(0);
    forged["metadata"] = json!({
        "namespace": "project-b", "name": "forged",
        "annotations": { "nagi.dev/changes": forged["metadata"]["annotations"]["nagi.dev/changes"]
            .as_str().unwrap().replace("key/ops", "key/somebody") },
    });
    lab.double.put(forged);
    let page = lab.engine.history(&query()).await.unwrap();
    assert_eq!(page.entries.len(), 1, "{page:?}");
    assert!(!format!("{page:?}").contains("somebody"), "{page:?}");
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

// The same of what is remembered: told as written, it would be written again and again.
#[tokio::test]
async fn a_record_that_a_webhook_keeps_is_no_record() {
    let lab = Lab::new().await;
    let before = lab.get().await;
    let mut recorded = sleep(&before);
    recorded.desired = before.desired;
    let keeps = Fault::always(Effect::KeepObject).on(http::Method::PATCH);
    lab.double.inject(keeps);
    let kept = lab.engine.write(&before, recorded).await.unwrap_err();
    assert!(
        matches!(&kept, PortError::Refused(words) if words.contains("annotations are as before")),
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
    // Where Events may not be read, nothing is told; everywhere else it is.
    lab.double
        .inject(Fault::status(403).at("/namespaces/closed/events"));
    let mut first = objects::deployment("closed", "first", 1);
    first["status"] = json!({});
    lab.double.put(first);
    let mut closed = objects::pod("closed", "first", "x0");
    closed["status"]["conditions"] = json!([{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available.",
    }]);
    lab.double.put(closed);
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
