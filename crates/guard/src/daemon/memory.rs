//! What a restart must not lose: levels and what was told, and the history that forecasts are made of.
//!
//! It lies in a ring of 1 MiB that was allocated while there was room, so that it can be written when nothing is left. What
//! was decided is written when it changes; history once an hour, and only where something changed by a thousandth: on a node
//! that rests nothing is written. Without a ring everything is in memory only, and the guard says so.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::io::Errno;

use super::decide::{DiskState, State};
use super::history::{LONG_POINTS, LONG_SECONDS, Point, Series};
use super::level::{Level, Resource};
use crate::clean::reach::Reach;
use crate::owner::Owner;
use crate::ring::{self, Record, Ring};

const RING: &str = "guard.ring";
/// 2,048 records of a slot each: with three disks and twelve owners, which write 18 an hour, more than four days. With more that all change
/// history is shorter behind a restart, and nothing else is.
const RING_BYTES: u64 = 1 << 20;
/// What was decided of a disk is written again before so many slots more are used: half of the ring, so that it is in there as
/// long as it holds.
const AGAIN_SLOTS: u64 = RING_BYTES / 512 / 2;
/// History is written this often.
pub(super) const HISTORY_EVERY: Duration = Duration::from_hours(1);
/// Points of one record: with 20 digits each they fit in its slot.
const POINTS: usize = 12;
/// Series that are remembered, at most: in memory 2 MiB.
pub(super) const SERIES_MAX: usize = 256;

/// Whose history.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Which disk, as the node calls it.
    pub point: PathBuf,
    /// Of what.
    pub what: What,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// All that is used.
    All(Resource),
    /// The bytes of one owner.
    Of(Owner),
    /// All that was used when owners were looked at: what the growth of one is compared with.
    AtWalks,
}

/// Every history.
pub(super) type Past = BTreeMap<Key, Series>;

/// The ring, and what is in it already.
#[derive(Debug, Default)]
pub(super) struct Memory {
    ring: Option<Ring>,
    sequence: u64,
    state: State,
    /// The newest point of each series that is in the ring.
    kept: BTreeMap<Key, Point>,
    history_at: Option<Timestamp>,
    /// Slots that were written since the start …
    slots: u64,
    /// … and how many of them when what was decided of a disk was. Of one that is missing it is not known how old that is.
    decided: BTreeMap<PathBuf, u64>,
}

// === impl Memory ===

impl Memory {
    /// Opens the ring and recalls what it holds. Without one nothing is remembered, and the reason is the third.
    pub(super) fn open(
        root: &OwnedFd,
        reach: &Reach,
        now: Timestamp,
    ) -> (Self, Past, Result<(), Errno>) {
        let opened = Ring::open(root, reach, RING, RING_BYTES);
        let opened = opened.and_then(|ring| ring.ok_or(Errno::NOSPC));
        let recalled = opened.and_then(|(ring, last)| Ok((ring.records()?, ring, last)));
        let (records, ring, last) = match recalled {
            Ok(recalled) => recalled,
            Err(error) => return (Self::default(), Past::new(), Err(error)),
        };
        let (state, past) = recall(&records, now);
        let newest = past.iter();
        let newest = newest.filter_map(|(key, series)| Some((key.clone(), *series.long().back()?)));
        let memory = Self {
            ring: Some(ring),
            sequence: last,
            kept: newest.collect(),
            state,
            history_at: Some(now),
            slots: 0,
            decided: BTreeMap::new(),
        };
        (memory, past, Ok(()))
    }

    /// What was decided last.
    pub(super) const fn state(&self) -> &State {
        &self.state
    }

    /// There is a ring, and it takes records.
    pub(super) const fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// Writes down what changed of what was decided.
    ///
    /// # Errors
    /// The ring takes no more records; it is not tried again.
    pub(super) fn keep_state(&mut self, state: &State, now: Timestamp) -> Result<(), Errno> {
        for (point, disk) in &state.disks {
            if self.state.disks.get(point) != Some(disk) {
                self.write_disk(point, disk, now)?;
            }
        }
        self.state.clone_from(state);
        Ok(())
    }

    fn write_disk(&mut self, point: &Path, disk: &DiskState, now: Timestamp) -> Result<(), Errno> {
        self.write(&disk_record(point, disk), now)?;
        self.decided.insert(point.to_owned(), self.slots);
        Ok(())
    }

    /// Before history goes round and over it.
    fn write_old_again(&mut self, now: Timestamp) -> Result<(), Errno> {
        let old = self.state.disks.iter().filter(|(point, _)| {
            let written = self.decided.get(*point);
            written.is_none_or(|slots| self.slots - slots >= AGAIN_SLOTS)
        });
        let old: Vec<(PathBuf, DiskState)> = old
            .map(|(point, disk)| (point.clone(), disk.clone()))
            .collect();
        old.iter()
            .try_for_each(|(point, disk)| self.write_disk(point, disk, now))
    }

    /// Writes down what is new of the history, when it is time or when the guard ends.
    ///
    /// # Errors
    /// As [`Memory::keep_state`].
    pub(super) fn keep_past(
        &mut self,
        past: &Past,
        now: Timestamp,
        is_end: bool,
    ) -> Result<(), Errno> {
        let elapsed = self.history_at.map(|then| now.duration_since(then));
        let is_time = elapsed.is_none_or(|elapsed| elapsed.unsigned_abs() >= HISTORY_EVERY);
        if self.ring.is_none() || !(is_time || is_end) {
            return Ok(());
        }
        self.history_at = Some(now);
        for (key, series) in past {
            let Some(last) = series.long().back() else {
                continue;
            };
            let kept = self.kept.get(key).copied();
            if kept.is_some_and(|kept| !is_news(kept.used, last.used)) {
                continue;
            }
            let new: Vec<Point> = series
                .long()
                .iter()
                .filter(|point| kept.is_none_or(|kept| point.span > kept.span))
                .copied()
                .collect();
            for points in new.chunks(POINTS) {
                self.write_old_again(now)?;
                self.write(&points_record(key, points), now)?;
            }
            self.kept.insert(key.clone(), *last);
        }
        Ok(())
    }

    fn write(&mut self, what: &str, now: Timestamp) -> Result<(), Errno> {
        let Some(ring) = &mut self.ring else {
            return Ok(());
        };
        self.sequence += 1;
        let line = ring::line(self.sequence, now, what);
        let slots = (line.len() + 1).div_ceil(ring::SLOT);
        self.slots += u64::try_from(slots).unwrap_or(u64::MAX);
        let written = ring.append(line.as_bytes());
        if written.is_err() {
            self.ring = None;
        }
        written
    }
}

/// The history of the disks of a node, read and nothing else.
///
/// # Errors
/// The ring cannot be read.
pub(super) fn history(root: &OwnedFd, reach: &Reach, now: Timestamp) -> Result<Past, Errno> {
    let records = ring::read(root, reach, RING, RING_BYTES)?;
    Ok(recall(&records, now).1)
}

fn recall(records: &[Record], now: Timestamp) -> (State, Past) {
    let mut past = Past::new();
    let mut state = State::default();
    for Record { what: record, .. } in records {
        if let Some((point, disk)) = read_disk(record) {
            state.disks.insert(point, disk);
        } else if let Some((key, points)) = read_points(record)
            && (past.contains_key(&key) || past.len() < SERIES_MAX)
        {
            let series = past.entry(key).or_default();
            for point in points {
                series.restore(point);
            }
        }
    }
    // What is too old, or lies ahead because the clock was set back, tells nothing of now.
    let span = now.as_second().div_euclid(LONG_SECONDS);
    let oldest = span - i64::try_from(LONG_POINTS).unwrap_or(0);
    past.retain(|_, series| {
        let last = series.long().back();
        last.is_some_and(|point| (oldest..=span).contains(&point.span))
    });
    (state, past)
}

/// It changed by a thousandth or more.
const fn is_news(kept: u64, now: u64) -> bool {
    kept.abs_diff(now) > kept / 1000
}

// === Records ===

fn disk_record(point: &Path, disk: &DiskState) -> String {
    let DiskState {
        bytes,
        inodes,
        bytes_told_at,
        inodes_told_at,
        bytes_fill,
        inodes_fill,
        silent_told_at,
        calm_since,
        cleaned_at,
        released_at,
    } = disk;
    let moment =
        |at: &Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.as_second().to_string());
    format!(
        "disk {} bytes={} inodes={} told={},{} filling={},{} silent={} calm={} cleaned={} released={}",
        ring::escaped(point.as_os_str().as_bytes()),
        bytes.name(),
        inodes.name(),
        moment(bytes_told_at),
        moment(inodes_told_at),
        u8::from(*bytes_fill),
        u8::from(*inodes_fill),
        moment(silent_told_at),
        moment(calm_since),
        moment(cleaned_at),
        moment(released_at),
    )
}

fn read_disk(record: &str) -> Option<(PathBuf, DiskState)> {
    let mut words = record.strip_prefix("disk ")?.split(' ');
    let point: PathBuf = ring::unescaped(words.next()?)?.into();
    let mut next = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
    let moment = |text: &str| Timestamp::from_second(text.parse().ok()?).ok();
    let (bytes, inodes) = (next("bytes")?, next("inodes")?);
    let (bytes_told, inodes_told) = next("told")?.split_once(',')?;
    let (bytes_fill, inodes_fill) = next("filling")?.split_once(',')?;
    let disk = DiskState {
        bytes: Level::named(bytes)?,
        inodes: Level::named(inodes)?,
        bytes_told_at: moment(bytes_told),
        inodes_told_at: moment(inodes_told),
        bytes_fill: bytes_fill == "1",
        inodes_fill: inodes_fill == "1",
        silent_told_at: moment(next("silent")?),
        calm_since: moment(next("calm")?),
        cleaned_at: moment(next("cleaned")?),
        released_at: moment(next("released")?),
    };
    Some((point, disk))
}

fn points_record(key: &Key, points: &[Point]) -> String {
    let mut text = format!(
        "past {} {}",
        ring::escaped(key.point.as_os_str().as_bytes()),
        key.what.name().replace(' ', "_"),
    );
    let mut before = None;
    for Point { span, used } in points {
        // Spans that follow each other are not said. Writing to a string cannot fail.
        let said = if before == Some(span - 1) {
            write!(text, " {used}")
        } else {
            write!(text, " @{span} {used}")
        };
        said.unwrap_or(());
        before = Some(*span);
    }
    text
}

fn read_points(record: &str) -> Option<(Key, Vec<Point>)> {
    let mut words = record.strip_prefix("past ")?.split(' ');
    let point: PathBuf = ring::unescaped(words.next()?)?.into();
    let what = What::named(words.next()?)?;
    let mut points = Vec::new();
    let mut next = None;
    for word in words {
        if let Some(span) = word.strip_prefix('@') {
            next = Some(span.parse::<i64>().ok()?);
            continue;
        }
        let span = next?;
        points.push(Point {
            span,
            used: word.parse().ok()?,
        });
        next = Some(span + 1);
    }
    Some((Key { point, what }, points))
}

// === impl What ===

impl What {
    /// Its name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::All(resource) => resource.name(),
            Self::Of(owner) => owner.name(),
            Self::AtWalks => "bytes at walks",
        }
    }

    /// The one whose name stands in a record.
    fn named(name: &str) -> Option<Self> {
        let all = Resource::ALL.into_iter().map(Self::All);
        let all = all.chain([Self::AtWalks]);
        let mut every = all.chain(Owner::all().map(Self::Of));
        every.find(|what| what.name().replace(' ', "_") == name)
    }
}

#[cfg(test)]
mod tests;
