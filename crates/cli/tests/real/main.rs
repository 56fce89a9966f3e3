//! What `nagi recover diagnose` says of a real etcd, and that it classifies as a real kubectl does.
//!
//! `NAGI_TEST_PROGRAMS` names a directory for each, parted by colons, `NAGI_TEST_KUBECONFIG` an API server. The tests of what is delivered (`e2e/tests/delivery`) have
//! them and run this.

#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "these tests start programs, wait for them, and fail by panicking"
)]
#![expect(
    dead_code,
    reason = "what the tests beside this one need of the modules that both have"
)]

mod containers;
#[path = "../cli/recover/loops.rs"]
mod loops;
mod member;
#[path = "../cli/recover/node.rs"]
mod node;
mod recovery;
#[path = "../cli/run.rs"]
mod run;
#[path = "../cli/recover/runtime.rs"]
mod runtime;
#[path = "../cli/recover/servers.rs"]
mod servers;

use std::path::PathBuf;
use std::process::Command;

use containers::Containerd;
use loops::Loops;
use member::Member;
use nagi_testkit::{Bar, measured};
use node::{Node, SOCKET, kubeconfig};
use serde_json::Value;
use servers::{Authority, ENDED, GOOD, status};

/// A program of those directories.
fn program(name: &str) -> PathBuf {
    let directories = std::env::var_os("NAGI_TEST_PROGRAMS")
        .expect("NAGI_TEST_PROGRAMS names directories with etcd and kubectl");
    std::env::split_paths(&directories)
        .map(|directory| directory.join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("there is no {name} in NAGI_TEST_PROGRAMS"))
}

fn cause(answer: &Value) -> &str {
    answer["cause"]["id"].as_str().unwrap_or_default()
}

/// What kubectl says of the API server of a node.
fn kubectl(node: &Node) -> String {
    let output = Command::new(program("kubectl"))
        .env_clear()
        // It keeps what it learned of servers there.
        .env("HOME", &node.root)
        .arg("--kubeconfig")
        .arg(node.root.join("etc/kubernetes/admin.conf"))
        .args(["--request-timeout=5s", "get", "--raw", "/readyz?verbose"])
        .output()
        .unwrap();
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Makes the API server of a node wrong in one way.
type Make<'a> = &'a dyn Fn(&Node);

// B12, B-019, B-020, D-19, K-40: the six classes of M9, by a real kubectl and by us.
#[test]
fn six_classes_are_those_of_kubectl() {
    let presenting = |authority: &Authority, node: &Node, names: &[&str], years| {
        node.reached_at(servers::tls(
            &authority.pair("kube-apiserver", names, years),
            servers::ready(),
        ));
    };
    let cases: [(&str, &str, &str, Make<'_>); 6] = [
        (
            "DNS name",
            "tls-name",
            "certificate is valid for ip-172-31-37-254, kubernetes, not localhost",
            &|node| {
                let pair = node.pair(&["ip-172-31-37-254", "kubernetes"]);
                let port = servers::tls(&pair, servers::ready());
                node.write_kubeconfig(
                    &format!("https://localhost:{port}"),
                    &node.authority.pem,
                    "token: t",
                );
            },
        ),
        (
            "address",
            "tls-name",
            "certificate is valid for 10.0.0.1, not 127.0.0.1",
            &|node| {
                presenting(&node.authority, node, &["10.0.0.1", "kubernetes"], GOOD);
            },
        ),
        (
            "ended",
            "certificate-expired",
            "certificate has expired or is not yet valid",
            &|node| {
                presenting(&node.authority, node, &["127.0.0.1"], ENDED);
            },
        ),
        (
            "authority",
            "tls-unknown-authority",
            "certificate signed by unknown authority",
            &|node| {
                presenting(&Authority::new("other"), node, &["127.0.0.1"], GOOD);
            },
        ),
        ("refused", "refused", "was refused", &|node| {
            node.reached_at(servers::closed());
        }),
        ("401", "unauthorized", "must be logged in", &|node| {
            let answer = status(401, "Unauthorized", "Unauthorized");
            node.reached_at(servers::tls(&node.pair(&["127.0.0.1"]), answer));
        }),
    ];
    let mut agree = 0;
    for (name, id, words, make) in cases {
        let node = Node::new();
        make(&node);
        let said = kubectl(&node);
        assert!(said.contains(words), "{name}: kubectl says {said}");
        let answer = node.diagnose(&["--output", "json"]).exits(13).json();
        assert_eq!(cause(&answer), id, "{name}: {answer:#}");
        agree += 1;
    }
    let what = "of 6 classes of TLS failures agree with kubectl";
    measured("B12", what, (f64::from(agree), "times"), Bar::AtLeast(6.0));
}

// B12, K-40: the command that is advised is one edit, and kubectl then reaches the server and verifies it.
#[test]
fn what_is_advised_for_a_wrong_name_makes_kubectl_work() {
    let node = Node::new();
    let pair = node.pair(&["ip-172-31-37-254", "kubernetes"]);
    node.reached_at(servers::tls(&pair, servers::ready()));
    let answer = node.diagnose(&["--output", "json"]).exits(13).json();
    let next = answer["cause"]["next"].as_str().unwrap();
    let file = node.root.join("etc/kubernetes/admin.conf");
    let mut words = next.split(' ');
    assert_eq!(words.next(), Some("nagi"));
    let before = std::fs::read_to_string(&file).unwrap();
    let words: Vec<&str> = words.collect();
    run::call(&[&words[..], &["--apply"]].concat())
        .run()
        .exits(0);
    assert!(kubectl(&node).contains("readyz check passed"));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("tls-server-name: ip-172-31-37-254"), "{text}");
    assert!(!text.contains("insecure-skip-tls-verify: true"), "{text}");
    node.diagnose(&[]).exits(0);
    let view = Command::new(program("kubectl"))
        .env_clear()
        .arg("--kubeconfig")
        .arg(&file)
        .args([
            "config",
            "view",
            "--output",
            "jsonpath={.clusters[*].cluster.tls-server-name}",
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&view.stdout), "ip-172-31-37-254");
    let file = file.to_str().unwrap();
    let undo = ["recover", "kubeconfig", "--kubeconfig", file, "--undo"];
    run::call(&undo).run().exits(0);
    assert_eq!(std::fs::read_to_string(file).unwrap(), before);
}

// U9, B-020, K-40: an API server that is reached elsewhere from now on, by an address that its certificate does not have: one edit
// of both, kubectl calls there, the diagnosis is well, and --undo brings back every byte. One of a foreign authority is refused.
#[test]
fn an_api_server_elsewhere_is_where_kubectl_calls() {
    let node = Node::refused();
    let file = node.root.join("etc/kubernetes/admin.conf");
    let before = std::fs::read(&file).unwrap();
    assert!(kubectl(&node).contains("refused"));
    let path = file.to_str().unwrap();
    let edit = |server: &str| {
        let words = ["recover", "kubeconfig", "--kubeconfig", path];
        run::call(&[&words[..], &["--api-server", server, "--apply"]].concat()).run()
    };
    let names = ["ip-172-31-37-254", "kubernetes"];
    let foreign = Authority::new("kubernetes").pair("kube-apiserver", &names, GOOD);
    let foreign = servers::tls(&foreign, servers::ready());
    let refused = edit(&format!("https://127.0.0.1:{foreign}"));
    assert_ne!(refused.code, 0, "{refused:#?}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert!(kubectl(&node).contains("refused"), "it still calls there");
    let port = servers::tls(&node.pair(&names), servers::ready());
    let server = format!("https://127.0.0.1:{port}");
    edit(&server).exits(0);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(&server), "{text}");
    assert!(!text.contains("insecure-skip-tls-verify: true"), "{text}");
    let said = kubectl(&node);
    assert!(said.contains("readyz check passed"), "{said}");
    node.diagnose(&[]).exits(0);
    let undo = ["recover", "kubeconfig", "--kubeconfig", path, "--undo"];
    run::call(&undo).run().exits(0);
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

// D-01: what a real API server says of itself, and of credentials that it does not know.
#[test]
fn a_real_api_server_is_ready_or_says_401() {
    let path =
        std::env::var("NAGI_TEST_KUBECONFIG").expect("NAGI_TEST_KUBECONFIG names an API server");
    let ask = |path: &str| node::asked(&["--kubeconfig", path]).run().json();
    let answer = ask(&path);
    assert_eq!(
        answer["facts"]["api_server"]["reach"], "ready",
        "{answer:#}"
    );
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("config");
    let edited = Command::new(program("kubectl"))
        .env_clear()
        .args([
            "--kubeconfig",
            &path,
            "config",
            "view",
            "--raw",
            "--flatten",
            "--output",
            "json",
        ])
        .output()
        .unwrap();
    let mut config: Value = serde_json::from_slice(&edited.stdout).unwrap();
    for user in config["users"].as_array_mut().unwrap() {
        user["user"] = serde_json::json!({ "token": "nobody" });
    }
    std::fs::write(&copy, config.to_string()).unwrap();
    let copy = copy.display().to_string();
    let answer = ask(&copy);
    assert_eq!(cause(&answer), "unauthorized", "{answer:#}");
}

/// The node's etcd is this one.
fn node_with(member: &Member) -> Node {
    let node = Node::refused();
    node.write_manifests(1, member.port);
    node
}

// D-09, W-B15
#[test]
fn a_real_etcd_tells_its_version_sizes_quota_and_leader() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::start(directory.path(), 64 << 20);
    let node = node_with(&member);
    let answer = node.diagnose(&["--output", "json"]).json();
    let etcd = &answer["facts"]["etcd"];
    let status = member.status();
    assert_eq!(etcd["version"], status["version"]);
    assert_eq!(etcd["quota"], 64 << 20);
    // Nobody writes, so what it tells twice is the same.
    for (ours, its) in [("db_size", "dbSize"), ("db_size_in_use", "dbSizeInUse")] {
        let ours = etcd[ours].as_u64().unwrap();
        assert!(ours > 0);
        assert_eq!(status[its], ours.to_string(), "{etcd:#}");
    }
    assert_eq!(etcd["has_leader"], true);
    assert_eq!(etcd["is_leader"], true);
    assert_eq!(etcd["alarms"], serde_json::json!([]));
    assert_eq!(etcd["defrag_safe"], true, "{etcd:#}");
    assert_eq!(cause(&answer), "refused", "{answer:#}");
    drop(member);
    let answer = node.diagnose(&["--output", "json"]).exits(13).json();
    assert_eq!(cause(&answer), "etcd-down", "{answer:#}");
}

// D-09: as kubeadm has it, for clients with a certificate only.
#[test]
fn a_real_etcd_is_asked_over_tls_with_a_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::refused();
    node.write_etcd_pair(&["127.0.0.1", "localhost"], GOOD);
    let member = Member::start_with_tls(directory.path(), &node);
    node.has_etcd_over_tls(member.port);
    let ask = || node.diagnose(&["--output", "json"]).json();
    let answer = ask();
    assert_eq!(answer["facts"]["etcd"]["has_leader"], true, "{answer:#}");
    // The key of somebody else opens nothing, and what failed is said.
    let other = Authority::new("other").pair("etcd", &["127.0.0.1"], GOOD);
    node.write("etc/kubernetes/pki/etcd/server.crt", other.certificate);
    node.write("etc/kubernetes/pki/etcd/server.key", other.key);
    let answer = ask();
    assert_eq!(answer["facts"]["etcd"]["answers"], false, "{answer:#}");
}

// D-09, M6
#[test]
fn a_real_etcd_above_its_quota_is_the_cause() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::start(directory.path(), 16 << 20);
    let said = member.fill();
    assert!(said.contains("database space exceeded"), "{said}");
    let answer = node_with(&member)
        .diagnose(&["--output", "json"])
        .exits(13)
        .json();
    assert_eq!(cause(&answer), "etcd-quota", "{answer:#}");
    assert_eq!(
        answer["facts"]["etcd"]["alarms"],
        serde_json::json!(["NOSPACE"])
    );
    // Where to depends on the room that this machine has.
    let next = answer["cause"]["next"].as_str().unwrap();
    assert!(next.contains("snapshot save "), "{next}");
}

// D-09, W-B15, M6: where its disk is full that comes first, and a defragmentation, which would fail, is refused.
#[test]
fn a_real_etcd_on_a_full_disk_must_not_be_defragmented() {
    loops::inside(|loops| {
        if loops == Loops::Forbidden {
            return;
        }
        let node = Node::refused();
        let disk = node.root.join("var/lib/etcd");
        let mounted = loops::mount(&disk, "ext4", 400, &[]);
        let member = Member::start(&disk, 16 << 20);
        node.write_manifests(1, member.port);
        member.fill();
        loops::fill(&disk);
        let answer = node.diagnose(&["--output", "json"]).exits(13).json();
        drop(member);
        drop(mounted);
        assert_eq!(cause(&answer), "disk-full", "{answer:#}");
        let etcd = &answer["facts"]["etcd"];
        assert_eq!(etcd["defrag_safe"], false, "{etcd:#}");
        let others = answer["also"].as_array().unwrap();
        assert!(
            others.iter().any(|one| one["id"] == "etcd-quota"),
            "{answer:#}"
        );
    });
}

// D-02, W-B10: a real container runtime that runs nothing, stands still, and is gone.
#[test]
fn a_real_container_runtime_tells_that_no_static_pod_runs() {
    let node = Node::refused();
    node.remove(SOCKET);
    let directory = tempfile::tempdir().unwrap();
    let socket = node.root.join(SOCKET);
    let Some(containerd) = Containerd::start(directory.path(), &socket) else {
        return;
    };
    let ask = || node.diagnose(&["--output", "json"]).exits(13).json();
    let mut answer = ask();
    for _ in 0..40 {
        // Its socket is there before the part of it that serves the CRI.
        if cause(&answer) == "static-pod-down" {
            break;
        }
        answer = ask();
    }
    assert_eq!(cause(&answer), "static-pod-down", "{answer:#}");
    assert_eq!(answer["facts"]["containers"], serde_json::json!([]));
    containerd.stop();
    let words = ["--output", "json", "--timeout", "3s"];
    let answer = node.diagnose(&words).exits(13).json();
    assert_eq!(cause(&answer), "runtime-silent", "{answer:#}");
    drop(containerd);
    assert_eq!(cause(&ask()), "runtime-down");
}

// B-019: several files are one kubeconfig, as for kubectl.
#[test]
fn a_kubeconfig_in_two_files_is_read_as_kubectl_reads_it() {
    let node = Node::new();
    let port = servers::tls(&node.pair(&["127.0.0.1"]), servers::ready());
    let whole = kubeconfig(
        &format!("https://127.0.0.1:{port}"),
        &node.authority.pem,
        "token: t",
    );
    let (contexts, clusters) = whole.split_once("clusters:").unwrap();
    let first = format!("{contexts}clusters: []\n");
    let second = format!("apiVersion: v1\nkind: Config\nclusters:{clusters}");
    node.write("one.conf", first);
    node.write("two.conf", second);
    let files = format!(
        "{}:{}",
        node.root.join("one.conf").display(),
        node.root.join("two.conf").display()
    );
    let output = Command::new(program("kubectl"))
        .env_clear()
        .env("HOME", &node.root)
        .env("KUBECONFIG", &files)
        .args(["get", "--raw", "/readyz?verbose"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    node.diagnose(&["--kubeconfig", &files]).exits(0);
}
