//! A real containerd with nothing in it, on a socket of its own.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// On two busy cores it has been seen to take 10 s.
const UP_MAX: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_millis(50);

/// It ends with this value.
pub(crate) struct Containerd {
    child: Child,
}

// === impl Containerd ===

impl Containerd {
    /// Starts it below a directory, and waits until its socket is there. None where it cannot be run, which is said.
    pub(crate) fn start(directory: &Path, socket: &Path) -> Option<Self> {
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let version = Command::new("containerd").arg("--version").output();
        if !is_root || version.is_err() {
            nagi_testkit::skipped("a containerd of its own needs root, and containerd on the path");
            return None;
        }
        let at = |name: &str| directory.join(name).display().to_string();
        let settings = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            socket.display().to_string()
        );
        let file = directory.join("containerd.toml");
        std::fs::write(&file, settings).unwrap();
        let child = Command::new("containerd")
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let containerd = Self { child };
        let began = Instant::now();
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            assert!(began.elapsed() < UP_MAX, "containerd does not come up");
            std::thread::sleep(LOOK);
        }
        Some(containerd)
    }

    /// It stands still: it takes calls and answers none.
    pub(crate) fn stop(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.unwrap(), Signal::STOP).unwrap();
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
