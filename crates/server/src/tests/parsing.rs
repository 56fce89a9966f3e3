//! Requests at the edges of their form: order of checks, names, bodies, paths, methods.

use axum::http::StatusCode;
use serde_json::json;

use super::world::{BASE, Setup, world};
use crate::keys::KeySources;

const ZERO: &str = "/api/v1/deployments/project-a/sample-app-a/scale-to-zero";
const UP: &str = "/api/v1/deployments/project-a/sample-app-a/scale-up";

// R01: each row breaks every rule from its own on; the first one decides.
#[tokio::test(start_paused = true)]
async fn checks_come_in_one_order() {
    type Row = (
        &'static str,
        &'static str,
        Option<&'static str>,
        &'static [u8],
        u16,
    );
    let setup = || Setup {
        keys: KeySources {
            api_key: Some("secret".to_owned()),
            ..KeySources::default()
        },
        ..Setup::default()
    };
    let w = setup().world();
    let rows: [Row; 10] = [
        ("PUT", "/api/v1/nothing/here", None, b"x", 404),
        ("PUT", "/api/v1/pods/UPPER/x/scale-up", None, b"x", 404),
        (
            "PUT",
            "/api/v1/deployments/UPPER/x/scale-up",
            None,
            b"x",
            405,
        ),
        (
            "POST",
            "/api/v1/deployments/UPPER/x/scale-up",
            None,
            b"x",
            401,
        ),
        (
            "POST",
            "/api/v1/deployments/UPPER/x/scale-up",
            Some("secret"),
            b"x",
            400,
        ),
        (
            "POST",
            "/api/v1/deployments/kube-system/x/scale-up",
            Some("secret"),
            b"x",
            403,
        ),
        (
            "POST",
            "/api/v1/deployments/project-a/x/scale-up",
            Some("secret"),
            b"x",
            400,
        ),
        (
            "POST",
            "/api/v1/deployments/project-a/x/scale-up",
            Some("secret"),
            b" \r\n",
            404,
        ),
        (
            "POST",
            "/api/v1/deployments/project-a/x/scale-up",
            Some("secret"),
            br#"{"replicas":1,"reason":"x"}"#,
            404,
        ),
        ("POST", UP, Some("secret"), b"", 400),
    ];
    for (method, path, key, body, status) in rows {
        let mut asking = w.request(method, path).body(body);
        if let Some(key) = key {
            asking = asking.key(key);
        }
        let answer = asking.send().await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path} {body:?}");
    }
    // 429 stands before 413.
    let mut setup = setup();
    setup.config.rate.burst = 1;
    let w = setup.world();
    let large = vec![b' '; 64 * 1024 + 1];
    for status in [413, 429] {
        w.request("POST", UP)
            .key("secret")
            .body(large.clone())
            .send()
            .await
            .expect(status);
    }
}

// K-05, A-030, A-083, R01: the literal calls without a body.
#[tokio::test(start_paused = true)]
async fn an_empty_body_is_404_for_what_is_missing_and_400_for_what_is_there() {
    let w = world();
    for name in ["scale-to-zero", "scale-up"] {
        let missing = BASE.replace("sample-app-a", "no-app");
        for body in ["", " \n", "\u{3000}"] {
            let answer = w
                .post(&format!("{missing}/{name}"), body)
                .send()
                .await
                .expect(404);
            assert_eq!(
                answer.at("/message"),
                "Deployment project-a/no-app not found"
            );
            w.post(&format!("{BASE}/{name}"), body)
                .send()
                .await
                .expect(400);
        }
        // A body with content is judged first.
        w.post(&format!("{missing}/{name}"), "{}")
            .send()
            .await
            .expect(400);
    }
    let empty = w.post(ZERO, "").send().await.expect(400);
    assert_eq!(empty.at("/message"), "Invalid request body");
    assert_eq!(empty.at("/field"), "reason");
    assert_eq!(empty.at("/limit"), "1 to 500 characters");
    let status = BASE.replace("sample-app-a", "no-app") + "/status";
    let answer = w.get(&status).send().await.expect(404);
    assert_eq!(
        answer.at("/message"),
        "Deployment project-a/no-app not found"
    );
    assert!(w.workloads.writes().is_empty());
}

// A-086, K-07: the type of the body says nothing.
#[tokio::test(start_paused = true)]
async fn a_body_is_json_whatever_its_type_says() {
    for kind in [
        None,
        Some("application/x-www-form-urlencoded"),
        Some("text/plain"),
        Some("application/json"),
        Some("x"),
    ] {
        let w = world();
        let mut asking = w.post(UP, r#"{"replicas":1,"reason":"test"}"#);
        if let Some(kind) = kind {
            asking = asking.header("content-type", kind);
        }
        asking.send().await.expect(200);
    }
}

// A-151, A-154, K-06, W-A10, R05, R06, R07, R08
#[tokio::test(start_paused = true)]
async fn a_malformed_body_is_400_with_field_and_limit_and_changes_nothing() {
    let w = world();
    let deep = format!(
        r#"{{"reason":"x","replicas":1,"x":{}{}}}"#,
        "[".repeat(32),
        "]".repeat(32)
    );
    let long = json!({"reason": "理".repeat(501), "replicas": 1}).to_string();
    let rows: Vec<(&[u8], &str)> = vec![
        (b"{", "body"),
        (b"[]", "body"),
        (b"null", "body"),
        (b"\xef\xbb\xbf{\"reason\":\"x\",\"replicas\":1}", "body"),
        (b"{\"reason\":\"\xff\",\"replicas\":1}", "body"),
        (br#"{"reason":"x","reason":"y","replicas":1}"#, "body"),
        (br#"{"reason":"x","replicas":1,"o":{"a":1,"a":1}}"#, "body"),
        (br#"{"reason":"x","replicas":1} x"#, "body"),
        (deep.as_bytes(), "body"),
        (br#"{"reason":"x"}"#, "replicas"),
        (br#"{"reason":"x","replicas":0}"#, "replicas"),
        (br#"{"reason":"x","replicas":-1}"#, "replicas"),
        (br#"{"reason":"x","replicas":1.0}"#, "replicas"),
        (br#"{"reason":"x","replicas":1e0}"#, "replicas"),
        (br#"{"reason":"x","replicas":"1"}"#, "replicas"),
        (br#"{"reason":"x","replicas":null}"#, "replicas"),
        (br#"{"reason":"x","replicas":101}"#, "replicas"),
        (br#"{"reason":"x","replicas":2147483648}"#, "replicas"),
        (br#"{"replicas":1}"#, "reason"),
        (br#"{"reason":"","replicas":1}"#, "reason"),
        (br#"{"reason":"a\u0000b","replicas":1}"#, "reason"),
        (br#"{"reason":["x"],"replicas":1}"#, "reason"),
        (long.as_bytes(), "reason"),
    ];
    for (body, field) in rows {
        let answer = w.request("POST", UP).body(body).send().await.expect(400);
        assert_eq!(answer.at("/message"), "Invalid request body");
        assert_eq!(
            answer.at("/field"),
            field,
            "{}",
            String::from_utf8_lossy(body)
        );
        assert!(answer.at("/limit").is_string() && answer.at("/error").is_string());
    }
    for at in [
        "2029-01-01T00:00:00Z",
        "2030-06-31T00:00:00Z",
        "2030-06-30T23:59:60Z",
        "2030-06-01T00:00:00",
        "tomorrow",
        "2040-01-01T00:00:00Z",
    ] {
        let body = json!({"reason": "x", "scheduled_scale_up": at}).to_string();
        let answer = w.post(ZERO, &body).send().await.expect(400);
        assert_eq!(answer.at("/field"), "scheduled_scale_up", "{at}");
    }
    assert!(w.workloads.writes().is_empty());
    // The other side of each edge.
    let good = json!({"reason": "理".repeat(500), "replicas": 100, "unknown": [1.5]}).to_string();
    w.post(UP, &good).send().await.expect(200);
}

// W-A11, R06: the ceiling is the operator's.
#[tokio::test(start_paused = true)]
async fn the_ceiling_can_be_set() {
    let mut setup = Setup::default();
    setup.config.rails.replicas_max = nagi_core::quantity::Replicas(3);
    let w = setup.world();
    w.post(UP, r#"{"reason":"x","replicas":3}"#)
        .send()
        .await
        .expect(200);
    let refused = w
        .post(UP, r#"{"reason":"x","replicas":4}"#)
        .send()
        .await
        .expect(400);
    assert_eq!(refused.at("/limit"), "an integer from 1 to 3");
    let document = w.get("/openapi.json").send().await.expect(200);
    let maximum = "/components/schemas/ScaleUpRequest/properties/replicas/maximum";
    assert_eq!(document.at(maximum), 3);
}

// R08, W-A18
#[tokio::test(start_paused = true)]
async fn a_body_may_have_64_kib_and_not_a_byte_more() {
    let w = world();
    let filled = |bytes: usize| {
        let mut body = br#"{"replicas":1,"reason":"x"}"#.to_vec();
        body.resize(bytes, b' ');
        body
    };
    w.request("POST", UP)
        .body(filled(64 * 1024))
        .send()
        .await
        .expect(200);
    let refused = w
        .request("POST", UP)
        .body(filled(64 * 1024 + 1))
        .send()
        .await
        .expect(413);
    assert_eq!(refused.at("/limit"), "at most 65536 bytes");
    let declared = w
        .post(UP, "{}")
        .header("content-length", "999999999999")
        .send()
        .await;
    assert_eq!(declared.status, StatusCode::PAYLOAD_TOO_LARGE);
}

// R02, W-A08
#[tokio::test(start_paused = true)]
async fn unknown_paths_are_404_and_wrong_methods_405_with_allow() {
    let w = world();
    for path in [
        "/",
        "/nope",
        "/health/",
        "/api/v1",
        "/api/v1/",
        "/api/v1/deployments/",
        "/api/v1/pods",
        "/api/v1//a/b/status",
        "/api/v1/deployments/a/b",
        "/api/v1/deployments/a/b/status/",
        "/api/v1/deployments/a//status",
        "/swagger/x",
    ] {
        let answer = w.get(path).send().await.expect(404);
        assert_eq!(answer.at("/message"), "Not found", "{path}");
    }
    for (method, path, allow) in [
        ("POST", "/health", "GET,HEAD"),
        ("DELETE", "/api/v1/workloads", "GET,HEAD"),
        ("GET", ZERO, "POST"),
        ("PATCH", UP, "POST"),
        ("OPTIONS", UP, "POST"),
        ("BREW", "/ready", "GET,HEAD"),
        (
            "GET",
            "/api/v1/deployments/project-a/sample-app-a/scheduled-scale-up",
            "DELETE",
        ),
    ] {
        let answer = w.request(method, path).send().await.expect(405);
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
        assert_eq!(answer.at("/message"), "Method not allowed");
    }
    for path in [
        "/health",
        "/ready",
        "/api/v1/workloads",
        "/openapi.json",
        "/docs",
        &format!("{BASE}/status"),
    ] {
        let head = w.request("HEAD", path).send().await.expect(200);
        assert!(!head.header("content-type").is_empty(), "{path}");
    }
}

// R04
#[tokio::test(start_paused = true)]
async fn names_follow_dns_and_encoding_changes_nothing() {
    let w = world();
    for path in [
        "/api/v1/deployments/%70roject-a/sample%2dapp%2Da/status",
        "/api/v1/%64eployments/project-a/sample-app-a/stat%75s",
        "/api/v1/deployments.apps/project-a/sample-app-a/status",
    ] {
        w.get(path).send().await.expect(200);
    }
    for (path, field) in [
        ("/api/v1/deployments/Project-A/x/status", "namespace"),
        ("/api/v1/deployments/a.b/x/status", "namespace"),
        ("/api/v1/deployments/-a/x/status", "namespace"),
        ("/api/v1/deployments/%20/x/status", "namespace"),
        ("/api/v1/deployments/project-a%2Fx/y/status", "namespace"),
        ("/api/v1/deployments/project-a/a%2Fb/status", "name"),
        ("/api/v1/deployments/project-a/a..b/status", "name"),
        ("/api/v1/deployments/project-a/%2e%2e/status", "name"),
        ("/api/v1/deployments/project-a/%ff/status", "name"),
        ("/api/v1/deployments/project-a/%zz/status", "name"),
        ("/api/v1/deployments/project-a/a%00b/status", "name"),
    ] {
        let answer = w.get(path).send().await.expect(400);
        assert_eq!(answer.at("/field"), field, "{path}");
        assert!(
            answer.at("/limit").as_str().unwrap().contains("DNS"),
            "{path}"
        );
    }
    let long = format!("/api/v1/deployments/{}/x/status", "a".repeat(64));
    assert_eq!(
        w.get(&long).send().await.expect(400).at("/field"),
        "namespace"
    );
}

// R04, issue 3
#[tokio::test(start_paused = true)]
async fn a_name_that_cannot_be_decoded_is_told_from_an_empty_one() {
    let w = world();
    for (namespace, name, field) in [
        ("project-a", "%ff", "name"),
        ("project-a", "%zz", "name"),
        ("project-a", "a%", "name"),
        ("%C3%28", "a", "namespace"),
    ] {
        let path = format!("/api/v1/deployments/{namespace}/{name}/status");
        let answer = w.get(&path).send().await.expect(400);
        assert_eq!(answer.at("/field"), field, "{path}");
        let error = answer.at("/error");
        assert!(
            error.as_str().unwrap().contains("percent-encoded UTF-8"),
            "{path}: {error}"
        );
    }
}
