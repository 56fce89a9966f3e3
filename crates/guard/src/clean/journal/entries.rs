//! When the entries of a journal were written, each as its stamp says. The head knows only the first and the last of them, and a
//! clock that was set back, or forth and back, leaves later ones between.
//!
//! An array of entries names the places of entries, in their order, and the next array. Anything that is not so makes the file
//! one that nobody understands. Reads through one window and holds nothing else, for a file may be gigabytes.

use std::os::fd::AsFd;

use super::{ENTRIES, HEAD, SIGNATURE};

/// Items of arrays are of 4 bytes instead of 8.
const COMPACT: u8 = 1 << 4;
const FLAGS: usize = 12;
const FIRST_ARRAY: usize = 176;
/// The kinds of objects.
const ENTRY: u8 = 3;
const ARRAY: u8 = 6;
/// Of every object: kind, flags, and at 8 its length.
const OBJECT: usize = 16;
/// The next array stands before the items of one.
const ARRAY_HEAD: usize = 24;
const ITEMS: u64 = 24;
/// Sequence number, and at 24 the moment.
const ENTRY_HEAD: usize = 32;
/// Entries lie less than a kilobyte apart, so that a read serves dozens.
const WINDOW: usize = 64 << 10;

/// A file, read through a window.
struct Reader<F> {
    file: F,
    size: u64,
    window: Vec<u8>,
    from: u64,
}

/// The latest moment of an entry, in microseconds since 1970; none where the file is not understood to its last entry.
pub(crate) fn latest(file: impl AsFd, size: u64) -> Option<u64> {
    let reader = |file| Reader {
        file,
        size,
        window: Vec::new(),
        from: 0,
    };
    // Arrays and entries lie apart from each other: a window for each.
    let (mut arrays, mut entries) = (reader(file.as_fd()), reader(file.as_fd()));
    let head: [u8; HEAD] = arrays.at(0)?;
    if !head.starts_with(SIGNATURE) {
        return None;
    }
    let is_compact = head.get(FLAGS)? & COMPACT != 0;
    let item = if is_compact { 4 } else { 8 };
    let expected = number(&head, ENTRIES)?;
    let mut array = number(&head, FIRST_ARRAY)?;
    let (mut latest, mut seen) = (0, 0_u64);
    while array != 0 {
        let object: [u8; ARRAY_HEAD] = arrays.at(array)?;
        let length = number(&object, 8)?;
        let next = number(&object, OBJECT)?;
        // They lie in the order in which they were made, so that no chain goes round.
        if object.first() != Some(&ARRAY) || (next != 0 && next <= array) {
            return None;
        }
        let end = array.checked_add(length).filter(|end| *end <= size)?;
        let mut at = array + ITEMS;
        while at.checked_add(item)? <= end {
            let place = if is_compact {
                u64::from(u32::from_le_bytes(arrays.at(at)?))
            } else {
                u64::from_le_bytes(arrays.at(at)?)
            };
            if place == 0 {
                break; // Not used yet.
            }
            let entry: [u8; ENTRY_HEAD] = entries.at(place)?;
            if entry.first() != Some(&ENTRY) {
                return None;
            }
            latest = latest.max(number(&entry, 24)?);
            seen += 1;
            at += item;
        }
        array = next;
    }
    // A head that lags behind after a crash counts less.
    (seen >= expected).then_some(latest)
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(field))
}

// === impl Reader ===

impl<F: AsFd> Reader<F> {
    /// So many bytes at a place; none where the file ends before, or cannot be read.
    fn at<const LENGTH: usize>(&mut self, place: u64) -> Option<[u8; LENGTH]> {
        let length = u64::try_from(LENGTH).ok()?;
        if place.checked_add(length)? > self.size {
            return None;
        }
        if let Some(bytes) = self.held(place) {
            return Some(bytes);
        }
        self.window.resize(WINDOW, 0);
        let mut read = 0;
        while read < LENGTH {
            let rest = self.window.get_mut(read..)?;
            let at = place + u64::try_from(read).ok()?;
            match rustix::io::pread(&self.file, rest, at).ok()? {
                0 => return None,
                more => read += more,
            }
        }
        self.window.truncate(read);
        self.from = place;
        self.held(place)
    }

    fn held<const LENGTH: usize>(&self, place: u64) -> Option<[u8; LENGTH]> {
        let at = usize::try_from(place.checked_sub(self.from)?).ok()?;
        self.window
            .get(at..at.checked_add(LENGTH)?)?
            .try_into()
            .ok()
    }
}
