//! Faults that come from outside: a full disk, a crowd of callers, clients that are too slow on purpose.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::machine::{Machine, Workload};
use crate::{http, processes, wait};

const BATCH: Workload = Workload {
    namespace: "project-a",
    name: "batch",
};
const TWO_BATCHES: &str = "\
workloads:
  - { namespace: project-a, name: batch, command: [sleep, '100000'], replicas: 2, stop_grace: 1s }
";

/// One call in so many, at most, may be told to come again: orders about one workload take turns.
const REFUSED_SHARE_MAX: usize = 200;

/// How long the crowd calls, in seconds: a minute in `make test`, which sets it, and 5 s where nobody does.
const SOAK: &str = "NAGI_TEST_SOAK_SECONDS";

/// A file that takes all the room there is, in a file system that only Nagi sees.
struct Filler(PathBuf);

impl Filler {
    fn fill(machine: &Machine) -> Self {
        let path = PathBuf::from(format!(
            "/proc/{}/root{}/filler",
            machine.id(),
            machine.state().display()
        ));
        let file = std::fs::File::create(&path).expect("an entry is still free");
        let mut size = 64 << 10;
        // Down to the last page: what is left must not hold even one small file.
        while size > 0 {
            match std::io::Write::write(&mut &file, &vec![0; size]) {
                Ok(0) | Err(_) => size /= 2,
                Ok(_) => {}
            }
        }
        Self(path)
    }

    fn remove(self) {
        std::fs::remove_file(self.0).expect("the filler is there");
    }
}

// Intent is durable, or the order is refused: a directory that was moved or unmounted must not be written elsewhere, since the
// next start would know neither what was wanted nor what runs.
#[test]
fn a_state_directory_that_is_away_refuses_writes_and_heals_by_itself() {
    let mut machine = Machine::new(TWO_BATCHES);
    machine.start();
    machine.wait_settled(&BATCH, 2);
    let up = |count: u32| format!(r#"{{"replicas":{count},"reason":"away"}}"#);
    machine.call(200, "POST", &BATCH.path("scale-up"), &up(3));
    machine.wait_settled(&BATCH, 3);
    let (state, away) = (machine.state(), machine.directory().join("away"));
    std::fs::rename(&state, &away).expect("the same file system");
    for stand_in in [false, true] {
        if stand_in {
            // What a path leads to after an unmount: an empty directory.
            std::fs::create_dir(&state).expect("the name is free");
        }
        let ready = machine.call(503, "GET", "/ready", "");
        assert!(ready.to_string().contains("is away"), "{ready}");
        for (verb, body) in [("scale-up", up(4)), ("scale-to-zero", up(1))] {
            let refused = machine.call(503, "POST", &BATCH.path(verb), &body);
            assert!(refused.to_string().contains("is away"), "{refused}");
        }
        let item = machine.call(200, "GET", &BATCH.path("status"), "")["deployment"].take();
        assert_eq!(item["desired_replicas"], 3, "{item}");
    }
    let left = std::fs::read_dir(&state).expect("the stand-in").count();
    assert_eq!(left, 0, "something was written elsewhere");
    std::fs::remove_dir(&state).expect("it is empty");
    std::fs::rename(&away, &state).expect("the same file system");
    machine.call(200, "GET", "/ready", "");
    machine.call(200, "POST", &BATCH.path("scale-up"), &up(4));
    machine.kill();
    machine.start();
    machine.wait_settled(&BATCH, 4);
    let running = processes::replicas(&machine.instance(), BATCH.name);
    assert!(running.values().all(|count| *count == 1), "{running:?}");
    assert_eq!(running.len(), 4, "{running:?}");
}

// "State directory full"; A-150: storage is the engine's fault (503), not the caller's.
#[test]
fn a_full_disk_refuses_writes_keeps_reads_and_heals_by_itself() {
    if !nagi_testkit::may_mount() {
        return;
    }
    let mut machine = Machine::new(TWO_BATCHES).on_disk_of("512k");
    machine.start();
    machine.wait_settled(&BATCH, 2);
    let instance = machine.instance();
    let before = machine.call(200, "GET", &BATCH.path("status"), "")["deployment"].take();

    let filler = Filler::fill(&machine);
    for (verb, body) in [
        ("scale-up", r#"{"replicas":3,"reason":"full"}"#),
        ("scale-to-zero", r#"{"reason":"full"}"#),
        ("scale-to-zero", r#"{"reason":"full"}"#),
    ] {
        let refused = machine.call(503, "POST", &BATCH.path(verb), body);
        assert_eq!(refused["status"], "error", "{refused}");
        assert!(
            refused["error"]
                .as_str()
                .is_some_and(|error| !error.is_empty()),
            "{refused}"
        );
    }
    for path in [
        "/health",
        "/ready",
        "/api/v1/deployments",
        "/api/v1/history",
        "/api/v1/pools",
        &BATCH.path("status"),
    ] {
        machine.call(200, "GET", path, "");
    }
    let after = machine.call(200, "GET", &BATCH.path("status"), "")["deployment"].take();
    for field in [
        "desired_replicas",
        "available_replicas",
        "resource_version",
        "last_scale_time",
    ] {
        assert_eq!(before[field], after[field], "{field}");
    }
    assert_eq!(processes::replicas(&instance, BATCH.name).len(), 2);

    filler.remove();
    machine.call(
        200,
        "POST",
        &BATCH.path("scale-up"),
        r#"{"replicas":3,"reason":"room again"}"#,
    );
    machine.wait_settled(&BATCH, 3);
    assert_eq!(processes::replicas(&instance, BATCH.name).len(), 3);
}

/// An accepted change of the crowd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Accepted {
    version: u64,
    from: u64,
    to: u64,
}

// "200 mixed scale calls in parallel": no update is lost, the last accepted one counts.
#[expect(
    clippy::too_many_lines,
    reason = "one story: a crowd calls, then its answers are judged together"
)]
#[test]
fn two_hundred_callers_at_once_lose_no_change() {
    const CALLERS: usize = 200;
    let time = std::env::var(SOAK)
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .map_or(Duration::from_secs(5), Duration::from_secs);
    let mut machine = Machine::new(TWO_BATCHES);
    machine.start();
    machine.wait_settled(&BATCH, 2);
    let accepted = Mutex::new(Vec::new());
    let other = Mutex::new(std::collections::BTreeMap::<String, usize>::new());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (machine, accepted, other) = (&machine, &accepted, &other);
            scope.spawn(move || {
                let mut turn = caller;
                while began.elapsed() < time {
                    turn += 1;
                    let (verb, body) = match turn % 5 {
                        0 => ("scale-to-zero", r#"{"reason":"crowd"}"#),
                        1 => ("scale-up", r#"{"replicas":1,"reason":"crowd"}"#),
                        2 => ("scale-up", r#"{"replicas":2,"reason":"crowd"}"#),
                        3 => ("scale-up", r#"{"replicas":3,"reason":"crowd"}"#),
                        _ => ("wake", ""),
                    };
                    let answer = match machine.try_call("POST", &BATCH.path(verb), body) {
                        Ok(answer) => answer,
                        Err(error) => {
                            *other
                                .lock()
                                .expect("no panic")
                                .entry(error.to_string())
                                .or_default() += 1;
                            continue;
                        }
                    };
                    let result = answer.json()["deployment"].take();
                    let number = |field: &str| result[field].as_u64();
                    let version = result["resource_version"]
                        .as_str()
                        .and_then(|text| text.parse().ok());
                    match (
                        answer.status,
                        version,
                        number("previous_replicas"),
                        number("target_replicas"),
                    ) {
                        // A wake tells of its own write, or of that of the wake that it joined.
                        (200 | 202, Some(version), Some(from), Some(to)) => {
                            accepted
                                .lock()
                                .expect("no panic")
                                .push(Accepted { version, from, to });
                        }
                        // Too many changes between read and write: nothing was written, and it may come again.
                        (500, ..)
                            if answer.body.contains("changed by somebody else")
                                && answer.header("retry-after") == Some("1") =>
                        {
                            *other
                                .lock()
                                .expect("no panic")
                                .entry(answer.status.to_string())
                                .or_default() += 1;
                        }
                        _ => panic!("{verb} {body}: {answer:?}"),
                    }
                }
            });
        }
    });
    let mut accepted = accepted.into_inner().expect("no panic");
    let other = other.into_inner().expect("no panic");
    println!("{} answered, others {other:?}", accepted.len());
    let refused: usize = other.values().sum();
    assert!(accepted.len() > 100, "too few calls to prove anything");
    assert!(
        refused * REFUSED_SHARE_MAX <= accepted.len(),
        "the crowd fails on itself: {refused} of {} calls",
        accepted.len()
    );
    // An answer without a change carries the version that was there already.
    accepted.sort_unstable();
    // Those who joined one wake were all told of its one write.
    accepted.dedup();
    let changes: Vec<Accepted> = accepted
        .iter()
        .copied()
        .filter(|change| change.from != change.to)
        .collect();
    for pair in changes.windows(2) {
        assert!(
            pair[0].version < pair[1].version,
            "two changes in one version: {pair:?}"
        );
    }
    let last = accepted.last().copied().expect("some were accepted");
    let status = machine.call(200, "GET", &BATCH.path("status"), "")["deployment"].take();
    // Every accepted change was answered before this. What came after the last one learned how long the wake took.
    let version: u64 = status["resource_version"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("a version");
    assert!(version >= last.version, "{status} {last:?}");
    assert_eq!(status["desired_replicas"], last.to, "{status} {last:?}");
    let desired = status["desired_replicas"].as_u64().expect("a count");
    let history = machine.call(200, "GET", "/api/v1/history?name=batch&limit=1", "");
    assert_eq!(
        history["items"][0]["to"], desired,
        "the last recorded change counts: {history}"
    );
    machine.wait_settled(&BATCH, desired);
    let running = processes::replicas(&machine.instance(), BATCH.name);
    assert_eq!(
        u64::try_from(running.len()).ok(),
        Some(desired),
        "{running:?}"
    );
    assert!(running.values().all(|count| *count == 1), "{running:?}");
    machine.kill();
    machine.start();
    let again = machine.wait_settled(&BATCH, desired);
    assert_eq!(
        again["desired_replicas"], last.to,
        "the last accepted change is durable"
    );
}

// W-A21; "500 slow clients: /health p99 < 100 ms".
#[test]
fn five_hundred_slow_clients_do_not_slow_health() {
    const SLOW: u8 = 250;
    const LOOKS: usize = 300;
    let mut machine = Machine::new(TWO_BATCHES);
    machine.start();
    machine.wait_settled(&BATCH, 2);
    // Half of them never finish their head, half never their body. From many addresses: the limit for one of them would
    // otherwise end most.
    let mut clients = Vec::new();
    for number in 0..SLOW {
        let from = Ipv4Addr::new(127, 0, 1, 1 + number % 10);
        let head =
            "POST /api/v1/deployments/project-a/batch/scale-up HTTP/1.1\r\nHost: localhost\r\n";
        for begin in [
            head.to_owned(),
            format!("{head}Content-Length: 1000\r\n\r\n{{"),
        ] {
            let mut stream = connect_from(from, machine.api);
            std::io::Write::write_all(&mut stream, begin.as_bytes())
                .expect("a new connection takes bytes");
            clients.push(stream);
        }
    }
    let mut times = Vec::new();
    let mut alive = 0;
    for look in 0..LOOKS {
        // Every client sends a byte now and then, so that none is idle.
        if look % 50 == 0 {
            alive = clients
                .iter()
                .filter(|client| std::io::Write::write_all(&mut &**client, b"a").is_ok())
                .count();
        }
        let began = Instant::now();
        let answer = http::exchange(machine.api, "GET", "/health", &[], "").expect("healthy");
        times.push(began.elapsed());
        assert_eq!(answer.status, 200);
    }
    times.sort_unstable();
    let p99 = times[LOOKS * 99 / 100];
    println!(
        "/health beside {alive} slow clients: p50 {:?}, p99 {p99:?}",
        times[LOOKS / 2]
    );
    assert!(
        alive > 400,
        "only {alive} slow clients were still there, so nothing is proven"
    );
    assert!(p99 < Duration::from_millis(100), "p99 {p99:?}");
    let untouched = machine.call(200, "GET", &BATCH.path("status"), "")["deployment"].take();
    assert_eq!(untouched["desired_replicas"], 2);
    // They are cut by the server's own limits, not by us.
    let cut = wait(Duration::from_secs(25), || {
        let open = clients.iter().filter(|client| !is_closed(client)).count();
        (open == 0).then_some(())
    });
    assert!(cut.is_some(), "slow clients are still connected");
}

// A Nagi that is killed while it starts a replica leaves a child with its sockets, until that runs its own program.
#[test]
fn ports_that_are_held_for_a_moment_longer_are_waited_for() {
    const HELD: Duration = Duration::from_millis(500);
    let mut machine = Machine::new("workloads: []\n");
    let ports = [machine.api, machine.metrics, machine.gateway];
    let held = ports.map(|port| TcpListener::bind(("127.0.0.1", port)).expect("a free port"));
    let began = Instant::now();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(HELD);
        drop(held);
    });
    machine.start();
    assert!(began.elapsed() >= HELD, "they were taken until then");
    holder.join().expect("a thread that sleeps");
}

/// The other side has ended the connection.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    loop {
        let mut bytes = [0; 512];
        match std::io::Read::read(&mut &*stream, &mut bytes) {
            Ok(0) => return true,
            // Its last words.
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

/// A connection from one of the machine's many loopback addresses.
fn connect_from(from: Ipv4Addr, port: u16) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let descriptor = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&descriptor, &SocketAddrV4::new(from, 0)).expect("a loopback address");
    connect(&descriptor, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).expect("nagi listens");
    TcpStream::from(descriptor)
}
