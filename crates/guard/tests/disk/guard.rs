//! The guard on real filesystems: levels up to 100 %, ballast that really reserves, and what a restart remembers.

mod growth;
mod rings;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nagi_guard::{
    Allocate, Ballast, BallastError, Cause, Changed, Eyes, Guard, GuardError, GuardSettings, Hands,
    Level, Looked, Question, Reserve, Resource, Round, Rules, Scramble, SurveyError, Trouble,
};
use nagi_ports::{Clock, SystemClock};
use nagi_testkit::{Bar, measured};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::full::{fill_up, free};
use crate::machine::{Mounted, Type, cover, fill, inside, run, settle};

const MIB: u64 = 1 << 20;

/// A disk with a node on it, whose `/run` is in memory.
fn node(disk: &Mounted) -> PathBuf {
    let node = disk.point.join("node");
    for directory in ["run", "var/lib", "var/log"] {
        fs::create_dir_all(node.join(directory)).unwrap();
    }
    cover(&node.join("run"));
    node
}

fn settings(node: &Path, ballast: bool) -> GuardSettings {
    GuardSettings {
        root: node.to_owned(),
        paths: vec![node.to_owned()],
        rules: Rules {
            clean_at: Some(Level::Serious),
            calm_for: Duration::from_hours(1),
        },
        ballast,
    }
}

/// A guard, what writes for it, and what looks for it.
type Both = (Guard, Hands, Eyes);

fn begin(node: &Path, ballast: bool) -> Both {
    with(settings(node, ballast)).unwrap()
}

fn with(settings: GuardSettings) -> Result<Both, GuardError> {
    let clock = SystemClock::new();
    let (mut guard, eyes, mut hands) = Guard::begin(settings, &clock)?;
    let mut opened = hands.open(clock.now());
    guard.done(&mut opened, &clock);
    Ok((guard, hands, eyes))
}

/// A look alone: nothing of what follows from it is written.
fn glance(both: &mut Both) -> Round {
    glance_at(both, &SystemClock::new())
}

fn glance_at(both: &mut Both, clock: &dyn Clock) -> Round {
    let disks = both.2.disks().unwrap();
    let looked = Looked {
        readings: disks.disks.iter().filter_map(Question::ask).collect(),
        left_out: disks.left_out,
        ..Looked::default()
    };
    both.0.round(looked, clock)
}

/// A clock that is so far ahead.
#[derive(Debug)]
struct Ahead(Duration);

impl Clock for Ahead {
    fn now(&self) -> jiff::Timestamp {
        SystemClock::new().now() + self.0
    }

    fn monotonic(&self) -> Duration {
        SystemClock::new().monotonic() + self.0
    }
}

/// A look, and all that follows: what went wrong, and what became of the ballast.
fn act(both: &mut Both) -> (Round, Vec<Trouble>, Option<Changed>) {
    act_at(both, &SystemClock::new())
}

/// The same at another time.
fn act_at(both: &mut Both, clock: &dyn Clock) -> (Round, Vec<Trouble>, Option<Changed>) {
    let mut round = glance_at(both, clock);
    let mut troubles = std::mem::take(&mut round.troubles);
    let mut changed = None;
    if let Some(deeds) = round.deeds.take() {
        let mut done = both.1.carry_out(deeds);
        both.0.done(&mut done, clock);
        troubles.extend(done.troubles);
        changed = done.ballast;
    }
    (round, troubles, changed)
}

fn look(both: &mut Both) -> Round {
    act(both).0
}

/// Fills until so many tenths of a percent of what can be used are used.
fn fill_to(point: &Path, per_mille: u64) {
    // btrfs counts what was allocated, as both rings just were, when it is committed.
    settle(point);
    let stat = rustix::fs::statvfs(point).unwrap();
    let used = stat.f_blocks - stat.f_bfree;
    let wanted = (used + stat.f_bavail) * per_mille / 1000;
    let bytes = wanted.saturating_sub(used) * stat.f_frsize;
    let path = point.join(format!("fill-to-{per_mille}"));
    let file: OwnedFd = File::create(path).unwrap().into();
    Allocate.reserve(&file, bytes).unwrap();
    settle(point);
}

fn rises(round: &Round) -> Vec<(Resource, Level)> {
    let rises = round.alerts.iter().filter_map(|alert| match alert.cause {
        Cause::Rose(_) => Some((alert.resource, alert.level)),
        Cause::Fell(_) | Cause::Remains | Cause::Filling | Cause::Silent | Cause::Answers => None,
    });
    rises.collect()
}

// B-031, B-034, D-22, B13: every level is told on the way to 100 %, on each filesystem, and none a second time.
#[test]
fn every_level_is_told_on_the_way_to_0_bytes() {
    inside("", || {
        for kind in Type::ALL {
            let disk = kind.mounted(400, &[]);
            let node = node(&disk);
            let mut guard = begin(&node, false);
            assert_eq!(rises(&look(&mut guard)), [], "{kind}");
            for (per_mille, level) in [
                (795, None),
                (815, Some(Level::Notice)),
                (865, Some(Level::Alert)),
                (910, Some(Level::Serious)),
                (960, Some(Level::Critical)),
            ] {
                fill_to(&disk.point, per_mille);
                let expected: Vec<_> = level
                    .map(|level| (Resource::Bytes, level))
                    .into_iter()
                    .collect();
                let round = look(&mut guard);
                assert_eq!(
                    rises(&round),
                    expected,
                    "{kind} at {per_mille}: {:?}",
                    round.disks
                );
                assert_eq!(look(&mut guard).alerts, [], "{kind}: told twice");
            }
            fill_up(&disk.point);
            settle(&disk.point);
            let before = free(&disk.point);
            let round = look(&mut guard);
            assert_eq!(round.alerts, [], "{kind}: it was critical before");
            assert!(
                round.disks[0].reading.space.bytes_available < 64 << 10,
                "{kind}"
            );
            assert_eq!(free(&disk.point), before, "{kind}: the look took something");
        }
    });
}

// D-22, M3: inodes on ext4 are told as inodes; a full XFS, whose inodes shrink with its blocks, is told as bytes only.
#[test]
fn inodes_are_told_where_they_are_what_runs_out() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &["-N", "1024"]);
        let node = node(&disk);
        let mut guard = begin(&node, false);
        look(&mut guard);
        let mut count = 0_u64;
        while File::create(disk.point.join(format!("one{count}"))).is_ok() {
            count += 1;
        }
        settle(&disk.point);
        assert_eq!(
            rises(&look(&mut guard)),
            [(Resource::Inodes, Level::Critical)]
        );
        let disk = Type::Xfs.mounted(320, &[]);
        let node = self::node(&disk);
        let mut guard = begin(&node, false);
        look(&mut guard);
        fill_up(&disk.point);
        settle(&disk.point);
        assert_eq!(
            rises(&look(&mut guard)),
            [(Resource::Bytes, Level::Critical)]
        );
    });
}

// D-12, D-22: the state is written at 0 bytes into the ring that was made before, and the next guard knows it.
#[test]
fn a_restart_at_0_bytes_forgets_nothing() {
    inside("", || {
        for kind in Type::ALL {
            let disk = kind.mounted(400, &[]);
            let node = node(&disk);
            let mut guard = begin(&node, false);
            assert!(guard.1.has_memory(), "{kind}");
            look(&mut guard);
            fill_up(&disk.point);
            settle(&disk.point);
            let (round, troubles, _) = act(&mut guard);
            assert_eq!(
                rises(&round),
                [(Resource::Bytes, Level::Critical)],
                "{kind}"
            );
            assert!(troubles.is_empty(), "{kind}: {troubles:?}");
            // Without an orderly end.
            drop(guard);
            let mut next = begin(&node, false);
            assert!(next.1.has_memory(), "{kind}");
            assert_eq!(
                look(&mut next).alerts,
                [],
                "{kind}: told again after a restart"
            );
        }
    });
}

// A guard that is ended between a look and its deeds has told nobody yet: the next one tells it, whatever was on the way.
#[test]
fn what_was_decided_and_not_told_is_told_by_the_next_guard() {
    inside("", || {
        let disk = Type::Ext4.mounted(400, &[]);
        let node = node(&disk);
        let mut guard = begin(&node, false);
        look(&mut guard);
        fill_up(&disk.point);
        settle(&disk.point);
        let critical = [(Resource::Bytes, Level::Critical)];
        assert_eq!(rises(&glance(&mut guard)), critical);
        drop(guard);
        let mut next = begin(&node, false);
        assert_eq!(rises(&look(&mut next)), critical);
    });
}

// A guard that would watch nothing does not begin, and says why; a disk that goes later is left out alone.
#[test]
fn a_guard_that_would_watch_nothing_does_not_begin() {
    inside("", || {
        let disk = Type::Ext4.mounted(100, &[]);
        let node = node(&disk);
        let begin = |paths: Vec<PathBuf>| {
            let settings = GuardSettings {
                paths,
                ..settings(&node, false)
            };
            with(settings)
        };
        let memory = begin(vec![node.clone(), node.join("run")]);
        let Err(GuardError::Look(SurveyError::NotDisk { path, fstype })) = memory else {
            panic!("{memory:?}");
        };
        assert_eq!((path, &*fstype), (node.join("run"), "tmpfs"));
        let missing = begin(vec![node.clone(), node.join("missing")]);
        let many = with(GuardSettings {
            paths: vec![node.clone(); 33],
            ..settings(&node, false)
        });
        assert!(matches!(many, Err(GuardError::Paths(33))), "{many:?}");
        let is_missing = matches!(missing, Err(GuardError::Look(SurveyError::Find { .. })));
        assert!(is_missing, "{missing:?}");
        let other = node.join("other");
        fs::create_dir(&other).unwrap();
        let mut both = begin(vec![node.clone(), other.clone()]).unwrap();
        assert_eq!(look(&mut both).disks.len(), 1);
        // A mount makes it look for its disks again.
        fs::remove_dir(&other).unwrap();
        fs::create_dir(node.join("mount")).unwrap();
        cover(&node.join("mount"));
        assert_eq!(look(&mut both).disks.len(), 1);
    });
}

// Two guards at once: the second one is refused, and the first goes on.
#[test]
fn there_is_one_guard_on_a_node() {
    inside("", || {
        let disk = Type::Ext4.mounted(100, &[]);
        let node = node(&disk);
        let first = begin(&node, false);
        let second = with(settings(&node, false));
        assert!(matches!(second, Err(GuardError::Busy)), "{second:?}");
        drop(first);
        begin(&node, false);
    });
}

// B17, §3.2: on each filesystem the ballast takes what it says from the free blocks, goes in halves at 0 bytes and gives each
// half back within 50 ms, without a byte or an inode.
#[test]
fn ballast_reserves_and_gives_back_at_0_bytes() {
    inside("", || {
        let mut slowest = Duration::ZERO;
        for kind in Type::ALL {
            let disk = kind.mounted(400, &[]);
            let node = node(&disk);
            settle(&disk.point);
            let start = bytes_free(&disk.point);
            let mut guard = begin(&node, true);
            let held = act(&mut guard).2.unwrap().held;
            assert!(held >= 15 * MIB, "{kind}: {held}");
            let taken = start - bytes_free(&disk.point);
            assert!(taken >= held / 100 * 95, "{kind}: {taken} of {held}");
            fill_up(&disk.point);
            settle(&disk.point);
            let empty = bytes_free(&disk.point);
            let begun = Instant::now();
            let changed = act(&mut guard).2;
            let took = begun.elapsed();
            assert_eq!(changed.unwrap().held, held / 2, "{kind}");
            settle(&disk.point);
            let back = bytes_free(&disk.point) - empty;
            assert!(back >= held / 2 / 100 * 95, "{kind}: {back} of {held}");
            slowest = slowest.max(took);
            assert!(took < Duration::from_millis(50), "{kind}: {took:?}");
            // Root can write again, on btrfs too.
            let mut file = File::create(disk.point.join("etcd")).unwrap();
            file.write_all(&vec![7; 4 << 20]).unwrap();
            file.sync_all().unwrap();
            // The rest waits: whoever writes on must not have all of it at once.
            fill_up(&disk.point);
            assert_eq!(act(&mut guard).2, None, "{kind}: both halves at once");
            // The next guard knows what is left.
            drop(guard);
            let mut next = begin(&node, true);
            assert_eq!(look(&mut next).disks[0].ballast, held / 2, "{kind}");
        }
        let what = "a half of the ballast is let go at 0 bytes on ext4, XFS and btrfs";
        let slowest = slowest.as_secs_f64() * 1000.0;
        measured("B17", what, (slowest, "ms"), Bar::AtMost(50.0));
    });
}

// What a person removed is seen within a minute, and not taken again before the disk was calm for an hour.
#[test]
fn ballast_that_a_person_removed_is_seen() {
    inside("", || {
        let disk = Type::Ext4.mounted(400, &[]);
        let node = node(&disk);
        let mut guard = begin(&node, true);
        let held = act(&mut guard).2.unwrap().held;
        assert!(held > 0);
        assert_eq!(act(&mut guard).2, None, "it is there");
        for half in ["ballast.1", "ballast.2"] {
            fs::remove_file(node.join("var/lib/nagi-guard").join(half)).unwrap();
        }
        let later = |minutes: u64| Ahead(Duration::from_mins(minutes));
        let seen = act_at(&mut guard, &later(2)).2.unwrap();
        assert_eq!((seen.before, seen.held), (0, 0));
        let (round, _, changed) = act_at(&mut guard, &later(3));
        assert_eq!(round.disks[0].ballast, 0);
        assert!(changed.is_none_or(|changed| changed.held == 0), "too soon");
        assert_eq!(act_at(&mut guard, &later(64)).2.unwrap().held, held);
    });
}

// --no-ballast: what an earlier guard took is given back.
#[test]
fn ballast_that_nobody_wants_any_more_is_given_back() {
    inside("", || {
        let disk = Type::Ext4.mounted(400, &[]);
        let node = node(&disk);
        let mut first = begin(&node, true);
        assert!(act(&mut first).2.unwrap().held > 0);
        drop(first);
        let mut second = begin(&node, false);
        assert_eq!(act(&mut second).2.unwrap().held, 0);
        assert!(!node.join("var/lib/nagi-guard/ballast.1").exists());
        assert_eq!(act(&mut second).2, None);
    });
}

// The disk of the ballast is watched whatever --path names, for somebody has to let it go.
#[test]
fn the_disk_of_the_ballast_is_watched_too() {
    inside("", || {
        let disk = Type::Ext4.mounted(400, &[]);
        let node = node(&disk);
        let other = Type::Ext4.mounted(100, &[]);
        let named = |ballast| GuardSettings {
            paths: vec![other.point.clone()],
            ..settings(&node, ballast)
        };
        let mut without = with(named(false)).unwrap();
        assert_eq!(look(&mut without).disks.len(), 1);
        drop(without);
        let mut guard = with(named(true)).unwrap();
        let (round, _, changed) = act(&mut guard);
        assert_eq!(round.disks.len(), 2);
        assert!(changed.unwrap().held > 0);
    });
}

/// What a careless ballast is made of.
struct Zeros;

impl Reserve for Zeros {
    fn reserve(&self, file: &OwnedFd, bytes: u64) -> Result<(), Errno> {
        let piece = vec![0; 1 << 20];
        let mut at = 0;
        while at < bytes {
            at += u64::try_from(rustix::io::pwrite(file, &piece, at)?).unwrap();
        }
        Ok(())
    }
}

// B17, §3.2: a filesystem that packs what is written gives nothing away for zeros: that is seen, nothing of it is left, and
// bytes that cannot be packed are taken instead.
#[test]
fn ballast_that_a_filesystem_packs_is_seen_to_be_worthless() {
    inside("", || {
        let disk = Type::Btrfs.mounted(400, &[]);
        let remount = ["-o", "remount,compress-force=zstd"].map(std::ffi::OsStr::new);
        run("mount", remount.into_iter().chain([disk.point.as_os_str()]));
        let node = node(&disk);
        let ballast = Ballast::at(&node, Path::new("/var/lib"), "nagi-guard").unwrap();
        let refused = ballast.take(32 * MIB, &[&Zeros]);
        let Err(BallastError::Worthless { bytes, taken }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(bytes, 16 * MIB, "its first half");
        assert!(taken < 4 * MIB, "{taken}");
        assert_eq!(ballast.held().unwrap(), 0, "nothing of it is left");
        ballast.take(32 * MIB, &[&Zeros, &Scramble]).unwrap();
        assert_eq!(ballast.held().unwrap(), 32 * MIB);
        ballast.take(32 * MIB, &Ballast::WAYS).unwrap();
        ballast.leave(0).unwrap();
        assert_eq!(ballast.held().unwrap(), 0);
    });
}

// A disk without room for it has no ballast, and the guard goes on.
#[test]
fn where_there_is_no_room_there_is_no_ballast() {
    inside("", || {
        let disk = Type::Ext4.mounted(400, &[]);
        let node = node(&disk);
        fill_to(&disk.point, 790);
        let mut guard = begin(&node, true);
        let (round, troubles, changed) = act(&mut guard);
        assert_eq!((changed, round.disks[0].ballast), (None, 0));
        assert!(troubles.is_empty(), "{troubles:?}");
    });
}

fn bytes_free(point: &Path) -> u64 {
    let stat = rustix::fs::statvfs(point).unwrap();
    stat.f_bfree * stat.f_frsize
}
