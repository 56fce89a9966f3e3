//! What the gateway answers itself: why, what to do, and in which form.

use std::net::SocketAddr;
use std::time::Duration;

use nagi_core::id::{Namespace, PoolName};
use nagi_core::quantity::Replicas;
use nagi_core::workload::{Pending, Readiness, Replica};
use nagi_ports::PortError;
use nagi_runtime::Shutdown;
use nagi_testkit::Fault;
use tokio::task::JoinSet;

use super::support::{
    HOST, World, asleep_workload, eventually, get, held_client, replica, request,
};
use crate::Settings;

// DESIGN §5: nobody knows the count and no policy allows 1.
#[tokio::test]
async fn a_wake_to_an_unknown_count_is_refused_and_names_the_annotation() {
    let mut workload = asleep_workload();
    workload.intent.remembered = None;
    workload.idle_after = None;
    let world = World::with(Settings::default(), vec![workload], Shutdown::never()).await;
    let reply = get(world.address, HOST, "/").await;
    assert_eq!(reply.code, 503);
    assert_eq!(reply.header("nagi-status"), Some("wake-failed"));
    assert!(
        reply.text().contains("nagi.dev/awake-replicas"),
        "{}",
        reply.text()
    );
    assert_eq!(
        reply.header("retry-after"),
        None,
        "coming again does not help"
    );
    assert_eq!(world.wakes(), 0);
}

#[tokio::test]
async fn a_wake_that_cannot_be_written_or_that_fails_ends_the_wait_with_the_reason() {
    let world = World::asleep().await;
    world
        .workloads
        .fail_write(Fault::Error(PortError::StorageFull(
            "no space left".to_owned(),
        )));
    let reply = get(world.address, HOST, "/").await;
    assert_eq!(reply.code, 503);
    assert!(reply.text().contains("no space left"), "{}", reply.text());
    assert!(reply.header("retry-after").is_some());

    let address = world.address;
    let mut clients = JoinSet::new();
    clients.spawn(async move { get(address, HOST, "/").await });
    world.until_woken().await;
    world.workloads.change(&world.id, |w| {
        w.pending = Some(Pending::CrashLoop {
            restarts: 3,
            last_exit: "exit code 1".to_owned(),
        });
    });
    let reply = clients.join_next().await.unwrap().unwrap();
    assert_eq!(reply.code, 503);
    assert_eq!(reply.header("nagi-status"), Some("wake-failed"));
    assert!(reply.text().contains("exit code 1"), "{}", reply.text());
}

// Issue 4 item 7: Kubernetes asks for no declared port, and without one there is no way to a pod: that is told at once.
#[tokio::test]
async fn pods_that_declare_no_port_are_told_of() {
    let mut workload = asleep_workload();
    workload.desired = Replicas(1);
    workload.current = Replicas(1);
    workload.available = Replicas(1);
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    workload.replicas = vec![Replica {
        address: None,
        ..replica(1, nowhere, Readiness::Engine, true)
    }];
    let world = World::with(Settings::default(), vec![workload], Shutdown::never()).await;
    let begun = tokio::time::Instant::now();
    let reply = get(world.address, HOST, "/").await;
    assert_eq!(reply.code, 503);
    assert_eq!(reply.header("nagi-status"), Some("wake-failed"));
    assert!(reply.text().contains("declare no port"), "{}", reply.text());
    assert!(reply.text().contains("containerPort"), "{}", reply.text());
    assert!(begun.elapsed() < Settings::default().hold.budget / 2);
}

// A-159, W-A09: nobody changes them, a request neither.
#[tokio::test]
async fn a_request_does_not_wake_what_nobody_may_change() {
    let mut workload = asleep_workload();
    workload.id.namespace = Namespace::new("kube-system").unwrap();
    let id = workload.id.clone();
    let world = World::with(Settings::default(), vec![workload], Shutdown::never()).await;
    let reply = get(world.address, HOST, "/").await;
    assert_eq!(reply.code, 503);
    assert_eq!(reply.header("nagi-status"), Some("wake-failed"));
    assert!(
        reply.text().contains("namespace kube-system is protected"),
        "{}",
        reply.text()
    );
    assert!(reply.text().contains("is asleep"), "{}", reply.text());
    assert!(world.workloads.peek(&id).desired.is_zero());
}

// The same where it is awake and has no replica yet: who reads that it sleeps looks in the wrong place.
#[tokio::test]
async fn what_nobody_may_change_is_asleep_only_when_nothing_is_wanted() {
    let mut workload = asleep_workload();
    workload.id.namespace = Namespace::new("kube-system").unwrap();
    workload.desired = Replicas(1);
    let world = World::with(Settings::default(), vec![workload], Shutdown::never()).await;
    let reply = get(world.address, HOST, "/").await;
    assert_eq!(reply.code, 503);
    assert!(reply.text().contains("does not serve"), "{}", reply.text());
    assert!(!reply.text().contains("asleep"), "{}", reply.text());
}

// What is still missing grows less by itself, without any change that would be told.
#[tokio::test]
async fn what_a_wake_waits_for_is_told_as_it_is_now() {
    let world = World::asleep().await;
    let _client = held_client(&world).await;
    world.until_woken().await;
    let wait = |seconds| Pending::NodeBooting {
        pool: PoolName::new("gpu").unwrap(),
        ready_in: Some(Duration::from_secs(seconds)),
    };
    world
        .workloads
        .change(&world.id, |w| w.pending = Some(wait(90)));
    let told = async |words: &str| {
        let reply = get(world.address, HOST, crate::names::STATUS_PATH).await;
        reply.text().contains(words)
    };
    eventually("90 s", async || told("expected in 90.0 s").await).await;
    world
        .workloads
        .change_untold(&world.id, |w| w.pending = Some(wait(30)));
    eventually("30 s", async || told("expected in 30.0 s").await).await;
}

#[tokio::test]
async fn requests_without_a_known_host_are_refused_and_told_nothing() {
    let world = World::asleep().await;
    let unknown = get(world.address, "other.localhost", "/").await;
    assert_eq!(unknown.code, 404);
    assert_eq!(unknown.header("nagi-status"), Some("unknown-host"));
    assert!(!unknown.text().contains("project-a"), "{}", unknown.text());
    assert!(
        unknown.text().contains("under the host other.localhost"),
        "{}",
        unknown.text()
    );
    assert!(unknown.text().contains("nagi list"), "{}", unknown.text());
    // A person gets a page, and what he typed cannot run in it.
    for (host, code, shown) in [
        ("other.localhost", 404, "under the host other.localhost"),
        ("<b>", 400, "is not a host name"),
    ] {
        let browser = format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
        );
        let page = request(world.address, &browser).await;
        assert_eq!(page.code, code, "{}", page.text());
        let kind = page.header("content-type");
        assert_eq!(kind, Some("text/html; charset=utf-8"));
        let text = page.text();
        assert!(text.contains("This page cannot be shown"), "{text}");
        assert!(text.contains(shown) && !text.contains("<b>"), "{text}");
        assert!(!text.contains("refresh"), "it does not ask again: {text}");
    }
    assert!(
        unknown.text().contains("\"status\":\"error\""),
        "{}",
        unknown.text()
    );
    for (text, code) in [
        (
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
            400,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"),
            400,
        ),
        (
            format!("CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"),
            501,
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: {HOST}\r\nExpect: miracles\r\nConnection: close\r\n\r\n"
            ),
            417,
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: {HOST}\r\nVia: 1.1 nagi, 1.1 nagi, 1.1 nagi, 1.1 nagi\r\nConnection: close\r\n\r\n"
            ),
            508,
        ),
    ] {
        let reply = request(world.address, &text).await;
        assert_eq!(
            (reply.code, reply.header("nagi-status")),
            (code, Some("bad-request")),
            "{text}"
        );
    }
    assert_eq!(world.workloads.writes().len(), 0);
}

// Whoever may write on one workload must not take the requests of another.
#[tokio::test]
async fn a_default_host_belongs_to_its_workload_whoever_claims_it() {
    let victim = asleep_workload();
    let own = victim.id.default_host().unwrap();
    let host = own.as_str().to_owned();
    let mut thief = victim.clone();
    // Sorts first, so it would win any other host.
    thief.id.namespace = Namespace::new("a").unwrap();
    thief.hosts = vec![own.clone()];
    let victim = nagi_core::workload::Workload {
        hosts: vec![own],
        ..victim
    };
    let id = victim.id.clone();
    let world = World::with(Settings::default(), vec![thief, victim], Shutdown::never()).await;
    let reply = get(world.address, &host, crate::names::STATUS_PATH).await;
    let namespace = format!("\"namespace\":\"{}\"", id.namespace);
    assert!(reply.text().contains(&namespace), "{}", reply.text());
}
