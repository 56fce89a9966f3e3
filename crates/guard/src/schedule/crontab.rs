//! A block of ours among the lines of others in a crontab. Pure, and on bytes: what others wrote need not be UTF-8.
//!
//! The first line of the block says what stood before it, so that taking it away gives back what was there, to the byte. The
//! last one carries a checksum of the lines between: what somebody else wrote there is not written over.

use thiserror::Error;

use crate::caps::seal::checksum;

/// Begins the first line of the block.
const BEGIN: &[u8] = b"# nagi guard schedule: begin";
/// Begins its last line; the checksum follows.
const END: &[u8] = b"# nagi guard schedule: end";
/// Ends the first line where there was no table at all …
const FIRST: &[u8] = b", there was no crontab";
/// … and where the line above had no end.
const UNENDED: &[u8] = b", the line above had no end";

const LINE_END: u8 = b'\n';

/// The block was edited so that it is not clear what is whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Broken {
    /// Its first or its last line is missing, or there are more.
    #[error("the lines '# nagi guard schedule: begin' and 'end' are not a pair any more")]
    Unpaired,
    /// The lines between are not those that a version of ours wrote.
    #[error("the lines between '# nagi guard schedule: begin' and 'end' were edited")]
    Edited,
}

/// A table, cut in three.
struct Cut<'a> {
    above: &'a [u8],
    /// The first line of the block, without its end.
    head: &'a [u8],
    below: &'a [u8],
}

/// The table with one block that has these lines, but for those that somebody else has already.
///
/// # Errors
/// The block that is there was edited.
pub(super) fn merged(before: Option<&[u8]>, lines: &[String]) -> Result<Vec<u8>, Broken> {
    let text = before.unwrap_or_default();
    let cut = cut(text)?;
    let (above, below) = match &cut {
        Some(cut) => (cut.above, cut.below),
        None => (text, &[][..]),
    };
    let others = || lines_of(above).chain(lines_of(below));
    let ours: Vec<&String> = lines
        .iter()
        .filter(|line| !others().any(|other| other.trim_ascii() == line.as_bytes()))
        .collect();
    if ours.is_empty() {
        return Ok(without(text)?.unwrap_or_default());
    }
    let mut merged = above.to_vec();
    if let Some(cut) = &cut {
        merged.extend(cut.head);
    } else {
        let is_unended = above.last().is_some_and(|last| *last != LINE_END);
        if is_unended {
            merged.push(LINE_END);
        }
        merged.extend(BEGIN);
        match before {
            None => merged.extend(FIRST),
            Some(_) if is_unended => merged.extend(UNENDED),
            Some(_) => {}
        }
    }
    merged.push(LINE_END);
    let mut body = Vec::new();
    for line in ours {
        body.extend(line.as_bytes());
        body.push(LINE_END);
    }
    merged.extend(&body);
    merged.extend(END);
    merged.push(b' ');
    merged.extend(checksum(END, &body).as_bytes());
    merged.push(LINE_END);
    merged.extend(below);
    Ok(merged)
}

/// The table without the block; none where nothing was there before it.
///
/// # Errors
/// It was edited.
pub(super) fn without(text: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
    let Some(Cut { above, head, below }) = cut(text)? else {
        return Ok(Some(text.to_vec()));
    };
    let mut rest = above.to_vec();
    if head.ends_with(UNENDED) && below.is_empty() {
        rest.pop();
    }
    rest.extend(below);
    let is_nothing = rest.is_empty() && head.ends_with(FIRST);
    Ok((!is_nothing).then_some(rest))
}

/// A line of the table is this one.
pub(super) fn has(text: &[u8], line: &str) -> bool {
    lines_of(text).any(|other| other.trim_ascii() == line.as_bytes())
}

/// As Debian's `crontab -l` shows it.
pub(super) fn shown(text: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b'\r' => shown.extend(b"\\r"),
            byte => shown.push(*byte),
        }
    }
    shown
}

/// With an end of its last line: no crontab takes a table without.
pub(super) fn ended(text: &[u8]) -> Vec<u8> {
    let mut ended = text.to_vec();
    if ended.last().is_some_and(|last| *last != LINE_END) {
        ended.push(LINE_END);
    }
    ended
}

fn cut(text: &[u8]) -> Result<Option<Cut<'_>>, Broken> {
    let mut begin: Option<(usize, usize, &[u8])> = None;
    let mut found = None;
    let mut at = 0;
    for line in text.split_inclusive(|byte| *byte == LINE_END) {
        let start = at;
        at += line.len();
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        if bare.starts_with(BEGIN) {
            if begin.is_some() || found.is_some() {
                return Err(Broken::Unpaired);
            }
            begin = Some((start, at, bare));
        } else if let Some(sum) = bare.strip_prefix(END) {
            let (first, inside, head) = begin.take().ok_or(Broken::Unpaired)?;
            let body = text.get(inside..start).unwrap_or_default();
            if sum.trim_ascii() != checksum(END, body).as_bytes() {
                return Err(Broken::Edited);
            }
            found = Some(Cut {
                above: text.get(..first).unwrap_or_default(),
                head,
                below: text.get(at..).unwrap_or_default(),
            });
        }
    }
    match begin {
        Some(_) => Err(Broken::Unpaired),
        None => Ok(found),
    }
}

fn lines_of(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == LINE_END)
}
