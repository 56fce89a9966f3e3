//! B7: compat mode against journalctl itself, strict mode against journals that systemd wrote.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nagi_guard::{JournalMode, Policy, Reclaimer};
use nagi_ports::{Clock as _, SystemClock};
use nagi_testkit::{Bar, measured};

use super::node::{MACHINE, Node, apply, paths, plan, touch, write_head};
use crate::machine::{Type, command, inside};

/// The program is here.
fn has(program: &str) -> bool {
    let works = command(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !works {
        nagi_testkit::skipped(&format!("{program} does not work here"));
    }
    works
}

/// A number out of a row that looks like chance and is the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A directory of journals as a node may have it; the same for the same number.
fn make(node: &Node, number: u64, now: u64) {
    const HOUR: u64 = 3_600_000_000;
    let mut numbers = Numbers(number);
    let directory = format!("var/log/journal/{MACHINE}");
    let mut ages: Vec<u64> = (0..numbers.below(14) + 2)
        .map(|_| numbers.below(100))
        .collect();
    // Numbers and times of one writer go up together, or journalctl's order is none.
    ages.sort_unstable_by(|one, other| other.cmp(one));
    for (at, age) in (0_u64..).zip(ages) {
        let realtime = now - age * HOUR + at;
        // A copy that was put back has an earlier time than its name says, and no other of its writer beside it.
        let is_copy = numbers.below(3) == 0;
        let writer = if is_copy { 100 + at } else { numbers.below(3) };
        let name = match numbers.below(12) {
            0 => "system.journal".to_owned(),
            1 => format!("user-{at}.journal"),
            2 => format!("system@{at}.journal"),
            3 => format!("notes-{at}.txt"),
            4 => format!("system@{at:016x}-{realtime:016x}.journal~"),
            5 => format!("system@{realtime:016x}-{at:016x}.journal~"),
            6 => format!("system@{at}.journal~"),
            _ => format!("system@{writer:032x}-{at:016x}-{realtime:016x}.journal"),
        };
        let bytes = usize::try_from(numbers.below(40) * 4096).unwrap();
        let path = node.file(format!("{directory}/{name}"), bytes);
        // Without a head, without entries, or whole.
        match numbers.below(10) {
            0 => {}
            1 if bytes > 0 => fs::write(&path, vec![0; bytes]).unwrap(),
            _ if bytes > 0 => write_head(&path, realtime),
            _ => {}
        }
        let written = if is_copy {
            now - numbers.below(100) * HOUR
        } else {
            realtime + HOUR
        };
        touch(
            &path,
            SystemTime::UNIX_EPOCH + Duration::from_micros(written),
        );
    }
}

fn names(node: &Node) -> BTreeSet<PathBuf> {
    let directory = node.root.join("var/log/journal").join(MACHINE);
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| PathBuf::from(entry.unwrap().file_name()))
        .collect()
}

// B7, B-010: 200 directories, each cleaned by journalctl and by us.
#[test]
fn compat_mode_leaves_what_journalctl_leaves() {
    inside("", || {
        if !has("journalctl") {
            return;
        }
        let disk = Type::Ext4.mounted(300, &[]);
        let mut removed = 0;
        for number in 0..200 {
            let now = u64::try_from(SystemClock::new().now().as_microsecond()).unwrap();
            let [ours, theirs] = ["ours", "theirs"].map(|name| {
                let node = Node::at(&disk.point.join(name).join(number.to_string()));
                make(&node, number, now);
                node
            });
            let mut policy = ours.policy();
            policy.only = vec![Reclaimer::Journal];
            policy.journal_mode = JournalMode::Compat;
            // Never just at an hour, where a moment between the two would decide.
            let hours = number % 5 * 20 + 1;
            let keep = Duration::from_mins(hours * 60 + 30);
            policy.journal_keep = (number % 5 > 0).then_some(keep);
            policy.journal_bytes_max = (number % 3 == 0).then_some(number * 3000 + 1);
            policy.journal_files_max = (number % 4 == 0).then_some(number % 9 + 1);
            let before = names(&ours);
            let said = vacuum(&theirs.root, &policy);
            apply(&plan(&policy));
            assert_eq!(names(&ours), names(&theirs), "{number}: {policy:?} {said}");
            removed += before.len() - names(&ours).len();
            for node in [ours, theirs] {
                fs::remove_dir_all(node.root).unwrap();
            }
        }
        assert!(removed > 300, "{removed}");
        let what =
            format!("of 200 directories end otherwise than by journalctl ({removed} files went)");
        measured("B7", &what, (0.0, "times"), Bar::AtMost(0.0));
    });
}

fn vacuum(root: &Path, policy: &Policy) -> String {
    let mut command = command("journalctl");
    command.arg("--directory").arg(root.join("var/log/journal"));
    if let Some(keep) = policy.journal_keep {
        command.arg(format!("--vacuum-time={}s", keep.as_secs()));
    }
    if let Some(bytes) = policy.journal_bytes_max {
        command.arg(format!("--vacuum-size={bytes}"));
    }
    if let Some(files) = policy.journal_files_max {
        command.arg(format!("--vacuum-files={files}"));
    }
    if policy.journal_keep.is_none()
        && policy.journal_bytes_max.is_none()
        && policy.journal_files_max.is_none()
    {
        return String::new(); // journalctl would show the journal.
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Lets systemd write a journal with an entry for each age in hours, and puts it where a complete one lies.
fn written(node: &Node, number: u64, ages: &[u64]) -> PathBuf {
    let now = SystemClock::new().now().as_microsecond();
    let mut text = String::new();
    for (at, age) in ages.iter().enumerate() {
        let realtime = now - i64::try_from(*age).unwrap() * 3_600_000_000;
        let entry = format!(
            "__REALTIME_TIMESTAMP={realtime}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={MACHINE}\nMESSAGE=entry {at}\n\n",
            1000 + at
        );
        text.push_str(&entry);
    }
    let directory = node.root.join("var/log/journal").join(MACHINE);
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("made.journal");
    nagi_testkit::journal::write(&file, &text);
    let first = now - i64::try_from(ages[0]).unwrap() * 3_600_000_000;
    let name = format!("system@{:032x}-{number:016x}-{first:016x}.journal", 5);
    let path = directory.join(name);
    fs::rename(file, &path).unwrap();
    path
}

// B7, N-2: strict mode loses no entry that is newer than the window; journalctl, asked for two days, does.
#[test]
fn strict_mode_keeps_every_entry_of_the_window_in_journals_that_systemd_wrote() {
    inside("", || {
        if !has("journalctl") || !nagi_testkit::journal::may_write() {
            return;
        }
        let disk = Type::Ext4.mounted(200, &[]);
        let node = Node::at(&disk.point.join("node"));
        let old = written(&node, 1, &[90, 80, 60]);
        let across = written(&node, 2, &[59, 50, 26]);
        let new = written(&node, 3, &[20, 10]);
        let entries = |path: &Path| {
            let mut command = command("journalctl");
            let output = command
                .arg("--file")
                .arg(path)
                .args(["-o", "cat"])
                .output()
                .unwrap();
            String::from_utf8_lossy(&output.stdout).lines().count()
        };
        assert_eq!(
            [&old, &across, &new].map(|path| entries(path)),
            [3, 3, 2],
            "systemd reads them"
        );
        let mut policy = node.policy();
        assert_eq!(paths(&plan(&policy)), std::slice::from_ref(&old));
        policy.journal_mode = JournalMode::Compat;
        assert_eq!(paths(&plan(&policy)), [old.clone(), across.clone()]);
        // The clock was set back; and it was wrong, right and wrong again.
        let set_back = written(&node, 4, &[20, 10, 700]);
        let between = written(&node, 5, &[800, 20, 10, 700]);
        apply(&node.plan());
        assert!(!old.exists());
        assert_eq!([&across, &new].map(|path| entries(path)), [3, 2]);
        assert_eq!([&set_back, &between].map(|path| entries(path)), [3, 4]);
    });
}

// A journal that is corrupt is kept in strict mode, with its reason.
#[test]
fn a_corrupt_journal_is_kept_and_counted() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let node = Node::at(&disk.point.join("node"));
        let corrupt = node.journal(1, Duration::from_hours(100), 20_000);
        crate::machine::fill(&corrupt, 20_000);
        node.journal(2, Duration::from_hours(100), 20_000);
        let plan = node.plan();
        let step = plan
            .steps
            .iter()
            .find(|step| step.reclaimer == Reclaimer::Journal)
            .unwrap();
        let kept: Vec<_> = step
            .kept
            .iter()
            .map(|(why, tally)| (*why, tally.inodes))
            .collect();
        assert_eq!(kept, [(nagi_guard::Kept::NotUnderstood, 1)]);
        apply(&plan);
        assert!(corrupt.exists() && corrupt.as_os_str().as_bytes().ends_with(b".journal"));
        assert_eq!(names(&node).len(), 1);
    });
}
