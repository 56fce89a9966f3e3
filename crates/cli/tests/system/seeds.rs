//! The founding documents' commands, word for word, against the real binary.
//!
//! `tests/seeds/commands.yaml` holds them. What one machine can run is run here by bash: in a network of its own, where
//! Nagi listens on the ports that the documents name, and with `/var/log` of its own, because one of them writes there.
//! `.curlrc` maps the one host name that only a cluster serves and tells the status of each call; the text itself stays
//! as it is. Commands that need a Kubernetes are counted; those that read the log are also run with the log of the
//! processes before in the place of what `kubectl logs` prints.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use nagi_seeds::{CURL_SETTINGS, Document, Expectation, Needs, World};

use crate::machine::{Machine, Workload};

const APP: Workload = Workload {
    namespace: "project-a",
    name: "sample-app-a",
};
const SAMPLE_APP: &str = "\
workloads:
  - namespace: project-a
    name: sample-app-a
    command: [NAGI, sample, web]
    port: 8080
    readiness: { http: { path: /health } }
    replicas: 1
";
const ANOTHER_APP: &str = "\
workloads:
  - { namespace: project-a, name: another, command: [sleep, '100000'], stop_grace: 1s }
";
/// What `<api-key>` stands for in the table.
const KEY: &str = "seed-key";

/// A network, a `/var/log` and a user of its own; what follows runs there.
const ISOLATED: [&str; 4] = [
    "-Urnm",
    "sh",
    "-c",
    "PATH=$PATH:/usr/sbin:/sbin ip link set lo up && mount -t tmpfs none /var/log && exec \"$0\" \"$@\"",
];
/// Set in the process that runs in there.
const INSIDE: &str = "NAGI_TEST_SEEDS_INSIDE";
/// Opens the lines that a person reads even when the test passes.
const REPORT: &str = "seeds: ";

/// The Service's port 80 is the 8080 behind it.
const NAMES: &str = r#"connect-to = "scale-api.scale-system.svc.cluster.local:80:localhost:8080""#;

fn isolated(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("unshare");
    command.args(ISOLATED).arg(program);
    command
}

/// Past the capture of test output: how much was run must be seen.
fn report(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("standard output is open");
}

// F01 to F10, F14 to F17 and F30, F31 as far as curl goes; each row stands beside its command in the table.
#[test]
fn commands_of_the_founding_documents_work_as_written() {
    if std::env::var_os(INSIDE).is_some() {
        run_everything();
        return;
    }
    let tried = isolated("true").output().expect("unshare is there");
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr);
        nagi_testkit::skipped(&format!(
            "no network of its own can be made here: {}",
            why.trim()
        ));
        return;
    }
    let this = std::env::current_exe().expect("a test knows its program");
    let name = "seeds::commands_of_the_founding_documents_work_as_written";
    let output = isolated(this)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("it could be started a moment ago");
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{errors}");
    let lines: Vec<&str> = printed
        .lines()
        .filter(|line| line.starts_with(REPORT))
        .collect();
    assert!(!lines.is_empty(), "nothing was run:\n{printed}{errors}");
    for line in lines {
        report(line);
    }
}

#[test]
fn every_command_of_the_table_is_one_that_bash_can_read() {
    for document in nagi_seeds::documents() {
        for seed in &document.commands {
            let mut bash = Command::new("bash");
            let read = bash.args(["-n", "-c", &seed.filled()]).output();
            let read = read.expect("bash is there");
            assert!(
                read.status.success() && read.stderr.is_empty(),
                "{} line {}: {}",
                document.document,
                seed.line,
                String::from_utf8_lossy(&read.stderr)
            );
        }
    }
}

/// Every world that one machine can be, one after the other on the same ports.
fn run_everything() {
    let mut tour = Tour::new();
    tour.run(&[World::Down], None);

    let mut machine = Machine::new(ANOTHER_APP).on_default_ports();
    machine.start();
    tour.run(&[World::Empty], None);
    tour.end(machine);

    let mut machine = Machine::new(SAMPLE_APP).on_default_ports().with_key(KEY);
    machine.start();
    tour.run(&[World::Keyed], Some(&machine));
    tour.end(machine);

    let mut machine = Machine::new(SAMPLE_APP).on_default_ports();
    machine.start();
    tour.run(&[World::Open, World::Local], Some(&machine));
    // The last words of a process that could not start are errors to look for.
    let second = Command::new(env!("CARGO_BIN_EXE_nagi"))
        .args(machine.arguments())
        .env_clear()
        .output()
        .expect("nagi starts");
    assert!(!second.status.success(), "two on one port");
    tour.log.push_str(&String::from_utf8_lossy(&second.stdout));
    tour.end(machine);

    tour.write_log();
    tour.run(&[World::Log], None);
    tour.judge();
}

/// Runs commands and keeps what came of them.
struct Tour {
    documents: Vec<Document>,
    home: tempfile::TempDir,
    /// Of all processes so far.
    log: String,
    runs: BTreeMap<World, usize>,
    ran: BTreeSet<(String, usize)>,
    failures: Vec<String>,
}

impl Tour {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a home directory");
        let settings = format!("{CURL_SETTINGS}{NAMES}\n");
        std::fs::write(home.path().join(".curlrc"), settings).expect("curl's settings");
        Self {
            documents: nagi_seeds::documents(),
            home,
            log: String::new(),
            runs: BTreeMap::new(),
            ran: BTreeSet::new(),
            failures: Vec::new(),
        }
    }

    /// Runs what is expected of any command in these worlds.
    fn run(&mut self, worlds: &[World], machine: Option<&Machine>) {
        for document in self.documents.clone() {
            for seed in &document.commands {
                let here = seed.expect.iter().filter(|e| worlds.contains(&e.world));
                for expect in here {
                    if let Some(machine) = machine {
                        prepare(machine, expect.replicas);
                    }
                    let before = seed.before.as_deref().unwrap_or_default();
                    let wrong = self.wrong(before, &seed.filled(), expect);
                    if wrong.is_empty() {
                        if let (Some(machine), Some(count)) = (machine, expect.settles) {
                            machine.wait_settled(&APP, u64::from(count));
                        }
                    } else {
                        self.failures.push(format!(
                            "{} line {} ({:?}): {}{wrong}",
                            document.document, seed.line, expect.world, seed.command
                        ));
                    }
                    *self.runs.entry(expect.world).or_default() += 1;
                    if expect.world.is_here() {
                        self.ran.insert((document.document.clone(), seed.line));
                    }
                }
            }
        }
    }

    /// Runs one command; gives what is not as expected, line by line.
    fn wrong(&self, before: &str, command: &str, expect: &Expectation) -> String {
        let stand_in = if expect.world == World::Log {
            "kubectl() { cat \"$CAPTURED\"; }"
        } else {
            ""
        };
        let output = self.bash(&format!("set -o pipefail\n{stand_in}\n{before}\n{command}"));
        let mut wrong = expect.differences(
            output.status.code(),
            &String::from_utf8_lossy(&output.stdout),
            &String::from_utf8_lossy(&output.stderr),
        );
        if let Some(after) = &expect.after
            && !self.bash(after).status.success()
        {
            wrong.push(format!("fails afterwards: {after}"));
        }
        wrong
            .iter()
            .fold(String::new(), |all, line| all + "\n    " + line)
    }

    fn bash(&self, script: &str) -> Output {
        // A command that hangs must not take the whole run with it.
        Command::new("timeout")
            .args(["60", "bash", "--noprofile", "--norc", "-c", script])
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", self.home.path())
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .env("CAPTURED", self.captured())
            .stdin(Stdio::null())
            .output()
            .expect("bash is there")
    }

    fn captured(&self) -> PathBuf {
        self.home.path().join("log")
    }

    fn write_log(&self) {
        std::fs::write(self.captured(), &self.log).expect("a file in the home directory");
    }

    /// Ends a process in order and keeps its log.
    fn end(&mut self, mut machine: Machine) {
        assert_eq!(machine.stop(), (Some(0), None), "{}", machine.log());
        self.log.push_str(&machine.log());
    }

    /// Says what was run, and fails when anything was not as expected.
    fn judge(self) {
        let all: Vec<_> = self
            .documents
            .iter()
            .flat_map(|document| document.commands.iter().map(move |seed| (document, seed)))
            .collect();
        let of_documents: Vec<String> = self
            .documents
            .iter()
            .map(|one| format!("{} {}", one.document, one.commands.len()))
            .collect();
        report(&format!(
            "{REPORT}{} commands of the founding documents ({})",
            all.len(),
            of_documents.join(", ")
        ));
        let of_worlds: Vec<String> = self
            .runs
            .iter()
            .filter(|(world, _)| world.is_here())
            .map(|(world, runs)| format!("{world:?} {runs}").to_lowercase())
            .collect();
        report(&format!(
            "{REPORT}{} ran here as written (runs: {}), and {} more over the log",
            self.ran.len(),
            of_worlds.join(", "),
            self.runs.get(&World::Log).copied().unwrap_or_default()
        ));
        let (mut kubernetes, mut exempt) = (0, BTreeMap::<&str, usize>::new());
        for (_, seed) in all
            .iter()
            .filter(|(_, seed)| seed.needs == Needs::Kubernetes)
        {
            kubernetes += 1;
            if let Some(reason) = seed.exempt.as_deref() {
                *exempt.entry(reason).or_default() += 1;
            }
        }
        let exempt: Vec<String> = exempt
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        report(&format!(
            "{REPORT}{kubernetes} exempt here: kubernetes (of these exempt there too: {})",
            exempt.join(", ")
        ));
        assert!(
            self.failures.is_empty(),
            "{} commands do not work as written:\n{}",
            self.failures.len(),
            self.failures.join("\n")
        );
        let asked = all
            .iter()
            .filter(|(_, seed)| seed.needs == Needs::None)
            .count();
        assert_eq!(self.ran.len(), asked, "a command was left out");
    }
}

/// Brings the sample app to a count of replicas.
fn prepare(machine: &Machine, replicas: u32) {
    let now = machine.call(200, "GET", &APP.path("status"), "");
    if now["deployment"]["desired_replicas"] != replicas {
        let (verb, body) = if replicas == 0 {
            ("scale-to-zero", r#"{"reason":"before"}"#.to_owned())
        } else {
            let body = format!(r#"{{"replicas":{replicas},"reason":"before"}}"#);
            ("scale-up", body)
        };
        machine.call(200, "POST", &APP.path(verb), &body);
    }
    machine.wait_settled(&APP, u64::from(replicas));
}
