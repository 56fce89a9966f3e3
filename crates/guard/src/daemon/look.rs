//! What is asked of the kernel at each look: the disks that a node lives from, and how full they are.
//!
//! The list of mounts is read again only when the kernel says that it changed; how full a disk is costs one call. Nothing is
//! held open on a disk, so that the guard keeps nobody from unmounting it. Either may wait for a disk that does not answer, so
//! both are values that a thread of their own can hold: [`Eyes`] finds the disks, and a [`Question`] asks one of them.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::filesystem::{ReadOnly, Space};
use crate::mounts::{Device, Mounts};
use crate::survey::{self, Named, SurveyError, Unwatched};

const MOUNTINFO: &str = "/proc/self/mountinfo";
/// Disks that are watched, at most: each keeps 8 KiB of history for its bytes, its inodes, and
/// each owner that is followed. A node has a handful.
pub const DISKS_MAX: usize = 32;
/// What the disks of paths that a person named are called, in the order of the paths: fixed, so that they may be labels of metrics.
pub const NAMED: [&str; DISKS_MAX] = [
    "named-1", "named-2", "named-3", "named-4", "named-5", "named-6", "named-7", "named-8",
    "named-9", "named-10", "named-11", "named-12", "named-13", "named-14", "named-15", "named-16",
    "named-17", "named-18", "named-19", "named-20", "named-21", "named-22", "named-23", "named-24",
    "named-25", "named-26", "named-27", "named-28", "named-29", "named-30", "named-31", "named-32",
];

/// One disk at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Where it is seen on the node. What is remembered of a disk is remembered by this.
    pub point: PathBuf,
    /// What it is called, out of a fixed list, and no other disk: the first directory of a node that it holds; else one of
    /// [`NAMED`], by the first path that lies on it. None where there are more paths than names.
    pub name: Option<&'static str>,
    /// What tells it from others.
    pub device: Device,
    /// Its type, as the kernel calls it.
    pub fstype: String,
    /// How full it is.
    pub space: Space,
}

/// Where to look.
#[derive(Debug)]
pub struct Eyes {
    root: PathBuf,
    /// Paths on the node that a person named; none means all that a node lives from.
    named: Vec<Named>,
    /// One that is watched besides, where it is on a disk.
    besides: Option<Named>,
    mountinfo: File,
    disks: Vec<survey::Held>,
    /// Disks beyond [`DISKS_MAX`].
    left_out: usize,
    is_fresh: bool,
}

/// One disk that is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Where it is asked.
    pub path: PathBuf,
    /// Where it is seen on the node.
    pub point: PathBuf,
    /// As in [`Reading`].
    pub name: Option<&'static str>,
    /// What tells it from others.
    pub device: Device,
    /// Its type.
    pub fstype: String,
}

/// The disks of a node, as they are to be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Questions {
    /// One for each.
    pub disks: Vec<Question>,
    /// Disks that are not watched: there are too many.
    pub left_out: usize,
}

/// A disk that was asked and has not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silent {
    /// Where it is seen on the node.
    pub point: PathBuf,
    /// For how long by now.
    pub lasts: Duration,
}

/// What one look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// Disks that answered.
    pub readings: Vec<Reading>,
    /// Disks that did not, yet.
    pub silent: Vec<Silent>,
    /// Something is being written on the disk of `/var/lib`, for so long by now.
    pub writing: Option<Duration>,
    /// Disks that are not watched: there are too many.
    pub left_out: usize,
}

// === impl Question ===

impl Question {
    /// How full the disk is now; none when it is gone. Waits for it, for as long as it takes.
    pub fn ask(&self) -> Option<Reading> {
        let stat = rustix::fs::statvfs(&self.path).ok()?;
        Some(Reading {
            point: self.point.clone(),
            name: self.name,
            device: self.device,
            fstype: self.fstype.clone(),
            space: Space::of(&stat),
        })
    }
}

// === impl Eyes ===

impl Eyes {
    /// Looks where the disks are.
    ///
    /// # Errors
    /// There is no proc, a path that was named is on no disk, or there is no disk at all.
    pub(super) fn open(root: &Path, named: &[PathBuf]) -> Result<Self, SurveyError> {
        let labels = NAMED.into_iter().map(Some).chain(std::iter::repeat(None));
        let mut eyes = Self {
            root: root.to_owned(),
            named: labels.zip(named.iter().cloned()).collect(),
            besides: None,
            mountinfo: File::open(MOUNTINFO).map_err(SurveyError::ReadMounts)?,
            disks: Vec::new(),
            left_out: 0,
            is_fresh: false,
        };
        eyes.find(Unwatched::Refused)?;
        Ok(eyes)
    }

    /// The disk of this directory of the node is watched too, whatever a person named.
    pub(super) fn watch_besides(&mut self, place: &'static str) {
        if !self.named.is_empty() {
            let path = self.root.join(place.trim_start_matches('/'));
            self.besides = Some((Some(place), path));
            self.is_fresh = false;
        }
    }

    /// The disks as they are mounted now. Where something is mounted or unmounted, paths are looked up, which may wait for a
    /// disk.
    ///
    /// # Errors
    /// The mounts cannot be read, or there is no disk any more.
    pub fn disks(&mut self) -> Result<Questions, SurveyError> {
        if !self.is_fresh || self.has_changed() {
            self.find(Unwatched::LeftOut)?;
        }
        let disks = self.disks.iter().map(|(name, disk)| Question {
            path: disk.point.clone(),
            point: on_node(&self.root, &disk.point),
            name: *name,
            device: disk.device,
            fstype: disk.fstype.clone(),
        });
        Ok(Questions {
            disks: disks.collect(),
            left_out: self.left_out,
        })
    }

    /// The kernel marks the file when something is mounted or unmounted.
    fn has_changed(&self) -> bool {
        let mut asked = [PollFd::new(&self.mountinfo, PollFlags::PRI)];
        let now = Timespec::default();
        let said = rustix::event::poll(&mut asked, Some(&now));
        // What cannot be told is taken for a change.
        said.map_or(true, |count| count > 0)
    }

    fn find(&mut self, unwatched: Unwatched) -> Result<(), SurveyError> {
        // Until it is known where they are now: an error must not leave the disks of before.
        self.is_fresh = false;
        let mut text = Vec::new();
        self.mountinfo
            .rewind()
            .and_then(|()| self.mountinfo.read_to_end(&mut text))
            .map_err(SurveyError::ReadMounts)?;
        let mounts = Mounts::parse(&text).map_err(SurveyError::ParseMounts)?;
        let mut disks = survey::disks(&self.root, mounts, &self.named, unwatched)?;
        if let Some(besides) = &self.besides {
            let text = Mounts::parse(&text).map_err(SurveyError::ParseMounts)?;
            let path = std::slice::from_ref(besides);
            let more = survey::disks(&self.root, text, path, Unwatched::LeftOut)?;
            let is_new = |disk: &Device| disks.iter().all(|(_, known)| known.device != *disk);
            let more: Vec<_> = more
                .into_iter()
                .filter(|(_, disk)| is_new(&disk.device))
                .collect();
            disks.extend(more);
        }
        disks.retain(|(_, disk)| match disk.read_only {
            ReadOnly::Filesystem | ReadOnly::Withdrawn => false,
            ReadOnly::Mount | ReadOnly::No => true,
        });
        self.left_out = disks.len().saturating_sub(DISKS_MAX);
        disks.truncate(DISKS_MAX);
        if disks.is_empty() {
            return Err(SurveyError::NoDisk);
        }
        self.disks = disks;
        self.is_fresh = true;
        Ok(())
    }
}

/// A path as the node calls it.
pub(super) fn on_node(root: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix(root) {
        Ok(below) => Path::new("/").join(below),
        Err(_) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_called_as_the_node_calls_it() {
        let on = |path: &str| on_node(Path::new("/host"), Path::new(path));
        assert_eq!(on("/host"), Path::new("/"));
        assert_eq!(
            on("/host/var/lib/containerd"),
            Path::new("/var/lib/containerd")
        );
        assert_eq!(on("/elsewhere"), Path::new("/elsewhere"));
        assert_eq!(
            on_node(Path::new("/"), Path::new("/data")),
            Path::new("/data")
        );
    }
}
