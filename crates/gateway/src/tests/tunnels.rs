//! Upgraded connections: bytes both ways, counted as long as they are open, and no way past the gateway.

use nagi_core::workload::Readiness;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::support::{ClosedPort, HOST, World, eventually, get, read_request};

/// Takes upgrades and echoes bytes; answers everything else with 200 and the head it saw.
fn serve(listener: TcpListener, tasks: &mut JoinSet<()>) {
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let mut buffer = Vec::new();
                while let Some((head, _)) = read_request(&mut stream, &mut buffer).await {
                    if !head.to_ascii_lowercase().contains("upgrade: websocket") {
                        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
                        stream.write_all(text.as_bytes()).await.unwrap();
                        continue;
                    }
                    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                                  Sec-WebSocket-Accept: x\r\n\r\nhello";
                    stream.write_all(switch.as_bytes()).await.unwrap();
                    let (mut read, mut write) = stream.split();
                    drop(tokio::io::copy(&mut read, &mut write).await);
                    return;
                }
            });
        }
    });
}

fn handshake() -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
    )
}

async fn expect(stream: &mut TcpStream, wanted: &[u8]) {
    let mut seen = vec![0; wanted.len()];
    stream.read_exact(&mut seen).await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&seen),
        String::from_utf8_lossy(wanted)
    );
}

async fn expect_switch(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(
        head.contains("upgrade: websocket") && head.contains("connection: upgrade"),
        "{head}"
    );
    assert!(head.contains("sec-websocket-accept: x"), "{head}");
}

// Invariant 4
#[tokio::test]
async fn a_tunnel_counts_until_it_is_closed() {
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    serve(listener, &mut tasks);
    let world = World::awake(&[at]).await;
    let mut client = TcpStream::connect(world.address).await.unwrap();
    client.write_all(handshake().as_bytes()).await.unwrap();
    expect_switch(&mut client).await;
    expect(&mut client, b"hello").await;
    for _ in 0..3 {
        client.write_all(b"ping").await.unwrap();
        expect(&mut client, b"ping").await;
        assert_eq!(world.activity().await.in_flight, 1);
    }
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    eventually("closed", async || world.activity().await.in_flight == 0).await;
}

#[tokio::test]
async fn a_handshake_is_held_and_wakes_like_any_request() {
    let mut world = World::asleep().await;
    let port = ClosedPort::reserve();
    let mut client = TcpStream::connect(world.address).await.unwrap();
    client.write_all(handshake().as_bytes()).await.unwrap();
    world.until_woken().await;
    world.start_replica(port.address, Readiness::Tcp);
    serve(port.listen(), &mut world.tasks);
    expect_switch(&mut client).await;
    expect(&mut client, b"hello").await;
    drop(client);
    eventually("closed", async || world.activity().await.in_flight == 0).await;
}

#[tokio::test]
async fn an_upgrade_that_leads_past_the_gateway_is_not_asked_for() {
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    serve(listener, &mut tasks);
    let world = World::awake(&[at]).await;
    let text = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    );
    let reply = super::support::request(world.address, &text).await;
    let seen = reply.text().to_ascii_lowercase();
    assert_eq!(reply.code, 200);
    assert!(
        !seen.contains("h2c") && !seen.contains("http2-settings"),
        "{seen}"
    );
    assert_eq!(get(world.address, HOST, "/").await.code, 200);
}
