//! `nagi gateway` before the double: the first request to a sleeping workload is held, wakes it and is answered.

use std::time::{Duration, Instant};

use nagi_kube_double::{Double, Effect, Fault, objects};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::process::{PATIENCE, Process, exchange, until_ready};

const PATH: &str = "/apis/apps/v1/namespaces/project-a/deployments/sample-app-a";

/// Answers everything on a port of its own, as a pod would.
async fn app() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nawake";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// Plays the controllers and a kubelet: once a count is wanted, a pod is there, and then serves.
async fn kubelet(double: Double, name: &str, port: u16) {
    let path = format!("/apis/apps/v1/namespaces/project-a/deployments/{name}");
    while double.get(&path).unwrap()["spec"]["replicas"] == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut pod = objects::pod("project-a", name, "x1");
    pod["spec"]["containers"][0]["ports"] = json!([{ "name": "http", "containerPort": port }]);
    double.put(pod.clone());
    double.put(objects::running(pod, "127.0.0.1"));
}

// Issue 4 items 2 and 7
#[tokio::test]
async fn the_first_request_wakes_with_the_rights_of_the_gateway_and_is_answered() {
    let double = Double::start().await;
    let mut sleeping = objects::deployment("project-a", "sample-app-a", 0);
    sleeping["metadata"]["annotations"] = json!({ "nagi.dev/awake-replicas": "2" });
    double.put(sleeping);
    let gateway = Process::start("gateway", Some(&double), &[]);
    let metrics = gateway.metrics;
    until_ready(metrics).await;
    tokio::spawn(kubelet(double.clone(), "sample-app-a", app().await));
    let host = Some("sample-app-a.project-a.localhost");
    let answer = loop {
        // Routes are read a moment after the first list.
        let answer = exchange(gateway.main, "GET", "/", "", host)
            .await
            .expect("an answer");
        if answer.status != 404 {
            break answer;
        }
    };
    assert_eq!(
        (answer.status, answer.text.as_str()),
        (200, "awake"),
        "{}",
        gateway.log()
    );
    let writes: Vec<_> = double
        .requests()
        .into_iter()
        .filter(|request| request.method == "PATCH")
        .collect();
    let counts: Vec<_> = writes
        .iter()
        .filter(|request| request.path.contains("/apps/"))
        .collect();
    assert_eq!(counts.len(), 1, "{counts:?}");
    assert!(
        counts[0].path.starts_with(&format!("{PATH}/scale?")),
        "{}",
        counts[0].path
    );
    let body: Value = serde_json::from_slice(&counts[0].body).unwrap();
    assert_eq!(body[1]["value"], 2);
    assert!(
        writes
            .iter()
            .all(|request| !request.path.contains("/leases/")),
        "a gateway leads nobody"
    );
    let counted = tokio::time::timeout(PATIENCE, async {
        let scrape = async || {
            exchange(metrics, "GET", "/metrics", "", None)
                .await
                .unwrap()
                .text
        };
        while !scrape().await.contains("nagi_wakes_total{") {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    counted.await.expect("the wake is counted");
}

/// Longer than anything that a gateway knows can be believed without its API server.
const AWAY: Duration = Duration::from_secs(8);

// docs/architecture.md: while the API server is away, or refuses, or is too busy for us, what runs is still forwarded to, and the
// gateway keeps its place behind its Service. A first request in the middle is held, and answered when it is back.
#[tokio::test]
async fn what_is_awake_is_forwarded_to_whatever_the_api_server_does() {
    for fault in [
        Fault::always(Effect::Hang),
        Fault::status(403),
        Fault::status(429),
    ] {
        let double = Double::start().await;
        double.put(objects::deployment("project-a", "sample-app-a", 1));
        let port = app().await;
        kubelet(double.clone(), "sample-app-a", port).await;
        let mut sleeping = objects::deployment("project-a", "asleep", 0);
        sleeping["metadata"]["annotations"] = json!({ "nagi.dev/awake-replicas": "1" });
        double.put(sleeping);
        let gateway = Process::start("gateway", Some(&double), &[]);
        until_ready(gateway.metrics).await;
        let [awake, asleep] =
            ["sample-app-a", "asleep"].map(|name| format!("{name}.project-a.localhost"));
        let ask = async || exchange(gateway.main, "GET", "/", "", Some(&awake)).await;
        let begun = Instant::now();
        while ask().await.is_none_or(|answer| answer.status != 200) {
            assert!(begun.elapsed() < PATIENCE, "{}", gateway.log());
        }
        let injected = double.inject(fault.clone());
        double.cut_watches();
        let begun = Instant::now();
        let mut asked = 0;
        while begun.elapsed() < AWAY {
            let answer = ask().await.expect("an answer");
            assert_eq!(answer.status, 200, "{fault:?}: {answer:?}");
            let ready = exchange(gateway.metrics, "GET", "/ready", "", None).await;
            assert_eq!(ready.expect("an answer").status, 200, "{fault:?}");
            asked += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(asked > 50, "{asked}");
        // A refusal is told at once; whoever asks for what sleeps while nobody answers is held.
        let is_refused = fault == Fault::status(403);
        let (first, ()) = tokio::join!(
            exchange(gateway.main, "GET", "/", "", Some(&asleep)),
            async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                double.lift(injected);
                if !is_refused {
                    kubelet(double.clone(), "asleep", port).await;
                }
            }
        );
        let first = first.expect("an answer");
        let wanted = if is_refused { 503 } else { 200 };
        assert_eq!(first.status, wanted, "{fault:?}: {first:?}");
    }
}

// A gateway that may not see pods knows no replica: it is not ready, and says nothing of wakes.
#[tokio::test]
async fn without_the_right_to_see_pods_a_gateway_is_not_ready() {
    let double = Double::start().await;
    let denied = double.inject(Fault::status(403).at("/pods"));
    double.put(objects::deployment("project-a", "sample-app-a", 1));
    let mut pod = objects::pod("project-a", "sample-app-a", "x1");
    pod["spec"]["containers"][0]["ports"] =
        json!([{ "name": "http", "containerPort": app().await }]);
    double.put(objects::running(pod, "127.0.0.1"));
    let gateway = Process::start("gateway", Some(&double), &[]);
    let host = Some("sample-app-a.project-a.localhost");
    let seen = Instant::now();
    while seen.elapsed() < Duration::from_secs(2) {
        let ready = exchange(gateway.metrics, "GET", "/ready", "", None).await;
        assert!(ready.is_none_or(|ready| ready.status == 503));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let asked = Instant::now();
    let answer = exchange(gateway.main, "GET", "/", "", host).await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(asked.elapsed() < Duration::from_secs(5), "it is not held");
    double.lift(denied);
    until_ready(gateway.metrics).await;
    let answer = exchange(gateway.main, "GET", "/", "", host).await.unwrap();
    assert_eq!((answer.status, answer.text.as_str()), (200, "awake"));
}

// Whoever asks the application is not told of accounts and rights.
#[tokio::test]
async fn what_the_api_server_says_is_for_the_log() {
    let double = Double::start().await;
    let mut sleeping = objects::deployment("project-a", "sample-app-a", 0);
    sleeping["metadata"]["annotations"] = json!({ "nagi.dev/awake-replicas": "2" });
    double.put(sleeping);
    double.inject(Fault::status(403).on(http::Method::PATCH));
    let gateway = Process::start("gateway", Some(&double), &[]);
    until_ready(gateway.metrics).await;
    let host = Some("sample-app-a.project-a.localhost");
    let answer = exchange(gateway.main, "GET", "/", "", host).await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.text.contains("refuses the wake"), "{answer:?}");
    assert!(!answer.text.contains("injected"), "{answer:?}");
    let logged = tokio::time::timeout(PATIENCE, async {
        while !gateway.log().contains("injected by the double") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    logged.await.expect("the log has it");
}

// A-159, W-A09: what nobody may change is not woken by a request either.
#[tokio::test]
async fn a_request_wakes_nothing_outside_of_the_allowed_namespaces() {
    let double = Double::start().await;
    let mut sleeping = objects::deployment("project-a", "sample-app-a", 0);
    sleeping["metadata"]["annotations"] = json!({ "nagi.dev/awake-replicas": "2" });
    double.put(sleeping);
    let gateway = Process::start(
        "gateway",
        Some(&double),
        &[("NAGI_ALLOWED_NAMESPACES", "project-b")],
    );
    until_ready(gateway.metrics).await;
    let host = Some("sample-app-a.project-a.localhost");
    let answer = exchange(gateway.main, "GET", "/", "", host).await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.text.contains("allowed namespaces"), "{answer:?}");
    assert_eq!(double.get(PATH).unwrap()["spec"]["replicas"], 0);
}

// Issue 4 item 7: by the hosts of the annotation, to the port named http, else to the first
#[tokio::test]
async fn requests_go_by_the_annotated_hosts_to_the_port_named_http_or_the_first() {
    let double = Double::start().await;
    let port = app().await;
    let named = json!([{ "name": "metrics", "containerPort": 9 }, { "name": "http", "containerPort": port }]);
    let first = json!([{ "containerPort": port }, { "name": "metrics", "containerPort": 9 }]);
    for (name, hosts, ports) in [
        ("shop", "shop.example,www.shop.example", named),
        ("news", "news.example", first),
    ] {
        let mut object = objects::deployment("project-a", name, 1);
        object["metadata"]["annotations"] = json!({ "nagi.dev/hosts": hosts });
        double.put(object);
        let mut pod = objects::pod("project-a", name, "x1");
        pod["spec"]["containers"][0]["ports"] = ports;
        double.put(objects::ready(pod, "127.0.0.1"));
    }
    let gateway = Process::start("gateway", Some(&double), &[]);
    until_ready(gateway.metrics).await;
    let status_of = async |host: &str| {
        let answer = exchange(gateway.main, "GET", "/", "", Some(host)).await;
        answer.expect("an answer").status
    };
    for host in ["shop.example", "www.shop.example", "news.example"] {
        assert_eq!(status_of(host).await, 200, "{host}: {}", gateway.log());
    }
    assert_eq!(status_of("shop.project-a.localhost").await, 404);
    // Another host from now on, without a restart.
    double.edit(
        "/apis/apps/v1/namespaces/project-a/deployments/shop",
        |object| {
            object["metadata"]["annotations"]["nagi.dev/hosts"] = json!("store.example");
        },
    );
    let changed = tokio::time::timeout(PATIENCE, async {
        while status_of("store.example").await != 200 || status_of("shop.example").await != 404 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    changed.await.expect("it is called by its new host");
}
