//! `nagi all` in a directory of its own: started, called, killed, started again.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nagi_testkit::contract::{Answered, Contract, Validator};
use serde_json::Value;

use crate::http::{self, Answer};
use crate::{processes, wait};

/// A start takes a tenth of a second; on a machine that builds something else at the same time, several.
const UP_MAX: Duration = Duration::from_mins(1);
/// What a workload does takes as long as its processes need.
const SETTLED_MAX: Duration = Duration::from_mins(1);

/// What the API may answer.
static CONTRACT: LazyLock<Contract> = LazyLock::new(|| {
    let document = serde_json::to_value(nagi_server::openapi());
    Contract::new(document.expect("a document is JSON"), compile)
});

/// By the schema's own words, formats too.
fn compile(schema: &Value) -> Validator {
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .expect("a schema");
    Box::new(move |value| {
        let errors = validator.iter_errors(value);
        errors
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    })
}

/// Whether a start waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Closed,
}

/// Where Nagi listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ports {
    /// Where this test says, so that many run side by side.
    Own,
    /// Where it listens when nobody says anything.
    Default,
}

/// A directory, three ports, a workload file: where Nagi runs, again and again.
pub(crate) struct Machine {
    directory: tempfile::TempDir,
    pub(crate) api: u16,
    pub(crate) metrics: u16,
    pub(crate) gateway: u16,
    ports: Ports,
    environment: Vec<(String, String)>,
    /// What its callers send as bearer.
    key: Option<String>,
    /// A program before `nagi`, with its arguments, that becomes it.
    prefix: Vec<String>,
    instance: Option<String>,
    flags: Vec<String>,
    state: PathBuf,
    child: Option<Child>,
}

impl Machine {
    /// Prepares, without a start. `NAGI` in the workload file stands for the binary under test.
    pub(crate) fn new(workloads: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let text = workloads.replace("NAGI", env!("CARGO_BIN_EXE_nagi"));
        std::fs::write(directory.path().join("workloads.yaml"), text).expect("a workload file");
        let [api, metrics, gateway] = free_ports();
        Self {
            state: directory.path().join("state"),
            directory,
            api,
            metrics,
            gateway,
            ports: Ports::Own,
            environment: Vec::new(),
            key: None,
            prefix: Vec::new(),
            instance: None,
            // Limits on the rate of writes have tests of their own.
            flags: vec!["--rate-limit".into(), "0".into()],
            child: None,
        }
    }

    /// With an environment variable more.
    pub(crate) fn with_env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives an environment variable another value, for the next start.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// With an API key, which its callers here send.
    pub(crate) fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self.with_env("API_KEY", key)
    }

    /// Where the founding documents look for it, which is where it listens by itself. Only in a network of its own.
    pub(crate) fn on_default_ports(mut self) -> Self {
        (self.api, self.metrics, self.gateway) = (8080, 9090, 8000);
        self.ports = Ports::Default;
        self
    }

    /// With flags more.
    pub(crate) fn with_flags(mut self, flags: &[&str]) -> Self {
        self.flags
            .extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// With the state directory on a file system of its own, this large, that only Nagi sees and that ends with it.
    pub(crate) fn on_disk_of(mut self, size: &str) -> Self {
        std::fs::create_dir(&self.state).expect("a mount point");
        let mount = format!(
            "mount -t tmpfs -o size={size} none '{}' && exec \"$0\" \"$@\"",
            self.state.display()
        );
        self.prefix = ["unshare", "-Urm", "sh", "-c", &mount]
            .map(str::to_owned)
            .to_vec();
        self
    }

    /// Its own directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The state directory, as `/proc` names it.
    pub(crate) fn state(&self) -> PathBuf {
        self.state
            .canonicalize()
            .unwrap_or_else(|_| self.state.clone())
    }

    /// The arguments of `nagi`.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = vec![
            "all".into(),
            "--workloads".into(),
            self.directory()
                .join("workloads.yaml")
                .display()
                .to_string(),
            "--state-dir".into(),
            self.state.display().to_string(),
        ];
        for (flag, port) in [
            ("--listen", self.api),
            ("--metrics-listen", self.metrics),
            ("--gateway-listen", self.gateway),
        ] {
            if self.ports == Ports::Own {
                arguments.extend([flag.into(), format!("127.0.0.1:{port}")]);
            }
        }
        arguments.extend(self.flags.iter().cloned());
        arguments
    }

    /// Starts Nagi without waiting for it.
    fn spawn(&mut self, gate: Gate) {
        assert!(self.child.is_none(), "it runs already");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory().join("nagi.log"))
            .expect("a log file");
        let mut words = self.prefix.clone();
        if gate == Gate::Closed {
            words.extend(["sh", "-c", "read -r line; exec \"$0\" \"$@\""].map(str::to_owned));
        }
        words.push(env!("CARGO_BIN_EXE_nagi").to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.args(self.arguments()).env_clear();
        command.stdin(if gate == Gate::Open {
            Stdio::null()
        } else {
            Stdio::piped()
        });
        command
            .stdout(log.try_clone().expect("the same file"))
            .stderr(log);
        // Where an instrumented binary writes what it covered; without it that would land in the source tree.
        for name in ["LLVM_PROFILE_FILE", "PATH"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.spawn().expect("nagi starts"));
    }

    /// Starts Nagi and waits until it is healthy.
    pub(crate) fn start(&mut self) {
        self.start_watching(|| {});
    }

    /// The same, and calls `watch` again and again meanwhile.
    pub(crate) fn start_watching(&mut self, mut watch: impl FnMut()) {
        self.spawn(Gate::Open);
        let up = wait(UP_MAX, || {
            watch();
            let health = self.try_call("GET", "/health", "");
            health
                .is_ok_and(|answer| answer.status == 200)
                .then_some(())
        });
        assert!(up.is_some(), "nagi does not come up:\n{}", self.log());
        // Through its own root, because its state directory may be on a file system that only it sees.
        self.instance = processes::instance(Path::new(&format!(
            "/proc/{}/root{}",
            self.id(),
            self.state.display()
        )));
    }

    /// Prepares a start in a process that waits; its first instruction of Nagi runs after [`Machine::open_gate`].
    pub(crate) fn start_behind_gate(&mut self) {
        self.spawn(Gate::Closed);
    }

    /// Lets a prepared start go on.
    pub(crate) fn open_gate(&mut self) {
        let input = self.child.as_mut().and_then(|child| child.stdin.take());
        input
            .expect("it waits behind a gate")
            .write_all(b"\n")
            .expect("it reads");
    }

    /// Its process id.
    pub(crate) fn id(&self) -> i32 {
        self.child
            .as_ref()
            .and_then(|child| i32::try_from(child.id()).ok())
            .expect("it runs")
    }

    /// The word that marks its processes.
    pub(crate) fn instance(&self) -> String {
        self.instance.clone().expect("it was started once")
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            // A tracer in this process may have waited for it already.
            child.wait().ok();
        }
    }

    /// Kills what runs for it, while it does not run itself.
    pub(crate) fn kill_replicas(&self) {
        let Some(instance) = self
            .instance
            .clone()
            .or_else(|| processes::instance(&self.state))
        else {
            return;
        };
        // A supervisor that was started last may start its command after the first look.
        wait(Duration::from_secs(5), || {
            processes::kill_all(&instance);
            processes::of_instance(&instance).is_empty().then_some(())
        });
    }

    /// SIGTERM; gives the exit code, and the signal when there was one.
    pub(crate) fn stop(&mut self) -> (Option<i32>, Option<i32>) {
        let id = nix::unistd::Pid::from_raw(self.id());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).expect("it runs");
        let mut child = self.child.take().expect("it runs");
        // The grace time is 30 s.
        let ended = wait(Duration::from_secs(40), || {
            child.try_wait().expect("it is our child")
        });
        let Some(status) = ended else {
            child.kill().ok();
            panic!("nagi does not end on SIGTERM:\n{}", self.log());
        };
        (status.code(), status.signal())
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory().join("nagi.log")).unwrap_or_default()
    }

    /// An API call. What it answers must be what the document of the API says.
    pub(crate) fn try_call(&self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let bearer = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let headers: Vec<(&str, &str)> = bearer
            .iter()
            .map(|bearer| ("Authorization", bearer.as_str()))
            .collect();
        let answer = http::exchange(self.api, method, path, &headers, body)?;
        CONTRACT.check(Answered {
            method,
            path: path.split('?').next().unwrap_or_default(),
            status: answer.status,
            content_type: answer.header("content-type").unwrap_or_default(),
            body: answer.body.as_bytes(),
        });
        Ok(answer)
    }

    /// An API call that must be answered with this status.
    pub(crate) fn call(&self, status: u16, method: &str, path: &str, body: &str) -> Value {
        let answer = self.try_call(method, path, body);
        match answer {
            Ok(answer) if answer.status == status => answer.json(),
            other => panic!(
                "{method} {path} {body}: {other:?} instead of {status}\n{}",
                self.log()
            ),
        }
    }

    /// Waits until a workload's wanted count, and what runs, is `count`.
    pub(crate) fn wait_settled(&self, workload: &Workload, count: u64) -> Value {
        let settled = wait(SETTLED_MAX, || {
            let item = self
                .try_call("GET", &workload.path("status"), "")
                .ok()?
                .json()["deployment"]
                .take();
            let all = ["desired_replicas", "current_replicas", "available_replicas"];
            all.iter().all(|field| item[field] == count).then_some(item)
        });
        settled.unwrap_or_else(|| {
            let now = self.try_call("GET", &workload.path("status"), "");
            panic!(
                "{} does not come to {count} replicas: {now:?}\n{}",
                workload.name,
                self.log()
            )
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        self.kill_replicas();
    }
}

/// A workload, for its paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
}

impl Workload {
    /// The path of one of its operations.
    pub(crate) fn path(&self, verb: &str) -> String {
        format!(
            "/api/v1/deployments/{}/{}/{verb}",
            self.namespace, self.name
        )
    }
}

/// Ports that were free a moment ago.
pub(crate) fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Below those that the kernel gives to clients: one of them could get the port of a Nagi that is just being restarted.
    std::array::from_fn(|_| {
        loop {
            let begin = std::process::id().wrapping_mul(97);
            let number = begin.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
            let port = u16::try_from(10_000 + number % 10_000).expect("below 20,000");
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                break port;
            }
        }
    })
}
