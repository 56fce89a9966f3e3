//! The log line of every request, and what is counted (F14, F15, F16).

use serde_json::Value;

use super::world::{BASE, Setup, world};
use crate::keys::KeySources;

// A-022, A-039, A-047, A-048, A-054, A-096, A-161, W-A22, W-A24
#[tokio::test(start_paused = true)]
async fn one_request_leaves_one_line_with_the_names_of_the_seeds() {
    let w = world();
    let path = format!("{BASE}/scale-to-zero");
    let answer = w
        .post(&path, r#"{"reason":"コスト","password":"hunter2"}"#)
        .header("user-agent", "curl/8.5.0")
        .header("x-request-id", "abc-1")
        .send()
        .await
        .expect(200);
    assert_eq!(answer.header("x-request-id"), "abc-1");
    let lines = w.log_lines();
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    for (field, value) in [
        ("level", "info"),
        ("method", "POST"),
        ("path", path.as_str()),
        ("remote_ip", "192.0.2.1"),
        ("user_agent", "curl/8.5.0"),
        ("request_id", "abc-1"),
        ("namespace", "project-a"),
        ("workload", "sample-app-a"),
        ("action", "scale-to-zero"),
        ("actor", "anonymous"),
        ("reason", "コスト"),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    assert_eq!(
        (&line["status"], &line["from"], &line["to"]),
        (&Value::from(200), &Value::from(1), &Value::from(0))
    );
    for field in ["latency", "latency_upstream"] {
        assert!(line[field].as_str().unwrap().ends_with("ms"), "{line}");
    }
    assert!(
        !line.to_string().contains("hunter2"),
        "bodies are not logged"
    );
}

// A-096, issue 3: whoever looks for a path finds it however it was written.
#[tokio::test(start_paused = true)]
async fn the_line_has_the_path_that_was_meant() {
    let w = world();
    let path = format!("{BASE}/scale-to-zero");
    let written = path.replace("deployments", "%64eployments");
    w.post(&written, r#"{"reason":"x"}"#)
        .send()
        .await
        .expect(200);
    w.get("/%68ealth").send().await.expect(200);
    w.get("/a%2Fb%zz").send().await.expect(404);
    let paths: Vec<_> = w
        .log_lines()
        .iter()
        .map(|line| line["path"].clone())
        .collect();
    assert_eq!(paths, [path.as_str(), "/health", "/a%2Fb%zz"]);
}

// A-030, A-032, A-039, A-046, A-055, A-056
#[tokio::test(start_paused = true)]
async fn refusals_are_found_by_their_words_and_successes_are_not() {
    let setup = Setup {
        keys: KeySources {
            api_key: Some("k".to_owned()),
            ..KeySources::default()
        },
        ..Setup::default()
    };
    let w = setup.world();
    let status = format!("{BASE}/status");
    w.get(&status).send().await.expect(401);
    w.post(
        &BASE
            .replace("project-a", "kube-system")
            .replace("sample-app-a", "x/wake"),
        "",
    )
    .key("k")
    .send()
    .await
    .expect(403);
    w.get(&status).key("k").send().await.expect(200);
    w.get("/nowhere?token=secret").send().await.expect(404);
    let lines = w.log_lines();
    assert_eq!(lines.len(), 4, "n requests make n lines");
    let words = ["forbidden", "unauthorized", "denied"];
    let found = |line: &Value| {
        words
            .iter()
            .any(|word| line.to_string().to_lowercase().contains(word))
    };
    assert_eq!(
        lines.iter().map(found).collect::<Vec<_>>(),
        [true, true, false, false]
    );
    assert!(
        lines[0]["message"]
            .as_str()
            .unwrap()
            .to_lowercase()
            .contains("auth")
    );
    assert_eq!(lines[0]["level"], "warn");
    assert_eq!(lines[3]["path"], "/nowhere");
    assert!(
        !format!("{lines:?}").contains("secret"),
        "queries are not logged"
    );
}

// A-161, R21, W-A26
#[tokio::test(start_paused = true)]
async fn a_hostile_request_id_is_replaced_by_one_of_ours() {
    let w = world();
    let long = "x".repeat(129);
    for ids in [
        &["a b"][..],
        &["a\"b"],
        &[long.as_str()],
        &["a", "a"],
        &["é"],
        &[""],
        &[],
    ] {
        let mut asking = w.get("/health");
        for id in ids {
            asking = asking.header("x-request-id", id);
        }
        let answer = asking.send().await.expect(200);
        let id = answer.header("x-request-id").to_owned();
        assert_eq!(id.len(), 32, "{ids:?} became {id}");
        assert_eq!(w.log_lines().last().unwrap()["request_id"], id);
    }
    let kept = "x".repeat(128);
    let answer = w.get("/health").header("x-request-id", &kept).send().await;
    assert_eq!(answer.header("x-request-id"), kept);
    let errors = w.get("/nope").header("x-request-id", "e-1").send().await;
    assert_eq!(errors.header("x-request-id"), "e-1");
}

// A-050, R22, W-A30
#[tokio::test(start_paused = true)]
async fn metrics_count_by_template_and_never_by_what_clients_send() {
    let w = world();
    w.post(
        &format!("{BASE}/scale-up"),
        r#"{"reason":"x","replicas":2}"#,
    )
    .send()
    .await
    .expect(200);
    w.post(
        &format!("{BASE}/scale-up"),
        r#"{"reason":"x","replicas":0}"#,
    )
    .send()
    .await
    .expect(400);
    w.post(
        &format!("{BASE}/scale-to-zero"),
        r#"{"reason":"x","scheduled_scale_up":"2030-06-01T00:00:00Z"}"#,
    )
    .send()
    .await
    .expect(200);
    for n in 0..50 {
        w.request(&format!("M{n}"), &format!("/nope/{n}"))
            .send()
            .await
            .expect(404);
        w.get(&format!("/api/v1/deployments/project-a/app-{n}/status"))
            .send()
            .await
            .expect(404);
    }
    let text =
        String::from_utf8(w.get("/metrics").send().await.expect(200).bytes.to_vec()).unwrap();
    let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    let up = "/api/v1/{resource}/{namespace}/{name}/scale-up";
    has(&format!(
        r#"nagi_http_requests_total{{method="POST",route="{up}",status="200"}} 1"#
    ));
    has(&format!(
        r#"nagi_http_requests_total{{method="POST",route="{up}",status="400"}} 1"#
    ));
    has(r#"nagi_http_requests_total{method="other",route="unknown",status="404"} 50"#);
    has(
        r#"nagi_http_requests_total{method="GET",route="/api/v1/{resource}/{namespace}/{name}/status",status="404"} 50"#,
    );
    has(r#"nagi_scale_operations_total{action="scale-up",result="changed"} 1"#);
    has(r#"nagi_scale_operations_total{action="scale-to-zero",result="changed"} 1"#);
    has(r#"nagi_workloads{status="scaling"} 1"#);
    has(r#"nagi_workloads{status="active"} 0"#);
    let observed = "nagi_workloads_observed_timestamp_seconds ";
    let line = |text: &str| {
        text.lines()
            .find(|line| line.starts_with(observed))
            .map(str::to_owned)
    };
    let seen = line(&text);
    assert!(
        seen.as_ref().is_some_and(|seen| !seen.ends_with(" 0.0")),
        "{seen:?}"
    );
    has("nagi_scheduled_scale_ups 1");
    has("nagi_auth_disabled 1");
    assert!(!text.contains("app-7") && !text.contains("nope"));

    // No data is not zero: what was counted stays.
    w.workloads
        .fail_always(Some(nagi_testkit::Fault::Hang), None);
    let again = w.get("/metrics").send().await.expect(200);
    let again = String::from_utf8_lossy(&again.bytes);
    assert!(again.contains(r#"nagi_workloads{status="scaling"} 1"#));
    assert_eq!(line(&again), seen, "and the time at which it was seen");
}
