//! A way to the API server that sees every request of one replica, and can kill or stop the replica at one of them.
//!
//! `kubectl proxy` stands behind it with the certificate of the replica, so it speaks plain HTTP on both sides; each request
//! has a connection of its own. A kill before a request keeps it from the API server; a kill after it comes when the API server
//! has answered and the replica does not know. A kill anywhere between two requests leaves the same world as one of these.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use nagi_e2e::{Process, Signal};

/// Longer than any case holds a request.
const HOLD_MAX: Duration = Duration::from_mins(3);

/// On which side of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Instead of it.
    Before,
    /// When the API server has answered.
    After,
}

/// What is done at a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// The replica is killed.
    Kill(Phase),
    /// The replica is stopped, and the request waits until it is released.
    Stop,
}

/// What to do, and at which request.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// As [`name`] gives it.
    pub(crate) request: String,
    /// Counted from 1 among equal ones.
    pub(crate) occurrence: usize,
    pub(crate) deed: Deed,
    pub(crate) victim: Process,
}

/// It ends with the test program.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Requests about this workload are noted.
    workload: String,
    noted: Vec<String>,
    plan: Option<Plan>,
    done: bool,
    released: bool,
    /// Connections that are open, each with its two ends.
    open: BTreeMap<u64, [TcpStream; 2]>,
    opened: u64,
}

/// What a request is, without what differs from run to run: `PATCH deployments/NAME`, `POST events`. Nothing for a request
/// that is not about this workload.
fn name(method: &str, path: &str, body: &[u8], workload: &str) -> Option<String> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let about = || {
        let quoted = format!("\"{workload}\"");
        path.contains(workload) || String::from_utf8_lossy(body).contains(&quoted)
    };
    if workload.is_empty() || query.contains("watch=") || !about() {
        return None;
    }
    let mut parts: Vec<&str> = path.split('/').rev().take(2).collect();
    parts.reverse();
    let named = |part: &&str| part.starts_with(workload);
    let words = match parts.as_slice() {
        [kind, last] if named(last) => format!("{kind}/NAME"),
        [.., last] => (*last).to_owned(),
        [] => String::new(),
    };
    Some(format!("{method} {words}"))
}

impl Relay {
    /// In front of a server on this machine.
    pub(crate) fn start(upstream: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
        let port = listener.local_addr().context("look at a port")?.port();
        let shared = Arc::new(Shared {
            upstream: SocketAddr::from((Ipv4Addr::LOCALHOST, upstream)),
            state: Mutex::default(),
            released: Condvar::new(),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                // What breaks off is the caller's to notice.
                std::thread::spawn(move || shared.relay(stream).ok());
            }
        });
        Ok(Self { port, shared })
    }

    /// Notes requests about a workload from now on, and follows a plan at one of them.
    pub(crate) fn watch(&self, workload: &str, plan: Option<Plan>) {
        let mut state = self.shared.state();
        *state = State {
            workload: workload.to_owned(),
            plan,
            open: std::mem::take(&mut state.open),
            opened: state.opened,
            ..State::default()
        };
    }

    /// The requests that were noted.
    pub(crate) fn noted(&self) -> Vec<String> {
        self.shared.state().noted.clone()
    }

    /// Whether the plan was carried out.
    pub(crate) fn is_done(&self) -> bool {
        self.shared.state().done
    }

    /// Lets the request that waits go on.
    pub(crate) fn release(&self) {
        self.shared.state().released = true;
        self.shared.released.notify_all();
    }

    /// Cuts every connection that is open; gives how many.
    pub(crate) fn cut(&self) -> usize {
        let open = std::mem::take(&mut self.shared.state().open);
        let cut = open
            .values()
            .filter(|ends| ends.iter().all(|end| end.shutdown(Shutdown::Both).is_ok()));
        cut.count()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn relay(&self, mut client: TcpStream) -> std::io::Result<()> {
        let Some((head, body)) = read(&mut client)? else {
            return Ok(());
        };
        let line = head.lines().next().unwrap_or_default().to_owned();
        let mut words = line.split(' ');
        let (method, path) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let plan = self.note(method, path, &body);
        if let Some(plan) = &plan
            && plan.deed != Deed::Kill(Phase::After)
        {
            let signal = match plan.deed {
                Deed::Kill(_) => Signal::KILL,
                Deed::Stop => Signal::STOP,
            };
            self.carry_out(plan.victim, signal)?;
            if plan.deed != Deed::Stop {
                return Ok(());
            }
            self.wait_for_release();
        }
        let mut server = TcpStream::connect(self.upstream)?;
        server.write_all(closing(&head).as_bytes())?;
        server.write_all(&body)?;
        if let Some(plan) = plan.filter(|plan| plan.deed == Deed::Kill(Phase::After)) {
            let mut answer = Vec::new();
            server.read_to_end(&mut answer)?;
            return self.carry_out(plan.victim, Signal::KILL);
        }
        let ends = [client.try_clone()?, server.try_clone()?];
        let number = {
            let mut state = self.state();
            state.opened += 1;
            let number = state.opened;
            state.open.insert(number, ends);
            number
        };
        let copied = std::io::copy(&mut server, &mut client);
        self.state().open.remove(&number);
        copied.and_then(|_| client.shutdown(Shutdown::Both))
    }

    /// Notes a request; gives the plan when it is the one.
    fn note(&self, method: &str, path: &str, body: &[u8]) -> Option<Plan> {
        let mut state = self.state();
        let name = name(method, path, body, &state.workload)?;
        state.noted.push(name);
        let name = state.noted.last()?;
        let before = state.noted.iter().filter(|noted| *noted == name).count();
        let plan = state.plan.clone()?;
        (!state.done && plan.request == *name && plan.occurrence == before).then_some(plan)
    }

    fn carry_out(&self, victim: Process, signal: Signal) -> std::io::Result<()> {
        victim.signal(signal).map_err(std::io::Error::other)?;
        self.state().done = true;
        Ok(())
    }

    fn wait_for_release(&self) {
        let state = self.state();
        let waited = self
            .released
            .wait_timeout_while(state, HOLD_MAX, |state| !state.released);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// A request: its head and its body. Nothing when the connection ends first.
fn read(client: &mut TcpStream) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8(head).map_err(std::io::Error::other)?;
    let length = header(&head, "content-length").and_then(|value| value.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body)?;
    Ok(Some((head, body)))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The head with the wish that the connection ends with the answer.
fn closing(head: &str) -> String {
    let mut lines: Vec<&str> = head
        .lines()
        .filter(|line| !line.is_empty() && !line.to_lowercase().starts_with("connection:"))
        .collect();
    lines.push("Connection: close");
    format!("{}\r\n\r\n", lines.join("\r\n"))
}
