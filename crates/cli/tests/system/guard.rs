//! `nagi guard` on a real ext4 of its own, down to 0 bytes: who is told, how fast, and what is cleaned.
//!
//! The disk is mounted in a mount namespace that ends with the guard; the test reaches it through the guard's `/proc`. That
//! needs root.

mod labels;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nagi_testkit::{Bar, measured};
use nix::sys::signal::Signal;

use crate::machine::free_ports;
use crate::{http, wait};

/// The bar for an alert at 0 bytes (B13).
const TOLD_MAX: Duration = Duration::from_secs(5);
const UP_MAX: Duration = Duration::from_mins(1);
const PACKAGE: &str = "var/cache/apt/archives/a_1.0_amd64.deb";

/// The `nagi` that is called: `cargo xtask bench` names the one that ships.
fn program() -> PathBuf {
    let named = std::env::var_os("NAGI_TEST_PROGRAM");
    named.map_or_else(|| env!("CARGO_BIN_EXE_nagi").into(), PathBuf::from)
}

/// A guard with a disk of 200 MiB of its own, on which a node lies.
struct Guarded {
    directory: tempfile::TempDir,
    metrics: u16,
    child: Child,
}

impl Guarded {
    /// None where no disk can be mounted, and then the test has said so.
    fn start(flags: &[&str]) -> Option<Self> {
        Self::start_after("true", flags)
    }

    /// The same with something more done before, in the directory of the disk.
    fn start_after(more: &str, flags: &[&str]) -> Option<Self> {
        let own = fs::metadata("/proc/self").expect("proc");
        if own.uid() != 0 {
            nagi_testkit::skipped("a filesystem on a loop device needs root");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let image = fs::File::create(directory.path().join("image")).expect("an image");
        image.set_len(200 << 20).expect("a sparse file");
        let [metrics] = free_ports();
        let prepare = format!(
            "cd '{0}' && mkfs.ext4 -q image && mkdir -p disk && mount -o loop image disk && cd disk && \
             mkdir -p node/run node/var/lib node/var/log node/var/cache/apt/archives node/dev && \
             mount -t tmpfs none node/run && mount -t tmpfs none node/dev && \
             head -c 20000000 /dev/urandom > node/{PACKAGE} && \
             {{ {more}; }} && sync -f . && cd / && exec \"$0\" \"$@\"",
            directory.path().display(),
        );
        let root = directory.path().join("disk/node");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", &prepare])
            .arg(program())
            .arg("guard")
            .arg("--root")
            .arg(&root)
            .args(["--metrics-listen", &format!("127.0.0.1:{metrics}")])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(fs::File::create(directory.path().join("log")).expect("a log"));
        let child = command.spawn().expect("unshare is there");
        let mut guarded = Self {
            directory,
            metrics,
            child,
        };
        let up = wait(UP_MAX, || {
            let ended = guarded.child.try_wait().expect("a child");
            assert!(
                ended.is_none(),
                "it ended with {ended:?}: {}",
                guarded.log()
            );
            guarded.metric("nagi_disk_level{disk=\"/\",resource=\"bytes\"}")
        });
        assert_eq!(up, Some(0), "{}", guarded.log());
        Some(guarded)
    }

    /// A path below the node, as the guard sees it.
    fn path(&self, below: &str) -> PathBuf {
        let node = self.directory.path().join("disk/node");
        let whole = format!("/proc/{}/root{}", self.child.id(), node.display());
        PathBuf::from(whole).join(below)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn scrape(&self) -> Option<String> {
        let answer = http::exchange(self.metrics, "GET", "/metrics", &[], "").ok()?;
        (answer.status == 200).then_some(answer.body)
    }

    /// A whole number of the metrics.
    fn metric(&self, name: &str) -> Option<i64> {
        let text = self.scrape()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    }

    /// Takes all that is available, and a little of the reserve, in one call.
    fn fill_at_once(&self) {
        let stat = rustix::fs::statvfs(self.path("")).expect("the disk");
        let most = stat.f_bavail * stat.f_frsize + (1 << 20);
        let file = fs::File::create(self.path("fill")).expect("room");
        let how = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&file, how, 0, most).expect("room");
    }

    /// The same, and then down to single bytes. Nothing must give space back meanwhile.
    fn fill(&self) {
        self.fill_at_once();
        for piece in [1 << 20, 1 << 12, 1] {
            let path = self.path(&format!("fill{piece}"));
            let Ok(mut file) = fs::File::create(path) else {
                continue;
            };
            let data = vec![7; piece];
            while file
                .write_all(&data)
                .and_then(|()| file.sync_data())
                .is_ok()
            {}
        }
        let stat = rustix::fs::statvfs(self.path("")).expect("the disk");
        assert_eq!(stat.f_bavail, 0, "the disk has room left");
        let one = fs::write(self.path("one"), "x").expect_err("not a byte is left");
        assert_eq!(one.kind(), std::io::ErrorKind::StorageFull);
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a number of a process");
        let id = nix::unistd::Pid::from_raw(id);
        nix::sys::signal::kill(id, signal).expect("it runs");
    }

    /// A second guard on the same node.
    fn second(&self) -> std::process::Output {
        let [metrics] = free_ports();
        Command::new(program())
            .arg("guard")
            .arg("--root")
            .arg(self.path(""))
            .args(["--metrics-listen", &format!("127.0.0.1:{metrics}")])
            .output()
            .expect("it starts")
    }

    fn end(mut self) -> String {
        self.signal(Signal::SIGTERM);
        let status = self.child.wait().expect("a child");
        assert!(status.success(), "{status}: {}", self.log());
        self.log()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Only where a test failed before its end.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// A disk that takes no write until the end: as one that does not answer.
struct Frozen(PathBuf);

impl Frozen {
    fn freeze(path: PathBuf) -> Self {
        let status = Command::new("fsfreeze").arg("-f").arg(&path).status();
        assert!(status.expect("fsfreeze is there").success());
        Self(path)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let status = Command::new("fsfreeze").arg("-u").arg(&self.0).status();
        assert!(status.expect("fsfreeze is there").success());
    }
}

/// A second disk of the node, below its first.
const SECOND: &str = "mkfs.ext4 -q -F ../other 64M && mkdir -p node/var/lib/containerd && \
                      mount -o loop ../other node/var/lib/containerd";
const SECOND_LEVEL: &str = "nagi_disk_level{disk=\"/var/lib/containerd\",resource=\"bytes\"}";

/// Fills the second disk at once.
fn fill_second(guarded: &Guarded) {
    let path = guarded.path("var/lib/containerd");
    let stat = rustix::fs::statvfs(&path).expect("the second disk");
    let file = fs::File::create(path.join("fill")).expect("room");
    let how = rustix::fs::FallocateFlags::empty();
    let most = stat.f_bavail * stat.f_frsize;
    rustix::fs::fallocate(&file, how, 0, most).expect("room");
}

/// A second disk fills while that of the node takes no write: it is told in time.
fn is_told_while_the_other_is_frozen(flags: &[&str]) {
    let Some(guarded) = Guarded::start_after(SECOND, flags) else {
        return;
    };
    let second = SECOND_LEVEL;
    assert_eq!(wait(UP_MAX, || guarded.metric(second)), Some(0));
    let frozen = Frozen::freeze(guarded.path(""));
    fill_second(&guarded);
    let told = wait(TOLD_MAX, || {
        guarded.log().contains("is critical now").then_some(())
    });
    // It goes on looking, and says so.
    let level = wait(TOLD_MAX, || {
        guarded.metric(second).filter(|level| *level == 4)
    });
    drop(frozen);
    assert!(told.is_some(), "{}", guarded.log());
    assert_eq!(level, Some(4));
    guarded.end();
}

/// One POST, answered.
fn take_post(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(UP_MAX)).expect("a limit");
    let mut text = String::new();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece).expect("a request");
        text.push_str(&String::from_utf8_lossy(&piece[..length]));
        if length == 0 || text.ends_with('}') {
            break;
        }
    }
    let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
    stream.write_all(answer).expect("an answer");
    text
}

// B13, B-023, D-22, K-37, W-B05: a disk at 0 bytes is told within 5 s, to a syslog server, to
// the local syslog, to a webhook and in the log, while nothing can be written on it; the founding document's line is there as far
// as its own disk has room, with a date.
#[test]
fn a_disk_at_0_bytes_is_told_within_5_seconds_on_every_way() {
    let syslog = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    syslog.set_read_timeout(Some(UP_MAX)).expect("a limit");
    let webhook = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let to = syslog.local_addr().expect("an address").to_string();
    let url = format!(
        "http://{}/alerts?x=1",
        webhook.local_addr().expect("an address")
    );
    let flags = [
        "--syslog",
        &to,
        "--webhook",
        &url,
        "--clean",
        "off",
        "--no-ballast",
    ];
    let Some(guarded) = Guarded::start(&flags) else {
        return;
    };
    // A syslog that comes later than the guard is found.
    let local = UnixDatagram::bind(guarded.path("dev/log")).expect("a socket in a tmpfs");
    local.set_read_timeout(Some(UP_MAX)).expect("a limit");
    // It does not look while the disk fills, so that what it tells it tells with nothing left: however long that takes here.
    guarded.signal(Signal::SIGSTOP);
    guarded.fill();
    let full = Instant::now();
    guarded.signal(Signal::SIGCONT);
    let mut datagram = [0; 2048];
    let mut told = String::new();
    while !told.contains("is critical now") {
        let length = syslog.recv(&mut datagram).expect("a datagram");
        told = String::from_utf8_lossy(&datagram[..length]).into_owned();
    }
    let took = full.elapsed();
    let what = "a disk at 0 bytes is told, after it can be looked at";
    measured("B13", what, (took.as_secs_f64(), "s"), Bar::AtMost(5.0));
    assert!(
        told.contains("calm before: 100.0 % of its bytes are used"),
        "{told}"
    );
    assert!(took < TOLD_MAX, "{took:?}");
    assert!(
        told.starts_with("<26>1 ") && told.contains(" nagi-guard "),
        "{told}"
    );
    let post = loop {
        let post = take_post(&webhook);
        if post.contains("\"level\":\"critical\"") {
            break post;
        }
    };
    assert!(full.elapsed() < TOLD_MAX, "{:?}", full.elapsed());
    assert!(post.starts_with("POST /alerts?x=1 HTTP/1.1\r\n"), "{post}");
    let length = loop {
        let length = local.recv(&mut datagram).expect("a datagram");
        if String::from_utf8_lossy(&datagram[..length]).contains("is critical now") {
            break length;
        }
    };
    assert!(datagram[..length].starts_with(b"<26>nagi-guard["));
    assert!(full.elapsed() < TOLD_MAX, "{:?}", full.elapsed());
    let level = guarded.metric("nagi_disk_level{disk=\"/\",resource=\"bytes\"}");
    assert_eq!(level, Some(4));
    let health = http::exchange(guarded.metrics, "GET", "/health", &[], "").expect("an answer");
    assert_eq!(health.status, 200, "{}", health.body);
    let log = guarded.end();
    let alert = log.lines().find(|line| line.contains("is critical now"));
    assert!(
        alert.is_some_and(|line| line.contains("ALERT: Disk over 90% at ")),
        "{log}"
    );
    assert!(!log.contains("$(date)"));
}

// A disk that does not answer, on which the guard has its memory and its ballast, holds up no alert of another.
#[test]
fn an_alert_does_not_wait_for_a_disk_that_takes_no_write() {
    is_told_while_the_other_is_frozen(&["--alert-log", "none", "--clean", "off", "--no-owners"]);
}

// Somebody is told that a disk hangs, the guard stays alive for the others, and what is over is told too.
#[test]
fn a_disk_that_takes_no_write_is_told_and_kills_no_guard() {
    let flags = [
        "--alert-log",
        "none",
        "--clean",
        "off",
        "--no-owners",
        "--no-ballast",
    ];
    let Some(guarded) = Guarded::start_after(SECOND, &flags) else {
        return;
    };
    assert_eq!(wait(UP_MAX, || guarded.metric(SECOND_LEVEL)), Some(0));
    let frozen = Frozen::freeze(guarded.path(""));
    // There is something to remember, and the disk takes it not.
    fill_second(&guarded);
    let says = |what: &str| wait(UP_MAX, || guarded.log().contains(what).then_some(()));
    let silent = says("does not answer");
    let health = http::exchange(guarded.metrics, "GET", "/health", &[], "").expect("an answer");
    drop(frozen);
    assert!(silent.is_some(), "{}", guarded.log());
    assert_eq!(health.status, 200, "{}", health.body);
    assert!(says("answers again").is_some(), "{}", guarded.log());
    guarded.end();
}

/// A number of `/proc/PID/status`, in KiB.
fn of_status(guarded: &Guarded, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", guarded.child.id()));
    let text = text.expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().ok());
    number.unwrap_or_else(|| panic!("{name} of {text}"))
}

// B-037, D-24: a real guard with a real clock names the owner that fills its disk, from its third walk on.
#[test]
fn a_guard_names_the_owner_that_fills_its_disk() {
    let flags = [
        "--no-ballast",
        "--clean",
        "off",
        "--alert-log",
        "none",
        "--owners-every",
        "1m",
    ];
    let more = "mkdir -p node/var/lib/etcd node/var/log/pods";
    let Some(guarded) = Guarded::start_after(more, &flags) else {
        return;
    };
    let grows = "nagi_disk_owner_growth_bytes_per_hour{disk=\"/\",owner=\"etcd\",bound=\"likely\"}";
    let mut file = fs::File::create(guarded.path("var/lib/etcd/db")).expect("room");
    let (mut written, began) = (0_u32, Instant::now());
    // Three walks take three minutes. One MiB each three seconds is 1,200 MiB an hour.
    let known = wait(Duration::from_mins(6), || {
        while f64::from(written) < began.elapsed().as_secs_f64() / 3.0 {
            file.write_all(&vec![7; 1 << 20]).expect("room");
            file.sync_data().expect("room");
            written += 1;
        }
        guarded.metric(grows)
    });
    let text = guarded.scrape().unwrap_or_default();
    let owned: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("owner=\"etcd\""))
        .collect();
    println!(
        "after {:.0?} and {written} MiB: {owned:#?}\nresident {} KiB, {} at most",
        began.elapsed(),
        of_status(&guarded, "VmRSS"),
        of_status(&guarded, "VmHWM")
    );
    let mebibytes = known.map(|bytes| bytes >> 20);
    assert!(
        mebibytes.is_some_and(|mebibytes| (900..=1500).contains(&mebibytes)),
        "{mebibytes:?}"
    );
    let share = "nagi_disk_owner_growth_ratio{disk=\"/\",owner=\"etcd\"}";
    let share = text.lines().find_map(|line| line.strip_prefix(share));
    let share: f64 = share
        .and_then(|share| share.trim().parse().ok())
        .expect("a share");
    assert!((0.8..=1.2).contains(&share), "{share}");
    let full =
        text.contains("nagi_disk_owner_full_seconds{disk=\"/\",owner=\"etcd\",bound=\"likely\"}");
    assert!(full, "{text}");
    guarded.fill_at_once();
    let told = wait(TOLD_MAX, || {
        guarded.log().contains("; mostly by etcd: +").then_some(())
    });
    assert!(told.is_some(), "{}", guarded.log());
    guarded.end();
}

/// The disk of the node takes no write before the guard begins. Whatever becomes of the test, it does again after three minutes.
const FROZEN: &str = "sync -f . && fsfreeze -f . && { { sleep 180; fsfreeze -u .; } < /dev/null > /dev/null 2>&1 & }";

// D-22: a guard that begins while the disk of /var/lib takes no write says what it waits for, watches and tells; a second one is
// refused by name meanwhile; when the disk answers, memory and ballast are there.
#[test]
fn a_guard_begins_beside_a_disk_that_takes_no_write() {
    let more = format!("{SECOND} && {FROZEN}");
    let flags = ["--alert-log", "none", "--clean", "off", "--no-owners"];
    let Some(guarded) = Guarded::start_after(&more, &flags) else {
        return;
    };
    let frozen = Frozen(guarded.path(""));
    let log = guarded.log();
    assert!(
        log.contains("\"waits_for\":\"the disk of /var/lib\""),
        "{log}"
    );
    assert!(log.contains("\"remembers\":false"), "{log}");
    fill_second(&guarded);
    let says = |what: &str, most| wait(most, || guarded.log().contains(what).then_some(()));
    let told = says("is critical now", TOLD_MAX);
    let silent = says("does not answer: whoever", UP_MAX);
    let health = http::exchange(guarded.metrics, "GET", "/health", &[], "").expect("an answer");
    let second = guarded.second();
    drop(frozen);
    assert!(told.is_some() && silent.is_some(), "{}", guarded.log());
    assert_eq!(health.status, 200, "{}", health.body);
    assert_eq!(second.status.code(), Some(8), "{second:?}");
    assert!(says("answers again", UP_MAX).is_some(), "{}", guarded.log());
    let ballast = "nagi_disk_ballast_bytes{disk=\"/\"}";
    let taken = wait(UP_MAX, || {
        guarded.metric(ballast).filter(|bytes| *bytes > 0)
    });
    assert!(taken.is_some(), "{}", guarded.log());
    assert!(guarded.path("var/lib/nagi-guard/guard.ring").exists());
    guarded.end();
}

// A disk that is above the target and not at the level of cleaning keeps what it has, whatever another one needs.
#[test]
fn a_guard_cleans_only_the_disk_that_reached_the_level() {
    let flags = ["--no-ballast", "--clean", "apply", "--clean-min-age", "0"];
    let Some(guarded) = Guarded::start_after(SECOND, &flags) else {
        return;
    };
    let stat = rustix::fs::statvfs(guarded.path("")).expect("the disk");
    let whole = stat.f_blocks - stat.f_bfree + stat.f_bavail;
    let wanted = whole * 87 / 100 - (stat.f_blocks - stat.f_bfree);
    let file = fs::File::create(guarded.path("fill")).expect("room");
    let how = rustix::fs::FallocateFlags::empty();
    rustix::fs::fallocate(&file, how, 0, wanted * stat.f_frsize).expect("room");
    fill_second(&guarded);
    let looked = wait(UP_MAX, || {
        guarded.log().contains("Nothing to clean").then_some(())
    });
    assert!(looked.is_some(), "{}", guarded.log());
    assert!(guarded.path(PACKAGE).exists(), "{}", guarded.log());
    guarded.end();
}

// Nor does it wait for its line in a file there.
#[test]
fn an_alert_does_not_wait_for_the_alert_log() {
    is_told_while_the_other_is_frozen(&["--clean", "off", "--no-owners"]);
}

// A pipe in the place of the file, which nobody reads, holds up neither the start nor the end.
#[test]
fn a_pipe_in_place_of_the_alert_log_holds_up_nothing() {
    let pipe = "mkfifo node/var/log/disk-alert.log";
    let Some(guarded) = Guarded::start_after(pipe, &["--clean", "off", "--no-owners"]) else {
        return;
    };
    let log = guarded.end();
    assert!(log.contains("Alerts do not go there yet"), "{log}");
}

// B-024, D-13, issue item 3: from 90 % on the guard removes what can be had again, and before that it only says so.
#[test]
fn a_guard_cleans_only_when_told_to_and_only_what_can_be_had_again() {
    let Some(guarded) = Guarded::start(&["--no-ballast", "--every", "1s", "--clean-min-age", "0"])
    else {
        return;
    };
    let log_of_pod = guarded.path("var/log/pods/ns_pod_uid/main/0.log.20200102-030405");
    fs::create_dir_all(log_of_pod.parent().expect("a directory")).expect("room");
    fs::write(&log_of_pod, "old").expect("room");
    fs::write(log_of_pod.with_file_name("0.log"), "new").expect("room");
    guarded.fill();
    let planned = wait(UP_MAX, || {
        guarded
            .log()
            .contains("Cleaning planned, nothing removed")
            .then_some(())
    });
    assert!(planned.is_some(), "{}", guarded.log());
    assert!(guarded.path(PACKAGE).exists());
    guarded.end();

    let flags = [
        "--no-ballast",
        "--every",
        "1s",
        "--clean-min-age",
        "0",
        "--clean",
        "apply",
    ];
    let Some(guarded) = Guarded::start(&flags) else {
        return;
    };
    let log_of_pod = guarded.path("var/log/pods/ns_pod_uid/main/0.log.20200102-030405");
    fs::create_dir_all(log_of_pod.parent().expect("a directory")).expect("room");
    fs::write(&log_of_pod, "old").expect("room");
    fs::write(log_of_pod.with_file_name("0.log"), "new").expect("room");
    guarded.fill_at_once();
    let freed = wait(UP_MAX, || {
        guarded.metric("nagi_disk_freed_bytes_total{kind=\"apt\"}")
    });
    assert!(
        freed.is_some_and(|bytes| bytes >= 20_000_000),
        "{freed:?} {}",
        guarded.log()
    );
    assert!(!guarded.path(PACKAGE).exists());
    assert!(log_of_pod.exists(), "a log cannot be had again");
    // U19: the disk had no room for its record any more; the guard had made it before.
    let ring = fs::read(guarded.path("var/lib/nagi-guard/disk-audit.ring"));
    let ring = String::from_utf8_lossy(&ring.expect("a ring")).into_owned();
    let removed = "remove apt /var/cache/apt/archives/a_1.0_amd64.deb";
    assert!(ring.contains(removed), "{}", guarded.log());
    let log = guarded.end();
    assert!(
        log.contains("remove apt /var/cache/apt/archives/a_1.0_amd64.deb"),
        "{log}"
    );
}

// A second guard on the same node is refused with a code of its own, and the first goes on.
#[test]
fn a_second_guard_is_refused() {
    let Some(guarded) = Guarded::start(&["--clean", "off"]) else {
        return;
    };
    // It is taken after the first look, and shown by the next.
    let held = wait(UP_MAX, || {
        let held = guarded.metric("nagi_disk_ballast_bytes{disk=\"/\"}");
        held.filter(|bytes| *bytes >= 8 << 20)
    });
    assert!(held.is_some(), "{:?}", guarded.scrape());
    let second = guarded.second();
    let said = String::from_utf8_lossy(&second.stdout);
    assert_eq!(second.status.code(), Some(8), "{said}");
    assert!(said.contains("another nagi guards this node"), "{said}");
    guarded.end();
}
