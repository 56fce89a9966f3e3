//! Which file is ours: one that is, byte for byte, what a version of ours has written.
//!
//! Its mark carries a checksum of all the rest. A file with our mark that anybody has changed since is theirs as well, and is
//! neither written over nor taken away. The checksum tells edits apart and proves nothing: whoever may write there may write it.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::{MARK, MARK_JSON};
use crate::schedule;

/// Hexadecimal digits of the checksum: 64 bits, so that no edit meets it by chance.
const LENGTH: usize = 16;

/// Whose a file is that has the name of one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hand {
    /// As a version of ours has written it.
    Ours,
    /// It has our mark, and somebody changed it since.
    Edited,
    /// It has no mark of ours.
    Others,
}

/// A text of ours: the mark, its checksum, and the rest.
pub(crate) fn sealed(mark: &str, rest: &str) -> String {
    format!("{mark}{}{rest}", checksum(mark.as_bytes(), rest.as_bytes()))
}

/// Whose this content is.
pub(super) fn hand(content: &[u8]) -> Hand {
    let marks = [MARK, MARK_JSON, schedule::MARK, schedule::MARK_SCRIPT];
    let found = marks.iter().find_map(|mark| {
        let behind = content.strip_prefix(mark.as_bytes())?;
        Some((mark.as_bytes(), behind.split_at_checked(LENGTH)))
    });
    match found {
        Some((mark, Some((sum, rest)))) if sum == checksum(mark, rest).as_bytes() => Hand::Ours,
        Some(_) => Hand::Edited,
        None => Hand::Others,
    }
}

/// What follows a mark: of the mark and of all that it stands for.
pub(crate) fn checksum(mark: &[u8], rest: &[u8]) -> String {
    let hash = Sha256::new().chain_update(mark).chain_update(rest);
    let bytes = hash.finalize();
    bytes
        .iter()
        .take(LENGTH / 2)
        .fold(String::with_capacity(LENGTH), |mut text, byte| {
            // Writing to a string cannot fail.
            write!(text, "{byte:02x}").unwrap_or(());
            text
        })
}
