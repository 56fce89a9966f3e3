//! The founding documents' calls on a cluster: what is answered, what is on the wire, and who fires a schedule.

use std::time::Duration;

use nagi_kube_double::{Double, Effect, Fault, objects};
use serde_json::{Value, json};

use crate::process::{PATIENCE, Process};

const PATH: &str = "/apis/apps/v1/namespaces/project-a/deployments/sample-app-a";
const BASE: &str = "/api/v1/deployments/project-a/sample-app-a";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/scale-system/leases/nagi-leader";

async fn cluster() -> Double {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    double
}

fn replicas(double: &Double) -> Value {
    double.get(PATH).unwrap()["spec"]["replicas"].clone()
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

// A-120, A-122, A-123, A-124, A-128, A-129, A-152, A-153, A-155, A-156, A-157
#[tokio::test]
async fn sleep_status_and_wake_as_the_founding_documents_have_them() {
    let double = cluster().await;
    let server = Process::server(&double);
    server.ready().await;
    let asleep = server
        .post(
            &format!("{BASE}/scale-to-zero"),
            r#"{"reason": "コスト最適化のため"}"#,
        )
        .await;
    assert_eq!(asleep.status, 200, "{asleep:?}");
    assert_eq!(asleep.body["message"], "Deployment scaled to zero");
    assert_eq!(asleep.body["deployment"]["previous_replicas"], 2);
    assert_eq!(
        asleep.body["deployment"]["scaling_reason"],
        "コスト最適化のため"
    );
    assert_eq!(replicas(&double), 0);
    let again = server
        .post(&format!("{BASE}/scale-to-zero"), r#"{"reason": "again"}"#)
        .await;
    assert_eq!(
        (
            again.status,
            &again.body["deployment"]["remembered_replicas"]
        ),
        (200, &json!(2))
    );
    double.edit(PATH, |object| object["status"] = json!({}));
    let status = server
        .until(&format!("{BASE}/status"), |answer| {
            answer.body["deployment"]["status"] == "inactive"
        })
        .await;
    assert_eq!(
        status.body["message"],
        "Deployment status retrieved successfully"
    );
    let up = server
        .post(
            &format!("{BASE}/scale-up"),
            r#"{"replicas": 3, "reason": "test"}"#,
        )
        .await;
    assert_eq!(
        (up.status, &up.body["message"]),
        (200, &json!("Deployment scaled to 3 replicas"))
    );
    let down = server
        .post(
            &format!("{BASE}/scale-up"),
            r#"{"replicas": 2, "reason": "test"}"#,
        )
        .await;
    assert_eq!((down.status, replicas(&double)), (200, json!(2)));
    // A-025: pods that stay pending are not told as running.
    let status = server.get(&format!("{BASE}/status")).await.unwrap();
    assert_eq!(status.body["deployment"]["status"], "scaling");
}

// DESIGN §5: an order is about what was read. What was deleted and made again before the write is another one.
#[tokio::test]
async fn an_order_is_not_carried_out_on_what_was_made_again_meanwhile() {
    let double = cluster().await;
    let server = Process::server(&double);
    server.ready().await;
    let held = double.inject(Fault::always(Effect::Hold).on(http::Method::PATCH));
    let path = format!("{BASE}/scale-to-zero");
    let (answer, ()) = tokio::join!(server.post(&path, r#"{"reason": "night"}"#), async {
        let is_patch = |request: &nagi_kube_double::Recorded| request.method == http::Method::PATCH;
        eventually("a patch on its way", || {
            double.requests().iter().any(is_patch)
        })
        .await;
        double.delete(PATH);
        double.put(objects::deployment("project-a", "sample-app-a", 3));
        double.lift(held);
    });
    assert_eq!(
        (answer.status, &answer.body["message"]),
        (500, &json!("Failed to scale deployment"))
    );
    let hint = answer.body["hint"].as_str().unwrap();
    assert!(hint.contains("deleted and made again"), "{answer:?}");
    assert_eq!(replicas(&double), 3);
    // Whoever means the new one says so once more.
    let again = server.post(&path, r#"{"reason": "night"}"#).await;
    assert_eq!(
        again.body["deployment"]["previous_replicas"], 3,
        "{again:?}"
    );
}

// A-020, A-083, A-150, K-08
#[tokio::test]
async fn refusals_say_whose_they_are() {
    let double = cluster().await;
    let server = Process::server(&double);
    server.ready().await;
    let missing = server
        .post("/api/v1/deployments/project-a/nobody/scale-to-zero", "")
        .await;
    assert_eq!(
        (missing.status, &missing.body["message"]),
        (404, &json!("Deployment project-a/nobody not found"))
    );
    for code in [403, 422, 500] {
        let fault = double.inject(Fault::status(code).on(http::Method::PATCH));
        let refused = server
            .post(&format!("{BASE}/scale-to-zero"), r#"{"reason": "x"}"#)
            .await;
        assert_eq!(
            (refused.status, &refused.body["message"]),
            (500, &json!("Failed to scale deployment")),
            "{code}"
        );
        assert!(
            refused.body["error"]
                .as_str()
                .is_some_and(|error| error.contains(&code.to_string())),
            "{refused:?}"
        );
        double.lift(fault);
    }
    // A-020: somebody else writes for ever.
    let storm = double.inject(Fault::status(409).on(http::Method::PATCH));
    let refused = server
        .post(&format!("{BASE}/scale-to-zero"), r#"{"reason": "x"}"#)
        .await;
    assert_eq!(
        (refused.status, &refused.body["message"]),
        (500, &json!("Failed to scale deployment"))
    );
    double.lift(storm);
    // A-164: two conflicts are decided anew and then succeed.
    double.inject(Fault::status(409).on(http::Method::PATCH).times(2));
    let done = server
        .post(&format!("{BASE}/scale-to-zero"), r#"{"reason": "x"}"#)
        .await;
    assert_eq!(done.status, 200, "{done:?}");
    double.stop().await;
    let away = server
        .post(
            &format!("{BASE}/scale-up"),
            r#"{"replicas": 2, "reason": "x"}"#,
        )
        .await;
    assert_eq!(away.status, 503, "{away:?}");
}

// A-041, A-099, K-28, W-A01: three processes, one fires, and killing the leader loses nothing
#[tokio::test]
async fn a_schedule_fires_once_whoever_is_killed() {
    let double = cluster().await;
    let mut servers: Vec<Process> = (0..3).map(|_| Process::server(&double)).collect();
    for server in &servers {
        server.ready().await;
    }
    let at = (jiff::Timestamp::now() + Duration::from_secs(4)).to_string();
    let body = json!({ "reason": "night", "scheduled_scale_up": at }).to_string();
    let set = servers[0]
        .post(&format!("{BASE}/scale-to-zero"), &body)
        .await;
    assert_eq!(set.status, 200, "{set:?}");
    // The leader goes in order, as in a rollout.
    let holder = || {
        double.get(LEASE).unwrap_or_default()["spec"]["holderIdentity"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    eventually("a leader", || !holder().is_empty()).await;
    let first = holder();
    let leader = servers
        .iter()
        .position(|server| server.log().contains(&first))
        .expect("its line");
    let gone = servers.remove(leader);
    gone.signal(nix::sys::signal::Signal::SIGTERM);
    eventually("another leader", || {
        !holder().is_empty() && holder() != first
    })
    .await;
    eventually("the wake", || replicas(&double) == 2).await;
    let fired = double.requests().into_iter().filter(|request| {
        request.method == "PATCH"
            && request.path.starts_with(PATH)
            && serde_json::from_slice::<Value>(&request.body).unwrap()["spec"]["replicas"] == 2
    });
    assert_eq!(fired.count(), 1);
    let object = double.get(PATH).unwrap();
    assert!(
        object["metadata"]["annotations"]
            .get("nagi.dev/scheduled-scale-up")
            .is_none()
    );
    let status = servers[0]
        .until(&format!("{BASE}/status"), |answer| {
            answer.body["deployment"]["desired_replicas"] == 2
        })
        .await;
    assert_eq!(
        status.body["deployment"]["last_change"]["action"], "scheduled-wake",
        "{status:?}"
    );
}

// Issue 4 item 3: a write at one replica is seen at the other
#[tokio::test]
async fn a_write_at_one_replica_is_seen_at_the_other_with_its_version() {
    let double = cluster().await;
    let (one, two) = (Process::server(&double), Process::server(&double));
    one.ready().await;
    two.ready().await;
    let written = one
        .post(&format!("{BASE}/scale-to-zero"), r#"{"reason": "x"}"#)
        .await;
    let version = written.body["deployment"]["resource_version"].to_string();
    let version = version.trim_matches('"');
    let seen = two
        .get(&format!("{BASE}/status?min_resource_version={version}"))
        .await
        .unwrap();
    assert_eq!(seen.body["deployment"]["desired_replicas"], 0, "{seen:?}");
}

// DESIGN §5: no replica contradicts another. Where nothing is to be written, nothing checks what a cache says.
#[tokio::test]
async fn an_order_that_seems_to_be_carried_out_already_is_decided_on_what_holds_now() {
    let double = cluster().await;
    let (one, two) = (Process::server(&double), Process::server(&double));
    one.ready().await;
    two.ready().await;
    double.watches_lag(Duration::from_secs(3));
    let replicas = || double.get(PATH).unwrap()["spec"]["replicas"].clone();
    let before = replicas();
    let asleep = one
        .post(&format!("{BASE}/scale-to-zero"), r#"{"reason": "x"}"#)
        .await;
    assert_eq!(asleep.status, 200, "{asleep:?}");
    // The other one has not heard of it, and all is as it is asked for in its eyes.
    let up = format!(r#"{{"replicas": {before}, "reason": "x"}}"#);
    let woken = two.post(&format!("{BASE}/scale-up"), &up).await;
    assert_eq!(woken.status, 200, "{woken:?}");
    assert_eq!(
        replicas(),
        before,
        "answered as done, and not done: {woken:?}"
    );
    // Now the first one has not.
    let again = one
        .post(&format!("{BASE}/scale-to-zero"), r#"{"reason": "x"}"#)
        .await;
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(replicas(), 0, "answered as done, and not done: {again:?}");
    let wake = two.post(&format!("{BASE}/wake"), "").await;
    assert_eq!(wake.status, 202, "{wake:?}");
    assert_eq!(
        replicas(),
        before,
        "answered as done, and not done: {wake:?}"
    );
}
