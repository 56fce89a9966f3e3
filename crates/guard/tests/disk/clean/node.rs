//! A node to clean: its files, a digest of all of them, and short ways to plan and to apply.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nagi_guard::{ApplyError, Consent, Event, Plan, Policy, Report};
use nagi_ports::{Clock as _, SystemClock};

pub(super) const MACHINE: &str = "0123456789abcdef0123456789abcdef";
/// Set: as many trees, kills and shutdowns as the goals name, instead of those that CI has time for.
const SOAK: &str = "NAGI_TEST_SOAK";
const BOOT: &str = "fedcba9876543210fedcba9876543210";

/// Below this directory lies a node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) root: PathBuf,
}

/// What one path is: kind, inode, size, time of writing and content.
type Trace = (u8, u64, u64, i64, u64);

impl Node {
    /// Makes the directories that every node has.
    pub(super) fn at(root: &Path) -> Self {
        let node = Self {
            root: root.to_owned(),
        };
        for directory in ["run", "var/lib", "etc"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("etc/machine-id"), format!("{MACHINE}\n")).unwrap();
        node
    }

    /// Writes a file with the directories above it.
    pub(super) fn file(&self, path: impl AsRef<Path>, bytes: usize) -> PathBuf {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        crate::machine::fill(&path, bytes);
        path
    }

    /// A complete journal whose last entry was written so long ago.
    pub(super) fn journal(&self, sequence: u64, age: Duration, bytes: usize) -> PathBuf {
        let last =
            SystemClock::new().now().as_microsecond() - i64::try_from(age.as_micros()).unwrap();
        let name = format!("system@{:032x}-{sequence:016x}-{last:016x}.journal", 9);
        let path = self.file(format!("var/log/journal/{MACHINE}/{name}"), bytes);
        write_head(&path, u64::try_from(last).unwrap());
        path
    }

    /// One of every kind, so large: what may go.
    pub(super) fn plant(&self, bytes: usize) -> Vec<PathBuf> {
        // The log that took the place of the rotated ones.
        self.file("var/log/pods/default_app_0123/main/0.log", 3000);
        vec![
            self.file("var/cache/apt/archives/a_1.0-1_amd64.deb", bytes),
            self.file("var/cache/apt/archives/partial/b_2%3a1_all.deb", bytes),
            self.file("var/cache/apt/pkgcache.bin", bytes),
            self.file(
                "var/log/pods/default_app_0123/main/0.log.20260102-030405",
                bytes,
            ),
            self.file(
                "var/log/pods/default_app_0123/main/0.log.20260102-030406.gz",
                bytes,
            ),
            self.journal(1, Duration::from_hours(72), bytes),
            self.journal(2, Duration::from_hours(50), bytes),
            self.file(
                format!("var/lib/systemd/coredump/core.my.app.0.{BOOT}.12.1700000000000000.zst"),
                bytes,
            ),
            self.file("var/crash/_usr_bin_app.0.crash", bytes),
        ]
    }

    /// A decoy of every kind beside them: what stays.
    pub(super) fn plant_decoys(&self) {
        for path in [
            "var/cache/apt/archives/lock",
            "var/cache/apt/archives/mine.deb",
            "var/cache/apt/archives/keep_1_all.deb.orig",
            "var/cache/apt/archives/sub/a_1_all.deb",
            "var/log/pods/default_app_0123/main/0.log.old",
            // Renamed, and no new one opened: the container still writes into it.
            "var/log/pods/default_app_0123/main/1.log.20260102-030405",
            "var/log/pods/default_app_0123/main/2.log.20260102-030405",
            "var/log/pods/default_app_0123/main/deep/0.log.20260102-030405",
            "var/log/pods/notes/main/0.log.20260102-030405",
            "var/log/pods/0.log.20260102-030405",
            "var/log/journal/user-notes.txt",
            "var/lib/systemd/coredump/core",
            "var/lib/systemd/coredump/.#core.app.0.tmp",
            "var/crash/report.txt",
            "var/lib/containerd/io.containerd.content.v1.content/blobs/sha256/aa",
            "var/lib/containerd/io.containerd.content.v1.content/ingest/x/data",
            "var/lib/kubelet/pods/uid/volumes/a_1_amd64.deb",
            "var/lib/etcd/member/snap/db",
            "var/lib/docker/containers/x/x-json.log",
            "var/lib/snapd/cache/aa",
            "var/lib/snapd/snaps/core_1.snap",
            "home/me/a_1_amd64.deb",
        ] {
            self.file(path, 3000);
        }
        let journal = format!("var/log/journal/{MACHINE}");
        self.file(format!("{journal}/system.journal"), 9000);
        self.file(format!("{journal}/user-notes.txt"), 9000);
        self.file(format!("{journal}/system@broken.journal"), 9000);
        self.file(
            format!("{journal}/system@{:032x}-{:016x}-{:016x}.journal", 3, 1, 1),
            9000,
        );
        self.journal(3, Duration::from_hours(47), 9000);
        self.file(
            format!(
                "var/log/journal/{BOOT}/system@{:032x}-{:016x}-{:016x}.journal",
                3, 1, 1
            ),
            9000,
        );
        fs::create_dir_all(self.root.join("var/log/pods/default_app_0123/main/2.log")).unwrap();
        // A second name: removing one of them frees nothing.
        let first = self.file("var/cache/apt/archives/linked_1_all.deb", 5000);
        fs::create_dir_all(self.root.join("srv")).unwrap();
        fs::hard_link(first, self.root.join("srv/linked.deb")).unwrap();
        // A name that is known, of something that is no file.
        let archives = self.root.join("var/cache/apt/archives");
        std::os::unix::fs::symlink("/etc/passwd", archives.join("link_1_all.deb")).unwrap();
        fs::create_dir(archives.join("directory_1_all.deb")).unwrap();
        let odd = archives.join(OsStr::from_bytes(b"odd\xff_1_all.deb"));
        fs::write(odd, "x").unwrap();
        // Written an hour from now: whatever the grace is, it has not passed.
        let young = self.file("var/cache/apt/archives/young_1_all.deb", 5000);
        touch(&young, SystemTime::now() + Duration::from_hours(1));
    }

    /// Everything may go, and no grace: a test has no hour.
    pub(super) fn policy(&self) -> Policy {
        Policy {
            consent: Consent::Lossy,
            target_percent: 0,
            grace: Duration::ZERO,
            ..Policy::at(&self.root)
        }
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&self.policy())
    }

    /// Every path of the node with what it is, without our own records.
    pub(super) fn traces(&self) -> BTreeMap<PathBuf, Trace> {
        let mut traces = BTreeMap::new();
        let mut waiting = vec![self.root.clone()];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                if path.ends_with("run") || path.ends_with("var/lib/nagi-guard") {
                    continue;
                }
                let stat = fs::symlink_metadata(&path).unwrap();
                let kind = stat.file_type();
                let trace = if kind.is_dir() {
                    waiting.push(path.clone());
                    (0, stat.ino(), 0, 0, 0)
                } else if kind.is_symlink() {
                    let target = fs::read_link(&path).unwrap();
                    (1, stat.ino(), 0, 0, hash(target.as_os_str().as_bytes()))
                } else if kind.is_file() {
                    (
                        2,
                        stat.ino(),
                        stat.size(),
                        stat.mtime(),
                        hash(&fs::read(&path).unwrap()),
                    )
                } else {
                    (if kind.is_fifo() { 3 } else { 4 }, stat.ino(), 0, 0, 0)
                };
                traces.insert(path, trace);
            }
        }
        traces
    }
}

/// How many rounds: in CI, and where everything is run.
pub(super) fn rounds(few: u32, all: u32) -> u32 {
    if std::env::var_os(SOAK).is_some() {
        all
    } else {
        few
    }
}

/// Plans for now.
pub(super) fn plan(policy: &Policy) -> Plan {
    nagi_guard::plan(policy, &SystemClock::new()).unwrap()
}

pub(super) fn apply(plan: &Plan) -> Report {
    try_apply(plan, &mut |_| {}).unwrap()
}

pub(super) fn try_apply(
    plan: &Plan,
    tell: &mut dyn FnMut(&Event<'_>),
) -> Result<Report, ApplyError> {
    nagi_guard::apply(plan, &SystemClock::new(), tell)
}

/// Where the files of a plan are.
pub(super) fn paths(plan: &Plan) -> Vec<PathBuf> {
    let of_step = plan.steps.iter().flat_map(|step| {
        let above = plan
            .policy
            .root
            .join(step.directory.strip_prefix("/").unwrap());
        let items = step.items.iter();
        items.map(move |item| above.join(OsStr::from_bytes(&item.path)))
    });
    of_step.collect()
}

/// Sets when a file was written.
pub(super) fn touch(path: &Path, at: SystemTime) {
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(at)
        .unwrap();
}

/// Writes what journald writes first: signature, state archived, entries, and when the last was written.
pub(super) fn write_head(path: &Path, last: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0; 640], 0).unwrap();
    file.write_all_at(b"LPKSHHRH", 0).unwrap();
    file.write_all_at(&[2], 16).unwrap();
    file.write_all_at(&5_u64.to_le_bytes(), 152).unwrap();
    file.write_all_at(&300_u64.to_le_bytes(), 176).unwrap();
    for at in [184, 192] {
        file.write_all_at(&last.to_le_bytes(), at).unwrap();
    }
    // The array of entries, and behind it the entries.
    file.write_all_at(&[6], 300).unwrap();
    file.write_all_at(&64_u64.to_le_bytes(), 308).unwrap();
    for at in 0..5_u64 {
        let entry = 400 + at * 40;
        file.write_all_at(&entry.to_le_bytes(), 324 + at * 8)
            .unwrap();
        file.write_all_at(&[3], entry).unwrap();
        file.write_all_at(&last.to_le_bytes(), entry + 24).unwrap();
    }
}

/// FNV-1a: tells contents apart here, where nobody forges them.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
