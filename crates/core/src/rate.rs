//! How fast one caller may write: a token bucket per caller (R17).
//!
//! Time is a monotonic duration since any fixed start, so that a wall clock set back neither locks a caller out
//! nor opens the gate.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// Writes per second that are granted in the long run, by default.
pub const WRITES_PER_SECOND_DEFAULT: u32 = 10;
/// Writes that may come at once, by default.
pub const WRITES_BURST_DEFAULT: u32 = 50;
/// Callers remembered at most. At 100 bytes each this is under 1 MiB; a caller forgotten begins with a full bucket,
/// and only callers whose bucket is full again, or else the one longest unseen, are forgotten.
pub const CALLERS_MAX: usize = 8192;

/// The rule: a steady rate and a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Writes per second.
    pub per_second: u32,
    /// Size of the bucket.
    pub burst: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            per_second: WRITES_PER_SECOND_DEFAULT,
            burst: WRITES_BURST_DEFAULT,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled_at: Duration,
}

/// The buckets of all callers. A rate of 0 switches the limit off.
#[derive(Debug)]
pub struct Buckets<K> {
    limit: RateLimit,
    callers: HashMap<K, Bucket>,
}

impl<K: Eq + Hash + Clone> Buckets<K> {
    /// Empty, under one rule.
    pub fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            callers: HashMap::new(),
        }
    }

    /// Takes one token for `caller` at the monotonic time `now`.
    ///
    /// # Errors
    /// The time until a token will be there.
    pub fn take(&mut self, caller: &K, now: Duration) -> Result<(), Duration> {
        let rate = f64::from(self.limit.per_second);
        if self.limit.per_second == 0 {
            return Ok(());
        }
        let burst = f64::from(self.limit.burst.max(1));
        if !self.callers.contains_key(caller) && self.callers.len() >= CALLERS_MAX {
            self.forget(now, rate, burst);
        }
        let bucket = self.callers.entry(caller.clone()).or_insert(Bucket {
            tokens: burst,
            filled_at: now,
        });
        let elapsed = now.saturating_sub(bucket.filled_at).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed * rate).min(burst);
        bucket.filled_at = bucket.filled_at.max(now);
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - bucket.tokens) / rate))
        }
    }

    /// Gives back the token that [`Buckets::take`] took for something that need not be counted.
    pub fn give_back(&mut self, caller: &K) {
        let burst = f64::from(self.limit.burst.max(1));
        if let Some(bucket) = self.callers.get_mut(caller) {
            bucket.tokens = (bucket.tokens + 1.0).min(burst);
        }
    }

    fn forget(&mut self, now: Duration, rate: f64, burst: f64) {
        self.callers
            .retain(|_, b| b.tokens + now.saturating_sub(b.filled_at).as_secs_f64() * rate < burst);
        if self.callers.len() >= CALLERS_MAX {
            let oldest = self
                .callers
                .iter()
                .min_by_key(|(_, b)| b.filled_at)
                .map(|(k, _)| k.clone());
            if let Some(oldest) = oldest {
                self.callers.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_token_that_was_given_back_was_never_taken() {
        let limit = RateLimit {
            per_second: 1,
            burst: 2,
        };
        let mut buckets = Buckets::new(limit);
        for _ in 0..10 {
            assert_eq!(buckets.take(&"a", SECOND), Ok(()));
            buckets.give_back(&"a");
        }
        // Giving back more than was taken makes no larger bucket, and no bucket for whoever has none.
        buckets.give_back(&"a");
        buckets.give_back(&"b");
        for caller in ["a", "b"] {
            assert_eq!(buckets.take(&caller, SECOND), Ok(()));
            assert_eq!(buckets.take(&caller, SECOND), Ok(()));
            assert!(buckets.take(&caller, SECOND).is_err());
        }
    }

    // R17, A-159
    #[test]
    fn a_burst_passes_then_the_rate_holds_and_says_when_to_come_back() {
        let mut buckets = Buckets::new(RateLimit {
            per_second: 10,
            burst: 5,
        });
        for _ in 0..5 {
            assert_eq!(buckets.take(&"a", SECOND), Ok(()));
        }
        let wait = buckets.take(&"a", SECOND).unwrap_err();
        assert!(
            wait <= Duration::from_millis(100) && wait > Duration::ZERO,
            "{wait:?}"
        );
        assert_eq!(
            buckets.take(&"b", SECOND),
            Ok(()),
            "callers do not share a bucket"
        );
        assert_eq!(buckets.take(&"a", SECOND + wait), Ok(()));
    }

    #[test]
    fn a_rate_of_zero_is_off() {
        let mut buckets = Buckets::new(RateLimit {
            per_second: 0,
            burst: 1,
        });
        assert!((0..10_000).all(|_| buckets.take(&"a", SECOND).is_ok()));
    }

    #[test]
    fn memory_is_bounded_whatever_clients_send() {
        let mut buckets = Buckets::new(RateLimit::default());
        for n in 0..CALLERS_MAX + 100 {
            assert!(buckets.take(&n, SECOND).is_ok());
        }
        assert!(buckets.callers.len() <= CALLERS_MAX);
    }

    proptest! {
        #[test]
        fn no_caller_gets_more_than_burst_plus_rate_times_time(
            steps in prop::collection::vec(0u64..400, 1..200),
        ) {
            let limit = RateLimit { per_second: 10, burst: 7 };
            let mut buckets = Buckets::new(limit);
            let mut now = Duration::ZERO;
            let mut granted = 0.0_f64;
            for step in steps {
                now += Duration::from_millis(step);
                if buckets.take(&(), now).is_ok() {
                    granted += 1.0;
                }
                prop_assert!(granted <= 7.0 + now.as_secs_f64() * 10.0 + 1e-6);
            }
        }
    }
}
