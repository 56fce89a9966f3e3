//! `recover run --ssh` and `recover drill --ssh` on the incident of the founding document: a real sshd leads into the node.

use std::fs;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::FlockOperation;

use super::incident::{Full, Incident};
use super::loops::{self, Loops};
use super::sshd::{Sshd, wait};
use crate::run::{Call, call, piped};

/// The patience of a test.
const PATIENCE: [&str; 4] = ["--min-age", "0", "--timeout", "20s"];
/// So long that it is still proving when it is cut off.
const LONG: [&str; 5] = ["--apply", "--stable", "5m", "--within", "10m"];
const SHORT: [&str; 6] = ["--stable", "0", "--within", "30s", "--nodes", "3"];

fn with(full: Full, test: impl FnOnce(&Incident, &Sshd)) {
    loops::inside(|loops| {
        if loops == Loops::Forbidden {
            return;
        }
        let incident = Incident::new(full);
        let root = incident.node.root.display();
        let enter = format!(
            "ForceCommand exec chroot {root} env PATH=/fake:/usr/bin:/usr/sbin sh -c \"$SSH_ORIGINAL_COMMAND\""
        );
        if let Some(sshd) = Sshd::start_with(&enter) {
            test(&incident, &sshd);
            assert_eq!(left_behind(&incident), Vec::<String>::new());
        }
    });
}

fn recover(sshd: &Sshd, verb: &str, arguments: &[&str]) -> Call {
    let config = sshd.config();
    let words = ["recover", verb, "--ssh", "node", "--ssh-config", &config];
    call(&[&words[..], &PATIENCE, arguments].concat())
}

/// What is in the `/run` of the node of a call.
fn left_behind(incident: &Incident) -> Vec<String> {
    let entries = fs::read_dir(incident.path("run")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("nagi-")).collect()
}

/// What is on the disks of the node. In its `/run` the place of a call is made, and `mount` keeps its own notes.
fn on_disk(incident: &Incident) -> String {
    let run = incident.path("run").display().to_string();
    let digest = incident.digest();
    let lines = digest.split_inclusive('\n');
    lines.filter(|line| !line.starts_with(&run)).collect()
}

/// No run has the node, and nothing of one is there.
fn is_left_alone(incident: &Incident) -> bool {
    let lock = fs::File::open(incident.path("run/nagi/recover.lock")).unwrap();
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        && left_behind(incident).is_empty()
}

// W-B10, D-20: a plan that was seen is what is carried out, and nobody is asked who is not there.
#[test]
fn a_plan_is_seen_over_ssh_and_carried_out_by_its_digest() {
    with(Full::Packages, |incident, sshd| {
        let before = on_disk(incident);
        let drilled = recover(sshd, "drill", &["--nodes", "3", "--output", "json"]).run();
        let drilled = drilled.exits(0).json();
        assert_eq!(drilled["status"], "rehearsed", "{drilled:#}");
        let planned = recover(sshd, "run", &["--lossy", "--output", "json"]).run();
        let planned = planned.says("hint: nothing was changed").exits(0).json();
        assert_eq!(planned["cause"]["id"], "disk-full", "{planned:#}");
        assert!(on_disk(incident) == before, "nothing was changed");

        // Said before anything is sent: the machine is not even called.
        let words = [
            "recover",
            "run",
            "--ssh",
            "nowhere.invalid",
            "--apply",
            "--lossy",
        ];
        let unseen = call(&words).run().exits(2).prints_nothing();
        unseen.says("nobody can be asked").says("--digest");
        let digest = planned["plan"]["digest"].as_str().unwrap();
        let wrong = "0".repeat(64);
        let seen = |digest: &str| {
            let words = ["--apply", "--lossy", "--output", "json", "--digest", digest];
            recover(sshd, "run", &[&words[..], &SHORT].concat()).run()
        };
        seen(&wrong).exits(8).says("is not what was shown");
        let ran = seen(digest).says("restart-kubelet: ");
        let answer = ran.exits(0).json();
        assert_eq!(answer["status"], "recovered", "{answer:#}");
        assert_eq!(incident.told(), ["restart kubelet.service"]);
        assert!(is_left_alone(incident));
    });
}

// B-042: codes and Markdown come back as they are, and the same twice.
#[test]
fn verdicts_and_reports_come_back_over_ssh() {
    with(Full::PackagesAndOther, |_, sshd| {
        let words = [&["--apply", "--markdown"][..], &SHORT].concat();
        let ran = recover(sshd, "run", &words).run().exits(15);
        assert!(
            ran.stdout.starts_with("# Recovery: up-not-stable\n"),
            "{ran:#?}"
        );
        ran.says("up, not stable: ");
        let more = ["--apply", "--stable", "0", "--within", "2s", "--nodes", "4"];
        let ran = recover(sshd, "run", &more).run().exits(16);
        ran.says("not recovered: ");
    });
}

// B6: whoever is called away, and whatever breaks, the run there ends, and the same command goes on with what it left.
#[test]
fn a_run_that_was_cut_off_ends_there_and_is_gone_on_with() {
    with(Full::Packages, |incident, sshd| {
        let record = incident.path("run/nagi/recover.json");
        let is_proving = || {
            fs::read_to_string(&record)
                .is_ok_and(|text| text.contains("\"step\":\"restart-kubelet\""))
        };
        let ended = |child: Child, code: i32, what: &str| {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{said}");
            assert!(said.contains(what), "{said}");
            assert!(
                said.contains("the same command goes on where that ended"),
                "{said}"
            );
            wait("it has ended there", || is_left_alone(incident));
            assert!(record.exists());
        };
        let child = piped(recover(sshd, "run", &LONG).command());
        wait("its steps are done", is_proving);
        sshd.cut();
        ended(child, 6, "the connection to node broke");

        let child = piped(recover(sshd, "run", &LONG).command());
        wait("it runs there", || !is_left_alone(incident));
        kill(
            Pid::from_raw(child.id().try_into().unwrap()),
            Signal::SIGINT,
        )
        .unwrap();
        ended(child, 1, "interrupted");

        let words = [&["--apply", "--output", "json"][..], &SHORT].concat();
        let answer = recover(sshd, "run", &words).run().exits(0).json();
        assert_eq!(answer["resumed"], true, "{answer:#}");
        let steps = answer["done"].as_array().unwrap().iter();
        let steps: Vec<&str> = steps.map(|one| one["step"].as_str().unwrap()).collect();
        assert_eq!(steps, ["free", "restart-kubelet"]);
        assert_eq!(incident.told(), ["restart kubelet.service"]);
    });
}
