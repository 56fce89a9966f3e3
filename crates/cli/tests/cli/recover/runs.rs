//! `nagi recover run` and `drill` on the incident of the founding document.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nagi_testkit::{Bar, measured};
use rustix::fs::FlockOperation;
use serde_json::Value;

use super::incident::{Full, Incident};
use super::loops::{self, Loops};
use crate::run::Ran;

/// Tests that are worth running often, run so often.
const SOAK: &str = "NAGI_TEST_SOAK";

fn with(full: Full, test: impl FnOnce(&Incident)) {
    loops::inside(|loops| {
        if loops == Loops::Allowed {
            test(&Incident::new(full));
        }
    });
}

fn rung<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let rungs = answer["ladder"].as_array().unwrap();
    rungs.iter().find(|one| one["rung"] == name).unwrap()
}

fn disk<'a>(state: &'a Value, point: &str) -> &'a Value {
    let disks = state["disks"].as_array().unwrap();
    let found = disks.iter().find(|one| one["mounted_on"] == point);
    found.unwrap_or_else(|| panic!("no {point} in {state:#}"))
}

fn steps(answer: &Value) -> Vec<String> {
    let done = answer["done"].as_array().unwrap();
    done.iter()
        .map(|one| one["step"].as_str().unwrap().to_owned())
        .collect()
}

fn recovered(ran: &Ran) -> Value {
    let answer = ran.json();
    assert_eq!(ran.code, 0, "{answer:#}\n{}", ran.stderr);
    assert_eq!(answer["status"], "recovered", "{answer:#}");
    answer
}

// What the tests here prove is not decided by how full this machine is, nor may anything of it go with the test's own files.
#[test]
fn nothing_of_the_node_lies_on_this_machine() {
    with(Full::Packages, |incident| {
        let planned = incident.recover(&["--output", "json"]).run().exits(0);
        let answer = planned.json();
        let disks = answer["before"]["disks"].as_array().unwrap().iter();
        let mut points: Vec<&str> = disks
            .map(|one| one["mounted_on"].as_str().unwrap())
            .collect();
        points.sort_unstable();
        assert_eq!(points, ["/", "/run", "/var"], "{answer:#}");
        let size = |path: &std::path::Path| rustix::fs::statvfs(path).unwrap().f_blocks;
        let own = size(&incident.path(""));
        assert_ne!(own, size(&std::env::temp_dir()));
        for shown in ["usr", "proc", "dev"] {
            let made = fs::create_dir(incident.path(shown).join("of-a-test"));
            assert!(made.is_err(), "{shown}");
        }
    });
}

// B-001, B-016, B-017, B-021, B-038, B-040, B-041, D-11, D-12, D-20, W-B10, W-B11
#[test]
fn a_full_disk_with_the_api_server_down_is_brought_back_by_one_command() {
    with(Full::Packages, |incident| {
        // A plan first, and nothing changes.
        let before = incident.digest();
        let began = Instant::now();
        let ran = incident.recover(&[]).run().exits(0);
        let planned = began.elapsed();
        for part in [
            "Cause: disk-full at /var",
            "free",
            "restart-kubelet",
            "every filesystem",
        ] {
            assert!(ran.stdout.contains(part), "no {part:?} in {}", ran.stdout);
        }
        ran.says("hint: nothing was changed");
        assert_eq!(incident.digest(), before);
        let began = Instant::now();
        let answer = recovered(&incident.apply(&[]));
        tell_times(&answer, planned, began.elapsed());
        assert_eq!(steps(&answer), ["free", "restart-kubelet"]);
        assert_eq!(incident.told(), ["restart kubelet.service"]);
        let free = &answer["done"][0];
        // To the byte, but for what others write meanwhile: here nobody does.
        assert_eq!(free["expected_bytes"], free["measured_bytes"], "{free:#}");
        assert!(free["expected_bytes"].as_u64().unwrap() > 10 << 20);
        let was = disk(&answer["before"], "/var");
        assert_eq!(
            (&was["used_percent"], &was["available"]),
            (&100.into(), &0.into())
        );
        assert!(
            answer["before"]["api_server"]
                .as_str()
                .unwrap()
                .starts_with("down")
        );
        let is = disk(&answer["after"], "/var");
        let used = is["used_percent"].as_f64().unwrap();
        measured(
            "B10",
            "is used on a disk that is told as recovered",
            (used, "%"),
            Bar::AtMost(80.0),
        );
        assert!(used <= 80.0, "{is:#}");
        assert_eq!(answer["after"]["api_server"], "ready");
        assert_eq!(incident.writes.load(Ordering::SeqCst), 1);
        // The audit of what went, and nothing else of ours.
        assert!(!incident.path("run/nagi/recover.json").exists());
        // Again: nothing is to be done, and it is still proven.
        let answer = recovered(&incident.apply(&[]));
        assert_eq!(steps(&answer), Vec::<String>::new());
        assert_eq!(incident.told().len(), 1);
    });
}

/// B15: the whole, and what of it is neither a wait for what was started nor the time for which it has to hold.
fn tell_times(answer: &Value, planned: Duration, whole: Duration) {
    let times = answer["times"].as_array().unwrap().iter();
    let ours = times.filter(|one| one["part"] != "proof");
    let ours: f64 = ours.map(|one| one["seconds"].as_f64().unwrap()).sum();
    for (what, seen, goal) in [
        (
            "the plan of a recovery is printed",
            planned.as_secs_f64(),
            3.0,
        ),
        (
            "a full disk until the cluster is proven to be back",
            whole.as_secs_f64(),
            60.0,
        ),
        ("of that, diagnosis, plan and steps", ours, 10.0),
    ] {
        measured("B15", what, (seen, "s"), Bar::AtMost(goal));
    }
}

// B-016: a kubelet without a container runtime starts nothing, so that comes first.
#[test]
fn a_container_runtime_that_is_down_is_started_before_kubelet() {
    with(Full::Packages, |incident| {
        incident.without_runtime();
        let answer = recovered(&incident.apply(&[]));
        let expected = ["free", "start-runtime", "restart-kubelet"];
        assert_eq!(steps(&answer), expected, "{answer:#}");
        let told = ["start containerd.service", "restart kubelet.service"];
        assert_eq!(incident.told(), told);
    });
}

// B-042, B10, W-B07
#[test]
fn a_disk_that_stays_above_its_target_is_up_and_not_stable() {
    with(Full::PackagesAndOther, |incident| {
        let ran = incident.apply(&[]);
        let answer = ran.json();
        assert_eq!(ran.code, 15, "{answer:#}\n{}", ran.stderr);
        assert_eq!(answer["status"], "up-not-stable");
        assert_eq!(rung(&answer, "space")["outcome"], "failed");
        assert_eq!(rung(&answer, "nodes")["outcome"], "passed");
        ran.says("up, not stable");
        let used = disk(&answer["after"], "/var")["used_percent"].as_f64();
        let what = "is used on a disk that is told as 'up, not stable'";
        measured("B10", what, (used.unwrap(), "%"), Bar::AtLeast(81.0));
    });
}

// D-12: without an inode nothing can be made, and nothing has to be.
#[test]
fn a_disk_without_inodes_is_brought_back() {
    with(Full::Inodes, |incident| {
        let answer = recovered(&incident.apply(&[]));
        assert_eq!(steps(&answer), ["free", "restart-kubelet"]);
        assert_eq!(answer["cause"]["id"], "inodes-exhausted");
    });
}

// D-16: a kubelet that starts on a full disk deletes pods.
#[test]
fn nothing_is_started_on_a_disk_that_stays_full() {
    with(Full::Other, |incident| {
        let before = incident.digest();
        let ran = incident.apply(&[]).exits(5);
        let answer = ran.json();
        assert_eq!(answer["status"], "refused", "{answer:#}");
        let why = answer["plan"]["refusals"][0]["why"].to_string();
        assert!(why.contains("nothing on /var may go"), "{why}");
        assert_eq!(incident.told(), Vec::<String>::new());
        // A lock is made, in memory.
        assert_eq!(
            incident.digest().replace(&of_lock(incident), ""),
            before.replace(&of_lock(incident), "")
        );
        ran.says("hint: nagi disk");
    });
}

// 5-10: nothing may go, and images were passed over for a manifest that the full disk cut off: the file is named where the
// refusal is, for mending it is the next step.
#[test]
fn a_manifest_for_which_images_were_passed_over_is_named() {
    with(Full::Other, |incident| {
        let manifest = "etc/kubernetes/manifests/kube-vip.yaml";
        incident
            .node
            .write(manifest, "apiVersion: v1\nkind: Pod\nspec: {contain");
        let answer = incident
            .recover(&["--output", "json"])
            .run()
            .exits(5)
            .json();
        let refusals = answer["plan"]["refusals"].as_array().unwrap();
        let why: Vec<String> = refusals.iter().map(|one| one["why"].to_string()).collect();
        let nothing = why
            .iter()
            .find(|why| why.contains("nothing on /var may go"));
        let nothing = nothing.unwrap_or_else(|| panic!("{why:?}"));
        assert!(
            nothing.contains("images at ") && nothing.contains(manifest),
            "{nothing}"
        );
        let alone = answer["plan"]["left_alone"][0].to_string();
        assert!(alone.contains(manifest), "{alone}");
        let ran = incident.recover(&[]).run().exits(5);
        assert!(ran.stdout.contains("Left alone"), "{}", ran.stdout);
    });
}

/// The lines of our own directory under `/run`, and of `/run` itself, which got it.
fn of_lock(incident: &Incident) -> String {
    let digest = incident.digest();
    let run = format!("{}/nagi", incident.path("run").display());
    let lines = digest.split_inclusive('\n');
    lines.filter(|line| line.starts_with(&run)).collect()
}

// D-08: what only a person mends is refused with the next command; space is given back all the same.
#[test]
fn an_expired_certificate_is_refused_and_space_is_given_back() {
    with(Full::Packages, |incident| {
        let pair =
            incident
                .node
                .authority
                .pair("kube-apiserver", &["kubernetes"], super::servers::ENDED);
        incident
            .node
            .write("etc/kubernetes/pki/apiserver.crt", pair.certificate);
        let ran = incident.apply(&[]).exits(16);
        let answer = ran.json();
        assert_eq!(steps(&answer), ["free"], "{answer:#}");
        assert_eq!(incident.told(), Vec::<String>::new());
        assert_eq!(
            answer["plan"]["refusals"][0]["cause"],
            "certificate-expired"
        );
        ran.says("hint: kubeadm certs renew apiserver");
    });
}

// What is done is written down in memory first: where that is full, it is said of what.
#[test]
fn a_run_that_is_full_is_named_with_what_empties_it() {
    with(Full::Packages, |incident| {
        let run = incident.path("run");
        let stat = rustix::fs::statvfs(&run).unwrap();
        let taken = format!("remount,nr_inodes={}", stat.f_files - stat.f_ffree);
        let mounted = std::process::Command::new("mount")
            .args(["-o", &taken])
            .arg(&run)
            .status();
        assert!(mounted.unwrap().success());
        let ran = incident.apply(&[]).exits(1).prints_nothing();
        ran.says("No space left on device").says("hint: 'df /run'");
        assert_eq!(incident.told(), Vec::<String>::new());
    });
}

// W-B10
#[test]
fn two_recoveries_of_one_node_do_not_run_at_once() {
    with(Full::Packages, |incident| {
        fs::create_dir(incident.path("run/nagi")).unwrap();
        let lock = fs::File::create(incident.path("run/nagi/recover.lock")).unwrap();
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        incident
            .apply(&[])
            .exits(8)
            .prints_nothing()
            .says("another nagi recovers this node");
        assert_eq!(incident.told(), Vec::<String>::new());
        drop(lock);
        recovered(&incident.apply(&[]));
    });
}

// B6: killed at any moment, and started again, it ends the same; and its report knows how it was before.
#[test]
fn a_run_that_was_killed_is_started_again_and_ends_the_same() {
    let rounds: u64 = if std::env::var_os(SOAK).is_some() {
        100
    } else {
        6
    };
    with(Full::Packages, |incident| {
        let whole = incident.path("var/cache/apt/archives/p0_1.0_amd64.deb");
        assert!(whole.exists());
        for round in 0..rounds {
            let mut command = incident.recover(&["--apply", "--quiet"]).command();
            let quiet = || std::process::Stdio::null();
            let mut child = command.stdout(quiet()).stderr(quiet()).spawn().unwrap();
            // From before the first look to behind the restart, which takes about a second.
            std::thread::sleep(Duration::from_millis(40 + 997 * round / rounds));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let answer = recovered(&incident.apply(&[]));
        // At most one restart for each run that came so far, and never one on a full disk, which the double fails.
        assert!(
            !incident.told().is_empty()
                && incident.told().len() <= usize::try_from(rounds).unwrap() + 1
        );
        let was = disk(&answer["before"], "/var");
        assert!(was["used_percent"].is_u64(), "{answer:#}");
        assert!(!incident.path("run/nagi/recover.json").exists());
    });
}

// B6: between two steps.
#[test]
fn what_a_killed_run_left_is_in_the_report_of_the_next() {
    with(Full::Packages, |incident| {
        let record = incident.path("run/nagi/recover.json");
        let mut command = incident.recover(&["--apply", "--quiet"]).command();
        let quiet = || std::process::Stdio::null();
        let mut child = command.stdout(quiet()).stderr(quiet()).spawn().unwrap();
        // Killed as soon as it has written down its first step.
        let is_written =
            || fs::read_to_string(&record).is_ok_and(|text| text.contains("\"step\":\"free\""));
        while !is_written() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if !record.exists() {
            return; // It was quicker.
        }
        let answer = recovered(&incident.apply(&[]));
        assert_eq!(answer["resumed"], true, "{answer:#}");
        assert_eq!(steps(&answer)[0], "free");
        assert_eq!(disk(&answer["before"], "/var")["available"], 0);
    });
}

// 5-23: a run with the digest of a plan that was seen is gone on with by the same command, wherever it was killed. What was not
// seen does not go, though it may by every other rule.
#[test]
fn a_plan_that_was_seen_is_gone_on_with_and_nothing_else_goes() {
    with(Full::Packages, |incident| {
        let planned = incident
            .recover(&["--output", "json"])
            .run()
            .exits(0)
            .json();
        let digest = planned["plan"]["digest"].as_str().unwrap();
        let words = ["--apply", "--output", "json", "--digest", digest];
        let mut command = incident.recover(&words).command();
        command.stdout(std::process::Stdio::null());
        let mut child = command
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Some files have gone by then, and others have not.
        let said = std::io::BufReader::new(child.stderr.take().unwrap());
        let lines = std::io::BufRead::lines(said).map_while(Result::ok);
        let mut removed = lines.filter(|line| line.contains("remove apt "));
        assert!(removed.nth(4).is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        let record = fs::read_to_string(incident.path("run/nagi/recover.json")).unwrap();
        assert!(record.contains(digest), "{record}");
        // As old as can be, and of a kind that goes.
        let new = incident.path("var/cache/apt/archives/a0_1.0_amd64.deb");
        fs::write(&new, vec![7; 100_000]).unwrap();
        let file = fs::File::options().append(true).open(&new).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        drop(file);

        let other = "0".repeat(64);
        let ran = incident.apply(&["--digest", &other]).exits(8);
        ran.says("is not what was shown");
        assert_eq!(incident.told(), Vec::<String>::new());
        recovered(&incident.apply(&["--digest", digest]));
        assert!(new.exists(), "nobody has seen it");
        assert!(!incident.path("run/nagi/recover.json").exists());
    });
}

// B-032, D-26: a rehearsal changes nothing, down to the last byte and inode.
#[test]
fn a_drill_changes_nothing_and_says_what_would_be_done() {
    with(Full::Packages, |incident| {
        let stat = || {
            let stat = rustix::fs::statvfs(incident.path("var")).unwrap();
            (stat.f_bfree, stat.f_ffree)
        };
        let (before, was) = (incident.digest(), stat());
        let words = [
            "recover",
            "drill",
            "--min-age",
            "0",
            "--timeout",
            "20s",
            "--output",
            "json",
        ];
        let answer = incident.call(&words).run().exits(0).json();
        assert_eq!(answer["status"], "rehearsed", "{answer:#}");
        let message = answer["message"].as_str().unwrap();
        assert_eq!(
            message,
            "would be done: free, restart-kubelet; nothing was changed"
        );
        assert!(answer["times"].as_array().unwrap().len() == 2);
        assert_eq!((incident.digest(), stat()), (before, was));
        // Of a cluster that runs too: no write goes to it.
        incident.start();
        let answer = incident.call(&words).run().exits(0).json();
        assert_eq!(rung(&answer, "store")["outcome"], "unknown", "{answer:#}");
        assert_eq!(incident.writes.load(Ordering::SeqCst), 0);
    });
}

// B-040, B-041: the report for a ticket.
#[test]
fn a_report_is_had_as_markdown() {
    with(Full::Packages, |incident| {
        let ran = incident.recover(&["--apply", "--markdown"]).run().exits(0);
        for part in [
            "# Recovery: recovered\n",
            "| | Before | After |",
            "| disk /var | 100 % used, 0 B available",
            "| API server | down: refused | ready |",
            "| free | ",
            "| nodes | passed | 3 of 3 nodes are Ready; this node, ",
        ] {
            assert!(ran.stdout.contains(part), "no {part:?} in {}", ran.stdout);
        }
    });
}

// The proof is of this node's own cluster, and another's is not written to.
#[test]
fn a_cluster_that_does_not_list_this_node_is_no_proof_and_is_not_written_to() {
    with(Full::Packages, |incident| {
        incident.is_another.store(true, Ordering::SeqCst);
        let words = ["recover", "run", "--apply", "--output", "json"];
        let proof = [
            "--min-age",
            "0",
            "--timeout",
            "20s",
            "--stable",
            "0",
            "--within",
            "3s",
        ];
        let ran = incident
            .call(&[&words[..], &proof].concat())
            .run()
            .exits(16);
        let answer = ran.json();
        let nodes = rung(&answer, "nodes");
        assert_eq!(nodes["outcome"], "failed", "{nodes:#}");
        assert!(nodes["evidence"].to_string().contains("another cluster"));
        assert_eq!(incident.writes.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn words_that_cannot_be_meant_are_refused_before_anything_is_done() {
    for words in [
        &["--digest", "zzz"][..],
        &["--nodes", "0"],
        &["--stable", "2m", "--within", "1m"],
        &["--markdown", "--output", "json"],
        &["--markdown", "--output", "yaml", "--ssh", "nowhere.invalid"],
    ] {
        let all = [&["recover", "run", "--apply"], words].concat();
        crate::run::call(&all).run().exits(2).prints_nothing();
    }
}

#[test]
fn what_cannot_be_had_again_needs_a_word() {
    with(Full::Packages, |incident| {
        incident
            .apply(&["--lossy"])
            .exits(2)
            .prints_nothing()
            .says("nobody can be asked");
        incident
            .apply(&["--digest", &"0".repeat(64)])
            .exits(8)
            .says("is not what was shown");
        assert_eq!(incident.told(), Vec::<String>::new());
    });
}
