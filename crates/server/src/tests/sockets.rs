//! The API over real sockets: everything wired, many callers at once, slow clients beside quick ones.
//!
//! Only what needs a kernel is here; the rules are proven without one, inside the crate.

use std::collections::BTreeMap;
use std::time::Duration;

use nagi_runtime::Supervisor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::world::{BASE, Setup, World};
use crate::{Listeners, Server};

/// A running API.
struct Running {
    world: World,
    port: u16,
    metrics_port: u16,
    stop: oneshot::Sender<()>,
    ended: JoinSet<()>,
}

async fn start() -> Running {
    let mut supervisor = Supervisor::new();
    let mut setup = Setup {
        shutdown: Some(supervisor.shutdown()),
        ..Setup::default()
    };
    setup.config.rate.per_second = 0;
    let world = setup.world();
    let server = Server {
        app: world.app.clone(),
    };
    let [api, metrics] = [
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    ];
    let ports = [&api, &metrics].map(|listener| listener.local_addr().unwrap().port());
    let listeners = Listeners {
        api: Some(api),
        metrics: Some(metrics),
    };
    supervisor.spawn("server", server.run(listeners));
    let (stop, stopped) = oneshot::channel();
    let mut ended = JoinSet::new();
    ended.spawn(async move {
        let signal = async { drop(stopped.await) };
        let report = supervisor
            .run_until(signal, Duration::from_secs(31))
            .await
            .unwrap();
        assert_eq!(report.cut, Vec::<&str>::new());
    });
    Running {
        world,
        port: ports[0],
        metrics_port: ports[1],
        stop,
        ended,
    }
}

/// One request on a connection of its own; status and body.
async fn call(port: u16, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

fn path(verb: &str) -> String {
    format!("{BASE}/{verb}")
}

// A-010, A-050, A-165: both listeners serve, and an orderly end takes no longer than it must.
#[tokio::test]
async fn both_listeners_serve_and_the_end_is_quick() {
    let mut api = start().await;
    assert_eq!(call(api.port, "GET", "/health", "").await.0, 200);
    assert_eq!(call(api.port, "GET", "/metrics", "").await.0, 404);
    let (status, text) = call(api.metrics_port, "GET", "/metrics", "").await;
    assert_eq!(status, 200);
    assert!(
        text.contains("nagi_build_info{version=\"0.0.0\"} 1"),
        "{text}"
    );
    assert_eq!(call(api.metrics_port, "GET", "/health", "").await.0, 200);
    assert_eq!(
        call(api.metrics_port, "GET", "/api/v1/workloads", "")
            .await
            .0,
        404
    );

    // A scraper leaves no lines, unless it asks for what is not there.
    let lines = api.world.log_lines();
    let paths: Vec<_> = lines
        .iter()
        .filter_map(|line| line["path"].as_str())
        .collect();
    assert_eq!(paths, ["/health", "/metrics", "/api/v1/workloads"]);

    // A stream is open and a connection is idle: neither holds up the end.
    let mut stream = TcpStream::connect(("127.0.0.1", api.port)).await.unwrap();
    stream
        .write_all(b"GET /api/v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 16];
    stream.read_exact(&mut first).await.unwrap();
    let mut idle = TcpStream::connect(("127.0.0.1", api.port)).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    idle.read_exact(&mut first).await.unwrap();
    let begun = Instant::now();
    api.stop.send(()).unwrap();
    api.ended.join_next().await.unwrap().unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert!(TcpStream::connect(("127.0.0.1", api.port)).await.is_err());
}

// F03, F04, invariant 7: callers who get in each other's way get answers, and the last accepted change is what is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_mixed_calls_leave_the_last_accepted_change() {
    let api = start().await;
    let mut calls = JoinSet::new();
    for n in 0..200_u32 {
        let port = api.port;
        calls.spawn(async move {
            let (method, verb, body) = match n % 5 {
                0 => ("POST", "scale-to-zero", r#"{"reason":"x"}"#.to_owned()),
                1 => (
                    "POST",
                    "scale-up",
                    format!(r#"{{"reason":"x","replicas":{}}}"#, n % 7 + 1),
                ),
                2 => ("POST", "wake", String::new()),
                3 => (
                    "POST",
                    "scale-to-zero",
                    r#"{"reason":"x","scheduled_scale_up":"2030-06-01T00:00:00Z"}"#.to_owned(),
                ),
                _ => ("DELETE", "scheduled-scale-up", String::new()),
            };
            call(port, method, &path(verb), &body).await
        });
    }
    let mut statuses: BTreeMap<u16, u32> = BTreeMap::new();
    while let Some(answer) = calls.join_next().await {
        let (status, body) = answer.unwrap();
        assert!(
            serde_json::from_str::<serde_json::Value>(&body).is_ok(),
            "{body}"
        );
        *statuses.entry(status).or_default() += 1;
    }
    assert!(
        statuses
            .keys()
            .all(|status| [200, 202, 404, 503].contains(status)),
        "{statuses:?}"
    );
    let writes = api.world.workloads.writes();
    let (_, last) = writes.last().unwrap();
    let now = api.world.app_a();
    assert_eq!(
        (now.desired, &now.intent.changes),
        (last.desired, &last.intent.changes)
    );
    // Each write follows on the one before: no update was lost.
    for pair in writes.windows(2) {
        let (before, after) = (&pair[0].1, &pair[1].1);
        if let Some(change) = after
            .intent
            .changes
            .last()
            .filter(|c| before.intent.changes.last() != Some(*c))
        {
            assert_eq!(change.from, before.desired);
        }
    }
    assert!(
        writes
            .iter()
            .all(|(_, update)| update.intent.remembered.is_some())
    );
}

// W-A18, issue 3: five hundred clients that send a byte now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_slow_clients_do_not_slow_health() {
    let api = start().await;
    let port = api.port;
    let mut slow = JoinSet::new();
    for n in 0..500 {
        slow.spawn(async move {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else {
                return;
            };
            let head = if n % 2 == 0 {
                "GET /health HTT".to_owned()
            } else {
                format!(
                    "POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n",
                    path("scale-up")
                )
            };
            while stream.write_all(head.as_bytes()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    let mut times = Vec::new();
    for _ in 0..300 {
        let begun = Instant::now();
        assert_eq!(call(port, "GET", "/health", "").await.0, 200);
        times.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    times.sort();
    let p99 = times[times.len() * 99 / 100];
    assert!(p99 < Duration::from_millis(100), "{p99:?}");
}

// R08, R23: the answer reaches a client that is still sending what nobody wants to read.
#[tokio::test]
async fn an_answer_survives_a_body_that_nobody_reads() {
    let api = start().await;
    let body = " ".repeat(200 * 1024);
    for _ in 0..20 {
        let (status, answer) = call(api.port, "POST", &path("scale-up"), &body).await;
        assert_eq!(status, 413);
        assert!(answer.contains("at most 65536 bytes"), "{answer}");
    }
}
