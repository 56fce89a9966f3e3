//! Readiness with exactly the words of the founding documents, whatever the API server does.

use std::time::{Duration, Instant};

use nagi_kube_double::{Double, Effect, Fault, objects};
use serde_json::Value;

use crate::command::run;
use crate::process::{Process, kubeconfig};

async fn cluster() -> Double {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    double
}

fn keys(body: &Value) -> Vec<&str> {
    body.as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect()
}

async fn is_not_ready(process: &Process) {
    let answer = process.until("/ready", |answer| answer.status == 503).await;
    assert_eq!(answer.body["status"], "not ready");
    assert_eq!(answer.body["error"], "unable to connect to Kubernetes API");
    assert_eq!(keys(&answer.body), ["status", "error", "time"]);
    let begun = Instant::now();
    let again = process.get("/ready").await.unwrap();
    assert_eq!(again.status, 503);
    // The probe of the manifest waits so long.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let health = process.get("/health").await.unwrap();
    assert_eq!(
        (health.status, keys(&health.body)),
        (200, vec!["status", "time"])
    );
}

async fn is_ready(process: &Process) {
    let answer = process.until("/ready", |answer| answer.status == 200).await;
    assert_eq!(answer.body["status"], "ready");
    assert_eq!(answer.body["kubernetes"], "connected");
    assert_eq!(keys(&answer.body), ["status", "kubernetes", "time"]);
}

// K-09, F01, F02
#[tokio::test]
async fn readiness_follows_an_api_server_that_closes_hangs_and_refuses() {
    let double = cluster().await;
    let process = Process::server(&double);
    is_ready(&process).await;
    double.stop().await;
    is_not_ready(&process).await;
    double.resume().await;
    is_ready(&process).await;
    for fault in [Fault::always(Effect::Hang), Fault::status(403)] {
        let fault = double.inject(fault);
        is_not_ready(&process).await;
        double.lift(fault);
        is_ready(&process).await;
    }
}

// F12
#[tokio::test]
async fn a_server_without_a_configuration_starts_and_finds_one_that_comes_later() {
    let double = cluster().await;
    let process = Process::start("server", None, &[]);
    is_not_ready(&process).await;
    process.logs("no Kubernetes configuration").await;
    let directory = process.home().join(".kube");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("config"), kubeconfig(&double)).unwrap();
    is_ready(&process).await;
}

// what is said at the start and at the end
#[tokio::test]
async fn start_and_end_are_lines_of_the_log() {
    let double = cluster().await;
    let process = Process::server(&double);
    is_ready(&process).await;
    process.signal(nix::sys::signal::Signal::SIGTERM);
    process.logs("Shutting down server...").await;
    let log = process.log();
    assert!(log.contains("Kubernetes client initialized"), "{log}");
    assert!(log.contains(&format!("\"port\":{}", process.main)), "{log}");
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}

// nothing that waits for the cluster holds up the end
#[tokio::test]
async fn a_gateway_that_cannot_read_its_cluster_ends_in_order() {
    let mut gateway = Process::start("gateway", None, &[]);
    gateway.logs("Routes could not be read").await;
    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    gateway.wait_for_its_end();
    let log = gateway.log();
    assert!(log.contains("Shutdown asked for"), "{log}");
    assert!(!log.contains("Task cut"), "{log}");
}

// Lists of everything name what cannot be read, by the API and by the command line; who asks for that alone gets the reason.
#[tokio::test]
async fn lists_name_the_kinds_that_cannot_be_read() {
    let double = cluster().await;
    double.inject(Fault::status(403).at("/statefulsets"));
    let process = Process::server(&double);
    is_ready(&process).await;
    for path in ["/api/v1/workloads", "/api/v1/scheduled-scale-ups"] {
        let answer = process.get(path).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let unread = &answer.body["unread"];
        assert_eq!(unread[0]["resource"], "statefulsets", "{answer:?}");
        assert!(unread[0]["reason"].as_str().unwrap().contains("403"));
        assert_eq!(unread.as_array().unwrap().len(), 1);
    }
    let deployments = process.get("/api/v1/deployments").await.unwrap();
    assert_eq!(deployments.body["items"].as_array().unwrap().len(), 1);
    assert!(deployments.body["unread"].is_null(), "{deployments:?}");
    let alone = process.get("/api/v1/statefulsets").await.unwrap();
    assert_eq!(alone.status, 500, "{alone:?}");
    assert!(alone.text.contains("403"), "{alone:?}");
    let server = format!("list --server http://127.0.0.1:{}", process.main);
    let listed = run(&double, &server).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(listed.output.contains("sample-app-a"), "{listed:?}");
    assert!(
        listed.errors.contains("statefulsets; 'nagi preflight'"),
        "{listed:?}"
    );
}
