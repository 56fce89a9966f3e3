//! `--wait`, `--watch` and `nagi events`: what passes, as it passes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::run::piped;
use crate::server::Server;

/// Workloads that never get ready, each in a way of its own.
const NEVER_READY: &str = r#"
workloads:
  - namespace: team
    name: deaf
    command: [sleep, "1000"]
    port: 8080
    replicas: 0
    awake_replicas: 1
  - { namespace: team, name: broken, command: ["false"], port: 8080, replicas: 0, awake_replicas: 1 }
"#;

// Issue, CLI: `nagi wake … --wait` shows the stages with their times as they pass.
#[test]
fn waking_shows_its_stages_with_their_times_and_ends_when_it_serves() {
    let server = Server::of_two_projects();
    // Its node is gone, so that every stage is passed.
    server
        .ok("sleep sample-app-a --wait")
        .says("s  asleep")
        .prints("asleep after");
    server.until(Duration::from_secs(20), "pools -o json", |ran| {
        ran.json()["items"][0]["nodes"] == serde_json::json!([])
    });
    let ran = server
        .ok("wake sample-app-a -n project-a --wait")
        .prints(", 1 replica serving");
    let stages: Vec<(f64, &str)> = ran
        .stderr
        .lines()
        .map(|line| {
            let (seconds, stage) = line.split_once(" s  ").expect("a time and a stage");
            (seconds.trim().parse().expect("seconds"), stage)
        })
        .collect();
    let names: Vec<&str> = stages.iter().map(|(_, stage)| *stage).collect();
    assert_eq!(
        names,
        ["accepted", "scaling", "node-joining", "starting", "ready"],
        "{ran:?}"
    );
    assert!(
        stages.is_sorted_by(|one, next| one.0 <= next.0),
        "{stages:?}"
    );
    assert!(stages[4].0 >= 0.3, "the node boots for 300 ms: {stages:?}");
    let status = server.ok("status sample-app-a -o json").json();
    assert_eq!(status["deployment"]["status"], "active");
}

#[test]
fn waiting_for_what_is_done_already_ends_at_once() {
    let server = Server::of_two_projects();
    server.ok("wake sample-app-a --wait").prints("awake after");
    server
        .ok("sleep sample-app-b --wait")
        .prints("asleep after 0.");
}

#[test]
fn programs_get_the_status_and_nothing_else() {
    let server = Server::of_two_projects();
    let ran = server.ok("wake sample-app-b --wait --quiet --output json");
    assert_eq!(ran.stderr, "");
    assert_eq!(ran.json()["deployment"]["status"], "active");
    let ran = server.ok("scale sample-app-b 2 --wait --output json");
    assert_eq!(ran.json()["deployment"]["available_replicas"], 2);
    let ran = server.ok("scale sample-app-b 1 --wait --output json");
    assert_eq!(ran.json()["deployment"]["current_replicas"], 1);
}

#[test]
fn a_wait_that_runs_out_says_so_and_lets_it_go_on() {
    let server = Server::start(NEVER_READY, &[]);
    server
        .nagi("wake deaf --wait --timeout 1s")
        .run()
        .exits(7)
        .prints_nothing()
        .says("team/deaf is not awake after 1s")
        .says("do they listen on their port (on one machine the one in PORT)?")
        .says("'nagi logs team/deaf'")
        .says("hint: it goes on");
    let status = server.ok("status deaf -o json").json();
    assert_eq!(status["deployment"]["desired_replicas"], 1);
}

#[test]
fn a_wake_that_is_given_up_has_an_exit_code_of_its_own() {
    let server = Server::start(NEVER_READY, &[]);
    server
        .nagi("wake broken --wait --timeout 40s")
        .run()
        .exits(10)
        .prints_nothing()
        .says("the wake of team/broken was given up")
        .says("cause: ")
        .says("nagi logs team/broken");
    // It is wanted now and keeps crashing: who asks again is told at once, not when the time is over.
    let again = server.nagi("wake broken --wait --timeout 40s").run();
    again.exits(10);
}

// R19
#[test]
fn events_come_as_they_happen_one_line_each() {
    let server = Server::of_two_projects();
    let mut command = server
        .nagi("events sample-app-b -n project-b --type wake --limit 3 --output json")
        .command();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Whether the stream is open already cannot be seen from outside: wake until something comes.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let events: Vec<serde_json::Value> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                server.ok("wake sample-app-b --wait");
                server.ok("sleep sample-app-b --wait");
            }
        });
        let events = lines
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect();
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        events
    });
    assert!(child.wait().unwrap().success());
    assert_eq!(events.len(), 3);
    for event in &events {
        assert_eq!(event["type"], "wake", "{event}");
        assert_eq!(event["name"], "sample-app-b", "{event}");
    }
}

#[test]
fn a_watched_list_is_printed_again_when_it_changes() {
    let server = Server::of_two_projects();
    let mut command = server
        .nagi("list -n project-b --watch --output json")
        .command();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
    let first = lines.next().unwrap();
    assert_eq!(first["items"][0]["desired_replicas"], 0);
    server.ok("wake sample-app-b");
    let changed = lines.find(|list| list["items"][0]["status"] == "active");
    assert_eq!(changed.unwrap()["items"][0]["desired_replicas"], 1);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_wait_ends_when_somebody_else_decides_otherwise() {
    let server = Server::start(NEVER_READY, &[]);
    let waiting = server.nagi("wake deaf --wait").command();
    let mut waiting = piped(waiting);
    server.until(Duration::from_secs(20), "status deaf -o json", |ran| {
        ran.json()["deployment"]["desired_replicas"] == 1
    });
    server.ok("sleep deaf --reason over");
    let ended = waiting.wait().unwrap();
    assert_eq!(ended.code(), Some(8));
    let mut said = String::new();
    waiting
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(said.contains("somebody changed it meanwhile"), "{said}");
    assert!(
        said.contains("scale-to-zero by anonymous, from 1 to 0: over"),
        "{said}"
    );
}

/// Far longer than a command takes to say something.
const SAID_MAX: Duration = Duration::from_secs(20);

/// What a command says on stderr, line by line.
struct Said(Receiver<String>);

impl Said {
    fn by(command: &mut Child) -> Self {
        let lines = BufReader::new(command.stderr.take().unwrap()).lines();
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            // Whoever reads no more has seen enough.
            lines
                .map_while(Result::ok)
                .all(|line| sender.send(line).is_ok())
        });
        Self(receiver)
    }

    /// The next line that begins with this.
    fn next(&self, beginning: &str) -> String {
        loop {
            let line = self.0.recv_timeout(SAID_MAX);
            let line = line.unwrap_or_else(|_| panic!("never says {beginning:?}"));
            if line.starts_with(beginning) {
                return line;
            }
        }
    }

    /// Everything until its end.
    fn rest(self) -> String {
        self.0.iter().collect::<Vec<_>>().join("\n")
    }
}

/// Lets the server hang until the command says so, and for two tries more.
fn outlives(server: &Server, said: &Said) {
    server.pause();
    let warning = said.next("warning: no answer from");
    assert!(warning.ends_with("within 1 s; trying again"), "{warning}");
    std::thread::sleep(Duration::from_millis(2_500));
    server.go_on();
}

// A server that starts anew, or hangs, is waited for: who looks on is told so, once.
#[test]
fn a_wait_outlives_an_absence_of_the_server_and_tells_of_it_once() {
    let server = Server::start(NEVER_READY, &[]);
    let arguments = "wake deaf --wait --request-timeout 1s";
    let mut waiting = piped(server.nagi(arguments).command());
    let said = Said::by(&mut waiting);
    server.until(Duration::from_secs(20), "status deaf -o json", |ran| {
        ran.json()["deployment"]["desired_replicas"] == 1
    });
    outlives(&server, &said);
    server.ok("sleep deaf");
    assert_eq!(waiting.wait().unwrap().code(), Some(8));
    let rest = said.rest();
    assert!(!rest.contains("trying again"), "{rest}");
    assert!(rest.contains("somebody changed it meanwhile"), "{rest}");
}

#[test]
fn followed_logs_outlive_an_absence_of_the_server_and_tell_of_it_once() {
    let chatty = r#"
workloads:
  - { namespace: team, name: chatty, command: [sh, -c, "echo one; sleep 1000"] }
"#;
    let server = Server::start(chatty, &[]);
    let arguments = "logs chatty --follow --request-timeout 1s";
    let mut following = piped(server.nagi(arguments).command());
    let said = Said::by(&mut following);
    let mut printed = BufReader::new(following.stdout.take().unwrap()).lines();
    assert_eq!(printed.next().unwrap().unwrap(), "one");
    outlives(&server, &said);
    // A second replica prints the same line: following goes on.
    server.ok("scale chatty 2");
    assert!(printed.next().unwrap().unwrap().ends_with("one"));
    following.kill().unwrap();
    following.wait().unwrap();
    assert_eq!(said.rest(), "");
}

// It may be a slip of the keyboard, and it may be a workload of tomorrow.
#[test]
fn events_of_a_name_that_nothing_has_are_warned_of_and_waited_for() {
    let server = Server::of_two_projects();
    let mut waiting = piped(server.nagi("events sample-app-x --limit 1").command());
    let said = Said::by(&mut waiting);
    said.next("warning: no workload is called sample-app-x now");
    said.next("hint: did you mean sample-app-");
    assert!(waiting.try_wait().unwrap().is_none(), "it ended");
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}
