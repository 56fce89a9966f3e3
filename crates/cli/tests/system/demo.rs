//! `nagi demo` beside its tour, which `make test` takes as a newcomer does: where it begins, how it ends, what it leaves.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::machine::{Machine, Workload, free_ports};
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
        Self::start_with(state, prefix, ports, &[])
    }

    /// With variables in its environment.
    fn start_with(
        state: &Path,
        prefix: &[&str],
        ports: [u16; 3],
        environment: &[(&str, &str)],
    ) -> Self {
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
            .envs(environment.iter().copied())
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
        self.told_until(beginning).1
    }

    /// The same, with the lines before it.
    fn told_until(&mut self, beginning: &str) -> (Vec<String>, bool) {
        let output = self.output.take().expect("not read to its end yet");
        let mut lines = output.lines();
        let mut told = Vec::new();
        let found = lines.by_ref().map_while(Result::ok).any(|line| {
            let found = line.starts_with(beginning);
            told.push(line);
            found
        });
        // What it tells after this is read by nobody, which the demo survives only as long as the pipe is open.
        std::thread::spawn(move || lines.for_each(drop));
        (told, found)
    }

    fn pools(&self) -> serde_json::Value {
        let answer = http::exchange(self.api, "GET", "/api/v1/pools", &[], "");
        answer.expect("it answers").json()["items"].take()
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

// README: "a second one begins anew". An earlier one may have been left anywhere in its tour, also while its GPU node booted.
#[test]
fn a_demo_begins_anew_where_an_earlier_one_was_killed() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("demo");
    let mut first = Demo::start(&state, &[]);
    assert!(first.tells(SECOND_STEP), "the first tour begins");
    assert_eq!(first.call("POST", &MODEL.path("wake"), ""), 202);
    let serves = || {
        let status = http::exchange(first.api, "GET", &MODEL.path("status"), &[], "").ok()?;
        (status.json()["deployment"]["status"] == "active").then_some(())
    };
    wait(Duration::from_mins(1), serves).expect("the model serves, on its node");
    let at = jiff::Timestamp::now() + Duration::from_hours(1);
    let sleep = format!(r#"{{"reason":"test","scheduled_scale_up":"{at:.3}"}}"#);
    assert_eq!(first.call("POST", &WEB.path("scale-to-zero"), &sleep), 200);
    first.child.kill().expect("it runs");
    first.child.wait().expect("it ends");
    let instance = processes::instance(&state).expect("it was started");
    let left = processes::of_instance(&instance);
    assert!(!left.is_empty(), "kill -9 leaves the replicas");
    let mut second = Demo::start(&state, &[]);
    let (told, begins) = second.told_until(SECOND_STEP);
    assert!(begins, "the second tour begins as the first did: {told:?}");
    let pools = second.pools();
    let gpu = pools
        .as_array()
        .and_then(|all| all.iter().find(|pool| pool["name"] == "gpu"));
    let gpu = gpu.unwrap_or_else(|| panic!("{pools}"));
    assert_eq!(
        gpu["nodes"],
        serde_json::json!([]),
        "as it was told: {told:?}"
    );
    assert_eq!(gpu["spent"].as_f64(), Some(0.0), "{gpu}");
    assert_eq!(
        gpu["saved"].as_f64(),
        Some(0.0),
        "nothing of the time before: {gpu}"
    );
    let now = processes::of_instance(&instance);
    let both: Vec<_> = left
        .iter()
        .filter(|process| now.contains(process))
        .collect();
    assert!(
        both.is_empty(),
        "the apps of the first have ended: {both:?}"
    );
    let history = http::exchange(second.api, "GET", "/api/v1/history", &[], "");
    let history = history.expect("it answers").body;
    assert!(!history.contains("\"test\""), "{history}");
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

// No file that the demo did not write is replaced, and none at all before it has ports and lock.
#[test]
fn a_file_of_the_user_is_never_replaced() {
    const THEIRS: &str = "pools: [] # mine\n";
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("workloads.yaml");
    std::fs::write(&file, THEIRS).expect("a file");
    let (code, words) = Demo::start(directory.path(), &[]).end();
    assert_eq!(code, Some(1), "{words}");
    for expected in [
        "not a directory of the demo",
        "workloads.yaml belongs to",
        "hint: ",
    ] {
        assert!(words.contains(expected), "{words}");
    }
    assert_eq!(std::fs::read_to_string(&file).expect("there"), THEIRS);
    let entries = std::fs::read_dir(directory.path()).expect("a directory");
    assert_eq!(entries.count(), 1, "nothing beside it either");
}

#[test]
fn a_second_demo_changes_nothing_of_the_one_that_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("demo");
    let mut first = Demo::start(&state, &[]);
    assert!(first.tells(SECOND_STEP), "the first tour begins");
    let file = state.join("workloads.yaml");
    // As another binary would write it, and as the first one never would again.
    let text = std::fs::read_to_string(&file).expect("written");
    let marked = format!("{text}# still here\n");
    std::fs::write(&file, &marked).expect("the same file");
    // The drop of a demo ends everything in its directory: this one is kept until the end.
    let mut second = Demo::start(&state, &[]);
    let (code, words) = second.end();
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("in use by another nagi"), "{words}");
    assert_eq!(std::fs::read_to_string(&file).expect("there"), marked);
    let status = http::exchange(first.api, "GET", &WEB.path("status"), &[], "");
    assert_eq!(status.expect("it runs").status, 200);
}

#[test]
fn the_state_of_another_nagi_is_not_touched() {
    const WORKLOADS: &str = r#"
pools:
  - { name: local, boot: 0s, release_after: 3s, max_nodes: 1, node: { cpu: 1, memory: 1GiB } }
workloads:
  - namespace: project-a
    name: mine
    command: [sleep, "600"]
    pool: local
    replicas: 1
"#;
    let mut machine = Machine::new(WORKLOADS);
    machine.start();
    let mine = Workload {
        namespace: "project-a",
        name: "mine",
    };
    machine.wait_settled(&mine, 1);
    let state = machine.state();
    let instance = processes::instance(&state).expect("it was started");
    machine.kill();
    let before = processes::of_instance(&instance);
    assert!(!before.is_empty());
    let mut listed = files(&state);
    let mut demo = Demo::start(&state, &[]);
    let (code, words) = demo.end();
    assert_eq!(code, Some(1), "{words}");
    assert!(
        words.contains("not a directory of the demo") && words.contains("engine.json"),
        "{words}"
    );
    assert_eq!(processes::of_instance(&instance), before, "they go on");
    let mut now = files(&state);
    listed.sort();
    now.sort();
    assert_eq!(now, listed);
}

// The environment of a person who runs a real Nagi, too.
#[test]
fn the_tour_goes_on_where_a_key_is_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("demo");
    let [a, b, c] = free_ports();
    let mut demo = Demo::start_with(&state, &[], [a, b, c], &[("API_KEY", "secret")]);
    assert!(demo.tells(SECOND_STEP), "its calls have the key");
    assert_eq!(demo.call("GET", &WEB.path("status"), ""), 401);
}

#[test]
fn what_stands_in_the_way_of_the_tour_is_said_before_anything_begins() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("demo");
    let keys = directory.path().join("keys.yaml").display().to_string();
    for (environment, code, expected) in [
        (
            &[
                ("NAGI_ALLOWED_NAMESPACES", "foo"),
                ("NAGI_HOLD_SECONDS", "1"),
            ][..],
            2,
            &[
                "because: --allowed-namespaces (environment NAGI_ALLOWED_NAMESPACES) must hold project-a and project-b",
                "because: --hold-seconds (environment NAGI_HOLD_SECONDS) must be at least 10",
            ][..],
        ),
        (
            &[("NAGI_KEYS_FILE", keys.as_str())][..],
            1,
            &["NAGI_KEYS_FILE holds digests only", "NAGI_KEY"][..],
        ),
        (
            &[("LOG_LEVEL", "loud"), ("NAGI_RATE_LIMIT", "much")][..],
            2,
            &["error: ", "because: --log-level", "because: --rate-limit"][..],
        ),
        (
            &[("NAGI_REQUIRE_AUTH", "true")][..],
            1,
            &["API keys cannot be used"][..],
        ),
    ] {
        let (status, words) = Demo::start_with(&state, &[], free_ports(), environment).end();
        assert_eq!(status, Some(code), "{words}");
        for expected in expected.iter().chain(&["error: ", "hint: "]) {
            assert!(words.contains(expected), "{expected}: {words}");
        }
        assert!(!state.exists(), "{words}");
    }
}

#[test]
fn all_ports_that_are_taken_are_named_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("demo");
    let held = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let taken = [0, 1, 2].map(|n: usize| held[n].local_addr().expect("an address").port());
    let (code, words) = Demo::start_on(&state, &[], taken).end();
    assert_eq!(code, Some(1), "{words}");
    for port in taken {
        assert!(
            words.contains(&format!("127.0.0.1:{port} for the")),
            "{words}"
        );
    }
    assert!(words.contains("choose others with --listen"), "{words}");
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
    for (options, expected) in [
        ("size=64k", ["no room", "No space left", "hint: make room"]),
        (
            "size=64k,ro",
            ["cannot write", "Read-only file system", "hint: choose"],
        ),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let mount = mounted(directory.path(), options);
        let mut demo = Demo::start(directory.path(), &["unshare", "-Urm", "sh", "-c", &mount]);
        let (code, words) = demo.end();
        assert_eq!(code, Some(1), "{words}");
        for expected in expected {
            assert!(words.contains(expected), "{expected}: {words}");
        }
    }
}

#[test]
fn a_tour_whose_disk_runs_full_names_the_disk() {
    if !nagi_testkit::may_mount() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    // Enough for its start, and filled while it goes on.
    let fill = format!(
        "(while [ ! -s '{0}/engine.json' ]; do sleep 0.05; done; sleep 1; cat /dev/zero > '{0}/full') 2>&- & ",
        directory.path().display()
    );
    let mount = mounted(directory.path(), "size=2m");
    let mount = mount.replace("exec", &format!("{{ {fill} exec")) + "; }";
    let mut demo = Demo::start(directory.path(), &["unshare", "-Urm", "sh", "-c", &mount]);
    demo.tells("The tour never tells this");
    let (code, words) = demo.end();
    assert_eq!(code, Some(1), "{words}");
    for expected in ["error: step ", "No space left", "hint: make room"] {
        assert!(words.contains(expected), "{expected}: {words}");
    }
}

fn mounted(directory: &Path, options: &str) -> String {
    let directory = directory.display();
    format!("mount -t tmpfs -o {options} none '{directory}' && exec \"$0\" \"$@\"")
}

/// Every file below a directory, with its content.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).expect("a file")));
        }
    }
    found
}
