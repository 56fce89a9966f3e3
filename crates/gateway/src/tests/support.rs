//! A gateway in front of workloads that the test drives, plain clients, and replicas that do as they are told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::{Gateway, Settings};
use nagi_core::guardrail::Guardrails;
use nagi_core::id::{Host, ReplicaName, WorkloadId};
use nagi_core::quantity::{Replicas, WakeCount};
use nagi_core::wake::Stage;
use nagi_core::workload::{Readiness, Replica, Workload};
use nagi_ports::{Clock, Engine, SystemClock};
use nagi_runtime::Shutdown;
use nagi_telemetry::{LinesDropped, Metrics};
use nagi_testkit::{MemoryWorkloads, workload};
use nagi_wake::Wakes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// The host of the one workload that most tests need.
pub(crate) const HOST: &str = "app.project-a.localhost";
/// Longest time that any step of a test may take before it counts as hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway and what is behind it.
pub(crate) struct World {
    pub(crate) workloads: Arc<MemoryWorkloads>,
    pub(crate) gateway: Gateway,
    pub(crate) metrics: Metrics,
    pub(crate) address: SocketAddr,
    pub(crate) id: WorkloadId,
    pub(crate) tasks: JoinSet<()>,
}

impl World {
    /// One workload, asleep, that remembers one replica.
    pub(crate) async fn asleep() -> Self {
        Self::with(
            Settings::default(),
            vec![asleep_workload()],
            Shutdown::never(),
        )
        .await
    }

    /// As [`World::asleep`] with other settings.
    pub(crate) async fn asleep_with(settings: Settings) -> Self {
        Self::with(settings, vec![asleep_workload()], Shutdown::never()).await
    }

    /// One workload, awake, with ready replicas at these addresses.
    pub(crate) async fn awake(addresses: &[SocketAddr]) -> Self {
        Self::awake_with(Settings::default(), addresses).await
    }

    /// As [`World::awake`] with other settings.
    pub(crate) async fn awake_with(settings: Settings, addresses: &[SocketAddr]) -> Self {
        let world = Self::with(settings, vec![asleep_workload()], Shutdown::never()).await;
        let count = u32::try_from(addresses.len()).unwrap();
        let replicas = addresses.iter().enumerate();
        let replicas = replicas
            .map(|(n, a)| replica(n, *a, Readiness::Tcp, true))
            .collect::<Vec<_>>();
        world.workloads.change(&world.id, |w| {
            w.desired = Replicas(count);
            w.current = Replicas(count);
            w.available = Replicas(count);
            w.replicas = replicas;
        });
        world.until_status("ready").await;
        world
    }

    /// These workloads; the first is the one that helpers speak of.
    pub(crate) async fn with(settings: Settings, items: Vec<Workload>, shutdown: Shutdown) -> Self {
        Self::with_clock(settings, items, shutdown, Arc::new(SystemClock::new())).await
    }

    /// As [`World::with`] with a clock of the test.
    pub(crate) async fn with_clock(
        settings: Settings,
        items: Vec<Workload>,
        shutdown: Shutdown,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let id = items.first().unwrap().id.clone();
        let workloads = MemoryWorkloads::new(Engine::Local, items);
        let metrics = Metrics::new("test", LinesDropped::default());
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
            metrics.clone(),
            settings,
            shutdown,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let follower = gateway.clone();
        tasks.spawn(async move { follower.follow().await });
        let server = gateway.clone();
        tasks.spawn(async move { server.serve(listener).await.unwrap() });
        let world = Self {
            workloads,
            gateway,
            metrics,
            address,
            id,
            tasks,
        };
        eventually("the routes are loaded", async || {
            world.status_word().await != "starting"
        })
        .await;
        world
    }

    /// Announces one replica of the workload, not ready by the engine's word.
    pub(crate) fn start_replica(&self, address: SocketAddr, readiness: Readiness) {
        self.workloads.change(&self.id, |w| {
            w.current = Replicas(1);
            w.replicas = vec![replica(0, address, readiness, false)];
        });
    }

    /// Waits until the wake was written.
    pub(crate) async fn until_woken(&self) {
        eventually("the wake was written", async || {
            !self.workloads.writes().is_empty()
        })
        .await;
    }

    /// How often it was woken: writes that raised the count from zero. (A wake that taught something writes again.)
    pub(crate) fn wakes(&self) -> usize {
        let mut before = Replicas::ZERO;
        let mut wakes = 0;
        for (_, update) in self.workloads.writes() {
            wakes += usize::from(before.is_zero() && !update.desired.is_zero());
            before = update.desired;
        }
        wakes
    }

    /// Waits until so many requests are held for the workload.
    pub(crate) async fn until_held(&self, count: u64) {
        eventually("so many are held", async || {
            self.activity().await.held == count
        })
        .await;
    }

    /// The exact counts.
    pub(crate) async fn activity(&self) -> nagi_core::idle::Activity {
        nagi_ports::Traffic::activity(&self.gateway, &self.id)
            .await
            .unwrap()
    }

    /// Waits for a word of the status path.
    pub(crate) async fn until_status(&self, word: &str) {
        eventually(word, async || self.status_word().await == word).await;
    }

    /// The word of the status path.
    pub(crate) async fn status_word(&self) -> String {
        let reply = get(self.address, HOST, crate::names::STATUS_PATH).await;
        reply.header("nagi-status").unwrap_or_default().to_owned()
    }
}

/// The clock of the machine, whose elapsed time a test can move on.
#[derive(Debug)]
pub(crate) struct MovableClock {
    clock: SystemClock,
    moved: std::sync::Mutex<Duration>,
}

impl MovableClock {
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self {
            clock: SystemClock::new(),
            moved: std::sync::Mutex::default(),
        })
    }

    pub(crate) fn advance(&self, by: Duration) {
        *self.moved.lock().unwrap() += by;
    }
}

impl Clock for MovableClock {
    fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic() + *self.moved.lock().unwrap()
    }
}

/// A sleeping workload with one host, that remembers one replica.
pub(crate) fn asleep_workload() -> Workload {
    let mut w = workload("project-a/app", 0, 0, 0);
    w.hosts = vec![Host::new(HOST).unwrap()];
    w.intent.remembered = WakeCount::new(1);
    w.idle_after = Some(Duration::from_mins(1));
    w
}

/// A replica.
pub(crate) fn replica(n: usize, address: SocketAddr, readiness: Readiness, ready: bool) -> Replica {
    Replica {
        name: ReplicaName::new(format!("app-{n}")).unwrap(),
        stage: if ready { Stage::Ready } else { Stage::Starting },
        address: Some(address),
        readiness,
        ready,
        stopping: false,
        restarts: 0,
    }
}

/// Looks again until it holds; fails after [`PATIENCE`].
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let look = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, look).await.is_ok(),
        "never: {what}"
    );
}

/// An answer as it came over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The first field of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// `GET` on a connection of its own.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> Reply {
    request(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
    )
    .await
}

/// Sends these bytes and reads until the gateway closes.
pub(crate) async fn request(address: SocketAddr, text: &str) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    read_to_close(&mut stream).await
}

/// Reads an answer that ends with the connection.
pub(crate) async fn read_to_close(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("an answer in time")
        .unwrap();
    parse(&bytes).unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)))
}

/// Reads one answer with `Content-Length`, or chunked, and leaves the connection open.
pub(crate) async fn read_one(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let read = async {
        loop {
            let mut part = [0; 4096];
            let n = stream.read(&mut part).await.unwrap();
            assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&part[..n]);
            if let Some(reply) = parse(&bytes)
                && reply
                    .header("content-length")
                    .is_some_and(|l| l.parse::<usize>().unwrap() <= reply.body.len())
            {
                return reply;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("an answer in time")
}

fn parse(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let code = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<_> = lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(n, v)| (n.to_owned(), v.trim().to_owned()))
        .collect();
    let mut reply = Reply {
        code,
        headers,
        body: bytes[end + 4..].to_vec(),
    };
    if reply.header("transfer-encoding") == Some("chunked") {
        reply.body = dechunk(&reply.body);
    }
    Some(reply)
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        out.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
    out
}

/// A port that nobody listens on, kept from others by a socket that is bound and does not listen.
pub(crate) struct ClosedPort {
    socket: TcpSocket,
    pub(crate) address: SocketAddr,
}

impl ClosedPort {
    pub(crate) fn reserve() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        Self { socket, address }
    }

    /// Opens it.
    pub(crate) fn listen(self) -> TcpListener {
        self.socket.listen(1024).unwrap()
    }
}

/// A replica that answers every request with 200 and what it saw, and counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Echo {
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) requests: Arc<AtomicUsize>,
}

impl Echo {
    /// Serves on this listener until the tasks are dropped.
    pub(crate) fn serve(&self, listener: TcpListener, tasks: &mut JoinSet<()>) {
        let this = self.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                this.connections.fetch_add(1, Ordering::SeqCst);
                let this = this.clone();
                connections.spawn(async move { this.connection(stream).await });
            }
        });
    }

    /// A listener on a free port and its address.
    pub(crate) async fn start(&self, tasks: &mut JoinSet<()>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.serve(listener, tasks);
        address
    }

    async fn connection(&self, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        loop {
            let Some((head, body)) = read_request(&mut stream, &mut buffer).await else {
                return;
            };
            self.requests.fetch_add(1, Ordering::SeqCst);
            let body = format!("{head}\r\n\r\n{}", String::from_utf8_lossy(&body));
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// Reads one request with `Content-Length`, chunked, or without a body: its head and its body.
pub(crate) async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let lower = head.to_ascii_lowercase();
            let rest = &buffer[end + 4..];
            let whole = if lower.contains("transfer-encoding: chunked") {
                rest.windows(5)
                    .position(|w| w == b"0\r\n\r\n")
                    .map(|at| at + 5)
            } else {
                let length = lower
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length:"));
                let length = length.map_or(0, |text| text.trim().parse::<usize>().unwrap());
                (rest.len() >= length).then_some(length)
            };
            if let Some(length) = whole {
                let body = rest[..length].to_vec();
                buffer.drain(..end + 4 + length);
                return Some((head, body));
            }
        }
        let mut part = [0; 4096];
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => buffer.extend_from_slice(&part[..n]),
        }
    }
}

/// A client whose request is held.
pub(crate) async fn held_client(world: &World) -> TcpStream {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let text = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    world.until_held(1).await;
    stream
}
