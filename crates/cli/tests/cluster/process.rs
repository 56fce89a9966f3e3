//! A role of the binary in a directory of its own, on ports that were free a moment ago.

use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nagi_kube_double::Double;
use serde_json::{Value, json};

/// Far longer than anything takes on a machine that builds something else at the same time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks. Nothing is decided by it.
const LOOK: Duration = Duration::from_millis(10);

pub(crate) struct Process {
    directory: tempfile::TempDir,
    child: Child,
    pub(crate) main: u16,
    pub(crate) metrics: u16,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) text: String,
}

/// A kubeconfig for the double.
pub(crate) fn kubeconfig(double: &Double) -> String {
    let url = double.url();
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "k", "cluster": { "server": url } }],
        "users": [{ "name": "u", "user": {} }],
        "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "u" } }],
    })
    .to_string()
}

impl Process {
    /// `nagi server` on the cluster of the double.
    pub(crate) fn server(double: &Double) -> Self {
        Self::start("server", Some(double), &[("NAGI_RATE_LIMIT", "0")])
    }

    /// A role; without a double there is no configuration.
    pub(crate) fn start(role: &str, double: Option<&Double>, environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let [main, metrics] = free_ports();
        let log = std::fs::File::create(directory.path().join("log")).expect("a log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_nagi"));
        command
            .arg(role)
            .env_clear()
            .env("HOME", directory.path())
            .env("NAGI_METRICS_LISTEN", format!("127.0.0.1:{metrics}"))
            .envs(environment.iter().copied())
            .stdout(log)
            .stderr(Stdio::null());
        if role == "gateway" {
            command.env("NAGI_GATEWAY_LISTEN", format!("127.0.0.1:{main}"));
        } else {
            command.env("PORT", main.to_string());
        }
        if let Some(double) = double {
            let path = directory.path().join("kubeconfig");
            std::fs::write(&path, kubeconfig(double)).expect("a kubeconfig");
            command.env("KUBECONFIG", path);
        }
        let child = command.spawn().expect("nagi starts");
        Self {
            directory,
            child,
            main,
            metrics,
        }
    }

    pub(crate) fn home(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits for words in the log, which is written a moment after what it tells of.
    pub(crate) async fn logs(&self, words: &str) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !self.log().contains(words) {
                tokio::time::sleep(LOOK).await;
            }
        })
        .await;
        assert!(waited.is_ok(), "never {words:?}:\n{}", self.log());
    }

    /// Blocks until it has ended by itself, which it does within the 30 s of a graceful stop.
    pub(crate) fn wait_for_its_end(&mut self) {
        self.child.wait().expect("it was started here");
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    pub(crate) async fn get(&self, path: &str) -> Option<Answer> {
        exchange(self.main, "GET", path, "", None).await
    }

    /// A call with a bearer token.
    pub(crate) async fn call_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> Answer {
        let bearer = format!("Bearer {token}");
        exchange_with(self.main, method, path, body, &[("authorization", &bearer)])
            .await
            .expect("an answer")
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        exchange(self.main, "POST", path, body, None)
            .await
            .expect("an answer")
    }

    /// Calls until the answer fits.
    pub(crate) async fn until(&self, path: &str, fits: impl Fn(&Answer) -> bool) -> Answer {
        let mut last = None;
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(answer) = self.get(path).await {
                    if fits(&answer) {
                        return answer;
                    }
                    last = Some(answer);
                }
                tokio::time::sleep(LOOK).await;
            }
        })
        .await;
        waited.unwrap_or_else(|_| panic!("{path}: {last:?}\n{}", self.log()))
    }

    pub(crate) async fn ready(&self) {
        self.until("/ready", |answer| answer.status == 200).await;
    }

    /// Waits for its end; its exit code and its log.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("it ends");
        (status.code(), self.log())
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = nix::unistd::Pid::from_raw(self.child.id().try_into().expect("a process id"));
        nix::sys::signal::kill(id, signal).expect("it runs");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let mut text = String::new();
            if let Ok(mut file) = std::fs::File::open(self.log_path()) {
                drop(file.read_to_string(&mut text));
            }
            println!("--- log\n{text}");
        }
    }
}

/// Waits until the process with this port of metrics says that it is ready.
pub(crate) async fn until_ready(metrics: u16) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while exchange(metrics, "GET", "/ready", "", None)
            .await
            .is_none_or(|answer| answer.status != 200)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("the gateway is ready");
}

/// One exchange on a connection of its own.
pub(crate) async fn exchange(
    port: u16,
    method: &str,
    path: &str,
    body: &str,
    host: Option<&str>,
) -> Option<Answer> {
    let host: Vec<(&str, &str)> = host.map(|host| ("host", host)).into_iter().collect();
    exchange_with(port, method, path, body, &host).await
}

/// The same with headers.
async fn exchange_with(
    port: u16,
    method: &str,
    path: &str,
    body: &str,
    headers: &[(&str, &str)],
) -> Option<Answer> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let mut request = hyper::Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.to_owned()).ok()?;
    let asked = async {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let bytes = http_body_util::BodyExt::collect(response.into_body())
            .await
            .ok()?
            .to_bytes();
        Some((status, bytes))
    };
    let both = async {
        tokio::select! {
            answer = asked => answer,
            _ = connection => None,
        }
    };
    let (status, bytes) = tokio::time::timeout(PATIENCE, both).await.ok()??;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Some(Answer {
        status,
        body: serde_json::from_str(&text).unwrap_or_default(),
        text,
    })
}

fn free_ports() -> [u16; 2] {
    // Both are held until both are known, so that they differ.
    let held = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("its address").port())
}
