//! `nagi guard caps`, and what `nagi guard` refuses: what is written is tested in `crates/guard/src/caps`.

use std::fs;

use crate::run::{Ran, call};

fn node() -> tempfile::TempDir {
    let node = tempfile::tempdir().unwrap();
    fs::create_dir_all(node.path().join("etc/systemd/journald.conf.d")).unwrap();
    node
}

fn caps(root: &std::path::Path, arguments: &[&str]) -> Ran {
    let words = ["guard", "caps", "--root", root.to_str().unwrap()];
    call(&[&words[..], arguments].concat()).run()
}

// D-23: dry by default, and what was shown as JSON is what is written.
#[test]
fn limits_are_shown_first_and_written_on_demand() {
    let node = node();
    let file = node.path().join("etc/systemd/journald.conf.d/50-nagi.conf");
    let shown = caps(node.path(), &["--only", "journal", "--output", "json"]).exits(0);
    let limits = shown.json();
    assert_eq!(limits["limits"][0]["standing"], "missing", "{limits}");
    assert!(!file.exists(), "a plan writes nothing");
    shown.says("hint: nothing was changed");
    let ran = caps(node.path(), &["--apply"]).exits(0);
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(limits["limits"][0]["text"], text);
    ran.says("journal: systemctl restart systemd-journald");
    caps(node.path(), &["--remove", "--apply"]).exits(0);
    assert!(!file.exists());
}

// U22: what a person has limited at least as strictly is held, is shown with value and file, and is never loosened.
#[test]
fn a_stricter_limit_of_a_person_is_held_and_stays() {
    let node = node();
    let ours = node.path().join("etc/systemd/journald.conf.d/50-nagi.conf");
    let main = node.path().join("etc/systemd/journald.conf");
    fs::write(&main, "[Journal]\nSystemMaxUse=50M\n").unwrap();
    let only = ["--only", "journal", "--journal-max", "200M"];
    let shown = caps(node.path(), &[&only[..], &["--output", "json"]].concat()).exits(0);
    let limit = &shown.json()["limits"][0];
    assert_eq!(limit["standing"], "held", "{limit}");
    assert_eq!(
        limit["held"],
        serde_json::json!([{
            "key": "SystemMaxUse", "value": "50M", "path": "/etc/systemd/journald.conf",
        }])
    );
    caps(node.path(), &only).prints("SystemMaxUse=50M in /etc/systemd/journald.conf");
    let apply = [&only[..], &["--apply"]].concat();
    for replace in [&[][..], &["--replace"]] {
        caps(node.path(), &[&apply[..], replace].concat()).exits(0);
        assert!(!ours.exists());
    }
    // A looser one of theirs is none, and one that becomes stricter later is not covered any more.
    fs::write(&main, "[Journal]\nSystemMaxUse=5G\n").unwrap();
    caps(node.path(), &apply).exits(0);
    assert!(ours.exists());
    fs::write(&main, "[Journal]\nSystemMaxUse=50M\n").unwrap();
    caps(node.path(), &only).exits(0).prints("looser");
    caps(node.path(), &apply)
        .exits(0)
        .says("journal: systemctl restart systemd-journald");
    assert!(!ours.exists());
}

// A file of somebody else is a conflict, and limits that make no sense are a wrong command line.
#[test]
fn what_is_not_ours_or_makes_no_sense_is_refused() {
    let node = node();
    let file = node.path().join("etc/systemd/journald.conf.d/50-nagi.conf");
    fs::write(&file, "[Journal]\n").unwrap();
    let ran = caps(node.path(), &["--apply"]).exits(8);
    ran.says("hint: look at it; --replace puts it aside");
    assert_eq!(fs::read(&file).unwrap(), b"[Journal]\n");
    caps(node.path(), &["--apply", "--replace"]).exits(0);
    caps(node.path(), &["--remove", "--apply"]).exits(0);
    assert_eq!(fs::read(&file).unwrap(), b"[Journal]\n");
    // Ours, and edited: it stays whatever is asked for, and that is said.
    fs::remove_file(&file).unwrap();
    caps(node.path(), &["--apply"]).exits(0);
    let edited = fs::read_to_string(&file).unwrap() + "Storage=persistent\n";
    fs::write(&file, &edited).unwrap();
    caps(node.path(), &[]).exits(0).prints("edited");
    let ran = caps(node.path(), &["--apply"]).exits(8);
    ran.says("journal: the file was edited since nagi wrote it");
    let ran = caps(node.path(), &["--remove", "--apply"]).exits(8);
    ran.says("hint: it stays");
    assert_eq!(fs::read_to_string(&file).unwrap(), edited);
    let aside = file.with_file_name("50-nagi.conf.before-nagi");
    fs::write(&aside, "older").unwrap();
    let ran = caps(node.path(), &["--apply", "--replace"]).exits(1);
    ran.says(".before-nagi: move that away first");
    assert_eq!(fs::read_to_string(&file).unwrap(), edited);
    assert_eq!(fs::read_to_string(&aside).unwrap(), "older");
    for wrong in [
        ["--images-high", "85"],
        ["--log-files", "1"],
        ["--only", "etcd"],
    ] {
        caps(node.path(), &wrong).exits(2).prints_nothing();
    }
    for wrong in [
        ["--every", "100ms"],
        ["--webhook", "https://a"],
        ["--clean-at", "calm"],
        ["--clean", "lossy"],
        ["--syslog", "host"],
    ] {
        let words = ["guard", "--root", "/nowhere", wrong[0], wrong[1]];
        call(&words).run().exits(2).prints_nothing();
    }
}
