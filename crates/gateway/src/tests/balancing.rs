//! Which replica a request goes to, and what a replica that refuses costs.

use tokio::task::JoinSet;

use super::proxying::{Puppet, send};
use super::support::{Echo, HOST, World, eventually, request};

#[tokio::test]
async fn requests_go_to_the_replica_that_has_the_fewest() {
    let mut tasks = JoinSet::new();
    let mut puppets = [
        Puppet::start(&mut tasks).await,
        Puppet::start(&mut tasks).await,
    ];
    let world = World::awake(&[puppets[0].address, puppets[1].address]).await;
    let get = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let mut clients = Vec::new();
    for _ in 0..6 {
        let before = world.activity().await.in_flight;
        clients.push(send(world.address, &get).await);
        eventually("one more", async || {
            world.activity().await.in_flight == before + 1
        })
        .await;
    }
    for puppet in &mut puppets {
        for _ in 0..3 {
            puppet.next().await;
        }
        assert!(
            puppet.connections.try_recv().is_err(),
            "more than its share"
        );
    }
}

#[tokio::test]
async fn a_replica_that_refuses_costs_no_request_while_another_serves() {
    let mut tasks = JoinSet::new();
    let closed = super::support::ClosedPort::reserve();
    let world = World::awake(&[closed.address, Echo::default().start(&mut tasks).await]).await;
    for _ in 0..10 {
        let post = format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
        );
        assert_eq!(request(world.address, &post).await.code, 200);
    }
}
