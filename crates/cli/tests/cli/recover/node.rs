//! A control plane in a directory: manifests, certificates, a kubeconfig, journals, a store and a container runtime, each of
//! which a test breaks in one way.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nagi_ports::{Clock as _, SystemClock};

use super::runtime::{self, State};
use super::servers::{self, Authority, GOOD, Pair, http};
use crate::run::{Call, Ran, call};

pub(crate) const MACHINE: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const SOCKET: &str = "run/containerd/containerd.sock";
pub(crate) const API_SERVER: &str = "etc/kubernetes/manifests/kube-apiserver.yaml";
pub(crate) const ETCD: &str = "etc/kubernetes/manifests/etcd.yaml";
/// Nobody listens there: it is no port of an API server that a test starts.
const UNUSED_PORT: u16 = 1;

/// The node, well until it is broken.
pub(crate) struct Node {
    pub(crate) root: PathBuf,
    pub(crate) authority: Authority,
    _directory: tempfile::TempDir,
}

// === impl Node ===

impl Node {
    /// All is well, and the API server is ready.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        Self::at(root, directory)
    }

    /// The same with this root, which lies in the directory.
    pub(crate) fn at(root: PathBuf, directory: tempfile::TempDir) -> Self {
        let node = Self {
            root,
            authority: Authority::new("kubernetes"),
            _directory: directory,
        };
        for path in [
            "var/lib/kubelet",
            "var/lib/etcd/member/snap",
            "var/log",
            "run/containerd",
            "tmp",
        ] {
            fs::create_dir_all(node.root.join(path)).unwrap();
        }
        // How full this machine's disk is must decide nothing: one threshold that is set switches the others off.
        node.write(
            "var/lib/kubelet/config.yaml",
            "evictionHard: { memory.available: 1Mi }\n",
        );
        // Ports and processes are those of this machine.
        std::os::unix::fs::symlink("/proc", node.root.join("proc")).unwrap();
        node.write_pki();
        node.write_manifests(UNUSED_PORT, Self::etcd_port(&[], true));
        node.run_containers(&[
            ("kube-apiserver", State::Running, 0),
            ("etcd", State::Running, 0),
        ]);
        let pair = node.pair(&["127.0.0.1", "ip-172-31-37-254"]);
        node.reached_at(servers::tls(&pair, servers::ready()));
        node
    }

    /// The same, and nobody listens where its API server should.
    pub(crate) fn refused() -> Self {
        let node = Self::new();
        node.reached_at(servers::closed());
        node
    }

    pub(crate) fn pair(&self, names: &[&str]) -> Pair {
        self.authority.pair("kube-apiserver", names, GOOD)
    }

    pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.root.join(path)).unwrap();
    }

    fn write_pki(&self) {
        let pki = "etc/kubernetes/pki";
        self.write(&format!("{pki}/ca.crt"), &self.authority.pem);
        for name in ["apiserver", "apiserver-kubelet-client"] {
            let pair = self.pair(&["kubernetes"]);
            self.write(&format!("{pki}/{name}.crt"), &pair.certificate);
            self.write(&format!("{pki}/{name}.key"), &pair.key);
        }
    }

    pub(crate) fn write_manifests(&self, port: u16, etcd: u16) {
        let flags = [
            format!("--secure-port={port}"),
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            "--tls-cert-file=/etc/kubernetes/pki/apiserver.crt".to_owned(),
            "--tls-private-key-file=/etc/kubernetes/pki/apiserver.key".to_owned(),
        ];
        self.write(API_SERVER, pod("kube-apiserver", &flags));
        let flags = [
            format!("--listen-client-urls=http://127.0.0.1:{etcd}"),
            "--data-dir=/var/lib/etcd".to_owned(),
        ];
        self.write(ETCD, pod("etcd", &flags));
    }

    /// The store is reached over TLS, as kubeadm has it.
    pub(crate) fn has_etcd_over_tls(&self, port: u16) {
        let flags = [
            format!("--listen-client-urls=https://127.0.0.1:{port}"),
            "--data-dir=/var/lib/etcd".to_owned(),
            "--cert-file=/etc/kubernetes/pki/etcd/server.crt".to_owned(),
            "--key-file=/etc/kubernetes/pki/etcd/server.key".to_owned(),
            "--trusted-ca-file=/etc/kubernetes/pki/ca.crt".to_owned(),
        ];
        self.write(ETCD, pod("etcd", &flags));
    }

    /// The certificate with which etcd answers, and with which it is asked.
    pub(crate) fn write_etcd_pair(&self, names: &[&str], years: servers::Years) {
        let pair = self.authority.pair("etcd", names, years);
        self.write("etc/kubernetes/pki/etcd/server.crt", pair.certificate);
        self.write("etc/kubernetes/pki/etcd/server.key", pair.key);
    }

    /// A store that plays a member: alarms that no test can bring about in seconds, and one without a leader, which says
    /// nothing of alarms: a member reads them through raft.
    pub(crate) fn etcd_port(alarms: &[&str], has_leader: bool) -> u16 {
        let leader = if has_leader { "12" } else { "0" };
        let status = serde_json::json!({
            "header": { "member_id": "12" }, "version": "3.5.21",
            "dbSize": "41943040", "dbSizeInUse": "20971520", "leader": leader
        });
        let alarms: Vec<_> = alarms
            .iter()
            .map(|alarm| serde_json::json!({ "memberID": "12", "alarm": alarm }))
            .collect();
        let alarms = serde_json::json!({ "alarms": alarms });
        servers::plain(move |head| {
            if head.contains("/v3/maintenance/status") {
                http("200 OK", &status.to_string())
            } else if head.contains("/v3/maintenance/alarm") {
                if has_leader {
                    return http("200 OK", &alarms.to_string());
                }
                loop {
                    std::thread::park();
                }
            } else {
                http(
                    "200 OK",
                    "etcd_server_quota_backend_bytes 2.147483648e+09\n",
                )
            }
        })
    }

    /// The runtime runs these.
    pub(crate) fn run_containers(&self, containers: &[(&str, State, u8)]) {
        let socket = self.root.join(SOCKET);
        drop(fs::remove_file(&socket));
        runtime::serve(&socket, containers);
    }

    /// The administrator's kubeconfig leads to this port.
    pub(crate) fn reached_at(&self, port: u16) {
        self.write_kubeconfig(
            &format!("https://127.0.0.1:{port}"),
            &self.authority.pem,
            "token: t",
        );
    }

    pub(crate) fn write_kubeconfig(&self, server: &str, authority: &str, user: &str) {
        let text = kubeconfig(server, authority, user);
        self.write("etc/kubernetes/admin.conf", text);
    }

    /// Lines of a real journal, so many seconds ago.
    pub(crate) fn log(&self, lines: &[(&str, u64, &str)]) {
        let now = u64::try_from(SystemClock::new().now().as_microsecond()).unwrap();
        let mut text = String::new();
        for (index, (program, ago, message)) in lines.iter().enumerate() {
            let at = now - ago * 1_000_000;
            writeln!(
                text,
                "__REALTIME_TIMESTAMP={at}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={MACHINE}\nSYSLOG_IDENTIFIER={program}\nMESSAGE={message}\n",
                index + 1
            )
            .unwrap();
        }
        let file = self
            .root
            .join("var/log/journal")
            .join(MACHINE)
            .join("system.journal");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        nagi_testkit::journal::write(&file, &text);
    }

    /// The log of a container of a static pod, as kubelet lays it down.
    pub(crate) fn container_log(&self, name: &str, message: &str) {
        let now = SystemClock::new().now();
        let line = format!("{now} stderr F {message}\n");
        self.write(
            &format!("var/log/pods/kube-system_{name}-a_0123/{name}/0.log"),
            line,
        );
    }

    /// Asks.
    pub(crate) fn diagnose(&self, arguments: &[&str]) -> Ran {
        diagnose(&self.root, arguments)
    }
}

/// The manifest of a static pod.
fn pod(name: &str, flags: &[String]) -> String {
    let command = [&[name.to_owned()], flags].concat();
    serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "kube-system" },
        "spec": {
            "containers": [{
                "name": name,
                "command": command,
                "volumeMounts": [
                    { "name": "pki", "mountPath": "/etc/kubernetes/pki" },
                    { "name": "data", "mountPath": "/var/lib/etcd" },
                ],
            }],
            "volumes": [
                { "name": "pki", "hostPath": { "path": "/etc/kubernetes/pki", "type": "DirectoryOrCreate" } },
                { "name": "data", "hostPath": { "path": "/var/lib/etcd", "type": "DirectoryOrCreate" } },
            ],
        },
    })
    .to_string()
}

/// What takes longer hangs. A machine that has much to do takes longer than a person would wait.
const PATIENCE: [&str; 2] = ["--timeout", "20s"];

pub(crate) fn diagnose(root: &Path, arguments: &[&str]) -> Ran {
    let words = ["recover", "diagnose", "--root", root.to_str().unwrap()];
    let patience: &[&str] = if arguments.contains(&PATIENCE[0]) {
        &[]
    } else {
        &PATIENCE
    };
    call(&[&words[..], patience, arguments].concat()).run()
}

/// A call that answers with JSON.
pub(crate) fn asked(arguments: &[&str]) -> Call {
    let words = ["recover", "diagnose", "--output", "json"];
    call(&[&words[..], &PATIENCE, arguments].concat())
}

/// Text of a kubeconfig with one context; `user` is a line of its user.
pub(crate) fn kubeconfig(server: &str, authority: &str, user: &str) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: admin\n\
         contexts: [{{ name: admin, context: {{ cluster: lab, user: admin }} }}]\n\
         users: [{{ name: admin, user: {{ {user} }} }}]\n\
         clusters:\n- name: lab\n  cluster:\n    server: {server}\n    certificate-authority-data: "
    );
    text.push_str(&STANDARD.encode(authority));
    text.push('\n');
    text
}
