//! B6: whenever the cleaner is killed, or the filesystem shut down, every file that is gone has a record, everything else is
//! there, and the next run finishes the work.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use nagi_testkit::{Bar, measured};

use super::node::{Node, apply, paths, rounds, try_apply};
use crate::machine::{Mounted, Type, command, cover, inside, run, settle};

/// Names the node for [`die`], and after how many events it dies.
const ROOT: &str = "DIE_AT_NODE";
const AFTER: &str = "DIE_AFTER_EVENTS";

/// Paths that the ring and the log name as removed.
fn recorded(node: &Node) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
    let of = |path: &str| {
        let text = fs::read(node.root.join(path)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines = text.lines().filter_map(|line| {
            let path = line.split(" remove ").nth(1)?.split(' ').nth(1)?;
            Some(node.root.join(path.strip_prefix('/')?))
        });
        lines.collect()
    };
    (
        of("var/lib/nagi-guard/disk-audit.ring"),
        of("run/nagi/disk-audit.log"),
    )
}

fn node(disk: &Mounted) -> Node {
    let node = Node::at(&disk.point.join("node"));
    cover(&node.root.join("run"));
    assert!(apply(&node.plan()).has_ring);
    node
}

// B6, D-13: killed before and after every removal.
#[test]
fn a_cleaner_that_is_killed_leaves_a_record_of_every_file_that_is_gone() {
    inside("", || {
        let disk = Type::Ext4.mounted(120, &[]);
        let node = node(&disk);
        let mut kills = 0;
        // 18 kills each: before and after nine files.
        for round in 0..rounds(1, 28) {
            for after in 1.. {
                let planted: BTreeSet<PathBuf> = node.plant(5000).into_iter().collect();
                node.plant_decoys_once();
                let before = node.traces();
                let died = command(std::env::current_exe().unwrap().to_str().unwrap())
                    .args(["--exact", "clean::crash::die", "--nocapture"])
                    .env(ROOT, &node.root)
                    .env(AFTER, u32::to_string(&after))
                    .output()
                    .unwrap();
                let gone: BTreeSet<PathBuf> = before
                    .keys()
                    .filter(|path| fs::symlink_metadata(path).is_err())
                    .cloned()
                    .collect();
                let (ring, log) = recorded(&node);
                assert!(gone.is_subset(&ring), "round {round}, {after}");
                assert!(gone.is_subset(&log), "round {round}, {after}");
                assert!(gone.is_subset(&planted));
                let mut rest = before.clone();
                rest.retain(|path, _| !gone.contains(path));
                assert_eq!(node.traces(), rest);
                let report = apply(&node.plan());
                assert_eq!(
                    report.done.iter().map(|done| done.failures.1).sum::<u64>(),
                    0
                );
                let mut expected = before;
                expected.retain(|path, _| !planted.contains(path));
                assert_eq!(node.traces(), expected, "the next run finishes the work");
                if died.status.signal() != Some(9) {
                    assert!(died.status.success(), "{died:?}");
                    break; // It had fewer events.
                }
                kills += 1;
            }
        }
        assert!(
            kills >= 18,
            "{kills}: an intent and a removal of nine files"
        );
        let what = format!("files without a record after {kills} kills of a cleaner");
        measured("B6", &what, (0.0, "files"), Bar::AtMost(0.0));
    });
}

// The other half of the test above; alone it has nothing to do.
#[test]
fn die() {
    let (Some(root), Some(after)) = (std::env::var_os(ROOT), std::env::var(AFTER).ok()) else {
        return;
    };
    let node = Node { root: root.into() };
    let mut left: u32 = after.parse().unwrap();
    let report = try_apply(&node.plan(), &mut |event| {
        if let nagi_guard::Event::Ended(_) = event {
            return;
        }
        left -= 1;
        if left == 0 {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
        }
    });
    report.unwrap();
}

// B6, M10: the filesystem is shut down at once, its journal not written.
#[test]
fn a_filesystem_that_is_shut_down_has_a_record_of_every_file_that_is_gone() {
    inside("", || {
        let rounds = rounds(3, 100);
        for after in 0..rounds {
            let disk = Type::Ext4.mounted(120, &[]);
            let node = node(&disk);
            let planted: BTreeSet<PathBuf> = node.plant(5000).into_iter().collect();
            node.plant_decoys_once();
            settle(&disk.point);
            let before = node.traces();
            let mut removed = 0;
            let plan = node.plan();
            let report = try_apply(&plan, &mut |event| {
                if let nagi_guard::Event::Removed(..) = event {
                    if removed == after % 9 {
                        shut_down(&disk.point);
                    }
                    removed += 1;
                }
            });
            // From then on everything fails, and is said to.
            let done = report.unwrap().done;
            assert!(
                done.iter().any(|done| done.end != nagi_guard::End::Done),
                "{done:?}"
            );
            // The memory of /run outlives the filesystem; the ring lies on it.
            let log = recorded(&node).1;
            run("umount", [node.root.join("run").as_os_str()]);
            let image = disk.point.with_file_name("image");
            run("umount", [disk.point.as_os_str()]);
            run(
                "mount",
                [
                    "-o".as_ref(),
                    "loop".as_ref(),
                    image.as_os_str(),
                    disk.point.as_os_str(),
                ],
            );
            let gone: BTreeSet<PathBuf> = before
                .keys()
                .filter(|path| fs::symlink_metadata(path).is_err())
                .cloned()
                .collect();
            assert!(gone.is_subset(&recorded(&node).0), "in the ring");
            assert!(gone.is_subset(&log));
            cover(&node.root.join("run"));
            apply(&node.plan());
            assert!(paths(&node.plan()).is_empty());
            let mut expected = before;
            expected.retain(|path, _| !planted.contains(path));
            assert_eq!(node.traces(), expected);
        }
        let what = format!("files without a record after {rounds} shutdowns of a filesystem");
        measured("B6", &what, (0.0, "files"), Bar::AtMost(0.0));
    });
}

/// As the power goes: nothing is written any more, not even the journal.
fn shut_down(point: &Path) {
    run(
        "xfs_io",
        [
            "-x".as_ref(),
            "-c".as_ref(),
            "shutdown".as_ref(),
            point.as_os_str(),
        ],
    );
}

impl Node {
    /// Decoys, unless they are there.
    fn plant_decoys_once(&self) {
        if !self.root.join("srv/linked.deb").exists() {
            self.plant_decoys();
        }
    }
}
