//! `nagi recover kubeconfig` and `nagi recover hosts`: what they write, and how it is undone.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use super::node::Node;
use super::servers::{self, Authority, GOOD};
use crate::run::{Ran, call, piped};

const NODE: &str = "ip-172-31-37-254";

/// A kubeconfig of two clusters, the first with the authority of a node.
fn two_clusters(node: &Node, server: &str) -> PathBuf {
    let one = super::node::kubeconfig(server, &node.authority.pem, "token: t");
    let text =
        format!("# of the team\n{one}- name: other\n  cluster: {{ server: \"{server}\" }}\n");
    node.write("home/config", text);
    node.root.join("home/config")
}

fn kubeconfig(file: &Path, arguments: &[&str]) -> Ran {
    let words = [
        "recover",
        "kubeconfig",
        "--kubeconfig",
        file.to_str().unwrap(),
    ];
    call(&[&words[..], &["--timeout", "20s"], arguments].concat()).run()
}

fn undo(file: &Path) -> Ran {
    let words = ["recover", "kubeconfig", "--undo", "--kubeconfig"];
    call(&[&words[..], &[file.to_str().unwrap()]].concat()).run()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

// B-020, B-030, D-19, B12, K-40, W-B13
#[test]
fn server_and_name_are_written_at_once_and_undone() {
    let node = Node::new();
    let pair = node.pair(&[NODE, "kubernetes"]);
    let port = servers::tls(&pair, servers::ready());
    let (far, near) = (
        "https://172.31.37.254:6443",
        format!("https://127.0.0.1:{port}"),
    );
    let file = two_clusters(&node, far);
    fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    let link = node.root.join("link");
    std::os::unix::fs::symlink("home/config", &link).unwrap();
    let before = fs::read_to_string(&file).unwrap();

    // A plan changes nothing.
    kubeconfig(&link, &["--api-server", &near])
        .exits(0)
        .prints(&format!("server           {far} -> {near}"))
        .prints(&format!("tls-server-name  - -> {NODE}"))
        .prints(&format!("certificate for  {NODE}, kubernetes"))
        .says("--apply");
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    assert_eq!(names(file.parent().unwrap()), ["config"]);

    let written = kubeconfig(
        &link,
        &["--api-server", &near, "--apply", "--output", "json"],
    );
    let answer = written.exits(0).json();
    assert_eq!(answer["status"], "written", "{answer:#}");
    let after = fs::read_to_string(&file).unwrap();
    let expected = before.replacen(
        &format!("    server: {far}\n"),
        &format!("    server: {near}\n    tls-server-name: {NODE}\n"),
        1,
    );
    assert_eq!(after, expected);
    assert!(link.is_symlink());
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
    let backup = file.with_file_name("config.nagi-backup");
    assert_eq!(fs::read_to_string(&backup).unwrap(), before);
    assert_eq!(fs::metadata(&backup).unwrap().mode() & 0o7777, 0o640);

    // Twice is once: no change, no second backup.
    let inode = fs::metadata(&file).unwrap().ino();
    let again = kubeconfig(
        &file,
        &["--api-server", &near, "--apply", "--output", "json"],
    );
    assert_eq!(again.exits(0).json()["status"], "unchanged");
    assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
    assert_eq!(
        names(file.parent().unwrap()),
        ["config", "config.nagi-backup", "config.nagi-backup.sha256"]
    );

    // The literal way of the founding document, with what the hosts file then says.
    let literal = format!("https://{NODE}:6443");
    kubeconfig(&file, &["--api-server", &literal, "--offline", "--apply"])
        .exits(0)
        .says("was not asked");
    assert!(
        fs::read_to_string(&file)
            .unwrap()
            .contains(&format!("server: {literal}\n"))
    );
    assert_eq!(
        fs::read_to_string(&backup).unwrap(),
        before,
        "the oldest counts"
    );

    undo(&link).exits(0);
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    assert_eq!(names(file.parent().unwrap()), ["config"]);
    undo(&file).exits(3).says("was not edited here");
}

// B12: never weakens verification.
#[test]
fn a_name_is_written_only_when_a_trusted_certificate_has_it() {
    let node = Node::new();
    let of = |authority: &Authority, names: &[&str]| {
        let pair = authority.pair("kube-apiserver", names, GOOD);
        format!(
            "https://127.0.0.1:{}",
            servers::tls(&pair, servers::ready())
        )
    };
    let closed = format!("https://127.0.0.1:{}", servers::closed());
    let foreign = of(&Authority::new("other"), &[NODE, "kubernetes"]);
    let kubelet = of(&node.authority, &["worker-1"]);
    let right = of(&node.authority, &[NODE, "kubernetes"]);
    let file = two_clusters(&node, &right);
    let before = fs::read_to_string(&file).unwrap();
    for (arguments, code, words) in [
        (
            &["--api-server", &foreign][..],
            5,
            "an authority that the cluster does not have",
        ),
        // The authority of a cluster signs kubelets too.
        (
            &["--api-server", &kubelet],
            5,
            "is for worker-1, not 127.0.0.1",
        ),
        (
            &["--tls-server-name", "kubernetes.default"],
            5,
            "is for ip-172-31-37-254, kubernetes, not",
        ),
        (&["--api-server", &closed], 6, "connection refused"),
        (&["--api-server", "http://127.0.0.1:1"], 2, "https://"),
        (&["--tls-server-name", "a b"], 2, "no name"),
        (&["--cluster", "nobody"], 5, "no cluster 'nobody'"),
    ] {
        let arguments = [arguments, &["--apply"]].concat();
        kubeconfig(&file, &arguments)
            .exits(code)
            .says(words)
            .says("hint: ")
            .prints_nothing();
        assert_eq!(fs::read_to_string(&file).unwrap(), before, "{words}");
        assert_eq!(names(file.parent().unwrap()), ["config"], "{words}");
    }
    let insecure = before.replace(
        "  cluster:\n",
        "  cluster:\n    insecure-skip-tls-verify: true\n",
    );
    fs::write(&file, &insecure).unwrap();
    kubeconfig(&file, &["--apply"])
        .exits(5)
        .says("insecure-skip-tls-verify");
    assert_eq!(fs::read_to_string(&file).unwrap(), insecure);
}

// A user and password in a URL stay where they are.
#[test]
fn no_password_is_printed() {
    let node = Node::new();
    let file = two_clusters(&node, "https://me:secret@172.31.37.254:6443");
    let of = |arguments: &[&str]| {
        let ran = kubeconfig(&file, arguments);
        let all = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!all.contains("secret") && !all.contains("me:"), "{all}");
        ran
    };
    of(&["--offline", "--api-server", "https://a:1"])
        .exits(0)
        .prints("https://172.31.37.254:6443 -> https://a:1");
    of(&["--api-server", "https://me:secret@127.0.0.1:1"]).exits(6);
    of(&["--api-server", "http://me:secret@127.0.0.1:1"]).exits(2);
    of(&["--api-server", "me:secret@127.0.0.1:1"]).exits(2);
    let text = fs::read_to_string(&file).unwrap();
    let proxy = "  cluster:\n    proxy-url: http://me:secret@10.0.0.1:3128\n";
    fs::write(&file, text.replacen("  cluster:\n", proxy, 1)).unwrap();
    of(&[]).exits(6).says("the proxy http://10.0.0.1:3128");
}

#[test]
fn what_others_wrote_is_never_lost() {
    let node = Node::new();
    let server = "https://172.31.37.254:6443";
    let file = two_clusters(&node, server);
    let before = fs::read_to_string(&file).unwrap();
    let to = |server: &str| kubeconfig(&file, &["--offline", "--apply", "--api-server", server]);
    // kubectl is at it.
    let lock = file.with_file_name("config.lock");
    fs::write(&lock, "").unwrap();
    to("https://a:1").exits(8).says("config.lock");
    assert!(lock.exists());
    fs::remove_file(&lock).unwrap();
    // It calls a link by its own name.
    let link = node.root.join("link");
    std::os::unix::fs::symlink("home/config", &link).unwrap();
    let lock = node.root.join("link.lock");
    fs::write(&lock, "").unwrap();
    kubeconfig(
        &link,
        &["--offline", "--apply", "--api-server", "https://a:1"],
    )
    .exits(8)
    .says("link.lock");
    assert_eq!(names(file.parent().unwrap()), ["config"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), before);

    to("https://a:1").exits(0);
    let theirs = fs::read_to_string(&file)
        .unwrap()
        .replace("current-context: admin", "current-context: b");
    fs::write(&file, &theirs).unwrap();
    undo(&file)
        .exits(8)
        .says("changed by somebody else since")
        .says("diff ");
    let context = [
        "--offline",
        "--apply",
        "--api-server",
        "https://b:1",
        "--context",
        "admin",
    ];
    kubeconfig(&file, &context).exits(8).says("earlier edit");
    assert_eq!(fs::read_to_string(&file).unwrap(), theirs);
    let backup = file.with_file_name("config.nagi-backup");
    assert_eq!(fs::read_to_string(backup).unwrap(), before);
}

// A kill at any moment: the file is the old one or the new one, and what stays is told with the next step.
#[test]
fn a_kill_in_an_edit_loses_nothing() {
    let node = Node::new();
    let file = two_clusters(&node, "https://172.31.37.254:6443");
    let before = fs::read_to_string(&file).unwrap();
    let after = before.replacen("https://172.31.37.254:6443", "https://a:1", 1);
    let directory = file.parent().unwrap();
    let lock = file.with_file_name("config.lock");
    let words = ["recover", "kubeconfig", "--kubeconfig"];
    let edit = ["--offline", "--apply", "--api-server", "https://a:1"];
    let edit = [&words[..], &[file.to_str().unwrap()], &edit].concat();
    let start = || piped(call(&edit).command());
    // It has the lock of kubectl, and waits for that of the directory, which somebody has.
    let held = fs::File::open(directory).unwrap();
    held.lock().unwrap();
    let mut child = start();
    super::sshd::wait("it has the lock", || lock.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    drop(held);
    assert_eq!(names(directory), ["config", "config.lock"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    call(&edit)
        .run()
        .exits(8)
        .says("somebody is writing it")
        .says(&format!("rm {}", lock.display()));
    fs::remove_file(&lock).unwrap();

    let began = std::time::Instant::now();
    call(&edit).run().exits(0);
    let whole = began.elapsed();
    undo(&file).exits(0);
    for step in 0..60_u32 {
        let mut child = start();
        std::thread::sleep(whole * step / 50);
        child.kill().unwrap();
        child.wait().unwrap();
        let now = fs::read_to_string(&file).unwrap();
        assert!(now == before || now == after, "{now}");
        if lock.exists() {
            fs::remove_file(&lock).unwrap();
        }
        call(&edit).run().exits(0);
        assert_eq!(fs::read_to_string(&file).unwrap(), after);
        undo(&file).exits(0);
        assert_eq!(fs::read_to_string(&file).unwrap(), before);
        assert_eq!(names(directory), ["config"]);
    }
}

// However little is free, there is an edit with its backup, or neither.
#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        nagi_testkit::skipped("a tmpfs needs root");
        return;
    }
    let node = Node::new();
    let file = two_clusters(&node, "https://172.31.37.254:6443");
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("config");
    let script = "pages=$1 at=$2 from=$3; shift 3\n\
         mount -t tmpfs -o size=256k tmpfs \"$at\" && cp \"$from\" \"$at/config\" || exit 99\n\
         cat /dev/zero >\"$at/rest\" 2>/dev/null; truncate -s -$((pages * 4096)) \"$at/rest\"\n\
         \"$@\" >/dev/null; code=$?\n\
         cmp -s \"$at/config\" \"$from\" && echo same; ls -A \"$at\"; exit $code";
    let edited = "config\nconfig.nagi-backup\nconfig.nagi-backup.sha256\nrest\n";
    let own = at.join("config");
    let own = own.to_str().unwrap();
    fs::create_dir(&at).unwrap();
    let mut failed = 0;
    for pages in 0..12 {
        let pages = pages.to_string();
        let words = ["recover", "kubeconfig", "--kubeconfig", own];
        let edit = ["--offline", "--apply", "--api-server", "https://a:1"];
        let through = ["--mount", "sh", "-c", script, "sh", &pages];
        let paths = [at.to_str().unwrap(), file.to_str().unwrap()];
        let ran = call(&[&words[..], &edit].concat())
            .through("unshare", &[&through[..], &paths].concat())
            .run();
        if ran.code == 0 {
            assert_eq!(ran.stdout, edited, "{ran:#?}");
        } else {
            failed += 1;
            let ran = ran.exits(1).says("No space left on device");
            assert_eq!(ran.stdout, "same\nconfig\nrest\n", "{pages}: {ran:#?}");
        }
    }
    assert!((3..12).contains(&failed), "{failed}");
}

// B-019, W-B13
#[test]
fn the_line_of_the_hosts_file_comes_once_and_goes_without_a_trace() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hosts");
    let before = "127.0.0.1\tlocalhost\n# ours\n10.0.0.1  db # 127.0.0.1 ip-172-31-37-254";
    fs::write(&file, before).unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o664)).unwrap();
    let hosts = |arguments: &[&str]| {
        let words = [
            "recover",
            "hosts",
            "--file",
            file.to_str().unwrap(),
            "--output",
            "json",
        ];
        call(&[&words[..], arguments].concat()).run()
    };
    let read = || fs::read_to_string(&file).unwrap();
    // A name in the current directory will do.
    let mut near = call(&["recover", "hosts", NODE, "--file", "hosts"]).command();
    assert!(
        near.current_dir(&directory)
            .output()
            .unwrap()
            .status
            .success()
    );
    assert_eq!(hosts(&[NODE]).exits(0).json()["status"], "planned");
    assert_eq!(read(), before);
    assert_eq!(
        hosts(&[NODE, "--apply"]).exits(0).json()["status"],
        "written"
    );
    let line = format!("\n127.0.0.1 {NODE} # by nagi");
    assert_eq!(read().matches(&line).count(), 1);
    assert!(read().starts_with(before));
    assert_eq!(
        hosts(&[NODE, "--apply"]).exits(0).json()["status"],
        "unchanged"
    );
    assert_eq!(read().matches(&line).count(), 1);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o664);
    hosts(&[NODE, "--remove", "--apply"]).exits(0);
    assert_eq!(read(), before);
    assert_eq!(
        hosts(&[NODE, "--remove", "--apply"]).exits(0).json()["status"],
        "unchanged"
    );
    hosts(&["db", "--apply"])
        .exits(5)
        .says("line 3 of")
        .says("10.0.0.1");
    hosts(&["a b", "--apply"]).exits(2);
    hosts(&[NODE, "--apply"]).exits(0);
    hosts(&[NODE, "--remove", "--apply", "--address", "127.0.0.2"])
        .exits(5)
        .says("leads ip-172-31-37-254 to 127.0.0.1")
        .says("--address 127.0.0.1");
    hosts(&[NODE, "--remove", "--apply"]).exits(0);
    assert_eq!(read(), before);
    assert_eq!(names(directory.path()), ["hosts"]);
}
