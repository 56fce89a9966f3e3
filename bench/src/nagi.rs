//! Nagi as a user starts it (`nagi all`, or `nagi server` and `nagi gateway` on a cluster): default configuration, logs and
//! metrics on, in a directory of its own.
//!
//! Only addresses and directories are given, because the default ports may be taken. The log goes to a file, as it does under a
//! service manager. Dropping it ends the process and all its replicas.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
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
/// From a process that answers to one that has read its cluster; 100,000 workloads take a second.
const READY_MAX: Duration = Duration::from_mins(2);
/// A look costs the API server a list of one; this many of them show in no figure.
const READY_PAUSE: Duration = Duration::from_millis(10);
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

/// A running Nagi.
#[derive(Debug)]
pub(crate) struct Nagi {
    child: Child,
    /// From the start of the program to the first 200 of `/health`.
    pub(crate) started_in: Duration,
    /// It was asked to end; a second signal would cut short what the first one began.
    is_ending: bool,
}

/// This program again in one of its other parts, ended when dropped.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
    /// The first line that it printed.
    pub(crate) said: String,
}

/// What `/proc` tells of the memory of a process, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// `VmRSS`.
    pub(crate) resident: f64,
    /// `VmHWM`: the most that it ever was.
    pub(crate) most: f64,
}

// === impl Place ===

impl Place {
    /// Prepares a place with a workload file in which `NAGI` and `BENCH` stand for the paths of the two programs.
    pub(crate) fn new(program: &Path, workloads: &str) -> anyhow::Result<Self> {
        let place = Self::bare(program)?;
        let own = std::env::current_exe().context("find this program")?;
        let text = workloads
            .replace("NAGI", &program.display().to_string())
            .replace("BENCH", &own.display().to_string());
        std::fs::write(place.file("workloads.yaml"), text).context("write the workload file")?;
        Ok(place)
    }

    /// Prepares a place without workloads: those of a cluster are elsewhere.
    pub(crate) fn bare(program: &Path) -> anyhow::Result<Self> {
        // Below target/, on the disk that people build on: the file system of /tmp may be memory, where a sync is free.
        let beside = program.parent().context("the binary lies in a directory")?;
        let directory = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(beside)
            .context("make a directory")?;
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

    /// Starts `nagi all`, on one core if asked to, and waits until it is ready. `flags` are for measurements that say so.
    pub(crate) fn start(
        &self,
        runtime: &Runtime,
        core: Option<usize>,
        flags: &[&str],
    ) -> anyhow::Result<Nagi> {
        let mut arguments: Vec<OsString> = ["all", "--on-exit", "stop", "--workloads"]
            .map(OsString::from)
            .to_vec();
        arguments.push(self.file("workloads.yaml").into());
        arguments.push("--state-dir".into());
        arguments.push(self.state().into());
        arguments.extend(loopback("--listen", self.api));
        arguments.extend(loopback("--metrics-listen", self.metrics));
        arguments.extend(loopback("--gateway-listen", self.gateway));
        arguments.extend(flags.iter().map(OsString::from));
        let nagi = self.launch(runtime, core, &arguments, self.api)?;
        // Its API answers before its gateway has read the workloads.
        self.wait_until_ready(runtime, self.api)?;
        Ok(nagi)
    }

    /// Starts `nagi server` on the cluster of a kubeconfig and waits until it has read it.
    pub(crate) fn start_server(
        &self,
        runtime: &Runtime,
        kubeconfig: &Path,
    ) -> anyhow::Result<Nagi> {
        let mut arguments = vec!["server".into(), "--kubeconfig".into(), kubeconfig.into()];
        arguments.extend(loopback("--listen", self.api));
        arguments.extend(loopback("--metrics-listen", self.metrics));
        let nagi = self.launch(runtime, None, &arguments, self.api)?;
        self.wait_until_ready(runtime, self.api)?;
        Ok(nagi)
    }

    /// Starts `nagi gateway` on the cluster of a kubeconfig and waits until it knows its workloads.
    pub(crate) fn start_gateway(
        &self,
        runtime: &Runtime,
        kubeconfig: &Path,
    ) -> anyhow::Result<Nagi> {
        let mut arguments = vec!["gateway".into(), "--kubeconfig".into(), kubeconfig.into()];
        arguments.extend(loopback("--gateway-listen", self.gateway));
        arguments.extend(loopback("--metrics-listen", self.metrics));
        let nagi = self.launch(runtime, None, &arguments, self.metrics)?;
        self.wait_until_ready(runtime, self.metrics)?;
        Ok(nagi)
    }

    fn launch(
        &self,
        runtime: &Runtime,
        core: Option<usize>,
        arguments: &[OsString],
        health: u16,
    ) -> anyhow::Result<Nagi> {
        let mut command = on_core(&self.program, core)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.file("nagi.log"))
            .context("open the log")?;
        command
            .args(arguments)
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
            is_ending: false,
        };
        let request = http::request("GET", "localhost", "/health", "");
        loop {
            let answer =
                runtime.block_on(async { Connection::open(health).await?.call(&request).await });
            nagi.started_in = clock::now().saturating_sub(began);
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(nagi);
            }
            let ended = nagi.child.try_wait().context("look at the process")?;
            if ended.is_some() || nagi.started_in > START_MAX {
                bail!("nagi did not become healthy; its log:\n{}", self.log());
            }
            clock::wait(START_PAUSE)?;
        }
    }

    fn wait_until_ready(&self, runtime: &Runtime, port: u16) -> anyhow::Result<()> {
        let request = http::request("GET", "localhost", "/ready", "");
        let began = clock::now();
        loop {
            let answer =
                runtime.block_on(async { Connection::open(port).await?.call(&request).await })?;
            if answer.status == 200 {
                return Ok(());
            }
            if clock::now().saturating_sub(began) > READY_MAX {
                bail!(
                    "nagi did not become ready: {}; its log:\n{}",
                    String::from_utf8_lossy(&answer.body),
                    self.log()
                );
            }
            clock::wait(READY_PAUSE)?;
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
    /// Its memory.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        memory(self.child.id())
    }

    /// Processor time used so far, by the process itself.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        processor_time(self.child.id())
    }

    /// Ends it as a service manager does, and waits.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.terminate()
    }

    /// Asks it to end as a service manager does, and does not wait.
    pub(crate) fn ask_to_end(&mut self) -> anyhow::Result<()> {
        if self.is_ending {
            return Ok(());
        }
        let id = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let id = id.context("a process id")?;
        rustix::process::kill_process(id, rustix::process::Signal::TERM).context("end nagi")?;
        self.is_ending = true;
        Ok(())
    }

    fn terminate(&mut self) -> anyhow::Result<()> {
        let began = clock::now();
        self.ask_to_end()?;
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

// === impl Helper ===

impl Helper {
    /// Starts a part of this program, on one core if asked to, and waits for its first line.
    ///
    /// # Errors
    /// It ended without one; what was wrong stands on standard error.
    pub(crate) fn start(
        part: &str,
        arguments: &[&str],
        core: Option<usize>,
    ) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("find this program")?;
        let child = on_core(&own, core)?
            .arg(part)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start the {part}"))?;
        // From here on it is ended when this function fails.
        let mut helper = Self {
            child,
            said: String::new(),
        };
        let output = helper.child.stdout.take().context("its output is piped")?;
        BufReader::new(output)
            .read_line(&mut helper.said)
            .with_context(|| format!("read what the {part} says"))?;
        helper.said.truncate(helper.said.trim_end().len());
        if helper.said.is_empty() {
            bail!("the {part} ended before it was ready");
        }
        Ok(helper)
    }

    /// Its memory.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        memory(self.child.id())
    }

    /// Processor time used so far.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        processor_time(self.child.id())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It has no state; one that has ended already is gone.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

/// A program, on one core if asked to.
fn on_core(path: &Path, core: Option<usize>) -> anyhow::Result<Command> {
    let Some(core) = core else {
        return Ok(program(path));
    };
    let mut command = program(&std::env::current_exe().context("find this program")?);
    command.arg("pin").arg(core.to_string()).arg(path);
    Ok(command)
}

/// An option and a port of the loopback.
fn loopback(option: &str, port: u16) -> [OsString; 2] {
    [option.into(), format!("127.0.0.1:{port}").into()]
}

/// What a process has in memory.
pub(crate) fn memory(id: u32) -> anyhow::Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).context("read /proc")?;
    let bytes = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes: f64 = line
            .and_then(|line| line.trim().strip_suffix("kB"))
            .with_context(|| format!("find {name}"))?
            .trim()
            .parse()
            .with_context(|| format!("read {name}"))?;
        Ok(kibibytes * 1024.0)
    };
    Ok(Memory {
        resident: bytes("VmRSS:")?,
        most: bytes("VmHWM:")?,
    })
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
fn free_ports<const COUNT: usize>() -> anyhow::Result<[u16; COUNT]> {
    let mut ports = [0; COUNT];
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        *port = listener.local_addr().context("find a free port")?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// A runtime for a part of this program that has a server or a client of a cluster in it.
pub(crate) fn wide_runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start a runtime")
}

/// A runtime for the calling side, on this thread.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")
}
