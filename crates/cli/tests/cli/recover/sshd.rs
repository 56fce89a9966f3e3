//! A real sshd on loopback, in mounts of its own, and what a user needs to call it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::servers;

const PROGRAM: &str = "/usr/sbin/sshd";
/// On two busy cores it has been seen to take a second.
const UP_MAX: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(10);

/// It ends with this value.
pub(crate) struct Sshd {
    port: u16,
    directory: tempfile::TempDir,
    child: Child,
}

// === impl Sshd ===

impl Sshd {
    /// Starts one, as root has it; none where that cannot be, which is said.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// The same with more lines of configuration.
    pub(crate) fn start_with(lines: &str) -> Option<Self> {
        if fs::metadata("/proc/self").unwrap().uid() != 0 || !Path::new(PROGRAM).exists() {
            nagi_testkit::skipped("sshd needs root, and openssh-server");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let (at, port) = (directory.path(), servers::closed());
        for name in ["host", "other", "user", "stranger"] {
            make_key(&at.join(name));
        }
        fs::copy(at.join("user.pub"), at.join("authorized")).unwrap();
        let shown = at.display();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {shown}/host\nAuthorizedKeysFile {shown}/authorized\n\
             StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin prohibit-password\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n{lines}\n"
        );
        fs::write(at.join("sshd_config"), config).unwrap();
        let child = run(at, port);
        let own = Self {
            port,
            directory,
            child,
        };
        own.knows("host");
        own.write_config("");
        Some(own)
    }

    /// Where files of the test are.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The user's configuration, which calls it `node`.
    pub(crate) fn config(&self) -> String {
        self.file("ssh_config").display().to_string()
    }

    /// The same with lines that stand before.
    pub(crate) fn write_config(&self, lines: &str) {
        let at = self.directory.path().display();
        let config = format!(
            "Host node\n{lines}\nHostName 127.0.0.1\nPort {}\nUser root\nIdentityFile {at}/user\nIdentitiesOnly yes\n\
             IdentityAgent none\nUserKnownHostsFile {at}/known\nGlobalKnownHostsFile /dev/null\n",
            self.port
        );
        fs::write(self.file("ssh_config"), config).unwrap();
    }

    /// The user knows it by this key.
    pub(crate) fn knows(&self, key: &str) {
        let key = fs::read_to_string(self.file(&format!("{key}.pub"))).unwrap();
        let words: Vec<&str> = key.split(' ').take(2).collect();
        let line = format!("[127.0.0.1]:{} {}\n", self.port, words.join(" "));
        fs::write(self.file("known"), line).unwrap();
    }

    /// The user knows no key at all.
    pub(crate) fn forget(&self) {
        fs::write(self.file("known"), "").unwrap();
    }

    /// Kills the processes of its connections; it goes on listening.
    pub(crate) fn break_connections(&self) {
        let mut found = Vec::new();
        children(self.child.id(), &mut found);
        assert!(!found.is_empty(), "there is a connection");
        for pid in found {
            let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
            // One may have ended with its parent.
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
        }
    }

    /// Its connections stand still, as on a network that carries nothing any more.
    pub(crate) fn freeze(&self) {
        self.signal_connections(nix::sys::signal::Signal::SIGSTOP);
    }

    /// Its connections end, and what they started is left alone.
    pub(crate) fn cut(&self) {
        self.signal_connections(nix::sys::signal::Signal::SIGKILL);
    }

    fn signal_connections(&self, signal: nix::sys::signal::Signal) {
        let mut found = Vec::new();
        children(self.child.id(), &mut found);
        let is_sshd = |pid: &u32| {
            let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            let name = program.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with("sshd")
        };
        found.retain(is_sshd);
        assert!(!found.is_empty(), "there is a connection");
        for pid in found {
            let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
            // One may have ended with its parent.
            nix::sys::signal::kill(pid, signal).ok();
        }
    }

    /// A directory in its `/run`.
    pub(crate) fn in_run(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/run/{name}", self.child.id()))
    }

    /// Kills it with its connections.
    pub(crate) fn kill(&mut self) {
        let mut found = Vec::new();
        children(self.child.id(), &mut found);
        drop(self.child.kill());
        drop(self.child.wait());
        for pid in found {
            let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
        }
    }

    /// Starts it again on its port.
    pub(crate) fn restart(&mut self) {
        self.child = run(self.directory.path(), self.port);
    }

    /// How many programs of ours run on it.
    pub(crate) fn programs(&self) -> usize {
        let mut found = Vec::new();
        children(self.child.id(), &mut found);
        let is_ours = |pid: &&u32| {
            let program = fs::read_link(format!("/proc/{pid}/exe"));
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            // Whether it runs there at all is asked before.
            let is_asked = line.split(|byte| *byte == 0).nth(1) == Some(b"version");
            program.is_ok_and(|path| path.ends_with("nagi")) && !is_asked
        };
        found.iter().filter(is_ours).count()
    }

    /// What is in its `/run` of ours.
    pub(crate) fn left_behind(&self) -> Vec<String> {
        let entries = fs::read_dir(self.in_run("")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("nagi-")).collect()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(at: &Path, port: u16) -> Child {
    let mounts =
        "mount -t tmpfs -o noexec,mode=0755 tmpfs /run && mkdir -m 0755 /run/sshd && exec \"$@\"";
    let child = Command::new("unshare")
        .args(["--mount", "sh", "-c", mounts, "sh", PROGRAM, "-D", "-E"])
        .arg(at.join("log"))
        .arg("-f")
        .arg(at.join("sshd_config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait("sshd listens", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    child
}

fn make_key(path: &Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path)
        .status();
    assert!(made.unwrap().success());
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Every process below one.
fn children(pid: u32, found: &mut Vec<u32>) {
    let own = format!("/proc/{pid}/task/{pid}/children");
    for child in fs::read_to_string(own)
        .unwrap_or_default()
        .split_whitespace()
    {
        let child = child.parse().unwrap();
        found.push(child);
        children(child, found);
    }
}

/// Looks until it holds.
#[track_caller]
pub(crate) fn wait(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < UP_MAX, "not in time: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Takes connections and says nothing: an sshd that hangs.
pub(crate) fn silent_sshd() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}
