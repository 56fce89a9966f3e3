//! The word that sums a workload up, by one truth table (A-025, A-158, R09).

use crate::quantity::Replicas;

/// The three counts that the word is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Wanted.
    pub desired: Replicas,
    /// Existing.
    pub current: Replicas,
    /// Serving.
    pub available: Replicas,
}

/// The word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// All wanted replicas serve, and there is at least one.
    Active,
    /// None is wanted and none is left.
    Inactive,
    /// Wanted, existing and serving counts differ.
    Scaling,
    /// Nothing could be observed.
    Unknown,
}

impl Status {
    /// Every status, in declaration order.
    pub const ALL: [Self; 4] = [Self::Active, Self::Inactive, Self::Scaling, Self::Unknown];

    /// The word for observed counts. `Unknown` is for callers who could observe nothing.
    pub fn of(counts: Counts) -> Self {
        let Counts {
            desired,
            current,
            available,
        } = counts;
        if current != desired || available != desired {
            Self::Scaling
        } else if desired.is_zero() {
            Self::Inactive
        } else {
            Self::Active
        }
    }

    /// The word as the REST API spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Scaling => "scaling",
            Self::Unknown => "unknown",
        }
    }

    /// Reads what [`Status::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // K-22, R09
    #[test]
    fn the_truth_table_holds() {
        let rows = [
            ((0, 0, 0), Status::Inactive),
            ((0, 1, 1), Status::Scaling),
            ((0, 1, 0), Status::Scaling),
            ((1, 0, 0), Status::Scaling),
            ((1, 1, 0), Status::Scaling),
            ((1, 1, 1), Status::Active),
            ((2, 2, 0), Status::Scaling),
            ((2, 2, 1), Status::Scaling),
            ((2, 2, 2), Status::Active),
            ((2, 3, 2), Status::Scaling),
            ((2, 3, 3), Status::Scaling),
        ];
        for ((desired, current, available), expected) in rows {
            let counts = Counts {
                desired: Replicas(desired),
                current: Replicas(current),
                available: Replicas(available),
            };
            assert_eq!(Status::of(counts), expected, "{counts:?}");
        }
    }

    #[test]
    fn words_read_back() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("asleep"), None);
    }
}
