//! Messages that two readers could understand in two ways: refused, or sent on with one meaning only.
//!
//! Each attack carries a second request inside the first, for a path that the replica must never see.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::proxying::{Puppet, read_until, send};
use super::support::{Echo, HOST, PATIENCE, World, request};

/// Sends the bytes and reads until the gateway closes.
async fn attack(world: &World, text: &str) -> String {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    // Says that nothing follows, so that a gateway that waits for more ends the connection; a close that hits unread
    // bytes is a reset, which is fine.
    let mut seen = Vec::new();
    let read = async {
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut part).await {
            seen.extend_from_slice(&part[..n]);
        }
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .unwrap_or_else(|_| panic!("left open after {text:?}"));
    String::from_utf8_lossy(&seen).into_owned()
}

/// A request with this head is refused, and what follows it is not read.
async fn assert_refused(world: &World, head: &str, code: u16) {
    let text = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{head}\r\n\r\n0\r\n\r\n{HIDDEN}");
    let answer = attack(world, &text).await;
    let line = format!("HTTP/1.1 {code} ");
    assert!(answer.starts_with(&line), "{head:?}: {answer}");
    assert_eq!(
        answer.matches("HTTP/1.1 ").count(),
        1,
        "{head:?}: one answer: {answer}"
    );
    assert!(!answer.contains("/smuggled"), "{head:?}: {answer}");
}

const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: app.project-a.localhost\r\n\r\n";

#[tokio::test]
async fn ambiguous_framing_is_refused_and_the_connection_closed() {
    let mut tasks = JoinSet::new();
    let echo = Echo::default();
    let world = World::awake(&[echo.start(&mut tasks).await]).await;
    let heads = [
        // A length and a coding, either way round, in any case.
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "transfer-encoding: chunked\r\nCONTENT-LENGTH: 5",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        // Two lengths.
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        // Lengths that are none.
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: ",
        "Content-Length: 99999999999999999999",
        // Codings that do not end in chunked.
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        // Names and values that readers trim differently.
        "Content-Length : 5",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X: 1\r\n Transfer-Encoding: chunked",
        "X: 1\r\n\tfolded",
        "Transfer-Encoding:\r\n chunked",
        "X: a\0b",
        "X: a\rContent-Length: 5",
        "X\0: 1",
        ": 1",
        "NoColon",
    ];
    for head in heads {
        assert_refused(&world, head, 400).await;
    }
    for head in [
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: CHUNKED",
    ] {
        assert_refused(&world, head, 400).await;
    }
    // Codings that would have to be undone.
    for head in [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked;a=b, chunked",
    ] {
        assert_refused(&world, head, 501).await;
    }
    // HTTP/1.0 has no coding.
    let text = format!(
        "POST / HTTP/1.0\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"
    );
    assert!(attack(&world, &text).await.contains(" 400 "));
    assert_eq!(
        echo.requests.load(std::sync::atomic::Ordering::SeqCst),
        0,
        "the replica saw nothing"
    );
}

#[tokio::test]
async fn the_same_length_said_twice_is_one_length() {
    let mut tasks = JoinSet::new();
    let world = World::awake(&[Echo::default().start(&mut tasks).await]).await;
    let text = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    );
    let seen = request(world.address, &text)
        .await
        .text()
        .to_ascii_lowercase();
    assert_eq!(seen.matches("content-length: 2").count(), 1, "{seen}");
    assert!(seen.ends_with("ok"), "{seen}");
}

#[tokio::test]
async fn a_body_with_broken_chunks_is_the_fault_of_the_client() {
    let mut tasks = JoinSet::new();
    let echo = Echo::default();
    let world = World::awake(&[echo.start(&mut tasks).await]).await;
    let bodies = [
        "g\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nx\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nx\r\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\nx\n0\n\n",
        "1 1\r\nx\r\n0\r\n\r\n",
        "\r\n\r\n",
        "1;a=\nb\r\nx\r\n0\r\n\r\n",
    ];
    for body in bodies {
        let text = format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{body}{HIDDEN}"
        );
        let answer = attack(&world, &text).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body:?}: {answer}");
        assert!(
            answer.contains("nagi-status: bad-request"),
            "{body:?}: {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{body:?}: {answer}");
        assert!(!answer.contains("/smuggled"), "{body:?}: {answer}");
    }
    assert_eq!(
        echo.requests.load(std::sync::atomic::Ordering::SeqCst),
        0,
        "the replica saw no whole request"
    );
}

#[tokio::test]
async fn a_request_behind_another_is_a_request_of_its_own() {
    let mut tasks = JoinSet::new();
    let world = World::awake(&[Echo::default().start(&mut tasks).await]).await;
    let text = format!(
        "POST /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
    );
    let answers = attack(&world, &text).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert!(
        answers.contains("POST /a HTTP/1.1") && answers.contains("GET /b HTTP/1.1"),
        "{answers}"
    );
}

#[tokio::test]
async fn an_answer_is_sent_on_with_one_length_or_not_at_all() {
    let mut tasks = JoinSet::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let answers = [
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ];
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            super::support::read_request(&mut stream, &mut Vec::new()).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    let world = World::awake(&[at]).await;
    let text = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let reply = request(world.address, &text).await;
    assert_eq!((reply.code, reply.text().as_str()), (200, "ok"));
    assert_eq!(reply.header("content-length"), None);
    assert_eq!(
        request(world.address, &text).await.code,
        502,
        "two lengths that differ"
    );
    assert_eq!(
        request(world.address, &text).await.code,
        502,
        "a coding that nobody asked for"
    );
}

// The guide for troubles tells by this header who answered.
#[tokio::test]
async fn a_replica_cannot_speak_in_the_name_of_the_gateway() {
    let mut tasks = JoinSet::new();
    let mut puppet = Puppet::start(&mut tasks).await;
    let world = World::awake(&[puppet.address]).await;
    for (asked, answer) in [
        (
            "X: 1",
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\nNagi-Status: waking\r\n\r\n",
        ),
        (
            "Connection: upgrade\r\nUpgrade: websocket",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nnagi-status: ready\r\n\r\n",
        ),
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{asked}\r\n\r\n");
        let mut client = send(world.address, &text).await;
        let mut replica = puppet.next().await;
        read_until(&mut replica, "\r\n\r\n").await;
        replica.write_all(answer.as_bytes()).await.unwrap();
        let head = read_until(&mut client, "\r\n\r\n")
            .await
            .to_ascii_lowercase();
        assert!(head.contains("via: 1.1 nagi"), "{head}");
        assert!(!head.contains("nagi-status"), "{head}");
    }
}
