//! What each owner has on each disk, for a program that runs all the time: at the lowest priority, at a pace, in little memory.
//!
//! It is the walk of the survey without what only people look at: no tree, no largest files, no open files. A disk that is too
//! large for it, or that could not be read as a whole, has no shares: what is not known is not zero.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::node::Node;
use super::{Effort, Place, Request, SurveyError};
use crate::mounts::Mounts;
use crate::owner::Owner;
use crate::walk::{Pace, processor_time};

/// Entries of one walk: at 3 µs each 12 s of a processor, after which the next one is hours away.
const ENTRIES_MAX: u64 = 4_000_000;
/// Directories that wait at once: with their paths about 2 MiB.
const WAITING_MAX: usize = 16 * 1024;
/// The lowest priority of a thread; that of its reads follows.
const NICE: i32 = 19;

/// What was found on all disks.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    /// One for each disk that was walked as a whole.
    pub disks: Vec<Share>,
    /// Disks of which nothing is known: too large, or not to be read.
    pub unknown: Vec<PathBuf>,
    /// Processor time that it took.
    pub cost: Duration,
}

/// One disk.
#[derive(Debug, Clone)]
pub struct Share {
    /// Where it is mounted.
    pub point: PathBuf,
    /// What each owner takes in bytes, the largest first.
    pub owners: Vec<(Owner, u64)>,
}

/// Walks the disks that a node lives from, or those that the paths lie on, on a thread of its own. Blocks for minutes.
///
/// # Errors
/// The mounts cannot be read, or a path that was named cannot be walked.
pub fn shares(root: &Path, paths: &[PathBuf]) -> Result<Shares, SurveyError> {
    shares_within(root, paths, ENTRIES_MAX)
}

fn shares_within(root: &Path, paths: &[PathBuf], most: u64) -> Result<Shares, SurveyError> {
    let text = std::fs::read("/proc/self/mountinfo").map_err(SurveyError::ReadMounts)?;
    let mounts = Mounts::parse(&text).map_err(SurveyError::ParseMounts)?;
    let request = Request {
        root: root.to_owned(),
        paths: paths.to_vec(),
        effort: Effort::Whole,
        top: 0,
        threads: NonZeroUsize::MIN,
    };
    let node = Node::look(&request, mounts)?;
    std::thread::scope(|scope| {
        // Its own thread, for a priority that was lowered cannot be raised again.
        let walking = scope.spawn(|| walk(&node, &request, most));
        walking
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn walk(node: &Node<'_>, request: &Request, most: u64) -> Result<Shares, SurveyError> {
    // At the usual priority it would only be less polite.
    rustix::process::setpriority_process(None, NICE).unwrap_or(());
    let begun = processor_time();
    let tasks = if request.paths.is_empty() {
        node.disks()
    } else {
        node.named()?
    };
    let mut shares = Shares::default();
    for task in &tasks {
        let place = node.stroll(task, &Pace::new(most, WAITING_MAX))?;
        if place.is_known() {
            let owners = place.owners.iter();
            shares.disks.push(Share {
                owners: owners
                    .map(|(owner, tally)| (*owner, tally.blocks.bytes()))
                    .collect(),
                point: place.filesystem.point,
            });
        } else {
            shares.unknown.push(place.filesystem.point);
        }
    }
    shares.cost = processor_time().saturating_sub(begun);
    Ok(shares)
}

// === impl Place ===

impl Place {
    /// Every owner of the whole filesystem has all of its bytes.
    fn is_known(&self) -> bool {
        let (_, unread) = self.unread;
        self.is_whole && !self.is_cut && unread == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Unknown is not zero: a part of a disk has no shares, and neither has one that is too large.
    #[test]
    fn what_was_not_walked_as_a_whole_has_no_shares() {
        let directory = tempfile::tempdir().unwrap();
        let part = directory.path().canonicalize().unwrap();
        std::fs::write(part.join("file"), "x").unwrap();
        let shares = shares_within(Path::new("/"), &[part], u64::MAX).unwrap();
        assert!(shares.disks.is_empty(), "{shares:?}");
        assert_eq!(shares.unknown.len(), 1);
    }
}
