//! How much was used, over the last three days: what forecasts are made of. Bounded, whatever the clock does.
//!
//! Two rings of points: one each ten minutes for 72 hours, and one each minute for the last hour. A point is the last reading
//! of its span. What ballast took or gave is no growth of anybody: then the points before are shifted by as much.
//! What cleaning gave back is taken out where something is made of them ([`super::given`]).

use std::collections::VecDeque;

use jiff::Timestamp;

/// Length of a span of the long ring, in seconds.
pub(super) const LONG_SECONDS: i64 = 600;
/// Spans of the long ring: 72 hours, three nights.
pub(super) const LONG_POINTS: usize = 432;
/// Length of a span of the short ring, in seconds.
pub(super) const SHORT_SECONDS: i64 = 60;
/// Spans of the short ring: one hour.
pub(super) const SHORT_POINTS: usize = 60;

/// What was used at the end of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Which span, counted from 1970.
    pub span: i64,
    /// Bytes or inodes.
    pub used: u64,
}

/// The points of one thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Series {
    long: VecDeque<Point>,
    short: VecDeque<Point>,
}

// === impl Series ===

impl Series {
    /// Adds a reading. One from before the last point means that the clock was set back: later points are forgotten.
    pub fn add(&mut self, now: Timestamp, used: u64) {
        let at = |seconds: i64| Point {
            span: now.as_second().div_euclid(seconds),
            used,
        };
        push(&mut self.long, at(LONG_SECONDS), LONG_POINTS);
        push(&mut self.short, at(SHORT_SECONDS), SHORT_POINTS);
    }

    /// Puts back a point of the long ring that was kept over a restart.
    pub fn restore(&mut self, point: Point) {
        push(&mut self.long, point, LONG_POINTS);
    }

    /// Puts what was known earlier in front. Where both know a span, this is the newer.
    pub(super) fn follow(&mut self, mut earlier: Self) {
        for point in &self.long {
            push(&mut earlier.long, *point, LONG_POINTS);
        }
        for point in &self.short {
            push(&mut earlier.short, *point, SHORT_POINTS);
        }
        *self = earlier;
    }

    /// What was used before was so much more or less than it would have been: ballast took or gave it since.
    pub fn shift(&mut self, by: i64) {
        for point in self.long.iter_mut().chain(&mut self.short) {
            point.used = point.used.saturating_add_signed(by);
        }
    }

    /// Each point as it is told anew, by the length of its span in seconds, or left out.
    pub(super) fn map(&self, told: impl Fn(Point, i64) -> Option<Point>) -> Self {
        let of = |points: &VecDeque<Point>, seconds| {
            let points = points.iter();
            points.filter_map(|point| told(*point, seconds)).collect()
        };
        Self {
            long: of(&self.long, LONG_SECONDS),
            short: of(&self.short, SHORT_SECONDS),
        }
    }

    /// As far as it reaches there was nothing.
    pub(super) fn is_nothing(&self) -> bool {
        self.long.iter().all(|point| point.used == 0)
    }

    /// A point each ten minutes, the oldest first. Spans without a reading are missing.
    pub const fn long(&self) -> &VecDeque<Point> {
        &self.long
    }

    /// A point each minute.
    pub const fn short(&self) -> &VecDeque<Point> {
        &self.short
    }
}

fn push(points: &mut VecDeque<Point>, point: Point, most: usize) {
    while points.back().is_some_and(|last| last.span >= point.span) {
        points.pop_back();
    }
    points.push_back(point);
    let oldest = point.span - i64::try_from(most).unwrap_or(i64::MAX) + 1;
    while points.front().is_some_and(|first| first.span < oldest) {
        points.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_span_keeps_its_last_reading() {
        let mut series = Series::default();
        for (second, used) in [(0, 1), (59, 2), (599, 3), (600, 4)] {
            series.add(at(second), used);
        }
        let used = |points: &VecDeque<Point>| points.iter().map(|p| p.used).collect::<Vec<_>>();
        assert_eq!(used(series.long()), [3, 4]);
        assert_eq!(used(series.short()), [2, 3, 4]);
    }

    // A disk that answered late: what was seen meanwhile stands behind what was known before.
    #[test]
    fn what_was_known_earlier_comes_before_what_was_seen_since() {
        let (mut earlier, mut series) = (Series::default(), Series::default());
        for (second, used) in [(0, 1), (600, 2), (1200, 3)] {
            earlier.add(at(second), used);
        }
        for (second, used) in [(1230, 30), (1800, 40)] {
            series.add(at(second), used);
        }
        series.follow(earlier);
        let used: Vec<u64> = series.long().iter().map(|point| point.used).collect();
        assert_eq!(used, [1, 2, 30, 40]);
    }

    // §4 (e): what we freed ourselves is no change of what others do.
    #[test]
    fn what_nagi_freed_is_taken_out_of_what_was_before() {
        let mut series = Series::default();
        series.add(at(0), 1000);
        series.shift(-400);
        series.add(at(600), 610);
        let growth: Vec<u64> = series.long().iter().map(|point| point.used).collect();
        assert_eq!(growth, [600, 610]);
        series.shift(-10_000);
        assert_eq!(series.long()[0].used, 0, "no wrap");
    }

    proptest! {
        // Bounded memory: whatever the clock does, and always in order.
        #[test]
        fn both_rings_keep_their_size_and_order(
            steps in proptest::collection::vec(-600_i64..1500, 1000..1500),
        ) {
            let mut series = Series::default();
            let mut now = 1_900_000_000;
            for step in steps {
                now += step;
                series.add(at(now), 1);
            }
            prop_assert!(series.long().len() <= LONG_POINTS && series.short().len() <= SHORT_POINTS);
            for points in [series.long(), series.short()] {
                prop_assert!(points.iter().zip(points.iter().skip(1)).all(|(a, b)| a.span < b.span));
            }
            let reach = series.long().back().unwrap().span - series.long()[0].span;
            prop_assert!(usize::try_from(reach).unwrap() < LONG_POINTS);
            prop_assert_eq!(series.long().back().unwrap().span, now.div_euclid(LONG_SECONDS));
        }
    }
}
