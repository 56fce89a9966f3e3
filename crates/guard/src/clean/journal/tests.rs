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
            first: last,
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
        first: 5,
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
        first: 0,
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
    bytes[FIRST] = 7;
    bytes[LAST + 1] = 1;
    let head = Head::Journal {
        state: State::Archived,
        entries: 3,
        first: 7,
        last: 256,
    };
    assert_eq!(Head::parse(&bytes), head);
}

// A clock that was set back: the first entry is the newest, and the head says so.
#[test]
fn strict_mode_looks_at_the_first_entry_too() {
    let set_back = |first| File {
        head: Head::Journal {
            state: State::Offline,
            entries: 5,
            first,
            last: NOW - 700 * HOUR,
        },
        ..file(&archived(1, 5), 5, 5)
    };
    assert_eq!(
        gone(Mode::Strict, &[set_back(NOW - HOUR)], window(48)),
        [""; 0]
    );
    assert_eq!(
        gone(Mode::Strict, &[set_back(NOW - 48 * HOUR)], window(48)),
        [""; 0]
    );
    assert_eq!(
        gone(Mode::Strict, &[set_back(NOW - 49 * HOUR)], window(48)).len(),
        1
    );
}

fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap()
}

/// A journal of entries with these moments, in arrays of two, as systemd lays them.
fn made(moments: &[u64], is_compact: bool) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..8].copy_from_slice(SIGNATURE);
    bytes[12] = u8::from(is_compact) << 4;
    bytes[ENTRIES..ENTRIES + 8].copy_from_slice(&wide(moments.len()).to_le_bytes());
    let mut link = 176;
    for pair in moments.chunks(2) {
        let places: Vec<u64> = pair
            .iter()
            .map(|moment| {
                let place = wide(bytes.len());
                let mut entry = [0; 64];
                (entry[0], entry[8]) = (3, 64);
                entry[24..32].copy_from_slice(&moment.to_le_bytes());
                bytes.extend(entry);
                place
            })
            .collect();
        let array = bytes.len();
        bytes[link..link + 8].copy_from_slice(&wide(array).to_le_bytes());
        link = array + 16;
        let mut object = vec![0; 24];
        (object[0], object[8]) = (6, if is_compact { 32 } else { 40 });
        for at in 0..2 {
            let place = places.get(at).copied().unwrap_or(0);
            if is_compact {
                object.extend(u32::try_from(place).unwrap().to_le_bytes());
            } else {
                object.extend(place.to_le_bytes());
            }
        }
        bytes.extend(object);
    }
    bytes
}

fn latest(bytes: &[u8]) -> Option<u64> {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    entries::latest(&file, wide(bytes.len()))
}

proptest::proptest! {
    // However the clock was set while a file was written, the latest entry is found.
    #[test]
    fn the_latest_entry_is_found_wherever_it_lies(
        moments in proptest::collection::vec(proptest::prelude::any::<u64>(), 1..40),
        is_compact in proptest::prelude::any::<bool>(),
    ) {
        let bytes = made(&moments, is_compact);
        proptest::prop_assert_eq!(latest(&bytes), moments.iter().max().copied());
    }

    // Whatever is wrong with it, a file is read to an end, and no entry of the head is left out.
    #[test]
    fn a_broken_file_is_not_understood_or_read_to_its_end(
        at in 0..2000_usize,
        byte in proptest::prelude::any::<u8>(),
        cut in 0..2000_usize,
    ) {
        let mut bytes = made(&[1, 2, 3, 9, 5, 6, 7], false);
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        latest(&bytes);
        bytes.truncate(cut.min(bytes.len() - 1));
        proptest::prop_assert_eq!(latest(&bytes), None);
    }
}

#[test]
fn arrays_that_go_round_or_lie_elsewhere_are_not_understood() {
    let good = made(&[1, 2, 3], false);
    assert_eq!(latest(&good), Some(3));
    let array = usize::try_from(u64::from_le_bytes(good[176..184].try_into().unwrap())).unwrap();
    for (at, value) in [
        (array + 16, wide(array)),
        (array + 16, u64::MAX),
        (array + 24, u64::MAX - 3),
        (array + 8, u64::MAX),
        (array, 3),
        (ENTRIES, 4),
        (176, 0),
    ] {
        let mut bytes = good.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        assert_eq!(latest(&bytes), None, "{at} {value}");
    }
}
