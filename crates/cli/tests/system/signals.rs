//! Signals to the real binary: SIGHUP begins the log anew, SIGTERM lets requests in flight end, a second one does not.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
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

// A-165; whoever sits at a terminal ends it with a second Ctrl-C.
#[test]
fn a_second_signal_cuts_the_request_that_the_first_one_waits_for() {
    let mut machine = Machine::new(NOTHING);
    machine.start();
    // Its body does not come; without a second signal it would be answered (408).
    let mut request = TcpStream::connect(("127.0.0.1", machine.api)).expect("it listens");
    let head = "POST /api/v1/deployments/team/app/scale-to-zero HTTP/1.1\r\nHost: localhost\r\n\
        Content-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n";
    request.write_all(head.as_bytes()).expect("it reads");
    let mut begun = [0; 25];
    request.read_exact(&mut begun).expect("it wants the body");
    assert_eq!(&begun, b"HTTP/1.1 100 Continue\r\n\r\n");

    let signal = |signal, then: &str| {
        kill(Pid::from_raw(machine.id()), signal).expect("it runs");
        let said = wait(Duration::from_secs(20), || {
            machine.log().contains(then).then_some(())
        });
        assert!(said.is_some(), "{}", machine.log());
    };
    signal(Signal::SIGTERM, "a second signal ends it at once");
    // As `timeout` does, which signals the process and then its group: that is one request.
    kill(Pid::from_raw(machine.id()), Signal::SIGTERM).expect("it runs");
    std::thread::sleep(Duration::from_millis(500));
    assert!(
        !machine.log().contains("Shutdown cut short"),
        "{}",
        machine.log()
    );
    signal(Signal::SIGINT, "Shutdown cut short");
    let mut answer = Vec::new();
    // Cut is cut, with or without a reset.
    request.read_to_end(&mut answer).unwrap_or(0);
    assert_eq!(String::from_utf8_lossy(&answer), "");
}
