//! `nagi recover run` and a real etcd above its quota on a disk with nothing left: B8.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use nagi_testkit::{Bar, measured};
use serde_json::Value;

use crate::loops::{self, Loops};
use crate::member::Member;
use crate::node::Node;
use crate::run::{Call, call};

/// Tests that are worth running often, run so often.
const SOAK: &str = "NAGI_TEST_SOAK";
const QUOTA: u64 = 16 << 20;
/// On ext4 the first twentieth that is freed is for root alone: of 400 MiB these are 20, and a tenth more is lived from.
const PACKAGES: usize = 48;

fn often(soak: u64, usual: u64) -> u64 {
    if std::env::var_os(SOAK).is_some() {
        soak
    } else {
        usual
    }
}

/// A node whose `/var` is full, with a store above its quota on it. What it holds goes in this order.
struct Full {
    member: Member,
    _var: loops::Mounted,
    node: Node,
}

impl Full {
    /// `packages` megabytes of it may go.
    fn new(packages: usize) -> Self {
        let node = Node::refused();
        let var = node.root.join("var");
        let mounted = loops::mount_over(&var, &var.with_extension("image"), "ext4", 400, &[]);
        let member = Member::start(&var.join("lib/etcd"), QUOTA);
        node.write_manifests(1, member.port);
        loops::packages(&var, packages);
        let said = member.write_over();
        assert!(said.contains("database space exceeded"), "{said}");
        loops::fill(&var);
        Self {
            member,
            _var: mounted,
            node,
        }
    }

    fn recover(&self, arguments: &[&str]) -> Call {
        let root = self.node.root.to_str().unwrap();
        let words = [
            "recover",
            "run",
            "--root",
            root,
            "--apply",
            "--min-age",
            "0",
            "--target",
            "0",
            "--timeout",
            "20s",
            "--within",
            "0",
            "--output",
            "json",
        ];
        call(&[&words, arguments].concat())
    }

    /// It takes writes, nothing was lost, and it never ended.
    fn is_mended(&mut self, answer: &Value) {
        assert!(self.member.runs(), "etcd ended: {answer:#}");
        let etcd = answer["after"]["etcd"].as_str().unwrap();
        assert_eq!(etcd, "up, no alarm", "{answer:#}");
        let said = self.member.put("after", 900_000);
        assert!(said.contains("revision"), "{said}");
        let status = self.member.status();
        let size: u64 = status["dbSize"].as_str().unwrap().parse().unwrap();
        assert!(size < QUOTA / 2, "{size}");
    }
}

fn with_a_disk(test: impl FnOnce()) {
    loops::inside(|loops| {
        if loops == Loops::Allowed {
            test();
        }
    });
}

fn steps(answer: &Value) -> Vec<&str> {
    let done = answer["done"].as_array().unwrap();
    done.iter().filter_map(|one| one["step"].as_str()).collect()
}

// B8, D-12, D-14, W-B15, M6
#[test]
fn a_real_etcd_above_its_quota_on_a_full_disk_is_mended_without_a_crash() {
    with_a_disk(|| {
        let rounds = often(100, 2);
        for _ in 0..rounds {
            let mut full = Full::new(PACKAGES);
            // There is no kubelet to restart, and no API server: that is said, and is not in the way.
            let ran = full.recover(&[]).run().exits(16);
            let answer = ran.json();
            let expected = ["free", "snapshot", "compact", "defrag", "disarm"];
            assert_eq!(steps(&answer), expected, "{answer:#}\n{}", ran.stderr);
            let free = &answer["done"][0];
            let (expected, measured) = (&free["expected_bytes"], &free["measured_bytes"]);
            let missed = expected.as_i64().unwrap() - measured.as_i64().unwrap();
            assert!(missed.abs() <= 1 << 20, "{free:#}");
            full.is_mended(&answer);
            let copies = fs::read_dir(full.node.root.join("run/nagi")).unwrap();
            let copies: Vec<_> = copies
                .map(|entry| entry.unwrap())
                .filter(|entry| {
                    entry
                        .file_name()
                        .to_string_lossy()
                        .starts_with("etcd-snapshot-")
                })
                .collect();
            assert_eq!(copies.len(), 1, "{copies:?}");
            let copy = copies[0].metadata().unwrap().len();
            // Full is a store into which the next write of a megabyte does not fit. Behind whole pages its checksum follows.
            assert!(copy > QUOTA - (1 << 20) && copy % 512 == 32, "{copy}");
        }
        let what = format!("of {rounds} stores of etcd are mended from 0 bytes without a crash");
        measured("B8", &what, (100.0, "%"), Bar::AtLeast(100.0));
    });
}

// B8: where nothing gives room for the second file, it is not begun, and etcd runs on.
#[test]
fn a_real_etcd_without_room_beside_it_is_not_defragmented() {
    with_a_disk(|| {
        let mut full = Full::new(0);
        let ran = full.recover(&[]).run();
        let answer = ran.json();
        assert_eq!(ran.code, 5, "{answer:#}");
        assert!(full.member.runs());
        assert!(full.member.put("a", 10).contains("database space exceeded"));
    });
}

// B6, B8: killed at any moment between the first look and the last step, and started again.
#[test]
fn a_recovery_of_a_real_etcd_that_is_killed_ends_the_same() {
    with_a_disk(|| {
        let mut full = Full::new(PACKAGES);
        for round in 0..often(60, 6) {
            let mut command = full.recover(&["--quiet"]).command();
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            std::thread::sleep(Duration::from_millis(30 + 173 * round % 900));
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(full.member.runs());
        }
        let ran = full.recover(&[]).run();
        let mut answer = ran.json();
        // A round that came to its end before it was killed has left nothing but the kubelet that is not here.
        match ran.code {
            5 => answer["after"] = answer["before"].clone(),
            code => assert_eq!(code, 16, "{answer:#}"),
        }
        full.is_mended(&answer);
    });
}

// D-26: a rehearsal writes nothing into the store.
#[test]
fn a_drill_leaves_the_revision_of_a_real_etcd_as_it_is() {
    with_a_disk(|| {
        let full = Full::new(4);
        let revision = || full.member.status()["header"]["revision"].clone();
        let before = revision();
        let root = full.node.root.to_str().unwrap();
        let words = [
            "recover",
            "drill",
            "--root",
            root,
            "--min-age",
            "0",
            "--timeout",
            "20s",
            "--output",
            "json",
        ];
        let answer = call(&words).run().exits(0).json();
        let message = answer["message"].as_str().unwrap();
        assert!(
            message.contains("free, snapshot, compact, defrag, disarm"),
            "{message}"
        );
        assert_eq!(revision(), before);
        assert!(!full.node.root.join("run/nagi").exists());
    });
}
