//! Which journals go, in both modes and at the edges of each rule. Real directories and journalctl itself are in `tests/disk`.

use rustix::fs::FileType;

use super::*;
use crate::blocks::Blocks;
use crate::mounts::Device;

const HOUR: u64 = 3_600_000_000;
/// A moment long after all of these, in microseconds.
const NOW: u64 = 1_000_000 * HOUR;

fn file(name: &str, last: u64, written: u64) -> File {
    let at = Instant::of_micros(written);
    File {
        name: name.as_bytes().to_vec(),
        entry: Entry {
            device: Device { major: 8, minor: 1 },
            inode: 1,
            kind: FileType::RegularFile,
            size: 8 << 20,
            blocks: Blocks(16384),
            links: 1,
            read: at,
            written: at,
            changed: at,
            born: None,
            is_mount: false,
        },
        head: Head::Journal {
            state: State::Archived,
            entries: 5,
            last,
        },
        made: None,
    }
}

fn archived(sequence: u64, realtime: u64) -> String {
    format!("system@{:032x}-{sequence:016x}-{realtime:016x}.journal", 7)
}

fn window(hours: u64) -> Limits {
    Limits {
        from: Some(Instant::of_micros(NOW - hours * HOUR)),
        bytes_max: None,
        files_max: None,
    }
}

fn gone(mode: Mode, files: &[File], limits: Limits) -> Vec<String> {
    let (goes, stays) = judge(files.to_vec(), mode, limits);
    assert_eq!(goes.len() + stays.len(), files.len());
    goes.into_iter()
        .map(|file| String::from_utf8_lossy(&file.name).into_owned())
        .collect()
}

// N-2 of the reference: journalctl takes entries that are newer than the window; strict mode does not. B-010
#[test]
fn strict_mode_loses_no_entry_of_the_window_and_compat_does_as_journalctl() {
    let begun_early = file(
        &archived(1, NOW - 60 * HOUR),
        NOW - 26 * HOUR,
        NOW - 26 * HOUR,
    );
    let old = file(
        &archived(2, NOW - 50 * HOUR),
        NOW - 49 * HOUR,
        NOW - 49 * HOUR,
    );
    let files = [begun_early, old];
    let name = |at: usize| String::from_utf8_lossy(&files[at].name).into_owned();
    assert_eq!(gone(Mode::Compat, &files, window(48)), [name(0), name(1)]);
    assert_eq!(gone(Mode::Strict, &files, window(48)), [name(1)]);
    assert_eq!(
        gone(Mode::Strict, &files, window(49)),
        [""; 0],
        "at its edge"
    );
}

#[test]
fn active_and_unknown_files_stay_in_both_modes() {
    let names = [
        "system.journal",
        "user-1000.journal",
        "system@x.journal",
        "system@1-2.journal~",
        "user-notes.txt",
        "system@00000000000000000000000000000007-0000000000000001-000000000000000g.journal",
    ];
    let files: Vec<File> = names.iter().map(|name| file(name, 5, 5)).collect();
    for mode in [Mode::Strict, Mode::Compat] {
        assert_eq!(gone(mode, &files, window(1)), [""; 0], "{mode:?}");
    }
}

// What cannot be understood may hold anything.
#[test]
fn strict_mode_keeps_what_it_does_not_understand() {
    let name = archived(1, 5);
    let with = |head| File {
        head,
        ..file(&name, 5, 5)
    };
    let state = |state| Head::Journal {
        state,
        entries: 5,
        last: 5,
    };
    for head in [
        Head::Short,
        Head::Foreign { entries: 0 },
        Head::Foreign { entries: 9 },
        Head::Unreadable(Errno::IO),
        state(State::Other),
        state(State::Online),
    ] {
        assert_eq!(
            gone(Mode::Strict, &[with(head)], window(1)),
            [""; 0],
            "{head:?}"
        );
    }
    assert_eq!(
        gone(Mode::Strict, &[with(state(State::Archived))], window(1)).len(),
        1
    );
    // Put aside after a crash: the head lags behind the file.
    let aside = format!("system@{:016x}-{:016x}.journal~", 5, 6);
    let crashed = |written| File {
        head: state(State::Online),
        ..file(&aside, 5, written)
    };
    assert_eq!(gone(Mode::Strict, &[crashed(NOW)], window(1)), [""; 0]);
    assert_eq!(gone(Mode::Strict, &[crashed(5)], window(1)), [aside]);
    // A clock that was ahead wrote into the future.
    assert_eq!(
        gone(Mode::Strict, &[file(&name, NOW + HOUR, 5)], window(1)),
        [""; 0]
    );
}

#[test]
fn compat_stops_at_size_and_number_and_counts_active_files() {
    let mut files: Vec<File> = (1..=4)
        .map(|number| file(&archived(number, NOW), NOW, NOW))
        .collect();
    files.push(file("system.journal", NOW, NOW));
    let limits = |bytes_max, files_max| Limits {
        from: None,
        bytes_max,
        files_max,
    };
    assert_eq!(
        gone(Mode::Compat, &files, limits(Some(16 << 20), None)).len(),
        3
    );
    assert_eq!(gone(Mode::Compat, &files, limits(None, Some(4))).len(), 1);
    assert_eq!(gone(Mode::Compat, &files, limits(None, None)).len(), 0);
    // Files without entries go with any limit.
    files[2].head = Head::Journal {
        state: State::Archived,
        entries: 0,
        last: 0,
    };
    assert_eq!(gone(Mode::Compat, &files, limits(None, Some(9))).len(), 1);
}

#[test]
fn the_head_is_read_where_journald_writes_it() {
    let mut bytes = [0; HEAD];
    assert_eq!(Head::parse(&bytes), Head::Foreign { entries: 0 });
    bytes[..8].copy_from_slice(SIGNATURE);
    bytes[STATE] = 2;
    bytes[ENTRIES] = 3;
    bytes[LAST + 1] = 1;
    let head = Head::Journal {
        state: State::Archived,
        entries: 3,
        last: 256,
    };
    assert_eq!(Head::parse(&bytes), head);
}
