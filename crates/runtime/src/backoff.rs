//! Capped exponential waiting between retries, with jitter that a seed fixes.
//!
//! The delay doubles from `first` to `cap`; of each, the upper half is random ("equal jitter"), so
//! that many retriers spread out while none retries at once. The generator is `SplitMix64`, seeded by
//! the caller: the same seed gives the same delays, which simulations need.
//! It deliberately does not sleep and does not count a budget: its owner does.

use std::time::Duration;

/// The sequence of delays between retries. Endless; [`Backoff::reset`] starts over after success.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    attempt: u32,
    random: u64,
}

// === impl Backoff ===

impl Backoff {
    /// Delays of about `first`, doubling, at most `cap`. `seed` fixes the jitter.
    pub fn new(first: Duration, cap: Duration, seed: u64) -> Self {
        Self {
            first: first.min(cap),
            cap,
            attempt: 0,
            random: seed,
        }
    }

    /// The next delay: between half and all of `first` · 2ⁿ, where n counts the delays since the
    /// last reset, and never above the cap.
    pub fn next_delay(&mut self) -> Duration {
        let doubled = 1_u32
            .checked_shl(self.attempt)
            .map(|factor| self.first.checked_mul(factor));
        let whole = doubled.flatten().unwrap_or(self.cap).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        let half = whole / 2;
        let jitter = u64::try_from(whole.saturating_sub(half).as_nanos()).unwrap_or(u64::MAX);
        // The remainder is biased by at most 2⁻²⁰ for delays of hours: no matter for jitter.
        half + Duration::from_nanos(self.next_random() % jitter.saturating_add(1))
    }

    /// How many delays were taken since the last reset.
    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    /// Starts over at the first delay, after a success. The jitter goes on from where it is.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// `SplitMix64`, <https://prng.di.unimi.it/splitmix64.c>.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(5);

    #[test]
    fn each_delay_lies_in_the_upper_half_of_the_doubled_step() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(FIRST, CAP, seed);
            for attempt in 0..40_u32 {
                let whole = FIRST.saturating_mul(2_u32.saturating_pow(attempt)).min(CAP);
                let delay = backoff.next_delay();
                assert!(
                    delay >= whole / 2 && delay <= whole,
                    "seed {seed}: {delay:?} of {whole:?}"
                );
            }
        }
    }

    #[test]
    fn same_seed_gives_same_delays_and_another_seed_others() {
        let delays = |seed| {
            let mut backoff = Backoff::new(FIRST, CAP, seed);
            (0..8).map(|_| backoff.next_delay()).collect::<Vec<_>>()
        };
        assert_eq!(delays(7), delays(7));
        assert_ne!(delays(7), delays(8));
    }

    #[test]
    fn reset_starts_over_at_the_first_delay() {
        let mut backoff = Backoff::new(FIRST, CAP, 1);
        for _ in 0..10 {
            backoff.next_delay();
        }
        assert_eq!(backoff.attempts(), 10);
        backoff.reset();
        assert!(backoff.next_delay() <= FIRST);
    }

    #[test]
    fn edges_zero_first_above_cap_and_endless_cap() {
        assert_eq!(
            Backoff::new(Duration::ZERO, CAP, 1).next_delay(),
            Duration::ZERO
        );
        assert!(Backoff::new(CAP, FIRST, 1).next_delay() <= FIRST);
        let mut endless = Backoff::new(Duration::from_secs(1), Duration::MAX, 1);
        for _ in 0..100 {
            endless.next_delay();
        }
        assert!(endless.next_delay() > Duration::from_secs(1));
    }
}
