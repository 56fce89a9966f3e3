//! What a replica prints, in files of bounded size.
//!
//! Lines are stored as container runtimes do: `TIME STREAM TAG TEXT`, where the tag is `F` for a full line and `P` for a
//! part of one that is longer than [`LINE_BYTES_MAX`]. Files are numbered and never renamed, `output.000007.log`, so that a
//! reader's place (number and offset) stays valid while it lasts; the oldest are removed. A full disk loses output,
//! counted, and never stops the replica. How fast a replica may print is decided by the caller, who reads its pipes.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
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
