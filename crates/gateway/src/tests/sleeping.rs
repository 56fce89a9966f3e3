//! Exact counts, and the hand-shake before a sleep: nobody who came in between is lost or cut.

use std::sync::Arc;
use std::time::Duration;

use nagi_core::intent::IntentUpdate;
use nagi_core::quantity::Replicas;
use nagi_core::workload::Readiness;
use nagi_ports::{Settled, Traffic, Workloads};
use nagi_runtime::Shutdown;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::proxying::Puppet;
use super::support::{
    ClosedPort, Echo, HOST, World, asleep_workload, eventually, get, read_request, read_to_close,
    replica,
};
use crate::Settings;
use crate::backend::{Admission, Arrival, Cause, Release};

/// A replica that answers each request only when the test lets it.
async fn gated(tasks: &mut JoinSet<()>) -> (std::net::SocketAddr, Arc<Semaphore>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let passes = Arc::clone(&gate);
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let passes = Arc::clone(&passes);
            connections.spawn(async move {
                let mut buffer = Vec::new();
                while read_request(&mut stream, &mut buffer).await.is_some() {
                    passes.acquire().await.unwrap().forget();
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                        .await
                        .unwrap();
                }
            });
        }
    });
    (address, gate)
}

// Invariant 4
#[tokio::test]
async fn two_hundred_concurrent_requests_are_counted_exactly() {
    let mut tasks = JoinSet::new();
    let (replica, gate) = gated(&mut tasks).await;
    let world = World::awake(&[replica]).await;
    let mut clients = JoinSet::new();
    let address = world.address;
    for _ in 0..200 {
        clients.spawn(async move { get(address, HOST, "/").await });
    }
    eventually("all are in flight", async || {
        world.activity().await.in_flight == 200
    })
    .await;
    let activity = world.activity().await;
    assert_eq!((activity.held, activity.quiet_for), (0, Duration::ZERO));
    gate.add_permits(150);
    for _ in 0..150 {
        assert_eq!(clients.join_next().await.unwrap().unwrap().code, 200);
    }
    assert_eq!(world.activity().await.in_flight, 50);
    // The other fifty clients go away: their count must go with them.
    drop(clients);
    eventually("none is in flight", async || {
        world.activity().await.in_flight == 0
    })
    .await;
}

#[tokio::test]
async fn a_workload_without_a_host_here_is_unknown_here() {
    let mut hidden = asleep_workload();
    hidden.id = nagi_testkit::id("project-a/hidden");
    hidden.hosts.clear();
    let id = hidden.id.clone();
    let world = World::with(
        Settings::default(),
        vec![asleep_workload(), hidden],
        Shutdown::never(),
    )
    .await;
    assert_eq!(world.gateway.activity(&id).await, None);
    assert_eq!(world.gateway.prepare(&id).await, None);
    assert!(world.gateway.activity(&world.id).await.is_some());
}

#[tokio::test]
async fn an_aborted_sleep_lets_the_held_go_to_the_living_replica() {
    let mut tasks = JoinSet::new();
    let echo = Echo::default();
    let world = World::awake(&[echo.start(&mut tasks).await]).await;
    let counts = world.gateway.prepare(&world.id).await.unwrap();
    assert_eq!((counts.in_flight, counts.held), (0, 0));
    let mut client = client(&world).await;
    world.until_held(1).await;
    assert_eq!(
        world.gateway.prepare(&world.id).await,
        None,
        "one at a time"
    );
    world.gateway.settle(&world.id, Settled::Aborted).await;
    assert_eq!(read_to_close(&mut client).await.code, 200);
    assert_eq!(world.workloads.writes().len(), 0);
}

#[tokio::test]
async fn after_a_sleep_the_held_wake_it_again() {
    let mut world = World::awake(&[Echo::default().start(&mut JoinSet::new()).await]).await;
    world.gateway.prepare(&world.id).await.unwrap();
    let mut client = client(&world).await;
    world.until_held(1).await;
    sleep_now(&world).await;
    world.gateway.settle(&world.id, Settled::Asleep).await;
    eventually("woken again", async || world.wakes() == 1).await;
    let port = ClosedPort::reserve();
    world.start_replica(port.address, Readiness::Tcp);
    let echo = Echo::default();
    echo.serve(port.listen(), &mut world.tasks);
    assert_eq!(read_to_close(&mut client).await.code, 200);
}

// Invariant 4, R24, issue 3: the answer to the order said that the connection is cut.
#[tokio::test]
async fn an_order_to_sleep_is_not_undone_by_the_request_that_it_cuts() {
    let mut tasks = JoinSet::new();
    let mut puppet = Puppet::start(&mut tasks).await;
    let mut world = World::awake(&[puppet.address]).await;
    let mut client = client(&world).await;
    let mut replica = puppet.next().await;
    read_request(&mut replica, &mut Vec::new()).await.unwrap();
    sleep_now(&world).await;
    world.until_status("asleep").await;
    drop(replica);
    let reply = read_to_close(&mut client).await;
    assert_eq!(reply.code, 502, "{}", reply.text());
    assert!(reply.text().contains("put to sleep"), "{}", reply.text());
    assert_eq!(world.wakes(), 0);
    assert!(world.workloads.peek(&world.id).desired.is_zero());
    world.workloads.change(&world.id, |w| w.replicas.clear());
    // A new one wakes it.
    let mut next = self::client(&world).await;
    eventually("woken", async || world.wakes() == 1).await;
    let port = ClosedPort::reserve();
    world.start_replica(port.address, Readiness::Tcp);
    Echo::default().serve(port.listen(), &mut world.tasks);
    assert_eq!(read_to_close(&mut next).await.code, 200);
}

/// The connection may break before the gateway has heard of the order.
#[tokio::test]
async fn a_request_whose_replica_is_gone_waits_for_the_next_one_and_wakes_nothing() {
    for outcome in [Settled::Asleep, Settled::Aborted] {
        let mut tasks = JoinSet::new();
        let mut puppet = Puppet::start(&mut tasks).await;
        let mut world = World::awake(&[puppet.address]).await;
        let mut client = client(&world).await;
        let mut replica = puppet.next().await;
        read_request(&mut replica, &mut Vec::new()).await.unwrap();
        tasks.shutdown().await;
        drop(replica);
        world.until_held(1).await;
        let code = match outcome {
            // It was an order to sleep.
            Settled::Asleep => {
                sleep_now(&world).await;
                502
            }
            // It was a crash.
            Settled::Aborted => {
                let port = ClosedPort::reserve();
                world.start_replica(port.address, Readiness::Tcp);
                Echo::default().serve(port.listen(), &mut world.tasks);
                200
            }
        };
        let reply = read_to_close(&mut client).await;
        assert_eq!(reply.code, code, "{}", reply.text());
        assert_eq!(world.wakes(), 0);
    }
}

#[tokio::test]
async fn prepare_counts_what_is_in_flight_and_what_ends_later_is_seen() {
    let mut tasks = JoinSet::new();
    let (replica, gate) = gated(&mut tasks).await;
    let world = World::awake(&[replica]).await;
    let mut client = client(&world).await;
    eventually("in flight", async || world.activity().await.in_flight == 1).await;
    assert_eq!(world.gateway.prepare(&world.id).await.unwrap().in_flight, 1);
    gate.add_permits(1);
    assert_eq!(
        read_to_close(&mut client).await.code,
        200,
        "what is in flight is not held"
    );
    eventually("ended", async || world.activity().await.in_flight == 0).await;
    world.gateway.settle(&world.id, Settled::Aborted).await;
}

/// The event of the sleep may come later than its settlement; until then the old observation must not be believed.
#[tokio::test]
async fn after_a_sleep_an_old_observation_leads_nobody_to_the_dying_replica() {
    let world = World::awake(&["127.0.0.1:1".parse().unwrap()]).await;
    let backend = world.gateway.routes().backend(&world.id).unwrap();
    let before = backend.workload();
    assert!(matches!(
        backend.admit(Cause::Arrived, Arrival::default),
        Admission::Go(_)
    ));
    backend.prepare(7).unwrap();
    backend.settle(Settled::Asleep);
    backend.observe(Arc::clone(&before));
    assert!(
        matches!(
            backend.admit(Cause::Arrived, Arrival::default),
            Admission::Hold(_)
        ),
        "the observation is from before the sleep"
    );
    let mut after = (*before).clone();
    after.version.number += 2;
    backend.observe(Arc::new(after));
    assert!(
        matches!(
            backend.admit(Cause::Arrived, Arrival::default),
            Admission::Go(_)
        ),
        "somebody woke it meanwhile"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sleep_that_nobody_settles_aborts_itself_within_five_seconds() {
    let world = World::awake(&["127.0.0.1:1".parse().unwrap()]).await;
    let backend = world.gateway.routes().backend(&world.id).unwrap();
    world.gateway.prepare(&world.id).await.unwrap();
    let began = tokio::time::Instant::now();
    let Admission::Hold(mut waiting) = backend.admit(Cause::Arrived, Arrival::default) else {
        panic!("not held")
    };
    assert!(matches!(waiting.released().await, Release::Go(_)));
    assert!(
        began.elapsed() <= Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    // A settlement that comes too late changes nothing: the truth comes with the observation.
    world.gateway.settle(&world.id, Settled::Asleep).await;
    assert!(matches!(
        backend.admit(Cause::Arrived, Arrival::default),
        Admission::Go(_)
    ));
}

#[tokio::test]
async fn quiet_time_counts_from_the_end_of_the_last_answer() {
    let mut tasks = JoinSet::new();
    let echo = Echo::default();
    let world = World::awake(&[echo.start(&mut tasks).await]).await;
    let before = world.activity().await.quiet_for;
    assert_eq!(get(world.address, HOST, "/").await.code, 200);
    assert!(world.activity().await.quiet_for < before + Duration::from_secs(5));
    eventually("quiet grows", async || {
        world.activity().await.quiet_for > Duration::from_millis(5)
    })
    .await;
}

/// Requests keep coming while the workload is put to sleep and woken over and over: every one is answered 200.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_over_many_sleeps() {
    let mut tasks = JoinSet::new();
    let echo = Echo::default();
    let at = echo.start(&mut tasks).await;
    let world = World::awake(&[at]).await;
    let address = world.address;
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        clients.spawn(async move {
            for n in 0..40 {
                let reply = get(address, HOST, &format!("/{n}")).await;
                assert_eq!(reply.code, 200, "{}", reply.text());
            }
        });
    }
    let mut sleeps = 0;
    while !clients.is_empty() {
        if let Some(counts) = world.gateway.prepare(&world.id).await {
            let idle = counts.in_flight == 0 && counts.held == 0;
            if idle && !world.workloads.peek(&world.id).desired.is_zero() {
                sleep_now(&world).await;
                world.gateway.settle(&world.id, Settled::Asleep).await;
                sleeps += 1;
            } else {
                world.gateway.settle(&world.id, Settled::Aborted).await;
            }
        }
        // The engine: what is wanted runs, at the same address, as a port reused by the next process would be.
        world.workloads.change(&world.id, |w| {
            let wanted = usize::from(!w.desired.is_zero());
            w.current = w.desired;
            w.replicas = (0..wanted)
                .map(|n| replica(n, at, Readiness::Tcp, true))
                .collect();
            w.available = w.desired;
        });
        if let Ok(Some(ended)) =
            tokio::time::timeout(Duration::from_millis(2), clients.join_next()).await
        {
            ended.unwrap();
        }
    }
    assert!(sleeps > 0, "the test never slept");
    let activity = world.activity().await;
    assert_eq!((activity.in_flight, activity.held), (0, 0));
}

/// Writes the sleep, as the idle loop does.
async fn sleep_now(world: &World) {
    loop {
        let before = world.workloads.peek(&world.id);
        let update = IntentUpdate {
            desired: Replicas::ZERO,
            intent: before.intent.clone(),
        };
        // A wake that taught something may write in between.
        if world.workloads.write(&before, update).await.is_ok() {
            return;
        }
    }
}

async fn client(world: &World) -> TcpStream {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let text = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

// A process that put something to sleep a moment ago ends as fast as any other.
#[tokio::test]
async fn a_prepared_sleep_does_not_delay_the_end_of_the_process() {
    let supervisor = nagi_runtime::Supervisor::new();
    let shutdown = supervisor.shutdown();
    let world = World::with(Settings::default(), vec![asleep_workload()], shutdown).await;
    world.gateway.prepare(&world.id).await.unwrap();
    world.gateway.settle(&world.id, Settled::Aborted).await;
    assert_eq!(
        world.gateway.shared().drivers.len(),
        1,
        "the timer of the hand-shake"
    );
    let report = supervisor
        .run_until(std::future::ready(()), Duration::ZERO)
        .await;
    assert!(report.is_ok());
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.gateway.shared().drivers.len(), 0);
}
