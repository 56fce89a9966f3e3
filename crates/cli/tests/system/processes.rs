//! The real processes of replicas, found by the mark that each carries in its environment, whoever started it.

use std::collections::BTreeMap;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The mark: `INSTANCE/NAMESPACE/WORKLOAD/REPLICA/ATTEMPT`.
const MARK: &str = "NAGI_REPLICA=";

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
        // Gone meanwhile, or another user's; or of no UTF-8, which no process of these tests has.
        let Ok(environment) = std::fs::read_to_string(entry.path().join("environ")) else {
            continue;
        };
        // This runs hundreds of times a second, so that the search is the one of the standard library, which is optimised.
        let later = || {
            environment
                .split_once(&format!("\0{MARK}"))
                .map(|(_, mark)| mark)
        };
        let Some(mark) = environment.strip_prefix(MARK).or_else(later) else {
            continue;
        };
        let mark = mark.split_once('\0').map_or(mark, |(mark, _)| mark);
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
