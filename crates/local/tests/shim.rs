//! The supervisor with real children: output, stop, left-over processes, and who may start what.
//!
//! Children are shell commands. Every wait is for an event (an exit, a line, a file), with a limit that only a failure
//! reaches.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests start processes, look at the clock and fail by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nagi_local::process::{ProcessId, descendants, marked};
use nagi_local::shim::output::{FILE_BYTES_MAX, FILES_MAX, file_path, numbers};
use nagi_local::shim::record::{
    self, Ending, EngineInCharge, Exit, Kind, Launch, REPLICA_VARIABLE, Running,
};
use rustix::process::Signal;
use tempfile::TempDir;

/// Only a failure takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A replica's directory with a launch record, and the supervisor that was started on it.
struct Bench {
    directory: TempDir,
    supervisor: Child,
    mark: String,
}

impl Bench {
    fn start(script: &str) -> Self {
        Self::start_with(script, |_| {})
    }

    fn start_with(script: &str, change: impl FnOnce(&mut Launch)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let engine_file = directory.path().join("engine.json");
        let engine = ProcessId::current().unwrap();
        let in_charge = EngineInCharge {
            instance: "test".into(),
            generation: 1,
            engine,
            begins_anew: false,
        };
        record::write(&engine_file, &in_charge).unwrap();
        let mark = format!("test/{}", directory.path().display());
        let environment = BTreeMap::from([
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            (REPLICA_VARIABLE.to_owned(), mark.clone()),
        ]);
        let mut launch = Launch {
            attempt: "a1".into(),
            mark: mark.clone(),
            digest: "d".into(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            environment,
            working_directory: directory.path().to_path_buf(),
            port: None,
            node: "n".into(),
            cpu_milli: 0,
            memory_bytes: 0,
            gpu: 0,
            stop_grace_ms: 10_000,
            control_group: None,
            engine_file,
            generation: 1,
            restarts: 0,
        };
        change(&mut launch);
        record::write(&Kind::Launch.path(directory.path(), "a1"), &launch).unwrap();
        let supervisor = Command::new(env!("CARGO_BIN_EXE_nagi-local"))
            .arg("shim")
            .arg(directory.path())
            .arg("a1")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            directory,
            supervisor,
            mark,
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn exit(&mut self) -> Ending {
        wait_until(|| self.supervisor.try_wait().unwrap().is_some());
        let exit: Exit = record::read(&Kind::Exit.path(self.path(), "a1")).unwrap();
        exit.ending
    }

    fn supervisor(&self) -> ProcessId {
        ProcessId::of(i32::try_from(self.supervisor.id()).unwrap()).unwrap()
    }

    /// All that was stored, without time, stream and tag.
    fn lines(&self) -> Vec<String> {
        numbers(self.path())
            .into_iter()
            .flat_map(|number| {
                let text = fs::read(file_path(self.path(), number)).unwrap();
                String::from_utf8_lossy(&text)
                    .lines()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .map(|line| line.splitn(4, ' ').nth(3).unwrap().to_owned())
            .collect()
    }

    fn wait_for_line(&self, wanted: &str) {
        wait_until(|| self.lines().iter().any(|line| line == wanted));
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for process in marked(&format!("{REPLICA_VARIABLE}={}", self.mark)) {
            drop(process.signal(Signal::KILL));
        }
        drop(self.supervisor.kill());
        drop(self.supervisor.wait());
    }
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "waited too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn output_and_exit_code_are_stored() {
    let mut bench = Bench::start("echo out; echo err >&2; printf 'no end'; exit 7");
    assert_eq!(bench.exit(), Ending::Code(7));
    let mut lines = bench.lines();
    lines.sort();
    assert_eq!(lines, ["err", "no end", "out"]);
    let running: Running = record::read(&Kind::Running.path(bench.path(), "a1")).unwrap();
    assert!(running.command.is_some());
}

#[test]
fn a_command_ended_by_a_signal_says_which() {
    assert_eq!(Bench::start("kill -11 $$").exit(), Ending::Signal(11));
}

#[test]
fn a_program_that_is_not_there_is_explained() {
    let mut bench = Bench::start_with("", |launch| launch.command = vec!["no-such-program".into()]);
    let Ending::NotStarted(why) = bench.exit() else {
        panic!("started")
    };
    assert!(why.contains("no-such-program"), "{why}");
    assert_eq!(bench.lines(), [why]);
    let mut bench = Bench::start_with("true", |launch| launch.working_directory = "/no/dir".into());
    let Ending::NotStarted(why) = bench.exit() else {
        panic!("started")
    };
    assert!(why.contains("no directory /no/dir"), "{why}");
}

#[test]
fn a_supervisor_that_is_no_longer_wanted_does_not_start_the_command() {
    // Another engine is in charge by now.
    let mut bench = Bench::start_with("echo ran > ran", |launch| launch.generation = 0);
    assert_eq!(bench.exit(), Ending::Superseded);
    assert!(!bench.path().join("ran").exists());
    // The engine that asked for it is dead.
    let mut bench = Bench::start_with("echo ran > ran", |launch| {
        let engine = ProcessId {
            start: 1,
            ..ProcessId::current().unwrap()
        };
        let in_charge = EngineInCharge {
            instance: "test".into(),
            generation: 1,
            engine,
            begins_anew: false,
        };
        record::write(&launch.engine_file, &in_charge).unwrap();
    });
    assert_eq!(bench.exit(), Ending::Superseded);
    assert!(!bench.path().join("ran").exists());
}

#[test]
fn a_polite_command_ends_within_its_grace() {
    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done";
    let mut bench = Bench::start(script);
    bench.wait_for_line("up");
    bench.supervisor().signal(Signal::TERM).unwrap();
    assert_eq!(bench.exit(), Ending::Code(3));
    assert!(bench.lines().contains(&"bye".to_owned()));
}

#[test]
fn a_deaf_command_is_killed_after_its_grace_which_may_have_been_changed_meanwhile() {
    let script = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    let mut bench = Bench::start_with(script, |launch| launch.stop_grace_ms = 600_000);
    bench.wait_for_line("up");
    let path = Kind::Launch.path(bench.path(), "a1");
    let launch: Launch = record::read(&path).unwrap();
    record::write(
        &path,
        &Launch {
            stop_grace_ms: 300,
            ..launch
        },
    )
    .unwrap();
    let begin = Instant::now();
    bench.supervisor().signal(Signal::TERM).unwrap();
    assert_eq!(bench.exit(), Ending::Signal(9));
    assert!(
        begin.elapsed() >= Duration::from_millis(300),
        "{:?}",
        begin.elapsed()
    );
}

/// Needs a moment to finish when it is asked to end, and says so.
const TIDY: &str =
    "trap 'sleep 0.5; echo flushed; exit' TERM; echo up; while :; do sleep 0.02; done";

// A shell that starts a server and waits, or a launcher that has its workers in sessions of their own.
#[test]
fn whatever_the_command_started_has_the_same_grace_as_the_command() {
    let group = format!("nagi-test-grace-{}", std::process::id());
    let group = nagi_local::process::cgroup::ControlGroup::make(&group);
    for (session, group) in [("", None), ("setsid ", None), ("setsid ", group)] {
        let script = format!("{session}sh -c \"{TIDY}\" & exec sleep 1000");
        let mut bench = Bench::start_with(&script, |launch| {
            launch.control_group = group.map(|group| group.directory().to_path_buf());
        });
        bench.wait_for_line("up");
        let below = descendants(bench.supervisor().pid);
        bench.supervisor().signal(Signal::TERM).unwrap();
        assert_eq!(bench.exit(), Ending::Signal(15));
        let flushed = bench
            .lines()
            .iter()
            .filter(|line| *line == "flushed")
            .count();
        assert_eq!(flushed, 1, "{session}: asked once, and waited for");
        assert!(below.iter().all(|process| !process.is_alive()));
    }
}

#[test]
fn what_is_deaf_is_killed_after_the_grace_also_when_the_command_has_gone_before() {
    let script =
        "setsid sh -c \"trap '' TERM; echo up; while :; do sleep 0.05; done\" & exec sleep 1000";
    let mut bench = Bench::start_with(script, |launch| launch.stop_grace_ms = 400);
    bench.wait_for_line("up");
    let begin = Instant::now();
    bench.supervisor().signal(Signal::TERM).unwrap();
    assert_eq!(bench.exit(), Ending::Signal(15));
    assert!(
        begin.elapsed() >= Duration::from_millis(400),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(marked(&format!("{REPLICA_VARIABLE}={}", bench.mark)), []);
}

#[test]
fn grandchildren_in_sessions_of_their_own_end_with_the_command() {
    // Twice abandoned, in its own session, deaf to SIGTERM: only killing everything reaches it.
    let script = "setsid sh -c 'setsid sh -c \"trap : TERM HUP; echo deep; sleep 1000; sleep 1000\" & exit' & \
                  sleep 0.2; exit 0";
    let mut bench = Bench::start(script);
    bench.wait_for_line("deep");
    let below = descendants(bench.supervisor().pid);
    assert!(!below.is_empty());
    assert_eq!(bench.exit(), Ending::Code(0));
    for process in below {
        assert!(!process.is_alive(), "{process:?}");
    }
    assert_eq!(marked(&format!("{REPLICA_VARIABLE}={}", bench.mark)), []);
}

#[test]
fn a_flood_of_output_takes_bounded_space() {
    // `yes` prints gigabytes a second where nobody slows it down.
    let mut bench = Bench::start_with("yes 0123456789", |launch| launch.stop_grace_ms = 100);
    wait_until(|| numbers(bench.path()).last().copied().unwrap_or(0) > 12);
    let bytes: u64 = numbers(bench.path())
        .iter()
        .map(|number| {
            fs::metadata(file_path(bench.path(), *number))
                .unwrap()
                .len()
        })
        .sum();
    let files = u64::try_from(FILES_MAX).unwrap();
    assert!(
        bytes <= files * (FILE_BYTES_MAX + FILE_BYTES_MAX / 2),
        "{bytes} bytes"
    );
    bench.supervisor().signal(Signal::TERM).unwrap();
    assert_eq!(bench.exit(), Ending::Signal(15));
}

#[test]
fn a_killed_supervisor_leaves_marked_processes_that_can_be_found() {
    let mut bench = Bench::start("echo up; sleep 1000");
    bench.wait_for_line("up");
    bench.supervisor.kill().unwrap();
    bench.supervisor.wait().unwrap();
    let left = marked(&format!("{REPLICA_VARIABLE}={}", bench.mark));
    assert!(!left.is_empty());
}

#[test]
fn where_there_are_control_groups_the_command_and_its_children_are_in_one() {
    let name = format!("nagi-test-{}", std::process::id());
    let Some(group) = nagi_local::process::cgroup::ControlGroup::make(&name) else {
        return;
    };
    let script = "setsid sleep 1000 & echo up; sleep 1000";
    let mut bench = Bench::start_with(script, |launch| {
        launch.control_group = Some(group.directory().to_path_buf());
        launch.stop_grace_ms = 0;
    });
    wait_until(|| group.members().len() >= 3);
    let supervisor = bench.supervisor();
    assert!(!group.members().contains(&supervisor.pid));
    supervisor.signal(Signal::TERM).unwrap();
    bench.exit();
    assert!(
        !group.directory().exists(),
        "the group is removed when it is empty"
    );
}
