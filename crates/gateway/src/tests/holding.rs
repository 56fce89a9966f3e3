//! Holding and waking: one wake however many wait, deadlines, refusals, clients that go away.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nagi_core::id::RequestId;
use nagi_core::quantity::{Replicas, WakeCount};
use nagi_core::wake::{Learned, Stage};
use nagi_core::workload::Readiness;
use nagi_runtime::Shutdown;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::support::{
    ClosedPort, Echo, HOST, MovableClock, PATIENCE, World, asleep_workload, eventually, get,
    held_client, read_to_close, replica, request,
};
use crate::Settings;
use crate::backend::{Admission, Arrival, Cause, Release};

fn settings(budget: Duration) -> Settings {
    let mut settings = Settings::default();
    settings.hold.budget = budget;
    settings
}

#[tokio::test]
async fn a_request_wakes_the_workload_and_is_answered_over_the_probing_connection() {
    let mut world = World::asleep().await;
    let port = ClosedPort::reserve();
    let mut clients = JoinSet::new();
    let address = world.address;
    clients.spawn(async move { get(address, HOST, "/hello?a=1").await });
    world.until_woken().await;
    world.start_replica(port.address, Readiness::Tcp);
    world.until_held(1).await;
    let echo = Echo::default();
    echo.serve(port.listen(), &mut world.tasks);
    let reply = clients.join_next().await.unwrap().unwrap();
    assert_eq!(reply.code, 200, "{}", reply.text());
    assert!(
        reply.text().starts_with("GET /hello?a=1 HTTP/1.1\r\n"),
        "{}",
        reply.text()
    );
    assert_eq!(
        echo.connections.load(Ordering::SeqCst),
        1,
        "the probe's connection carried the request"
    );
    assert_eq!(world.wakes(), 1);
    let activity = world.activity().await;
    assert_eq!((activity.in_flight, activity.held), (0, 0));
}

// W: thundering herds; DESIGN §6 "one flight per workload however many requests wait"
#[tokio::test]
async fn a_thousand_held_requests_are_one_wake_and_all_are_answered() {
    let mut world = World::asleep().await;
    let port = ClosedPort::reserve();
    let mut clients = JoinSet::new();
    let address = world.address;
    for n in 0..1000 {
        clients.spawn(async move { get(address, HOST, &format!("/{n}")).await });
    }
    world.until_held(1000).await;
    let turned = get(address, HOST, "/one-more").await;
    assert_eq!(turned.code, 503);
    assert_eq!(turned.header("nagi-status"), Some("hold-full"));
    assert!(turned.header("retry-after").is_some());
    world.start_replica(port.address, Readiness::Tcp);
    let echo = Echo::default();
    echo.serve(port.listen(), &mut world.tasks);
    while let Some(reply) = clients.join_next().await {
        let reply = reply.unwrap();
        assert_eq!(reply.code, 200, "{}", reply.text());
    }
    assert_eq!(
        echo.requests.load(Ordering::SeqCst),
        1000,
        "each was executed once"
    );
    assert_eq!(world.wakes(), 1);
    let activity = world.activity().await;
    assert_eq!((activity.in_flight, activity.held), (0, 0));
}

#[tokio::test]
async fn those_who_wait_go_in_the_order_of_their_arrival() {
    let world = World::asleep().await;
    let backend = world.gateway.routes().backend(&world.id).unwrap();
    let mut waiting: Vec<_> = (0..300)
        .map(|_| match backend.admit(Cause::Arrived, Arrival::default) {
            Admission::Hold(waiting) => waiting,
            other @ (Admission::Go(_) | Admission::Turned(_)) => panic!("{other:?}"),
        })
        .collect();
    // Some in the middle go away.
    waiting.drain(100..200);
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for (n, mut waiting) in waiting.into_iter().enumerate() {
        let order = Arc::clone(&order);
        tasks.spawn(async move {
            assert!(matches!(waiting.released().await, Release::Go(_)));
            order.lock().unwrap().push(n);
        });
    }
    tokio::task::yield_now().await;
    world.workloads.change(&world.id, |w| {
        w.desired = Replicas(1);
        w.replicas = vec![replica(
            0,
            "127.0.0.1:1".parse().unwrap(),
            Readiness::Tcp,
            true,
        )];
    });
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let order = order.lock().unwrap();
    assert_eq!(*order, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_limits_of_all_held_requests_and_of_their_heads_are_kept() {
    let mut limited = Settings::default();
    limited.hold.total = 2;
    limited.hold.bytes = 2000;
    let world = World::asleep_with(limited).await;
    let address = world.address;
    let big = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {}\r\nConnection: close\r\n\r\n",
        "x".repeat(3000)
    );
    let reply = request(address, &big).await;
    assert_eq!(reply.header("nagi-status"), Some("hold-full"), "bytes");
    let mut clients = JoinSet::new();
    for _ in 0..2 {
        clients.spawn(async move { get(address, HOST, "/").await });
    }
    world.until_held(2).await;
    let reply = get(address, HOST, "/").await;
    assert_eq!(reply.header("nagi-status"), Some("hold-full"), "count");
    drop(clients);
    world.until_held(0).await;
}

// Invariant 3; Knative #13583 is the bug that this forbids.
#[tokio::test]
async fn a_client_that_goes_away_frees_its_place_at_once_also_with_an_unread_body() {
    let world = World::asleep().await;
    let heads = [
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 500000\r\n\r\nhello"),
        format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        ),
        // A second request behind the first.
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\nGET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
    ];
    for head in heads {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        world.until_held(1).await;
        drop(stream);
        world.until_held(0).await;
        let activity = world.activity().await;
        assert_eq!(activity.in_flight, 0, "{head}");
    }
}

// What runs and is asked on the wrong port is not told as waking for ever.
#[tokio::test]
async fn a_port_on_which_nobody_listens_is_named() {
    let closed = ClosedPort::reserve();
    let world = World::awake_with(settings(Duration::from_millis(200)), &[closed.address]).await;
    let reply = get(world.address, HOST, "/").await;
    assert_eq!(reply.code, 503);
    let words = format!("nothing answers on its port {}", closed.address.port());
    assert!(reply.text().contains(&words), "{}", reply.text());
    assert!(
        reply.text().contains("the port named http"),
        "{}",
        reply.text()
    );
}

#[tokio::test]
async fn past_the_budget_everybody_is_told_in_his_own_manner() {
    let world = World::asleep_with(settings(Duration::from_millis(50))).await;
    let plain = get(world.address, HOST, "/").await;
    assert_eq!(plain.code, 503);
    assert_eq!(plain.header("nagi-status"), Some("waking"));
    assert_eq!(plain.header("retry-after"), Some("2"));
    assert_eq!(plain.header("content-type"), Some("application/json"));
    assert!(
        plain.text().contains("the request was not executed"),
        "{}",
        plain.text()
    );

    let browser = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html,*/*\r\nConnection: close\r\n\r\n"
    );
    let page = request(world.address, &browser).await;
    assert_eq!(page.code, 503);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert!(page.header("retry-after").is_some());
    assert!(
        page.text().contains("http-equiv=\"refresh\""),
        "{}",
        page.text()
    );
    assert!(
        page.text().contains("project-a/app is waking"),
        "{}",
        page.text()
    );
    assert!(
        !page.text().contains("http://") && !page.text().contains("src="),
        "no outside assets"
    );

    // A form that a browser sends is no navigation that may be repeated by itself.
    let form = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(
        request(world.address, &form).await.header("content-type"),
        Some("application/json")
    );

    let patient = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nPrefer: respond-async\r\nConnection: close\r\n\r\n"
    );
    let accepted = request(world.address, &patient).await;
    assert_eq!(accepted.code, 202);
    let location = accepted.header("location").unwrap();
    assert!(
        accepted.text().contains("NOT executed"),
        "{}",
        accepted.text()
    );
    let status = get(world.address, HOST, location).await;
    assert_eq!(status.code, 200);
    assert!(
        status.text().contains("\"status\":\"waking\""),
        "{}",
        status.text()
    );
    assert_eq!(world.wakes(), 1);
}

#[tokio::test]
async fn a_browser_that_has_seen_the_page_soon_sees_the_next_stage() {
    let limited = settings(Duration::from_secs(10));
    let clock = MovableClock::start();
    let world = World::with_clock(
        limited,
        vec![asleep_workload()],
        Shutdown::never(),
        clock.clone(),
    )
    .await;
    // The wake is older than the budget: whoever waited from its beginning has been answered.
    let first = held_client(&world).await;
    world.until_woken().await;
    clock.advance(Duration::from_secs(11));
    let began = tokio::time::Instant::now();
    let browser =
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\nConnection: close\r\n\r\n");
    assert!(
        request(world.address, &browser)
            .await
            .text()
            .contains("refresh")
    );
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    drop(first);
}

#[tokio::test]
async fn prefer_wait_shortens_the_hold_and_never_lengthens_it() {
    let world = World::asleep_with(settings(Duration::from_millis(300))).await;
    for (wait, least, most) in [("0", 0, 250), ("3600", 290, 5_000)] {
        let text = format!(
            "GET / HTTP/1.1\r\nHost: {HOST}\r\nPrefer: respond-async, wait={wait}\r\nConnection: close\r\n\r\n"
        );
        let began = tokio::time::Instant::now();
        assert_eq!(request(world.address, &text).await.code, 202);
        let took = began.elapsed().as_millis();
        assert!((least..most).contains(&took), "wait={wait}: {took} ms");
    }
}

#[tokio::test]
async fn the_wake_is_recorded_with_the_request_that_caused_it() {
    let world = World::asleep().await;
    let mut client = TcpStream::connect(world.address).await.unwrap();
    let text = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Request-ID: trace-7\r\n\r\n");
    client.write_all(text.as_bytes()).await.unwrap();
    world.until_woken().await;
    let change = world
        .workloads
        .peek(&world.id)
        .intent
        .changes
        .last()
        .cloned()
        .unwrap();
    assert_eq!(change.request_id.unwrap().as_str(), "trace-7");
    assert_eq!(change.action, nagi_core::intent::Action::WakeOnRequest);
}

// Issue 3 item 4: every change records a request id; R21: what is no id is replaced.
#[tokio::test]
async fn a_held_request_without_an_id_gets_one_that_history_and_replica_see() {
    for ids in [
        "",
        "X-Request-ID: a b\r\n",
        "X-Request-ID: one\r\nX-Request-ID: two\r\n",
    ] {
        let mut world = World::asleep().await;
        let port = ClosedPort::reserve();
        let text = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{ids}Connection: close\r\n\r\n");
        let mut clients = JoinSet::new();
        let address = world.address;
        clients.spawn(async move { request(address, &text).await });
        world.until_woken().await;
        world.start_replica(port.address, Readiness::Tcp);
        Echo::default().serve(port.listen(), &mut world.tasks);
        let reply = clients.join_next().await.unwrap().unwrap();
        let workload = world.workloads.peek(&world.id);
        let recorded = workload.intent.changes.last().unwrap().request_id.clone();
        let recorded = recorded.expect("a wake by a request has its id");
        assert_eq!(recorded.as_str().len(), 32, "one of ours: {recorded:?}");
        let seen = reply.text().to_lowercase();
        let seen: Vec<_> = seen
            .lines()
            .filter_map(|line| line.strip_prefix("x-request-id: "))
            .collect();
        assert_eq!(seen, [recorded.as_str()], "{ids:?}");
    }
}

// R21
#[tokio::test]
async fn who_is_told_to_wait_is_told_the_id_of_his_request() {
    let world = World::with(
        settings(Duration::from_millis(100)),
        vec![asleep_workload()],
        Shutdown::never(),
    )
    .await;
    let text = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let reply = request(world.address, &text).await;
    assert_eq!(reply.code, 503);
    let workload = world.workloads.peek(&world.id);
    let recorded = workload.intent.changes.last().unwrap().request_id.clone();
    assert_eq!(
        reply.header("x-request-id"),
        recorded.as_ref().map(RequestId::as_str)
    );
    let text = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Request-ID: trace-8\r\nConnection: close\r\n\r\n"
    );
    let second = request(world.address, &text).await;
    assert_eq!(second.header("x-request-id"), Some("trace-8"));
}

#[tokio::test]
async fn what_was_found_out_about_a_replica_ends_with_its_life() {
    let at = "127.0.0.1:1".parse().unwrap();
    let world = World::awake(&[at]).await;
    let backend = world.gateway.routes().backend(&world.id).unwrap();
    let mut version = backend.workload().version.number;
    let mut observe = |desired: u32, ready: bool| {
        version += 1;
        let mut w = (*backend.workload()).clone();
        w.version.number = version;
        w.desired = Replicas(desired);
        w.replicas = vec![replica(0, at, Readiness::Tcp, ready)];
        backend.observe(Arc::new(w));
    };
    let goes = || match backend.admit(Cause::Arrived, Arrival::default) {
        Admission::Go(place) => Some(Arc::clone(place.upstream())),
        Admission::Hold(_) | Admission::Turned(_) => None,
    };
    // A refusal holds until the engine says something new.
    let upstream = goes().expect("it is ready");
    backend.refused(&upstream);
    observe(1, true);
    assert!(goes().is_none(), "the engine repeats what it said before");
    observe(1, false);
    observe(1, true);
    let upstream = goes().expect("it came up again");
    // A probe's finding ends when the workload sleeps.
    observe(1, false);
    assert!(goes().is_none());
    backend.reached(&upstream, 1);
    observe(1, false);
    assert!(goes().is_some(), "the engine has not noticed yet");
    observe(0, false);
    observe(1, false);
    assert!(goes().is_none(), "the same name and port, another process");
}

#[tokio::test]
async fn a_wake_that_is_known_to_take_longer_is_answered_at_once() {
    let mut workload = asleep_workload();
    workload.intent.learned = Learned::from_stored([
        (Stage::Accepted, Duration::from_mins(5)),
        (Stage::Scaling, Duration::from_mins(5)),
    ]);
    let world = World::with(Settings::default(), vec![workload], Shutdown::never()).await;
    let reply = get(world.address, HOST, "/").await;
    assert_eq!(reply.code, 503);
    assert_eq!(reply.header("nagi-status"), Some("waking"));
    let after: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((290..=300).contains(&after), "{after}");
    assert_eq!(world.wakes(), 1, "it wakes all the same");
}

#[tokio::test]
async fn a_workload_that_may_sleep_by_itself_wakes_to_one_when_nobody_knows_better() {
    let mut workload = asleep_workload();
    workload.intent.remembered = None;
    let world = World::with(Settings::default(), vec![workload], Shutdown::never()).await;
    let _client = held_client(&world).await;
    world.until_woken().await;
    assert_eq!(world.workloads.peek(&world.id).desired, Replicas(1));
}

#[tokio::test]
async fn a_workload_that_is_deleted_while_somebody_waits_is_gone_for_him_too() {
    let world = World::asleep().await;
    let mut client = held_client(&world).await;
    world.workloads.delete(&world.id);
    let reply = read_to_close(&mut client).await;
    assert_eq!(reply.code, 404);
    assert_eq!(get(world.address, HOST, "/").await.code, 404);
}

#[tokio::test]
async fn a_replica_that_dies_while_somebody_waits_is_replaced_without_the_client_noticing() {
    let mut world = World::asleep().await;
    let mut client = held_client(&world).await;
    world.until_woken().await;
    let first = ClosedPort::reserve();
    world.start_replica(first.address, Readiness::Tcp);
    world.workloads.change(&world.id, |w| w.replicas.clear());
    drop(first);
    let second = ClosedPort::reserve();
    world.start_replica(second.address, Readiness::Tcp);
    let echo = Echo::default();
    echo.serve(second.listen(), &mut world.tasks);
    assert_eq!(read_to_close(&mut client).await.code, 200);
    assert_eq!(world.wakes(), 1);
}

/// A replica that the engine still calls ready, whose port is closed: the request waits for it or its successor.
#[tokio::test]
async fn a_request_to_a_replica_that_refuses_is_held_until_one_serves() {
    let port = ClosedPort::reserve();
    let mut world = World::awake(&[port.address]).await;
    let mut client = held_client(&world).await;
    let echo = Echo::default();
    echo.serve(port.listen(), &mut world.tasks);
    let reply = read_to_close(&mut client).await;
    assert_eq!(reply.code, 200, "{}", reply.text());
    assert_eq!(world.wakes(), 0);
}

// Invariant 4, issue 3: whom the order met is told so; the order is not undone on their behalf.
#[tokio::test]
async fn an_order_to_sleep_during_the_wake_ends_the_wait_of_those_who_were_there() {
    let world = World::asleep().await;
    let mut client = held_client(&world).await;
    world.until_woken().await;
    order_to_sleep(&world).await;
    let reply = read_to_close(&mut client).await;
    assert_eq!(reply.code, 503);
    assert!(
        reply.text().contains("put to sleep again"),
        "{}",
        reply.text()
    );
    assert_eq!(world.wakes(), 1, "nobody wakes it again");
    assert!(world.workloads.peek(&world.id).desired.is_zero());
}

#[tokio::test]
async fn who_comes_after_an_order_to_sleep_wakes_it_also_before_the_gateway_has_seen_the_order() {
    let mut world = World::asleep().await;
    let mut before = held_client(&world).await;
    world.until_woken().await;
    eventually("the wake is followed", async || {
        world
            .gateway
            .shared()
            .wakes
            .flight(&world.id)
            .is_some_and(|view| view.version.is_some())
    })
    .await;
    let backend = world.gateway.routes().backend(&world.id).unwrap();
    order_to_sleep(&world).await;
    // No turn of the scheduler since: the gateway still believes in the wake.
    let Admission::Hold(mut after) = backend.admit(Cause::Arrived, Arrival::default) else {
        panic!("not held")
    };
    assert_eq!(read_to_close(&mut before).await.code, 503);
    eventually("woken again", async || world.wakes() == 2).await;
    let port = ClosedPort::reserve();
    world.start_replica(port.address, Readiness::Tcp);
    Echo::default().serve(port.listen(), &mut world.tasks);
    let release = tokio::time::timeout(PATIENCE, after.released()).await;
    assert!(matches!(release, Ok(Release::Go(_))), "{release:?}");
}

/// Writes the count zero, as the API does.
async fn order_to_sleep(world: &World) {
    let before = world.workloads.peek(&world.id);
    let update = nagi_core::intent::IntentUpdate {
        desired: Replicas::ZERO,
        intent: before.intent.clone(),
    };
    nagi_ports::Workloads::write(&*world.workloads, &before, update)
        .await
        .unwrap();
}

// DESIGN §6 "who may wake"
#[tokio::test]
async fn probes_and_scrapers_neither_wake_nor_keep_awake() {
    let mut world = World::asleep().await;
    let probe = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: kube-probe/1.36\r\nConnection: close\r\n\r\n"
    );
    let quiet_before = world.activity().await.quiet_for;
    let reply = request(world.address, &probe).await;
    assert_eq!(reply.code, 503);
    assert_eq!(reply.header("nagi-status"), Some("asleep"));
    assert_eq!(world.workloads.writes().len(), 0);

    let echo = Echo::default();
    let address = echo.start(&mut world.tasks).await;
    world.workloads.change(&world.id, |w| {
        w.desired = Replicas(1);
        w.current = Replicas(1);
        w.available = Replicas(1);
        w.replicas = vec![replica(0, address, Readiness::Tcp, true)];
    });
    world.until_status("ready").await;
    assert_eq!(request(world.address, &probe).await.code, 200);
    assert_eq!(echo.requests.load(Ordering::SeqCst), 1);
    assert!(
        world.activity().await.quiet_for > quiet_before,
        "it was not counted"
    );
}

#[tokio::test]
async fn a_count_that_is_known_wakes_without_a_policy() {
    let mut workload = asleep_workload();
    workload.idle_after = None;
    workload.intent.remembered = WakeCount::new(3);
    let world = World::with(Settings::default(), vec![workload], Shutdown::never()).await;
    let _client = held_client(&world).await;
    world.until_woken().await;
    assert_eq!(world.workloads.peek(&world.id).desired, Replicas(3));
}
