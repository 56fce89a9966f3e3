//! Walks over real trees, against what `du` says of them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::view;

const CORES: NonZeroUsize = NonZeroUsize::new(3).unwrap();

fn walked(path: &Path, limits: Limits) -> Walked {
    let view = view::open(path).unwrap();
    let start = Start {
        directory: view.directory,
        path: path.to_owned(),
    };
    let manner = Manner {
        marks: &Marks::none(),
        threads: CORES,
        top: 5,
        watch: &Watch::new(),
        limits,
        pace: None,
    };
    walk(&[start], &manner).unwrap()
}

fn all(path: &Path) -> Walked {
    walked(path, Limits::DEFAULT)
}

/// What `du` counts: blocks of 512 bytes, or inodes.
#[expect(clippy::disallowed_methods, reason = "du is what is compared with")]
fn du(path: &Path, option: &str) -> u64 {
    let output = Command::new("du")
        .args(["-s", "-x", option])
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split('\t').next().unwrap().parse().unwrap()
}

fn same_as_du(path: &Path, walked: &Walked) {
    let total = walked.tree.total();
    assert_eq!(total.blocks.0, du(path, "--block-size=512"));
    assert_eq!(total.inodes, du(path, "--inodes"));
    assert_eq!(walked.owners.iter().copied().sum::<Tally>(), total);
}

/// One entry of a generated tree: which directory, and what.
#[derive(Debug, Clone)]
enum Entry {
    Directory,
    File(u16),
    Sparse(u32),
    HardLink(usize),
    SymbolicLink(usize),
    SymbolicLoop,
}

fn entry() -> impl Strategy<Value = (usize, Entry)> {
    let what = prop_oneof![
        4 => Just(Entry::Directory),
        6 => any::<u16>().prop_map(Entry::File),
        1 => any::<u32>().prop_map(Entry::Sparse),
        2 => any::<usize>().prop_map(Entry::HardLink),
        1 => any::<usize>().prop_map(Entry::SymbolicLink),
        1 => Just(Entry::SymbolicLoop),
    ];
    (any::<usize>(), what)
}

/// Makes the tree. Names are no UTF-8.
fn build(root: &Path, entries: &[(usize, Entry)]) {
    let mut directories = vec![root.to_owned()];
    let mut files = Vec::new();
    for (number, (place, entry)) in entries.iter().enumerate() {
        let parent = directories[place % directories.len()].clone();
        let mut name = format!("n{number}").into_bytes();
        name.push(0xff);
        let path = parent.join(OsStr::from_bytes(&name));
        match entry {
            Entry::Directory => {
                fs::create_dir(&path).unwrap();
                directories.push(path);
            }
            Entry::File(bytes) => {
                fs::write(&path, vec![1; usize::from(*bytes)]).unwrap();
                files.push(path);
            }
            Entry::Sparse(hole) => {
                let file = File::create(&path).unwrap();
                file.write_all_at(b"x", u64::from(*hole)).unwrap();
                files.push(path);
            }
            Entry::HardLink(of) if !files.is_empty() => {
                fs::hard_link(&files[of % files.len()], &path).unwrap();
            }
            Entry::SymbolicLink(to) => {
                symlink(&directories[to % directories.len()], &path).unwrap();
            }
            Entry::SymbolicLoop | Entry::HardLink(_) => symlink(".", &path).unwrap(),
        }
    }
}

/// Blocks are given out when data is written back; before that two questions may have two answers.
#[expect(
    clippy::disallowed_methods,
    reason = "writes the test's own files back"
)]
fn settle(path: &Path) {
    let done = Command::new("sync").arg("-f").arg(path).status().unwrap();
    assert!(done.success());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    // D-05, B-008: equal to the block, hard links once, holes not counted, links not followed.
    #[test]
    fn every_tree_takes_what_du_says(entries in prop::collection::vec(entry(), 0..120)) {
        let tree = tempfile::tempdir().unwrap();
        build(tree.path(), &entries);
        settle(tree.path());
        same_as_du(tree.path(), &all(tree.path()));
        // The same in the little memory that is left when the limits are reached.
        let narrow = Limits { directories: 4, links: 3 };
        let folded = walked(tree.path(), narrow);
        same_as_du(tree.path(), &folded);
        prop_assert!(folded.tree.len() <= 4);
    }

    // Two walks tell the same, whatever the threads did first.
    #[test]
    fn a_walk_tells_the_same_each_time(entries in prop::collection::vec(entry(), 0..120)) {
        let tree = tempfile::tempdir().unwrap();
        build(tree.path(), &entries);
        settle(tree.path());
        let tell = || {
            let walked = all(tree.path());
            let mut paths: Vec<_> = walked.tree.ids()
                .map(|id| (walked.tree.path(id), walked.tree.sum(id)))
                .collect();
            paths.sort_by(|one, other| one.0.cmp(&other.0));
            (paths, walked.largest)
        };
        prop_assert_eq!(tell(), tell());
    }
}

fn find(walked: &Walked, path: &Path) -> tree::NodeId {
    let found = walked.tree.ids().find(|id| walked.tree.path(*id) == path);
    found.unwrap()
}

// W-B09: bytes and inodes.
#[test]
fn large_files_and_full_directories_are_found_once_each() {
    let tree = TempDir::new().unwrap();
    let (a, b) = (tree.path().join("a"), tree.path().join("b"));
    fs::create_dir(&a).unwrap();
    fs::create_dir(&b).unwrap();
    fs::write(b.join("large"), vec![1; 1 << 20]).unwrap();
    fs::hard_link(b.join("large"), a.join("same")).unwrap();
    fs::write(b.join("less"), vec![1; 1 << 19]).unwrap();
    for number in 0..50 {
        File::create(a.join(number.to_string())).unwrap();
    }
    settle(tree.path());
    let walked = all(tree.path());
    let names: Vec<_> = walked.largest.iter().map(|file| &file.path).collect();
    assert_eq!(names, [&a.join("same"), &b.join("less")]);
    // The file with two names counts at the first of its paths.
    assert_eq!(walked.tree.own(find(&walked, &a)).inodes, 52);
    assert_eq!(walked.tree.own(find(&walked, &b)).inodes, 2);
    assert!(!walked.links_by_chance);
}

#[test]
fn a_path_longer_than_the_kernel_takes_is_walked() {
    let tree = TempDir::new().unwrap();
    // Made from the inside, a step at a time: no call takes the whole path.
    let name = "d".repeat(200);
    let mut at = rustix::fs::open(tree.path(), OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..60 {
        rustix::fs::mkdirat(&at, &*name, Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, &*name, OFlags::PATH, Mode::empty()).unwrap();
    }
    let deep = rustix::fs::openat(&at, "end", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
    File::from(deep).write_all(&[1; 10_000]).unwrap();
    settle(tree.path());
    let walked = all(tree.path());
    assert_eq!(walked.faults.count, 0, "{:?}", walked.faults);
    assert_eq!(walked.tree.len(), 61);
    same_as_du(tree.path(), &walked);
}

#[test]
fn a_long_path_is_split_between_names() {
    assert_eq!(split_step(b"a/b"), (&b"a/b"[..], &b""[..]));
    let long = vec![[b'a'; 99].to_vec(); 100].join(&b'/');
    let (step, rest) = split_step(&long);
    assert!(step.len() <= PATH_STEP_MAX && step.ends_with(b"a") && rest.starts_with(b"a"));
    assert_eq!([step, rest].join(&b'/'), long);
}

// A directory that others fill and empty while it is walked: no error, no end that does not come.
#[test]
#[expect(clippy::disallowed_methods, reason = "removes what the test made")]
fn a_tree_that_changes_is_walked_to_its_end() {
    let tree = TempDir::new().unwrap();
    for number in 0..200 {
        fs::create_dir(tree.path().join(format!("stays{number}"))).unwrap();
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for number in 0..20 {
                    let path = tree.path().join(format!("stays{number}/comes"));
                    fs::create_dir_all(path.join("deep")).unwrap();
                    fs::write(path.join("file"), b"x").unwrap();
                    // A directory becomes a link to everything above it.
                    fs::remove_dir_all(&path).unwrap();
                    symlink("/", &path).unwrap();
                    fs::remove_file(&path).unwrap();
                }
            }
        });
        for _ in 0..50 {
            let walked = all(tree.path());
            assert_eq!(walked.faults.count, 0, "{:?}", walked.faults);
            let directories = walked.tree.len();
            assert!((201..=241).contains(&directories), "{directories}");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn entries_that_are_gone_are_counted_apart_from_those_that_are_closed() {
    let mut faults = Faults::default();
    for error in [Errno::NOENT, Errno::NOTDIR, Errno::LOOP] {
        faults.add(|| "/gone".into(), error);
    }
    for _ in 0..150 {
        faults.add(|| "/closed".into(), Errno::ACCESS);
    }
    assert_eq!((faults.vanished, faults.count), (3, 150));
    assert_eq!(faults.first.len(), 100, "the list has an end");
}

// Whoever may not read a directory is told so. Root may read everything, and then there is nothing to tell.
#[test]
fn a_directory_that_may_not_be_read_is_named() {
    let tree = TempDir::new().unwrap();
    let closed = tree.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("inside"), b"x").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).unwrap();
    let may_read = fs::read_dir(&closed).is_ok();
    let walked = all(tree.path());
    if may_read {
        assert_eq!(walked.faults.count, 0);
    } else {
        assert_eq!(walked.faults.first[0].path, closed);
        assert_eq!(walked.faults.first[0].error, Errno::ACCESS);
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
}
