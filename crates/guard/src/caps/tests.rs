//! Limits on a node in a directory: written, replaced, refused and taken back.

mod held;

use std::fs;

use super::*;

const GIB: u64 = 1 << 30;

fn node() -> tempfile::TempDir {
    let node = tempfile::tempdir().unwrap();
    for directory in [
        "etc/systemd",
        "etc/kubernetes/kubelet.conf.d",
        "var/lib/snapd",
        "var/lib/systemd/coredump",
        "etc/docker",
    ] {
        fs::create_dir_all(node.path().join(directory)).unwrap();
    }
    node
}

fn limits() -> Limits {
    Limits::for_disk(8 * GIB)
}

fn standings(root: &Path, limits: &Limits) -> Vec<(Capped, Standing)> {
    let caps = plan(root, limits).unwrap();
    caps.into_iter()
        .map(|cap| (cap.what, cap.standing))
        .collect()
}

/// What kubelet reads of its drop-in, and nothing else.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kubelet {
    #[serde(rename = "apiVersion")]
    version: String,
    kind: String,
    container_log_max_size: String,
    container_log_max_files: u8,
    #[serde(rename = "imageGCHighThresholdPercent")]
    high: u8,
    #[serde(rename = "imageGCLowThresholdPercent")]
    low: u8,
}

/// What docker reads.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Docker {
    labels: Vec<String>,
    #[serde(rename = "log-driver")]
    driver: String,
    #[serde(rename = "log-opts")]
    options: std::collections::BTreeMap<String, String>,
}

/// Every file below a directory with what is in it.
fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                files.push((path.clone(), fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

// D-23, W-B08, B-029: what is written is what was shown, a second time changes nothing, and taking it back leaves what was there.
#[test]
fn limits_are_written_once_and_taken_back() {
    let node = node();
    let root = node.path();
    let before = files(root);
    let caps = plan(root, &limits()).unwrap();
    assert_eq!(files(root), before, "a plan writes nothing");
    let standing: Vec<Standing> = caps.iter().map(|cap| cap.standing).collect();
    assert_eq!(
        standing,
        [
            Standing::Missing,
            Standing::Missing,
            Standing::Missing,
            Standing::Command,
            Standing::Missing
        ]
    );
    let changes = apply(root, &caps, Others::Stay).unwrap();
    assert_eq!(
        changes
            .iter()
            .filter(|(_, change)| *change == Change::Written)
            .count(),
        4
    );
    for cap in &caps {
        if let Some(path) = &cap.path {
            let written = fs::read_to_string(root.join(path.strip_prefix("/").unwrap())).unwrap();
            assert_eq!(written, cap.text);
        }
    }
    let written = files(root);
    assert_eq!(written.len(), before.len() + 4, "nothing else is left");
    let again = plan(root, &limits()).unwrap();
    let set = again.iter().filter(|cap| cap.standing == Standing::Set);
    assert_eq!(set.count(), 4);
    apply(root, &again, Others::Stay).unwrap();
    assert_eq!(files(root), written);
    // Other values replace ours, and do not come back.
    let tighter = Limits {
        journal_max: 100 << 20,
        ..limits()
    };
    assert_eq!(
        standings(root, &tighter)[0],
        (Capped::Journal, Standing::Other)
    );
    apply(root, &plan(root, &tighter).unwrap(), Others::Stay).unwrap();
    assert_eq!(
        standings(root, &tighter)[0],
        (Capped::Journal, Standing::Set)
    );
    remove(root, &plan(root, &limits()).unwrap()).unwrap();
    assert_eq!(files(root), before);
}

// A file of a person stays, or is kept and comes back to the byte.
#[test]
fn a_file_of_somebody_else_stays_or_comes_back() {
    let node = node();
    let root = node.path();
    let own = root.join("etc/systemd/journald.conf.d");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("50-nagi.conf"), "[Journal]\nSystemMaxUse=7G\n").unwrap();
    let before = files(root);
    let caps = plan(root, &limits()).unwrap();
    assert_eq!(caps[0].standing, Standing::Foreign);
    let changes = apply(root, &caps[..1], Others::Stay).unwrap();
    assert_eq!(changes, [(Capped::Journal, Change::Left)]);
    assert_eq!(files(root), before);
    apply(root, &caps[..1], Others::Kept).unwrap();
    assert_eq!(standings(root, &limits())[0].1, Standing::Set);
    // Replacing ours by ours keeps what was there first.
    let tighter = Limits {
        journal_max: 100 << 20,
        ..limits()
    };
    apply(root, &plan(root, &tighter).unwrap()[..1], Others::Kept).unwrap();
    let changes = remove(root, &plan(root, &tighter).unwrap()).unwrap();
    assert_eq!(changes[0], (Capped::Journal, Change::Restored));
    assert_eq!(files(root), before);
}

// Whatever a person adds to, changes in or takes out of a file of ours is theirs: it is neither written over nor taken away, and
// with --replace it comes back to the byte.
#[test]
fn what_somebody_changed_in_a_file_of_ours_stays() {
    let places = [
        (0, "etc/systemd/journald.conf.d/50-nagi.conf"),
        (1, "etc/systemd/coredump.conf.d/50-nagi.conf"),
        (2, "etc/kubernetes/kubelet.conf.d/50-nagi.conf"),
    ];
    let edits: [fn(String) -> String; 5] = [
        |text| text + "Storage=persistent\n",
        |text| text.replace('3', "7"),
        |text| text.replacen('\n', "\n# mine\n", 1),
        |text| text.trim_end().to_owned(),
        |text| text.get(..100).unwrap().to_owned(),
    ];
    for edit in edits {
        let node = node();
        let root = node.path();
        apply(root, &plan(root, &limits()).unwrap(), Others::Stay).unwrap();
        for (_, place) in places {
            let edited = edit(fs::read_to_string(root.join(place)).unwrap());
            fs::write(root.join(place), edited).unwrap();
        }
        let edited = files(root);
        for limits in [
            limits(),
            Limits {
                journal_max: 100 << 20,
                coredump_max: 50 << 20,
                log_files: 5,
                ..limits()
            },
        ] {
            let caps = plan(root, &limits).unwrap();
            for (at, _) in places {
                assert_eq!(caps[at].standing, Standing::Edited);
            }
            apply(root, &caps[..3], Others::Stay).unwrap();
            assert_eq!(files(root), edited);
            remove(root, &caps[..3]).unwrap();
            assert_eq!(files(root), edited);
        }
        let caps = plan(root, &limits()).unwrap();
        apply(root, &caps[..3], Others::Kept).unwrap();
        let caps = plan(root, &limits()).unwrap();
        assert!(caps[..3].iter().all(|cap| cap.standing == Standing::Set));
        let changes = remove(root, &caps[..3]).unwrap();
        assert!(
            changes
                .iter()
                .all(|(_, change)| *change == Change::Restored)
        );
        assert_eq!(files(root), edited);
    }
}

// It was changed after it was looked at.
#[test]
fn what_is_changed_after_the_plan_is_not_taken_away() {
    let node = node();
    let root = node.path();
    apply(root, &plan(root, &limits()).unwrap(), Others::Stay).unwrap();
    let caps = plan(root, &limits()).unwrap();
    let path = root.join("etc/docker/daemon.json");
    fs::write(&path, "{}").unwrap();
    let changes = remove(root, &caps).unwrap();
    assert_eq!(changes[4], (Capped::Docker, Change::Left));
    assert_eq!(fs::read(&path).unwrap(), b"{}");
}

// Nothing is written where the owner is not, and nothing through a link.
#[test]
fn limits_go_nowhere_else() {
    let node = tempfile::tempdir().unwrap();
    let root = node.path();
    let all: Vec<Standing> = standings(root, &limits())
        .into_iter()
        .map(|(_, standing)| standing)
        .collect();
    assert_eq!(all, [Standing::Absent; 5]);
    apply(root, &plan(root, &limits()).unwrap(), Others::Kept).unwrap();
    assert!(files(root).is_empty());
    fs::create_dir_all(root.join("elsewhere")).unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", root.join("etc/systemd")).unwrap();
    let all: Vec<Standing> = standings(root, &limits())
        .into_iter()
        .map(|(_, standing)| standing)
        .collect();
    assert_eq!(all[0], Standing::Absent);
    fs::rename(root.join("etc/systemd"), root.join("link")).unwrap();
    fs::create_dir_all(root.join("etc/systemd/journald.conf.d")).unwrap();
    std::os::unix::fs::symlink(
        "/etc/passwd",
        root.join("etc/systemd/journald.conf.d/50-nagi.conf"),
    )
    .unwrap();
    assert_eq!(standings(root, &limits())[0].1, Standing::Foreign);
}

// D-23: what is rendered is what its owner reads: sections and keys of systemd, YAML of kubelet, and values that hold.
#[test]
fn what_is_rendered_is_read_by_its_owner() {
    for disk in [GIB, 8 * GIB, 1000 * GIB] {
        let limits = Limits::for_disk(disk);
        limits.check().unwrap();
        let node = node();
        let caps = plan(node.path(), &limits).unwrap();
        let of = |what: Capped| {
            let found = caps.iter().find(|cap| cap.what == what);
            found.map(|cap| cap.text.clone()).unwrap()
        };
        let journal = of(Capped::Journal);
        let mut lines = journal.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(lines.next(), Some("[Journal]"));
        let size = |line: Option<&str>, key: &str| -> u64 {
            let value = line
                .unwrap()
                .strip_prefix(key)
                .unwrap()
                .strip_suffix('M')
                .unwrap();
            value.parse::<u64>().unwrap() << 20
        };
        let max = size(lines.next(), "SystemMaxUse=");
        assert!(
            max <= disk / 10,
            "no more than journald takes anyway: {max}"
        );
        size(lines.next(), "SystemKeepFree=");
        let kubelet: Kubelet = serde_saphyr::from_str(&of(Capped::Kubelet)).unwrap();
        assert_eq!(kubelet.version, "kubelet.config.k8s.io/v1beta1");
        assert_eq!(kubelet.kind, "KubeletConfiguration");
        assert_eq!(kubelet.container_log_max_size, "10Mi");
        assert!(kubelet.container_log_max_files >= 2);
        // 85 % used is kubelet's default for the eviction of images (15 % left): removal must have a head start.
        assert!(kubelet.low < kubelet.high && kubelet.high < 85);
        assert_eq!(of(Capped::Snaps), "snap set system refresh.retain=2");
        // JSON is YAML too.
        let docker: Docker = serde_saphyr::from_str(&of(Capped::Docker)).unwrap();
        let [label] = &docker.labels[..] else {
            unreachable!("one label: {:?}", docker.labels);
        };
        assert!(label.starts_with("written-by=nagi-guard-caps:"), "{label}");
        assert_eq!(docker.driver, "json-file");
        let options: Vec<_> = docker.options.iter().collect();
        let text = |text: &str| text.to_owned();
        let expected = [
            (&text("max-file"), &text("3")),
            (&text("max-size"), &text("10m")),
        ];
        assert_eq!(options, expected);
    }
}

// A person removed ours by hand: what it had replaced comes back, and nothing of it is left beside.
#[test]
fn what_was_put_aside_comes_back_where_ours_is_gone() {
    let node = node();
    let root = node.path();
    let own = root.join("etc/systemd/journald.conf.d");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("50-nagi.conf"), "[Journal]\n").unwrap();
    let before = files(root);
    apply(root, &plan(root, &limits()).unwrap()[..1], Others::Kept).unwrap();
    let aside = tempfile::tempdir().unwrap();
    fs::rename(own.join("50-nagi.conf"), aside.path().join("ours")).unwrap();
    let changes = remove(root, &plan(root, &limits()).unwrap()).unwrap();
    assert_eq!(changes[0], (Capped::Journal, Change::Restored));
    assert_eq!(changes[1], (Capped::Coredumps, Change::Left));
    assert_eq!(files(root), before);
}

// Docker reads one file: where somebody wrote it, it stays whatever is asked for, and a person is told what to add.
#[test]
fn what_docker_is_told_by_others_stays() {
    let node = node();
    let root = node.path();
    let path = root.join("etc/docker/daemon.json");
    fs::write(&path, "{\"data-root\": \"/data\"}").unwrap();
    let before = files(root);
    let caps = plan(root, &limits()).unwrap();
    let docker = caps.last().unwrap();
    assert_eq!((docker.standing, &docker.path), (Standing::Command, &None));
    assert!(
        docker.text.contains("\"max-size\": \"10m\""),
        "{}",
        docker.text
    );
    apply(root, &caps[4..], Others::Kept).unwrap();
    remove(root, &caps[4..]).unwrap();
    assert_eq!(files(root), before);
}

// Also where it was ours first: docker reads no other file, so a person writes all that docker is told into it.
#[test]
fn what_a_person_adds_to_a_daemon_json_of_ours_stays() {
    let node = node();
    let root = node.path();
    let path = root.join("etc/docker/daemon.json");
    apply(root, &plan(root, &limits()).unwrap(), Others::Stay).unwrap();
    let ours = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        ours.replace("],\n", "],\n  \"data-root\": \"/data\",\n"),
    )
    .unwrap();
    let before = files(root);
    let looser = Limits {
        log_files: 5,
        ..limits()
    };
    for limits in [limits(), looser] {
        for others in [Others::Stay, Others::Kept] {
            let caps = plan(root, &limits).unwrap();
            assert_eq!((caps[4].standing, &caps[4].path), (Standing::Edited, &None));
            apply(root, &caps[4..], others).unwrap();
            remove(root, &caps[4..]).unwrap();
            assert_eq!(files(root), before);
        }
    }
}

// systemd without its package for dumps keeps none, and reads no limit for them.
#[test]
fn dumps_are_limited_where_they_are_kept() {
    let node = node();
    let root = node.path();
    fs::rename(root.join("var/lib/systemd/coredump"), root.join("aside")).unwrap();
    let of = |at: usize| standings(root, &limits())[at];
    assert_eq!(of(1), (Capped::Coredumps, Standing::Absent));
    fs::create_dir_all(root.join("usr/lib/systemd")).unwrap();
    std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();
    fs::write(root.join("usr/lib/systemd/systemd-coredump"), "").unwrap();
    assert_eq!(of(1), (Capped::Coredumps, Standing::Missing));
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let with = |change: fn(&mut Limits)| {
        let mut limits = limits();
        change(&mut limits);
        limits.check().unwrap_err()
    };
    assert_eq!(
        with(|l| l.images_low = 75),
        LimitsError::ImagesOrder { low: 75, high: 75 }
    );
    assert_eq!(with(|l| l.images_high = 85), LimitsError::ImagesLate(85));
    assert_eq!(with(|l| l.log_files = 1), LimitsError::LogFiles);
    assert_eq!(with(|l| l.log_max = 1000), LimitsError::Small("--log-max"));
    assert_eq!(with(|l| l.snaps_retain = 1), LimitsError::Retain);
}
