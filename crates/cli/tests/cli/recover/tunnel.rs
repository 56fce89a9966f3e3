//! A process of the name `ssh` that listens and closes each connection, as `ssh -L` does with nothing behind it.
//!
//! It is this test program under another name: the kernel names a process after its file.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Tells the process what it is.
const PLAYS: &str = "PLAYS_A_TUNNEL";

/// The process; it ends with this value.
pub(crate) struct Tunnel {
    pub(crate) port: u16,
    child: Child,
}

// === impl Tunnel ===

impl Tunnel {
    pub(crate) fn start(directory: &Path) -> Self {
        let program = directory.join("ssh");
        // By a process of its own: what this one has open for writing, a child of another thread may still hold, and then the
        // copy cannot be run.
        let copied = Command::new("cp")
            .arg(std::env::current_exe().unwrap())
            .arg(&program)
            .status();
        assert!(copied.unwrap().success());
        let mut child = Command::new(&program)
            .args([
                "--exact",
                "recover::tunnel::plays_a_tunnel_when_it_is_told_to",
                "--nocapture",
            ])
            .env(PLAYS, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| line.split("port ").nth(1)?.trim().parse().ok())
            .expect("it says its port");
        Self { port, child }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

// No rule: the process of `Tunnel::start`.
#[test]
fn plays_a_tunnel_when_it_is_told_to() {
    if std::env::var_os(PLAYS).is_none() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("port {}", listener.local_addr().unwrap().port());
    std::io::stdout().flush().unwrap();
    listener.incoming().for_each(drop);
}
