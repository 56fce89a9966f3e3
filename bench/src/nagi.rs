//! `nagi all` as a user starts it: default configuration, logs and metrics on, in a directory of its own.
//!
//! Only addresses and directories are given, because the default ports may be taken. The log goes to a file, as it does under a
//! service manager. Dropping it ends the process and all its replicas.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::clock;
use crate::http::{self, Connection};

/// The two workloads of the demo, both asleep, on the same pools.
pub(crate) const DEMO_ASLEEP: &str = "\
pools:
  - { name: standard, boot: 2s, release_after: 3s, price_per_hour: 0.10, max_nodes: 2, node: { cpu: 2, memory: 4GiB } }
  - { name: gpu, boot: 5s, release_after: 3s, price_per_hour: 3.06, max_nodes: 1, node: { cpu: 4, memory: 28GiB, gpu: 1 } }
workloads:
  - namespace: project-a
    name: sample-app-a
    command: [NAGI, sample, web]
    port: 8080
    readiness: { http: { path: /health } }
    pool: standard
    resources: { cpu: 0.05, memory: 64MiB }
    replicas: 0
    awake_replicas: 1
    idle_after: 5s
  - namespace: project-b
    name: sample-app-b
    command: [NAGI, sample, inference]
    port: 8000
    readiness: { http: { path: /v2/health/ready } }
    pool: gpu
    resources: { cpu: 1, memory: 2GiB, gpu: 1 }
    replicas: 0
    awake_replicas: 1
    idle_after: 60s
";

/// A start that takes longer has failed.
const START_MAX: Duration = Duration::from_secs(10);
/// Between two looks whether it is up: a twentieth of a goal of 50 ms would already show, this does not.
const START_PAUSE: Duration = Duration::from_micros(500);
/// A stop ends replicas too, each within its grace time.
const STOP_MAX: Duration = Duration::from_secs(20);

/// A directory and three ports, in which Nagi can run many times.
#[derive(Debug)]
pub(crate) struct Place {
    directory: tempfile::TempDir,
    program: PathBuf,
    pub(crate) api: u16,
    metrics: u16,
    pub(crate) gateway: u16,
}

/// A running `nagi all`.
#[derive(Debug)]
pub(crate) struct Nagi {
    child: Child,
    /// From the start of the program to the first 200 of `/health`.
    pub(crate) started_in: Duration,
}

// === impl Place ===

impl Place {
    /// Prepares a place with a workload file in which `NAGI` and `BENCH` stand for the paths of the two programs.
    pub(crate) fn new(program: &Path, workloads: &str) -> anyhow::Result<Self> {
        // Below target/, on the disk that people build on: the file system of /tmp may be memory, where a sync is free.
        let beside = program.parent().context("the binary lies in a directory")?;
        let directory = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(beside)
            .context("make a directory")?;
        let own = std::env::current_exe().context("find this program")?;
        let text = workloads
            .replace("NAGI", &program.display().to_string())
            .replace("BENCH", &own.display().to_string());
        std::fs::write(directory.path().join("workloads.yaml"), text)
            .context("write the workload file")?;
        let [api, metrics, gateway] = free_ports()?;
        Ok(Self {
            directory,
            program: program.to_owned(),
            api,
            metrics,
            gateway,
        })
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// A file in the directory of the place.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts Nagi, on one core if asked to, and waits until it is healthy. `flags` are for measurements that say so.
    pub(crate) fn start(
        &self,
        runtime: &Runtime,
        core: Option<usize>,
        flags: &[&str],
    ) -> anyhow::Result<Nagi> {
        let mut command = match core {
            None => program(&self.program),
            Some(core) => {
                let mut command = program(&std::env::current_exe().context("find this program")?);
                command.arg("pin").arg(core.to_string()).arg(&self.program);
                command
            }
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.file("nagi.log"))
            .context("open the log")?;
        command
            .args(["all", "--on-exit", "stop", "--workloads"])
            .arg(self.file("workloads.yaml"))
            .arg("--state-dir")
            .arg(self.state())
            .args(["--listen", &format!("127.0.0.1:{}", self.api)])
            .args(["--metrics-listen", &format!("127.0.0.1:{}", self.metrics)])
            .args(["--gateway-listen", &format!("127.0.0.1:{}", self.gateway)])
            .args(flags)
            // Variables of the person who measures must not change the configuration.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log);
        let began = clock::now();
        let child = command
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        let mut nagi = Nagi {
            child,
            started_in: Duration::ZERO,
        };
        let request = http::request("GET", "localhost", "/health", "");
        loop {
            let answer =
                runtime.block_on(async { Connection::open(self.api).await?.call(&request).await });
            nagi.started_in = clock::now().saturating_sub(began);
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(nagi);
            }
            let ended = nagi.child.try_wait().context("look at the process")?;
            if ended.is_some() || nagi.started_in > START_MAX {
                bail!("nagi did not become healthy; its log:\n{}", self.log());
            }
            clock::pause(START_PAUSE);
        }
    }

    /// Makes an API call that must succeed and gives its body.
    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> anyhow::Result<Value> {
        let answer = Connection::open(self.api)
            .await?
            .call(&http::request(method, "localhost", path, body))
            .await?;
        if !(200..300).contains(&answer.status) {
            bail!(
                "{method} {path}: {} {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
        }
        serde_json::from_slice(&answer.body)
            .with_context(|| format!("{method} {path}: read the body"))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.file("nagi.log")).unwrap_or_default()
    }
}

// === impl Nagi ===

impl Nagi {
    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .context("read /proc")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("find VmRSS")?;
        let kibibytes: f64 = line
            .trim()
            .trim_end_matches("kB")
            .trim()
            .parse()
            .context("read VmRSS")?;
        Ok(kibibytes * 1024.0)
    }

    /// Processor time used so far, by the process itself.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        processor_time(self.child.id())
    }

    /// Ends it as a service manager does, and waits.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.terminate()
    }

    fn terminate(&mut self) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let id = id.context("a process id")?;
        let began = clock::now();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).context("end nagi")?;
        while self.child.try_wait().context("wait for nagi")?.is_none() {
            if clock::now().saturating_sub(began) > STOP_MAX {
                self.child.kill().context("kill nagi")?;
            }
            clock::pause(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Nagi {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // On the way out after an error; that error is what the person reads.
            self.terminate().ok();
        }
    }
}

/// Processor time of a process, from its `stat`.
pub(crate) fn processor_time(id: u32) -> anyhow::Result<Duration> {
    // USER_HZ is 100 on every Linux that Nagi runs on.
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).context("read /proc")?;
    // The name in parentheses may hold anything, so count from its end: state is the first, utime and stime 12th and 13th.
    let (_, rest) = stat.rsplit_once(')').context("read /proc")?;
    let ticks: Vec<u32> = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|word| word.parse().ok())
        .collect();
    Ok(TICK * ticks.iter().sum())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the benchmark starts what it measures"
)]
pub(crate) fn program(path: &Path) -> Command {
    Command::new(path)
}

/// Ports that were free a moment ago.
pub(crate) fn free_ports<const COUNT: usize>() -> anyhow::Result<[u16; COUNT]> {
    let mut ports = [0; COUNT];
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        *port = listener.local_addr().context("find a free port")?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// A runtime for the calling side, on this thread.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")
}
