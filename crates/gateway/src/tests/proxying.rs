//! Passing through: heads, bodies, trailers, connections that are used again, and what may be sent twice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::support::{
    Echo, HOST, PATIENCE, World, eventually, get, read_one, read_request, read_to_close, request,
};
use crate::Settings;

/// A replica whose connections the test drives by hand.
pub(super) struct Puppet {
    pub(super) address: SocketAddr,
    pub(super) connections: mpsc::Receiver<TcpStream>,
}

impl Puppet {
    pub(super) async fn start(tasks: &mut JoinSet<()>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, connections) = mpsc::channel(16);
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                sender.send(stream).await.unwrap();
            }
        });
        Self {
            address,
            connections,
        }
    }

    pub(super) async fn next(&mut self) -> TcpStream {
        tokio::time::timeout(PATIENCE, self.connections.recv())
            .await
            .expect("a connection")
            .unwrap()
    }
}

pub(super) async fn send(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Reads until these bytes have come.
pub(super) async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut seen = Vec::new();
    let read = async {
        loop {
            let mut part = [0; 4096];
            let n = stream.read(&mut part).await.unwrap();
            seen.extend_from_slice(&part[..n]);
            let text = String::from_utf8_lossy(&seen).into_owned();
            if text.contains(wanted) {
                return text;
            }
            assert!(n > 0, "closed before {wanted:?}: {text:?}");
        }
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .unwrap_or_else(|_| panic!("no {wanted:?} in time"))
}

#[tokio::test]
async fn a_replica_sees_the_request_with_the_way_it_came_and_nothing_of_the_hop() {
    let mut tasks = JoinSet::new();
    let world = World::awake(&[Echo::default().start(&mut tasks).await]).await;
    let reply = request(
        world.address,
        &format!(
            "GET http://{HOST}:8000/a%20b?c=d HTTP/1.1\r\nHost: ignored\r\nX-Forwarded-For: 6.6.6.6\r\nX-Mine: 1\r\n\
             X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
             Connection: close, X-Mine, X-Forwarded-For, X-Forwarded-Proto\r\nProxy-Connection: x\r\n\r\n"
        ),
    )
    .await;
    assert_eq!(reply.code, 200);
    let seen = reply.text().to_ascii_lowercase();
    let mut lines: Vec<&str> = seen.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "get /a%20b?c=d http/1.1");
    lines.sort_unstable();
    let host = format!("host: {HOST}:8000");
    let forwarded = format!("x-forwarded-host: {HOST}:8000");
    assert_eq!(
        lines,
        [
            host.as_str(),
            "via: 1.1 nagi",
            "x-forwarded-for: 127.0.0.1",
            &forwarded,
            "x-forwarded-proto: http"
        ]
    );
    assert_eq!(reply.header("via"), Some("1.1 nagi"));
}

#[tokio::test]
async fn bodies_stream_both_ways_before_they_end() {
    let mut tasks = JoinSet::new();
    let mut puppet = Puppet::start(&mut tasks).await;
    let world = World::awake(&[puppet.address]).await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    let mut client = send(world.address, &format!("{head}5\r\nfirst\r\n")).await;
    let mut replica = puppet.next().await;
    let seen = read_until(&mut replica, "5\r\nfirst\r\n").await;
    assert!(
        seen.to_ascii_lowercase()
            .contains("transfer-encoding: chunked"),
        "{seen}"
    );
    replica
        .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        .await
        .unwrap();
    read_until(&mut client, "3\r\none\r\n").await;
    client.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut replica, "6\r\nsecond\r\n0\r\n\r\n").await;
    assert_eq!(
        world.activity().await.in_flight,
        1,
        "the answer has not ended"
    );
    replica.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut client, "3\r\ntwo\r\n0\r\n\r\n").await;
    eventually("it ended", async || world.activity().await.in_flight == 0).await;
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let mut tasks = JoinSet::new();
    let mut puppet = Puppet::start(&mut tasks).await;
    let world = World::awake(&[puppet.address]).await;
    let text = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\
         Connection: close, TE\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n"
    );
    let mut client = send(world.address, &text).await;
    let mut replica = puppet.next().await;
    let seen = read_until(&mut replica, "0\r\n").await;
    let seen = if seen.ends_with("\r\n\r\n") {
        seen
    } else {
        seen + &read_until(&mut replica, "\r\n\r\n").await
    };
    assert!(
        seen.to_ascii_lowercase().contains("0\r\nx-sum: 7\r\n"),
        "{seen}"
    );
    replica
        .write_all(b"HTTP/1.1 200 OK\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nX-End: 9\r\n\r\n")
        .await
        .unwrap();
    let mut all = String::new();
    client.read_to_string(&mut all).await.unwrap();
    assert!(
        all.to_ascii_lowercase().contains("0\r\nx-end: 9\r\n"),
        "{all}"
    );
}

/// hyper would send a GET without the body whose length is unknown.
#[tokio::test]
async fn a_get_keeps_its_body() {
    let mut tasks = JoinSet::new();
    let world = World::awake(&[Echo::default().start(&mut tasks).await]).await;
    let text = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    );
    assert!(
        request(world.address, &text)
            .await
            .text()
            .ends_with("4\r\nbody\r\n0\r\n\r\n")
    );
    let text = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"
    );
    assert!(
        request(world.address, &text)
            .await
            .text()
            .ends_with("\r\n\r\nbody")
    );
}

#[tokio::test]
async fn answers_without_a_body_keep_what_their_head_says() {
    let mut tasks = JoinSet::new();
    let mut puppet = Puppet::start(&mut tasks).await;
    let world = World::awake(&[puppet.address]).await;
    let cases = [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
            200,
            Some("1234"),
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
            304,
            None,
        ),
    ];
    let mut client = TcpStream::connect(world.address).await.unwrap();
    let mut replica = None;
    let mut buffer = Vec::new();
    for (method, answer, code, length) in cases {
        client
            .write_all(format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let connection = match &mut replica {
            Some(connection) => connection,
            empty @ None => empty.insert(puppet.next().await),
        };
        read_request(connection, &mut buffer).await.unwrap();
        connection.write_all(answer.as_bytes()).await.unwrap();
        let head = read_until(&mut client, "\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {code}")), "{head}");
        let sent = head
            .to_ascii_lowercase()
            .lines()
            .find_map(|l| l.strip_prefix("content-length: ").map(str::to_owned));
        assert_eq!(sent.as_deref(), length, "{head}");
        assert!(head.ends_with("\r\n\r\n"), "no body: {head}");
    }
    assert_eq!(world.activity().await.in_flight, 0);
}

#[tokio::test]
async fn interim_answers_are_not_the_answer() {
    let mut tasks = JoinSet::new();
    let mut puppet = Puppet::start(&mut tasks).await;
    let world = World::awake(&[puppet.address]).await;
    let mut client = send(
        world.address,
        &format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"),
    )
    .await;
    let mut replica = puppet.next().await;
    read_until(&mut replica, "\r\n\r\n").await;
    replica
        .write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await
        .unwrap();
    let reply = read_to_close(&mut client).await;
    assert_eq!((reply.code, reply.text().as_str()), (200, "ok"));
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_a_replica_reads_it() {
    let mut world = World::asleep().await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    let mut client = send(world.address, &head).await;
    world.until_held(1).await;
    let mut byte = [0; 1];
    let early = tokio::time::timeout(Duration::from_millis(20), client.read(&mut byte)).await;
    assert!(early.is_err(), "nothing is said while it is held");
    let mut tasks = JoinSet::new();
    let echo = Echo::default();
    let at = echo.start(&mut tasks).await;
    world.start_replica(at, nagi_core::workload::Readiness::Tcp);
    read_until(&mut client, "HTTP/1.1 100 Continue\r\n\r\n").await;
    client.write_all(b"body").await.unwrap();
    let reply = read_to_close(&mut client).await;
    assert_eq!(reply.code, 200);
    assert!(
        !reply.text().to_ascii_lowercase().contains("expect:"),
        "{}",
        reply.text()
    );
    world.tasks.abort_all();
}

#[tokio::test]
async fn connections_to_a_replica_are_used_again() {
    let mut tasks = JoinSet::new();
    let echo = Echo::default();
    let world = World::awake(&[echo.start(&mut tasks).await]).await;
    let mut client = TcpStream::connect(world.address).await.unwrap();
    for n in 0..20 {
        let body = "x".repeat(n);
        let text = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {n}\r\n\r\n{body}");
        client.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(read_one(&mut client).await.code, 200);
        assert_eq!(get(world.address, HOST, "/").await.code, 200);
    }
    assert_eq!(echo.connections.load(Ordering::SeqCst), 1);
    assert_eq!(echo.requests.load(Ordering::SeqCst), 40);
}

/// A replica that closes every connection when its second request has arrived: the race of a reuse with an idle close,
/// made certain.
async fn closes_on_second(tasks: &mut JoinSet<()>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let executed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&executed);
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let count = Arc::clone(&count);
            connections.spawn(async move {
                let mut buffer = Vec::new();
                read_request(&mut stream, &mut buffer).await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await
                    .unwrap();
                if read_request(&mut stream, &mut buffer).await.is_some() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    (address, executed)
}

// DESIGN §6 "Retries"
#[tokio::test]
async fn a_request_that_may_have_been_executed_is_sent_again_only_when_that_is_harmless() {
    let mut tasks = JoinSet::new();
    let (replica, executed) = closes_on_second(&mut tasks).await;
    let world = World::awake(&[replica]).await;
    assert_eq!(get(world.address, HOST, "/").await.code, 200);
    assert_eq!(
        get(world.address, HOST, "/").await.code,
        200,
        "a GET is sent again"
    );
    assert_eq!(executed.load(Ordering::SeqCst), 3);
    for (text, what) in [
        (
            format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ),
            "not idempotent",
        ),
        (
            format!(
                "PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
            ),
            "body is spent",
        ),
    ] {
        assert_eq!(get(world.address, HOST, "/").await.code, 200);
        let before = executed.load(Ordering::SeqCst);
        let reply = request(world.address, &text).await;
        assert_eq!(reply.code, 502, "{what}");
        assert_eq!(reply.header("nagi-status"), Some("upstream-failed"));
        assert_eq!(
            executed.load(Ordering::SeqCst),
            before + 1,
            "{what}: executed once"
        );
        // The next connection begins afresh.
        assert_eq!(get(world.address, HOST, "/").await.code, 200);
    }
    let activity = world.activity().await;
    assert_eq!((activity.in_flight, activity.held), (0, 0));
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_request() {
    let mut tasks = JoinSet::new();
    let mut puppet = Puppet::start(&mut tasks).await;
    let world = World::awake(&[puppet.address]).await;
    for round in 0..10 {
        let post = format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
        );
        let mut client = send(world.address, &post).await;
        let mut replica = puppet.next().await;
        read_request(&mut replica, &mut Vec::new()).await.unwrap();
        replica
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await
            .unwrap();
        assert_eq!(read_to_close(&mut client).await.code, 200);
        drop(replica);
        // Every second time the next request finds the close in the socket, not yet noticed by its task.
        if round % 2 == 0 {
            continue;
        }
        let backend = world.gateway.routes().backend(&world.id).unwrap();
        eventually("the close was noticed", async || {
            backend.place().unwrap().upstream().idle_open() == 0
        })
        .await;
    }
}

/// The request arrives and the replica closes in one instant, in this order: the gateway has handed the request to the
/// connection when the connection learns that it is closed. Nothing was written, so any method may go again.
#[tokio::test]
async fn a_request_that_meets_a_close_before_it_is_written_goes_out_on_a_new_connection() {
    let mut tasks = JoinSet::new();
    let mut puppet = Puppet::start(&mut tasks).await;
    let world = World::awake(&[puppet.address]).await;
    let post = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\n\r\nbody");
    let mut client = send(world.address, &post).await;
    let mut replica = puppet.next().await;
    for _ in 0..10 {
        let (head, body) = read_request(&mut replica, &mut Vec::new()).await.unwrap();
        assert!(head.contains("x-forwarded-for"), "{head}");
        assert_eq!(body, b"body");
        replica
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await
            .unwrap();
        assert_eq!(read_one(&mut client).await.code, 200);
        client.writable().await.unwrap();
        // No await between the two, so the runtime sees both events at once.
        assert_eq!(client.try_write(post.as_bytes()).unwrap(), post.len());
        drop(replica);
        replica = puppet.next().await;
    }
}

#[tokio::test]
async fn a_connection_that_waited_longer_than_its_limit_is_not_used_again() {
    let mut tasks = JoinSet::new();
    let echo = Echo::default();
    let mut settings = Settings::default();
    settings.upstream.idle_timeout = Duration::from_millis(10);
    let world = World::awake_with(settings, &[echo.start(&mut tasks).await]).await;
    for _ in 0..3 {
        assert_eq!(get(world.address, HOST, "/").await.code, 200);
        // The rule is about elapsed time, so time must pass.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(echo.connections.load(Ordering::SeqCst), 3);
}

/// What is left of the body would be read as the next request.
#[tokio::test]
async fn a_connection_is_not_used_again_when_the_answer_came_before_the_end_of_the_body() {
    let mut tasks = JoinSet::new();
    let mut puppet = Puppet::start(&mut tasks).await;
    let world = World::awake(&[puppet.address]).await;
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nabc");
    let mut client = send(world.address, &head).await;
    let mut replica = puppet.next().await;
    read_until(&mut replica, "abc").await;
    replica
        .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        .await
        .unwrap();
    read_until(&mut client, "no").await;
    let backend = world.gateway.routes().backend(&world.id).unwrap();
    eventually("it ended", async || world.activity().await.in_flight == 0).await;
    assert_eq!(backend.place().unwrap().upstream().idle_open(), 0);
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client_too() {
    let mut tasks = JoinSet::new();
    let mut puppet = Puppet::start(&mut tasks).await;
    let world = World::awake(&[puppet.address]).await;
    for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let mut client = send(
            world.address,
            &format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        )
        .await;
        let mut replica = puppet.next().await;
        read_until(&mut replica, "\r\n\r\n").await;
        replica
            .write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n3\r\nabc\r\n").as_bytes())
            .await
            .unwrap();
        drop(replica);
        let mut all = Vec::new();
        // Closed or reset, but never ended as if it were whole.
        drop(client.read_to_end(&mut all).await);
        let text = String::from_utf8_lossy(&all);
        assert!(!text.ends_with("0\r\n\r\n"), "{text}");
        eventually("it ended", async || world.activity().await.in_flight == 0).await;
    }
}

#[tokio::test]
async fn a_replica_that_does_not_answer_in_time_is_a_504() {
    let mut tasks = JoinSet::new();
    let mut puppet = Puppet::start(&mut tasks).await;
    let mut settings = Settings::default();
    settings.upstream.answer_timeout = Duration::from_millis(80);
    let world = World::awake_with(settings, &[puppet.address]).await;
    let mut client = send(
        world.address,
        &format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"),
    )
    .await;
    let _replica = puppet.next().await;
    let reply = read_to_close(&mut client).await;
    assert_eq!(reply.code, 504);
    assert_eq!(reply.header("nagi-status"), Some("upstream-timeout"));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_exchange_with_the_replica() {
    let mut tasks = JoinSet::new();
    let mut puppet = Puppet::start(&mut tasks).await;
    let world = World::awake(&[puppet.address]).await;
    let client = send(
        world.address,
        &format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
    )
    .await;
    let mut replica = puppet.next().await;
    read_until(&mut replica, "\r\n\r\n").await;
    drop(client);
    let mut byte = [0; 1];
    let end = tokio::time::timeout(PATIENCE, replica.read(&mut byte))
        .await
        .expect("told in time");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    eventually("it ended", async || world.activity().await.in_flight == 0).await;
}
