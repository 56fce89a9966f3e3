//! Who may do what: keys, roles, namespaces, protection, profiles, and whose word counts for an address.

use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::SignedDuration;
use nagi_core::access::{Reach, Role};
use nagi_core::id::{KeyId, Namespace};
use nagi_core::intent::Actor;
use nagi_testkit::{epoch, workload};
use serde_json::Value;

use super::world::{APP_A, Asking, BASE, Setup, World, world};
use crate::keys::{KeyEntry, KeySources, file};

const ZERO: &str = "/api/v1/deployments/project-a/sample-app-a/scale-to-zero";
const REASON: &str = r#"{"reason":"x"}"#;

fn with_key(key: &str) -> Setup {
    Setup {
        keys: KeySources {
            api_key: Some(key.to_owned()),
            ..KeySources::default()
        },
        ..Setup::default()
    }
}

fn entry(id: &str, role: Role, namespaces: &[&str]) -> KeyEntry {
    let set = namespaces
        .iter()
        .map(|n| Namespace::new(*n).unwrap())
        .collect();
    KeyEntry {
        id: KeyId::new(id).unwrap(),
        role,
        reach: if namespaces.is_empty() {
            Reach::All
        } else {
            Reach::Only(set)
        },
        created: epoch(),
        expires: None,
    }
}

/// A world with a keys file in this directory, and both projects.
fn with_file(directory: &Path) -> World {
    let setup = Setup {
        keys: KeySources {
            keys_file: Some(directory.join("keys.yaml")),
            ..KeySources::default()
        },
        workloads: Some(vec![
            workload(APP_A, 1, 1, 1),
            workload("project-b/sample-app-b", 1, 1, 1),
        ]),
        ..Setup::default()
    };
    setup.world()
}

// A-030, A-033, A-035, A-055, A-148, K-04, W-A05, W-A07, R16
#[tokio::test(start_paused = true)]
async fn only_the_right_key_in_the_right_form_counts() {
    let w = with_key("new-api-key").world();
    let rows: [(&[&str], &str); 10] = [
        (&[], "Authorization header required"),
        (&["Bearer"], "Invalid authorization header format"),
        (&["Bearer "], "Invalid authorization header format"),
        (&["Bearer   "], "Invalid authorization header format"),
        (
            &["Basic new-api-key"],
            "Invalid authorization header format",
        ),
        (&["new-api-key"], "Invalid authorization header format"),
        (&["Bearer old-api-key"], "Invalid API key"),
        (&["Bearer new-api-ke"], "Invalid API key"),
        (&["Bearer nagi_ops_0"], "Invalid API key"),
        (
            &["Bearer new-api-key", "Bearer new-api-key"],
            "Authorization header must stand once",
        ),
    ];
    for (values, error) in rows {
        let mut asking = w.request("POST", ZERO);
        for value in values {
            asking = asking.header("authorization", value);
        }
        let answer = asking.send().await.expect(401);
        assert_eq!(answer.at("/status"), "error");
        assert_eq!(answer.at("/message"), "Unauthorized");
        assert_eq!(answer.at("/error"), error, "{values:?}");
        assert_eq!(
            answer.header("www-authenticate"),
            "Bearer realm=\"scale-api\""
        );
        assert!(answer.at("/timestamp").is_string());
    }
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let value = format!("{scheme} new-api-key");
        w.post(ZERO, REASON)
            .header("authorization", &value)
            .send()
            .await
            .expect(200);
    }
    let change = w.app_a().intent.changes.last().cloned().unwrap();
    assert_eq!(change.actor, Actor::Key(KeyId::new("api-key").unwrap()));
}

// A-148, R16: which routes need a key.
#[tokio::test(start_paused = true)]
async fn health_and_documents_need_no_key_and_everything_else_does() {
    let w = with_key("k").world();
    for path in ["/health", "/ready", "/openapi.json", "/docs", "/metrics"] {
        w.get(path).send().await.expect(200);
    }
    for path in [
        "workloads",
        "deployments",
        "scheduled-scale-ups",
        "pools",
        "history",
        "events",
        "deployments/a/b/status",
        "deployments/a/b/logs",
    ] {
        w.get(&format!("/api/v1/{path}")).send().await.expect(401);
    }
    for (method, verb) in [
        ("POST", "scale-to-zero"),
        ("POST", "scale-up"),
        ("POST", "wake"),
        ("DELETE", "scheduled-scale-up"),
    ] {
        w.request(method, &format!("{BASE}/{verb}"))
            .send()
            .await
            .expect(401);
    }
}

// A-034, W-A06, R16: an empty key switches authentication off; credentials are then ignored.
#[tokio::test(start_paused = true)]
async fn an_empty_key_opens_the_api() {
    let w = with_key("").world();
    w.post(ZERO, REASON).send().await.expect(200);
    w.post(ZERO, REASON)
        .key("whatever")
        .send()
        .await
        .expect(200);
    w.post(ZERO, REASON)
        .header("authorization", "garbage")
        .send()
        .await
        .expect(200);
}

// While no key is asked for, a browser must not order on behalf of a page of another site; with a key it cannot.
#[tokio::test(start_paused = true)]
async fn a_page_of_another_site_orders_nothing_while_the_api_is_open() {
    let foreign: [&[(&str, &str)]; 3] = [
        &[("sec-fetch-site", "cross-site")],
        &[
            ("sec-fetch-site", "same-site"),
            ("origin", "http://nagi.example"),
        ],
        &[
            ("origin", "http://evil.example"),
            ("host", "127.0.0.1:8080"),
        ],
    ];
    let own: [&[(&str, &str)]; 3] = [
        &[],
        &[("sec-fetch-site", "same-origin"), ("host", "localhost")],
        &[
            ("origin", "http://127.0.0.1:8080"),
            ("host", "127.0.0.1:8080"),
        ],
    ];
    for (cases, status) in [(foreign, 403), (own, 200)] {
        for headers in cases {
            let w = with_key("").world();
            let mut asking = w.post(ZERO, REASON);
            for (name, value) in headers {
                asking = asking.header(name, value);
            }
            asking.send().await.expect(status);
        }
    }
}

/// A call under a name that is not ours.
fn asked<'w>(w: &'w World, path: &str) -> Asking<'w> {
    let asking = if path == ZERO {
        w.post(ZERO, REASON)
    } else {
        w.get(path)
    };
    asking.header("host", "evil.example:8080").key("secret-key")
}

// Issue 3: a page whose name was made to lead here is of the same site to its browser; it neither orders nor reads. With
// a key it has nothing to say, and a program may come by any name.
#[tokio::test(start_paused = true)]
async fn a_page_under_a_name_of_somebody_else_sees_nothing_while_the_api_is_open() {
    let paths = [
        format!("{BASE}/status"),
        format!("{BASE}/logs"),
        "/api/v1/workloads".to_owned(),
        "/api/v1/history".to_owned(),
        "/api/v1/events".to_owned(),
        "/api/v1/pools".to_owned(),
    ];
    let (open, closed) = (with_key("").world(), with_key("secret-key").world());
    for path in paths.iter().map(String::as_str).chain([ZERO]) {
        for mark in [
            ("origin", "http://evil.example:8080"),
            ("accept-language", "en"),
        ] {
            let refused = asked(&open, path).header(mark.0, mark.1).send().await;
            assert_eq!(refused.expect(403).at("/field"), "Host", "{path}");
            if path != "/api/v1/events" {
                let with_key = asked(&closed, path).header(mark.0, mark.1);
                with_key.send().await.expect(200);
            }
        }
        if path != "/api/v1/events" {
            asked(&open, path).send().await.expect(200);
        }
    }
}

// F10, issue 3: expiry is an instant. Who holds a key whose time is over learns that, and the log names it; who only guesses learns nothing.
#[tokio::test(start_paused = true)]
async fn an_expired_key_is_told_from_a_wrong_one_to_its_holder_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.yaml");
    let mut night = entry("night", Role::Operator, &["project-a"]);
    night.expires = Some(epoch() + SignedDuration::from_secs(60));
    let key = file::create(&path, &night).unwrap();
    let w = with_file(directory.path());
    tokio::time::sleep(Duration::from_secs(59)).await;
    w.post(ZERO, REASON).key(&key).send().await.expect(200);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let expired = w.post(ZERO, REASON).key(&key).send().await.expect(401);
    assert_eq!(expired.at("/error"), "API key expired");
    assert!(expired.at("/hint").as_str().unwrap().contains("new key"));
    let of_night = w.post(ZERO, REASON).key("nagi_night_0");
    let guessed = of_night.send().await.expect(401);
    assert_eq!(guessed.at("/error"), "Invalid API key");
    let lines = w.log_lines();
    assert_eq!(lines[1]["key_id"], "night");
    assert_eq!(lines[1]["error"], "API key expired");
    assert_eq!(lines[2]["key_id"], Value::Null);
}

// F10, W-A33: roles and namespaces; who it was is in the log and on the object, the key never.
#[tokio::test(start_paused = true)]
async fn a_key_reaches_its_namespaces_with_its_role_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.yaml");
    let viewer = file::create(&path, &entry("see", Role::Viewer, &["project-a"])).unwrap();
    let operator = file::create(&path, &entry("ops-a", Role::Operator, &["project-a"])).unwrap();
    let admin = file::create(&path, &entry("root", Role::Admin, &[])).unwrap();
    let w = with_file(directory.path());
    let other = ZERO.replace("project-a/sample-app-a", "project-b/sample-app-b");
    for (key, path, status) in [
        (&viewer, ZERO, 403),
        (&operator, ZERO, 200),
        (&operator, other.as_str(), 403),
        (&admin, other.as_str(), 200),
    ] {
        w.post(path, REASON).key(key).send().await.expect(status);
    }
    // What a key does not reach, it cannot tell from what is not there.
    let missing = other.replace("sample-app-b", "nothing");
    let [one, two] = [
        w.post(&other, REASON)
            .key(&operator)
            .send()
            .await
            .expect(403),
        w.post(&missing, REASON)
            .key(&operator)
            .send()
            .await
            .expect(403),
    ];
    assert_eq!(one.at("/error"), two.at("/error"));
    assert_eq!(one.at("/message"), "Forbidden");
    w.get(&format!("{BASE}/status"))
        .key(&viewer)
        .send()
        .await
        .expect(200);
    w.get(&other.replace("scale-to-zero", "status"))
        .key(&viewer)
        .send()
        .await
        .expect(403);

    let list = w
        .get("/api/v1/workloads")
        .key(&viewer)
        .send()
        .await
        .expect(200);
    let names: Vec<_> = list
        .at("/items")
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["namespace"].clone())
        .collect();
    assert_eq!(names, ["project-a"]);
    w.get("/api/v1/workloads?namespace=project-b")
        .key(&viewer)
        .send()
        .await
        .expect(403);

    let lines = w.log_lines();
    let denied = lines.iter().find(|line| line["status"] == 403).unwrap();
    assert_eq!(denied["key_id"], "see");
    assert_eq!(denied["message"], "Forbidden, access denied");
    let changed = lines.iter().find(|line| line["status"] == 200).unwrap();
    assert_eq!(changed["actor"], "key/ops-a");
    let everything = format!("{lines:?}") + &fs::read_to_string(&path).unwrap();
    for key in [&viewer, &operator, &admin] {
        let secret = key.rsplit('_').next().unwrap();
        assert!(
            !everything.contains(secret),
            "a key is in the log or in the file"
        );
    }
}

// A-159, K-30, W-A09, R15
#[tokio::test(start_paused = true)]
async fn protected_namespaces_are_read_but_never_changed() {
    let facts = vec![
        workload("kube-system/coredns", 2, 2, 2),
        workload("scale-system/scale-api", 2, 2, 2),
    ];
    let setup = Setup {
        workloads: Some(facts),
        ..Setup::default()
    };
    let w = setup.world();
    for name in [
        "kube-system/coredns",
        "scale-system/scale-api",
        "kube-public/none",
    ] {
        for (method, verb, body) in [
            ("POST", "scale-to-zero", REASON),
            ("POST", "wake", ""),
            ("DELETE", "scheduled-scale-up", ""),
        ] {
            let path = format!("/api/v1/deployments/{name}/{verb}");
            let answer = w.request(method, &path).body(body).send().await.expect(403);
            assert!(answer.at("/error").as_str().unwrap().contains("protected"));
            assert!(answer.at("/hint").as_str().unwrap().contains("kubectl"));
        }
    }
    w.get("/api/v1/deployments/kube-system/coredns/status")
        .send()
        .await
        .expect(200);
    assert!(w.workloads.writes().is_empty());

    let mut setup = Setup::default();
    setup.config.rails.allowed = Some(vec![Namespace::new("project-b").unwrap()]);
    setup.world().post(ZERO, REASON).send().await.expect(403);
}

// A-051, A-052, K-12
#[tokio::test(start_paused = true)]
async fn profiles_are_for_this_machine_or_an_admin() {
    let path = "/debug/pprof/goroutine?debug=1";
    let open = world();
    let dump = open.get(path).from("127.0.0.1").send().await.expect(200);
    assert!(String::from_utf8_lossy(&dump.bytes).contains("tasks alive"));
    open.get(path).from("::1").send().await.expect(200);
    open.get(path)
        .from("::ffff:127.0.0.1")
        .send()
        .await
        .expect(200);
    open.get(path).from("192.0.2.1").send().await.expect(403);
    for header in ["x-forwarded-for", "forwarded", "x-real-ip"] {
        open.get(path)
            .from("192.0.2.1")
            .header(header, "127.0.0.1")
            .send()
            .await
            .expect(403);
        // A proxy on this machine speaks for others.
        open.get(path)
            .from("127.0.0.1")
            .header(header, "192.0.2.1")
            .send()
            .await
            .expect(403);
    }
    // A page of some other site, through a browser on this machine.
    open.get(path)
        .from("127.0.0.1")
        .header("host", "localhost")
        .header("sec-fetch-site", "cross-site")
        .send()
        .await
        .expect(403);
    for bad in ["seconds=0", "seconds=61", "seconds=x"] {
        open.get(&format!("/debug/pprof/profile?{bad}"))
            .from("127.0.0.1")
            .send()
            .await
            .expect(400);
    }

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.yaml");
    let operator = file::create(&file, &entry("ops", Role::Operator, &[])).unwrap();
    let admin = file::create(&file, &entry("root", Role::Admin, &[])).unwrap();
    let closed = with_file(directory.path());
    closed.get(path).from("127.0.0.1").send().await.expect(200);
    closed.get(path).send().await.expect(401);
    closed.get(path).key(&operator).send().await.expect(403);
    closed.get(path).key(&admin).send().await.expect(200);
}

// A-051: a profile that tools can read.
#[tokio::test]
async fn a_profile_is_not_empty() {
    let w = world();
    let profile = w
        .get("/debug/pprof/profile?seconds=1")
        .from("127.0.0.1")
        .send()
        .await
        .expect(200);
    assert_eq!(profile.header("content-type"), "application/octet-stream");
    assert!(!profile.bytes.is_empty());
}

// W-A25
#[tokio::test(start_paused = true)]
async fn only_a_trusted_proxy_says_whom_it_speaks_for() {
    async fn logged(w: &World, peer: &str, forwarded: &[&str]) -> String {
        let mut asking = w.get("/health").from(peer);
        for value in forwarded {
            asking = asking.header("x-forwarded-for", value);
        }
        asking.send().await.expect(200);
        w.log_lines().last().unwrap()["remote_ip"]
            .as_str()
            .unwrap()
            .to_owned()
    }
    let trusting_nobody = world();
    assert_eq!(
        logged(&trusting_nobody, "192.0.2.1", &["203.0.113.9"]).await,
        "192.0.2.1"
    );
    let mut setup = Setup::default();
    setup.config.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    let w = setup.world();
    let rows: [(&str, &[&str], &str); 7] = [
        ("192.0.2.1", &["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
        (
            "10.0.0.1",
            &["198.51.100.7, 203.0.113.9, 10.0.0.2"],
            "203.0.113.9",
        ),
        ("10.0.0.1", &["198.51.100.7", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", &["203.0.113.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", &[], "10.0.0.1"),
        ("::ffff:10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
    ];
    for (peer, forwarded, expected) in rows {
        assert_eq!(
            logged(&w, peer, forwarded).await,
            expected,
            "{peer} {forwarded:?}"
        );
    }
}
