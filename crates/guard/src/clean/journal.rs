//! Which journals may go: by journald's own rules, or by stricter ones that lose nothing of the window.
//!
//! **Compat** removes what `journalctl --vacuum-{time,size,files}` removes, in its order: archived files and those put aside
//! after a crash, never an active one and never a name that journald does not know. Its time rule takes the *earliest* of
//! the stamp in the name and the file's own times, so that it may take a file with entries that are newer than the window.
//!
//! **Strict** removes only what is archived and whose every entry is older than the window. The head of the file says when the
//! first and the last of them were written; [`entries`] reads the others, where a file is about to go. A file that cannot be
//! understood is kept.

pub(crate) mod entries;

use std::cmp::Ordering;
use std::os::fd::AsFd;

use rustix::io::Errno;

use super::place::{Entry, Instant};

/// By which rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing newer than the window is lost.
    Strict,
    /// As journalctl does it.
    Compat,
}

/// What is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Entries from here on. None: no limit of time.
    pub(crate) from: Option<Instant>,
    /// Bytes of all files, of which only archived ones go; compat only.
    pub(crate) bytes_max: Option<u64>,
    /// Files, with the active ones; compat only.
    pub(crate) files_max: Option<u64>,
}

/// A file of a journal directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) name: Vec<u8>,
    pub(crate) entry: Entry,
    pub(crate) head: Head,
    /// `user.crtime_usec`, which journald writes: when the file was made, in microseconds.
    pub(crate) made: Option<u64>,
}

/// What the first bytes of a file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// It is one of journald's.
    Journal {
        state: State,
        entries: u64,
        /// When the first entry was written, in microseconds since 1970.
        first: u64,
        /// When the last one was: earlier, where the clock was set back.
        last: u64,
    },
    /// It is too short to have one.
    Short,
    /// It has another signature; how many entries it would have.
    Foreign { entries: u64 },
    /// It cannot be read.
    Unreadable(Errno),
}

/// What a writer left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Offline,
    /// Being written, or left by a crash.
    Online,
    Archived,
    /// A number that this version does not know.
    Other,
}

/// Why a file stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Its name is none of journald's.
    Unknown,
    /// It is written to.
    Active,
    /// It has entries of the window, or the limits leave it.
    Wanted,
    /// Its head cannot be understood, so that nobody knows what would be lost.
    NotUnderstood,
}

/// What a name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Unknown,
    Active,
    Archived {
        /// Writer and number of the first entry; none for what was put aside.
        sequence: Option<(u128, u64)>,
        /// In microseconds.
        realtime: u64,
    },
}

/// Head of version 252: a file that is shorter has no entries. Later versions are 8 bytes longer; journald makes no
/// file of less than 512 KiB.
const HEAD: usize = 264;
const SIGNATURE: &[u8] = b"LPKSHHRH";
const ENTRIES: usize = 152;
const FIRST: usize = 184;
const LAST: usize = 192;
const STATE: usize = 16;
/// `@`, 32 digits, `-`, 16 digits, `-`, 16 digits, `.journal`, behind at least one character.
const ARCHIVED_LEN: usize = 1 + 32 + 1 + 16 + 1 + 16 + 8;
const ASIDE_LEN: usize = 1 + 16 + 1 + 16 + 8 + 1;

// === impl Head ===

impl Head {
    /// Reads the head of an open file.
    pub(crate) fn read(file: impl AsFd, size: u64) -> Self {
        if usize::try_from(size).is_ok_and(|size| size < HEAD) {
            return Self::Short;
        }
        let mut bytes = [0; HEAD];
        match rustix::io::pread(file, &mut bytes, 0) {
            Ok(read) if read == HEAD => Self::parse(&bytes),
            Ok(_) => Self::Short,
            Err(error) => Self::Unreadable(error),
        }
    }

    /// Understands it.
    fn parse(bytes: &[u8; HEAD]) -> Self {
        let number = |at: usize| {
            let field = bytes
                .get(at..at + 8)
                .and_then(|field| field.try_into().ok());
            u64::from_le_bytes(field.unwrap_or_default())
        };
        let entries = number(ENTRIES);
        if !bytes.starts_with(SIGNATURE) {
            return Self::Foreign { entries };
        }
        Self::Journal {
            state: match bytes.get(STATE) {
                Some(0) => State::Offline,
                Some(1) => State::Online,
                Some(2) => State::Archived,
                Some(_) | None => State::Other,
            },
            entries,
            first: number(FIRST),
            last: number(LAST),
        }
    }
}

/// Parts files into those that may go, in the order in which they should, and those that stay.
pub(crate) fn judge(
    files: Vec<File>,
    mode: Mode,
    limits: Limits,
) -> (Vec<File>, Vec<(File, Kept)>) {
    match mode {
        Mode::Strict => strict(files, limits),
        Mode::Compat => compat(files, limits),
    }
}

fn strict(files: Vec<File>, limits: Limits) -> (Vec<File>, Vec<(File, Kept)>) {
    let mut goes = Vec::new();
    let mut stays = Vec::new();
    for file in files {
        match strictly(&file, limits.from) {
            Ok(last) => goes.push((last, file)),
            Err(why) => stays.push((file, why)),
        }
    }
    goes.sort_by(|(one, file), (other, than)| {
        one.cmp(other).then_with(|| file.name.cmp(&than.name))
    });
    (goes.into_iter().map(|(_, file)| file).collect(), stays)
}

/// When the first or last entry of a file that may go was written, the later of them, in microseconds.
fn strictly(file: &File, from: Option<Instant>) -> Result<u64, Kept> {
    let is_aside = match parse_name(&file.name) {
        Name::Unknown => return Err(Kept::Unknown),
        Name::Active => return Err(Kept::Active),
        Name::Archived { sequence, .. } => sequence.is_none(),
    };
    let Head::Journal {
        state,
        entries,
        first,
        last,
    } = file.head
    else {
        return Err(Kept::NotUnderstood);
    };
    // After a crash the head may lag behind what was written: then the file's own time counts as well.
    let written = file.entry.written.micros();
    let last = last.max(first);
    let last = match (state, is_aside) {
        (State::Archived | State::Offline, false) if entries > 0 => last,
        (State::Archived | State::Offline | State::Online, _) => last.max(written),
        (State::Other, _) => return Err(Kept::NotUnderstood),
    };
    if state == State::Online && !is_aside {
        return Err(Kept::Active);
    }
    match from {
        Some(from) if last < from.micros() => Ok(last),
        Some(_) | None => Err(Kept::Wanted),
    }
}

/// A file as journalctl sorts it.
struct Ranked {
    file: File,
    sequence: Option<(u128, u64)>,
    realtime: u64,
}

fn compat(files: Vec<File>, limits: Limits) -> (Vec<File>, Vec<(File, Kept)>) {
    let mut goes = Vec::new();
    let mut stays = Vec::new();
    let mut ranked = Vec::new();
    let (mut active, mut bytes) = (0_u64, 0_u64);
    let has_limit =
        limits.from.is_some() || limits.bytes_max.is_some() || limits.files_max.is_some();
    for file in files {
        match parse_name(&file.name) {
            Name::Unknown => stays.push((file, Kept::Unknown)),
            Name::Active => {
                active += 1;
                // As the journalctl of Debian 12; that of other versions leaves these out of the sum.
                bytes += file.entry.blocks.bytes();
                stays.push((file, Kept::Active));
            }
            // Without a limit journalctl does nothing, not even to empty files.
            Name::Archived { .. } if !has_limit => stays.push((file, Kept::Wanted)),
            Name::Archived { sequence, realtime } => match file.head {
                Head::Short | Head::Journal { entries: 0, .. } | Head::Foreign { entries: 0 } => {
                    goes.push(file);
                }
                Head::Unreadable(_) => stays.push((file, Kept::NotUnderstood)),
                Head::Journal { .. } | Head::Foreign { .. } => ranked.push(Ranked {
                    realtime: earliest(&file, realtime),
                    sequence,
                    file,
                }),
            },
        }
    }
    let ranked = merge_sorted(ranked);
    let from = limits.from.map(Instant::micros);
    bytes += ranked
        .iter()
        .map(|one| one.file.entry.blocks.bytes())
        .sum::<u64>();
    let mut left = active + u64::try_from(ranked.len()).unwrap_or(u64::MAX);
    let mut is_enough = false;
    for one in ranked {
        // Once one may stay, all behind it do.
        is_enough = is_enough
            || (from.is_none_or(|from| one.realtime >= from)
                && limits.bytes_max.is_none_or(|max| bytes <= max)
                && limits.files_max.is_none_or(|max| left <= max));
        if is_enough {
            stays.push((one.file, Kept::Wanted));
            continue;
        }
        bytes = bytes.saturating_sub(one.file.entry.blocks.bytes());
        left = left.saturating_sub(1);
        goes.push(one.file);
    }
    (goes, stays)
}

/// Sorts as journalctl does. Its order is none where numbers and times of files contradict each other: that of the standard
/// library may panic then, and this one ends with some order.
fn merge_sorted(mut files: Vec<Ranked>) -> Vec<Ranked> {
    if files.len() < 2 {
        return files;
    }
    let behind = files.split_off(files.len() / 2);
    let mut sorted = Vec::with_capacity(files.len() + behind.len());
    let mut one = merge_sorted(files).into_iter().peekable();
    let mut other = merge_sorted(behind).into_iter().peekable();
    while let (Some(first), Some(second)) = (one.peek(), other.peek()) {
        let next = if compare(first, second).is_le() {
            one.next()
        } else {
            other.next()
        };
        sorted.extend(next);
    }
    sorted.extend(one.chain(other));
    sorted
}

fn compare(one: &Ranked, other: &Ranked) -> Ordering {
    let by_time = || one.realtime.cmp(&other.realtime);
    match (one.sequence, other.sequence) {
        (Some(a), Some(b)) if a.0 == b.0 => a.1.cmp(&b.1),
        (Some(a), Some(b)) => by_time().then_with(|| a.0.cmp(&b.0)),
        (Some(_) | None, Some(_) | None) => {
            by_time().then_with(|| one.file.name.cmp(&other.file.name))
        }
    }
}

/// The earliest of what the name says and the file's own times.
fn earliest(file: &File, realtime: u64) -> u64 {
    let own = [file.entry.changed, file.entry.read, file.entry.written].map(Instant::micros);
    let born = file.entry.born.map(Instant::micros);
    let times = own.into_iter().chain(born).chain(file.made);
    // Zero and the largest number are no times.
    times
        .filter(|time| *time != 0 && *time != u64::MAX)
        .fold(realtime, u64::min)
}

fn parse_name(name: &[u8]) -> Name {
    let text = String::from_utf8_lossy(name);
    if let Some(stem) = text.strip_suffix(".journal~") {
        return match ending(stem, name.len() >= ASIDE_LEN, &[16, 16]).as_deref() {
            Some([realtime, _]) => Name::Archived {
                sequence: None,
                realtime: u64::try_from(*realtime).unwrap_or(u64::MAX),
            },
            Some(_) | None => Name::Active,
        };
    }
    let Some(stem) = text.strip_suffix(".journal") else {
        return Name::Unknown;
    };
    match ending(stem, name.len() >= ARCHIVED_LEN, &[32, 16, 16]).as_deref() {
        Some([writer, sequence, realtime]) => Name::Archived {
            sequence: Some((*writer, u64::try_from(*sequence).unwrap_or(u64::MAX))),
            realtime: u64::try_from(*realtime).unwrap_or(u64::MAX),
        },
        Some(_) | None => Name::Active,
    }
}

/// The numbers behind the last `@`, each of so many hexadecimal digits.
fn ending(stem: &str, is_long_enough: bool, digits: &[usize]) -> Option<Vec<u128>> {
    let (_, behind) = stem.rsplit_once('@').filter(|_| is_long_enough)?;
    let parts: Vec<&str> = behind.split('-').collect();
    let fits = parts.len() == digits.len()
        && parts.iter().zip(digits).all(|(part, digits)| {
            part.len() == *digits && part.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
    let numbers = parts.iter().map(|part| u128::from_str_radix(part, 16).ok());
    if fits { numbers.collect() } else { None }
}

#[cfg(test)]
mod tests;
