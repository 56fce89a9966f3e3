//! When a disk will be full, with an interval: from the last three days, and from the last half hour when something runs away.
//!
//! No single method is right (the comparison is in the test suite beside this): a line through six hours is false in four of
//! ten hours on a node whose kubelet collects images, and what is robust against that sees a runaway too late. So there are
//! three, in this order:
//!
//! - *fast*: the last 28 minutes grew without a pause, faster than 4 % of the disk an hour, and further than anything grew in
//!   three hours before. It warns; what it says is a division.
//! - *accelerating*: an exponential fits the three days at least twice as well as a line does.
//! - *steady*: paths drawn from pieces of the three days, from the same time of day where the days are alike. Where three of
//!   ten paths are not full within a day, nobody is warned.
//!
//! Pure, and the same for the same points: paths are drawn with a fixed seed.

use std::collections::VecDeque;
use std::time::Duration;

use super::history::{LONG_SECONDS, Point, SHORT_SECONDS, Series};

/// Points of a day.
const DAY: usize = 144;
const DAY_SECONDS: i64 = 86_400;
/// Hours from a point to the next.
const STEP: f64 = 1.0 / 6.0;
/// Nothing is said from less than six hours.
const LEAST: usize = 36;
/// How far paths are drawn: 72 hours, as far as history reaches back.
const FAR: usize = 432;
/// As many paths tell the tenth and ninetieth of a hundred to a few percent; with 432 points they take a millisecond.
const PATHS: usize = 200;
/// Pieces are as long as three hours: longer than a rotation and a job of the night, short enough for many of them.
const PIECE: usize = 18;
/// What is said as the middle: earlier than half of the paths, because an error counts by what time is left, and one to the
/// late side costs more. Found on the shapes of the tests, with other seeds: half was off by 54 % on steps, this by 43 to 52.
const MIDDLE: f64 = 0.35;
/// Warned is when at least so many paths are full within a day.
const SURE: f64 = 0.7;
/// Days are alike when yesterday tells today with less than half the squared error of a line.
const ALIKE: f64 = 0.5;
/// Three days of the same pattern give paths that lie closer than the next day will: e to this wider, on either side.
const ALIKE_WIDER: f64 = 0.015;
/// An exponential must halve the error of a line.
const BETTER: f64 = 0.5;
/// Exponentials that fit nearly as well as the best one span the interval.
const AS_GOOD: f64 = 1.5;
/// And e to this on either side.
const CURVE_WIDER: f64 = 0.03;
/// The fast gate looks at so many minutes: a runaway is told within half an hour, and a step that is over sooner is not.
const FAST_MINUTES: usize = 28;
/// Slower than this share of the disk an hour, the other methods are in time.
const FAST_SHARE: f64 = 0.04;
/// It must go further than what grew before within three hours.
const FAST_BEYOND: f64 = 1.2;
/// Three hours.
const BURST: usize = 18;
/// A forecast that warns names a moment within this.
const WARNED: f64 = 24.0;

/// How fast something grows, in units an hour: the tenth, the middle and the ninetieth of a hundred slopes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// One in ten slopes is smaller.
    pub low: f64,
    /// Half of them are.
    pub middle: f64,
    /// Nine in ten are.
    pub high: f64,
}

/// What a forecast was made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// As in the last days.
    Steady,
    /// Faster and faster.
    Accelerating,
    /// As in the last half hour.
    Fast,
}

/// When a disk will be full.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// How fast it grows over the days; none from less than six hours.
    pub trend: Option<Trend>,
    /// What the moment was found by.
    pub basis: Basis,
    /// It will be full in this time; none when not within 72 hours.
    pub full_in: Option<Duration>,
    /// In eight of ten cases not before this …
    pub earliest: Option<Duration>,
    /// … and not after this.
    pub latest: Option<Duration>,
    /// It is sure enough that a person should know: full within a day.
    pub warns: bool,
}

/// Hours until full: earliest, middle, latest. Infinite is never.
#[derive(Debug, Clone, Copy)]
struct Hours {
    early: f64,
    middle: f64,
    late: f64,
    warns: bool,
}

/// A forecast of when `room` more will be used. None when there is too little history to say anything, or no room.
pub fn forecast(series: &Series, room: u64) -> Option<Forecast> {
    let room = real(room);
    if room <= 0.0 {
        return None;
    }
    let days = grid(series.long());
    let minutes = grid(series.short());
    let has_days = days.len() >= LEAST;
    let (basis, hours) = if let Some(hours) = fast(&days, &minutes, room) {
        (Basis::Fast, hours)
    } else if !has_days {
        return None;
    } else if let Some(hours) = accelerating(&days, room) {
        (Basis::Accelerating, hours)
    } else {
        (Basis::Steady, steady(&days, room))
    };
    Some(Forecast {
        trend: if has_days { Trend::of(series) } else { None },
        basis,
        full_in: span(hours.middle),
        earliest: span(hours.early),
        latest: span(hours.late),
        warns: hours.warns,
    })
}

// === impl Trend ===

impl Trend {
    /// Over half of the history, from every point: as robust as Theil and Sen's slope over all pairs, in one pass. None from
    /// fewer than three points.
    pub fn of(series: &Series) -> Option<Self> {
        let points: Vec<Point> = series.long().iter().copied().collect();
        Self::through(&points, LONG_SECONDS)
    }

    /// The same through any points in order, whose spans are so long.
    pub(super) fn through(points: &[Point], span_seconds: i64) -> Option<Self> {
        if points.len() < 3 {
            return None;
        }
        let pairs = points
            .iter()
            .zip(points.iter().skip(half_of(points, span_seconds)));
        let mut slopes: Vec<f64> = pairs
            .map(|(from, to)| {
                let hours = whole(to.span - from.span) * real_of_seconds(span_seconds);
                (real(to.used) - real(from.used)) / hours
            })
            .collect();
        slopes.sort_by(f64::total_cmp);
        // From either end, so that two slopes are an interval.
        let (low, middle) = (quantile(&slopes, 0.1), quantile(&slopes, 0.5));
        slopes.reverse();
        Some(Self {
            low,
            middle: f64::midpoint(middle, quantile(&slopes, 0.5)),
            high: quantile(&slopes, 0.1),
        })
    }
}

impl Trend {
    /// The middle, as a whole number of units an hour.
    pub const fn middle_whole(&self) -> i64 {
        rounded(self.middle)
    }

    /// Low, middle and high in whole units an hour.
    pub const fn per_hour(&self) -> [i64; 3] {
        [rounded(self.low), rounded(self.middle), rounded(self.high)]
    }

    /// Low, middle and high in whole units a day.
    pub const fn per_day(&self) -> [i64; 3] {
        [
            rounded(self.low * 24.0),
            rounded(self.middle * 24.0),
            rounded(self.high * 24.0),
        ]
    }
}

// === impl Basis ===

impl Basis {
    /// Its name in alerts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Accelerating => "accelerating",
            Self::Fast => "fast",
        }
    }
}

// === Methods ===

/// As in the last days: pieces of them in a row, until the room is used.
fn steady(days: &[f64], room: f64) -> Hours {
    let grown: Vec<f64> = days.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let is_daily = are_alike(days);
    let mut draw = Draw(7);
    let mut hours: Vec<f64> = (0..PATHS)
        .map(|_| path(&grown, room, is_daily, &mut draw))
        .collect();
    hours.sort_by(f64::total_cmp);
    let wider = if is_daily { ALIKE_WIDER.exp() } else { 1.0 };
    Hours {
        early: quantile(&hours, 0.1) / wider,
        middle: quantile(&hours, MIDDLE),
        late: quantile(&hours, 0.9) * wider,
        warns: quantile(&hours, SURE) <= WARNED,
    }
}

/// Hours until one path has used the room.
fn path(grown: &[f64], room: f64, is_daily: bool, draw: &mut Draw) -> f64 {
    let count = grown.len();
    let piece = PIECE.min(count / 2).max(1);
    let (mut used, mut at) = (0.0, 0);
    while at < FAR {
        let (start, length) = if is_daily {
            let back = DAY * (1 + draw.below((count / DAY).clamp(1, 3)));
            let start = count - back + at % DAY;
            (start, piece.min(count - start))
        } else {
            // The first piece is cut short, so that pieces begin anywhere.
            let length = if at == 0 {
                1 + draw.below(piece)
            } else {
                piece
            };
            (draw.below(count - piece + 1), length)
        };
        for step in &grown[start..start + length] {
            used += step;
            at += 1;
            if used >= room {
                return whole_points(at) * STEP;
            }
        }
    }
    f64::INFINITY
}

/// Today followed yesterday better than a line.
fn are_alike(days: &[f64]) -> bool {
    let count = days.len();
    if count <= 2 * DAY {
        return false;
    }
    let slope = (days[count - 1] - days[0]) / whole_points(count - 1);
    let (mut of_days, mut of_line) = (0.0, 0.0);
    for at in 0..DAY {
        let today = days[count - DAY + at] - days[count - DAY - 1];
        let yesterday = days[count - 2 * DAY + at] - days[count - 2 * DAY - 1];
        of_days += (today - yesterday).powi(2);
        of_line += (today - slope * whole_points(at + 1)).powi(2);
    }
    of_days < ALIKE * of_line
}

/// Faster and faster: an exponential, where that is much better than a line.
fn accelerating(days: &[f64], room: f64) -> Option<Hours> {
    if days.len() < DAY {
        return None;
    }
    let (_, line) = fit(days, |hours| hours);
    // From six hours to three days, in steps of an eighth.
    let mut curves = Vec::new();
    let mut scale = 6.0;
    while scale < 82.0 {
        let (factor, error) = fit(days, |hours| (hours / scale).exp());
        if factor > 0.0 {
            curves.push((scale * (room / factor + 1.0).ln(), error));
        }
        scale *= 1.12;
    }
    let best = curves
        .iter()
        .min_by(|one, other| one.1.total_cmp(&other.1))?;
    if best.1 > BETTER * line {
        return None;
    }
    let good = curves.iter().filter(|curve| curve.1 <= AS_GOOD * best.1);
    let (early, late) = good.fold((best.0, best.0), |(early, late), curve| {
        (early.min(curve.0), late.max(curve.0))
    });
    let wider = CURVE_WIDER.exp();
    Some(Hours {
        early: early / wider,
        middle: best.0,
        late: late * wider,
        warns: best.0 <= WARNED,
    })
}

/// Least squares of `a + b g(t)`, where t is hours and 0 is now: b, and the root of the mean squared error.
fn fit(days: &[f64], curve: impl Fn(f64) -> f64) -> (f64, f64) {
    let count = whole_points(days.len());
    let at: Vec<f64> = (0..days.len())
        .map(|point| curve((whole_points(point) - count + 1.0) * STEP))
        .collect();
    let middle_at = at.iter().sum::<f64>() / count;
    let middle = days.iter().sum::<f64>() / count;
    let pairs = || {
        at.iter()
            .zip(days)
            .map(|(x, y)| (x - middle_at, y - middle))
    };
    let both: f64 = pairs().map(|(x, y)| x * y).sum();
    let squares: f64 = pairs().map(|(x, _)| x * x).sum();
    let factor = if squares > 0.0 { both / squares } else { 0.0 };
    let errors: f64 = pairs().map(|(x, y)| (y - factor * x).powi(2)).sum();
    (factor, (errors / count).sqrt())
}

/// As in the last half hour.
fn fast(days: &[f64], minutes: &[f64], room: f64) -> Option<Hours> {
    let last = minutes.len().checked_sub(FAST_MINUTES)?;
    let last = minutes.get(last..)?;
    let (first, newest) = (*last.first()?, *last.last()?);
    let grown = newest - first;
    let hours = whole_points(FAST_MINUTES - 1) * real_of_seconds(SHORT_SECONDS);
    let slope = grown / hours;
    if slope < FAST_SHARE * (newest + room) {
        return None;
    }
    // It did not pause: each quarter grew by a good part of its share.
    let quarter = FAST_MINUTES / 4;
    let quarters = (0..4).map(|n| {
        let to = ((n + 1) * quarter).min(FAST_MINUTES - 1);
        (last[to] - last[n * quarter]) * 4.0 / grown
    });
    let quarters: Vec<f64> = quarters.collect();
    if quarters.iter().any(|share| *share < 0.4) {
        return None;
    }
    // What happens every night is no runaway before it goes further than it did.
    let burst = days.get(days.len().saturating_sub(BURST + 1)..)?;
    let from = burst.iter().copied().fold(first, f64::min);
    let before = days
        .get(..days.len().saturating_sub(2 * BURST / 3))
        .unwrap_or(&[]);
    let wide = BURST.min(before.len().saturating_sub(1)) + 1;
    let most = before.windows(wide).map(|piece| piece[wide - 1] - piece[0]);
    if newest - from <= FAST_BEYOND * most.fold(0.0, f64::max) {
        return None;
    }
    let fastest = quarters.iter().copied().fold(1.0, f64::max);
    let slowest = quarters.iter().copied().fold(1.0, f64::min);
    let middle = room / slope;
    Some(Hours {
        early: middle / fastest,
        middle,
        late: middle / slowest,
        warns: middle <= WARNED,
    })
}

// === Numbers ===

/// `SplitMix64`: the same numbers for the same seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        // Below `end`, which was a usize.
        usize::try_from(mixed % end).unwrap_or(0)
    }
}

/// How many points lie within half of the time that they span: of whole days, so that what swings by day is no slope.
fn half_of(points: &[Point], span_seconds: i64) -> usize {
    let begin = points.first().map_or(0, |first| first.span);
    let passed = |point: &Point| (point.span - begin).saturating_mul(span_seconds);
    let half = points.last().map_or(0, passed) / 2;
    let apart = if half >= DAY_SECONDS {
        half / DAY_SECONDS * DAY_SECONDS
    } else {
        half
    };
    let last = points.len().saturating_sub(1).max(1);
    points
        .partition_point(|point| passed(point) < apart)
        .clamp(1, last)
}

/// Points at equal distances, the oldest first: what is missing between two is on the line between them.
fn grid(points: &VecDeque<Point>) -> Vec<f64> {
    let mut values = Vec::with_capacity(points.len());
    let mut before: Option<&Point> = None;
    for point in points {
        if let Some(before) = before {
            let wide = whole(point.span - before.span);
            let step = (real(point.used) - real(before.used)) / wide;
            for missing in 1..point.span - before.span {
                values.push(real(before.used) + step * whole(missing));
            }
        }
        values.push(real(point.used));
        before = Some(point);
    }
    values
}

/// The value below which this share of sorted ones lies.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (whole_points(last) * share).floor();
    let at = (0..last).find(|index| whole_points(*index) >= at);
    sorted[at.unwrap_or(last)]
}

/// None where it is farther than paths are drawn.
fn span(hours: f64) -> Option<Duration> {
    let is_near = hours <= whole_points(FAR) * STEP;
    is_near.then(|| Duration::from_secs_f64(hours.max(0.0) * 3600.0))
}

fn real_of_seconds(seconds: i64) -> f64 {
    whole(seconds) / 3600.0
}

#[expect(
    clippy::cast_precision_loss,
    clippy::as_conversions,
    reason = "a forecast needs no more than 53 bits of a number of bytes"
)]
pub(super) const fn real(used: u64) -> f64 {
    used as f64
}

#[expect(
    clippy::cast_precision_loss,
    clippy::as_conversions,
    reason = "spans and seconds are far below 2⁵³"
)]
const fn whole(count: i64) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_precision_loss,
    clippy::as_conversions,
    reason = "numbers of points are far below 2⁵³"
)]
const fn whole_points(count: usize) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::as_conversions,
    reason = "a float becomes the nearest whole number that there is: no wrap"
)]
pub(super) const fn rounded(number: f64) -> i64 {
    number as i64
}

#[cfg(test)]
mod tests;
