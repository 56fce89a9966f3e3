//! What each owner has on each disk, for a program that runs all the time: at the lowest priority, at a pace, in little memory.
//!
//! It is the walk of the survey without what only people look at: no tree, no largest files, no open files. A disk that is too
//! large for it, or that could not be read as a whole, has no shares: what is not known is not zero.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::node::{Node, Task};
use super::{Effort, Place, Request, SurveyError};
use crate::mounts::{Device, Mounts};
use crate::owner::Owner;
use crate::walk::{Pace, processor_time};

/// Entries of one walk: at 3 µs each 12 s of a processor, after which the next one is hours away.
const ENTRIES_MAX: u64 = 4_000_000;
/// Directories that wait at once: with their paths about 2 MiB.
const WAITING_MAX: usize = 16 * 1024;
/// The lowest priority of a thread; that of its reads follows.
const NICE: i32 = 19;

/// A disk that is to be walked, whatever of it a person named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// How its caller calls it.
    pub point: PathBuf,
    /// What tells it from others.
    pub device: Device,
}

/// Why it is not known whose bytes a disk has.
#[derive(Debug, Error)]
pub enum NotKnown {
    /// It is mounted nowhere.
    #[error("it is not mounted any more")]
    Gone,
    /// No mount shows its root: what lies outside has no owner.
    #[error("only a part of it is mounted: a subvolume, or a directory of it")]
    Part,
    /// The walk gave up.
    #[error("it has more than {ENTRIES_MAX} files and directories, or too many side by side")]
    Large,
    /// A part of it is hidden from this process.
    #[error("a part of it cannot be read, first {}", .0.display())]
    Unread(PathBuf),
    /// The walk did not begin.
    #[error("it cannot be walked")]
    Walk(#[source] SurveyError),
}

/// What was found on all disks.
#[derive(Debug, Default)]
pub struct Shares {
    /// One for each disk that was walked as a whole.
    pub disks: Vec<Share>,
    /// Disks of which nothing is known, and why.
    pub unknown: Vec<(PathBuf, NotKnown)>,
    /// Processor time that it took.
    pub cost: Duration,
}

/// One disk.
#[derive(Debug, Clone)]
pub struct Share {
    /// As in [`Watched`].
    pub point: PathBuf,
    /// What each owner takes in bytes, the largest first.
    pub owners: Vec<(Owner, u64)>,
}

/// Walks these disks of the node with this root, each by itself, on a thread of its own. Blocks for minutes.
///
/// # Errors
/// The mounts cannot be read, or the root cannot be opened.
pub fn shares(root: &Path, disks: &[Watched]) -> Result<Shares, SurveyError> {
    let text = std::fs::read("/proc/self/mountinfo").map_err(SurveyError::ReadMounts)?;
    let mounts = Mounts::parse(&text).map_err(SurveyError::ParseMounts)?;
    let request = Request {
        root: root.to_owned(),
        paths: Vec::new(),
        effort: Effort::Whole,
        top: 0,
        threads: NonZeroUsize::MIN,
    };
    let node = Node::look(&request, mounts)?;
    std::thread::scope(|scope| {
        // Its own thread, for a priority that was lowered cannot be raised again.
        let walking = scope.spawn(|| walk(&node, disks));
        let walked = walking.join();
        Ok(walked.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn walk(node: &Node<'_>, disks: &[Watched]) -> Shares {
    // At the usual priority it would only be less polite.
    rustix::process::setpriority_process(None, NICE).unwrap_or(());
    let begun = processor_time();
    let mut shares = Shares::default();
    for disk in disks {
        let point = disk.point.clone();
        match one(node, node.whole(disk.device).as_ref()) {
            Ok(owners) => shares.disks.push(Share { point, owners }),
            Err(why) => shares.unknown.push((point, why)),
        }
    }
    shares.cost = processor_time().saturating_sub(begun);
    shares
}

/// What each owner takes of one disk.
fn one(node: &Node<'_>, task: Option<&Task<'_>>) -> Result<Vec<(Owner, u64)>, NotKnown> {
    let task = task.ok_or(NotKnown::Gone)?;
    if !task.is_whole() {
        return Err(NotKnown::Part);
    }
    let place = node.stroll(task, &Pace::new(ENTRIES_MAX, WAITING_MAX));
    owners(place.map_err(NotKnown::Walk)?)
}

/// Every owner has all of its bytes, or none is known.
fn owners(place: Place) -> Result<Vec<(Owner, u64)>, NotKnown> {
    if place.is_cut {
        return Err(NotKnown::Large);
    }
    let (first, count) = place.unread;
    if count > 0 {
        let path = first.into_iter().next().map(|fault| fault.path);
        return Err(NotKnown::Unread(path.unwrap_or_default()));
    }
    let owners = place.owners.iter();
    Ok(owners
        .map(|(owner, tally)| (*owner, tally.blocks.bytes()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            root: "/".into(),
            paths: Vec::new(),
            effort: Effort::Whole,
            top: 0,
            threads: NonZeroUsize::MIN,
        }
    }

    // Unknown is not zero, and is said with its reason: a disk that went, and one of which only a subvolume is mounted.
    #[test]
    fn what_cannot_be_walked_as_a_whole_has_no_shares() {
        let table = "\
1 0 8:1 / / rw - ext4 /dev/a rw
2 1 8:2 /@data /data rw - btrfs /dev/b rw
";
        let request = request();
        let mounts = Mounts::parse(table.as_bytes()).unwrap();
        let node = Node::look(&request, mounts).unwrap();
        let watched = |point: &str, minor| Watched {
            point: point.into(),
            device: Device { major: 8, minor },
        };
        let shares = walk(&node, &[watched("/gone", 3), watched("/data", 2)]);
        assert!(shares.disks.is_empty(), "{shares:?}");
        let [(gone, NotKnown::Gone), (part, NotKnown::Part)] = &shares.unknown[..] else {
            panic!("{shares:?}");
        };
        assert_eq!(
            (gone.as_path(), part.as_path()),
            (Path::new("/gone"), Path::new("/data"))
        );
    }
}
