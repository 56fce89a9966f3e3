//! Owners at work, files that cannot go, filesystems that are none, and nowhere to write down what is removed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;
use std::time::Duration;

use nagi_guard::{ApplyError, AuditError, End, Event, Reclaimer, Why};

use super::node::{Node, apply, paths, plan, try_apply};
use crate::full::fill_up;
use crate::machine::{Type, command, cover, inside, run, settle};

// While apt downloads or installs it has its lock: then its packages stay.
#[test]
fn while_apt_is_at_work_its_packages_stay() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let node = Node::at(&disk.point.join("node"));
        let package = node.file("var/cache/apt/archives/a_1_all.deb", 5000);
        let lock = node.file("var/cache/apt/archives/lock", 0);
        // As apt locks: a lock of fcntl, held by another process.
        let script = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()";
        let mut apt = command("python3")
            .args(["-c", script])
            .arg(&lock)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        std::io::Read::read_exact(apt.stdout.as_mut().unwrap(), &mut said).unwrap();
        let plan = node.plan();
        assert_eq!(apply(&plan).done[0].end, End::OwnerBusy);
        assert!(package.exists());
        drop(apt.stdin.take());
        apt.wait().unwrap();
        assert_eq!(apply(&plan).done[0].end, End::Done);
        assert!(!package.exists() && lock.exists());
    });
}

// A lock that may not be opened is no owner at work: waiting for it would help nobody.
#[test]
fn a_lock_that_cannot_be_opened_is_no_owner_at_work() {
    inside("-dac_override,-dac_read_search", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let node = Node::at(&disk.point.join("node"));
        let package = node.file("var/cache/apt/archives/a_1_all.deb", 5000);
        let lock = node.file("var/cache/apt/archives/lock", 0);
        run("chmod", ["0".as_ref(), lock.as_os_str()]);
        let broken = End::Broken(rustix::io::Errno::ACCESS);
        assert_eq!(apply(&node.plan()).done[0].end, broken);
        assert!(package.exists());
    });
}

// M5: afterwards there is what apt-get itself would have left.
#[test]
fn after_cleaning_apt_finds_nothing_more_to_clean() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let [ours, theirs] = ["ours", "theirs"].map(|name| {
            let node = Node::at(&disk.point.join(name));
            for path in [
                "archives/a_1_all.deb",
                "archives/b_2%3a1_amd64.deb",
                "archives/partial/c_1_all.deb",
                "pkgcache.bin",
            ] {
                node.file(format!("var/cache/apt/{path}"), 5000);
            }
            node.file("var/cache/apt/archives/lock", 0);
            fs::create_dir_all(node.root.join("var/lib/apt/lists/partial")).unwrap();
            fs::create_dir_all(node.root.join("var/lib/dpkg")).unwrap();
            node
        });
        let state = theirs.root.join("var/lib/apt");
        let cache = theirs.root.join("var/cache/apt");
        let cleaned = command("apt-get")
            .arg("-o")
            .arg(format!("Dir::State={}", state.display()))
            .arg("-o")
            .arg(format!("Dir::Cache={}", cache.display()))
            // Absolute, whatever this machine has set: its own packages are not to be cleaned.
            .arg("-o")
            .arg(format!(
                "Dir::Cache::archives={}",
                cache.join("archives").display()
            ))
            // Images of containers switch this one off.
            .args(["-o", "Dir::Cache::pkgcache=pkgcache.bin"])
            .arg("clean")
            .output();
        if !cleaned.is_ok_and(|output| output.status.success()) {
            return nagi_testkit::skipped("apt-get does not work here");
        }
        apply(&ours.plan());
        let left = |node: &Node| {
            let below = node.traces().into_keys();
            let below = below.map(|path| path.strip_prefix(&node.root).unwrap().to_owned());
            below
                .filter(|path| path.starts_with("var/cache/apt"))
                .collect::<Vec<_>>()
        };
        assert_eq!(left(&ours), left(&theirs));
        assert_eq!(
            left(&ours).len(),
            4,
            "two directories above, partial and the lock"
        );
    });
}

// What a process has open may be written to, whatever its name is: it stays, also when it is opened after the plan.
#[test]
fn what_a_process_has_open_stays() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let node = Node::at(&disk.point.join("node"));
        let pod = "var/log/pods/default_app_0123/main";
        node.file(format!("{pod}/0.log"), 5000);
        let log = node.file(format!("{pod}/0.log.20260102-030405"), 5000);
        let package = node.file("var/cache/apt/archives/a_1_all.deb", 5000);
        let made_before = node.plan();
        let both = vec![package.clone(), log.clone()];
        assert_eq!(paths(&made_before), both);
        let open = fs::File::open(&log).unwrap();
        assert_eq!(paths(&node.plan()), std::slice::from_ref(&package));
        let of_logs = |report: nagi_guard::Report| {
            let mut done = report.done.into_iter();
            let done = done.find(|done| done.reclaimer == Reclaimer::PodLogs);
            done.map(|done| (done.end, done.removed)).unwrap()
        };
        let changed = End::Changed(format!("/{pod}/0.log.20260102-030405").into());
        assert_eq!(of_logs(apply(&made_before)), (changed.clone(), 0));
        assert!(log.exists() && !package.exists());
        drop(open);
        // It is opened between the look of the executor and its step.
        node.file("var/cache/apt/archives/a_1_all.deb", 5000);
        let mut open = None;
        let report = try_apply(&node.plan(), &mut |event| {
            if let Event::Ended(_) = event
                && open.is_none()
            {
                open = Some(fs::File::open(&log).unwrap());
            }
        });
        assert_eq!(of_logs(report.unwrap()), (changed, 0));
        drop(open);
        assert_eq!(of_logs(apply(&node.plan())), (End::Done, 1));
        assert!(!log.exists());
    });
}

// Kubelet renames first and asks for a new log then: until there is one the container writes into the renamed file.
#[test]
fn a_rotated_log_without_a_newer_one_stays() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let node = Node::at(&disk.point.join("node"));
        let pod = node.root.join("var/log/pods/default_app_0123/main");
        let log = node.file(pod.join("0.log.20260102-030405"), 5000);
        node.file(pod.join("1.log"), 5000);
        assert!(paths(&node.plan()).is_empty());
        std::os::unix::fs::symlink("1.log", pod.join("0.log")).unwrap();
        assert!(paths(&node.plan()).is_empty(), "a link is no log");
        fs::remove_file(pod.join("0.log")).unwrap();
        fs::write(pod.join("0.log"), "").unwrap();
        assert_eq!(paths(&node.plan()), [log]);
    });
}

// What cannot be removed is said, and the rest goes.
#[test]
fn a_file_that_cannot_be_removed_is_named_and_the_rest_goes() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let node = Node::at(&disk.point.join("node"));
        let fixed = node.file("var/cache/apt/archives/a_1_all.deb", 5000);
        let other = node.file("var/cache/apt/archives/b_1_all.deb", 5000);
        run("chattr", ["+i".as_ref(), fixed.as_os_str()]);
        let plan = node.plan();
        let done = apply(&plan).done.remove(0);
        assert_eq!((done.end, done.removed, done.failures.1), (End::Done, 1, 1));
        assert_eq!(done.failures.0[0].0.file_name(), fixed.file_name());
        assert!(fixed.exists() && !other.exists());
        run("chattr", ["-i".as_ref(), fixed.as_os_str()]);
    });
}

// A type that is not for disks is reported, and nothing else.
#[test]
fn what_lies_in_memory_or_on_an_overlay_is_left_alone() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let node = Node::at(&disk.point.join("node"));
        let apt = node.root.join("var/cache/apt");
        fs::create_dir_all(&apt).unwrap();
        cover(&apt);
        let package = node.file("var/cache/apt/archives/a_1_all.deb", 5000);
        let crash = node.root.join("var/crash");
        for part in ["lower", "upper", "work"] {
            fs::create_dir_all(disk.point.join(part)).unwrap();
        }
        fs::create_dir_all(&crash).unwrap();
        crate::machine::fill(&disk.point.join("lower/_usr_bin_x.0.crash"), 5000);
        let options = ["lower", "upper", "work"]
            .map(|part| format!("{part}dir={}", disk.point.join(part).display()));
        let options = options.join(",");
        run(
            "mount",
            [
                "-t",
                "overlay",
                "x",
                "-o",
                &options,
                crash.to_str().unwrap(),
            ],
        );
        let plan = node.plan();
        let why: Vec<_> = plan
            .skipped
            .iter()
            .map(|place| (place.reclaimer, place.why.clone()))
            .collect();
        let of = |fstype: &str| Why::Type(fstype.to_owned());
        assert_eq!(
            why,
            [
                (Reclaimer::Apt, of("tmpfs")),
                (Reclaimer::Coredumps, of("overlay"))
            ]
        );
        apply(&plan);
        assert!(package.exists() && crash.join("_usr_bin_x.0.crash").exists());
    });
}

/// Mounts a filesystem of a program that never answers, and says so.
const DEAD: &str = "
import ctypes, os, sys
for point in sys.argv[1:]:
    device = os.open('/dev/fuse', os.O_RDWR)
    options = f'fd={device},rootmode=40000,user_id=0,group_id=0'.encode()
    if ctypes.CDLL(None, use_errno=True).mount(b'dead', point.encode(), b'fuse', 0, options):
        sys.exit(os.strerror(ctypes.get_errno()))
print('dead!', flush=True)
sys.stdin.read()
";

// P1-2 of the review: a server or a program that is away holds nothing up, wherever its filesystem lies.
#[test]
fn a_filesystem_that_never_answers_is_not_asked() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let node = Node::at(&disk.point.join("node"));
        let log = node.file(
            "var/log/pods/default_app_0123/main/0.log.20260102-030405",
            5000,
        );
        node.file("var/log/pods/default_app_0123/main/0.log", 0);
        // Places that are cleaned, one that is only counted, and the one of the ring.
        let points = ["var/cache", "var/crash", "var/lib"].map(|path| node.root.join(path));
        for point in &points {
            fs::create_dir_all(point).unwrap();
        }
        let mut program = command("python3")
            .args(["-c", DEAD])
            .args(&points)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        if std::io::Read::read_exact(program.stdout.as_mut().unwrap(), &mut said).is_err() {
            program.wait().unwrap();
            return nagi_testkit::skipped("FUSE does not work here");
        }
        let policy = node.policy();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let plan = plan(&policy);
            let report = apply(&plan);
            tell.send((plan, report)).unwrap();
        });
        let told = told.recv_timeout(Duration::from_secs(20));
        // Then whoever still waits is told that there is nobody.
        drop(program.stdin.take());
        program.wait().unwrap();
        let (plan, report) = told.expect("it hung");
        let skipped = plan.skipped.iter();
        let skipped: Vec<_> = skipped.map(|place| (place.reclaimer, &place.why)).collect();
        let why = Why::Type("fuse".to_owned());
        let all = [
            Reclaimer::Apt,
            // The settings of kubelet lie there, which name the socket of the runtime.
            Reclaimer::Images,
            Reclaimer::Snaps,
            Reclaimer::Coredumps,
            Reclaimer::Coredumps,
        ];
        assert_eq!(skipped, all.map(|kind| (kind, &why)));
        assert!(!report.has_ring && !log.exists());
    });
}

// The audit comes first: without it nothing goes.
#[test]
fn where_nothing_can_be_written_down_nothing_is_removed() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let node = Node::at(&disk.point.join("node"));
        let empty = node.plan();
        let package = node.file("var/cache/apt/archives/a_1_all.deb", 5000);
        // /run on the disk that is full, and no ring, for which it is too small: the log is there, and cannot be written.
        assert!(!try_apply(&empty, &mut |_| {}).unwrap().has_ring);
        fill_up(&disk.point);
        let plan = node.plan();
        let report = try_apply(&plan, &mut |event| match event {
            Event::Ended(_) => {}
            event @ (Event::Intent(_) | Event::Removed(..)) => {
                panic!("nothing is announced: {event:?}")
            }
        });
        let report = report.unwrap();
        let no_record = End::NoRecord(rustix::io::Errno::NOSPC);
        assert_eq!(
            (&report.done[0].end, report.done[0].removed),
            (&no_record, 0)
        );
        assert!(package.exists());
        fs::remove_dir_all(node.root.join("run")).unwrap();
        let refused = try_apply(&plan, &mut |_| {});
        assert!(
            matches!(refused, Err(ApplyError::Audit(AuditError::NoRun))),
            "{refused:?}"
        );
        assert!(package.exists());
        fs::create_dir(node.root.join("run")).unwrap();
        cover(&node.root.join("run"));
        assert_eq!(apply(&plan).done[0].removed, 1);
    });
}

// P1-7 of the review: what was removed until then is in the report.
#[test]
fn a_record_that_fails_on_the_way_ends_the_step_and_keeps_the_report() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let node = Node::at(&disk.point.join("node"));
        // One page for the records, and no ring: some thirty of them fit.
        let run_directory = node.root.join("run");
        let options = ["-t", "tmpfs", "-o", "size=4096", "small"].map(OsStr::new);
        let arguments = options.into_iter().chain([run_directory.as_os_str()]);
        run("mount", arguments);
        for number in 0..200 {
            node.file(format!("var/cache/apt/archives/a{number}_1_all.deb"), 5000);
        }
        node.file("var/crash/_usr_bin_app.0.crash", 5000);
        settle(&disk.point);
        let plan = node.plan();
        let report = apply(&plan);
        let ends: Vec<_> = report.done.iter().map(|done| &done.end).collect();
        let no_record = &End::NoRecord(rustix::io::Errno::NOSPC);
        assert_eq!(ends, [no_record, no_record]);
        let removed = report.done[0].removed;
        assert!((1..200).contains(&removed) && report.done[1].removed == 0);
        assert_eq!(
            fs::read_dir(node.root.join("var/cache/apt/archives"))
                .unwrap()
                .count(),
            200 - usize::try_from(removed).unwrap()
        );
        assert!(report.after[0].space.bytes_free > report.disks[0].space.bytes_free);
        assert_eq!(report.disks, plan.disks);
    });
}

// Names are bytes: a pod's directory may be anything.
#[test]
fn names_that_are_no_text_are_planned_and_removed_as_they_are() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let node = Node::at(&disk.point.join("node"));
        let pod = node
            .root
            .join("var/log/pods")
            .join(OsStr::from_bytes(b"ns_p\xffod_1/c\xfe"));
        fs::create_dir_all(&pod).unwrap();
        let log = pod.join("0.log.20260102-030405");
        fs::write(pod.join("0.log"), "").unwrap();
        crate::machine::fill(&log, 5000);
        let plan = node.plan();
        assert_eq!(paths(&plan), std::slice::from_ref(&log));
        assert_eq!(
            apply(&plan)
                .done
                .iter()
                .map(|done| done.removed)
                .sum::<u64>(),
            1
        );
        assert!(!log.exists() && pod.exists());
    });
}

// D-13: a step has a deadline.
#[test]
fn a_step_ends_at_its_deadline() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let node = Node::at(&disk.point.join("node"));
        node.plant(5000);
        let mut policy = node.policy();
        policy.deadline = Duration::ZERO;
        for done in apply(&plan(&policy)).done {
            assert_eq!((done.end, done.removed), (End::TimedOut, 0));
        }
    });
}

// Millions of files: what is held is bounded, and the rest is counted and left for the next run.
#[test]
fn more_files_than_a_plan_holds_are_counted_and_wait() {
    inside("", || {
        let disk = Type::Ext4.mounted(256, &["-N", "150000"]);
        let node = Node::at(&disk.point.join("node"));
        let archives = node.root.join("var/cache/apt/archives");
        fs::create_dir_all(&archives).unwrap();
        let count = 100_050_u64;
        for number in 0..count {
            fs::File::create(archives.join(format!("p{number}_1_all.deb"))).unwrap();
        }
        let plan = node.plan();
        let planned = u64::try_from(plan.steps[0].items.len()).unwrap();
        assert_eq!(planned, u64::try_from(nagi_guard::ITEMS_MAX).unwrap());
        assert_eq!(planned + plan.steps[0].spared.inodes, count);
    });
}
