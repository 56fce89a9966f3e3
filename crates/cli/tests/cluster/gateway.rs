//! `nagi gateway` before the double: the first request to a sleeping workload is held, wakes it and is answered.

use nagi_kube_double::{Double, objects};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::process::{PATIENCE, Process, exchange};

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
async fn kubelet(double: Double, port: u16) {
    while double.get(PATH).unwrap()["spec"]["replicas"] == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let mut pod = objects::pod("project-a", "sample-app-a", "x1");
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
    let waited = tokio::time::timeout(PATIENCE, async {
        while exchange(metrics, "GET", "/ready", "", None)
            .await
            .is_none_or(|answer| answer.status != 200)
        {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("the gateway is ready");
    tokio::spawn(kubelet(double.clone(), app().await));
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
