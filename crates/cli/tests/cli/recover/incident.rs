//! The incident of the founding document on a node of its own: `/` of a process, with `/var` on a real filesystem that is
//! full, a `systemctl` that really fails where kubelet would, and an API server that listens once kubelet runs.
//!
//! It lives on disks and in mounts of the test's own, and the command runs in it by `chroot`. Programs are this machine's, only to
//! be read; nothing of the node lies on this machine's disk, so how full that is decides nothing.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::loops::{self, Mounted};
use super::node::{Node, SOCKET};
use super::runtime::{self, State};
use super::servers::{self, http};
use crate::run::{Call, Ran, call, program};

/// What the runtime runs.
const RUNNING: [(&str, State, u8); 2] = [
    ("kube-apiserver", State::Running, 0),
    ("etcd", State::Running, 0),
];
/// Between two looks for a kubelet that was started.
const LOOK: Duration = Duration::from_millis(20);

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Packages of apt take all of it, which may go.
    Packages,
    /// Packages take some of it, and a file that nobody may remove the most: the 93 % of the founding document.
    PackagesAndOther,
    /// A file that nobody may remove takes all of it.
    Other,
    /// No inodes are left; packages have most of them.
    Inodes,
}

/// The node. What it holds goes in this order.
pub(crate) struct Incident {
    pub(crate) writes: Arc<AtomicUsize>,
    /// The nodes that the API server lists are those of another cluster.
    pub(crate) is_another: Arc<AtomicBool>,
    /// `/var`, and the node's own disk with everything else that is mounted in it.
    _disks: [Mounted; 2],
    pub(crate) node: Node,
}

/// A `systemctl` that does what systemd would do for the units of a node: kubelet starts only where it can write.
const SYSTEMCTL: &str = r#"#!/bin/sh
[ "$1" = --no-ask-password ] && shift
echo "$*" >> /run/systemctl.calls
unit() {
    printf 'Id=%s\nLoadState=%s\nActiveState=%s\nSubState=%s\nNRestarts=0\nResult=success\n\n' "$@"
}
case "$1" in
show)
    if [ -e /run/kubelet.up ]; then unit kubelet.service loaded active running
    else unit kubelet.service loaded failed failed; fi
    unit containerd.service loaded active running
    unit kube-apiserver.service not-found inactive dead
    ;;
restart)
    [ "$2" = kubelet.service ] || exit 5
    mkdir -p /var/lib/kubelet/pods/"$$" && echo checkpoint > /var/lib/kubelet/pods/"$$"/etc-hosts || exit 1
    touch /run/kubelet.up
    ;;
start)
    [ "$2" = containerd.service ] || exit 5
    touch /run/containerd.start
    ;;
*) exit 4 ;;
esac
"#;

// === impl Incident ===

impl Incident {
    pub(crate) fn new(full: Full) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap().join("node");
        let disk = loops::mount(&root, "ext4", 64, &[]);
        let node = Node::at(root, directory);
        let root = &node.root;
        for directory in ["usr", "proc", "dev", "fake"] {
            drop(fs::remove_file(root.join(directory)));
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link)).unwrap();
        }
        node.write("fake/systemctl", SYSTEMCTL);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(root.join("fake/systemctl"), mode).unwrap();
        for directory in ["usr", "proc", "dev"] {
            bind(&Path::new("/").join(directory), &root.join(directory));
        }
        let program = program();
        let nagi = root.join(program.strip_prefix("/").unwrap());
        fs::create_dir_all(nagi.parent().unwrap()).unwrap();
        fs::write(&nagi, "").unwrap();
        bind(&program, &nagi);
        let var = on_a_disk(root, full);
        in_memory(root);
        node.run_containers(&RUNNING);
        let writes = Arc::new(AtomicUsize::new(0));
        let port = servers::closed();
        node.reached_at(port);
        node.write_manifests(port, Node::etcd_port(&[], true));
        let is_another = Arc::new(AtomicBool::new(false));
        api_server(&node, port, (&writes, &is_another));
        fill(&node.root, full);
        Self {
            writes,
            is_another,
            _disks: [var, disk],
            node,
        }
    }

    /// Its API server is up, and kubelet runs.
    pub(crate) fn start(&self) {
        fs::write(self.node.root.join("run/kubelet.up"), "").unwrap();
    }

    /// Its container runtime is down, and comes up when it is started.
    pub(crate) fn without_runtime(&self) {
        let socket = self.path(SOCKET);
        fs::remove_file(&socket).unwrap();
        let start = self.path("run/containerd.start");
        std::thread::spawn(move || {
            while !start.exists() {
                std::thread::sleep(LOOK);
            }
            runtime::serve(&socket, &RUNNING);
        });
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.node.root.join(path)
    }

    /// What systemctl was told to do, but for looks.
    pub(crate) fn told(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("run/systemctl.calls")).unwrap_or_default();
        let calls = calls.lines().filter(|line| !line.starts_with("show "));
        calls.map(str::to_owned).collect()
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Call {
        let root = self.node.root.to_str().unwrap();
        call(arguments)
            .env("PATH", "/fake:/usr/bin:/usr/sbin")
            .through("/usr/sbin/chroot", &[root])
    }

    /// A run with the patience of a test.
    pub(crate) fn recover(&self, arguments: &[&str]) -> Call {
        let words = ["recover", "run", "--min-age", "0", "--timeout", "20s"];
        let proof = ["--stable", "0", "--within", "30s", "--nodes", "3"];
        self.call(&[&words[..], &proof, arguments].concat())
    }

    pub(crate) fn apply(&self, arguments: &[&str]) -> Ran {
        let words = [&["--apply", "--output", "json"], arguments].concat();
        self.recover(&words).run()
    }

    /// Everything that is in files, and how full the disk is.
    pub(crate) fn digest(&self) -> String {
        let mut text = String::new();
        listed(&self.path("var"), &mut text);
        listed(&self.path("run"), &mut text);
        listed(&self.path("etc"), &mut text);
        text
    }
}

fn listed(directory: &Path, text: &mut String) {
    use std::os::unix::fs::MetadataExt as _;
    let mut entries: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        // What a look at systemd writes is the double's own.
        if path.ends_with("systemctl.calls") {
            continue;
        }
        let stat = fs::symlink_metadata(&path).unwrap();
        writeln!(
            text,
            "{} {} {} {}.{} {}",
            path.display(),
            stat.ino(),
            stat.len(),
            stat.mtime(),
            stat.mtime_nsec(),
            stat.blocks()
        )
        .unwrap();
        if stat.is_dir() {
            listed(&path, text);
        }
    }
}

/// Shows something of this machine, in which nothing can be made or removed from there: the test's own directory is removed at its
/// end, and that goes through mounts.
fn bind(from: &Path, to: &Path) {
    mount(&["--bind", from.to_str().unwrap()], to);
    mount(&["-o", "remount,bind,ro"], to);
}

fn mount(words: &[&str], point: &Path) {
    let output = Command::new("mount").args(words).arg(point).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// `/var` on an ext4 of its own, with what a node has there.
fn on_a_disk(root: &Path, full: Full) -> Mounted {
    let inodes: &[&str] = match full {
        Full::Inodes => &["-N", "1024"],
        Full::Packages | Full::PackagesAndOther | Full::Other => &[],
    };
    let var = root.join("var");
    // Beside the node's own disk, on which there is no room for it.
    let image = root.with_file_name("var.image");
    let mounted = loops::mount_over(&var, &image, "ext4", 96, inodes);
    fs::create_dir_all(var.join("cache/apt/archives")).unwrap();
    mounted
}

fn in_memory(root: &Path) {
    let run = root.join("run");
    mount(&["-t", "tmpfs", "none"], &run);
    fs::create_dir_all(run.join("containerd")).unwrap();
}

/// An API server with three nodes, which listens once kubelet was started.
fn api_server(node: &Node, port: u16, (writes, is_another): (&Arc<AtomicUsize>, &Arc<AtomicBool>)) {
    // So is the process called that has the port.
    fs::write("/proc/self/comm", "kube-apiserver").unwrap();
    let pair = node.pair(&["127.0.0.1"]);
    let up = node.root.join("run/kubelet.up");
    let (writes, is_another) = (Arc::clone(writes), Arc::clone(is_another));
    std::thread::spawn(move || {
        while !up.exists() {
            std::thread::sleep(LOOK);
        }
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        servers::tls_on(listener, &pair, move |head| {
            answer(head, &writes, is_another.load(Ordering::SeqCst))
        });
    });
}

fn answer(head: &str, writes: &AtomicUsize, is_another: bool) -> String {
    let words: Vec<&str> = head.split(' ').take(2).collect();
    match words[..] {
        ["GET", path] if path.starts_with("/api/v1/nodes") => http("200 OK", &nodes(is_another)),
        ["GET", path] if path.starts_with("/livez") => {
            http("200 OK", "[+]ping ok\nlivez check passed\n")
        }
        ["GET", path] if path.contains("/kube-node-lease/leases") => leases(),
        ["GET", _] => servers::ready(),
        ["POST", path] if path.ends_with("/leases") => {
            writes.fetch_add(1, Ordering::SeqCst);
            http("201 Created", "{}")
        }
        ["DELETE", path] if path.ends_with("/leases/nagi-recover-check") => http("200 OK", "{}"),
        _ => http("405 Method Not Allowed", "{}"),
    }
}

/// As kubelet calls its node.
fn own_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    name.trim().to_lowercase()
}

fn names() -> [String; 3] {
    [own_name(), "projecta".to_owned(), "projectb".to_owned()]
}

/// Every kubelet renewed its lease just now, by the clock of the API server.
fn leases() -> String {
    let now = jiff::Timestamp::now();
    let lease = |name: String| {
        serde_json::json!({
            "metadata": { "name": name, "namespace": "kube-node-lease" },
            "spec": { "renewTime": now.to_string() }
        })
    };
    let items = names().map(lease);
    let body = serde_json::json!({ "metadata": {}, "items": items }).to_string();
    let date = now.strftime("Date: %a, %d %b %Y %H:%M:%S GMT");
    http(&format!("200 OK\r\n{date}"), &body)
}

fn nodes(is_another: bool) -> String {
    let node = |name: String| {
        serde_json::json!({ "metadata": { "name": name }, "status": { "conditions": [
            { "type": "DiskPressure", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z" },
            { "type": "Ready", "status": "True", "reason": "KubeletReady" },
        ] } })
    };
    let mut names = names();
    if is_another {
        names[0].push_str("-of-another-cluster");
    }
    let items = names.map(node);
    serde_json::json!({ "metadata": {}, "items": items }).to_string()
}

fn fill(root: &Path, full: Full) {
    let var = root.join("var");
    match full {
        Full::Packages => {
            loops::packages(&var, 200);
            loops::fill(&var);
        }
        Full::PackagesAndOther => {
            loops::packages(&var, 12);
            loops::fill(&var);
        }
        Full::Other => loops::fill(&var),
        Full::Inodes => {
            let archives = var.join("cache/apt/archives");
            let taken = (0..).take_while(|number| {
                fs::File::create(archives.join(format!("p{number}_1.0_amd64.deb"))).is_ok()
            });
            assert!(taken.count() > 0);
        }
    }
}
