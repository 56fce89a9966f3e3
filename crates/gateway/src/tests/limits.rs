//! Slow clients, large heads, many connections, and the end of the process.

use std::sync::atomic::Ordering;
use std::time::Duration;

use nagi_runtime::{ShutdownReport, Supervisor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::support::{
    Echo, HOST, PATIENCE, World, asleep_workload, eventually, get, read_one, read_request,
    read_to_close, request,
};
use crate::Settings;

/// Limits that a test can wait for.
fn short() -> Settings {
    let mut settings = Settings::default();
    settings.client.head_timeout = Duration::from_millis(80);
    settings.client.idle_timeout = Duration::from_millis(160);
    settings
}

async fn connect(world: &World, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Reads to the end, whether it is a close or a reset.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    let read = async {
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut part).await {
            seen.extend_from_slice(&part[..n]);
        }
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("closed in time");
    String::from_utf8_lossy(&seen).into_owned()
}

// W-A18
#[tokio::test]
async fn a_head_that_does_not_end_is_cut_however_it_drips() {
    let world = World::asleep_with(short()).await;
    assert_eq!(
        until_closed(&mut connect(&world, "").await).await,
        "",
        "no byte at all"
    );
    assert_eq!(
        until_closed(&mut connect(&world, "GET / HT").await).await,
        ""
    );
    let mut dripping = connect(&world, "GET / HTTP/1.1\r\n").await;
    let began = tokio::time::Instant::now();
    while dripping.write_all(b"X: y\r\n").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(began.elapsed() < PATIENCE, "progress must not keep it open");
    }
    assert_eq!(world.activity().await.in_flight, 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_used_one_is_not() {
    let mut tasks = JoinSet::new();
    let world = World::awake_with(short(), &[Echo::default().start(&mut tasks).await]).await;
    let mut client = connect(&world, "").await;
    // Longer in all than any limit, but never idle for as long.
    for _ in 0..8 {
        client
            .write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        assert_eq!(read_one(&mut client).await.code, 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(until_closed(&mut client).await, "");
}

#[tokio::test]
async fn a_body_that_stops_coming_is_cut_and_no_longer_counted() {
    let mut tasks = JoinSet::new();
    let world = World::awake_with(short(), &[Echo::default().start(&mut tasks).await]).await;
    let mut client = connect(
        &world,
        &format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nabc"),
    )
    .await;
    assert_eq!(until_closed(&mut client).await, "");
    eventually("no longer counted", async || {
        world.activity().await.in_flight == 0
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_cut_and_no_longer_counted() {
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream, &mut Vec::new()).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        // More than all buffers on the way hold.
        let block = vec![b'x'; 1 << 20];
        while stream.write_all(&block).await.is_ok() {}
    });
    let world = World::awake_with(short(), &[at]).await;
    let _client = connect(&world, &format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    eventually("in flight", async || world.activity().await.in_flight == 1).await;
    eventually("no longer counted", async || {
        world.activity().await.in_flight == 0
    })
    .await;
}

/// The rule is about the client; a replica may take as long as its own limit says.
#[tokio::test]
async fn a_held_or_slowly_answered_request_is_no_slow_client() {
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream, &mut Vec::new()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await
            .unwrap();
        std::future::pending::<()>().await;
    });
    let world = World::awake_with(short(), &[at]).await;
    assert_eq!(get(world.address, HOST, "/").await.code, 200);
}

#[tokio::test]
async fn heads_beyond_the_limits_are_refused() {
    let mut tasks = JoinSet::new();
    let world = World::awake(&[Echo::default().start(&mut tasks).await]).await;
    let fits = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {}\r\nConnection: close\r\n\r\n",
        "x".repeat(30 * 1024)
    );
    let mut client = connect(&world, &fits).await;
    assert_eq!(read_to_close(&mut client).await.code, 200);
    let long = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {}\r\nConnection: close\r\n\r\n",
        "x".repeat(33 * 1024)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n",
        "X: y\r\n".repeat(101)
    );
    for text in [long, many] {
        let answer = until_closed(&mut connect(&world, &text).await).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}

#[tokio::test]
async fn beyond_the_limit_clients_wait_outside_and_are_served_when_one_leaves() {
    let mut tasks = JoinSet::new();
    let mut settings = Settings::default();
    settings.client.connections = 2;
    let world = World::awake_with(settings, &[Echo::default().start(&mut tasks).await]).await;
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut first = connect(&world, &request).await;
    let mut second = connect(&world, &request).await;
    read_one(&mut first).await;
    read_one(&mut second).await;
    let mut third = connect(&world, &request).await;
    let early = tokio::time::timeout(Duration::from_millis(50), third.read_u8()).await;
    assert!(early.is_err(), "{early:?}");
    drop(first);
    assert_eq!(read_one(&mut third).await.code, 200);
}

//
#[test]
fn requests_in_flight_get_thirty_seconds_at_shutdown() {
    assert_eq!(Settings::default().grace, Duration::from_secs(30));
}

// Invariant 3: what was accepted is finished, refused with a reason, or cut only at the end of the grace period.
#[tokio::test]
async fn shutdown_tells_the_held_finishes_the_running_and_cuts_the_rest_after_the_grace_period() {
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (go, wait) = oneshot::channel::<()>();
    tasks.spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        read_request(&mut first, &mut Vec::new()).await.unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        read_request(&mut second, &mut Vec::new()).await.unwrap();
        wait.await.unwrap();
        first
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await
            .unwrap();
        std::future::pending::<()>().await;
    });
    let mut asleep = asleep_workload();
    asleep.id = nagi_testkit::id("project-a/asleep");
    asleep.hosts = vec![nagi_core::id::Host::new("asleep.localhost").unwrap()];
    let mut awake = nagi_testkit::workload("project-a/app", 1, 1, 1);
    awake.hosts = asleep_workload().hosts;
    awake.replicas = vec![super::support::replica(
        0,
        at,
        nagi_core::workload::Readiness::Tcp,
        true,
    )];
    let settings = Settings {
        grace: Duration::from_millis(500),
        ..Settings::default()
    };
    let mut supervisor = Supervisor::new();
    let world = World::with(settings, vec![awake, asleep.clone()], supervisor.shutdown()).await;
    world.until_status("ready").await;

    let text = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut running = connect(&world, &text).await;
    eventually("one runs", async || world.activity().await.in_flight == 1).await;
    let mut hanging = connect(&world, &text).await;
    eventually("two run", async || world.activity().await.in_flight == 2).await;
    let mut idle = connect(&world, "").await;
    let mut held = connect(&world, "GET / HTTP/1.1\r\nHost: asleep.localhost\r\n\r\n").await;
    let traffic = &world.gateway;
    eventually("one is held", async || {
        nagi_ports::Traffic::activity(traffic, &asleep.id)
            .await
            .unwrap()
            .held
            == 1
    })
    .await;

    supervisor.spawn("test", std::future::pending::<()>());
    let shutdown = supervisor.shutdown();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut supervising = JoinSet::new();
    supervising.spawn(async move {
        let report = supervisor
            .run_until(
                async move { stopped.await.unwrap() },
                Duration::from_secs(3),
            )
            .await;
        assert_eq!(
            report.unwrap(),
            ShutdownReport {
                cut: vec!["test"],
                failed: vec![]
            }
        );
    });
    stop.send(()).unwrap();
    shutdown.draining().await;
    let told = until_closed(&mut held).await;
    assert!(
        told.starts_with("HTTP/1.1 503 ") && told.contains("nagi-status: stopping"),
        "{told}"
    );
    assert_eq!(until_closed(&mut idle).await, "");
    eventually("no longer accepts", async || {
        TcpStream::connect(world.address).await.is_err()
    })
    .await;
    go.send(()).unwrap();
    let answer = until_closed(&mut running).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"),
        "{answer}"
    );
    assert_eq!(
        until_closed(&mut hanging).await,
        "",
        "cut after the grace period"
    );
    assert_eq!(world.activity().await.in_flight, 0);
}

#[tokio::test]
async fn what_the_gateway_did_is_counted() {
    let mut tasks = JoinSet::new();
    let echo = Echo::default();
    let world = World::awake(&[echo.start(&mut tasks).await]).await;
    get(world.address, HOST, "/").await;
    get(world.address, "other.localhost", "/").await;
    let text = world.metrics.encode().unwrap();
    assert!(
        text.contains("nagi_gateway_requests_total{result=\"proxied\"} 1"),
        "{text}"
    );
    assert!(
        text.contains("nagi_gateway_requests_total{result=\"unknown-host\"}"),
        "{text}"
    );
    assert!(text.contains("nagi_gateway_held_requests 0"), "{text}");
    assert!(text.contains("nagi_gateway_in_flight_requests 0"), "{text}");
    assert_eq!(echo.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn old_clients_are_served_too() {
    let mut tasks = JoinSet::new();
    let world = World::awake(&[Echo::default().start(&mut tasks).await]).await;
    let reply = request(
        world.address,
        &format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"),
    )
    .await;
    assert_eq!(reply.code, 200);
    assert!(
        reply.text().starts_with("GET / HTTP/1.1"),
        "{}",
        reply.text()
    );
    assert_eq!(reply.header("transfer-encoding"), None);
}
