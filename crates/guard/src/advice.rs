//! What the numbers of a survey mean for the node: typed, in the order of urgency.

use std::path::{Path, PathBuf};

use crate::filesystem::{Filesystem, Kind, ReadOnly, Space};
use crate::kubelet::{Quantity, Thresholds};

/// The smallest disk on which the founding documents run a control plane: 8 GB, as clouds sell it. A disk of 8 GiB with
/// its tables taken off is above it.
pub const SIZE_FLOOR: u64 = 8_000_000_000;
/// What they advise for production: 20 GB or more.
pub const SIZE_ADVISED: u64 = 20_000_000_000;
/// Above this share the founding documents call a filesystem not recovered, in percent.
const USED_GOAL_PERCENT: u64 = 85;

/// A threshold of kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `nodefs.available`
    NodefsAvailable,
    /// `nodefs.inodesFree`
    NodefsInodesFree,
    /// `imagefs.available`
    ImagefsAvailable,
    /// `imagefs.inodesFree`
    ImagefsInodesFree,
}

/// Something that a person should know.
#[derive(Debug, Clone, PartialEq)]
pub enum Advice {
    /// A filesystem on which the node lives cannot be written to.
    ReadOnly {
        /// Where.
        point: PathBuf,
    },
    /// Kubelet kills pods now: less is left than its threshold.
    Evicting {
        /// Where.
        point: PathBuf,
        /// By which rule.
        signal: Signal,
        /// Bytes or inodes that are left.
        left: u64,
        /// Below which it kills.
        threshold: u64,
        /// As it is written.
        rule: Quantity,
    },
    /// Nothing is left for programs of users, and the reserve for root still has room.
    OnlyReserve {
        /// Where.
        point: PathBuf,
        /// Bytes that root can write.
        reserved: u64,
    },
    /// Fuller than the goal.
    AboveGoal {
        /// Where.
        point: PathBuf,
        /// As df says it.
        used_percent: u64,
        /// At most.
        goal_percent: u64,
    },
    /// Pods are killed as soon as so much more is written.
    Headroom {
        /// Where.
        point: PathBuf,
        /// By which rule.
        signal: Signal,
        /// Bytes or inodes until then.
        until: u64,
        /// Bytes or inodes that can never be used.
        threshold: u64,
        /// As it is written.
        rule: Quantity,
    },
    /// Smaller than a control plane needs.
    BelowFloor {
        /// Where.
        point: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Smaller than is advised.
    BelowAdvised {
        /// Where.
        point: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Images take more than half of what was surveyed.
    ImagesAboveHalf {
        /// Where.
        point: PathBuf,
        /// Of all files, in percent.
        percent: u64,
    },
}

// === impl Signal ===

impl Signal {
    /// As kubelet calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodefsAvailable => "nodefs.available",
            Self::NodefsInodesFree => "nodefs.inodesFree",
            Self::ImagefsAvailable => "imagefs.available",
            Self::ImagefsInodesFree => "imagefs.inodesFree",
        }
    }

    /// It counts inodes, not bytes.
    pub const fn counts_inodes(self) -> bool {
        matches!(self, Self::NodefsInodesFree | Self::ImagefsInodesFree)
    }
}

/// What is known of the node.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) filesystems: &'a [Filesystem],
    pub(crate) thresholds: &'a Thresholds,
    /// Where the root of the node is.
    pub(crate) node: &'a Path,
    /// Where kubelet keeps its files, if it is there.
    pub(crate) kubelet: Option<&'a Path>,
    /// Where images are kept, if it is there.
    pub(crate) images: Option<&'a Path>,
    /// For each place that was walked: where, what images take, and all of it, in bytes.
    pub(crate) shares: &'a [(PathBuf, u64, u64)],
}

/// Judges a node.
pub(crate) fn judge(facts: &Facts<'_>) -> Vec<Advice> {
    let mut urgent = Vec::new();
    let mut later = Vec::new();
    for filesystem in facts.filesystems {
        let is_vital = !filesystem.holds.is_empty() && filesystem.kind == Kind::Disk;
        let (true, Some(space)) = (is_vital, &filesystem.space) else {
            continue;
        };
        let point = || filesystem.point.clone();
        if filesystem.read_only != ReadOnly::No {
            urgent.push(Advice::ReadOnly { point: point() });
        }
        for (signal, rule) in signals(facts, filesystem) {
            if let Some(advice) = compare(&filesystem.point, space, signal, rule) {
                let place = if matches!(advice, Advice::Evicting { .. }) {
                    &mut urgent
                } else {
                    &mut later
                };
                place.push(advice);
            }
        }
        if space.bytes_available == 0 && space.reserved() > 0 {
            urgent.push(Advice::OnlyReserve {
                point: point(),
                reserved: space.reserved(),
            });
        }
        if let Some(used_percent) = space.used_percent()
            && used_percent > USED_GOAL_PERCENT
        {
            urgent.push(Advice::AboveGoal {
                point: point(),
                used_percent,
                goal_percent: USED_GOAL_PERCENT,
            });
        }
        let holds_root = facts.holds_state(filesystem);
        if holds_root && space.bytes < SIZE_FLOOR {
            later.push(Advice::BelowFloor {
                point: point(),
                bytes: space.bytes,
            });
        } else if holds_root && space.bytes < SIZE_ADVISED {
            later.push(Advice::BelowAdvised {
                point: point(),
                bytes: space.bytes,
            });
        }
    }
    urgent.append(&mut later);
    urgent.extend(facts.shares.iter().filter_map(|(point, images, all)| {
        // Rounded to the nearest, as the founding document does.
        let all = u128::from(*all).max(1);
        let percent = (u128::from(*images) * 200 + all) / (2 * all);
        (u128::from(*images) * 2 > all).then(|| Advice::ImagesAboveHalf {
            point: point.clone(),
            percent: u64::try_from(percent).unwrap_or(u64::MAX),
        })
    }));
    urgent
}

// === impl Facts ===

impl Facts<'_> {
    /// The filesystem is the one of which the founding documents say how large it must be: with kubelet's files, or the
    /// root of the node where kubelet is not.
    fn holds_state(&self, filesystem: &Filesystem) -> bool {
        match self.kubelet {
            Some(path) => filesystem.holds.iter().any(|held| held == path),
            None => filesystem.holds.iter().any(|held| held == self.node),
        }
    }
}

/// The thresholds that apply to a filesystem. Kubelet calls the one with the images imagefs, also when both are the same.
fn signals(facts: &Facts<'_>, filesystem: &Filesystem) -> Vec<(Signal, Quantity)> {
    let holds = |path: Option<&Path>| {
        path.is_some_and(|path| filesystem.holds.iter().any(|held| held == path))
    };
    let thresholds = facts.thresholds;
    let mut signals = Vec::new();
    if holds(facts.kubelet) {
        signals.push((Signal::NodefsAvailable, thresholds.nodefs_available));
        signals.push((Signal::NodefsInodesFree, thresholds.nodefs_inodes_free));
    }
    if facts.kubelet.is_some() && holds(facts.images) {
        signals.push((Signal::ImagefsAvailable, thresholds.imagefs_available));
        signals.push((Signal::ImagefsInodesFree, thresholds.imagefs_inodes_free));
    }
    signals
        .into_iter()
        .filter_map(|(signal, rule)| Some((signal, rule?)))
        .collect()
}

fn compare(point: &Path, space: &Space, signal: Signal, rule: Quantity) -> Option<Advice> {
    let (left, whole) = if signal.counts_inodes() {
        (space.inodes_free, space.inodes)
    } else {
        (space.bytes_available, space.bytes)
    };
    if whole == 0 {
        return None; // Inodes without a limit.
    }
    let threshold = rule.of(whole);
    let point = point.to_owned();
    Some(match left.checked_sub(threshold) {
        Some(until) => Advice::Headroom {
            point,
            signal,
            until,
            threshold,
            rule,
        },
        None => Advice::Evicting {
            point,
            signal,
            left,
            threshold,
            rule,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::Device;

    const GIB: u64 = 1 << 30;

    fn root(bytes: u64, available: u64, holds: &[&str]) -> Filesystem {
        Filesystem {
            device: Device { major: 8, minor: 1 },
            fstype: "ext4".into(),
            kind: Kind::Disk,
            source: "/dev/root".into(),
            point: "/".into(),
            root: "/".into(),
            read_only: ReadOnly::No,
            space: Some(Space {
                bytes,
                bytes_free: available,
                bytes_available: available,
                inodes: 1000,
                inodes_free: 500,
            }),
            holds: holds.iter().map(PathBuf::from).collect(),
        }
    }

    fn judged(filesystem: &Filesystem) -> Vec<Advice> {
        judge(&Facts {
            filesystems: std::slice::from_ref(filesystem),
            thresholds: &Thresholds::DEFAULT,
            node: Path::new("/"),
            kubelet: Some(Path::new("/var/lib/kubelet")),
            images: Some(Path::new("/var/lib/containerd")),
            shares: &[],
        })
    }

    const NODE: &[&str] = &["/", "/var/lib/kubelet", "/var/lib/containerd"];

    // B-042, W-B07: 595 MB of 7.6 GB, where the founding document ends, is not recovered.
    #[test]
    fn the_end_of_the_founding_document_is_below_both_thresholds() {
        let bytes = 7_600_000_000;
        let node = root(bytes, 595_000_000, NODE);
        let advice = judged(&node);
        let evicts = |signal: Signal| {
            advice
                .iter()
                .any(|one| matches!(one, Advice::Evicting { signal: by, .. } if *by == signal))
        };
        assert!(evicts(Signal::NodefsAvailable) && evicts(Signal::ImagefsAvailable));
        assert!(!evicts(Signal::NodefsInodesFree));
        assert!(advice.contains(&Advice::AboveGoal {
            point: "/".into(),
            used_percent: 93,
            goal_percent: 85
        }));
        // B-033
        assert!(advice.contains(&Advice::BelowFloor {
            point: "/".into(),
            bytes
        }));
    }

    // D-25: at 8 GB, 15 % is 1.2 GB that can never be used.
    #[test]
    fn what_can_never_be_used_is_computed_from_the_thresholds() {
        let node = root(8_000_000_000, 4_000_000_000, NODE);
        let advice = judged(&node);
        assert!(advice.contains(&Advice::Headroom {
            point: "/".into(),
            signal: Signal::ImagefsAvailable,
            until: 2_800_000_000,
            threshold: 1_200_000_000,
            rule: Quantity::Percent(15.0),
        }));
        assert!(
            advice
                .iter()
                .any(|one| matches!(one, Advice::BelowAdvised { .. }))
        );
        let large = root(100 * GIB, 90 * GIB, NODE);
        assert!(
            judged(&large)
                .iter()
                .all(|one| matches!(one, Advice::Headroom { .. }))
        );
    }

    #[test]
    fn exactly_at_the_threshold_nothing_is_killed() {
        let at = root(1000, 150, NODE);
        let below = root(1000, 149, NODE);
        let kills = |node: &Filesystem| {
            judged(node).iter().any(|one| {
                matches!(
                    one,
                    Advice::Evicting {
                        signal: Signal::ImagefsAvailable,
                        ..
                    }
                )
            })
        };
        assert!(!kills(&at) && kills(&below));
    }

    #[test]
    fn a_disk_without_anything_of_the_node_is_not_judged() {
        assert_eq!(judged(&root(1000, 0, &[])), []);
        let mut reserve = root(100 * GIB, 0, NODE);
        if let Some(space) = &mut reserve.space {
            space.bytes_free = GIB;
        }
        reserve.read_only = ReadOnly::Filesystem;
        let advice = judged(&reserve);
        assert!(advice.contains(&Advice::ReadOnly { point: "/".into() }));
        assert!(advice.contains(&Advice::OnlyReserve {
            point: "/".into(),
            reserved: GIB
        }));
    }

    // B-028
    #[test]
    fn images_above_half_are_named() {
        let half = |images| {
            judge(&Facts {
                filesystems: &[],
                thresholds: &Thresholds::DEFAULT,
                node: Path::new("/"),
                kubelet: None,
                images: None,
                shares: &[("/".into(), images, 100)],
            })
        };
        assert_eq!(half(49), []);
        assert_eq!(half(50), []);
        assert_eq!(
            half(51),
            [Advice::ImagesAboveHalf {
                point: "/".into(),
                percent: 51
            }]
        );
    }
}
