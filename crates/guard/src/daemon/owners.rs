//! Whose growth it is: how fast what belongs to each owner grows, how much of the growth of its disk that is, and when the disk
//! were full at that rate alone.
//!
//! Owners are looked at by a walk, so seldom, and what is known of them is as old as the last one. An owner is compared with its
//! disk at the same moments. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::forecast::{Basis, Forecast, Trend};
use super::history::{LONG_SECONDS, Point, SHORT_SECONDS};
use super::memory::{Key, Past, SERIES_MAX, What};
use super::outlook::{Days, days};
use crate::clean::Reclaimer;
use crate::owner::Owner;

/// A disk fills mostly by an owner that makes at least half of its growth.
const MOSTLY: f64 = 0.5;

/// What was known at the last walk tells nothing of now after this: twice as long as the largest disk that is walked waits for the
/// next one, which is two thousand times the 12 s that its four million entries take.
const FRESH: Duration = Duration::from_hours(14);

/// Owners of one disk whose growth is followed: all that a node has, where it is not one of everything.
const OWNERS_MAX: usize = 24;

/// How one owner grows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    /// Who.
    pub owner: Owner,
    /// What it took at the last walk, in bytes.
    pub used: u64,
    /// How fast, in bytes an hour.
    pub trend: Trend,
    /// Its part of the growth of the disk, at the same moments; above 1 where others shrank. None where the disk did not grow.
    pub share: Option<f64>,
}

/// The owners of a disk, the fastest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Owners {
    /// Over the last days.
    days: Vec<Growth>,
    /// Over the last hour.
    hour: Vec<Growth>,
    /// When the span of the last walk ended, and how long before that the walk before was.
    walked: Option<(Timestamp, Duration)>,
}

// === impl Growth ===

impl Growth {
    /// Days until so many bytes are used up by this owner alone.
    pub fn days_to(&self, room: u64) -> Days {
        days(room, self.trend)
    }

    /// The part of the growth in whole percent.
    pub fn percent(&self) -> Option<i64> {
        self.share
            .map(|share| super::forecast::rounded(share * 100.0))
    }
}

// === impl Owners ===

impl Owners {
    /// By disk, from every history.
    pub(super) fn of_all(past: &Past) -> BTreeMap<PathBuf, Self> {
        let mut points: Vec<&PathBuf> = past.keys().map(|key| &key.point).collect();
        points.dedup();
        let disks = points.into_iter();
        disks
            .map(|point| (point.clone(), Self::of(past, point)))
            .collect()
    }

    /// Of one disk.
    pub(super) fn of(past: &Past, point: &Path) -> Self {
        let all = past.get(&Key {
            point: point.to_owned(),
            what: What::AtWalks,
        });
        let grown = |ring: fn(&super::history::Series) -> &VecDeque<Point>, seconds| {
            let owned = past.iter().filter_map(|(key, series)| match key.what {
                What::Of(owner) if key.point == point => Some((owner, ring(series))),
                What::Of(_) | What::All(_) | What::AtWalks => None,
            });
            growths(owned.collect(), all.map(ring), seconds)
        };
        Self {
            days: grown(super::history::Series::long, LONG_SECONDS),
            hour: grown(super::history::Series::short, SHORT_SECONDS),
            walked: all.and_then(|all| walked(all.long())),
        }
    }

    /// When they were looked at last, to ten minutes.
    pub(super) fn at(&self) -> Option<Timestamp> {
        self.walked.map(|(at, _)| at)
    }

    /// They are not older than two walks are apart. A clock that was set back makes nothing old.
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        self.walked.is_some_and(|(at, apart)| {
            let age = now.duration_since(at);
            age.is_negative() || age.unsigned_abs() <= FRESH.max(apart * 2)
        })
    }

    /// What is known: over days, and as long as there are none over the last hour.
    pub(super) fn known(&self) -> &[Growth] {
        if self.days.is_empty() {
            &self.hour
        } else {
            &self.days
        }
    }

    /// By whom a disk mostly fills, if so. What fills it since half an hour is not told by the days before.
    pub(super) fn mostly(&self, forecast: Option<&Forecast>) -> Option<Growth> {
        let owners = match forecast.map(|forecast| forecast.basis) {
            Some(Basis::Fast) => &self.hour,
            Some(Basis::Steady | Basis::Accelerating) | None => self.known(),
        };
        let first = owners.first()?;
        let is_most = first.share.is_some_and(|share| share >= MOSTLY);
        (is_most && first.trend.middle > 0.0).then_some(*first)
    }
}

/// Owners of one disk that are followed: of many disks only the largest of each, so that a restart recalls all of them.
pub(super) fn owners_max(disks: usize) -> usize {
    let disks = disks.max(1);
    // Bytes, inodes, and bytes at walks.
    let others = disks.saturating_mul(3);
    (SERIES_MAX.saturating_sub(others) / disks).min(OWNERS_MAX)
}

/// Whose files a step of cleaning removes: what that gave back is no growth of others. An image is of two, and how much came
/// back of each is not measured.
pub(super) const fn owners_of(reclaimer: Reclaimer) -> &'static [Owner] {
    match reclaimer {
        Reclaimer::Apt => &[Owner::AptArchives],
        Reclaimer::Pulls => &[Owner::ContainerdIngest],
        Reclaimer::Images | Reclaimer::LocalImages => &[
            Owner::ContainerdContent,
            Owner::ContainerdSnapshots,
            Owner::ContainersStorage,
        ],
        Reclaimer::Containers => &[Owner::ContainerdSnapshots],
        Reclaimer::Snaps => &[Owner::SnapRevisions],
        Reclaimer::PodLogs => &[Owner::PodLogsRotated],
        Reclaimer::Journal => &[Owner::JournalArchived],
        Reclaimer::Coredumps => &[Owner::Coredumps],
    }
}

/// The fastest first. Who was not there at the last walk is left out.
fn growths(
    owned: Vec<(Owner, &VecDeque<Point>)>,
    all: Option<&VecDeque<Point>>,
    seconds: i64,
) -> Vec<Growth> {
    let newest = owned.iter().filter_map(|(_, points)| points.back());
    let newest = newest.map(|point| point.span).max();
    let grown = owned.into_iter().filter_map(|(owner, points)| {
        let last = points.back().filter(|last| Some(last.span) == newest)?;
        let own: Vec<Point> = points.iter().copied().collect();
        let trend = Trend::through(&own, seconds)?;
        let disk = all.and_then(|all| Trend::through(&at_spans_of(&own, all), seconds));
        Some(Growth {
            owner,
            used: last.used,
            trend,
            share: disk
                .filter(|disk| disk.middle > 0.0)
                .map(|disk| trend.middle / disk.middle),
        })
    });
    let mut grown: Vec<Growth> = grown.collect();
    grown.sort_by(|one, other| other.trend.middle.total_cmp(&one.trend.middle));
    grown
}

fn walked(points: &VecDeque<Point>) -> Option<(Timestamp, Duration)> {
    let last = points.back()?.span;
    let before = points.iter().rev().nth(1).map_or(last, |point| point.span);
    let at = Timestamp::from_second((last + 1).saturating_mul(LONG_SECONDS)).ok()?;
    let apart = u64::try_from((last - before).saturating_mul(LONG_SECONDS)).unwrap_or(0);
    Some((at, Duration::from_secs(apart)))
}

/// Both are in order.
fn at_spans_of(own: &[Point], all: &VecDeque<Point>) -> Vec<Point> {
    let is_wanted = |point: &&Point| {
        own.binary_search_by_key(&point.span, |own| own.span)
            .is_ok()
    };
    all.iter().filter(is_wanted).copied().collect()
}

#[cfg(test)]
mod tests;
