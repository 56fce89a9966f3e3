//! Sleep, scale up, status, wake, schedules: the founding documents' calls, word for word.

use std::time::Duration;

use nagi_core::idle::Activity;
use nagi_core::intent::{Action, Actor};
use nagi_core::quantity::{Replicas, WakeCount};
use nagi_core::workload::{Autoscaler, Pending};
use nagi_testkit::workload;
use serde_json::{Value, json};

use super::world::{APP_A, BASE, Setup, World, app_a, world};

fn with(desired: u32, current: u32, available: u32) -> World {
    let setup = Setup {
        workloads: Some(vec![workload(APP_A, desired, current, available)]),
        ..Setup::default()
    };
    setup.world()
}

fn verb(verb: &str) -> String {
    format!("{BASE}/{verb}")
}

fn timestamp(w: &World) -> Value {
    serde_json::to_value(nagi_api::Time::in_millis(w.now())).unwrap()
}

// A-120, A-122, A-128, A-152, K-21, K-23, W-A12, W-A13, W-A14, W-A16
#[tokio::test(start_paused = true)]
async fn scale_to_zero_answers_as_documented() {
    let w = world();
    let body = r#"{"reason": "コスト最適化のため"}"#;
    let answer = w
        .post(&verb("scale-to-zero"), body)
        .send()
        .await
        .expect(200);
    assert_eq!(
        answer.json(),
        json!({
            "status": "success",
            "message": "Deployment scaled to zero",
            "deployment": {
                "name": "sample-app-a",
                "namespace": "project-a",
                "resource": "deployments",
                "previous_replicas": 1,
                "current_replicas": 0,
                "observed_replicas": 1,
                "target_replicas": 0,
                "target_status": "scaled-to-zero",
                "direction": "down",
                "scaling_reason": "コスト最適化のため",
                "remembered_replicas": 1,
                "last_scale_time": timestamp(&w),
                "resource_version": "2",
            },
            "timestamp": timestamp(&w),
        })
    );
    let after = w.app_a();
    assert_eq!(after.desired, Replicas::ZERO);
    let change = after.intent.changes.last().unwrap();
    assert_eq!(
        (change.action, &change.actor),
        (Action::ScaleToZero, &Actor::Anonymous)
    );
    assert_eq!(
        change.request_id.as_ref().unwrap().as_str(),
        answer.header("x-request-id")
    );
}

// A-153, R10, W-A02: a repetition is a success, changes nothing, and moves no time.
#[tokio::test(start_paused = true)]
async fn a_second_scale_to_zero_changes_nothing() {
    let w = with(3, 3, 3);
    let order = || {
        w.post(&verb("scale-to-zero"), r#"{"reason":"test"}"#)
            .send()
    };
    let first = order().await.expect(200);
    tokio::time::advance(Duration::from_mins(1)).await;
    let second = order().await.expect(200);
    assert_eq!(second.at("/message"), first.at("/message"));
    assert_eq!(second.at("/deployment/previous_replicas"), 0);
    assert_eq!(second.at("/deployment/remembered_replicas"), 3);
    assert_eq!(second.at("/deployment/direction"), "none");
    let moved = "/deployment/last_scale_time";
    assert_eq!(second.at(moved), first.at(moved));
    assert_eq!(w.workloads.writes().len(), 1);
}

// A-123, A-129, A-155, A-156, W-A15, R11
#[tokio::test(start_paused = true)]
async fn scale_up_sets_the_count_in_either_direction() {
    let rows = [
        (0, 2, "up", "scaling-up"),
        (3, 2, "down", "scaling-down"),
        (2, 2, "none", "unchanged"),
    ];
    for (from, to, direction, target) in rows {
        let w = with(from, from, from);
        let body = json!({"replicas": to, "reason": "サンプルアプリ開始のため"}).to_string();
        let answer = w.post(&verb("scale-up"), &body).send().await.expect(200);
        assert_eq!(
            answer.at("/message"),
            format!("Deployment scaled to {to} replicas")
        );
        let deployment = answer.at("/deployment");
        assert_eq!(deployment["previous_replicas"], from);
        assert_eq!(deployment["current_replicas"], from);
        assert_eq!(deployment["observed_replicas"], from);
        assert_eq!(deployment["target_replicas"], to);
        assert_eq!(deployment["target_status"], target);
        assert_eq!(deployment["direction"], direction);
        assert_eq!(deployment["scaling_reason"], "サンプルアプリ開始のため");
        assert_eq!(w.app_a().desired, Replicas(to));
    }
}

// A-025, W-A32: success is not a promise that it runs.
#[tokio::test(start_paused = true)]
async fn a_workload_whose_replicas_are_pending_is_scaling_with_a_reason() {
    let mut pending = workload(APP_A, 2, 2, 0);
    pending.pending = Some(Pending::Engine("0/3 nodes are available".to_owned()));
    let setup = Setup {
        workloads: Some(vec![pending]),
        ..Setup::default()
    };
    let w = setup.world();
    let body = r#"{"replicas": 2, "reason": "test"}"#;
    w.post(&verb("scale-up"), body).send().await.expect(200);
    let answer = w.get(&verb("status")).send().await.expect(200);
    assert_eq!(answer.at("/deployment/status"), "scaling");
    assert_eq!(answer.at("/deployment/available_replicas"), 0);
    assert_eq!(answer.at("/deployment/reason"), "0/3 nodes are available");
    assert_eq!(answer.at("/deployment/reason_code"), "engine");
}

// A-124, A-157
#[tokio::test(start_paused = true)]
async fn status_answers_as_documented() {
    let w = world();
    w.post(&verb("scale-up"), r#"{"replicas":1,"reason":"test"}"#)
        .send()
        .await
        .expect(200);
    w.traffic.set(
        &app_a(),
        Some(Activity {
            in_flight: 3,
            held: 1,
            quiet_for: Duration::ZERO,
        }),
    );
    let answer = w.get(&verb("status")).send().await.expect(200);
    assert_eq!(answer.at("/status"), "success");
    assert_eq!(
        answer.at("/message"),
        "Deployment status retrieved successfully"
    );
    let deployment = answer.at("/deployment");
    for (field, value) in [
        ("name", json!("sample-app-a")),
        ("namespace", json!("project-a")),
        ("deployment", json!("sample-app-a")),
        ("current_replicas", json!(1)),
        ("desired_replicas", json!(1)),
        ("available_replicas", json!(1)),
        ("status", json!("active")),
        ("in_flight_requests", json!(3)),
        ("held_requests", json!(1)),
    ] {
        assert_eq!(deployment[field], value, "{field}");
    }
    // W-A02: nobody knows when it last scaled, so nothing is made up.
    assert_eq!(deployment.get("last_scale_time"), None);
}

// A-025, A-158, K-22, R09
#[tokio::test(start_paused = true)]
async fn the_status_word_follows_the_truth_table() {
    let rows = [
        ((0, 0, 0), "inactive"),
        ((0, 1, 0), "scaling"),
        ((1, 1, 1), "active"),
        ((2, 2, 1), "scaling"),
        ((2, 3, 2), "scaling"),
    ];
    for ((desired, current, available), word) in rows {
        let w = with(desired, current, available);
        let deployment = w
            .get(&verb("status"))
            .send()
            .await
            .expect(200)
            .at("/deployment");
        assert_eq!(deployment["status"], word);
        assert_eq!(
            deployment.get("reason").is_some(),
            word == "scaling",
            "{deployment}"
        );
    }
}

// A-083, A-111: other kinds speak of themselves.
#[tokio::test(start_paused = true)]
async fn messages_name_the_kind() {
    let mut db = workload("project-a/db", 1, 1, 1);
    db.id.resource = nagi_core::id::Resource::new("statefulsets").unwrap();
    let setup = Setup {
        workloads: Some(vec![db]),
        ..Setup::default()
    };
    let w = setup.world();
    let path = "/api/v1/statefulsets/project-a/db/scale-to-zero";
    let answer = w.post(path, r#"{"reason":"x"}"#).send().await.expect(200);
    assert_eq!(answer.at("/message"), "StatefulSet scaled to zero");
    let missing = path.replace("/db/", "/cache/");
    let answer = w.post(&missing, "").send().await.expect(404);
    assert_eq!(
        answer.at("/message"),
        "StatefulSet project-a/cache not found"
    );
}

// R13: the same judgement, the same answer, no write.
#[tokio::test(start_paused = true)]
async fn a_dry_run_answers_like_the_real_call_and_writes_nothing() {
    let calls = [
        ("POST", "scale-to-zero", r#"{"reason":"x"}"#, 200),
        ("POST", "scale-up", r#"{"reason":"x","replicas":2}"#, 200),
        ("POST", "scale-up", r#"{"reason":"x","replicas":101}"#, 400),
        ("POST", "wake", "", 200),
        ("DELETE", "scheduled-scale-up", "", 404),
    ];
    for (method, name, body, status) in calls {
        let w = world();
        let dry = w
            .request(method, &format!("{BASE}/{name}?dry_run=true"))
            .body(body)
            .send()
            .await
            .expect(status);
        assert_eq!(w.workloads.writes(), [], "{name}");
        assert_eq!(
            dry.at("/dry_run"),
            if status == 200 {
                json!(true)
            } else {
                json!(null)
            }
        );
        let real = w
            .request(method, &verb(name))
            .body(body)
            .send()
            .await
            .expect(status);
        let (mut dry, mut real) = (dry.json(), real.json());
        for answer in [&mut dry, &mut real] {
            answer.as_object_mut().unwrap().remove("dry_run");
            if let Some(deployment) = answer.get_mut("deployment") {
                deployment
                    .as_object_mut()
                    .unwrap()
                    .remove("resource_version");
            }
        }
        assert_eq!(dry, real, "{name}");
    }
    let w = world();
    w.post(
        &format!("{BASE}/scale-to-zero?dry_run=true"),
        r#"{"reason":"x"}"#,
    )
    .send()
    .await
    .expect(200);
    assert_eq!(w.log_lines()[0]["dry_run"], true);
}

// R24, A-074
#[tokio::test(start_paused = true)]
async fn warnings_are_a_list_and_left_out_when_empty() {
    let w = with(1, 1, 1);
    w.workloads.change(&app_a(), |facts| {
        facts.autoscaler = Some(Autoscaler {
            name: "HorizontalPodAutoscaler/web".to_owned(),
            minimum: Replicas(2),
        });
    });
    w.traffic.set(
        &app_a(),
        Some(Activity {
            in_flight: 4,
            held: 7,
            quiet_for: Duration::ZERO,
        }),
    );
    let answer = w
        .post(&verb("scale-to-zero"), r#"{"reason":"x"}"#)
        .send()
        .await
        .expect(200);
    let warnings = answer.at("/warnings");
    assert_eq!(warnings.as_array().unwrap().len(), 3, "{warnings}");
    assert!(warnings[2].as_str().unwrap().contains("7 requests"));
    assert!(
        warnings[0]
            .as_str()
            .unwrap()
            .contains("HorizontalPodAutoscaler/web")
    );
    assert!(warnings[1].as_str().unwrap().contains("4 open connections"));

    let never_awake = with(0, 0, 0);
    let answer = never_awake
        .post(&verb("scale-to-zero"), r#"{"reason":"x"}"#)
        .send()
        .await
        .expect(200);
    assert!(
        answer
            .at("/warnings/0")
            .as_str()
            .unwrap()
            .contains("nagi.dev/awake-replicas")
    );
    let quiet = with(1, 1, 1)
        .post(&verb("scale-to-zero"), r#"{"reason":"x"}"#)
        .send()
        .await
        .expect(200);
    assert_eq!(quiet.json().get("warnings"), None);
}

// F06, A-041, K-28, R07, R12, W-A01
#[tokio::test(start_paused = true)]
async fn a_schedule_is_stored_with_the_count_shown_and_cancelled() {
    let w = with(2, 2, 2);
    let at = "2030-03-18T02:46:40+09:00";
    let body = json!({"reason": "night", "scheduled_scale_up": at}).to_string();
    let utc = "2030-03-17T17:46:40.000Z";
    // One hour before, the same clock time in UTC, is exactly the test's epoch: not later than now.
    w.post(&verb("scale-to-zero"), &body)
        .send()
        .await
        .expect(400);
    let (at, utc) = (
        at.replace("02:46:40", "03:46:40"),
        utc.replace("17:46", "18:46"),
    );
    let body = json!({"reason": "night", "scheduled_scale_up": at}).to_string();
    let answer = w
        .post(&verb("scale-to-zero"), &body)
        .send()
        .await
        .expect(200);
    assert_eq!(answer.at("/deployment/scheduled_scale_up"), utc);
    assert_eq!(
        w.workloads.writes().len(),
        1,
        "count and schedule are one write"
    );

    // A repeated scale-to-zero keeps it, and status and list show it.
    let again = w
        .post(&verb("scale-to-zero"), r#"{"reason":"x"}"#)
        .send()
        .await
        .expect(200);
    assert_eq!(again.at("/deployment/scheduled_scale_up"), utc);
    assert_eq!(
        w.get(&verb("status"))
            .send()
            .await
            .at("/deployment/scheduled_scale_up"),
        utc
    );
    let list = w
        .get("/api/v1/scheduled-scale-ups")
        .send()
        .await
        .expect(200);
    assert_eq!(list.at("/items/0/scheduled_scale_up"), utc);
    assert_eq!(list.at("/items/0/target_replicas"), 2);
    assert_eq!(list.at("/items/0/actor"), "anonymous");

    let path = verb("scheduled-scale-up");
    let cancelled = w.request("DELETE", &path).send().await.expect(200);
    assert_eq!(cancelled.at("/message"), "Scheduled scale up cancelled");
    assert_eq!(cancelled.at("/deployment/scheduled_scale_up"), utc);
    assert_eq!(w.app_a().intent.scheduled, None);
    let none = w.request("DELETE", &path).send().await.expect(404);
    assert_eq!(none.at("/message"), "No scheduled scale up");
    assert_eq!(
        w.get("/api/v1/scheduled-scale-ups")
            .send()
            .await
            .at("/items"),
        json!([])
    );
}

// R07
#[tokio::test(start_paused = true)]
async fn scale_up_cancels_a_schedule_and_a_wake_keeps_it() {
    for (name, body, kept) in [
        ("scale-up", r#"{"reason":"x","replicas":1}"#, false),
        ("wake", "", true),
    ] {
        let w = with(2, 2, 2);
        let sleep = r#"{"reason":"x","scheduled_scale_up":"2030-03-18T00:00:00Z"}"#;
        w.post(&verb("scale-to-zero"), sleep)
            .send()
            .await
            .expect(200);
        let answer = w.post(&verb(name), body).send().await;
        assert!(answer.status.is_success());
        assert_eq!(w.app_a().intent.scheduled.is_some(), kept, "{name}");
        assert_eq!(
            answer.at("/deployment/scheduled_scale_up").is_string(),
            kept,
            "{name}"
        );
    }
}

// R14
#[tokio::test(start_paused = true)]
async fn a_wake_starts_once_and_says_where_to_look() {
    let mut asleep = workload(APP_A, 0, 0, 0);
    asleep.intent.remembered = WakeCount::new(2);
    let setup = Setup {
        workloads: Some(vec![asleep]),
        ..Setup::default()
    };
    let w = setup.world();
    let answer = w.post(&verb("wake"), "").send().await.expect(202);
    assert_eq!(answer.at("/message"), "Wake started");
    assert_eq!(answer.header("location"), verb("status"));
    let deployment = answer.at("/deployment");
    assert_eq!(deployment["previous_replicas"], 0);
    assert_eq!(deployment["target_replicas"], 2);
    assert_eq!(deployment["stage"], "scaling");
    assert_eq!(deployment["eta_seconds"], Value::Null);
    assert_eq!(w.app_a().desired, Replicas(2));
    // The flight is shown while it lasts.
    let status = w.get(&verb("status")).send().await.expect(200);
    assert_eq!(status.at("/deployment/wake/stage"), "scaling");
    assert_eq!(status.at("/deployment/wake/trigger"), "call");

    w.workloads.settle(&app_a());
    tokio::time::sleep(Duration::from_millis(10)).await;
    let again = w
        .post(&verb("wake"), r#"{"reason":"again"}"#)
        .send()
        .await
        .expect(200);
    assert_eq!(again.at("/message"), "Already awake");
    assert_eq!(again.at("/deployment/stage"), "ready");
    assert_eq!(again.header("location"), "");
}

// A-083, A-150: whoever mistyped the namespace must not be sent to an empty list.
#[tokio::test(start_paused = true)]
async fn the_hint_of_a_404_leads_to_a_list_that_is_not_empty() {
    let w = world();
    for wrong in [
        BASE.replace("project-a", "projct-a"),
        BASE.replace("sample-app-a", "sampel-app-a"),
    ] {
        let answer = w.get(&format!("{wrong}/status")).send().await.expect(404);
        let hint = answer.at("/hint");
        let words = hint.as_str().unwrap().split([' ', ',']);
        let path = words.skip_while(|word| *word != "GET").nth(1).unwrap();
        let list = w.get(path).send().await.expect(200);
        assert_eq!(list.at("/items/0/name"), "sample-app-a", "{hint}");
    }
}

// R14, DESIGN §5
#[tokio::test(start_paused = true)]
async fn a_wake_answers_the_version_of_its_write_and_not_of_a_later_one() {
    let w = with(0, 0, 0);
    w.workloads.change(&app_a(), |facts| {
        facts.intent.remembered = WakeCount::new(2);
    });
    let answer = w.post(&verb("wake"), "").send().await.expect(202);
    let written = w.app_a().version.to_string();
    assert_eq!(answer.at("/deployment/resource_version"), written.as_str());
    // A replica starts: the flight has seen a later version.
    w.workloads.change(&app_a(), |facts| {
        facts.current.0 = 1;
        facts.replicas = workload(APP_A, 2, 1, 0).replicas;
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let joined = w.post(&verb("wake"), "").send().await.expect(202);
    assert_eq!(joined.at("/message"), "Already waking");
    assert_eq!(joined.at("/deployment/stage"), "starting");
    assert_eq!(joined.at("/deployment/previous_replicas"), 2);
    assert_eq!(joined.at("/deployment/current_replicas"), 1);
    assert_eq!(joined.at("/deployment/resource_version"), written.as_str());
}

// R14, issue 3: awake is what serves, however the count came to be wanted.
#[tokio::test(start_paused = true)]
async fn a_wake_of_what_is_wanted_is_under_way_until_something_serves() {
    for body in ["", r#"{"replicas":5}"#] {
        for query in ["", "?dry_run=true"] {
            let w = with(3, 1, 0);
            let path = format!("{}{query}", verb("wake"));
            let waking = w.post(&path, body).send().await.expect(202);
            assert_eq!(waking.at("/message"), "Already waking");
            assert_eq!(waking.at("/deployment/previous_replicas"), 3);
            assert_eq!(waking.at("/deployment/target_replicas"), 3);
            assert_eq!(waking.at("/deployment/stage"), "starting");
            assert_eq!(waking.header("location"), verb("status"));
            // One of three serves, and a wake may still be followed.
            w.workloads.change(&app_a(), |facts| {
                facts.available.0 = 1;
                facts.replicas = workload(APP_A, 3, 1, 1).replicas;
            });
            // The flight takes the event in.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let awake = w.post(&path, body).send().await.expect(200);
            assert_eq!(awake.at("/message"), "Already awake");
            assert_eq!(awake.at("/deployment/previous_replicas"), 3);
            assert_eq!(awake.at("/deployment/stage"), "ready");
            assert_eq!(w.workloads.writes(), []);
        }
    }
}

// R14: a count in the call, and none at all.
#[tokio::test(start_paused = true)]
async fn a_wake_without_a_known_count_names_the_annotation() {
    let w = with(0, 0, 0);
    let refused = w.post(&verb("wake"), "").send().await.expect(400);
    assert!(
        refused
            .at("/error")
            .as_str()
            .unwrap()
            .contains("nagi.dev/awake-replicas")
    );
    assert_eq!(w.workloads.writes(), []);
    let answer = w
        .post(&verb("wake"), r#"{"replicas":3}"#)
        .send()
        .await
        .expect(202);
    assert_eq!(answer.at("/deployment/target_replicas"), 3);
    let missing = w
        .post(&verb("wake").replace("app-a", "app-x"), "")
        .send()
        .await
        .expect(404);
    assert_eq!(
        missing.at("/message"),
        "Deployment project-a/sample-app-x not found"
    );
}
