//! What is broken in one place hides nothing and nobody else: a kind, a namespace, a definition, a backup that was restored.

use std::time::{Duration, Instant};

use nagi_kube_double::{Double, Effect, Fault, objects};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::process::{Answer, PATIENCE, Process, exchange, until_ready};

const APP: &str = "/apis/apps/v1/namespaces/project-a/deployments/app";

/// An application that answers with this word until it is dropped.
struct App {
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl App {
    async fn saying(word: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 4096];
                // A probe asks for nothing.
                let read = stream.read(&mut head);
                drop(tokio::time::timeout(Duration::from_millis(300), read).await);
                let length = word.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{word}"
                );
                drop(stream.write_all(answer.as_bytes()).await);
            }
        });
        Self { port, task }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn pod(suffix: &str, port: u16) -> Value {
    let mut pod = objects::pod("project-a", "app", suffix);
    pod["spec"]["containers"][0]["ports"] = json!([{ "name": "http", "containerPort": port }]);
    objects::ready(pod, "127.0.0.1")
}

fn definition(version: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "runners.example.com" },
        "spec": { "group": "example.com", "scope": "Namespaced", "names": { "plural": "runners", "kind": "Runner" },
            "versions": [{ "name": version, "served": true, "subresources": { "scale": { "specReplicasPath": ".spec.workers", "statusReplicasPath": ".status.workers" } } }] },
    })
}

fn runner() -> Value {
    json!({
        "apiVersion": "example.com/v1", "kind": "Runner",
        "metadata": { "namespace": "project-a", "name": "one", "annotations": { "nagi.dev/awake-replicas": "1" } },
        "spec": { "workers": 0 }, "status": { "workers": 0 },
    })
}

async fn ask(gateway: &Process, name: &str) -> Answer {
    let host = format!("{name}.project-a.localhost");
    let answer = exchange(gateway.main, "GET", "/", "", Some(&host)).await;
    answer.expect("an answer")
}

// After a backup of etcd was restored versions are smaller than before, and what they say is newer all the same.
#[tokio::test]
async fn after_a_restored_backup_a_gateway_wakes_and_forwards_as_before() {
    let double = Double::start().await;
    let mut sleeping = objects::deployment("project-a", "app", 0);
    sleeping["metadata"]["annotations"] = json!({ "nagi.dev/awake-replicas": "1" });
    double.put(sleeping);
    let backup = double.back_up();
    double.edit(APP, |object| object["spec"]["replicas"] = json!(1));
    let old = App::saying("old").await;
    double.put(pod("x1", old.port));
    // So that what is written after the backup stays below it.
    for number in 0..200 {
        double.edit(APP, |object| {
            object["metadata"]["annotations"]["n"] = json!(number.to_string());
        });
    }
    let gateway = Process::start("gateway", Some(&double), &[]);
    until_ready(gateway.metrics).await;
    assert_eq!(ask(&gateway, "app").await.text, "old");
    double.restore(&backup);
    drop(old);
    gateway.logs("everything is read anew").await;
    let new = App::saying("new").await;
    let (kubelet, port) = (double.clone(), new.port);
    tokio::spawn(async move {
        while kubelet.get(APP).expect("it is there")["spec"]["replicas"] == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        kubelet.put(pod("x2", port));
    });
    // Until all of it is read anew, a request may be sent to where the old one was.
    let begun = Instant::now();
    let answer = loop {
        let answer = ask(&gateway, "app").await;
        if answer.status == 200 {
            break answer;
        }
        assert!(begun.elapsed() < PATIENCE, "{answer:?}\n{}", gateway.log());
    };
    assert_eq!(answer.text, "new");
}

// A new version of a kind whose lists fail, as when its conversion webhook is not there yet: nobody is told that it is gone.
#[tokio::test]
async fn a_definition_that_changes_sends_nobody_away() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "app", 1));
    double.put(definition("v1"));
    double.put(runner());
    let gateway = Process::start("gateway", Some(&double), &[("NAGI_HOLD_SECONDS", "3")]);
    until_ready(gateway.metrics).await;
    // Known, as its host is: one that nobody has is unknown.
    assert_eq!(ask(&gateway, "nobody").await.status, 404);
    double.inject(Fault::status(500).at("/example.com/v2/"));
    double.put(definition("v2"));
    // The first wake goes to a version that is served no more, and has the definition read anew.
    let first = ask(&gateway, "one").await;
    assert_eq!(first.status, 503, "{first:?}");
    gateway
        .logs("Definition of a custom kind has changed")
        .await;
    let seen = Instant::now();
    while seen.elapsed() < Duration::from_secs(8) {
        let answer = ask(&gateway, "one").await;
        assert_eq!(answer.status, 503, "{answer:?}\n{}", gateway.log());
    }
}

// Kinds come behind the built-in ones: until they are read nobody knows whose host it is.
#[tokio::test]
async fn before_its_kind_is_known_a_workload_is_not_unknown() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "app", 1));
    double.put(definition("v1"));
    double.put(runner());
    let slow = Effect::Latency(Duration::from_secs(4));
    let slow = double.inject(Fault::always(slow).at("/customresourcedefinitions"));
    let gateway = Process::start("gateway", Some(&double), &[("NAGI_HOLD_SECONDS", "2")]);
    let server = Process::server(&double);
    until_ready(gateway.metrics).await;
    server.ready().await;
    let list = server.get("/api/v1/workloads").await.expect("an answer");
    let what = &list.body["unread"][0]["resource"];
    assert_eq!(what, "customresourcedefinitions", "{list:?}");
    let answer = ask(&gateway, "one").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    double.lift(slow);
    let begun = Instant::now();
    while ask(&gateway, "nobody").await.status != 404 {
        assert!(begun.elapsed() < PATIENCE, "it is whole at some time");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

// A host that nobody has may be one of a kind that the gateway ought to read, and may not.
#[tokio::test]
async fn a_host_of_a_built_in_kind_that_may_not_be_read_is_not_unknown() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "app", 1));
    let denied = double.inject(Fault::status(403).at("/statefulsets"));
    let gateway = Process::start("gateway", Some(&double), &[]);
    until_ready(gateway.metrics).await;
    let answer = ask(&gateway, "database").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    double.lift(denied);
}

// Schedules and requests of all others go on.
#[tokio::test]
async fn a_built_in_kind_that_cannot_be_read_stops_nobody() {
    let broken = Fault::status(500).at("/replicationcontrollers");
    goes_on_without(broken, "").await;
}

// A namespace that is gone takes the rights in it along.
#[tokio::test]
async fn a_namespace_that_may_not_be_read_stops_nobody() {
    let gone = Fault::status(403).at("/namespaces/project-b/");
    goes_on_without(gone, "project-a,project-b").await;
}

// What the API server fails with there, and what somebody may not read there.
#[tokio::test]
async fn a_namespace_that_cannot_be_listed_stops_nobody() {
    for what in [
        Fault::status(500).at("/namespaces/project-b/"),
        Fault::status(403).at("/namespaces/project-b/pods"),
    ] {
        goes_on_without(what, "project-a,project-b").await;
    }
}

// Whoever is held for a workload whose pods nobody can see is told that, not that it wakes.
#[tokio::test]
async fn what_serves_where_pods_may_not_be_read_is_told() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "app", 1));
    double.put(objects::deployment("project-b", "app", 1));
    double.inject(Fault::status(403).at("/namespaces/project-b/pods"));
    let environment = [
        ("NAGI_NAMESPACES", "project-a,project-b"),
        ("NAGI_HOLD_SECONDS", "2"),
    ];
    let gateway = Process::start("gateway", Some(&double), &environment);
    until_ready(gateway.metrics).await;
    let host = Some("app.project-b.localhost");
    let answer = exchange(gateway.main, "GET", "/", "", host).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.text.contains("pods of its namespace"), "{answer:?}");
    assert!(answer.text.contains("nagi preflight"), "{answer:?}");
}

async fn goes_on_without(what: Fault, namespaces: &str) {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "app", 2));
    let environment: Vec<_> = [("NAGI_RATE_LIMIT", "0"), ("NAGI_NAMESPACES", namespaces)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let first = Process::start("server", Some(&double), &environment);
    first.ready().await;
    let at = (jiff::Timestamp::now() + Duration::from_secs(4)).to_string();
    let body = json!({ "reason": "night", "scheduled_scale_up": at }).to_string();
    let answer = first
        .post("/api/v1/deployments/project-a/app/scale-to-zero", &body)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    drop(first);
    double.inject(what);
    let server = Process::start("server", Some(&double), &environment);
    server.ready().await;
    let list = server.get("/api/v1/workloads").await.expect("an answer");
    assert_eq!(list.status, 200, "{list:?}");
    assert_eq!(list.body["items"].as_array().map(Vec::len), Some(1));
    assert!(list.body["unread"].is_array(), "{list:?}");
    let gateway = Process::start("gateway", Some(&double), &environment);
    until_ready(gateway.metrics).await;
    let begun = Instant::now();
    while double.get(APP).expect("it is there")["spec"]["replicas"] != 2 {
        assert!(
            begun.elapsed() < PATIENCE,
            "it never fires: {}",
            server.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let app = App::saying("up").await;
    double.put(pod("x1", app.port));
    let begun = Instant::now();
    while ask(&gateway, "app").await.text != "up" {
        assert!(begun.elapsed() < PATIENCE, "{}", gateway.log());
    }
}
