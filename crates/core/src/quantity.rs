//! Quantities with a unit in their type: replica counts.

use std::fmt;
use std::num::NonZeroU32;

/// A number of replicas, 0 included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Replicas(pub u32);

impl Replicas {
    /// No replica: asleep.
    pub const ZERO: Self = Self(0);

    /// True for zero replicas.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number of replicas to wake to: at least 1, so that "restore to nothing" cannot be written down (invariant 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WakeCount(NonZeroU32);

impl WakeCount {
    /// One replica.
    pub const ONE: Self = Self(NonZeroU32::MIN);

    /// `None` for 0.
    pub const fn new(count: u32) -> Option<Self> {
        match NonZeroU32::new(count) {
            Some(count) => Some(Self(count)),
            None => None,
        }
    }

    /// The count as a plain number of replicas.
    pub const fn replicas(self) -> Replicas {
        Replicas(self.0.get())
    }
}

impl From<WakeCount> for Replicas {
    fn from(count: WakeCount) -> Self {
        count.replicas()
    }
}

impl fmt::Display for WakeCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
