//! When owners are looked at: seldom on a node that rests, often while a disk fills, and never for more than a share of a core.
//!
//! After a walk it rests so many times as long as that worked, so a large disk is looked at less often. While a disk is nearly
//! full, or will be, somebody is to be named for it, and three walks within an hour can: then the rest is left out, for as long
//! as what that costs is within what a day may cost besides. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// The first walk begins so long after the start: nobody needs it at once, and a node that boots is busy.
const FIRST: Duration = Duration::from_mins(5);
/// In a hurry they are so far apart: three of them within half an hour.
const HURRIED: Duration = Duration::from_mins(10);
/// 0.05 % of a core, half of what the guard may take (B16).
const REST: u32 = 2000;
/// The other half of a day, for walks in a hurry: three of a disk that is as large as may be walked, which takes 12 s, and thirty
/// of one with 400,000 files.
const HURRY_MAX: Duration = Duration::from_secs(DAY.as_secs() / 2000);
const DAY: Duration = Duration::from_hours(24);

/// Walks that were, and when the next one is due.
#[derive(Debug)]
pub(super) struct Walks {
    every: Duration,
    begun: Duration,
    /// When the last one began, and whether it did in a hurry.
    last: Option<(Duration, Pace)>,
    /// What processor time the last one took that ended.
    cost: Duration,
    /// Those of the last day that did not wait, and what they took. Each is ten minutes after the one before.
    hurried: VecDeque<(Duration, Duration)>,
}

/// How a walk was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Rested,
    Hurried,
}

// === impl Walks ===

impl Walks {
    pub(super) const fn every(every: Duration, begun: Duration) -> Self {
        Self {
            every,
            begun,
            last: None,
            cost: Duration::ZERO,
            hurried: VecDeque::new(),
        }
    }

    /// Whether one begins now. If so, it has.
    pub(super) fn is_time(&mut self, now: Duration, is_urgent: bool) -> bool {
        let Some(pace) = self.pace(now, is_urgent) else {
            return false;
        };
        self.last = Some((now, pace));
        true
    }

    fn pace(&mut self, now: Duration, is_urgent: bool) -> Option<Pace> {
        let Some((last, _)) = self.last else {
            let is_time = now.saturating_sub(self.begun) >= self.every.min(FIRST);
            return is_time.then_some(Pace::Rested);
        };
        let rested = now.saturating_sub(last);
        let every = if is_urgent {
            self.every.min(HURRIED)
        } else {
            self.every
        };
        if rested >= every.max(self.cost.saturating_mul(REST)) {
            return Some(Pace::Rested);
        }
        while self
            .hurried
            .front()
            .is_some_and(|(at, _)| now.saturating_sub(*at) >= DAY)
        {
            self.hurried.pop_front();
        }
        let spent: Duration = self.hurried.iter().map(|(_, cost)| *cost).sum();
        let may_hurry = is_urgent && rested >= every && spent + self.cost <= HURRY_MAX;
        may_hurry.then_some(Pace::Hurried)
    }

    /// The last one has ended, and took so much of a processor.
    pub(super) fn ended(&mut self, cost: Duration) {
        self.cost = cost;
        if let Some((at, Pace::Hurried)) = self.last {
            self.hurried.push_back((at, cost));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_secs(2);
    const MINUTE: Duration = Duration::from_mins(1);

    /// When walks begin that take so much, while a disk fills from one moment to another.
    fn walks(cost: Duration, urgent: std::ops::Range<Duration>, until: Duration) -> Vec<Duration> {
        let mut walks = Walks::every(MINUTE * 30, Duration::ZERO);
        let mut begun = Vec::new();
        let mut now = Duration::ZERO;
        while now < until {
            if walks.is_time(now, urgent.contains(&now)) {
                begun.push(now);
                walks.ended(cost);
            }
            now += LOOK;
        }
        begun
    }

    fn minutes(walks: &[Duration]) -> Vec<u64> {
        walks.iter().map(|at| at.as_secs() / 60).collect()
    }

    const CALM: std::ops::Range<Duration> = Duration::ZERO..Duration::ZERO;

    #[test]
    fn a_node_that_rests_is_walked_as_often_as_was_said_or_as_its_size_allows() {
        let small = walks(Duration::from_millis(10), CALM, MINUTE * 100);
        assert_eq!(minutes(&small), [5, 35, 65, 95]);
        // 400,000 files, and a million.
        let usual = walks(Duration::from_millis(1200), CALM, MINUTE * 100);
        assert_eq!(minutes(&usual), [5, 45, 85]);
        let large = walks(Duration::from_secs(3), CALM, MINUTE * 310);
        assert_eq!(minutes(&large), [5, 105, 205, 305]);
    }

    // 5-12: whoever fills a disk can be named before its end on a node of any size: three walks lie within an hour.
    #[test]
    fn a_disk_that_fills_is_walked_three_times_within_half_an_hour_whatever_its_size() {
        for cost in [10, 1200, 3000, 12_000].map(Duration::from_millis) {
            let urgent = MINUTE * 60..MINUTE * 120;
            let hour = walks(cost, urgent.clone(), MINUTE * 120);
            let hour: Vec<Duration> = hour.into_iter().filter(|at| urgent.contains(at)).collect();
            let third = hour.get(2).unwrap_or_else(|| panic!("{cost:?}: {hour:?}"));
            assert!(*third <= MINUTE * 90, "{cost:?}: {third:?}");
            for pair in hour.windows(2) {
                assert!(pair[1] >= pair[0] + HURRIED, "{cost:?}");
            }
        }
    }

    // B16: a disk that stays nearly full for days costs no more than 0.1 % of a core.
    #[test]
    fn what_a_hurry_costs_in_a_day_is_bounded() {
        let days = 5;
        for cost in [10, 1200, 3000, 12_000].map(Duration::from_millis) {
            let until = DAY * days;
            let begun = walks(cost, Duration::ZERO..until, until);
            let count = u32::try_from(begun.len()).unwrap();
            let spent = cost * count;
            assert!(
                spent <= (DAY / 1000 + cost) * days,
                "{cost:?}: {count} walks"
            );
            // It goes on each day.
            let last = begun.iter().filter(|at| **at >= DAY * (days - 1)).count();
            assert!(last >= 6, "{cost:?}: {last} on the last day");
        }
    }
}
