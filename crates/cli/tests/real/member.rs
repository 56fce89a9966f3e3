//! A real etcd of one member, on ports of its own.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::node::Node;
use crate::{program, servers};

/// On two busy cores it has been seen to take 3 s.
const UP_MAX: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(50);

/// It ends with this value.
pub(crate) struct Member {
    pub(crate) port: u16,
    child: Child,
}

// === impl Member ===

impl Member {
    /// Starts one with its data there, and waits until it serves.
    pub(crate) fn start(directory: &Path, quota: u64) -> Self {
        let member = Self::launch(directory, quota, "http", &[]);
        member.wait(|| {
            member
                .call("/v3/maintenance/status", "{}")
                .contains("dbSize")
        });
        member
    }

    /// The same over TLS, for clients with a certificate of the node's authority only: as kubeadm has it. Its files are those
    /// of the node.
    pub(crate) fn start_with_tls(directory: &Path, node: &Node) -> Self {
        let file = |name: &str| node.root.join("etc/kubernetes/pki").join(name);
        let words = [
            ("--cert-file", file("etcd/server.crt")),
            ("--key-file", file("etcd/server.key")),
            ("--trusted-ca-file", file("ca.crt")),
        ];
        let mut arguments = vec!["--client-cert-auth".to_owned()];
        arguments.extend(words.map(|(flag, path)| format!("{flag}={}", path.display())));
        let member = Self::launch(directory, 64 << 20, "https", &arguments);
        member.wait(|| TcpStream::connect(("127.0.0.1", member.port)).is_ok());
        member
    }

    fn launch(directory: &Path, quota: u64, scheme: &str, arguments: &[String]) -> Self {
        let (port, peer) = (servers::closed(), servers::closed());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let clients = format!("{scheme}://127.0.0.1:{port}");
        let child = Command::new(program("etcd"))
            .arg("--data-dir")
            .arg(directory)
            .args(["--name", "a", "--log-level", "error"])
            .args([
                "--listen-client-urls",
                &clients,
                "--advertise-client-urls",
                &clients,
            ])
            .args([
                "--listen-peer-urls",
                &url(peer),
                "--initial-advertise-peer-urls",
                &url(peer),
            ])
            .arg(format!("--initial-cluster=a={}", url(peer)))
            .arg(format!("--quota-backend-bytes={quota}"))
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { port, child }
    }

    fn wait(&self, is_up: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_up() {
            assert!(
                began.elapsed() < UP_MAX,
                "etcd {} does not come up",
                self.port
            );
            std::thread::sleep(LOOK);
        }
    }

    /// What it says of itself.
    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.call("/v3/maintenance/status", "{}")).unwrap()
    }

    /// Writes until it takes no more; returns why.
    pub(crate) fn fill(&self) -> String {
        let value = STANDARD.encode(vec![7; 900_000]);
        for number in 0..100 {
            let key = STANDARD.encode(format!("key-{number}"));
            let answer = self.call(
                "/v3/kv/put",
                &json!({ "key": key, "value": value }).to_string(),
            );
            if answer.contains("\"code\"") {
                return answer;
            }
        }
        panic!("it takes everything");
    }

    /// Writes one key until it takes no more: what is full then is its history. Returns why.
    pub(crate) fn write_over(&self) -> String {
        for _ in 0..100 {
            let answer = self.put("same", 900_000);
            if answer.contains("\"code\"") {
                return answer;
            }
        }
        panic!("it takes everything");
    }

    /// Writes a key of so many bytes; returns what it says.
    pub(crate) fn put(&self, key: &str, bytes: usize) -> String {
        let (key, value) = (STANDARD.encode(key), STANDARD.encode(vec![7; bytes]));
        self.call(
            "/v3/kv/put",
            &json!({ "key": key, "value": value }).to_string(),
        )
    }

    /// It has not ended.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn call(&self, path: &str, body: &str) -> String {
        let mut answer = String::new();
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return answer;
        };
        let head = format!(
            "POST {path} HTTP/1.0\r\nHost: etcd\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let sent = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body.as_bytes()));
        if sent.is_ok() {
            drop(stream.read_to_string(&mut answer));
        }
        match answer.split_once("\r\n\r\n") {
            Some((_, body)) => body.to_owned(),
            None => answer,
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
