//! A file of fixed size for records, allocated while there was room, that can be written when there is none.
//!
//! Writing into allocated blocks works on ext4, XFS and btrfs with nothing free. btrfs writes a block that was written before to
//! another place, and eight records share a block: there the file is marked to be written in place (`NOCOW`) while it is
//! empty. Where a snapshot holds it, or it was made without the mark, it takes no record on a full disk, and whoever writes
//! must do without. A ring is made under another name and gets its own when it is whole, so that a crash leaves none that is
//! half made; where a filesystem allocates nothing, zeros are written. A record begins at a multiple of [`SLOT`] bytes and ends with a
//! newline, so that `grep -a` reads the ring. A record that a crash cut short is written over by the next one.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{AtFlags, FallocateFlags, FileType, IFlags, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::blocks::Blocks;
use crate::clean::place;
use crate::clean::reach::Reach;
use crate::own::{STATE, STATE_OWN, make, own};

/// What most records fit in.
pub(crate) const SLOT: usize = 512;
/// No ring is made when less than this is available: at that moment every byte is somebody else's.
const ROOM_MIN: u64 = 64 << 20;
/// A ring that is being made. What a crash left of one is made anew.
const NEW: &str = ".new";
/// Zeros are written in pieces.
static PIECE: [u8; 64 << 10] = [0; 64 << 10];
/// Begins a record; what is recorded has no blank where it could look like it.
const MAGIC: &[u8] = b"nagi ";
/// The magic, 16 digits and a blank.
const MARK: usize = 5 + 16 + 1;

#[derive(Debug)]
pub(crate) struct Ring {
    file: OwnedFd,
    /// How long it is.
    bytes: u64,
    /// Where the next record goes.
    at: u64,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its number: each is larger than the one before.
    pub(crate) number: u64,
    /// When it was written.
    pub(crate) at: Timestamp,
    /// What it says.
    pub(crate) what: String,
}

/// A record as the ring and everybody else reads it.
pub(crate) fn line(sequence: u64, now: Timestamp, what: &str) -> String {
    format!("nagi {sequence:016x} {now:.3} {what}")
}

// === impl Ring ===

impl Ring {
    /// The ring of this name and size, and the number of its last record; none where there is none and no room for one.
    ///
    /// # Errors
    /// It cannot be made or read, or what lies there is no ring of ours.
    pub(crate) fn open(
        root: &OwnedFd,
        reach: &Reach,
        name: &str,
        bytes: u64,
    ) -> Result<Option<(Self, u64)>, Errno> {
        if reach.refuses(Path::new(STATE)).is_some() {
            return Ok(None);
        }
        let Some(state) = place::open_base(root, Path::new(STATE))? else {
            return Ok(None);
        };
        let space = crate::filesystem::Space::of(&rustix::fs::fstatvfs(&state)?);
        let has_room = space.bytes_available >= ROOM_MIN;
        let directory = match place::open_below(&state, STATE_OWN.as_bytes()) {
            Err(Errno::NOENT) if has_room => own(&state, STATE_OWN)?,
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        match place::look(&directory, name.as_bytes()) {
            Ok(_) if is_half_made(&directory, name, bytes)? => {
                if !has_room {
                    return Ok(None);
                }
                rustix::fs::unlinkat(&directory, name, AtFlags::empty())?;
                allocate(&directory, name, bytes)?;
            }
            Ok(_) => {}
            Err(Errno::NOENT) if has_room => allocate(&directory, name, bytes)?,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error),
        }
        let file = make(&directory, name, OFlags::RDWR)?;
        // What was opened, whatever the name leads to by now.
        let stat = rustix::fs::fstat(&file)?;
        let is_ring = FileType::from_raw_mode(stat.st_mode).is_file()
            && stat.st_nlink == 1
            && u64::try_from(stat.st_size).is_ok_and(|size| size == bytes)
            && u64::try_from(stat.st_blocks).is_ok_and(|blocks| Blocks(blocks).bytes() >= bytes);
        if !is_ring {
            // Somebody else's file, or one with holes, which a full disk does not fill.
            return Err(Errno::INVAL);
        }
        let (at, last) = head(&read_all(&file, bytes)?);
        Ok(Some((Self { file, bytes, at }, last)))
    }
    /// Writes one record, and returns once it is on its medium.
    ///
    /// # Errors
    /// The disk did not take it.
    pub(crate) fn append(&mut self, line: &[u8]) -> Result<(), Errno> {
        let slots = (line.len() + 1).div_ceil(SLOT);
        let mut record = line.to_vec();
        record.resize(slots * SLOT, b' ');
        if let Some(last) = record.last_mut() {
            *last = b'\n';
        }
        let length = u64::try_from(record.len()).unwrap_or(u64::MAX);
        if length > self.bytes {
            return Err(Errno::FBIG);
        }
        if self.at.saturating_add(length) > self.bytes {
            self.at = 0;
        }
        let mut rest = &record[..];
        let mut at = self.at;
        while !rest.is_empty() {
            let written = rustix::io::pwrite(&self.file, rest, at)?;
            rest = rest.get(written..).unwrap_or_default();
            at += u64::try_from(written).unwrap_or(0);
        }
        rustix::fs::fdatasync(&self.file)?;
        self.at = at;
        Ok(())
    }

    /// Every record, the oldest first.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn records(&self) -> Result<Vec<Record>, Errno> {
        Ok(records(&read_all(&self.file, self.bytes)?))
    }
}

/// The records of a ring of this name and size, as [`Ring::records`]; none where there is no ring. Nothing is made or written.
///
/// # Errors
/// It cannot be read.
pub(crate) fn read(
    root: &OwnedFd,
    reach: &Reach,
    name: &str,
    bytes: u64,
) -> Result<Vec<Record>, Errno> {
    if reach.refuses(Path::new(STATE)).is_some() {
        return Ok(Vec::new());
    }
    let opened = place::open_base(root, Path::new(STATE)).and_then(|state| {
        let own = place::open_below(&state.ok_or(Errno::NOENT)?, STATE_OWN.as_bytes())?;
        place::open_file(&own, name.as_bytes())
    });
    match opened {
        Ok(file) => Ok(records(&read_all(&file, bytes)?)),
        Err(Errno::NOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A ring of this name and size is there, as far as its directory tells. Nothing is made or written.
pub(crate) fn is_whole(root: &OwnedFd, reach: &Reach, name: &str, bytes: u64) -> bool {
    if reach.refuses(Path::new(STATE)).is_some() {
        return false;
    }
    let Ok(Some(state)) = place::open_base(root, Path::new(STATE)) else {
        return false;
    };
    let own = place::open_below(&state, STATE_OWN.as_bytes());
    let entry = own.and_then(|own| place::look(&own, name.as_bytes()));
    entry.is_ok_and(|entry| entry.size == bytes)
}

/// When a ring was last written to, in seconds and nanoseconds; none where there is none, or it cannot be asked.
pub(crate) fn written(root: &OwnedFd, reach: &Reach, name: &str) -> Option<(i64, u32)> {
    if reach.refuses(Path::new(STATE)).is_some() {
        return None;
    }
    let state = place::open_base(root, Path::new(STATE)).ok()??;
    let own = place::open_below(&state, STATE_OWN.as_bytes()).ok()?;
    let stat = rustix::fs::statat(&own, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Some((stat.st_mtime, nanoseconds))
}

/// The bytes behind the escapes of a record.
pub(crate) fn unescaped(text: &str) -> Option<OsString> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (kind, behind) = rest.split_first()?;
        rest = behind;
        bytes.push(match kind {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'x' => {
                let (digits, behind) = rest.split_at_checked(2)?;
                rest = behind;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            other => *other,
        });
    }
    Some(OsString::from_vec(bytes))
}

fn records(bytes: &[u8]) -> Vec<Record> {
    let slots: Vec<&[u8]> = bytes.chunks(SLOT).collect();
    let begins = slots
        .iter()
        .enumerate()
        .filter_map(|(at, slot)| Some((number(slot)?, at)));
    let mut records: Vec<Record> = begins
        .filter_map(|(number, at)| {
            let (moment, what) = text(slots.get(at..)?)?;
            Some(Record {
                number,
                at: moment.parse().ok()?,
                what,
            })
        })
        .collect();
    records.sort_unstable_by_key(|record| record.number);
    records
}

/// A version before this one made it under its own name and was cut short: it is shorter than a ring, and nothing was written.
fn is_half_made(directory: &OwnedFd, name: &str, bytes: u64) -> Result<bool, Errno> {
    // What is no file of ours is told by whoever opens it.
    let Ok(file) = place::open_file(directory, name.as_bytes()) else {
        return Ok(false);
    };
    let stat = rustix::fs::fstat(&file)?;
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if !FileType::from_raw_mode(stat.st_mode).is_file() || stat.st_nlink != 1 || size >= bytes {
        return Ok(false);
    }
    Ok(read_all(&file, size)?.iter().all(|byte| *byte == 0))
}

/// Makes a ring, whole or not at all.
fn allocate(directory: &OwnedFd, name: &str, bytes: u64) -> Result<(), Errno> {
    let new = format!("{name}{NEW}");
    match rustix::fs::unlinkat(directory, &new, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    let file = make(directory, &new, OFlags::RDWR | OFlags::EXCL)?;
    let marked = rustix::fs::ioctl_getflags(&file)
        .and_then(|flags| rustix::fs::ioctl_setflags(&file, flags | IFlags::NOCOW));
    match marked {
        // Other filesystems have no such mark and need none; without it a ring is still better than none.
        Ok(()) | Err(_) => {}
    }
    let allocated = match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(&file, bytes),
        other => other,
    };
    let placed = allocated
        .and_then(|()| rustix::fs::fsync(&file))
        .and_then(|()| {
            let how = RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(directory, &new, directory, name, how)
        });
    if placed.is_err() {
        // Ours, and of no use; what remains is made anew the next time.
        rustix::fs::unlinkat(directory, &new, AtFlags::empty())?;
    }
    placed?;
    rustix::fs::fsync(directory)
}

/// Takes the blocks of a file from a filesystem that allocates none beforehand.
fn write_zeros(file: &OwnedFd, bytes: u64) -> Result<(), Errno> {
    let mut at = 0;
    while at < bytes {
        let left = usize::try_from(bytes - at).unwrap_or(usize::MAX);
        let piece = PIECE.get(..left).unwrap_or(&PIECE);
        let written = rustix::io::pwrite(file, piece, at)?;
        at += u64::try_from(written).unwrap_or(0);
    }
    Ok(())
}

fn read_all(file: &OwnedFd, bytes: u64) -> Result<Vec<u8>, Errno> {
    let mut content = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    let mut read = 0;
    while let Some(rest) = content.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(file, rest, u64::try_from(read).unwrap_or(u64::MAX))? {
            0 => return Err(Errno::INVAL),
            more => read += more,
        }
    }
    Ok(content)
}

/// Behind the newest record, and its number.
fn head(bytes: &[u8]) -> (u64, u64) {
    let slots: Vec<&[u8]> = bytes.chunks(SLOT).collect();
    let newest = slots
        .iter()
        .enumerate()
        .filter_map(|(at, slot)| Some((number(slot)?, at)));
    let Some((last, at)) = newest.max() else {
        return (0, 0);
    };
    // A record that a crash cut short has no end: the next one is written over it.
    let length = slots.get(at..).and_then(length);
    let next = length.map_or(at, |length| at + length);
    (u64::try_from(next * SLOT).unwrap_or(0), last)
}

/// How many slots the record takes that begins the first of these; none when it was cut short.
fn length(slots: &[&[u8]]) -> Option<usize> {
    let ends = |slot: &&[u8]| slot.last() == Some(&b'\n');
    let first = slots.iter().position(ends)?;
    // A record that begins on the way tells that this one was cut short.
    let others = slots.get(1..=first)?;
    others
        .iter()
        .all(|slot| number(slot).is_none())
        .then_some(first + 1)
}

/// The moment of the record that begins the first of these, and what it says.
fn text(slots: &[&[u8]]) -> Option<(String, String)> {
    let whole: Vec<u8> = slots.get(..length(slots)?)?.concat();
    let text = String::from_utf8(whole).ok()?;
    let (moment, what) = text.get(MARK..)?.split_once(' ')?;
    Some((moment.to_owned(), what.trim_end().to_owned()))
}

/// The number of a record that begins with this slot.
fn number(slot: &[u8]) -> Option<u64> {
    let digits = slot.get(..MARK)?.strip_prefix(MAGIC)?.strip_suffix(b" ")?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A path as records hold it: no blank, no line end, and every byte of it.
pub(crate) fn escaped(path: &[u8]) -> String {
    path.escape_ascii().to_string().replace(' ', "\\x20")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_path_looks_like_a_record() {
        assert_eq!(escaped(b"a b\n\xff"), "a\\x20b\\n\\xff");
    }

    // A crash in the middle of a record: it is no record, and the next one takes its place.
    #[test]
    fn a_record_that_was_cut_short_is_none() {
        let mut bytes = vec![0; 4 * SLOT];
        let long = format!(
            "{} {}",
            line(7, Timestamp::UNIX_EPOCH, "old"),
            "x".repeat(2 * SLOT)
        );
        bytes[..long.len()].copy_from_slice(long.as_bytes());
        bytes[3 * SLOT - 1] = b'\n';
        let slots: Vec<&[u8]> = bytes.chunks(SLOT).collect();
        assert_eq!(length(&slots), Some(3));
        assert!(text(&slots).unwrap().1.starts_with("old xx"));
        assert_eq!(head(&bytes), (3 * 512, 7));
        bytes[3 * SLOT - 1] = b'x';
        let slots: Vec<&[u8]> = bytes.chunks(SLOT).collect();
        assert_eq!((length(&slots), text(&slots)), (None, None));
        assert_eq!(head(&bytes), (0, 7));
        // The end of another record is not its own.
        let next = line(3, Timestamp::UNIX_EPOCH, "next");
        bytes[2 * SLOT..2 * SLOT + next.len()].copy_from_slice(next.as_bytes());
        bytes[3 * SLOT - 1] = b'\n';
        let slots: Vec<&[u8]> = bytes.chunks(SLOT).collect();
        assert_eq!(length(&slots), None);
    }
}
