//! What is written down is what is recalled.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use super::*;
use crate::clean::place;
use proptest::prelude::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_900_000_200 + seconds).unwrap()
}

fn node() -> (tempfile::TempDir, OwnedFd, Reach) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("var/lib")).unwrap();
    let root = place::open_root(directory.path()).unwrap();
    let reach = Reach::of(&root).unwrap();
    (directory, root, reach)
}

fn key(what: What) -> Key {
    Key {
        point: "/var/lib/con tainerd\n".into(),
        what,
    }
}

// Levels and history survive the end of the process, however it ends: what was decided is there at once, history after its hour.
#[test]
fn levels_and_history_are_recalled_by_the_next_guard() {
    let (_directory, root, reach) = node();
    let (mut memory, past, opened) = Memory::open(&root, &reach, at(0));
    if opened.is_err() {
        return nagi_testkit::skipped("no room for a ring");
    }
    assert_eq!((past.len(), memory.state()), (0, &State::default()));
    let mut state = State::default();
    let disk = DiskState {
        bytes: Level::Critical,
        inodes: Level::Notice,
        bytes_told_at: Some(at(5)),
        inodes_told_at: Some(at(4)),
        bytes_fill: true,
        inodes_fill: false,
        silent_told_at: Some(at(3)),
        calm_since: None,
        cleaned_at: Some(at(6)),
        released_at: Some(at(-7)),
    };
    state.disks.insert("/with blank".into(), disk.clone());
    memory.keep_state(&state, at(10)).unwrap();
    state.disks.insert("/".into(), DiskState::default());
    memory.keep_state(&state, at(11)).unwrap();
    let mut past = Past::new();
    for step in 0..30_i64 {
        let now = at(step * LONG_SECONDS);
        let used = u64::MAX / 2 + u64::try_from(step).unwrap() * (u64::MAX / 1000);
        past.entry(key(What::All(Resource::Bytes)))
            .or_default()
            .add(now, used);
        past.entry(key(What::Of(Owner::ContainerdContent)))
            .or_default()
            .add(now, 7);
        memory.keep_past(&past, now, false).unwrap();
    }
    drop(memory);
    let (memory, recalled, opened) = Memory::open(&root, &reach, at(30 * LONG_SECONDS));
    opened.unwrap();
    assert_eq!(memory.state(), &state);
    // Written at each full hour: four hours of points, and the first.
    let series = &recalled[&key(What::All(Resource::Bytes))];
    let kept: Vec<Point> = past[&key(What::All(Resource::Bytes))]
        .long()
        .iter()
        .take(25)
        .copied()
        .collect();
    assert_eq!(series.long().iter().copied().collect::<Vec<_>>(), kept);
    assert!(recalled.contains_key(&key(What::Of(Owner::ContainerdContent))));
}

// A level that holds is recalled however often history has gone round the ring since it was decided.
#[test]
fn a_level_outlives_the_ring() {
    let (_directory, root, reach) = node();
    let (mut memory, mut past, opened) = Memory::open(&root, &reach, at(0));
    if opened.is_err() {
        return nagi_testkit::skipped("no room for a ring");
    }
    let mut state = State::default();
    let disk = DiskState {
        bytes: Level::Serious,
        bytes_told_at: Some(at(1)),
        ..DiskState::default()
    };
    state.disks.insert("/".into(), disk);
    memory.keep_state(&state, at(1)).unwrap();
    // More records than the ring has slots.
    let hours = 30_u64;
    for hour in 1..=hours {
        let now = at(i64::try_from(hour).unwrap() * 3600);
        for disk in 0..80 {
            let key = Key {
                point: format!("/{disk}").into(),
                what: What::All(Resource::Bytes),
            };
            past.entry(key).or_default().add(now, hour * 1_000_000);
        }
        memory.keep_past(&past, now, false).unwrap();
        memory.keep_state(&state, now).unwrap();
    }
    assert!(memory.sequence > RING_BYTES / 512, "{}", memory.sequence);
    drop(memory);
    let (memory, ..) = Memory::open(&root, &reach, at(3600 * 31));
    assert_eq!(memory.state(), &state);
}

// B16: on a node that rests nothing is written, and an orderly end writes what is new.
#[test]
fn a_node_that_rests_writes_nothing() {
    let (_directory, root, reach) = node();
    let (mut memory, mut past, opened) = Memory::open(&root, &reach, at(0));
    if opened.is_err() {
        return nagi_testkit::skipped("no room for a ring");
    }
    let mut add = |seconds, used| {
        let series = past.entry(key(What::All(Resource::Bytes))).or_default();
        series.add(at(seconds), used);
        past.clone()
    };
    memory
        .keep_past(&add(3600, 1_000_000), at(3600), false)
        .unwrap();
    let written = memory.sequence;
    assert_eq!(written, 1);
    for hour in 2..48 {
        let rests = add(hour * 3600, 1_000_900);
        memory.keep_past(&rests, at(hour * 3600), false).unwrap();
        memory
            .keep_state(&State::default(), at(hour * 3600))
            .unwrap();
    }
    assert_eq!(memory.sequence, written);
    let grown = add(48 * 3600, 1_001_001);
    memory
        .keep_past(&grown, at(47 * 3600 + 100), false)
        .unwrap();
    assert_eq!(memory.sequence, written, "not within the hour");
    memory.keep_past(&grown, at(47 * 3600 + 100), true).unwrap();
    // 47 points of 12 in a record.
    assert_eq!(memory.sequence, written + 4);
}

// What is older than three days, or lies ahead, tells nothing of now.
#[test]
fn what_is_too_old_or_ahead_is_not_recalled() {
    let (_directory, root, reach) = node();
    let (mut memory, mut past, opened) = Memory::open(&root, &reach, at(0));
    if opened.is_err() {
        return nagi_testkit::skipped("no room for a ring");
    }
    past.entry(key(What::All(Resource::Bytes)))
        .or_default()
        .add(at(0), 5);
    memory.keep_past(&past, at(0), true).unwrap();
    drop(memory);
    let hours = |hours: i64| Memory::open(&root, &reach, at(hours * 3600)).1.len();
    assert_eq!(hours(71), 1);
    assert_eq!(hours(73), 0);
    assert_eq!(hours(-1), 0);
}

// A full disk without a ring: everything goes on in memory, and the reason is told.
#[test]
fn without_a_ring_nothing_is_remembered_and_that_is_said() {
    let (directory, root, reach) = node();
    let own = directory.path().join("var/lib/nagi-guard");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join(RING), "somebody's").unwrap();
    let (mut memory, past, opened) = Memory::open(&root, &reach, at(0));
    assert_eq!(
        (opened, past.len(), memory.has_ring()),
        (Err(Errno::INVAL), 0, false)
    );
    let mut state = State::default();
    state.disks.insert("/".into(), DiskState::default());
    memory.keep_state(&state, at(1)).unwrap();
    assert_eq!(std::fs::read(own.join(RING)).unwrap(), b"somebody's");
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(
        path in proptest::collection::vec(1_u8.., 1..60),
        spans in proptest::collection::btree_set(0_i64..5_000_000, 1..POINTS),
        used: u64,
        told in proptest::option::of(0_i64..4_000_000_000),
        level in 0_usize..5,
        is_filling: bool,
    ) {
        let point = PathBuf::from(OsString::from_vec(path));
        let key = Key { point: point.clone(), what: What::All(Resource::Inodes) };
        let points: Vec<Point> = spans.into_iter().map(|span| Point { span, used }).collect();
        let record = points_record(&key, &points);
        prop_assert!(!record.contains('\n'));
        prop_assert_eq!(read_points(&record), Some((key, points)));
        let disk = DiskState {
            bytes: Level::ALL[level],
            inodes_fill: is_filling,
            inodes_told_at: told.map(|second| Timestamp::from_second(second).unwrap()),
            ..DiskState::default()
        };
        let record = disk_record(&point, &disk);
        prop_assert!(!record.contains('\n') && record.len() < 512 || point.as_os_str().len() > 20);
        prop_assert_eq!(read_disk(&record), Some((point, disk)));
    }
}
