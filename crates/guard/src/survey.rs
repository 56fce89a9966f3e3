//! The survey: which filesystems there are, what fills those that matter, and what that means.
//!
//! Without paths it walks every disk that holds something a node lives from, each from where most of it is seen. With
//! paths it walks those. Space is asked after the walk, so that the two describe nearly the same moment.

mod glance;
mod node;
mod shares;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

use crate::advice::Advice;
use crate::blocks::Tally;
use crate::btrfs;
use crate::filesystem::{Filesystem, Kind};
use crate::gap::{self, Gap};
use crate::kubelet::Thresholds;
use crate::loops;
use crate::mounts::{Device, Mounts, MountsError};
use crate::open_files::{self, Deleted, OpenFiles};
use crate::owner::Owner;
use crate::walk::LargeFile;
use crate::walk::Watch;
use crate::walk::faults::Fault;
use crate::walk::tree::{NodeId, Tree};
use crate::xfs;
use node::Node;

pub use glance::{Glance, glance};
pub use shares::{NotKnown, Share, Shares, Watched, shares};

const PROC: &str = "/proc";
const SYSFS: &str = "/sys";

/// How much is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Owners, largest files, open files.
    Whole,
    /// Sums only.
    Total,
}

/// What is to be surveyed.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where the root of the node is seen: `/`, or `/host` in a pod.
    pub root: PathBuf,
    /// Directories to walk; none means the disks that the node lives from.
    pub paths: Vec<PathBuf>,
    /// How much.
    pub effort: Effort,
    /// How many of the largest files and the fullest directories are kept.
    pub top: usize,
    /// Workers of a walk.
    pub threads: NonZeroUsize,
}

/// What was found.
#[derive(Debug)]
pub struct Survey {
    /// Every filesystem for storage.
    pub filesystems: Vec<Filesystem>,
    /// What was walked.
    pub places: Vec<Place>,
    /// When kubelet kills pods for space.
    pub thresholds: Thresholds,
    /// What to know, the most urgent first.
    pub advice: Vec<Advice>,
    /// Open files without a name, of all filesystems; none when it was not looked for them, or there is no proc.
    pub open: Option<OpenFiles>,
}

/// One filesystem, or a part of it, as it was walked.
#[derive(Debug)]
pub struct Place {
    /// Where the walk began.
    pub paths: Vec<PathBuf>,
    /// Which of the filesystems.
    pub filesystem: Filesystem,
    /// All of the filesystem was walked.
    pub is_whole: bool,
    /// Directories and what they take, also those that a mount hides.
    pub tree: Tree,
    /// What can be seen.
    pub visible: Tally,
    /// By owner, the largest first; without what is hidden.
    pub owners: Vec<(Owner, Tally)>,
    /// What mounts hide.
    pub under: Under,
    /// The largest files.
    pub largest: Vec<LargeFile>,
    /// Directories with the most entries of their own.
    pub crowded: Vec<NodeId>,
    /// Open files of this filesystem that have no name.
    pub deleted: Vec<Deleted>,
    /// Every byte of the filesystem, when all of it was walked.
    pub gap: Option<Gap>,
    /// Roots of subvolumes inside.
    pub subvolumes: Vec<PathBuf>,
    /// What could not be read: the first, and how many there are.
    pub unread: (Vec<Fault>, u64),
    /// Entries that were gone when they were looked at.
    pub vanished: u64,
    /// There were too many files with several names to say for each at which one it is counted.
    pub links_by_chance: bool,
    /// The walk gave up.
    is_cut: bool,
    /// Devices that its files show; several where there are subvolumes.
    devices: Vec<Device>,
}

/// What is known of the ground under mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Under {
    /// It was walked.
    Seen(Vec<Hidden>),
    /// It was not, for this reason; these are the mounts.
    NotSeen(Errno, Vec<PathBuf>),
}

/// What one mount hides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// Where it lies.
    pub point: PathBuf,
    /// The type of what is mounted there.
    pub fstype: String,
    /// And its source.
    pub source: OsString,
    /// What the directory under it takes, itself with it.
    pub tally: Tally,
}

/// Why nothing could be surveyed.
#[derive(Debug, Error)]
pub enum SurveyError {
    /// The mounts of this process cannot be read.
    #[error("cannot read /proc/self/mountinfo")]
    ReadMounts(#[source] std::io::Error),
    /// They cannot be understood.
    #[error("cannot understand /proc/self/mountinfo")]
    ParseMounts(#[source] MountsError),
    /// A path that was named cannot be found.
    #[error("cannot find {}", .path.display())]
    Find {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A directory cannot be opened.
    #[error("cannot open {}", .path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The type of its filesystem is none that is walked.
    #[error("{} lies on a filesystem of type {fstype}, which is not walked", .path.display())]
    NotWalked {
        /// The path.
        path: PathBuf,
        /// The type.
        fstype: String,
    },
    /// It is on no disk that is watched.
    #[error("{} lies on a filesystem of type {fstype}, which is no disk", .path.display())]
    NotDisk {
        /// The path.
        path: PathBuf,
        /// The type.
        fstype: String,
    },
    /// There is nothing to watch.
    #[error("there is no disk to watch")]
    NoDisk,
    /// A walk cannot begin.
    #[error("cannot walk {}", .path.display())]
    Walk {
        /// Where.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The kernel cannot tell mounts from directories.
    #[error("the kernel is too old: Linux 5.8 or later is needed")]
    Kernel,
}

/// Surveys. `watch` tells meanwhile how far it is.
///
/// # Errors
/// The mounts cannot be read, or a path that was named cannot be walked. What cannot be read below a path is no error:
/// it is in the survey.
pub fn survey(request: &Request, watch: &Watch) -> Result<Survey, SurveyError> {
    let text = std::fs::read("/proc/self/mountinfo").map_err(SurveyError::ReadMounts)?;
    let mounts = Mounts::parse(&text).map_err(SurveyError::ParseMounts)?;
    let node = Node::look(request, mounts)?;
    let tasks = if request.paths.is_empty() {
        node.disks()
    } else {
        node.named()?
    };
    let mut places = Vec::new();
    for task in &tasks {
        places.push(node.walk(task, watch)?);
    }
    let open = match request.effort {
        Effort::Whole => {
            let mut open = open_files::look(Path::new(PROC), &node.mounts).ok();
            if let Some(open) = &mut open {
                loops::add(Path::new(SYSFS), &node.mounts, open);
            }
            open
        }
        Effort::Total => None,
    };
    for place in &mut places {
        place.explain(open.as_ref());
    }
    let thresholds = node.thresholds();
    let filesystems = node.filesystems();
    let advice = node.advice(&filesystems, &thresholds, &places);
    Ok(Survey {
        filesystems,
        places,
        thresholds,
        advice,
        open,
    })
}

/// A path that a person named, and what its disk is called where it holds no fixed directory of a node.
pub(crate) type Named = (Option<&'static str>, PathBuf);

/// A disk, and the first of the fixed directories of a node that it holds; else what the first path is called that named it.
pub(crate) type Held = (Option<&'static str>, Filesystem);

/// What becomes of a path that a person named and that is on no disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unwatched {
    /// It is an error.
    Refused,
    /// The others are watched without it.
    LeftOut,
}

/// The disks that hold something a node lives from, or those that the named paths lie on: how full they are, and nothing
/// walked.
///
/// # Errors
/// The root or a named path cannot be opened.
pub(crate) fn disks(
    root: &Path,
    mounts: Mounts,
    named: &[Named],
    unwatched: Unwatched,
) -> Result<Vec<Held>, SurveyError> {
    let request = Request {
        root: root.to_owned(),
        paths: named.iter().map(|(_, path)| path.clone()).collect(),
        effort: Effort::Total,
        top: 0,
        threads: NonZeroUsize::MIN,
    };
    let node = Node::look(&request, mounts)?;
    let mut disks = if named.is_empty() {
        let mut disks = node.filesystems();
        disks.retain(|disk| !disk.holds.is_empty());
        disks.into_iter().map(|disk| (None, disk)).collect()
    } else {
        let mut disks = Vec::new();
        for (name, path) in named {
            match (node.disk_of(path), unwatched) {
                (Ok(found), Unwatched::Refused | Unwatched::LeftOut) => {
                    disks.extend(found.into_iter().map(|disk| (*name, disk)));
                }
                (Err(error), Unwatched::Refused) => return Err(error),
                (Err(_), Unwatched::LeftOut) => {}
            }
        }
        disks
    };
    disks.retain(|(_, disk)| disk.kind == Kind::Disk);
    let mut seen = Vec::new();
    disks.retain(|(_, disk)| {
        let is_new = !seen.contains(&disk.device);
        seen.push(disk.device);
        is_new
    });
    let disks = disks.into_iter();
    Ok(disks
        .map(|(name, disk)| (node.name_of(disk.device).or(name), disk))
        .collect())
}

// === impl Place ===

impl Place {
    /// Finds what explains the rest of the used space.
    fn explain(&mut self, open: Option<&OpenFiles>) {
        let is_here = |file: &&Deleted| {
            file.device == self.filesystem.device || self.devices.contains(&file.device)
        };
        if let Some(open) = open {
            self.deleted = open.deleted.iter().filter(is_here).cloned().collect();
        }
        if !self.is_whole {
            return;
        }
        self.filesystem.ask();
        let Some(space) = self.filesystem.space else {
            return;
        };
        let btrfs = match self.filesystem.fstype.as_str() {
            "btrfs" => btrfs::usage(Path::new(SYSFS), Path::new(&self.filesystem.source)),
            _ => None,
        };
        let xfs = match self.filesystem.fstype.as_str() {
            "xfs" => xfs::Geometry::of(Path::new(&self.filesystem.source), self.filesystem.device),
            _ => None,
        };
        let books = gap::Books {
            btrfs,
            xfs,
            device: gap::device_bytes(Path::new(SYSFS), self.filesystem.device),
        };
        let hidden = match &self.under {
            Under::Seen(hidden) => Some(hidden.iter().map(|one| one.tally.bytes()).sum()),
            // Nothing can be hidden where nothing is mounted.
            Under::NotSeen(_, points) if points.is_empty() => Some(0),
            Under::NotSeen(..) => None,
        };
        let files = self.visible.bytes();
        let held = |by_loop: bool| -> u64 {
            let files = self.deleted.iter();
            let files = files.filter(|file| file.is_behind_a_loop() == by_loop);
            files.map(|file| file.blocks.bytes()).sum()
        };
        // A file behind a loop device may have holes, and takes no more than what nothing else explains.
        let seen = files
            .saturating_add(hidden.unwrap_or(0))
            .saturating_add(held(false));
        let deleted = held(false) + held(true).min(space.used().saturating_sub(seen));
        let counted = files
            .saturating_add(hidden.unwrap_or(0))
            .saturating_add(deleted);
        self.gap = Some(Gap {
            used: space.used(),
            files,
            hidden,
            deleted,
            own: gap::own(&self.filesystem.fstype, &space, books),
            shared: btrfs.map_or(0, |usage| counted.saturating_sub(usage.data)),
        });
    }

    /// What an owner takes.
    pub fn of(&self, owner: Owner) -> Tally {
        let found = self.owners.iter().find(|(own, _)| *own == owner);
        found.map(|(_, tally)| *tally).unwrap_or_default()
    }
}
