//! How full is too full: four levels on bytes and on inodes, reached at once and left only with a distance.
//!
//! The founding document names 80, 85, 90 and 95 %, and a level that a disk of the seed's kind flickers around would be told
//! every minute. A level is therefore left only [`DISTANCE`] points below where it is reached: a reading that wavers by one
//! point to either side spans two, and never reaches one end and leaves the other.
//!
//! Shares are compared as whole numbers, without rounding: df rounds up, and would call 79.1 % already 80.

use crate::filesystem::Space;

/// Points below its mark at which a level is left.
const DISTANCE: u128 = 2;
/// The largest inode that XFS makes. Where the free ones of this size would not fill the free space, their number is limited
/// by `imaxpct`; where they would, it is computed from the free blocks, and says nothing that the bytes do not.
const XFS_INODE_MAX: u64 = 2048;

/// How urgent it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Below 80 %.
    #[default]
    Calm,
    /// From 80 %: to be known.
    Notice,
    /// Above 85 %, where the founding document's goal ends and kubelet begins to collect.
    Alert,
    /// From 90 %: the level of the founding document's line.
    Serious,
    /// From 95 %: minutes count.
    Critical,
}

/// What a filesystem can run out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Space.
    Bytes,
    /// Files.
    Inodes,
}

/// A part of a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// What is taken.
    pub used: u64,
    /// What can be taken.
    pub whole: u64,
}

// === impl Level ===

impl Level {
    /// Every level, the least urgent first.
    pub const ALL: [Self; 5] = [
        Self::Calm,
        Self::Notice,
        Self::Alert,
        Self::Serious,
        Self::Critical,
    ];

    /// Its name in alerts, metrics and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Notice => "notice",
            Self::Alert => "alert",
            Self::Serious => "serious",
            Self::Critical => "critical",
        }
    }

    /// The level of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// Where it is reached, in percent.
    pub const fn percent(self) -> u8 {
        match self {
            Self::Calm => 0,
            Self::Notice => 80,
            Self::Alert => 85,
            Self::Serious => 90,
            Self::Critical => 95,
        }
    }

    /// For metrics: 0 is calm, 4 critical.
    pub const fn number(self) -> u8 {
        match self {
            Self::Calm => 0,
            Self::Notice => 1,
            Self::Alert => 2,
            Self::Serious => 3,
            Self::Critical => 4,
        }
    }

    fn is_reached_by(self, fill: Fill) -> bool {
        let (part, mark) = fill.against(self.percent());
        match self {
            Self::Calm => true,
            // The founding document says above 85 %, and names the others as marks.
            Self::Alert => part > mark,
            Self::Notice | Self::Serious | Self::Critical => part >= mark,
        }
    }

    fn is_held_by(self, fill: Fill) -> bool {
        let (part, mark) = fill.against(self.percent());
        part + DISTANCE * u128::from(fill.whole) >= mark
    }
}

// === impl Resource ===

impl Resource {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Bytes, Self::Inodes];

    /// Its name in alerts and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Inodes => "inodes",
        }
    }
}

// === impl Fill ===

impl Fill {
    /// How full a filesystem is in one sense; none where that has no limit.
    pub fn of(resource: Resource, space: &Space, fstype: &str) -> Option<Self> {
        let fill = match resource {
            Resource::Bytes => Self {
                used: space.used(),
                whole: space.used().saturating_add(space.bytes_available),
            },
            Resource::Inodes => {
                let of_blocks = space.inodes_free.saturating_mul(XFS_INODE_MAX) >= space.bytes_free;
                if fstype == "xfs" && of_blocks {
                    return None;
                }
                Self {
                    used: space.inodes_used(),
                    whole: space.inodes,
                }
            }
        };
        (fill.whole > 0).then_some(fill)
    }

    /// In tenths of a percent, cut off: for people and metrics, never for a decision.
    pub fn per_mille(self) -> u16 {
        let share = u128::from(self.used) * 1000 / u128::from(self.whole.max(1));
        u16::try_from(share).unwrap_or(u16::MAX)
    }

    /// Both sides of a comparison with a percentage.
    fn against(self, percent: u8) -> (u128, u128) {
        let part = u128::from(self.used) * 100;
        (part, u128::from(self.whole) * u128::from(percent))
    }
}

/// The level of a filling, given the level before.
pub fn judge(fill: Fill, before: Level) -> Level {
    let highest = |holds: &dyn Fn(Level) -> bool| {
        let levels = Level::ALL.into_iter().rev();
        levels
            .filter(|level| holds(*level))
            .max()
            .unwrap_or_default()
    };
    let reached = highest(&|level| level.is_reached_by(fill));
    let held = highest(&|level| level.is_held_by(fill));
    reached.max(held.min(before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fill(per_mille: u64) -> Fill {
        Fill {
            used: per_mille,
            whole: 1000,
        }
    }

    // B-031, B-034, K-37, D-22
    #[test]
    fn levels_are_reached_at_their_marks_and_alert_above_its_own() {
        for (per_mille, level) in [
            (0, Level::Calm),
            (799, Level::Calm),
            (800, Level::Notice),
            (850, Level::Notice),
            (851, Level::Alert),
            (899, Level::Alert),
            (900, Level::Serious),
            (949, Level::Serious),
            (950, Level::Critical),
            (1000, Level::Critical),
        ] {
            assert_eq!(judge(fill(per_mille), Level::Calm), level, "{per_mille}");
        }
    }

    #[test]
    fn a_level_is_left_two_points_below_its_mark() {
        assert_eq!(judge(fill(930), Level::Critical), Level::Critical);
        assert_eq!(judge(fill(929), Level::Critical), Level::Serious);
        assert_eq!(judge(fill(780), Level::Notice), Level::Notice);
        assert_eq!(judge(fill(779), Level::Notice), Level::Calm);
        assert_eq!(judge(fill(100), Level::Critical), Level::Calm);
        // What was not reached is not held.
        assert_eq!(judge(fill(889), Level::Notice), Level::Alert);
        let largest = Fill {
            used: u64::MAX,
            whole: u64::MAX,
        };
        assert_eq!(judge(largest, Level::Calm), Level::Critical);
    }

    proptest! {
        // B13: a reading that wavers by one point changes its level at most once, upwards.
        #[test]
        fn a_reading_that_wavers_by_a_point_does_not_flap(
            middle in 10_000_u64..=990_000,
            noise in proptest::collection::vec(0_u64..=20_000, 1..200),
            start in 0_usize..5,
        ) {
            let mut level = Level::ALL[start];
            let mut falls = 0;
            let mut rises = 0;
            let mut first = true;
            for one in noise {
                let fill = Fill { used: middle - 10_000 + one, whole: 1_000_000 };
                let next = judge(fill, level);
                // The first reading may lie anywhere from what was known before.
                if !first {
                    falls += u32::from(next < level);
                    rises += u32::from(next > level);
                }
                first = false;
                level = next;
            }
            prop_assert!(falls <= 1 && rises <= 1, "{falls} falls, {rises} rises");
            prop_assert!(!(falls == 1 && rises == 1), "it went down and up");
        }
    }

    // M3: on a full XFS the number of inodes shrinks with the free blocks, and 74 % of them would be used at once.
    #[test]
    fn inodes_of_a_full_xfs_say_nothing_and_those_at_their_own_limit_do() {
        let full = Space {
            bytes: 320 << 20,
            bytes_free: 40 << 10,
            bytes_available: 40 << 10,
            inodes: 296,
            inodes_free: 76,
        };
        assert_eq!(Fill::of(Resource::Inodes, &full, "xfs"), None);
        let limited = Space {
            bytes_free: 300 << 20,
            bytes_available: 300 << 20,
            inodes: 10_000,
            inodes_free: 100,
            ..full
        };
        let judged = Fill::of(Resource::Inodes, &limited, "xfs").unwrap();
        assert_eq!(judge(judged, Level::Calm), Level::Critical);
        assert!(Fill::of(Resource::Inodes, &full, "ext4").is_some());
        let without = Space {
            inodes: 0,
            inodes_free: 0,
            ..full
        };
        assert_eq!(Fill::of(Resource::Inodes, &without, "btrfs"), None);
    }
}
