//! What is asked of the kernel at each look: the disks that a node lives from, and how full they are.
//!
//! The list of mounts is read again only when the kernel says that it changed; how full a disk is costs one call. Nothing is
//! held open on a disk, so that the guard keeps nobody from unmounting it.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::filesystem::{ReadOnly, Space};
use crate::mounts::{Device, Mounts};
use crate::survey::{self, SurveyError, Unwatched};

const MOUNTINFO: &str = "/proc/self/mountinfo";
/// Disks that are watched, at most: each keeps about 12 KiB of history. A node has a handful.
const DISKS_MAX: usize = 32;

/// One disk at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Where it is seen on the node. What is remembered of a disk is remembered by this.
    pub point: PathBuf,
    /// The first directory of a node that it holds, out of a fixed list; none for a disk that only a person named.
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
pub(super) struct Eyes {
    root: PathBuf,
    /// Paths on the node that a person named; none means all that a node lives from.
    named: Vec<PathBuf>,
    mountinfo: File,
    disks: Vec<survey::Held>,
    is_fresh: bool,
}

// === impl Eyes ===

impl Eyes {
    /// Looks where the disks are.
    ///
    /// # Errors
    /// There is no proc, a path that was named is on no disk, or there is no disk at all.
    pub(super) fn open(root: &Path, named: &[PathBuf]) -> Result<Self, SurveyError> {
        let mut eyes = Self {
            root: root.to_owned(),
            named: named.to_vec(),
            mountinfo: File::open(MOUNTINFO).map_err(SurveyError::ReadMounts)?,
            disks: Vec::new(),
            is_fresh: false,
        };
        eyes.find(Unwatched::Refused)?;
        Ok(eyes)
    }

    /// How full each disk is now. One that does not answer is left out: no data is not zero.
    ///
    /// # Errors
    /// The mounts cannot be read, or there is no disk any more.
    pub(super) fn look(&mut self) -> Result<Vec<Reading>, SurveyError> {
        if !self.is_fresh || self.has_changed() {
            self.find(Unwatched::LeftOut)?;
        }
        let readings = self.disks.iter().filter_map(|(name, disk)| {
            let stat = rustix::fs::statvfs(&disk.point).ok()?;
            Some(Reading {
                point: on_node(&self.root, &disk.point),
                name: *name,
                device: disk.device,
                fstype: disk.fstype.clone(),
                space: Space::of(&stat),
            })
        });
        Ok(readings.collect())
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
        disks.retain(|(_, disk)| match disk.read_only {
            ReadOnly::Filesystem | ReadOnly::Withdrawn => false,
            ReadOnly::Mount | ReadOnly::No => true,
        });
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
