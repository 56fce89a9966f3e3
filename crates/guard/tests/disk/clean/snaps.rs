//! Disabled revisions of snaps. snapd needs systemd, so a script stands for its program, over a real layout on a real disk.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nagi_guard::{AskError, End, Event, Policy, Reclaimer, Why};

use super::node::{Node, apply, paths, plan, touch, try_apply};
use crate::machine::{Type, cover, fill, inside, run};

/// Does what snapd does with a list of its own: refuses what is not disabled, and removes the file of what is.
const SNAP: &str = r#"#!/bin/sh
echo "$@" >> /run/asked
case "$1" in
list) cat /var/lib/list ;;
remove)
    file="/var/lib/snapd/snaps/$2_${3#--revision=}.snap"
    test -f "$file" || { echo "error: no such revision" >&2; exit 1; }
    rm "$file" ;;
esac
"#;

const LIST: &str = "\
Name  Version  Rev  Tracking  Publisher  Notes
nagi-test  1        10   latest    canonical  base,disabled
nagi-test  2        11   latest    canonical  base
nagi-two  1        20   latest    canonical  disabled
nagi-two  2        21   latest    canonical  -
lxd   1        40   latest    canonical  disabled
lxd   2        41   latest    canonical  disabled
old   1        30   latest    canonical  disabled
";

/// This machine, but for its `/var/lib`, `/run` and `/usr/local/bin`, with snaps and their cache.
fn machine(test: impl Fn(&Policy)) {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        run(
            "mount",
            [
                "--bind".as_ref(),
                disk.point.as_os_str(),
                Path::new("/var/lib").as_os_str(),
            ],
        );
        // Nothing of this machine is to be reached, neither its programs nor its files.
        for place in [
            "/run",
            "/usr/local/bin",
            "/var/log",
            "/var/cache",
            "/var/crash",
            "/snap",
        ] {
            if Path::new(place).exists() {
                cover(Path::new(place));
            }
        }
        snap(SNAP);
        fs::write("/var/lib/list", LIST).unwrap();
        let snaps = Path::new("/var/lib/snapd/snaps");
        let cache = Path::new("/var/lib/snapd/cache");
        fs::create_dir_all(snaps).unwrap();
        fs::create_dir_all(cache).unwrap();
        // lxd and old are switched off: whatever of them is disabled is what they go back on with.
        for name in [
            "nagi-test_10",
            "nagi-test_11",
            "nagi-two_20",
            "nagi-two_21",
            "lxd_40",
            "lxd_41",
            "old_30",
            "unlisted_1",
        ] {
            fill(&snaps.join(format!("{name}.snap")), 100_000);
        }
        let before = SystemTime::now() - Duration::from_hours(2);
        touch(&snaps.join("nagi-test_10.snap"), before);
        // One of them has its second name in the cache; what nothing else names lies there too.
        fs::hard_link(snaps.join("nagi-two_20.snap"), cache.join("aa")).unwrap();
        fill(&cache.join("bb"), 100_000);
        let policy = Policy {
            only: vec![Reclaimer::Snaps],
            ..Node { root: "/".into() }.policy()
        };
        test(&policy);
        run("umount", ["/var/lib"]);
    });
}

fn snap(script: &str) {
    fs::write("/usr/local/bin/snap", script).unwrap();
    fs::set_permissions("/usr/local/bin/snap", fs::Permissions::from_mode(0o755)).unwrap();
}

fn snaps() -> Vec<String> {
    let entries = fs::read_dir("/var/lib/snapd/snaps").unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

// B-012, B-013, N-3: each disabled revision is asked for; the cache is counted and never touched.
#[test]
fn disabled_revisions_go_through_snapd_and_nothing_else_does() {
    machine(|policy| {
        let plan = plan(policy);
        let named = ["nagi-test_10", "nagi-two_20"]
            .map(|name| PathBuf::from(format!("/var/lib/snapd/snaps/{name}.snap")));
        assert_eq!(paths(&plan), named);
        // The one with a second name in the cache gives nothing back by itself.
        let one = plan.steps[0].items[0].blocks.bytes();
        assert_eq!(
            (plan.steps[0].expected(), plan.steps[0].items[1].links),
            (one, 2)
        );
        let cache = plan
            .left
            .iter()
            .find(|left| left.owner.name() == "snap cache")
            .unwrap();
        assert_eq!(
            cache.tally.inodes, 1,
            "without the one that the revision holds"
        );
        let report = apply(&plan);
        assert_eq!(
            (&report.done[0].end, report.done[0].removed),
            (&End::Done, 2)
        );
        let stay = [
            "lxd_40",
            "lxd_41",
            "nagi-test_11",
            "nagi-two_21",
            "old_30",
            "unlisted_1",
        ];
        assert_eq!(snaps(), stay.map(|name| format!("{name}.snap")));
        assert_eq!(fs::read_dir("/var/lib/snapd/cache").unwrap().count(), 2);
        let asked = fs::read_to_string("/run/asked").unwrap();
        // Once to plan, once to apply, and before each removal.
        let lines = [
            "list --all",
            "list --all",
            "list --all",
            "remove nagi-test --revision=10",
            "list --all",
            "remove nagi-two --revision=20",
        ];
        assert_eq!(asked.lines().collect::<Vec<_>>(), lines);
        let log = fs::read_to_string("/run/nagi/disk-audit.log").unwrap();
        assert!(
            log.contains("ask-for snaps /var/lib/snapd/snaps/nagi-test_10.snap "),
            "{log}"
        );
    });
}

// Not disabled any more, or the only one left: then it is in use.
#[test]
fn a_revision_that_is_in_use_again_stays() {
    machine(|policy| {
        let made_before = plan(policy);
        fs::write("/var/lib/list", LIST.replace("base,disabled", "base")).unwrap();
        let done = apply(&made_before).done.remove(0);
        assert_eq!(
            (done.end, done.removed),
            (
                End::Changed("/var/lib/snapd/snaps/nagi-test_10.snap".into()),
                0
            )
        );
        fs::write("/var/lib/list", LIST).unwrap();
        // M8b: snapd mounts every revision that is installed, disabled or not; that says nothing.
        // It can be shown where there is a /snap, which is covered; none is made on this machine.
        if Path::new("/snap").exists() {
            let point = Path::new("/snap/nagi-test/10");
            fs::create_dir_all(point).unwrap();
            cover(point);
            assert_eq!(paths(&plan(policy)), paths(&made_before));
            run("umount", [point]);
        }
        // Switched off while the plan is carried out: between two removals, and nothing of it goes.
        let off = LIST.replace("canonical  base\n", "canonical  base,disabled\n");
        let mut done = Vec::new();
        let report = try_apply(&made_before, &mut |event| match event {
            Event::Intent(line) => {
                fs::write("/var/lib/list", &off).unwrap();
                done.push((*line).to_owned());
            }
            Event::Removed(..) | Event::Ended(_) => {}
        });
        let end = report.unwrap().done.remove(0);
        assert_eq!((end.removed, done.len()), (0, 1), "{end:?}");
        assert!(matches!(end.end, End::Changed(_)), "{end:?}");
        assert_eq!(snaps().len(), 8);
    });
}

// W-B10: snapd refuses, lies, answers something else, or is not there: each is said, and nothing goes.
#[test]
fn an_owner_that_does_not_answer_as_known_is_left_alone() {
    machine(|policy| {
        let why = |policy: &Policy| plan(policy).skipped.remove(0).why;
        let made_before = plan(policy);
        snap(
            "#!/bin/sh\ntest \"$1\" = list && exec cat /var/lib/list\necho 'error: snapd is busy' >&2; exit 1\n",
        );
        let done = apply(&made_before).done.remove(0);
        assert_eq!((done.end, done.removed, done.failures.1), (End::Done, 0, 2));
        assert_eq!(done.failures.0[0].1, "snap: error: snapd is busy");
        snap("#!/bin/sh\ntest \"$1\" = list && exec cat /var/lib/list\nexit 0\n");
        let done = apply(&made_before).done.remove(0);
        assert_eq!(
            (done.removed, done.failures.1),
            (0, 2),
            "it said yes and kept them"
        );
        snap("#!/bin/sh\necho 'Nom Version Rév'\n");
        assert_eq!(why(policy), Why::NotUnderstood);
        assert_eq!(apply(&made_before).done[0].end, End::Away);
        snap("#!/bin/sh\necho 'error: cannot talk to snapd' >&2; exit 1\n");
        let Why::Owner(AskError::Refused { said, .. }) = why(policy) else {
            panic!()
        };
        assert_eq!(said, "error: cannot talk to snapd");
        fs::remove_file("/usr/local/bin/snap").unwrap();
        assert_eq!(why(policy), Why::Owner(AskError::Missing("snap")));
        assert_eq!(snaps().len(), 8);
    });
}

// A removal that hangs is ended at the deadline of the step.
#[test]
fn an_owner_that_hangs_is_given_up() {
    machine(|policy| {
        let mut policy = policy.clone();
        policy.deadline = Duration::from_secs(1);
        let made_before = plan(&policy);
        snap("#!/bin/sh\ntest \"$1\" = list && exec cat /var/lib/list\nsleep 1000\n");
        let done = apply(&made_before).done.remove(0);
        assert_eq!(
            (done.end, done.removed, done.failures.1),
            (End::TimedOut, 0, 1)
        );
        assert_eq!(done.failures.0[0].1, "snap did not answer within 1 s");
        assert_eq!(snaps().len(), 8);
    });
}

// Elsewhere than on the node itself its owner cannot be asked.
#[test]
fn below_another_root_snapd_is_not_asked() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let node = Node::at(&disk.point.join("node"));
        let snap = node.file("var/lib/snapd/snaps/nagi-test_10.snap", 5000);
        let plan = node.plan();
        assert_eq!(plan.skipped[0].why, Why::OwnerElsewhere);
        apply(&plan);
        assert!(snap.exists());
    });
}
