//! Measures the last stretch of a wake: from the moment a replica opens its port to the first byte at the client.
//!
//! Each round puts a workload to sleep in memory, sends a request through a real gateway on loopback, announces a
//! replica whose port is closed, opens the port after a pause that differs from round to round, and takes the time
//! until the waiting client reads its first byte. Client and replica are plain blocking threads, so nothing but the
//! gateway and the kernel lies between the two instants.
//!
//! `cargo run -p nagi-gateway --release --example wake_latency [ROUNDS]`; exits 1 above the goal (p99 ≤ 5 ms).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nagi_core::guardrail::Guardrails;
use nagi_core::id::{Host, ReplicaName};
use nagi_core::quantity::{Replicas, WakeCount};
use nagi_core::wake::Stage;
use nagi_core::workload::{Readiness, Replica};
use nagi_gateway::{Gateway, Settings};
use nagi_ports::{Engine, SystemClock};
use nagi_runtime::{Shutdown, TaskSet};
use nagi_telemetry::{LinesDropped, Metrics};
use nagi_testkit::{MemoryWorkloads, id, workload};
use nagi_wake::Wakes;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
use tokio::time::Instant;

/// A result whose error is only shown.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const HOST: &str = "app.project-a.localhost";
const ROUNDS: usize = 400;
/// The goal for the 99th percentile.
const GOAL: Duration = Duration::from_millis(5);

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a measuring tool's data")]
async fn main() -> Outcome<ExitCode> {
    let rounds = std::env::args()
        .nth(1)
        .map_or(Ok(ROUNDS), |text| text.parse())?;
    let mut w = workload("project-a/app", 0, 0, 0);
    w.hosts = vec![Host::new(HOST)?];
    w.intent.remembered = WakeCount::new(1);
    w.idle_after = Some(Duration::from_mins(1));
    let workloads = MemoryWorkloads::new(Engine::Local, [w]);
    let metrics = Metrics::new("bench", LinesDropped::default());
    let clock = Arc::new(SystemClock::new());
    let wakes = Wakes::new(
        workloads.clone(),
        clock.clone(),
        Guardrails::default(),
        metrics.clone(),
    );
    let gateway = Gateway::new(
        workloads.clone(),
        wakes,
        clock,
        metrics,
        Settings::default(),
        Shutdown::never(),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let tasks = TaskSet::new("bench", 2);
    let (follower, server) = (gateway.clone(), gateway);
    tasks.try_spawn(async move { follower.follow().await })?;
    tasks.try_spawn(async move { drop(server.serve(listener).await) })?;

    let mut failed = false;
    for (name, readiness) in [
        ("tcp", Readiness::Tcp),
        (
            "http",
            Readiness::Http {
                path: "/ready".to_owned(),
            },
        ),
    ] {
        let mut times = Vec::with_capacity(rounds);
        for round in 0..rounds {
            // 3 to 122 ms, in an order that meets every phase of the prober's pace.
            let pause = Duration::from_micros(3_000 + u64::try_from(round * 7_919 % 120_000)?);
            times.push(one_wake(&workloads, address, &readiness, pause).await?);
        }
        times.sort_unstable();
        let at = |percent: usize| {
            times
                .get((times.len() * percent / 100).min(times.len() - 1))
                .copied()
                .unwrap_or_default()
        };
        println!(
            "{name}: {rounds} wakes, port open to first byte at the client: p50 {:?}  p90 {:?}  p99 {:?}  max {:?}",
            at(50),
            at(90),
            at(99),
            at(100)
        );
        failed |= at(99) > GOAL;
    }
    println!(
        "goal: p99 <= {GOAL:?}: {}",
        if failed { "MISSED" } else { "met" }
    );
    Ok(ExitCode::from(u8::from(failed)))
}

async fn one_wake(
    workloads: &Arc<MemoryWorkloads>,
    gateway: SocketAddr,
    readiness: &Readiness,
    pause: Duration,
) -> Outcome<Duration> {
    let id = id("project-a/app");
    workloads.change(&id, |w| {
        w.desired = Replicas::ZERO;
        w.current = Replicas::ZERO;
        w.available = Replicas::ZERO;
        w.replicas.clear();
    });
    // Bound and not listening: connections are refused, and nobody else gets the port.
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&fd, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let replica: SocketAddr = getsockname(&fd)?.try_into()?;
    let client = tokio::task::spawn_blocking(move || -> std::io::Result<Instant> {
        let mut stream = TcpStream::connect(gateway)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut first = [0; 1];
        stream.read_exact(&mut first)?;
        let arrived = Instant::now();
        let mut rest = String::new();
        stream.read_to_string(&mut rest)?;
        assert!(rest.starts_with("TTP/1.1 200"), "{rest}");
        Ok(arrived)
    });
    while workloads.peek(&id).desired.is_zero() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    workloads.change(&id, |w| {
        w.current = Replicas(1);
        w.replicas = vec![Replica {
            name: ReplicaName::new("app-0").expect("a constant name"),
            stage: Stage::Starting,
            address: Some(replica),
            readiness: readiness.clone(),
            ready: false,
            stopping: false,
            restarts: 0,
        }];
    });
    tokio::time::sleep(pause).await;
    let child = tokio::task::spawn_blocking(move || -> std::io::Result<Instant> {
        let opened = Instant::now();
        listen(&fd, 128)?;
        let (mut stream, _) = TcpListener::from(fd).accept()?;
        let mut seen = Vec::new();
        let mut part = [0; 1024];
        loop {
            let n = stream.read(&mut part)?;
            if n == 0 {
                return Ok(opened);
            }
            seen.extend_from_slice(part.get(..n).unwrap_or_default());
            while let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
                seen.drain(..end + 4);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            }
        }
    });
    let arrived = client.await??;
    // The next sleep closes the connection, and with it the child.
    workloads.change(&id, |w| w.replicas.clear());
    let opened = child.await??;
    Ok(arrived.saturating_duration_since(opened))
}
