//! Changes of the keys file that are killed: the file is as before or as after, every other key counts, and what was
//! answered has happened.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::Attempt;
use crate::http;
use crate::machine::Machine;
use crate::tracer::{Plan, Trace, Tracer};

/// A change, and what its command says when it has happened.
pub(super) struct Change {
    pub(super) name: &'static str,
    arguments: &'static str,
    before: &'static [&'static str],
    after: &'static [&'static str],
}

pub(super) const CHANGES: &[Change] = &[
    Change {
        name: "create a key",
        arguments: "create --id new --role viewer --namespace project-a",
        before: &["kept", "old"],
        after: &["kept", "new", "old"],
    },
    Change {
        name: "revoke a key",
        arguments: "revoke old --yes",
        before: &["kept", "old"],
        after: &["kept"],
    },
];

/// The keys file in a directory of its own.
struct Ring {
    directory: tempfile::TempDir,
}

/// Runs one change by each plan.
pub(super) fn attempts(change: &'static Change) -> Attempt {
    let mut machine = Machine::new("workloads: []\n");
    Box::new(move |plan, place| {
        let ring = Ring {
            directory: tempfile::tempdir().expect("a directory"),
        };
        let [kept, old] = ["kept", "old"].map(|id| {
            let made = ring.key(&format!("create --id {id} --role viewer --namespace *"));
            assert!(made.status.success(), "{made:?}");
            String::from_utf8_lossy(&made.stdout).trim().to_owned()
        });
        let (trace, printed) = ring.traced(change.arguments, plan);
        let found = ring.ids();
        let [before, after] = [change.before, change.after].map(|ids| {
            ids.iter()
                .map(|id| (*id).to_owned())
                .collect::<BTreeSet<_>>()
        });
        let name = change.name;
        assert!(
            found == after || (printed.is_empty() && found == before),
            "{name}, killed {place}: {found:?}, and it said {printed:?}"
        );
        // A server takes the file, and the keys in it count.
        machine.set_env("NAGI_KEYS_FILE", &ring.file().display().to_string());
        machine.start();
        let mut keys = vec![(kept, true), (old, found.contains("old"))];
        if found.contains("new") && !printed.is_empty() {
            keys.push((printed.trim().to_owned(), true));
        }
        for (key, counts) in keys {
            let bearer = format!("Bearer {key}");
            let headers = [("Authorization", bearer.as_str())];
            let answer = http::exchange(machine.api, "GET", "/api/v1/workloads", &headers, "");
            let status = answer.expect("it answers").status;
            let expected = if counts { 200 } else { 401 };
            assert_eq!(status, expected, "{name}, killed {place}");
        }
        machine.kill();
        // Nothing that was left behind is in the way of the next change.
        let next = ring.key("create --id next --role viewer --namespace project-a");
        assert!(next.status.success(), "{name}, killed {place}: {next:?}");
        trace
    })
}

// === impl Ring ===

impl Ring {
    fn file(&self) -> PathBuf {
        self.directory.path().join("keys.yaml")
    }

    fn arguments(&self, text: &str) -> Vec<String> {
        let mut words = vec!["key".to_owned()];
        words.extend(text.split(' ').map(str::to_owned));
        words.extend(["--file".to_owned(), self.file().display().to_string()]);
        words
    }

    fn key(&self, text: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nagi"));
        let output = command.args(self.arguments(text)).output();
        output.expect("nagi starts")
    }

    fn ids(&self) -> BTreeSet<String> {
        let list = self.key("list --output json");
        assert!(list.status.success(), "{list:?}");
        let list: Value = serde_json::from_slice(&list.stdout).expect("JSON");
        let items = list["items"].as_array().expect("a list").iter();
        items
            .filter_map(|item| item["id"].as_str().map(str::to_owned))
            .collect()
    }

    /// Runs a command under observation; what it printed, too.
    fn traced(&self, text: &str, plan: Plan) -> (Trace, String) {
        let mut child = Command::new("sh")
            .args(["-c", "read -r line; exec \"$0\" \"$@\""])
            .arg(env!("CARGO_BIN_EXE_nagi"))
            .args(self.arguments(text))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let id = i32::try_from(child.id()).expect("a process id");
        let directory = self.directory.path().canonicalize().expect("it is there");
        let tracer = Tracer::attach(id, directory, plan);
        let mut gate = child.stdin.take().expect("it waits behind a gate");
        gate.write_all(b"\n").expect("it reads");
        let trace = tracer.finish();
        let mut printed = String::new();
        let mut output = child.stdout.take().expect("it was piped");
        output.read_to_string(&mut printed).expect("text");
        // The tracer may have waited for it already.
        child.wait().ok();
        (trace, printed)
    }
}
