//! Holding and waking: one wake however many wait, probing, deadlines, clients that go away.

use std::sync::atomic::Ordering;

use nagi_core::workload::Readiness;
use tokio::task::JoinSet;

use crate::support::{ClosedPort, Echo, HOST, World, get};

// F01 of the data plane: DESIGN §6
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
