//! What others have set is read as its owner reads it, counts where it is as strict as ours, and is never loosened: U22.

use super::*;

/// Lays files on a node, and says how the limit stands: its standing, and what is held as `KEY=VALUE in FILE`.
fn standing(node: &tempfile::TempDir, what: Capped, files: &[(&str, &str)]) -> (Cap, Vec<String>) {
    for (path, text) in files {
        let path = node.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    of(node.path(), what)
}

fn of(root: &Path, what: Capped) -> (Cap, Vec<String>) {
    let caps = plan(root, &limits()).unwrap();
    let cap = caps.into_iter().find(|cap| cap.what == what).unwrap();
    let held = cap.held.iter();
    let held = held.map(|one| format!("{}={} in {}", one.key, one.value, one.path.display()));
    let held = held.collect();
    (cap, held)
}

/// Files, and what follows from them.
type Case = (Files, Standing, &'static [&'static str]);
type Files = &'static [(&'static str, &'static str)];

const MAIN: &str = "etc/systemd/journald.conf";
const EARLY: &str = "etc/systemd/journald.conf.d/10-a.conf";
const LATE: &str = "etc/systemd/journald.conf.d/90-z.conf";
const VENDOR: &str = "usr/lib/systemd/journald.conf.d/90-z.conf";

// For 8 GiB ours is 409 MiB of journal and 1,228 MiB that stay free.
#[test]
fn a_limit_of_systemd_is_the_last_that_is_said() {
    let cases: [Case; 13] = [
        (
            &[(MAIN, "[Journal]\nSystemMaxUse=409M\n")],
            Standing::Held,
            &["SystemMaxUse=409M in /etc/systemd/journald.conf"],
        ),
        (
            &[(MAIN, "[Journal]\nSystemMaxUse=410M\n")],
            Standing::Missing,
            &[],
        ),
        // In another section, as a comment, as no size, and as no limit.
        (
            &[(MAIN, "[Other]\nSystemMaxUse=1M\n")],
            Standing::Missing,
            &[],
        ),
        (
            &[(MAIN, "[Journal]\n#SystemMaxUse=1M\n;SystemMaxUse=1M\n")],
            Standing::Missing,
            &[],
        ),
        (
            &[(MAIN, "[Journal]\nSystemMaxUse=some\n")],
            Standing::Missing,
            &[],
        ),
        (
            &[(MAIN, "[Journal]\nSystemMaxUse=0\n")],
            Standing::Missing,
            &[],
        ),
        (
            &[(MAIN, "[Journal]\n SystemMaxUse = 0.25G 50M \n")],
            Standing::Held,
            &["SystemMaxUse=0.25G 50M in /etc/systemd/journald.conf"],
        ),
        (
            &[
                (MAIN, "[Journal]\nSystemMaxUse=1M\n"),
                (EARLY, "[Journal]\nSystemMaxUse=5G\n"),
            ],
            Standing::Missing,
            &[],
        ),
        (
            &[
                (EARLY, "[Journal]\nSystemMaxUse=5G\n"),
                (LATE, "[Journal]\nSystemMaxUse=30M\nSystemMaxUse=bad\n"),
            ],
            Standing::Held,
            &["SystemMaxUse=30M in /etc/systemd/journald.conf.d/90-z.conf"],
        ),
        // The same name in a directory that comes first.
        (
            &[
                (VENDOR, "[Journal]\nSystemMaxUse=30M\n"),
                (LATE, "[Journal]\nCompress=no\n"),
            ],
            Standing::Missing,
            &[],
        ),
        (
            &[(VENDOR, "[Journal]\nSystemMaxUse=30M\n")],
            Standing::Held,
            &["SystemMaxUse=30M in /usr/lib/systemd/journald.conf.d/90-z.conf"],
        ),
        // Under the name of ours, and none of ours.
        (
            &[(
                "etc/systemd/journald.conf.d/50-nagi.conf",
                "[Journal]\nSystemMaxUse=30M\n",
            )],
            Standing::Held,
            &["SystemMaxUse=30M in /etc/systemd/journald.conf.d/50-nagi.conf"],
        ),
        // What stays free is stricter where it is more; the limit itself is still missing.
        (
            &[(MAIN, "[Journal]\nSystemKeepFree=2G\n")],
            Standing::Missing,
            &["SystemKeepFree=2G in /etc/systemd/journald.conf"],
        ),
    ];
    for (files, expected, wanted) in cases {
        let node = node();
        let (cap, held) = standing(&node, Capped::Journal, files);
        assert_eq!(cap.standing, expected, "{files:?}");
        assert_eq!(held, wanted, "{files:?}");
        let leaves_free = held.iter().any(|one| one.starts_with("SystemKeepFree"));
        assert_ne!(cap.text.contains("SystemKeepFree"), leaves_free);
    }
}

#[test]
fn what_a_person_sets_for_dumps_is_held() {
    let node = node();
    let file = (
        "etc/systemd/coredump.conf",
        "[Coredump]\nStorage=external\nMaxUse=100M\n",
    );
    let (cap, held) = standing(&node, Capped::Coredumps, &[file]);
    assert_eq!(cap.standing, Standing::Held);
    assert_eq!(held, ["MaxUse=100M in /etc/systemd/coredump.conf"]);
}

// One of ours that a person made needless, and that says less, goes; one that a later file beats stays; both come back to what
// was there before.
#[test]
fn ours_never_stands_above_a_stricter_one() {
    let node = node();
    let root = node.path();
    apply(root, &plan(root, &limits()).unwrap(), Others::Stay).unwrap();
    let ours = root.join("etc/systemd/journald.conf.d/50-nagi.conf");
    assert!(ours.exists());
    let (cap, _) = standing(
        &node,
        Capped::Journal,
        &[(LATE, "[Journal]\nSystemMaxUse=30M\n")],
    );
    assert_eq!(cap.standing, Standing::Set, "it is not in the way");
    fs::rename(root.join(LATE), root.join("aside")).unwrap();
    let (cap, _) = standing(
        &node,
        Capped::Journal,
        &[(MAIN, "[Journal]\nSystemMaxUse=30M\n")],
    );
    assert_eq!(cap.standing, Standing::Looser);
    let changes = apply(root, &[cap], Others::Stay).unwrap();
    assert_eq!(changes, [(Capped::Journal, Change::Removed)]);
    assert!(!ours.exists());
    let (cap, _) = of(root, Capped::Journal);
    assert_eq!(cap.standing, Standing::Held);
    let changes = apply(root, std::slice::from_ref(&cap), Others::Kept).unwrap();
    assert_eq!(changes, [(Capped::Journal, Change::Left)]);
    // A value of ours that became a looser one is taken out of ours.
    let files = [
        (MAIN, "[Journal]\n"),
        (EARLY, "[Journal]\nSystemKeepFree=3G\n"),
    ];
    let (cap, _) = standing(&node, Capped::Journal, &files);
    apply(root, &[cap], Others::Stay).unwrap();
    let text = fs::read_to_string(&ours).unwrap();
    assert!(text.contains("SystemMaxUse=409M\n") && !text.contains("SystemKeepFree"));
    let (cap, _) = of(root, Capped::Journal);
    assert_eq!(cap.standing, Standing::Set);
    assert_eq!(remove(root, &[cap]).unwrap()[0].1, Change::Removed);
}

// Kubelet's four values count each by itself, and both marks of images stay in order.
#[test]
fn values_of_kubelet_that_are_stricter_are_left_out_of_ours() {
    const CONFIG: &str = "var/lib/kubelet/config.yaml";
    let keys = |text: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.split_once(": "));
        let keys = lines.map(|(key, _)| key.to_owned());
        keys.filter(|key| key.starts_with("container") || key.starts_with("image"))
            .collect()
    };
    let all = [
        "containerLogMaxSize",
        "containerLogMaxFiles",
        "imageGCHighThresholdPercent",
        "imageGCLowThresholdPercent",
    ];
    let cases: [(&str, Standing, &[&str]); 5] = [
        ("kind: KubeletConfiguration\n", Standing::Missing, &all),
        (
            "containerLogMaxSize: 5Mi\ncontainerLogMaxFiles: 9\n",
            Standing::Missing,
            &all[1..],
        ),
        (
            "imageGCLowThresholdPercent: 40\n",
            Standing::Missing,
            &all[..3],
        ),
        // Ours would stand above theirs.
        (
            "imageGCHighThresholdPercent: 60\nimageGCLowThresholdPercent: 50\n",
            Standing::Missing,
            &all[..2],
        ),
        (
            "containerLogMaxSize: 10Mi\ncontainerLogMaxFiles: 2\nimageGCHighThresholdPercent: 70\nimageGCLowThresholdPercent: 65\n",
            Standing::Held,
            &all,
        ),
    ];
    for (text, expected, wanted) in cases {
        let node = node();
        let (cap, _) = standing(&node, Capped::Kubelet, &[(CONFIG, text)]);
        assert_eq!(cap.standing, expected, "{text}");
        assert_eq!(keys(&cap.text), wanted, "{text}");
    }
    // A drop-in is read after the main file.
    let node = node();
    let files = [
        (CONFIG, "containerLogMaxSize: 5Mi\n"),
        (
            "etc/kubernetes/kubelet.conf.d/10-a.conf",
            "containerLogMaxSize: 50Mi\n",
        ),
    ];
    let (_, held) = standing(&node, Capped::Kubelet, &files);
    assert_eq!(held, Vec::<String>::new());
}

#[test]
fn what_a_person_tells_docker_is_held() {
    const FILE: &str = "etc/docker/daemon.json";
    let cases = [
        (
            "{\"log-opts\": {\"max-size\": \"10m\", \"max-file\": \"3\"}}",
            true,
        ),
        (
            "{\"log-driver\": \"json-file\", \"log-opts\": {\"max-size\": \"512kB\"}}",
            true,
        ),
        (
            "{\"log-opts\": {\"max-size\": \"11m\", \"max-file\": \"3\"}}",
            false,
        ),
        (
            "{\"log-opts\": {\"max-size\": \"1m\", \"max-file\": \"100\"}}",
            false,
        ),
        ("{\"log-opts\": {\"max-size\": \"-1\"}}", false),
        (
            "{\"log-driver\": \"local\", \"log-opts\": {\"max-size\": \"1m\"}}",
            false,
        ),
    ];
    for (text, is_held) in cases {
        let node = node();
        let (cap, _) = standing(&node, Capped::Docker, &[(FILE, text)]);
        assert_eq!(cap.standing == Standing::Held, is_held, "{text}");
        for others in [Others::Stay, Others::Kept] {
            apply(node.path(), std::slice::from_ref(&cap), others).unwrap();
        }
        remove(node.path(), &[cap]).unwrap();
        let left = fs::read_to_string(node.path().join(FILE)).unwrap();
        assert_eq!(left, text);
    }
}
