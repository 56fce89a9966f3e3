//! A command of the binary that works on the cluster itself and ends.

use std::process::Stdio;

use nagi_kube_double::Double;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::process::{PATIENCE, kubeconfig};

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl Ended {
    /// What it printed as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.output).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A command that is under way, and the home that it has.
pub(crate) struct Running {
    pub(crate) child: Child,
    _home: tempfile::TempDir,
}

/// Starts `nagi WORDS` before the double.
pub(crate) fn start(double: &Double, words: &str) -> Running {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("kubeconfig");
    std::fs::write(&path, kubeconfig(double)).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_nagi"))
        .args(words.split_whitespace())
        .env_clear()
        .env("HOME", home.path())
        .env("KUBECONFIG", path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    Running { child, _home: home }
}

/// Runs it to its end.
pub(crate) async fn run(double: &Double, words: &str) -> Ended {
    let running = start(double, words);
    let output = tokio::time::timeout(PATIENCE, running.child.wait_with_output());
    let output = output.await.expect("it ends").unwrap();
    Ended {
        code: output.status.code(),
        output: String::from_utf8(output.stdout).unwrap(),
        errors: String::from_utf8(output.stderr).unwrap(),
    }
}
