//! What a person allows: which kinds of things may go, what is to be kept, and when it is enough.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::journal::Mode;

/// A kind of thing that may go, the least harmful first: this is the order in which they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reclaimer {
    /// Packages that apt downloaded, and its caches.
    Apt,
    /// What pulls fetched that were given up.
    Pulls,
    /// Images that nothing uses, and that a registry has.
    Images,
    /// Containers that have ended, but for the last of each name.
    Containers,
    /// Revisions of snaps that are kept only to go back to.
    Snaps,
    /// Logs of containers that kubelet has rotated.
    PodLogs,
    /// Journals that are complete.
    Journal,
    /// Crash dumps.
    Coredumps,
    /// Images that nothing uses, and of which a name was never pulled: no registry is known to have it.
    LocalImages,
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
    /// No image and no container goes while one was pulled or made, or a pod begun, within this time.
    pub quiet: Duration,
    /// Files and directories on the node that stay.
    pub keep: Vec<PathBuf>,
    /// Images that stay: their names, or how these begin.
    pub keep_images: Vec<String>,
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
    pub const ALL: [Self; 9] = [
        Self::Apt,
        Self::Pulls,
        Self::Images,
        Self::Containers,
        Self::Snaps,
        Self::PodLogs,
        Self::Journal,
        Self::Coredumps,
        Self::LocalImages,
    ];

    /// The kinds that are files. What a runtime has kubelet collects too, as long as it runs, and must not be disturbed at it.
    pub const FILES: [Self; 5] = [
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
            Self::Pulls => "pulls",
            Self::Images => "images",
            Self::Containers => "containers",
            Self::Snaps => "snaps",
            Self::PodLogs => "pod-logs",
            Self::Journal => "journal",
            Self::Coredumps => "coredumps",
            Self::LocalImages => "local-images",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What is lost.
    pub const fn harm(self) -> Harm {
        match self {
            Self::Apt | Self::Pulls | Self::Images => Harm::Regenerable,
            Self::Containers
            | Self::Snaps
            | Self::PodLogs
            | Self::Journal
            | Self::Coredumps
            | Self::LocalImages => Harm::Lossy,
        }
    }

    /// How it is had again, or what exactly is lost.
    pub const fn price(self) -> &'static str {
        match self {
            Self::Apt => "apt downloads a package again when it is needed",
            Self::Pulls => "the next pull of the image begins anew",
            Self::Images => {
                "the runtime pulls an image again when a pod needs it, as long as its registry answers"
            }
            Self::Containers => {
                "what earlier attempts of a container wrote is gone; the last one stays"
            }
            Self::Snaps => "'snap revert' has nothing to go back to",
            Self::PodLogs => "older lines of containers' logs are gone",
            Self::Journal => "older entries of the journal are gone",
            Self::Coredumps => "evidence of crashes is gone: look at it first",
            Self::LocalImages => {
                "no registry is known to have these images: they must be imported again"
            }
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
            // Their runtime says where.
            Self::Pulls | Self::Images | Self::Containers | Self::LocalImages => &[],
        }
    }

    /// Its owner is asked to let it go; nothing is unlinked.
    pub const fn is_asked_for(self) -> bool {
        match self {
            Self::Snaps | Self::Pulls | Self::Images | Self::Containers | Self::LocalImages => true,
            Self::Apt | Self::PodLogs | Self::Journal | Self::Coredumps => false,
        }
    }

    /// The container runtime has it.
    pub const fn is_of_runtime(self) -> bool {
        match self {
            Self::Pulls | Self::Images | Self::Containers | Self::LocalImages => true,
            Self::Apt | Self::Snaps | Self::PodLogs | Self::Journal | Self::Coredumps => false,
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
    /// A pod that was begun has its containers in less, and what nobody can see of one is over: longer spans are those of
    /// things that show, as a pull does by its lease.
    pub const QUIET: Duration = Duration::from_secs(15);
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
            quiet: Self::QUIET,
            keep: Vec::new(),
            keep_images: Vec::new(),
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
