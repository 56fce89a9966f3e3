//! What cleaning gave back, whoever cleaned: that is no growth of anybody, and no shrinking.
//!
//! It stands in the record of what was removed, which a guard, a person, a job and a recovery all write. History stays as it was
//! seen; what came back is taken out of it whenever something is made of it, so that a restart, which knows only what was seen,
//! comes to the same. Pure.

use std::borrow::Cow;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::history::{LONG_POINTS, LONG_SECONDS, Point, Series};
use super::level::Resource;
use super::memory::{Past, What};
use super::owners::owners_of;
use crate::clean::reach::Reach;
use crate::clean::{Done, Freed, Reclaimer, Step};
use crate::mounts::Device;

/// What one step gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    at: Timestamp,
    device: Device,
    kind: Reclaimer,
    bytes: i64,
}

/// How something changes what was seen of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Nothing,
    /// Before it there was so much more.
    Less(i64),
    /// It is of several owners, and how much of whom is not known: what was before says nothing of this one.
    Anew,
}

// === impl Given ===

impl Given {
    /// What the record knows of the time that history reaches back to.
    pub(super) fn of(freed: &[Freed], reach: &Reach, now: Timestamp) -> Vec<Self> {
        let given = freed.iter().filter_map(|freed| {
            Some(Self {
                at: freed.at,
                device: reach.device_of(&freed.directory)?,
                kind: freed.kind,
                bytes: freed.bytes,
            })
        });
        given.filter(|given| given.counts(now)).collect()
    }

    /// A step that no record on the disk tells of.
    pub(super) const fn unwritten(step: &Step, done: &Done, now: Timestamp) -> Self {
        Self {
            at: now,
            device: step.disk,
            kind: done.reclaimer,
            bytes: done.measured,
        }
    }

    /// History reaches back to it, and it does not lie ahead because the clock was set back.
    pub(super) fn counts(&self, now: Timestamp) -> bool {
        let age = now.duration_since(self.at);
        let points = i64::try_from(LONG_POINTS).unwrap_or(i64::MAX);
        let reach = SignedDuration::from_secs(points.saturating_mul(LONG_SECONDS));
        !age.is_negative() && age <= reach
    }

    fn change(&self, what: What) -> Change {
        let owner = match what {
            What::All(Resource::Inodes) => return Change::Nothing,
            What::All(Resource::Bytes) | What::AtWalks => return Change::Less(self.bytes),
            What::Of(owner) => owner,
        };
        match owners_of(self.kind) {
            [one] if *one == owner => Change::Less(self.bytes),
            [_] => Change::Nothing,
            several if several.contains(&owner) => Change::Anew,
            _ => Change::Nothing,
        }
    }
}

/// What was seen of something on a disk, as if nobody had cleaned. A reading of the span in which a step ended is taken for one
/// behind it: that of a disk is, and of a walk that cannot be told.
pub(super) fn without<'a>(
    series: &'a Series,
    what: What,
    device: Option<Device>,
    given: &[Given],
) -> Cow<'a, Series> {
    let here = given.iter().filter(|given| Some(given.device) == device);
    let changes: Vec<(Timestamp, Change)> = here
        .map(|given| (given.at, given.change(what)))
        .filter(|(_, change)| *change != Change::Nothing)
        .collect();
    if changes.is_empty() {
        return Cow::Borrowed(series);
    }
    Cow::Owned(series.map(|point, seconds| {
        let mut used = point.used;
        for (at, change) in &changes {
            let span = at.as_second().div_euclid(seconds);
            match change {
                Change::Less(bytes) if point.span < span => {
                    used = used.saturating_add_signed(bytes.saturating_neg());
                }
                Change::Anew if point.span <= span => return None,
                Change::Less(_) | Change::Anew | Change::Nothing => {}
            }
        }
        Some(Point { used, ..point })
    }))
}

/// The same of every history, where it is known which disk lies where.
pub(super) fn without_all<'a>(
    past: &'a Past,
    device_of: impl Fn(&Path) -> Option<Device>,
    given: &[Given],
) -> Cow<'a, Past> {
    if given.is_empty() {
        return Cow::Borrowed(past);
    }
    let told = past.iter().map(|(key, series)| {
        let series = without(series, key.what, device_of(&key.point), given);
        (key.clone(), series.into_owned())
    });
    Cow::Owned(told.collect())
}

#[cfg(test)]
mod tests;
