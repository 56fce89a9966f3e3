//! Limits by the disks that journal and crash dumps really lie on.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nagi_guard::caps;

use crate::machine::{inside, run};

/// A filesystem of so many MiB, in memory.
fn mount(point: &Path, mebibytes: u64) {
    fs::create_dir_all(point).unwrap();
    let size = format!("size={mebibytes}M");
    let words = ["-t", "tmpfs", "-o", &size, "none"].map(str::as_ref);
    run("mount", words.into_iter().chain([point.as_os_str()]));
}

/// What the journal and crash dumps may take, in MiB.
fn limits(root: &Path) -> (u64, u64) {
    let limits = caps::for_node(root).unwrap();
    (limits.journal_max >> 20, limits.coredump_max >> 20)
}

// U21: a twentieth and a fiftieth of the disk that the files are on or will be on, and not of the node's root.
#[test]
fn limits_are_sized_by_the_disk_of_what_they_limit() {
    inside("", || {
        let node = tempfile::tempdir().unwrap();
        let root = node.path();
        mount(root, 20_000);
        assert_eq!(limits(root), (1000, 400));
        // Where a directory is not there, that above it counts.
        mount(&root.join("var/log"), 4000);
        mount(&root.join("var/lib/systemd"), 3000);
        assert_eq!(limits(root), (200, 60));
        fs::create_dir(root.join("var/log/journal")).unwrap();
        mount(&root.join("var/lib/systemd/coredump"), 5000);
        assert_eq!(limits(root), (200, 100));
        // A link leads as on the node.
        mount(&root.join("data"), 8000);
        fs::create_dir(root.join("data/journal")).unwrap();
        fs::remove_dir(root.join("var/log/journal")).unwrap();
        symlink("/data/journal", root.join("var/log/journal")).unwrap();
        assert_eq!(limits(root), (400, 100));
        // One that leads nowhere is none.
        fs::remove_dir(root.join("data/journal")).unwrap();
        assert_eq!(limits(root), (200, 100));
        let undo = ["--recursive".as_ref(), "--lazy".as_ref(), root.as_os_str()];
        run("umount", undo);
    });
}
