//! What a person allows: which kinds of things may go, what is to be kept, and when it is enough.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::journal::Mode;

/// A kind of thing that may go, the least harmful first: this is the order in which they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reclaimer {
    /// Packages that apt downloaded, and its caches.
    Apt,
    /// Revisions of snaps that are kept only to go back to.
    Snaps,
    /// Logs of containers that kubelet has rotated.
    PodLogs,
    /// Journals that are complete.
    Journal,
    /// Crash dumps.
    Coredumps,
}

/// What is lost with a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// It can be made or downloaded again.
    Regenerable,
    /// It is gone for good.
    Lossy,
}

/// Whether what is gone for good may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// Only what can be had again.
    Regenerable,
    /// Also what cannot.
    Lossy,
}

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Where the root of the node is seen: `/`, or `/host` in a pod.
    pub root: PathBuf,
    /// Kinds that are asked for; none means all.
    pub only: Vec<Reclaimer>,
    /// What may be lost.
    pub consent: Consent,
    /// A disk is clean enough when df says that so many percent or less are used. 0 means never.
    pub target_percent: u8,
    /// At most so many bytes go in one run. None: no such limit.
    pub bytes_max: Option<u64>,
    /// What was written or renamed within this time stays.
    pub grace: Duration,
    /// Files and directories on the node that stay.
    pub keep: Vec<PathBuf>,
    /// By which rules journals go.
    pub journal_mode: Mode,
    /// Entries of this time stay.
    pub journal_keep: Option<Duration>,
    /// Archived journals may take so many bytes; compat mode only.
    pub journal_bytes_max: Option<u64>,
    /// There may be so many files of journals; compat mode only.
    pub journal_files_max: Option<u64>,
    /// How long one step may take.
    pub deadline: Duration,
}

// === impl Reclaimer ===

impl Reclaimer {
    /// Every kind, the least harmful first.
    pub const ALL: [Self; 5] = [
        Self::Apt,
        Self::Snaps,
        Self::PodLogs,
        Self::Journal,
        Self::Coredumps,
    ];

    /// Its name on the command line and in plans.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Apt => "apt",
            Self::Snaps => "snaps",
            Self::PodLogs => "pod-logs",
            Self::Journal => "journal",
            Self::Coredumps => "coredumps",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What is lost.
    pub const fn harm(self) -> Harm {
        match self {
            Self::Apt => Harm::Regenerable,
            Self::Snaps | Self::PodLogs | Self::Journal | Self::Coredumps => Harm::Lossy,
        }
    }

    /// How it is had again, or what exactly is lost.
    pub const fn price(self) -> &'static str {
        match self {
            Self::Apt => "apt downloads a package again when it is needed",
            Self::Snaps => "'snap revert' has nothing to go back to",
            Self::PodLogs => "older lines of containers' logs are gone",
            Self::Journal => "older entries of the journal are gone",
            Self::Coredumps => "evidence of crashes is gone: look at it first",
        }
    }

    /// The directories in which it looks.
    pub(crate) const fn places(self) -> &'static [&'static str] {
        match self {
            Self::Apt => &["/var/cache/apt"],
            Self::Snaps => &["/var/lib/snapd/snaps"],
            Self::PodLogs => &["/var/log/pods"],
            Self::Journal => &["/var/log/journal"],
            Self::Coredumps => &["/var/lib/systemd/coredump", "/var/crash"],
        }
    }

    /// Its owner is asked to let it go; nothing is unlinked.
    pub const fn is_asked_for(self) -> bool {
        match self {
            Self::Snaps => true,
            Self::Apt | Self::PodLogs | Self::Journal | Self::Coredumps => false,
        }
    }
}

// === impl Harm ===

impl Harm {
    /// One word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Regenerable => "regenerable",
            Self::Lossy => "lossy",
        }
    }
}

// === impl Policy ===

impl Policy {
    /// Entries of two days stay, as in the founding document's `journalctl --vacuum-time=2d`.
    pub const JOURNAL_KEEP: Duration = Duration::from_hours(48);
    /// Longer than a download, a rotation or the writing of a dump takes.
    pub const GRACE: Duration = Duration::from_hours(1);
    /// Recovered means this or less: below kubelet's default of 85 % at which it would go on collecting.
    pub const TARGET_PERCENT: u8 = 80;
    /// Each removal waits until its record is on the disk: 2,000 of them at 50 ms take 100 s. A disk on which it takes three
    /// times that is ill, and so is a snapd that takes so long for one revision.
    pub const DEADLINE: Duration = Duration::from_mins(5);

    /// The defaults, for a node whose root is seen there.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            only: Vec::new(),
            consent: Consent::Regenerable,
            target_percent: Self::TARGET_PERCENT,
            bytes_max: None,
            grace: Self::GRACE,
            keep: Vec::new(),
            journal_mode: Mode::Strict,
            journal_keep: Some(Self::JOURNAL_KEEP),
            journal_bytes_max: None,
            journal_files_max: None,
            deadline: Self::DEADLINE,
        }
    }

    /// This kind was asked for.
    pub(crate) fn asks_for(&self, kind: Reclaimer) -> bool {
        self.only.is_empty() || self.only.contains(&kind)
    }

    /// What this kind loses may be lost.
    pub(crate) fn consents_to(&self, kind: Reclaimer) -> bool {
        match (self.consent, kind.harm()) {
            (Consent::Lossy, Harm::Lossy | Harm::Regenerable)
            | (Consent::Regenerable, Harm::Regenerable) => true,
            (Consent::Regenerable, Harm::Lossy) => false,
        }
    }

    /// A path of the node that stays, whatever the rules say.
    pub(crate) fn keeps(&self, path: &Path) -> bool {
        self.keep.iter().any(|kept| path.starts_with(kept))
    }
}
