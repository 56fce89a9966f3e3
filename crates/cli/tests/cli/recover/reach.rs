//! `nagi recover tunnel` through a real sshd on loopback: B18.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nagi_testkit::{Bar, measured};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::node::Node;
use super::servers;
use super::sshd::{Sshd, silent_sshd, wait};
use crate::run::{Call, Ran, call, piped};

/// What takes longer hangs, on a machine that has much to do.
const SOON: Duration = Duration::from_secs(30);

/// An API server that presents a certificate of the node's authority.
fn api_server(node: &Node) -> u16 {
    let pair = node.pair(&["ip-172-31-37-254", "kubernetes"]);
    servers::tls(&pair, servers::ready())
}

fn tunnel(sshd: &Sshd, to: u16, arguments: &[&str]) -> Call {
    let (config, to) = (sshd.config(), format!("127.0.0.1:{to}"));
    let words = [
        "recover",
        "tunnel",
        "node",
        "--ssh-config",
        &config,
        "--to",
        &to,
        "--output",
        "json",
    ];
    let port: &[&str] = if arguments.iter().any(|one| one.starts_with("--local-")) {
        &[]
    } else {
        &["--local-port", "0"]
    };
    call(&[&words[..], port, arguments].concat())
}

fn refused(sshd: &Sshd, to: u16) -> Ran {
    let began = Instant::now();
    let ran = tunnel(sshd, to, &[]).run();
    assert!(began.elapsed() < SOON, "{ran:#?}");
    ran.prints_nothing()
}

/// A tunnel that runs, with what it tells.
struct Open {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Open {
    fn new(call: Call) -> Self {
        let mut child = piped(call.command());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    #[track_caller]
    fn event(&mut self, kind: &str) -> Value {
        let line = self.lines.next().map(Result::unwrap);
        let Some(line) = line else {
            let mut said = String::new();
            let stderr = self.child.stderr.take();
            stderr.unwrap().read_to_string(&mut said).unwrap();
            panic!("it ended: {said}");
        };
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["event"], kind, "{event}");
        event
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn port_of(event: &Value) -> u16 {
    let local = event["local"].as_str().unwrap();
    local.rsplit(':').next().unwrap().parse().unwrap()
}

fn is_closed(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_err()
}

// B-018, D-18, B18, W-B12
#[test]
fn a_tunnel_leads_to_the_api_server_and_comes_back_after_a_break() {
    let Some(mut sshd) = Sshd::start() else {
        return;
    };
    let node = Node::new();
    let mut open = Open::new(tunnel(&sshd, api_server(&node), &[]));
    let up = open.event("up");
    let port = port_of(&up);
    assert_eq!(up["certificate_names"][0], "ip-172-31-37-254");
    // It carries: the certificate comes through it, and is verified.
    node.reached_at(port);
    let answer = node.diagnose(&["--output", "json"]).json();
    assert_eq!(
        answer["facts"]["api_server"]["reach"], "tls-name",
        "{answer:#}"
    );

    sshd.break_connections();
    open.event("lost");
    let again = open.event("up");
    assert_eq!(port_of(&again), port);
    // The whole machine is away for a while.
    sshd.kill();
    open.event("lost");
    open.event("lost");
    sshd.restart();
    let last = loop {
        let line = open.lines.next().unwrap().unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == "up" {
            break event;
        }
        assert_eq!(event["event"], "lost", "{event}");
    };
    assert_eq!(port_of(&last), port);
    for (what, event, goal) in [
        ("a tunnel through ssh on loopback is up", &up, 500.0),
        (
            "a tunnel is up again after its connection was killed",
            &again,
            2000.0,
        ),
    ] {
        let seen = event["after_ms"].as_f64().unwrap();
        measured("B18", what, (seen, "ms"), Bar::AtMost(goal));
    }

    open.send(Signal::SIGTERM);
    assert_eq!(open.child.wait().unwrap().code(), Some(0));
    assert!(is_closed(port), "its ssh ended before it");
}

// D-18: a socket in place of a port, for its user alone
#[test]
fn a_tunnel_at_a_socket_is_for_its_user_and_leaves_nothing() {
    let Some(sshd) = Sshd::start() else { return };
    let node = Node::new();
    let to = api_server(&node);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let socket = path.to_str().unwrap();
    let arguments = ["--local-socket", socket];
    // What a killed ssh left is replaced.
    drop(UnixListener::bind(&path).unwrap());
    let mut open = Open::new(tunnel(&sshd, to, &arguments));
    let up = open.event("up");
    assert_eq!(up["local"], socket);
    assert_eq!(up["certificate_names"][0], "ip-172-31-37-254");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    sshd.break_connections();
    open.event("lost");
    open.event("up");
    tunnel(&sshd, to, &arguments)
        .run()
        .exits(8)
        .says("ssh (process")
        .says("--local-socket");
    open.send(Signal::SIGTERM);
    assert_eq!(open.child.wait().unwrap().code(), Some(0));
    assert!(!path.exists());
    // Anything else stays.
    std::fs::write(&path, "mine").unwrap();
    tunnel(&sshd, to, &arguments)
        .run()
        .exits(1)
        .says("something that is no socket is there");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    for (wrong, why) in [
        (
            "/nope/api.sock",
            "socket /nope/api.sock of this machine cannot be had",
        ),
        ("/tmp/a:b", "must be a path"),
        ("/tmp/%h", "must be a path"),
    ] {
        let ran = tunnel(&sshd, to, &["--local-socket", wrong]).run();
        assert_ne!(ran.code, 0);
        ran.says(why).prints_nothing();
    }
}

// An API server that starts again is told when it answers again, though its tunnel was there all the time.
#[test]
fn what_does_not_answer_is_told_to_answer_again() {
    let Some(sshd) = Sshd::start() else { return };
    let node = Node::new();
    let behind = api_server(&node);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let is_away = Arc::new(AtomicBool::new(false));
    let away = Arc::clone(&is_away);
    // It hands on, or closes at once.
    std::thread::spawn(move || {
        for near in listener.incoming() {
            let mut near = near.unwrap();
            if away.load(Ordering::Relaxed) {
                continue;
            }
            let mut far = TcpStream::connect(("127.0.0.1", behind)).unwrap();
            let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || std::io::copy(&mut far, &mut near));
        }
    });
    let mut open = Open::new(tunnel(&sshd, port, &[]));
    open.event("up");
    is_away.store(true, Ordering::Relaxed);
    sshd.break_connections();
    open.event("lost");
    open.event("unanswered");
    is_away.store(false, Ordering::Relaxed);
    open.event("up");
}

// At a terminal somebody may be typing a passphrase, so nothing ends the wait; it is said.
#[test]
fn a_long_wait_at_a_terminal_is_told() {
    let Some(sshd) = Sshd::start() else { return };
    sshd.write_config("ProxyCommand sleep 100");
    let binary = env!("CARGO_BIN_EXE_nagi");
    let config = sshd.config();
    let line = format!(
        "exec timeout 15 {binary} recover tunnel node --ssh-config {config} --local-port 0 --timeout 1m"
    );
    let output = std::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("nothing came from node for 10 s"), "{said}");
}

// Whatever ends nagi ends its ssh.
#[test]
fn no_ssh_outlives_a_tunnel() {
    let Some(sshd) = Sshd::start() else { return };
    let node = Node::new();
    let to = api_server(&node);
    for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGKILL] {
        let mut open = Open::new(tunnel(&sshd, to, &[]));
        let port = port_of(&open.event("up"));
        // Somebody is using it.
        let _used = TcpStream::connect(("127.0.0.1", port)).unwrap();
        open.send(signal);
        open.child.wait().unwrap();
        wait("nobody listens any more", || is_closed(port));
    }
}

// B18: unknown host key always refused.
#[test]
fn an_unknown_host_key_is_refused_whatever_the_configuration_says() {
    let Some(sshd) = Sshd::start() else { return };
    let node = Node::new();
    let to = api_server(&node);
    sshd.forget();
    for lines in [
        "",
        "StrictHostKeyChecking no",
        "StrictHostKeyChecking accept-new\nNoHostAuthenticationForLocalhost yes",
    ] {
        sshd.write_config(lines);
        refused(&sshd, to)
            .exits(5)
            .says("the host key of node is not known")
            .says("compare the fingerprint");
        assert_eq!(std::fs::read_to_string(sshd.file("known")).unwrap(), "");
    }
    sshd.knows("other");
    sshd.write_config("StrictHostKeyChecking no");
    refused(&sshd, to)
        .exits(5)
        .says("another host key than the one that is known")
        .says("ssh-keygen -R");
}

#[test]
fn what_the_far_machine_does_not_do_is_said_at_once() {
    let Some(sshd) = Sshd::start() else { return };
    let began = Instant::now();
    refused(&sshd, servers::closed())
        .exits(6)
        .says("is refused at the far end")
        .says("open failed: connect failed: Connection refused")
        .says("nagi recover diagnose --ssh node");
    let told = began.elapsed().as_secs_f64() * 1000.0;
    let what = "a tunnel whose far end refuses says so";
    measured("B18", what, (told.round(), "ms"), Bar::AtMost(2000.0));
    refused(&sshd, servers::silent())
        .exits(6)
        .says("says nothing");
    let plain = servers::plain(|_| "HTTP/1.1 200 OK\r\n\r\n".to_owned());
    refused(&sshd, plain).exits(6).says("does not speak TLS");
    let stranger = sshd.file("stranger").display().to_string();
    sshd.write_config(&format!("IdentityFile {stranger}"));
    std::fs::remove_file(sshd.file("user")).unwrap();
    refused(&sshd, 1)
        .exits(4)
        .says("does not accept the key")
        .says("Permission denied");

    let Some(sshd) = Sshd::start_with("AllowTcpForwarding no") else {
        return;
    };
    refused(&sshd, servers::closed())
        .exits(6)
        .says("is not allowed there");
}

#[test]
fn a_machine_that_is_not_there_has_its_own_words() {
    let Some(sshd) = Sshd::start() else { return };
    let (_listener, hangs) = silent_sshd();
    let closed = servers::closed();
    for (host, code, words) in [
        (format!("ssh://127.0.0.1:{closed}"), 6, "no sshd listens at"),
        (
            format!("ssh://127.0.0.1:{hangs}"),
            6,
            "does not answer in time",
        ),
        ("nowhere.invalid".to_owned(), 6, "has no address"),
    ] {
        let config = sshd.config();
        let words_of = [
            "recover",
            "tunnel",
            &host,
            "--ssh-config",
            &config,
            "--local-port",
            "0",
            "--timeout",
            "1s",
        ];
        call(&words_of)
            .run()
            .exits(code)
            .says(words)
            .prints_nothing();
    }
    tunnel(&sshd, 1, &[])
        .env("PATH", "/nowhere")
        .run()
        .exits(1)
        .says("there is no ssh on this machine")
        .says("openssh-client");
}

// Who has the port is told, and nothing is called.
#[test]
fn a_port_that_is_taken_is_told_with_who_has_it() {
    let Some(sshd) = Sshd::start() else { return };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let own = format!("(process {})", std::process::id());
    tunnel(&sshd, 1, &["--local-port", &port])
        .run()
        .exits(8)
        .says(&own)
        .says(&format!("listens on port {port}"))
        .says("--local-port 0");
}

#[test]
fn a_host_is_no_option_of_ssh() {
    for host in ["--", "-oProxyCommand=true"] {
        call(&["recover", "tunnel", "--local-port", "0", host])
            .run()
            .exits(2);
    }
    call(&["recover", "tunnel", "--", "-oProxyCommand=true"])
        .run()
        .exits(2)
        .says("USER@HOST");
    call(&["recover", "diagnose", "--ssh=-oProxyCommand=true"])
        .run()
        .exits(2)
        .says("USER@HOST");
}
