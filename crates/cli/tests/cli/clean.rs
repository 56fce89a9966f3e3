//! `nagi disk clean`: dry unless told otherwise, plans that are kept as files, and how it ends.
//!
//! What it may remove is tested where it is decided, in `crates/guard/tests/disk/clean`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::run::{Call, Ran, call};

const PACKAGE: &str = "var/cache/apt/archives/a_1.0_amd64.deb";
const LOG: &str = "var/log/pods/ns_pod_uid/main/0.log.20260102-030405";

/// A node in a directory; none where that lies on no disk, as in some containers.
fn node() -> Option<tempfile::TempDir> {
    let node = tempfile::tempdir().unwrap();
    for directory in ["run", "var/lib"] {
        fs::create_dir_all(node.path().join(directory)).unwrap();
    }
    for path in [
        PACKAGE,
        LOG,
        "var/log/pods/ns_pod_uid/main/0.log",
        "var/cache/apt/archives/mine.deb",
        "var/lib/docker/containers/x/y",
    ] {
        let path = node.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![7; 100_000]).unwrap();
    }
    let answer = clean(node.path(), &["--output", "json"]).exits(0).json();
    if answer["skipped"]
        .as_array()
        .is_some_and(|places| !places.is_empty())
    {
        nagi_testkit::skipped("the directory for temporary files lies on no disk");
        return None;
    }
    Some(node)
}

/// All of it, without a grace: a test has no hour.
fn clean(root: &Path, arguments: &[&str]) -> Ran {
    cleaning(root, arguments).run()
}

fn cleaning(root: &Path, arguments: &[&str]) -> Call {
    let root = root.to_str().unwrap();
    let words = ["disk", "clean", "--root", root, "--min-age", "0"];
    let target: &[&str] = if arguments.contains(&"--target") {
        &[]
    } else {
        &["--target", "0"]
    };
    call(&[&words[..], target, arguments].concat())
}

fn carry_out(plan: &Path, arguments: &[&str]) -> Ran {
    let words = ["disk", "clean", "--apply", "--plan", plan.to_str().unwrap()];
    call(&[&words[..], arguments].concat()).run()
}

fn plan_file(root: &Path) -> (PathBuf, Value) {
    let file = root.join("plan.json");
    let answer = clean(root, &["--lossy", "--output", "json"])
        .exits(0)
        .json();
    fs::write(&file, answer.to_string()).unwrap();
    (file, answer)
}

fn there(root: &Path) -> [bool; 3] {
    [PACKAGE, LOG, "var/cache/apt/archives/mine.deb"].map(|path| root.join(path).exists())
}

// D-13, W-B10: dry by default; what is lossy waits for a word.
#[test]
fn without_apply_nothing_changes_and_with_it_only_what_was_agreed_to() {
    let Some(node) = node() else { return };
    let ran = clean(node.path(), &[]).exits(0);
    for part in [
        "apt",
        "regenerable",
        "pod-logs",
        "needs --lossy",
        "/var/cache/apt",
        "digest ",
    ] {
        assert!(ran.stdout.contains(part), "no {part:?} in {}", ran.stdout);
    }
    let ran = ran.says("hint: nothing was changed");
    ran.says("--lossy would give back");
    assert_eq!(there(node.path()), [true; 3]);
    assert!(!node.path().join("run/nagi").exists(), "not even a lock");
    let ran = clean(node.path(), &["--apply", "--quiet"]).exits(0);
    assert_eq!(there(node.path()), [false, true, true]);
    // The audit is on stderr, quiet or not, and under /run.
    let line = "remove apt /var/cache/apt/archives/a_1.0_amd64.deb ";
    assert!(ran.stderr.contains(line), "{}", ran.stderr);
    let log = fs::read_to_string(node.path().join("run/nagi/disk-audit.log")).unwrap();
    assert!(log.contains(line), "{log}");
    clean(node.path(), &["--apply", "--lossy", "--yes"]).exits(0);
    assert_eq!(there(node.path()), [false, false, true]);
}

// D-11: what was announced and what was measured stand beside each other.
#[test]
fn programs_get_what_was_expected_and_what_was_measured() {
    let Some(node) = node() else { return };
    let answer = clean(
        node.path(),
        &["--apply", "--lossy", "--yes", "--output", "json"],
    )
    .exits(0)
    .json();
    assert_eq!(answer["status"], "success");
    let steps = answer["steps"].as_array().unwrap();
    let names: Vec<&str> = steps
        .iter()
        .map(|step| step["kind"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["apt", "pod-logs"], "the least harmful first");
    for step in steps {
        assert_eq!(step["outcome"]["end"], "done", "{step:#}");
        assert_eq!(step["outcome"]["removed_files"], 1);
        assert!(
            step["outcome"]["expected_bytes"].as_u64() >= Some(98_304),
            "{step:#}"
        );
    }
    let disk = &answer["disks"][0];
    assert!(disk["before"]["used_percent"].is_u64() && disk["after"]["used_percent"].is_u64());
}

// D-13: the plan of a file, letter by letter.
#[test]
fn a_plan_is_kept_as_a_file_and_carried_out_later() {
    let Some(node) = node() else { return };
    let (file, answer) = plan_file(node.path());
    assert_eq!(answer["status"], "planned");
    // P1-6 of the review: the disks and what is expected are told though they are not in the file.
    let carried = carry_out(&file, &["--output", "json"]).exits(0).json();
    assert_eq!(carried["expected_bytes"], answer["expected_bytes"]);
    let disk = &carried["disks"][0];
    assert_eq!(disk["device"], answer["disks"][0]["device"]);
    assert_eq!(disk["expected_bytes"], answer["expected_bytes"]);
    assert!(disk["before"]["used_percent"].is_u64() && disk["after"]["used_percent"].is_u64());
    for path in [PACKAGE, LOG] {
        fs::write(node.path().join(path), vec![7; 100_000]).unwrap();
    }
    let (file, answer) = plan_file(node.path());
    assert_eq!(answer["status"], "planned");
    // What came since is not in it.
    let later = node.path().join("var/cache/apt/archives/later_1_all.deb");
    fs::write(&later, "x").unwrap();
    carry_out(&file, &[]).exits(0);
    assert_eq!(there(node.path()), [false, false, true]);
    assert!(later.exists());
    // Twice: the world has changed.
    carry_out(&file, &[])
        .exits(8)
        .says("is not what the plan says any more");
}

#[test]
fn an_edited_plan_is_refused() {
    let Some(node) = node() else { return };
    let (file, mut answer) = plan_file(node.path());
    answer["plan"]["steps"][0]["items"][0]["file"]["path"] = "archives/mine.deb".into();
    fs::write(&file, answer.to_string()).unwrap();
    carry_out(&file, &[])
        .exits(5)
        .prints_nothing()
        .says("it was edited")
        .says("hint: make a plan anew");
    // Its moment too: the limit of 24 hours counts from there.
    let (_, mut answer) = plan_file(node.path());
    let at = answer["plan"]["at"]["seconds"].as_i64().unwrap();
    answer["plan"]["at"]["seconds"] = (at - 1).into();
    fs::write(&file, answer.to_string()).unwrap();
    carry_out(&file, &[]).exits(5).says("it was edited");
    fs::write(&file, "{\"plan\": 5}").unwrap();
    carry_out(&file, &[])
        .exits(2)
        .prints_nothing()
        .says("holds no plan");
    carry_out(&node.path().join("none"), &[])
        .exits(2)
        .prints_nothing()
        .says("cannot read");
    assert_eq!(there(node.path()), [true; 3]);
}

#[test]
fn a_changed_world_refuses_the_step_and_does_the_others() {
    let Some(node) = node() else { return };
    let (file, _) = plan_file(node.path());
    fs::write(node.path().join(PACKAGE), "shorter").unwrap();
    let ran = carry_out(&file, &[]).exits(8);
    ran.says("apt: refused: /var/cache/apt/archives/a_1.0_amd64.deb is not what the plan says");
    assert_eq!(there(node.path()), [true, false, true]);
}

// D-13: by its digest, as it was shown.
#[test]
fn a_plan_is_named_by_its_digest() {
    let Some(node) = node() else { return };
    let shown = clean(node.path(), &[]).exits(0).stdout;
    let digest = shown
        .lines()
        .find_map(|line| line.strip_prefix("digest "))
        .unwrap()
        .to_owned();
    let wrong = "0".repeat(64);
    clean(node.path(), &["--apply", "--digest", &wrong])
        .exits(8)
        .prints_nothing();
    clean(node.path(), &["--apply", "--digest", "abc"])
        .exits(2)
        .prints_nothing();
    clean(node.path(), &["--apply", "--digest", &digest, "--lossy"])
        .exits(8)
        .prints_nothing();
    assert_eq!(there(node.path()), [true; 3]);
    clean(node.path(), &["--apply", "--digest", &digest]).exits(0);
    assert_eq!(there(node.path()), [false, true, true]);
}

// Decision 10: done means that the target is reached, and the exit code tells when it is not.
#[test]
fn a_disk_that_is_still_above_its_target_is_said_to_be() {
    let Some(node) = node() else { return };
    let ran = clean(node.path(), &["--apply", "--target", "1"]);
    if ran.code == 0 {
        // Less than a hundredth of this machine's disk is used.
        return nagi_testkit::skipped("the disk for temporary files is empty");
    }
    ran.exits(12)
        .says("a disk is still above 1 %")
        .says("hint: --lossy may give back more");
    let ran = clean(node.path(), &["--apply", "--target", "99"]);
    if ran.code == 12 {
        return nagi_testkit::skipped("the disk for temporary files is full");
    }
    ran.exits(0);
    assert_eq!(
        there(node.path()),
        [false, true, true],
        "99 % is reached before anything goes"
    );
}

#[test]
fn a_wrong_command_line_is_refused_with_the_next_step() {
    let rows = [
        ("--plan x", "--apply"),
        ("--digest x", "--apply"),
        ("--apply --plan x --lossy", "--plan <FILE>"),
        (
            "--only etcd",
            "one of apt, pulls, images, containers, snaps, pod-logs, journal, coredumps, local-images",
        ),
        ("--keep relative", "a path of the node"),
        ("--max 0", "a number of bytes"),
        ("--target 100", "100"),
        ("--journal-size 1G", "--journal-mode compat"),
        ("--journal-mode quick", "strict"),
        (
            "--only apt,containers --keep-image x",
            "add a kind to --only (images, local-images)",
        ),
        (
            "--only images --keep /srv",
            "add a kind to --only (apt, snaps, pod-logs, journal, coredumps)",
        ),
        (
            "--only apt --journal-mode compat --journal-size 1G",
            "--journal-mode, --journal-size and --journal-files: no effect",
        ),
        ("--min-age soon", "--min-age"),
    ];
    for (words, said) in rows {
        let words: Vec<&str> = ["disk", "clean"]
            .into_iter()
            .chain(words.split(' '))
            .collect();
        call(&words).run().exits(2).prints_nothing().says(said);
    }
    call(&["disk", "clean", "--root", "/nowhere"])
        .run()
        .exits(1)
        .says("hint: --root names");
}

// P1-9 of the review: what cannot be had again does not go by a plan that nobody has seen, unless that is said.
#[test]
fn what_is_lossy_goes_by_a_plan_that_was_seen_or_by_a_word() {
    let Some(node) = node() else { return };
    clean(node.path(), &["--apply", "--lossy"])
        .exits(2)
        .prints_nothing()
        .says("nobody can be asked")
        .says("hint: say so with --yes");
    assert_eq!(there(node.path()), [true; 3]);
    let shown = clean(node.path(), &["--lossy"]).exits(0).stdout;
    let digest = shown.lines().find_map(|line| line.strip_prefix("digest "));
    clean(
        node.path(),
        &["--apply", "--lossy", "--digest", digest.unwrap()],
    )
    .exits(0);
    assert_eq!(there(node.path()), [false, false, true]);
}

// P1-8 of the review: a path that keeps nothing is a mistake, and a fatal one.
#[test]
fn a_path_to_keep_that_is_not_there_is_refused() {
    let Some(node) = node() else { return };
    std::os::unix::fs::symlink("cache", node.path().join("var/link")).unwrap();
    for path in [
        "/var/cache/apt/archive",
        "/var/link/apt",
        "/var/link",
        "/var/log/../cache/apt",
    ] {
        clean(node.path(), &["--apply", "--keep", path])
            .exits(2)
            .prints_nothing()
            .says("cannot keep")
            .says("hint: --keep names");
    }
    assert_eq!(there(node.path()), [true; 3]);
    clean(node.path(), &["--apply", "--keep", "/var/cache/apt"]).exits(0);
    assert_eq!(there(node.path()), [true; 3]);
}

// P1-5 of the review: where a place that was asked for cannot be looked at, that is no success.
#[test]
fn a_place_that_cannot_be_looked_at_is_no_success() {
    let Some(node) = node() else { return };
    let archives = node.path().join("var/cache/apt");
    let set = |mode| fs::set_permissions(&archives, fs::Permissions::from_mode(mode)).unwrap();
    set(0);
    let mut cleaning = cleaning(node.path(), &["--apply", "--output", "json"]);
    if fs::read_dir(&archives).is_ok() {
        // Root reads everything, unless that is taken from it.
        let without = [
            "--bounding-set=-dac_override,-dac_read_search",
            "--inh-caps=-all",
        ];
        cleaning = cleaning.through("setpriv", &without);
    }
    let ran = cleaning.run();
    set(0o755);
    let ran = ran.exits(1).says("apt: /var/cache/apt was not looked at");
    assert_eq!(ran.json()["status"], "partial");
}

// Without /run there is neither a lock nor a record: nothing is begun.
#[test]
fn without_run_nothing_is_removed() {
    let Some(node) = node() else { return };
    fs::remove_dir(node.path().join("run")).unwrap();
    let ran = clean(node.path(), &["--apply"]).exits(1).prints_nothing();
    ran.says("there is no /run on this node")
        .says("hint: mount a tmpfs");
    assert_eq!(there(node.path()), [true; 3]);
}
