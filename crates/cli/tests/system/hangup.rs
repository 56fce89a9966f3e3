//! SIGHUP to the real binary: the log goes on in a new file, and nothing of it is lost.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::machine::Machine;
use crate::wait;

const NOTHING: &str = "workloads: []\n";

/// The request ids in a log file, of which every line must be a JSON object.
fn request_ids(path: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(|line| -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    lines
        .filter_map(|line| Some(line["request_id"].as_str()?.to_owned()))
        .collect()
}

// logrotate's usual way, a new name and then SIGHUP.
#[test]
fn a_hangup_begins_the_log_file_anew_and_loses_no_line() {
    let machine = Machine::new(NOTHING);
    let log = machine.directory().join("rotated.log");
    let old = machine.directory().join("rotated.log.1");
    let flag = ["--log-file", &log.display().to_string()];
    let mut machine = machine.with_flags(&flag);
    machine.start();
    let get = |id: &str| {
        let headers = [("X-Request-ID", id)];
        let answer = crate::http::exchange(machine.api, "GET", "/health", &headers, "");
        assert_eq!(answer.expect("it answers").status, 200);
    };
    get("before");
    std::fs::rename(&log, &old).expect("the log was begun");
    get("between");
    kill(Pid::from_raw(machine.id()), Signal::SIGHUP).expect("it runs");
    let begun = wait(Duration::from_secs(20), || log.exists().then_some(()));
    assert!(begun.is_some(), "no new log file");
    get("after");
    assert_eq!(machine.stop(), (Some(0), None));
    let of_ours = |path| -> Vec<String> {
        let ours = ["before", "between", "after"];
        let ids = request_ids(path).into_iter();
        ids.filter(|id| ours.contains(&id.as_str())).collect()
    };
    assert_eq!(of_ours(&old), ["before", "between"]);
    assert_eq!(of_ours(&log), ["after"]);
}
