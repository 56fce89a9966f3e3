//! Killed engines, killed supervisors, hostile commands, full disks.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nagi_core::quantity::Replicas;
use nagi_local::process::ProcessId;
use nagi_ports::PortError;
use nagi_testkit::listed;
use rustix::process::Signal;

use crate::lab::{Lab, Place, Process, eventually, id, supervisors, wait_until};

const SERVE: &str = "
workloads:
- {namespace: project-a, name: web, command: [BINARY, serve], port: 80, stop_grace: 500ms}
";

fn serving(answer: &str) -> bool {
    answer.starts_with("1 1 1 ")
}

#[test]
fn a_killed_engine_leaves_its_replicas_running_and_the_next_adopts_them() {
    let place = Place::with(SERVE);
    let mut first = Process::start(&place, "keep");
    let answer = first.wait_for("status project-a web", serving);
    let before = (place.processes(), supervisors(&place.state()));
    assert_eq!((before.0.len(), before.1.len()), (1, 1));
    first.kill();
    assert_eq!((place.processes(), supervisors(&place.state())), before);
    let mut second = Process::start(&place, "keep");
    assert_eq!(
        second.wait_for("status project-a web", serving),
        answer,
        "the same port"
    );
    assert_eq!((place.processes(), supervisors(&place.state())), before);
    // An order in between ends keeps them too.
    second.end();
    assert_eq!((place.processes(), supervisors(&place.state())), before);
    let mut third = Process::start(&place, "keep");
    third.wait_for("status project-a web", serving);
    assert!(third.ask("scale project-a web 0").starts_with("written"));
    third.wait_for("status project-a web", |answer| answer.starts_with("0 0 0"));
    assert_eq!(place.processes(), []);
}

#[test]
fn an_order_that_was_answered_is_carried_out_after_a_kill() {
    let place = Place::with(SERVE);
    let mut first = Process::start(&place, "keep");
    first.wait_for("status project-a web", serving);
    assert!(first.ask("scale project-a web 0").starts_with("written"));
    first.kill();
    let mut second = Process::start(&place, "keep");
    second.wait_for("status project-a web", |answer| answer.starts_with("0 0 0"));
    assert_eq!(place.processes(), []);
    assert!(second.ask("scale project-a web 1").starts_with("written"));
    second.kill();
    let mut third = Process::start(&place, "end");
    third.wait_for("status project-a web", serving);
    third.end();
    assert_eq!(place.processes(), []);
}

#[test]
fn engines_killed_at_every_moment_of_a_start_leave_neither_double_nor_orphan() {
    let place = Place::with(SERVE);
    for round in 0..40_u64 {
        let mut engine = Process::spawn(&place, "keep");
        if round % 2 == 0 {
            // Into the middle of a start or an adoption.
            std::thread::sleep(Duration::from_millis(round));
        } else {
            assert_eq!(engine.line(), "started");
            engine.ask(&format!("scale project-a web {}", round / 2 % 2));
            std::thread::sleep(Duration::from_micros(round * 150));
        }
        engine.kill();
        assert!(
            place.processes().len() <= 1,
            "two at once: {:?}",
            place.processes()
        );
    }
    let mut last = Process::start(&place, "end");
    last.ask("scale project-a web 1");
    last.wait_for("status project-a web", serving);
    assert_eq!(
        (place.processes().len(), supervisors(&place.state()).len()),
        (1, 1)
    );
    last.end();
    assert_eq!(place.processes(), []);
    assert!(supervisors(&place.state()).is_empty());
}

#[test]
fn a_killed_supervisor_is_noticed_its_leftovers_end_and_the_replica_starts_again() {
    let place = Place::with(SERVE);
    let mut engine = Process::start(&place, "end");
    engine.wait_for("status project-a web", serving);
    let (orphan, _) = place.processes().remove(0);
    for pid in supervisors(&place.state()) {
        ProcessId::of(pid).unwrap().signal(Signal::KILL).unwrap();
    }
    wait_until(|| !orphan.is_alive());
    engine.wait_for("status project-a web", |answer| {
        serving(answer)
            && place
                .processes()
                .iter()
                .any(|(process, _)| *process != orphan)
    });
    assert_eq!(place.processes().len(), 1);
    engine.end();
}

#[test]
fn leftovers_of_a_killed_engine_and_a_killed_supervisor_end_before_anything_starts() {
    for records_damaged in [false, true] {
        let place = Place::with(SERVE);
        let mut engine = Process::start(&place, "keep");
        engine.wait_for("status project-a web", serving);
        let (orphan, _) = place.processes().remove(0);
        engine.kill();
        for pid in supervisors(&place.state()) {
            ProcessId::of(pid).unwrap().signal(Signal::KILL).unwrap();
        }
        wait_until(|| supervisors(&place.state()).is_empty());
        if records_damaged {
            let directory = place.state().join("replicas/project-a/web/0");
            for entry in std::fs::read_dir(directory).unwrap() {
                std::fs::write(entry.unwrap().path(), "{").unwrap();
            }
        }
        assert!(orphan.is_alive());
        let mut engine = Process::start(&place, "end");
        assert!(
            !orphan.is_alive(),
            "ended before the engine says that it has started"
        );
        engine.wait_for("status project-a web", serving);
        assert_eq!(place.processes().len(), 1);
        engine.end();
    }
}

#[tokio::test]
async fn what_was_adopted_is_there_from_the_first_look_on() {
    let place = Place::with(SERVE);
    let mut first = Process::start(&place, "keep");
    first.wait_for("status project-a web", serving);
    first.kill();
    let lab = Lab::start_in(place).await.unwrap();
    // Nothing of the engine has run yet: this thread runs it all, and has not waited since.
    assert_eq!(lab.get(&id("web")).await.current, Replicas(1));
    lab.wait_serving(&id("web"), 1).await;
    lab.end().await;
}

#[tokio::test]
async fn hostile_commands_are_ended_with_everything_they_started() {
    let file = r#"
workloads:
- {namespace: project-a, name: deaf, command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"], stop_grace: 200ms}
- {namespace: project-a, name: sessions, command: [sh, -c, "setsid sh -c 'trap : TERM; sleep 1000; sleep 1000' & setsid sleep 1000 & wait"], stop_grace: 200ms}
- {namespace: project-a, name: flood, command: ["yes"], stop_grace: 200ms}
"#;
    let lab = Lab::start(file).await;
    let all = ["deaf", "sessions", "flood"];
    for name in all {
        lab.wait_serving(&id(name), 1).await;
    }
    eventually(|| lab.place.processes().len() >= 6).await;
    let begin = Instant::now();
    for name in all {
        lab.scale(&id(name), 0).await.unwrap();
    }
    for name in all {
        lab.wait_serving(&id(name), 0).await;
    }
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(lab.place.processes(), []);
    lab.end().await;
}

#[tokio::test]
async fn an_engine_that_ends_in_order_ends_even_deaf_replicas_within_its_time() {
    let file = r#"
workloads:
- {namespace: project-a, name: deaf, command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"], stop_grace: 10m}
"#;
    let lab = Lab::start(file).await;
    lab.wait_serving(&id("deaf"), 1).await;
    let time = Duration::from_secs(3);
    let begin = Instant::now();
    let place = lab.end_within(time).await;
    assert!(begin.elapsed() <= time, "{:?}", begin.elapsed());
    assert_eq!(place.processes(), []);
    assert!(supervisors(&place.state()).is_empty());
}

// A-165: what a replica has to finish gets the time that its file gives it, also when Nagi ends with it.
#[tokio::test]
async fn an_engine_that_ends_in_order_leaves_replicas_their_stop_grace() {
    let file = r#"
workloads:
- {namespace: project-a, name: tidy, command: [sh, -c, "trap 'sleep 3; touch finished; exit 0' TERM; while :; do sleep 0.05; done"], stop_grace: 15s}
- {namespace: project-a, name: deaf, command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"], stop_grace: 200ms}
"#;
    let lab = Lab::start(file).await;
    for name in ["tidy", "deaf"] {
        lab.wait_serving(&id(name), 1).await;
    }
    let begin = Instant::now();
    let place = lab.end().await;
    let finished = place.directory.path().join("finished");
    assert!(finished.exists(), "killed after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(15), "nobody was left");
    assert_eq!(place.processes(), []);
}

/// A mounted file system that goes away with the test.
struct SmallDisk<'a> {
    at: &'a Path,
}

impl<'a> SmallDisk<'a> {
    /// `None` where this user may not mount.
    fn mount(at: &'a Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs"])
            .arg(at);
        let output = mount.output().unwrap();
        if output.status.success() {
            return Some(Self { at });
        }
        let why = String::from_utf8_lossy(&output.stderr);
        nagi_testkit::skipped(&format!("no small disk can be mounted: {}", why.trim()));
        None
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.at).status());
    }
}

#[tokio::test]
async fn a_full_state_directory_refuses_writes_goes_on_reading_and_heals() {
    let file = SERVE.replace("port: 80", "port: 80, replicas: 0");
    let place = Place::with(&file);
    let state = place.state();
    let Some(_disk) = SmallDisk::mount(&state) else {
        return;
    };
    let lab = Lab::start_in(place).await.unwrap();
    let web = id("web");
    // Fill it to the last byte.
    let ballast = state.join("ballast");
    let mut size = 1 << 18;
    let mut file = std::fs::File::create(&ballast).unwrap();
    while size > 0 {
        if std::io::Write::write_all(&mut file, &vec![0; size]).is_err() {
            size /= 2;
        }
    }
    let error = lab.scale(&web, 1).await.unwrap_err();
    assert!(matches!(error, PortError::StorageFull(_)), "{error}");
    assert!(error.to_string().contains("web.json"), "{error}");
    assert_eq!(lab.get(&web).await.desired, Replicas(0));
    assert_eq!(listed(&lab.engine).await.unwrap().len(), 1);
    let left: Vec<_> = std::fs::read_dir(state.join("workloads/project-a"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1, "no temporary file");
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    lab.scale(&web, 1).await.unwrap();
    lab.wait_serving(&web, 1).await;
    lab.end().await;
}
