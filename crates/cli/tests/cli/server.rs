//! A real `nagi all`, in a directory of its own, on ports that were free a moment ago.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run::{Call, Ran, call, nagi};

/// A start takes a tenth of a second; on a machine that builds something else at the same time, several.
const UP_MAX: Duration = Duration::from_secs(20);
/// Between two looks. Nothing is decided by it.
const LOOK: Duration = Duration::from_millis(10);
/// Somebody else may take a port between looking and binding.
const STARTS_MAX: usize = 5;

/// Two projects: one web app that is awake, one inference server that sleeps, one name that both have.
pub(crate) const TWO_PROJECTS: &str = r#"
pools:
  - { name: standard, boot: 300ms, release_after: 300ms, price_per_hour: 0.5, max_nodes: 2 }
workloads:
  - namespace: project-a
    name: sample-app-a
    command: [NAGI, sample, web]
    port: 8080
    readiness: { http: { path: /health } }
    labels: { app: sample-app-a }
  - namespace: project-b
    name: sample-app-b
    command: [NAGI, sample, inference, --load-seconds, "0.2"]
    port: 8000
    readiness: { http: { path: /v2/health/ready } }
    replicas: 0
    awake_replicas: 1
  - { namespace: project-a, name: twin, command: [sleep, "1000"], replicas: 0, awake_replicas: 1 }
  - { namespace: project-b, name: twin, command: [sleep, "1000"], replicas: 0, awake_replicas: 1 }
"#;

/// A running server.
pub(crate) struct Server {
    directory: tempfile::TempDir,
    pub(crate) port: u16,
    pub(crate) metrics: u16,
    pub(crate) gateway: u16,
    child: Child,
}

impl Server {
    /// Starts with a workload file in which `NAGI` stands for the binary, and flags more.
    pub(crate) fn start(workloads: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let text = workloads.replace("NAGI", env!("CARGO_BIN_EXE_nagi"));
        std::fs::write(directory.path().join("workloads.yaml"), text).expect("a workload file");
        for _start in 0..STARTS_MAX {
            if let Some(([port, metrics, gateway], child)) = start(directory.path(), flags) {
                return Self {
                    directory,
                    port,
                    metrics,
                    gateway,
                    child,
                };
            }
        }
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        panic!("nagi does not come up:\n{log}");
    }

    /// Two projects without keys.
    pub(crate) fn of_two_projects() -> Self {
        Self::start(TWO_PROJECTS, &[])
    }

    /// A call of this server: words separated by blanks.
    pub(crate) fn nagi(&self, arguments: &str) -> Call {
        nagi(arguments).at(self.port)
    }

    /// The same for arguments that hold blanks.
    pub(crate) fn call(&self, arguments: &[&str]) -> Call {
        call(arguments).at(self.port)
    }

    /// A call that must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &str) -> Ran {
        self.nagi(arguments).run().exits(0)
    }

    /// Stops its process: it takes connections and answers none.
    pub(crate) fn pause(&self) {
        self.signal(Signal::SIGSTOP).expect("it runs");
    }

    /// Ends a pause.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::SIGCONT).expect("it is there");
    }

    fn signal(&self, signal: Signal) -> nix::Result<()> {
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(id), signal)
    }

    /// Calls until `holds`, at most for `limit`.
    #[track_caller]
    pub(crate) fn until(
        &self,
        limit: Duration,
        arguments: &str,
        holds: impl Fn(&Ran) -> bool,
    ) -> Ran {
        let began = Instant::now();
        loop {
            let ran = self.nagi(arguments).run();
            if holds(&ran) {
                return ran;
            }
            assert!(began.elapsed() < limit, "{arguments}: {ran:#?}");
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nobody to tell. A test that failed may have left it stopped.
        for signal in [Signal::SIGTERM, Signal::SIGCONT] {
            self.signal(signal).unwrap_or(());
        }
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > UP_MAX {
                drop(self.child.kill());
            }
            std::thread::sleep(LOOK);
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("log"));
            println!("--- log of the server\n{}", log.unwrap_or_default());
        }
    }
}

fn start(directory: &std::path::Path, flags: &[&str]) -> Option<([u16; 3], Child)> {
    let ports = free_ports();
    let [api, metrics, gateway] = ports;
    let log = std::fs::File::create(directory.join("log")).expect("a log file");
    let mut command = call(&["all", "--on-exit", "stop"]).command();
    for (flag, port) in [
        ("--listen", api),
        ("--metrics-listen", metrics),
        ("--gateway-listen", gateway),
    ] {
        command.args([flag, &format!("127.0.0.1:{port}")]);
    }
    command
        .arg("--workloads")
        .arg(directory.join("workloads.yaml"))
        .arg("--state-dir")
        .arg(directory.join("state"))
        .args(["--rate-limit", "0"])
        .args(flags)
        .stdout(log)
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("nagi starts");
    let began = Instant::now();
    while began.elapsed() < UP_MAX {
        if let Ok(Some(_ended)) = child.try_wait() {
            return None;
        }
        if TcpStream::connect(("127.0.0.1", api)).is_ok() {
            return Some((ports, child));
        }
        std::thread::sleep(LOOK);
    }
    drop(child.kill());
    drop(child.wait());
    None
}

fn free_ports() -> [u16; 3] {
    // All are held until all are known, so that they differ.
    let held: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    let ports: Vec<u16> = held
        .iter()
        .map(|listener| listener.local_addr().expect("its address").port())
        .collect();
    [ports[0], ports[1], ports[2]]
}
