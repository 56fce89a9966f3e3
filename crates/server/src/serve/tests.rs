//! Connections at their limits, over pipes in memory and paused time: slow clients, malformed bytes, orderly ends (R23).

use std::net::IpAddr;
use std::time::Duration;

use nagi_runtime::Supervisor;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::tests::world::{BASE, World, app_a, world};

const GET: &[u8] = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";

fn door(w: &World, limits: Limits) -> Door {
    Door::new(w.api.clone(), limits, "test")
}

/// A new connection; `buffer` bytes fit into the pipe in each direction.
async fn connect(door: &Door, buffer: usize, shutdown: &Shutdown) -> DuplexStream {
    let peer = IpAddr::from([192, 0, 2, 1]);
    let room = door.tasks.room().await.unwrap();
    let place = door.crowd.admit(peer).unwrap();
    let (client, server) = tokio::io::duplex(buffer);
    room.spawn(connection::serve(
        door.clone(),
        server,
        peer,
        place,
        shutdown.clone(),
    ));
    client
}

async fn client(w: &World) -> (DuplexStream, Door) {
    let door = door(w, Limits::default());
    let client = connect(&door, 64 * 1024, &Shutdown::never()).await;
    (client, door)
}

/// Everything that comes until the server closes.
async fn rest(client: &mut DuplexStream) -> String {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// One answer with a declared length.
async fn answer(client: &mut DuplexStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    client.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// The body of an answer, which must be the envelope of every failure.
fn envelope(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let length = format!("content-length: {}\r\n", body.len());
    assert!(head.contains(&length), "{answer}");
    assert!(
        head.contains("content-type: application/json\r\n"),
        "{answer}"
    );
    assert!(head.contains("x-request-id: "), "{answer}");
    let body: Value = serde_json::from_str(body).unwrap();
    for part in ["error", "field", "limit", "timestamp"] {
        assert!(body[part].is_string(), "no {part}: {body}");
    }
    assert_eq!(body["status"], "error");
    body
}

fn post(body_length: usize) -> String {
    format!("POST {BASE}/scale-up HTTP/1.1\r\nhost: x\r\ncontent-length: {body_length}\r\n\r\n")
}

// R23, W-A18: however slowly a head trickles in, it has ten seconds.
#[tokio::test(start_paused = true)]
async fn a_head_that_is_not_complete_in_ten_seconds_is_408() {
    let w = world();
    for trickle in [0, 1] {
        let (mut client, _door) = client(&w).await;
        let begun = Instant::now();
        let (mut from, mut to) = tokio::io::split(client);
        let mut text = String::new();
        let writer = async {
            for byte in GET.iter().cycle().take(20 * trickle) {
                if *byte == b'\n' || to.write_all(&[*byte]).await.is_err() {
                    break;
                }
                sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = writer => {}
            read = from.read_to_string(&mut text) => drop(read),
        }
        assert!(
            text.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
            "{text}"
        );
        assert!(text.contains("connection: close"));
        assert_eq!(envelope(&text)["limit"], "complete within 10 s");
        let waited = begun.elapsed();
        assert!(
            waited >= Duration::from_secs(10) && waited < Duration::from_secs(12),
            "{waited:?}"
        );
        client = from.unsplit(to);
        drop(client);
    }
    let line = w.log_lines().remove(0);
    assert_eq!(
        (&line["status"], &line["path"], &line["level"]),
        (&Value::from(408), &Value::from("-"), &Value::from("warn"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_in_silence_later() {
    let w = world();
    let (mut client, door) = client(&w).await;
    for _ in 0..2 {
        client.write_all(GET).await.unwrap();
        let (head, _) = answer(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 200 OK"));
        sleep(Duration::from_mins(1)).await;
    }
    let begun = Instant::now();
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(begun.elapsed(), Duration::from_secs(15));
    drop(client);
    sleep(Duration::from_secs(1)).await;
    assert!(door.tasks.is_empty());
}

// R23: the head of a second request has its ten seconds from its own first byte.
#[tokio::test(start_paused = true)]
async fn a_second_head_is_timed_from_its_first_byte() {
    let w = world();
    let (mut client, _door) = client(&w).await;
    client.write_all(GET).await.unwrap();
    answer(&mut client).await;
    sleep(Duration::from_mins(1)).await;
    client.write_all(b"GET /hea").await.unwrap();
    let begun = Instant::now();
    assert!(rest(&mut client).await.starts_with("HTTP/1.1 408"));
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
}

// R23: also when its beginning came together with the request before it.
#[tokio::test(start_paused = true)]
async fn a_head_that_began_behind_a_request_has_ten_seconds() {
    let w = world();
    let (mut client, _door) = client(&w).await;
    client
        .write_all(&[GET, b"GET /hea"].concat())
        .await
        .unwrap();
    let begun = Instant::now();
    let (head, _) = answer(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200 OK"));
    let text = rest(&mut client).await;
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
}

// R23
#[tokio::test(start_paused = true)]
async fn a_head_has_16_kib() {
    let w = world();
    for (bytes, status) in [
        (15 * 1024, "200 OK"),
        (17 * 1024, "431 Request Header Fields Too Large"),
    ] {
        let (mut client, _door) = client(&w).await;
        let head = format!(
            "GET /health HTTP/1.1\r\nhost: x\r\nx-filler: {}\r\nconnection: close\r\n\r\n",
            "x".repeat(bytes)
        );
        client.write_all(head.as_bytes()).await.unwrap();
        let text = rest(&mut client).await;
        assert!(
            text.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{bytes}: {text}"
        );
        if status.starts_with('4') {
            assert_eq!(envelope(&text)["limit"], "at most 16384 bytes", "{text}");
        }
    }
    let lines = w.log_lines();
    assert_eq!(lines.len(), 2, "one answer makes one line");
    assert_eq!(lines[1]["status"], 431);
}

// R23: bytes that are no HTTP.
#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_http_get_a_400_in_the_envelope() {
    let w = world();
    let rows: [&[u8]; 9] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/9.9\r\nhost: x\r\n\r\n",
        b"G\0T /health HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /hea lth HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /health HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    ];
    for bytes in rows {
        let (mut client, _door) = client(&w).await;
        client.write_all(bytes).await.unwrap();
        let text = rest(&mut client).await;
        assert!(
            text.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{bytes:?}: {text}"
        );
        let body = envelope(&text);
        assert_eq!(body["message"], "Invalid request", "{text}");
    }
    let lines = w.log_lines();
    assert_eq!(lines.len(), rows.len());
    assert!(lines.iter().all(|line| line["status"] == 400));
    assert!(lines.iter().all(|line| line["request_id"] != "-"));
}

// What is refused must not take an earlier answer with it, and is itself refused once.
#[tokio::test(start_paused = true)]
async fn malformed_bytes_after_a_request_leave_its_answer_whole() {
    let w = world();
    for (request, status) in [
        (GET, "200 OK"),
        (b"GET /no HTTP/1.1\r\nhost: x\r\n\r\n", "404 Not Found"),
    ] {
        let (mut client, _door) = client(&w).await;
        let bytes = [request, b"no http\r\n\r\n"].concat();
        client.write_all(&bytes).await.unwrap();
        let (head, body) = answer(&mut client).await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{head}"
        );
        assert!(serde_json::from_str::<Value>(&body).is_ok(), "{body}");
        let then = rest(&mut client).await;
        assert!(then.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{then}");
        assert_eq!(then.matches("HTTP/1.1 4").count(), 1, "{then}");
    }
}

// F07: two lengths, or a length and chunks, would be read differently by a proxy in front.
#[tokio::test(start_paused = true)]
async fn a_request_with_two_lengths_is_never_carried_out() {
    let w = world();
    let body = r#"{"replicas":2,"reason":"x"}"#;
    for headers in [
        "content-length: 27\r\ncontent-length: 3",
        "content-length: 3\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked, identity",
    ] {
        let (mut client, _door) = client(&w).await;
        let text = format!(
            "POST {BASE}/scale-up HTTP/1.1\r\nhost: x\r\n{headers}\r\nconnection: close\r\n\r\n{body}"
        );
        client.write_all(text.as_bytes()).await.unwrap();
        let text = rest(&mut client).await;
        assert!(text.starts_with("HTTP/1.1 400 "), "{headers}: {text}");
    }
    assert!(w.workloads.writes().is_empty());
}

// R23, RFC 9112 §3.2: whatever stands in front may have read another host than we would.
#[tokio::test(start_paused = true)]
async fn a_request_without_exactly_one_host_is_400_in_the_envelope_and_never_carried_out() {
    let w = world();
    let order = r#"{"replicas":2,"reason":"x"}"#;
    for (version, hosts, status) in [
        ("1.1", "", 400),
        ("1.1", "host: a\r\nhost: a\r\n", 400),
        ("1.1", "host: a\r\nhost: b\r\n", 400),
        ("1.1", "host: a/b\r\n", 400),
        ("1.0", "host: a\r\nhost: b\r\n", 400),
        // Probes of old load balancers.
        ("1.0", "", 200),
        ("1.1", "host: [::1]:8080\r\nconnection: close\r\n", 200),
    ] {
        let (mut client, _door) = client(&w).await;
        let text = format!(
            "POST {BASE}/scale-up HTTP/{version}\r\n{hosts}content-length: {}\r\n\r\n{order}",
            order.len()
        );
        client.write_all(text.as_bytes()).await.unwrap();
        // Refused ones end the connection by themselves.
        let text = rest(&mut client).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.split(' ').nth(1) == Some(&status.to_string()),
            "{version} {hosts:?}: {text}"
        );
        let body: Value = serde_json::from_str(body).unwrap();
        if status == 400 {
            assert_eq!(body["status"], "error");
            assert_eq!(body["message"], "Invalid Host header");
            assert_eq!(body["field"], "Host");
            assert!(body["hint"].is_string() && body["timestamp"].is_string());
            assert!(w.workloads.writes().is_empty());
        }
    }
    let lines = w.log_lines();
    let refused = lines.iter().filter(|line| line["status"] == 400);
    assert!(
        refused
            .clone()
            .all(|line| line["path"] == format!("{BASE}/scale-up"))
    );
    assert_eq!(refused.count(), 5);
}

// R23: slower than 1 KiB/s after ten seconds.
#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_is_408_and_a_slow_one_is_served() {
    let w = world();
    let (mut trickling, _door) = client(&w).await;
    trickling.write_all(post(4000).as_bytes()).await.unwrap();
    let begun = Instant::now();
    for _ in 0..8 {
        trickling.write_all(b" ").await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    let text = rest(&mut trickling).await;
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    assert!(text.contains("connection: close") && text.contains("Request body too slow"));
    assert!(
        begun.elapsed() < Duration::from_secs(12),
        "{:?}",
        begun.elapsed()
    );

    let (mut slow, _door) = client(&w).await;
    let kib = [b' '; 1024];
    slow.write_all(post(40 * 1024).as_bytes()).await.unwrap();
    let mut left = 40 * 1024;
    let order = br#"{"replicas":2,"reason":"x"}"#;
    slow.write_all(order).await.unwrap();
    left -= order.len();
    while left > 0 {
        let piece = left.min(kib.len());
        slow.write_all(&kib[..piece]).await.unwrap();
        left -= piece;
        sleep(Duration::from_millis(900)).await;
    }
    let (head, _) = answer(&mut slow).await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
}

// R08, F07: bodies in chunks, cut short, too long, and promised.
#[tokio::test(start_paused = true)]
async fn bodies_of_every_form_end_in_an_answer() {
    let w = world();
    let chunked = format!(
        "POST {BASE}/scale-up HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    let order = r#"{"replicas":2,"reason":"x"}"#;
    let good = format!("{chunked}{:x}\r\n{order}\r\n0\r\n\r\n", order.len());
    let large = format!(
        "{chunked}{:x}\r\n{}\r\n0\r\n\r\n",
        70 * 1024,
        " ".repeat(70 * 1024)
    );
    let broken = format!("{chunked}zz\r\n{order}\r\n0\r\n\r\n");
    for (text, status) in [(&good, 200), (&large, 413), (&broken, 400)] {
        let door = door(&w, Limits::default());
        let mut client = connect(&door, 256 * 1024, &Shutdown::never()).await;
        client.write_all(text.as_bytes()).await.unwrap();
        let text = rest(&mut client).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
    }
    // Cut short.
    let (mut cut, _door) = client(&w).await;
    cut.write_all(post(100).as_bytes()).await.unwrap();
    cut.write_all(b"{").await.unwrap();
    cut.shutdown().await.unwrap();
    assert!(rest(&mut cut).await.starts_with("HTTP/1.1 400 "));
    // A client that asks first is not told to send what would be refused.
    for (length, first) in [
        (order.len(), "HTTP/1.1 100 Continue"),
        (70 * 1024, "HTTP/1.1 413 "),
    ] {
        let (mut asking, _door) = client(&w).await;
        let head = post(length).replace("host: x\r\n", "host: x\r\nexpect: 100-continue\r\n");
        asking.write_all(head.as_bytes()).await.unwrap();
        let (head, _) = answer(&mut asking).await;
        assert!(head.starts_with(first), "{head}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_in_one_piece_are_answered_in_order_and_a_half_closed_client_is_served() {
    let w = world();
    let (mut client, _door) = client(&w).await;
    let two = [GET, b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n"].concat();
    client.write_all(&two).await.unwrap();
    client.shutdown().await.unwrap();
    let text = rest(&mut client).await;
    let (first, second) = (text.find("healthy").unwrap(), text.find("ready").unwrap());
    assert!(first < second, "{text}");
}

// W-A18: a client that takes nothing of its answer.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut() {
    let w = world();
    let door = door(&w, Limits::default());
    let mut client = connect(&door, 1024, &Shutdown::never()).await;
    client
        .write_all(b"GET /docs HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    sleep(Duration::from_secs(29)).await;
    assert_eq!(door.tasks.len(), 1);
    sleep(Duration::from_secs(3)).await;
    assert!(door.tasks.is_empty());
}

// Issue 3: slow clients give way, at once and always, and nobody who is served does.
#[tokio::test(start_paused = true)]
async fn slow_clients_never_keep_a_new_one_out() {
    let w = world();
    let limits = Limits {
        connections_max: 8,
        connections_per_peer_max: 4,
        ..Limits::default()
    };
    let door = door(&w, limits);
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut client = connect(&door, 1024, &Shutdown::never()).await;
        client
            .write_all(b"POST / HTTP/1.1\r\ncontent-le")
            .await
            .unwrap();
        slow.push(client);
    }
    let mut client = connect(&door, 64 * 1024, &Shutdown::never()).await;
    client.write_all(GET).await.unwrap();
    let (head, _) = answer(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200"));
    assert!(door.tasks.len() <= 4, "{}", door.tasks.len());
}

/// Runs `work` with a shutdown that begins when `begin` is called by it.
async fn with_shutdown<F: Future>(
    work: impl FnOnce(Shutdown, tokio::sync::oneshot::Sender<()>) -> F,
) -> F::Output {
    let supervisor = Supervisor::new();
    let token = supervisor.shutdown();
    let (begin, beginning) = tokio::sync::oneshot::channel();
    let (output, report) = tokio::join!(
        work(token, begin),
        supervisor.run_until(async { drop(beginning.await) }, Duration::from_secs(30))
    );
    report.unwrap();
    output
}

// A-165: a running request is finished, an idle connection ends at once.
#[tokio::test(start_paused = true)]
async fn a_shutdown_finishes_what_runs_and_closes_what_waits() {
    let w = world();
    w.workloads.fail_write(nagi_testkit::Fault::Hang);
    with_shutdown(async |shutdown, begin| {
        let door = door(&w, Limits::default());
        let mut idle = connect(&door, 64 * 1024, &shutdown).await;
        idle.write_all(GET).await.unwrap();
        answer(&mut idle).await;
        let mut busy = connect(&door, 64 * 1024, &shutdown).await;
        let body = r#"{"replicas":2,"reason":"x"}"#;
        busy.write_all((post(body.len()) + body).as_bytes())
            .await
            .unwrap();
        sleep(Duration::from_secs(1)).await;

        begin.send(()).unwrap();
        let began = Instant::now();
        assert_eq!(rest(&mut idle).await, "");
        assert_eq!(began.elapsed(), Duration::ZERO);
        let text = rest(&mut busy).await;
        assert!(
            text.starts_with("HTTP/1.1 503 "),
            "the hanging engine decides, not the shutdown: {text}"
        );
        assert!(text.contains("connection: close"));
        assert_eq!(began.elapsed(), Duration::from_secs(9));
    })
    .await;
}

// A-165: thirty seconds, then the rest is cut.
#[tokio::test(start_paused = true)]
async fn a_request_that_never_ends_is_cut_after_the_grace() {
    let w = world();
    let door = door(&w, Limits::default());
    let mut client = connect(&door, 64 * 1024, &Shutdown::never()).await;
    client
        .write_all(b"GET /api/v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    assert_eq!(
        door.tasks
            .drain(Deadline::in_(door.limits.drain_time))
            .await,
        1
    );
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
}

/// The next line of a stream of events that is no comment.
async fn event(client: &mut DuplexStream) -> String {
    let mut line = Vec::new();
    loop {
        match client.read_u8().await.unwrap() {
            b'\n' => {
                let text = String::from_utf8(std::mem::take(&mut line)).unwrap();
                if text.starts_with("data: ") {
                    return text;
                }
            }
            byte => line.push(byte),
        }
    }
}

// R19, issue 3 item 3: streams end at once when the process drains, and comments keep them alive until then.
#[tokio::test(start_paused = true)]
async fn an_event_stream_ends_at_once_on_shutdown() {
    with_shutdown(async |shutdown, begin| {
        let w = crate::tests::world::Setup {
            shutdown: Some(shutdown.clone()),
            ..Default::default()
        }
        .world();
        let door = door(&w, Limits::default());
        let mut client = connect(&door, 64 * 1024, &shutdown).await;
        client
            .write_all(b"GET /api/v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let feed = crate::events::feed(w.app.clone(), shutdown.clone());
        let reading = async {
            sleep(Duration::from_secs(40)).await;
            w.workloads.change(&app_a(), |facts| facts.available.0 = 0);
            let data = event(&mut client).await;
            assert!(
                data.contains(r#""type":"status""#) && data.contains(r#""to":"scaling""#),
                "{data}"
            );
            begin.send(()).unwrap();
            let began = Instant::now();
            let end = timeout(Duration::from_secs(5), rest(&mut client)).await;
            assert!(
                end.unwrap().ends_with("0\r\n\r\n"),
                "the last chunk tells the client that nothing is missing"
            );
            assert_eq!(began.elapsed(), Duration::ZERO);
        };
        tokio::join!(feed, reading);
    })
    .await;
}

// Bounded per client: a stream whose client is gone gives its place back at once.
#[tokio::test(start_paused = true)]
async fn an_event_stream_ends_with_its_client() {
    let w = world();
    let door = door(&w, Limits::default());
    let mut client = connect(&door, 64 * 1024, &Shutdown::never()).await;
    client
        .write_all(b"GET /api/v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 16];
    client.read_exact(&mut first).await.unwrap();
    drop(client);
    sleep(Duration::from_millis(1)).await;
    assert!(door.tasks.is_empty());
    assert_eq!(w.log_lines().remove(0)["status"], 200);
}
