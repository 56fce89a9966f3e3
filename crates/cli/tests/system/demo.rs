//! `nagi demo` beside its tour, which `make test` takes as a newcomer does: where it begins, how it ends, what it leaves.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::machine::{Workload, free_ports};
use crate::{http, processes, wait};

const WEB: Workload = Workload {
    namespace: "project-a",
    name: "sample-app-a",
};
const MODEL: Workload = Workload {
    namespace: "project-b",
    name: "sample-app-b",
};
/// The first line of the second step of the tour.
const SECOND_STEP: &str = "Nobody asks for the page.";
/// The grace of the apps is 10 s, and they need none of it.
const ENDED_MAX: Duration = Duration::from_secs(20);

/// A demo without a terminal, in a directory that may outlive it.
struct Demo {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
    api: u16,
    state: PathBuf,
}

impl Demo {
    fn start(state: &Path, prefix: &[&str]) -> Self {
        let [api, metrics, gateway] = free_ports();
        Self::start_on(state, prefix, [api, metrics, gateway])
    }

    fn start_on(state: &Path, prefix: &[&str], ports: [u16; 3]) -> Self {
        let mut words: Vec<String> = prefix.iter().map(|word| (*word).to_owned()).collect();
        words.extend([env!("CARGO_BIN_EXE_nagi").to_owned(), "demo".to_owned()]);
        words.extend(["--state-dir".to_owned(), state.display().to_string()]);
        for (flag, port) in ["--listen", "--metrics-listen", "--gateway-listen"]
            .iter()
            .zip(ports)
        {
            words.extend([(*flag).to_owned(), format!("127.0.0.1:{port}")]);
        }
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nagi starts");
        let output = child.stdout.take().map(BufReader::new);
        let [api, ..] = ports;
        Self {
            child,
            output,
            api,
            state: state.to_owned(),
        }
    }

    /// Reads what it tells until a line begins so, which the tour's own limit bounds. True when it came.
    fn tells(&mut self, beginning: &str) -> bool {
        let output = self.output.take().expect("not read to its end yet");
        let mut lines = output.lines();
        let found = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.starts_with(beginning));
        // What it tells after this is read by nobody, which the demo survives only as long as the pipe is open.
        std::thread::spawn(move || lines.for_each(drop));
        found
    }

    fn call(&self, method: &str, path: &str, body: &str) -> u16 {
        let answer = http::exchange(self.api, method, path, &[], body);
        answer.map_or(0, |answer| answer.status)
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(id), signal).expect("it runs");
    }

    /// Its exit code and what it said on stderr; it must end by itself.
    fn end(&mut self) -> (Option<i32>, String) {
        let status = wait(ENDED_MAX, || {
            self.child.try_wait().expect("it is our child")
        });
        let status = status.expect("it ends");
        let mut text = String::new();
        let errors = self.child.stderr.take().expect("it was piped");
        std::io::Read::read_to_string(&mut BufReader::new(errors), &mut text).expect("text");
        (status.code(), text)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if let Some(instance) = processes::instance(&self.state) {
            wait(ENDED_MAX, || {
                processes::kill_all(&instance);
                processes::of_instance(&instance).is_empty().then_some(())
            });
        }
    }
}

// "make demo", a second time: an earlier one may have been left anywhere in its tour.
#[test]
fn the_tour_begins_anew_where_an_earlier_demo_was_killed() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("demo");
    let mut first = Demo::start(&state, &[]);
    assert!(first.tells(SECOND_STEP), "the first tour begins");
    let at = jiff::Timestamp::now() + Duration::from_hours(1);
    let sleep = format!(r#"{{"reason":"test","scheduled_scale_up":"{at:.3}"}}"#);
    assert_eq!(first.call("POST", &WEB.path("scale-to-zero"), &sleep), 200);
    assert_eq!(first.call("POST", &MODEL.path("wake"), ""), 202);
    first.child.kill().expect("it runs");
    first.child.wait().expect("it ends");
    let mut second = Demo::start(&state, &[]);
    assert!(
        second.tells(SECOND_STEP),
        "the second tour begins as the first did"
    );
    let status = http::exchange(second.api, "GET", &WEB.path("status"), &[], "");
    let item = status.expect("it answers").json()["deployment"].take();
    assert!(item["scheduled_scale_up"].is_null(), "{item}");
    second.signal(Signal::SIGTERM);
    second.end();
    let mode = std::fs::metadata(state.join("nagi.log"))
        .expect("a log")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600, "as everything beside it");
}

#[test]
fn a_demo_whose_terminal_is_closed_ends_with_its_apps() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut demo = Demo::start(directory.path(), &[]);
    assert!(demo.tells(SECOND_STEP), "the tour begins");
    demo.signal(Signal::SIGHUP);
    let (code, _) = demo.end();
    assert_eq!(code, Some(1), "the tour was not through");
    let instance = processes::instance(directory.path()).expect("it was started");
    assert!(processes::of_instance(&instance).is_empty());
}

#[test]
fn a_demo_that_is_refused_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("demo");
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = held.local_addr().expect("an address").port();
    let [metrics, gateway] = free_ports();
    let mut demo = Demo::start_on(&state, &[], [taken, metrics, gateway]);
    let (code, words) = demo.end();
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("choose one with --listen"), "{words}");
    assert!(!state.exists(), "{words}");
}

#[test]
fn a_demo_without_room_says_so_at_once() {
    if !nagi_testkit::may_mount() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mount = format!(
        "mount -t tmpfs -o size=64k none '{}' && exec \"$0\" \"$@\"",
        directory.path().display()
    );
    let mut demo = Demo::start(directory.path(), &["unshare", "-Urm", "sh", "-c", &mount]);
    let (code, words) = demo.end();
    assert_eq!(code, Some(1), "{words}");
    assert!(
        words.contains("no room") && words.contains("hint: make room"),
        "{words}"
    );
}
