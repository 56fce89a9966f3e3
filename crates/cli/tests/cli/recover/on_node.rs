//! `--ssh`: the same command on another machine, through a real sshd on loopback whose `/run` may hold no programs.

use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::node::Node;
use super::sshd::{Sshd, wait};
use crate::run::{Call, call, piped};

fn diagnose(sshd: &Sshd, arguments: &[&str]) -> Call {
    let config = sshd.config();
    let words = [
        "recover",
        "diagnose",
        "--ssh",
        "node",
        "--ssh-config",
        &config,
    ];
    call(&[&words[..], arguments].concat())
}

/// A node that looks for programs in a directory first, and that; none where there can be none.
fn with_stand_ins() -> Option<(Sshd, tempfile::TempDir)> {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::set_permissions(at, PermissionsExt::from_mode(0o755)).unwrap();
    // Not by SetEnv: what the user's own shell does first is not ours.
    let path = format!("PATH={}:/usr/bin:/bin", at.display());
    let lines = format!("ForceCommand {path} exec sh -c \"$SSH_ORIGINAL_COMMAND\"");
    Some((Sshd::start_with(&lines)?, directory))
}

/// A program that is found first there, instead of the node's.
fn stand_in(directory: &std::path::Path, name: &str, script: &str) {
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
}

// The node has no nagi: output and exit code are those of the same call there, and nothing stays.
#[test]
fn a_command_runs_on_the_node_and_leaves_nothing() {
    let Some(sshd) = Sshd::start() else { return };
    let node = Node::new();
    node.write(super::node::API_SERVER, "");
    // A blank, a quote and a line end are of the name.
    let odd = node.root.join("it's\na b");
    std::os::unix::fs::symlink(&node.root, &odd).unwrap();
    let root = odd.to_str().unwrap();
    let arguments = ["--root", root, "--files-only", "--timeout", "20s"];
    let here = call(&[&["recover", "diagnose"][..], &arguments].concat()).run();
    let there = diagnose(&sshd, &arguments).run();
    assert_eq!(here.code, 13, "{here:#?}");
    assert_eq!(there.code, here.code, "{there:#?}");
    assert_eq!(there.stdout, here.stdout);
    assert_eq!(there.stderr, here.stderr);
    assert_eq!(sshd.left_behind(), Vec::<String>::new());

    // 5-27: who reads no further has the verdict all the same.
    let mut child = piped(diagnose(&sshd, &arguments).command());
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(13));

    let failed = diagnose(&sshd, &["--root", "/nowhere"]).run();
    failed
        .exits(2)
        .says("cannot open /nowhere")
        .prints_nothing();
    assert_eq!(sshd.left_behind(), Vec::<String>::new());
    sshd.forget();
    diagnose(&sshd, &[])
        .run()
        .exits(5)
        .says("the host key of node is not known")
        .prints_nothing();
}

// What cannot be done there is said with its reason before anything is sent.
#[test]
fn a_node_that_cannot_run_it_says_why() {
    let Some((sshd, directory)) = with_stand_ins() else {
        return;
    };
    let at = directory.path();
    stand_in(at, "uname", "echo riscv64");
    diagnose(&sshd, &[]).run().exits(5).says("node is riscv64");
    std::fs::remove_file(at.join("uname")).unwrap();

    stand_in(
        at,
        "head",
        "echo head: write error: No space left on device >&2; exit 1",
    );
    let full = diagnose(&sshd, &[]).run();
    full.exits(1).says("No space left on device");
    stand_in(at, "head", "shift 1; exec /usr/bin/head -c 1000");
    diagnose(&sshd, &[])
        .run()
        .exits(1)
        .says("it arrived damaged: ");
    std::fs::remove_file(at.join("head")).unwrap();

    stand_in(at, "id", "echo 1000");
    stand_in(at, "sudo", "echo sudo: a password is required >&2; exit 1");
    diagnose(&sshd, &[])
        .run()
        .exits(4)
        .says("sudo does not work unasked")
        .says("a password is required")
        .says("NOPASSWD");
    stand_in(at, "sudo", "shift; exec \"$@\"");
    let root = tempfile::tempdir().unwrap();
    let root = root.path().to_str().unwrap();
    let done = diagnose(&sshd, &["--root", root, "--files-only"]).run();
    done.exits(14).says("nothing wrong was seen");
    assert_eq!(sshd.left_behind(), Vec::<String>::new());
}

// What a configuration says of the host is for a person's session: no session at all, forwards whose ports are taken.
#[test]
fn it_is_a_command_and_nothing_else_whatever_the_configuration_says() {
    let Some(sshd) = Sshd::start() else { return };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let forward = format!("LocalForward 127.0.0.1:{port} 127.0.0.1:1\nExitOnForwardFailure yes");
    let root = tempfile::tempdir().unwrap();
    let root = root.path().to_str().unwrap();
    for lines in ["SessionType none", &forward] {
        sshd.write_config(lines);
        let done = diagnose(&sshd, &["--root", root, "--files-only"]).run();
        done.exits(14).says("nothing wrong was seen");
    }
}

// What a shell left that was killed goes; the place of a call that may be about to start its program does not.
#[test]
fn an_old_empty_place_goes_and_a_young_one_stays() {
    let Some(sshd) = Sshd::start() else { return };
    let root = tempfile::tempdir().unwrap();
    let root = root.path().to_str().unwrap();
    let ours = |digit: &str| format!("nagi-{}", digit.repeat(32));
    let [old, young, used] = ["a", "2", "f"].map(|digit| sshd.in_run(&ours(digit)));
    // 5-26: the runtime directory of somebody else.
    let [short, other] =
        ["nagi-1", "nagi-gateway-of-somebody-else-who-rests"].map(|name| sshd.in_run(name));
    let hours_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(2);
    for place in [&old, &young, &used, &short, &other] {
        std::fs::create_dir(place).unwrap();
    }
    std::fs::write(used.join("a"), "").unwrap();
    for place in [&old, &used, &short, &other] {
        let place = std::fs::File::open(place).unwrap();
        place.set_modified(hours_ago).unwrap();
    }
    let done = diagnose(&sshd, &["--root", root, "--files-only"]).run();
    done.exits(14);
    let mut left = sshd.left_behind();
    left.sort();
    let stays = [
        "nagi-1".to_owned(),
        ours("2"),
        ours("f"),
        "nagi-gateway-of-somebody-else-who-rests".to_owned(),
    ];
    assert_eq!(left, stays);
}

/// Reading it waits forever.
fn endless() -> Node {
    let node = Node::refused();
    node.remove("proc");
    std::fs::create_dir_all(node.root.join("proc/net")).unwrap();
    let fifo = node.root.join("proc/net/tcp");
    let made = std::process::Command::new("mkfifo").arg(fifo).status();
    assert!(made.unwrap().success());
    node
}

// A network that carries nothing any more ends no connection; the node ends what was begun all the same. It goes on as long as
// this side is there, though the program says nothing meanwhile.
#[test]
fn what_was_begun_there_ends_when_nothing_comes_any_more() {
    let Some(sshd) = Sshd::start() else { return };
    let node = endless();
    let root = node.root.to_str().unwrap();
    let call = diagnose(&sshd, &["--root", root, "--timeout", "10m"]);
    let mut child = piped(call.command());
    wait("it runs there", || sshd.programs() == 1);
    // 5-26: the place of a call that runs for hours is not taken for one that was left.
    let place = sshd.in_run(&sshd.left_behind()[0]);
    let place = std::fs::File::open(place).unwrap();
    let hours_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(2);
    place.set_modified(hours_ago).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(25));
    let touched = place.metadata().unwrap().modified().unwrap();
    assert!(touched > hours_ago + std::time::Duration::from_hours(1));
    drop(place);
    assert_eq!(sshd.programs(), 1, "it is not silent");
    sshd.freeze();
    wait("it has ended there", || {
        sshd.programs() == 0 && sshd.left_behind().is_empty()
    });
    assert_eq!(child.wait().unwrap().code(), Some(6));
}

// 5-25: a connection that falls silent while the program is sent has nobody who notices: the node gives up by itself, whether
// nothing comes at all or the next piece does not.
#[test]
fn what_falls_silent_while_it_is_sent_leaves_nothing() {
    let Some((sshd, directory)) = with_stand_ins() else {
        return;
    };
    let at = directory.path();
    // A minute is two seconds here.
    stand_in(at, "timeout", "shift; exec /usr/bin/timeout 2 \"$@\"");
    stand_in(at, "head", "exec sleep 60");
    let stalled = diagnose(&sshd, &[]).run();
    stalled.exits(1).says("nothing came for a minute");
    assert_eq!(sshd.left_behind(), Vec::<String>::new());
    std::fs::remove_file(at.join("head")).unwrap();

    stand_in(at, "uname", "sleep 2; exec /usr/bin/uname \"$@\"");
    let mut child = piped(diagnose(&sshd, &[]).command());
    wait("it has a place", || !sshd.left_behind().is_empty());
    sshd.freeze();
    wait("it has given up", || sshd.left_behind().is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
}

// Whoever called is gone: so is what it began.
#[test]
fn what_was_begun_there_ends_with_the_call() {
    let Some(sshd) = Sshd::start() else { return };
    let node = endless();
    let root = node.root.to_str().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let call = diagnose(&sshd, &["--root", root, "--timeout", "10m"]);
        let mut child = piped(call.command());
        let is_there = |count| sshd.programs() == count;
        wait("it runs there", || is_there(1));
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        child.wait().unwrap();
        wait("it has ended there", || {
            is_there(0) && sshd.left_behind().is_empty()
        });
    }
}

#[test]
fn a_key_without_a_machine_is_refused() {
    call(&["recover", "diagnose", "--identity", "/k"])
        .run()
        .exits(2)
        .says("--ssh");
}
