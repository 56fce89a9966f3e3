//! An engine on a directory of its own, in this process or in one that can be killed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nagi_core::id::{Name, Namespace, WorkloadId};
use nagi_core::intent::IntentUpdate;
use nagi_core::quantity::Replicas;
use nagi_core::workload::Workload;
use nagi_local::process::cgroup::ControlGroup;
use nagi_local::process::{ProcessId, marked_with_prefix};
use nagi_local::shim::record::{EngineInCharge, REPLICA_VARIABLE, read};
use nagi_local::{Begin, LocalConfig, LocalEngine, OnShutdown, ShimCommand, StartError};
use nagi_ports::{PortError, Read, SystemClock, Workloads as _};
use nagi_runtime::Supervisor;
use nagi_telemetry::{LinesDropped, Metrics};
use rustix::process::Signal;
use tempfile::TempDir;

/// Only a failure takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Our own binary: supervisor, engine, and a small server to run.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_nagi-local");

/// Directory, workload file and state directory of one test. Whatever it started is killed at its end.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
    pub(crate) metrics: Metrics,
}

impl Place {
    pub(crate) fn with(file: &str) -> Self {
        let place = Self {
            directory: tempfile::tempdir().unwrap(),
            metrics: Metrics::new("test", LinesDropped::default()),
        };
        place.write_file(file);
        place
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("nagi.yaml")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Writes the workload file; `BINARY` in it stands for our own binary.
    pub(crate) fn write_file(&self, content: &str) {
        std::fs::write(self.file(), content.replace("BINARY", BINARY)).unwrap();
    }

    pub(crate) fn config(&self) -> LocalConfig {
        let path = ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
        LocalConfig {
            file: self.file(),
            state_directory: self.state(),
            shim: ShimCommand {
                program: BINARY.into(),
                arguments: vec!["shim".into()],
            },
            environment: BTreeMap::from([path]),
            on_shutdown: OnShutdown::End,
            begin: Begin::WhereItWas,
            metrics: self.metrics.clone(),
        }
    }

    /// The processes of all replicas, with their marks.
    pub(crate) fn processes(&self) -> Vec<(ProcessId, String)> {
        let Some(engine) = read::<EngineInCharge>(&self.state().join("engine.json")) else {
            return Vec::new();
        };
        marked_with_prefix(&format!("{REPLICA_VARIABLE}={}/", engine.instance))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Again and again: a supervisor may be between its record and its command.
        for _ in 0..200 {
            for (process, _) in self.processes() {
                drop(process.signal(Signal::KILL));
            }
            std::thread::sleep(Duration::from_millis(10));
            if supervisors(&self.state()).is_empty() {
                break;
            }
        }
        if let Some(engine) = read::<EngineInCharge>(&self.state().join("engine.json"))
            && let Some(group) = ControlGroup::make(&format!("nagi-{}", engine.instance))
        {
            for entry in std::fs::read_dir(group.directory())
                .into_iter()
                .flatten()
                .flatten()
            {
                ControlGroup::at(entry.path()).remove();
            }
            group.remove();
        }
    }
}

/// An engine in this process.
pub(crate) struct Lab {
    pub(crate) place: Place,
    pub(crate) engine: LocalEngine,
    supervisor: Supervisor,
}

impl Lab {
    pub(crate) async fn start(file: &str) -> Self {
        Self::start_in(Place::with(file)).await.unwrap()
    }

    pub(crate) async fn start_in(place: Place) -> Result<Self, StartError> {
        let mut supervisor = Supervisor::new();
        let clock = Arc::new(SystemClock::new());
        let engine = LocalEngine::start(place.config(), clock, &mut supervisor).await?;
        Ok(Self {
            place,
            engine,
            supervisor,
        })
    }

    /// What the metrics tell of the workload file: `1` while its present content is in force.
    pub(crate) fn file_in_force(&self) -> String {
        let text = self.place.metrics.encode().unwrap();
        let sample = "nagi_file_in_force{file=\"workloads\"} ";
        let value = text.lines().find_map(|line| line.strip_prefix(sample));
        value.unwrap().to_owned()
    }

    /// Ends in order.
    pub(crate) async fn end(self) -> Place {
        self.end_within(PATIENCE).await
    }

    /// Ends in order, and takes no longer.
    pub(crate) async fn end_within(self, time: Duration) -> Place {
        let report = self.supervisor.run_until(async {}, time).await.unwrap();
        assert_eq!(
            (report.cut.len(), report.failed.len()),
            (0, 0),
            "{report:?}"
        );
        self.place
    }

    pub(crate) async fn get(&self, id: &WorkloadId) -> Arc<Workload> {
        self.engine.get(id, Read::Cached).await.unwrap()
    }

    pub(crate) async fn scale(
        &self,
        id: &WorkloadId,
        desired: u32,
    ) -> Result<Arc<Workload>, PortError> {
        let before = self.get(id).await;
        let update = IntentUpdate {
            desired: Replicas(desired),
            intent: before.intent.clone(),
        };
        self.engine.write(&before, update).await
    }

    /// Waits for a state of a workload.
    pub(crate) async fn wait(
        &self,
        id: &WorkloadId,
        mut wanted: impl FnMut(&Workload) -> bool,
    ) -> Arc<Workload> {
        let mut events = self.engine.subscribe();
        let begin = Instant::now();
        loop {
            let workload = self.get(id).await;
            if wanted(&workload) {
                return workload;
            }
            assert!(begin.elapsed() < PATIENCE, "never came: {workload:#?}");
            // An event says that it is worth to look; time passing is one, too.
            drop(tokio::time::timeout(Duration::from_millis(100), events.recv()).await);
        }
    }

    pub(crate) async fn wait_serving(&self, id: &WorkloadId, count: u32) -> Arc<Workload> {
        let count = Replicas(count);
        self.wait(id, |workload| {
            workload.available == count && workload.current == count
        })
        .await
    }
}

/// An engine in a process of its own.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(place: &Place, at_end: &str) -> Self {
        let mut process = Self::spawn(place, at_end);
        assert_eq!(process.line(), "started");
        process
    }

    pub(crate) fn spawn(place: &Place, at_end: &str) -> Self {
        let mut child = Command::new(BINARY)
            .arg("engine")
            .args([place.file(), place.state()])
            .arg(at_end)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            input,
            output,
        }
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn ask(&mut self, order: &str) -> String {
        writeln!(self.input.as_mut().unwrap(), "{order}").unwrap();
        self.line()
    }

    pub(crate) fn wait_for(&mut self, order: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let answer = self.ask(order);
            if wanted(&answer) {
                return answer;
            }
            assert!(begin.elapsed() < PATIENCE, "never came: {answer}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends its input, which ends it in order.
    pub(crate) fn end(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn id(name: &str) -> WorkloadId {
    WorkloadId::deployment(
        Namespace::new("project-a").unwrap(),
        Name::new(name).unwrap(),
    )
}

/// One GET; the whole answer.
pub(crate) fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(crate) fn wait_until(mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "waited too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The same while an engine of this process goes on.
pub(crate) async fn eventually(mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "waited too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Supervisors that run for a state directory.
pub(crate) fn supervisors(state: &Path) -> Vec<i32> {
    let wanted = state.to_string_lossy().into_owned();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = line
                .split(|byte| *byte == 0)
                .map(String::from_utf8_lossy)
                .collect();
            words.get(1).is_some_and(|word| word == "shim")
                && words.get(2).is_some_and(|word| word.starts_with(&wanted))
        })
        .collect()
}
