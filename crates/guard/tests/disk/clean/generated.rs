//! B3, B4: in trees made by chance, everything that may go goes, gives back what was expected, and nothing else goes.
//!
//! The maker of a tree knows for each file whether it may go, because it chose a place, a name and what speaks against it one
//! by one. The rules under test are not asked.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use nagi_guard::{End, JournalMode};
use nagi_testkit::{Bar, measured};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::node::{MACHINE, Node, apply, paths, plan, rounds, touch};
use crate::machine::{Type, inside, settle};

const BOOT: &str = "fedcba9876543210fedcba9876543210";

/// Where a file lies: the directory, and names that a rule knows there; none where no rule looks.
const PLACES: [(&str, &[&str]); 16] = [
    ("var/cache/apt", &["pkgcache.bin", "srcpkgcache.bin"]),
    (
        "var/cache/apt/archives",
        &["N_1.0-1_amd64.deb", "libN_2%3a1~b_all.deb"],
    ),
    ("var/cache/apt/archives/partial", &["N_1_arm64.deb"]),
    (
        "var/log/pods/ns_podN_uid/main",
        &["0.log.20260102-030405", "12.log.20260102-030405.gz"],
    ),
    (
        "var/log/pods/kube-system_etcd_0/etcd",
        &["3.log.20260102-030405"],
    ),
    (
        "var/lib/systemd/coredump",
        &["core.N.0.B.12.1700000000000000.zst", "core.a.N.1.B.3.17"],
    ),
    ("var/crash", &["_usr_bin_N.1000.crash"]),
    // No rule looks here, whatever the name is.
    (
        "var/lib/containerd/io.containerd.content.v1.content/blobs/sha256",
        &[],
    ),
    ("var/lib/kubelet/pods/uid/volumes", &[]),
    ("var/lib/etcd/member/wal", &[]),
    ("var/lib/docker/containers/N", &[]),
    ("var/lib/snapd/cache", &[]),
    ("var/log/pods/ns_podN_uid", &[]),
    ("var/log/pods/notes/main", &[]),
    ("var/log/containers", &[]),
    ("home/me", &[]),
];

/// Names that no rule knows anywhere, beside those that a rule knows elsewhere.
const ODD: [&[u8]; 9] = [
    b"0.log",
    b"N.deb",
    b"N_1_all.deb~",
    b"core",
    b"xN.log.20260102-030405",
    b"lock.old",
    b"\xff\xfeN_1_all.deb",
    b"N crash\n.txt",
    b"-rf",
];

/// What speaks for or against a file whose name is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Twist {
    None,
    Young,
    SecondName,
    Kept,
    Link,
    Directory,
    Pipe,
}

#[derive(Debug, Clone)]
struct Thing {
    place: usize,
    /// Beyond the known ones of the place: an odd one, or one that is known elsewhere.
    name: usize,
    twist: Twist,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Journal {
    /// Of the last entry, in hours and a half; the window is 48.
    age: u64,
    shape: usize,
}

fn things() -> impl Strategy<Value = (Vec<Thing>, Vec<Journal>)> {
    let twist = prop_oneof![
        6 => Just(Twist::None),
        1 => Just(Twist::Young),
        1 => Just(Twist::SecondName),
        1 => Just(Twist::Kept),
        1 => Just(Twist::Link),
        1 => Just(Twist::Directory),
        1 => Just(Twist::Pipe),
    ];
    let thing = (0..PLACES.len(), 0_usize..24, twist, 0_usize..20_000);
    let thing = thing.prop_map(|(place, name, twist, bytes)| Thing {
        place,
        name,
        twist,
        bytes,
    });
    let journal = (0_u64..100, 0_usize..6).prop_map(|(age, shape)| Journal { age, shape });
    (
        prop::collection::vec(thing, 5..60),
        prop::collection::vec(journal, 0..12),
    )
}

/// Makes it; true when it may go.
fn make(node: &Node, number: usize, thing: &Thing) -> (PathBuf, bool) {
    let (directory, known) = PLACES[thing.place];
    let elsewhere = PLACES.iter().flat_map(|(_, names)| names.iter());
    let odd = ODD
        .iter()
        .copied()
        .chain(elsewhere.map(|name| name.as_bytes()));
    let odd: Vec<&[u8]> = odd.filter(|name| !fits(thing.place, name)).collect();
    let (name, is_known) = match known.get(thing.name % 8) {
        Some(name) => (name.as_bytes(), true),
        None => (odd[thing.name % odd.len()], false),
    };
    let name = name.iter().flat_map(|byte| match byte {
        b'N' => number.to_string().into_bytes(),
        b'B' => BOOT.as_bytes().to_vec(),
        byte => vec![*byte],
    });
    let name: Vec<u8> = name.collect();
    let directory = node.root.join(directory.replace('N', &number.to_string()));
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join(OsStr::from_bytes(&name));
    if fs::symlink_metadata(&path).is_ok() {
        return (path, false); // It was made before; what was said of it then holds.
    }
    if let Some((current, _)) = known_log(thing.place, &name).filter(|_| is_known) {
        crate::machine::fill(&directory.join(OsStr::from_bytes(current)), 100);
    }
    match thing.twist {
        Twist::Link => std::os::unix::fs::symlink("/etc/passwd", &path).unwrap(),
        Twist::Directory => fs::create_dir(&path).unwrap(),
        Twist::Pipe => rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap(),
        Twist::None | Twist::Young | Twist::SecondName | Twist::Kept => {
            crate::machine::fill(&path, thing.bytes);
        }
    }
    match thing.twist {
        Twist::Young => touch(&path, SystemTime::now() + Duration::from_mins(5)),
        Twist::SecondName => {
            fs::hard_link(&path, node.root.join(format!("second{number}"))).unwrap();
        }
        Twist::None | Twist::Kept | Twist::Link | Twist::Directory | Twist::Pipe => {}
    }
    (path, is_known && thing.twist == Twist::None)
}

/// The log of a pod that took the place of a rotated one.
fn known_log(place: usize, name: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_pod_log = place == 3 || place == 4;
    let at = name.windows(5).position(|part| part == b".log.")?;
    is_pod_log.then(|| name.split_at(at + 4))
}

/// A name that is known at one place of a kind is known at the others of it.
fn fits(place: usize, name: &[u8]) -> bool {
    let groups: [&[usize]; 4] = [&[0], &[1, 2], &[3, 4], &[5, 6]];
    let group = groups.iter().find(|group| group.contains(&place));
    group.is_some_and(|group| {
        group.iter().any(|place| {
            PLACES[*place]
                .1
                .iter()
                .any(|known| known.as_bytes() == name)
        })
    })
}

/// Makes a journal; true when it may go in strict mode.
fn make_journal(node: &Node, number: usize, journal: &Journal) -> (PathBuf, bool) {
    let age = Duration::from_mins(journal.age * 60 + 30);
    let path = node.journal(number.try_into().unwrap(), age, 4096);
    let is_old = journal.age >= 48;
    let named = |name: String| {
        let to = path.with_file_name(name);
        fs::rename(&path, &to).unwrap();
        to
    };
    match journal.shape {
        0 | 1 => (path, is_old),
        // In use; of another name; without a head; put aside after a crash, and written just now.
        2 => (named(format!("user-{number}.journal")), false),
        3 => (named(format!("system@{number}.journal")), false),
        4 => {
            crate::machine::fill(&path, 4096);
            (path, false)
        }
        _ => (
            named(format!("system@{number:016x}-{number:016x}.journal~")),
            false,
        ),
    }
}

// B-015, D-07, D-15 and the safety section: 0 false deletions, and nothing that may go is forgotten.
#[test]
fn in_trees_made_by_chance_everything_that_may_go_goes_and_nothing_else() {
    inside("", || {
        let cases = rounds(60, 1000);
        let config = Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let disk = Type::Ext4.mounted(300, &[]);
        let (number, removed) = (Cell::new(0_u32), Cell::new(0_usize));
        let mut runner = TestRunner::new_with_rng(config, rng);
        let ran = runner.run(&things(), |(things, journals)| {
            number.set(number.get() + 1);
            let node = Node::at(&disk.point.join(number.get().to_string()));
            let mut policy = node.policy();
            let mut may_go = BTreeSet::new();
            for (number, thing) in things.iter().enumerate() {
                let (path, goes) = make(&node, number, thing);
                if goes {
                    may_go.insert(path.clone());
                }
                // A link is not to be kept by its name.
                if thing.twist == Twist::Kept && !path.is_symlink() {
                    may_go.remove(&path);
                    policy
                        .keep
                        .push(PathBuf::from("/").join(path.strip_prefix(&node.root).unwrap()));
                }
            }
            for (number, journal) in journals.iter().enumerate() {
                let (path, goes) = make_journal(&node, number, journal);
                if goes {
                    may_go.insert(path);
                }
            }
            let before = node.traces();
            let plan = plan(&policy);
            prop_assert_eq!(&node.traces(), &before, "a plan changes nothing");
            let planned: BTreeSet<PathBuf> = paths(&plan).into_iter().collect();
            prop_assert_eq!(&planned, &may_go);
            let report = apply(&plan);
            prop_assert!(
                report.done.iter().all(|done| done.end == End::Done),
                "{:?}",
                report
            );
            let mut expected = before;
            expected.retain(|path, _| !may_go.contains(path));
            prop_assert_eq!(&node.traces(), &expected);
            removed.set(removed.get() + may_go.len());
            fs::remove_dir_all(&node.root).unwrap();
            Ok(())
        });
        ran.unwrap();
        assert!(
            removed.get() > usize::try_from(cases).unwrap(),
            "{removed:?} in {cases} trees"
        );
        let what = format!(
            "false removals in {cases} trees ({} files went)",
            removed.get()
        );
        measured("B4", &what, (0.0, "files"), Bar::AtMost(0.0));
    });
}

// B3, B-011, M7: what a step is expected to give back it gives back, to a hundredth or a MiB, on each filesystem, for files of
// all sizes and with holes.
#[test]
fn what_is_expected_is_what_comes_back() {
    inside("", || {
        let mut chance = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let (mut held, mut steps) = (0_u32, 0_u32);
        for kind in Type::ALL {
            let disk = kind.mounted(400, &[]);
            for number in 0..rounds(8, 25) {
                let node = Node::at(&disk.point.join(number.to_string()));
                node.file("var/log/pods/default_app_0123/main/0.log", 3000);
                for file in 0..4 + chance.next_u32() % 16 {
                    grow(&node, file, &mut chance);
                }
                settle(&disk.point);
                for done in apply(&node.plan()).done {
                    let is_done = matches!(done.end, End::Done | End::Short);
                    assert!(is_done, "{kind}: {done:?}");
                    let expected = i64::try_from(done.expected).unwrap();
                    let off = done.measured.abs_diff(expected);
                    held += u32::from(off <= (done.expected / 100).max(1 << 20));
                    steps += 1;
                }
                fs::remove_dir_all(&node.root).unwrap();
            }
        }
        let share = f64::from(held) / f64::from(steps) * 100.0;
        let what = format!("of {steps} steps gave back what was expected (1 % or 1 MiB)");
        measured("B3", &what, (share.round(), "%"), Bar::AtLeast(95.0));
        assert!(steps >= rounds(70, 300), "{steps} steps");
        assert!(share >= 95.0, "{share} % of {steps}");
    });
}

/// A file that may go, up to 3 MiB large; every third is as much larger by a hole.
fn grow(node: &Node, number: u32, chance: &mut TestRng) {
    let bytes = usize::try_from(chance.next_u32() % (3 << 20)).unwrap();
    let path = match number % 4 {
        0 => node.file(format!("var/cache/apt/archives/a{number}_1_all.deb"), bytes),
        1 => node.file(
            format!("var/log/pods/default_app_0123/main/0.log.20260102-{number:06}"),
            bytes,
        ),
        2 => node.journal(u64::from(number), Duration::from_hours(72), bytes.max(4096)),
        _ => node.file(format!("var/crash/_usr_bin_app{number}.0.crash"), bytes),
    };
    // A journal with something behind its end is none that is complete.
    if number.is_multiple_of(3) && number % 4 != 2 {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(u64::try_from(2 * bytes).unwrap()).unwrap();
    }
}

// Compat mode takes more of the journals than strict mode, and nothing else than journals changes with it.
#[test]
fn compat_mode_changes_journals_only() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let node = Node::at(&disk.point.join("node"));
        node.plant(5000);
        node.plant_decoys();
        let strict = paths(&node.plan());
        let mut policy = node.policy();
        policy.journal_mode = JournalMode::Compat;
        let compat = paths(&plan(&policy));
        let journals = node.root.join("var/log/journal").join(MACHINE);
        let others = |paths: &[PathBuf]| {
            paths
                .iter()
                .filter(|path| !path.starts_with(&journals))
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(others(&strict), others(&compat));
        assert!(strict.iter().all(|path| compat.contains(path)));
        assert!(compat.len() > strict.len());
    });
}
