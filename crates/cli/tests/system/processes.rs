//! The real processes of replicas, found by the mark that each carries in its environment, whoever started it.

use std::collections::BTreeMap;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The mark: `INSTANCE/NAMESPACE/WORKLOAD/REPLICA/ATTEMPT`.
const MARK: &[u8] = b"NAGI_REPLICA=";

/// A process of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) id: i32,
    pub(crate) workload: String,
    pub(crate) replica: String,
}

/// The instance of a state directory; `None` before its first start.
pub(crate) fn instance(state: &Path) -> Option<String> {
    let text = std::fs::read(state.join("engine.json")).ok()?;
    let value: serde_json::Value = serde_json::from_slice(&text).ok()?;
    value["instance"].as_str().map(str::to_owned)
}

/// All living processes of an instance. A process that has ended but was not waited for yet has no environment left, so
/// it is not among them.
pub(crate) fn of_instance(instance: &str) -> Vec<Marked> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return found;
    };
    for entry in entries.flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // Gone meanwhile, or another user's.
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else {
            continue;
        };
        let mark = environment
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(MARK));
        let Some(mark) = mark.and_then(|mark| std::str::from_utf8(mark).ok()) else {
            continue;
        };
        let parts: Vec<&str> = mark.split('/').collect();
        if let [its, _, workload, replica, _] = parts[..]
            && its == instance
        {
            found.push(Marked {
                id,
                workload: workload.to_owned(),
                replica: replica.to_owned(),
            });
        }
    }
    found
}

/// How many processes each replica of a workload has. The commands of these tests start no further ones.
pub(crate) fn replicas(instance: &str, workload: &str) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for process in of_instance(instance)
        .into_iter()
        .filter(|process| process.workload == workload)
    {
        *count.entry(process.replica).or_default() += 1;
    }
    count
}

/// Ends all processes of an instance, and their supervisors with them: a supervisor ends when its command has.
pub(crate) fn kill_all(instance: &str) {
    for process in of_instance(instance) {
        // It may have ended by itself meanwhile.
        kill(Pid::from_raw(process.id), Signal::SIGKILL).ok();
    }
}
