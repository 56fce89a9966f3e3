//! What a replica prints, in files of bounded size.
//!
//! Lines are stored as container runtimes do: `TIME STREAM TAG TEXT`, where the tag is `F` for a full line and `P` for a
//! part of one that is longer than [`LINE_BYTES_MAX`]. Files are numbered and never renamed, `output.000007.log`, so that a
//! reader's place (number and offset) stays valid while it lasts; the oldest are removed. A full disk loses output,
//! counted, and never stops the replica. How fast a replica may print is decided by the caller, who reads its pipes.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::disk;

/// Size at which a new file is begun. Together with [`FILES_MAX`] a replica keeps 4 MiB, at most 5.5 MiB of the shortest lines.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Files kept for each replica.
pub const FILES_MAX: usize = 4;
/// Longest line stored as one; 16 KiB as in containerd.
pub const LINE_BYTES_MAX: usize = 16 << 10;

const PREFIX: &str = "output.";
const SUFFIX: &str = ".log";

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output of the replica.
    Stdout,
    /// Standard error of the replica.
    Stderr,
    /// The supervisor itself.
    Nagi,
}

/// Appends to the numbered files of one replica.
#[derive(Debug)]
pub struct Output {
    directory: PathBuf,
    number: u64,
    file: Option<File>,
    size: u64,
    lost_bytes: u64,
}

/// Cuts the bytes of one stream into lines.
#[derive(Debug)]
pub struct Lines {
    stream: Stream,
    begun: Vec<u8>,
}

// === impl Stream ===

impl Stream {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Nagi => "nagi",
        }
    }
}

// === impl Output ===

impl Output {
    /// Goes on where an earlier attempt of the same replica ended.
    pub fn append_in(directory: &Path) -> Self {
        let number = numbers(directory).last().copied().unwrap_or(1);
        let mut output = Self {
            directory: directory.to_path_buf(),
            number,
            file: None,
            size: 0,
            lost_bytes: 0,
        };
        output.open();
        output
    }

    /// Appends whole stored lines. A failure is counted, not returned: output must not end a replica.
    pub fn append(&mut self, now: Timestamp, stored: &[u8]) {
        if self.lost_bytes == 0 {
            self.append_or_lose(stored);
            return;
        }
        // Said in the place where it is missing, as soon as there is room again.
        let lost = std::mem::take(&mut self.lost_bytes);
        let mut with_note = Vec::with_capacity(stored.len() + 80);
        let note = format!("{lost} bytes of output were lost");
        store_line(&mut with_note, now, Stream::Nagi, true, note.as_bytes());
        with_note.extend_from_slice(stored);
        if !self.append_or_lose(&with_note) {
            self.lost_bytes = lost + length(stored);
        }
    }

    /// Appends a line of the supervisor's own.
    pub fn note(&mut self, now: Timestamp, text: &str) {
        let mut stored = Vec::new();
        store_line(&mut stored, now, Stream::Nagi, true, text.as_bytes());
        self.append(now, &stored);
    }

    fn append_or_lose(&mut self, stored: &[u8]) -> bool {
        if self.size >= FILE_BYTES_MAX {
            self.number += 1;
            self.file = None;
            self.remove_oldest();
        }
        if self.file.is_none() {
            self.open();
        }
        let written = self
            .file
            .as_mut()
            .is_some_and(|file| file.write_all(stored).is_ok());
        if written {
            self.size += length(stored);
        } else {
            self.lost_bytes += length(stored);
            // A torn line is cut off again, so that the next one starts at the beginning of a line.
            if let Some(file) = &self.file {
                drop(file.set_len(self.size));
            }
        }
        written
    }

    fn open(&mut self) {
        let path = file_path(&self.directory, self.number);
        let opened = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .mode(0o600)
            .open(path);
        let Ok(mut file) = opened else { return };
        self.size = file.metadata().map_or(0, |metadata| metadata.len());
        if disk::ends_inside_a_line(&file, self.size).unwrap_or(false) {
            drop(file.write_all(b"\n"));
            self.size += 1;
        }
        self.file = Some(file);
    }

    fn remove_oldest(&self) {
        let numbers = numbers(&self.directory);
        // One place is for the file that is about to be opened.
        let surplus = (numbers.len() + 1).saturating_sub(FILES_MAX);
        for number in numbers.into_iter().take(surplus) {
            disk::remove_file(&file_path(&self.directory, number));
        }
    }
}

// === impl Lines ===

impl Lines {
    /// Starts at the beginning of a line.
    pub const fn of(stream: Stream) -> Self {
        Self {
            stream,
            begun: Vec::new(),
        }
    }

    /// Takes bytes and stores the lines that are complete now, or too long to wait for their end.
    pub fn take(&mut self, mut bytes: &[u8], now: Timestamp, stored: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.begun.len();
            let window = bytes.get(..room.min(bytes.len())).unwrap_or_default();
            let (part, ended) = match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => (window.get(..end).unwrap_or_default(), true),
                None => (window, false),
            };
            self.begun.extend_from_slice(part);
            bytes = bytes
                .get(part.len() + usize::from(ended)..)
                .unwrap_or_default();
            if ended || self.begun.len() >= LINE_BYTES_MAX {
                store_line(stored, now, self.stream, ended, &self.begun);
                self.begun.clear();
            }
        }
    }

    /// Stores what was begun when no more will come.
    pub fn end(&mut self, now: Timestamp, stored: &mut Vec<u8>) {
        if !self.begun.is_empty() {
            store_line(stored, now, self.stream, true, &self.begun);
            self.begun.clear();
        }
    }
}

/// The file of a number.
pub fn file_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{PREFIX}{number:06}{SUFFIX}"))
}

/// The numbers of the files there are, oldest first.
pub fn numbers(directory: &Path) -> Vec<u64> {
    let mut numbers: Vec<u64> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?
                .strip_prefix(PREFIX)?
                .strip_suffix(SUFFIX)?
                .parse()
                .ok()
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

fn store_line(stored: &mut Vec<u8>, now: Timestamp, stream: Stream, full: bool, text: &[u8]) {
    let tag = if full { "F" } else { "P" };
    stored.extend_from_slice(format!("{now:.6} {} {tag} ", stream.as_str()).as_bytes());
    stored.extend_from_slice(text);
    stored.push(b'\n');
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn stored(lines: &mut Lines, bytes: &[u8]) -> String {
        let mut stored = Vec::new();
        lines.take(bytes, NOW, &mut stored);
        String::from_utf8(stored).unwrap()
    }

    #[test]
    fn lines_are_stored_when_they_are_complete_or_too_long() {
        let mut lines = Lines::of(Stream::Stderr);
        assert_eq!(stored(&mut lines, b"hel"), "");
        let expected =
            "1970-01-01T00:00:00.000000Z stderr F hello\n1970-01-01T00:00:00.000000Z stderr F \n";
        assert_eq!(stored(&mut lines, b"lo\n\nrest"), expected);
        let long = "x".repeat(LINE_BYTES_MAX);
        let text = stored(&mut lines, (long.clone() + "\n").as_bytes());
        let tags: Vec<_> = text
            .lines()
            .map(|line| line.split(' ').nth(2).unwrap())
            .collect();
        assert_eq!(tags, ["P", "F"]);
        let kept: String = text
            .lines()
            .map(|line| line.split(' ').nth(3).unwrap())
            .collect();
        assert_eq!(kept, format!("rest{long}"));
        let mut end = Vec::new();
        stored(&mut lines, b"no end");
        lines.end(NOW, &mut end);
        assert!(end.ends_with(b" stderr F no end\n"));
    }

    #[test]
    fn output_that_found_no_room_is_counted_where_it_is_missing() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("not yet");
        let mut output = Output::append_in(&directory);
        output.append(NOW, b"lost\n");
        output.append(NOW, b"lost too\n");
        fs::create_dir(&directory).unwrap();
        output.append(NOW, b"kept\n");
        output.append(NOW, b"kept too\n");
        let text = fs::read_to_string(file_path(&directory, 1)).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(
            lines[0].ends_with(" nagi F 14 bytes of output were lost"),
            "{text}"
        );
        assert_eq!(lines[1..], ["kept", "kept too"]);
        // What replicas print is for the owner alone.
        let metadata = fs::metadata(file_path(&directory, 1)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_later_attempt_goes_on_in_the_same_file_behind_a_torn_line() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(file_path(directory.path(), 7), "whole\ntorn").unwrap();
        let mut output = Output::append_in(directory.path());
        output.append(NOW, b"next\n");
        let text = fs::read_to_string(file_path(directory.path(), 7)).unwrap();
        assert_eq!(text, "whole\ntorn\nnext\n");
    }

    #[test]
    fn only_the_newest_files_stay() {
        let directory = tempfile::tempdir().unwrap();
        let mut output = Output::append_in(directory.path());
        let half = vec![b'x'; usize::try_from(FILE_BYTES_MAX / 2).unwrap()];
        for _ in 0..20 {
            output.append(NOW, &half);
        }
        assert_eq!(numbers(directory.path()), [7, 8, 9, 10]);
    }
}
