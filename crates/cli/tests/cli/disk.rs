//! `nagi disk`: what people and programs get, and that it needs nothing of the disk that it looks at.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use nagi_testkit::{Bar, measured};

use crate::run::{Ran, call};

const PIECE: usize = 64 << 10;

/// A node: images, a store, packages, and something with an odd name.
fn node() -> tempfile::TempDir {
    let node = tempfile::tempdir().unwrap();
    let write = |path: &str, pieces: usize| {
        let path = node.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, vec![1; pieces * PIECE]).unwrap();
    };
    write(
        "var/lib/containerd/io.containerd.content.v1.content/blobs/a",
        8,
    );
    write("var/lib/etcd/db", 4);
    write("var/cache/apt/archives/a.deb", 2);
    write("data/<script>alert(1)</script>/it's", 6);
    let odd = OsStr::from_bytes(b"data/odd\xff");
    std::fs::write(node.path().join(odd), vec![1; 3 * PIECE]).unwrap();
    // Blocks are given out when data is written back.
    let synced = Command::new("sync").arg("-f").arg(node.path()).status();
    assert!(synced.unwrap().success());
    node
}

fn disk(root: &Path, arguments: &[&str]) -> Ran {
    let root = root.to_str().unwrap();
    let words = ["disk", "--root", root, root];
    call(&[&words[..], arguments].concat()).run()
}

/// What `du` says, in bytes.
fn du(path: &Path) -> u64 {
    let output = Command::new("du")
        .args(["-sx", "--block-size=1"])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split('\t').next().unwrap().parse().unwrap()
}

// B-008, B-009, D-05, D-07
#[test]
fn programs_get_bytes_by_owner_and_by_directory() {
    let node = node();
    let answer = disk(node.path(), &["--output", "json"]).exits(0).json();
    assert_eq!(answer["status"], "success");
    let place = &answer["places"][0];
    assert_eq!(place["bytes"].as_u64(), Some(du(node.path())));
    let owner = |name: &str| {
        let owners = place["owners"].as_array().unwrap();
        let found = owners.iter().find(|owner| owner["owner"] == name);
        found
            .unwrap_or_else(|| panic!("no {name}: {place:#}"))
            .clone()
    };
    assert_eq!(owner("containerd content")["class"], "owner");
    assert_eq!(owner("apt packages")["class"], "nagi");
    assert_eq!(owner("apt packages")["lever"], "apt-get clean");
    assert_eq!(owner("unknown")["class"], "unknown");
    let classes = place["classes"].as_array().unwrap();
    let sum: u64 = classes
        .iter()
        .map(|one| one["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(sum, place["bytes"].as_u64().unwrap());
    let root = &place["tree"][0];
    assert_eq!(root["bytes"], place["bytes"]);
    let names: Vec<&str> = root["directories"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["path"].as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    assert_eq!(names, ["var", "data"], "the largest first");
    // A name that is no text is shown, and can be taken back.
    let files = place["largest_files"].as_array().unwrap();
    let odd = files
        .iter()
        .find(|file| file["path_hex"].is_string())
        .unwrap();
    assert!(odd["path"].as_str().unwrap().ends_with("/data/odd\\xff"));
    assert!(odd["path_hex"].as_str().unwrap().ends_with("6f6464ff"));
    assert_eq!(place["whole_filesystem"], false);
    assert_eq!(place["unread"]["count"], 0);
    assert!(
        answer["filesystems"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    );
}

#[test]
fn people_get_tables_with_shares() {
    let node = node();
    let ran = disk(node.path(), &[]).exits(0);
    for part in [
        "MOUNTED ON",
        "containerd content",
        "nagi disk clean --only images",
        "OF PARENT",
        "odd\\xff",
    ] {
        assert!(ran.stdout.contains(part), "no {part:?} in {}", ran.stdout);
    }
    assert!(
        !ran.stdout.contains('\u{1b}'),
        "no colours without a terminal"
    );
    let wide = disk(node.path(), &["--output", "wide"]).exits(0);
    assert!(wide.stdout.contains("SOURCE"), "{}", wide.stdout);
    let yaml = disk(node.path(), &["--output", "yaml"]).exits(0);
    assert!(yaml.stdout.contains("status: success"), "{}", yaml.stdout);
}

#[test]
fn sums_alone_are_those_of_du() {
    let node = node();
    let (var, data) = (node.path().join("var"), node.path().join("data"));
    let names = [&var, &data].map(|path| path.to_str().unwrap());
    let ran = call(&["disk", "--total", names[0], names[1]])
        .run()
        .exits(0);
    assert_eq!(ran.stdout.lines().count(), 3, "{}", ran.stdout);
    let words = ["disk", "--total", "--output", "json", names[0], names[1]];
    let answer = call(&words).run().exits(0).json();
    for (place, path) in [(0, &var), (1, &data)] {
        assert_eq!(answer["places"][place]["bytes"].as_u64(), Some(du(path)));
        assert_eq!(
            answer["places"][place]["owners"].as_array().map(Vec::len),
            Some(1)
        );
    }
}

#[test]
fn the_treemap_is_one_file_that_fetches_nothing_and_runs_no_names() {
    let node = node();
    let file = node.path().join("page.html");
    disk(node.path(), &["--html", file.to_str().unwrap()])
        .exits(0)
        .says("treemap written to");
    let page = std::fs::read_to_string(&file).unwrap();
    for outside in ["src=", "href=", "http:", "https:", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside} in the page");
    }
    assert!(page.contains("default-src 'none'"));
    assert_eq!(page.matches("<script>").count(), 1, "only its own");
    assert!(page.contains("&lt;script&gt;alert(1)"));
    for class in [
        "class=\"d owner\"",
        "class=\"d nagi\"",
        "class=\"d unknown\"",
    ] {
        assert!(page.contains(class), "no {class}");
    }
    let printed = disk(node.path(), &["--html", "-"]).exits(0);
    assert!(printed.stdout.starts_with("<!doctype html>") && printed.stdout.ends_with("</html>\n"));
    disk(node.path(), &["--html", "/nowhere/page.html"])
        .exits(1)
        .says("hint: on a full disk: --html -");
}

#[test]
fn what_cannot_be_surveyed_is_refused_with_a_next_step() {
    call(&["disk", "/nowhere"])
        .run()
        .exits(2)
        .prints_nothing()
        .says("cannot find /nowhere");
    call(&["disk", "/proc/self/net"])
        .run()
        .exits(2)
        .prints_nothing()
        .says("of type proc, which is not walked")
        .says("hint: name a directory on a disk");
    call(&["disk", "--root", "/nowhere"])
        .run()
        .exits(2)
        .prints_nothing();
    call(&["disk", "--total", "--html", "-", "/"])
        .run()
        .exits(2)
        .prints_nothing();
}

// B-027, D-12: not a byte and not an inode is left, also not for temporary files.
#[test]
fn it_runs_from_a_full_disk() {
    if !nagi_testkit::may_mount() {
        return;
    }
    let script = "\
        mount -t tmpfs -o size=64k,nr_inodes=8 none /mnt && cd /mnt && mkdir tree && \
        head -c 100k /dev/zero > tree/fill 2> /dev/null; \
        for n in 1 2 3 4 5 6 7 8; do touch tree/$n 2> /dev/null; done; \
        touch more 2> /dev/null && exit 90; echo x >> tree/1 && exit 91; \
        TMPDIR=/mnt HOME=/mnt \"$NAGI\" disk --output json /mnt";
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script])
        .env("NAGI", env!("CARGO_BIN_EXE_nagi"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{:?}: {said}", output.status);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let place = &answer["places"][0];
    assert_eq!(place["gap"]["unexplained"], 0, "{place:#}");
    assert_eq!(place["gap"]["used"], 64 << 10);
    let is_here = |one: &&serde_json::Value| one["mounted_on"]["path"] == "/mnt";
    let all = answer["filesystems"].as_array().unwrap();
    let space = &all.iter().find(is_here).unwrap()["space"];
    assert_eq!(
        (&space["available"], &space["inodes_free"]),
        (&0.into(), &0.into())
    );
}

// B20: a survey asks for no more than the one capability to read everything. Whoever has it and is otherwise nobody sees what
// root sees.
#[test]
fn the_right_to_read_everything_is_all_that_a_survey_needs() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return nagi_testkit::skipped("only root can give one of its capabilities to nobody");
    }
    let node = node();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(node.path(), 0o755);
    for closed in ["var/lib/etcd", "var/cache/apt/archives"] {
        mode(&node.path().join(closed), 0o700);
    }
    // Where this checkout lies, nobody may be shut out.
    let open = tempfile::tempdir().unwrap();
    mode(open.path(), 0o755);
    let nagi = open.path().join("nagi");
    // By a process of its own, so that nobody here has it open for writing when it is run.
    let mut copy = std::process::Command::new("cp");
    let copied = copy.arg(crate::run::program()).arg(&nagi).status();
    assert!(copied.unwrap().success());
    mode(&nagi, 0o755);
    let place = |capabilities: &str| {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(
                ["bounding-set", "inh-caps", "ambient-caps"]
                    .map(|set| format!("--{set}={capabilities}")),
            )
            .arg(&nagi)
            .args(["disk", "--output", "json", "--root"])
            .args([node.path(), node.path()])
            .output()
            .unwrap();
        let answer = serde_json::from_slice::<serde_json::Value>(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        answer.expect(&said)["places"][0].clone()
    };
    let all = disk(node.path(), &["--output", "json"]).exits(0).json();
    let all = &all["places"][0];
    let seen = place("-all,+dac_read_search");
    for part in ["bytes", "owners"] {
        assert_eq!(seen[part], all[part], "{seen:#}");
    }
    let without = place("-all");
    assert_eq!(
        without["unread"]["count"], 2,
        "they are closed: {without:#}"
    );
    let unread = seen["unread"]["count"].as_f64().unwrap();
    let what = "directories are closed to a survey with CAP_DAC_READ_SEARCH alone";
    measured("B20", what, (unread, "files"), Bar::AtMost(0.0));
    assert!(unread == 0.0, "{seen:#}");
}

// A name that leads nowhere, or to no directory, is a wrong command line, and rights do not help.
#[test]
fn what_is_no_directory_is_a_wrong_command_line() {
    let node = tempfile::tempdir().unwrap();
    let file = node.path().join("file");
    std::fs::write(&file, "").unwrap();
    let missing = node.path().join("missing");
    for words in [
        ["disk", file.to_str().unwrap()].as_slice(),
        &["disk", "--root", file.to_str().unwrap()],
        &["disk", "--root", missing.to_str().unwrap()],
        &["disk", missing.to_str().unwrap()],
    ] {
        let ran = call(words).run().exits(2).prints_nothing();
        assert!(!ran.stderr.contains("sudo"), "{}", ran.stderr);
    }
}
