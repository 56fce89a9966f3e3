//! Probing: a replica is found at once, asked on one connection, and the engine's word counts where only it knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nagi_core::quantity::Replicas;
use nagi_core::workload::Readiness;
use nagi_ports::PortError;
use nagi_testkit::Fault;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::support::{ClosedPort, Echo, HOST, World, eventually, get, read_request, replica};

/// A replica that says 503 to so many questions for readiness, and may hang up on the first ones.
#[derive(Debug, Clone, Default)]
struct Reluctant {
    refusals: usize,
    hangups: usize,
    seen: Arc<std::sync::Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Reluctant {
    fn serve(&self, listener: TcpListener, tasks: &mut JoinSet<()>) {
        let this = self.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let count = this.connections.fetch_add(1, Ordering::SeqCst);
                if count < this.hangups {
                    continue;
                }
                let this = this.clone();
                connections.spawn(async move {
                    let mut buffer = Vec::new();
                    while let Some((head, _)) = read_request(&mut stream, &mut buffer).await {
                        let asked = this.asked(head);
                        let code = if asked {
                            "503 Service Unavailable"
                        } else {
                            "200 OK"
                        };
                        let text = format!("HTTP/1.1 {code}\r\nContent-Length: 2\r\n\r\nok");
                        if stream.write_all(text.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }

    /// Notes a request; true when it is to be refused.
    fn asked(&self, head: String) -> bool {
        let mut seen = self.seen.lock().unwrap();
        seen.push(head);
        seen.len() <= self.refusals
    }

    fn lines(&self) -> Vec<String> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .map(|head| head.lines().next().unwrap().to_owned())
            .collect()
    }
}

fn http() -> Readiness {
    Readiness::Http {
        path: "/healthz?x=1".to_owned(),
    }
}

#[tokio::test]
async fn a_replica_is_asked_on_one_connection_until_it_is_ready_and_serves_on_it() {
    let mut world = World::asleep().await;
    let port = ClosedPort::reserve();
    let mut clients = JoinSet::new();
    let address = world.address;
    clients.spawn(async move { get(address, HOST, "/work").await });
    world.until_woken().await;
    world.start_replica(port.address, http());
    let replica = Reluctant {
        refusals: 3,
        ..Reluctant::default()
    };
    replica.serve(port.listen(), &mut world.tasks);
    let reply = clients.join_next().await.unwrap().unwrap();
    assert_eq!(reply.code, 200);
    let question = "GET /healthz?x=1 HTTP/1.1";
    assert_eq!(
        replica.lines(),
        [question, question, question, question, "GET /work HTTP/1.1"]
    );
    assert_eq!(replica.connections.load(Ordering::SeqCst), 1);
    let first = replica.seen.lock().unwrap()[0].to_ascii_lowercase();
    assert!(first.contains("user-agent: nagi-gateway-probe"), "{first}");
    assert!(first.contains(&format!("host: {HOST}")), "{first}");
}

#[tokio::test]
async fn a_connection_that_breaks_while_asking_is_made_anew() {
    let mut world = World::asleep().await;
    let port = ClosedPort::reserve();
    let mut clients = JoinSet::new();
    let address = world.address;
    clients.spawn(async move { get(address, HOST, "/work").await });
    world.until_woken().await;
    world.start_replica(port.address, http());
    let replica = Reluctant {
        refusals: 1,
        hangups: 2,
        ..Reluctant::default()
    };
    replica.serve(port.listen(), &mut world.tasks);
    assert_eq!(clients.join_next().await.unwrap().unwrap().code, 200);
    assert_eq!(replica.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn one_prober_asks_however_many_wait() {
    let mut world = World::asleep().await;
    let port = ClosedPort::reserve();
    let mut clients = JoinSet::new();
    let address = world.address;
    for _ in 0..50 {
        clients.spawn(async move { get(address, HOST, "/work").await });
    }
    world.until_held(50).await;
    world.start_replica(port.address, http());
    let replica = Reluctant {
        refusals: 4,
        ..Reluctant::default()
    };
    replica.serve(port.listen(), &mut world.tasks);
    while let Some(reply) = clients.join_next().await {
        assert_eq!(reply.unwrap().code, 200);
    }
    let questions = replica
        .lines()
        .iter()
        .filter(|line| line.starts_with("GET /healthz"))
        .count();
    assert_eq!(questions, 5);
}

#[tokio::test]
async fn the_engines_word_is_as_good_as_a_probe() {
    let mut world = World::asleep().await;
    let port = ClosedPort::reserve();
    let mut clients = JoinSet::new();
    let address = world.address;
    clients.spawn(async move { get(address, HOST, "/work").await });
    world.until_woken().await;
    world.start_replica(port.address, http());
    // It would say 503 for longer than the test lasts.
    let unready = Reluctant {
        refusals: 10_000,
        ..Reluctant::default()
    };
    let echo_port = port.address;
    unready.serve(port.listen(), &mut world.tasks);
    eventually("it was asked", async || !unready.lines().is_empty()).await;
    world.workloads.change(&world.id, |w| {
        w.replicas = vec![replica(0, echo_port, http(), true)];
    });
    assert_eq!(
        clients.join_next().await.unwrap().unwrap().code,
        503,
        "the replica's own 503 passes through"
    );
    assert_eq!(unready.lines().last().unwrap(), "GET /work HTTP/1.1");
}

// F19: a list that fails, as when one kind may not be read any more, keeps no news of the others away
#[tokio::test]
async fn while_lists_fail_news_are_taken() {
    let mut world = World::asleep().await;
    let address = Echo::default().start(&mut world.tasks).await;
    let refused = Fault::Error(PortError::Refused("forbidden".into()));
    world.workloads.fail_always(Some(refused), None);
    // More than are kept for whoever is behind, so that it has to list.
    for _ in 0..2_000 {
        world.workloads.change(&world.id, |_| {});
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.workloads.change(&world.id, |w| {
        w.desired = Replicas(1);
        w.current = Replicas(1);
        w.available = Replicas(1);
        w.replicas = vec![replica(0, address, Readiness::Tcp, true)];
    });
    world.until_status("ready").await;
}

// What comes together is taken together, and in its order.
#[tokio::test]
async fn news_that_come_together_are_taken_in_their_order() {
    let mut world = World::asleep().await;
    let address = Echo::default().start(&mut world.tasks).await;
    let hosts = |name: &str| vec![nagi_core::id::Host::new(name).unwrap()];
    let again = nagi_core::workload::Workload {
        replicas: vec![replica(0, address, Readiness::Tcp, true)],
        desired: Replicas(1),
        current: Replicas(1),
        available: Replicas(1),
        ..world.workloads.peek(&world.id).as_ref().clone()
    };
    // Moved away and back, deleted and made again, before anybody has looked.
    world
        .workloads
        .change(&world.id, |w| w.hosts = hosts("elsewhere.localhost"));
    world.workloads.change(&world.id, |w| w.hosts = hosts(HOST));
    world.workloads.delete(&world.id);
    world.workloads.put(again);
    world.until_status("ready").await;
    assert_eq!(get(world.address, HOST, "/").await.code, 200);
    assert_eq!(
        get(world.address, "elsewhere.localhost", "/").await.code,
        404
    );
    world.workloads.delete(&world.id);
    eventually("it is gone", async || {
        get(world.address, HOST, "/").await.code == 404
    })
    .await;
}

#[tokio::test]
async fn a_replica_of_which_only_the_engine_can_tell_is_not_touched() {
    let mut world = World::asleep().await;
    let mut clients = JoinSet::new();
    let address = world.address;
    clients.spawn(async move { get(address, HOST, "/work").await });
    world.until_woken().await;
    let echo = Echo::default();
    let at = echo.start(&mut world.tasks).await;
    world.start_replica(at, Readiness::Engine);
    world.until_held(1).await;
    // Ten times what a prober needs to connect to an open port.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(echo.connections.load(Ordering::SeqCst), 0);
    world.workloads.change(&world.id, |w| {
        w.replicas = vec![replica(0, at, Readiness::Engine, true)];
    });
    assert_eq!(clients.join_next().await.unwrap().unwrap().code, 200);
}

#[tokio::test]
async fn a_port_that_opens_after_the_fast_second_is_still_found() {
    let mut world = World::asleep().await;
    let port = ClosedPort::reserve();
    let mut clients = JoinSet::new();
    let address = world.address;
    clients.spawn(async move { get(address, HOST, "/work").await });
    world.until_woken().await;
    world.start_replica(port.address, Readiness::Tcp);
    // The rule is about elapsed time, so time must pass.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let echo = Echo::default();
    echo.serve(port.listen(), &mut world.tasks);
    assert_eq!(clients.join_next().await.unwrap().unwrap().code, 200);
}

#[tokio::test]
async fn nobody_is_probed_when_nobody_waits() {
    let mut world = World::asleep().await;
    let echo = Echo::default();
    let at = echo.start(&mut world.tasks).await;
    world.workloads.change(&world.id, |w| {
        w.desired = nagi_core::quantity::Replicas(1);
        w.replicas = vec![replica(0, at, Readiness::Tcp, false)];
    });
    world.until_status("waking").await;
    assert_eq!(echo.connections.load(Ordering::SeqCst), 0);
    assert_eq!(get(world.address, HOST, "/").await.code, 200);
    assert_eq!(world.wakes(), 0);
}
