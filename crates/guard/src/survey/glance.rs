//! The filesystems of a node without a walk: milliseconds, for whoever asks what is full and not what fills it.

use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};

use rustix::fd::OwnedFd;

use super::node::{Node, resolve};
use super::{Effort, Request, SurveyError};
use crate::advice::Advice;
use crate::filesystem::{Filesystem, Kind};
use crate::mounts::Mounts;

/// What a glance shows.
#[derive(Debug)]
pub struct Glance {
    /// Every filesystem for storage.
    pub filesystems: Vec<Filesystem>,
    /// What to know, the most urgent first.
    pub advice: Vec<Advice>,
    mounts: Mounts,
    root: OwnedFd,
    guarded: Vec<(&'static str, PathBuf)>,
}

/// Looks at the filesystems of the node whose root directory is seen there.
///
/// # Errors
/// The mounts cannot be read, or the root cannot be opened.
pub fn glance(root: &Path) -> Result<Glance, SurveyError> {
    let text = std::fs::read("/proc/self/mountinfo").map_err(SurveyError::ReadMounts)?;
    let mounts = Mounts::parse(&text).map_err(SurveyError::ParseMounts)?;
    let request = Request {
        root: root.to_owned(),
        paths: Vec::new(),
        effort: Effort::Total,
        top: 0,
        threads: NonZeroUsize::MIN,
    };
    let node = Node::look(&request, mounts)?;
    let filesystems = node.filesystems();
    let advice = node.advice(&filesystems, &node.thresholds(), &[]);
    Ok(Glance {
        filesystems,
        advice,
        mounts: node.mounts,
        root: node.root,
        guarded: node.guarded,
    })
}

// === impl Glance ===

impl Glance {
    /// The guarded paths that live on a filesystem, as the node calls them.
    pub fn held_by(&self, filesystem: &Filesystem) -> Vec<PathBuf> {
        let is_there = |place: &Path| {
            let mount = self.mounts.at(place);
            mount.is_some_and(|mount| mount.device == filesystem.device)
        };
        self.guarded
            .iter()
            .filter(|(_, place)| is_there(place))
            .map(|(name, _)| PathBuf::from(name))
            .collect()
    }

    /// The filesystem that a path of the node lies on. Of a path that is not there its nearest directory decides.
    ///
    /// It goes from the root down, and never into a filesystem behind a network: one that is dead holds whoever asks.
    pub fn filesystem_of(&self, path: &Path) -> Option<&Filesystem> {
        let mut below = PathBuf::from("/");
        let mut place = resolve(&self.root, &below)?;
        for part in path.components() {
            let Component::Normal(part) = part else {
                continue;
            };
            let next = place.join(part);
            if self.is_remote(&next) {
                place = next;
                break;
            }
            below.push(part);
            match resolve(&self.root, &below) {
                Some(found) => place = found,
                None => break,
            }
        }
        let device = self.mounts.at(&place)?.device;
        self.filesystems.iter().find(|one| one.device == device)
    }

    fn is_remote(&self, place: &Path) -> bool {
        let mount = self.mounts.at(place);
        mount.is_some_and(|mount| Kind::of(&mount.kind) == Kind::Remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // D-04: what a log names need not be there any more.
    #[test]
    fn a_path_that_is_gone_lies_where_its_directory_does() {
        let directory = tempfile::tempdir().unwrap();
        let glance = glance(directory.path()).unwrap();
        let of = |path: &str| glance.filesystem_of(Path::new(path)).map(|one| one.device);
        assert_eq!(of("/var/lib/kubelet/pods/gone"), of("/"));
        assert!(of("/").is_some());
        let guarded = glance.filesystem_of(Path::new("/")).unwrap();
        assert_eq!(glance.held_by(guarded), [Path::new("/")]);
    }

    // The link stands for what lies on a volume: it is never read.
    #[test]
    fn nobody_walks_into_a_volume_behind_a_network() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let volume = root.join("volume");
        std::fs::create_dir(&volume).unwrap();
        std::os::unix::fs::symlink("/", volume.join("link")).unwrap();
        let mut glance = glance(&root).unwrap();
        let table = format!(
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:99 / {} rw - nfs4 away:/ rw\n",
            volume.display()
        );
        glance.mounts = Mounts::parse(table.as_bytes()).unwrap();
        let looked = |mount| Filesystem::look(mount, Vec::new());
        glance.filesystems = glance.mounts.iter().map(looked).collect();
        let of = |path: &str| glance.filesystem_of(Path::new(path)).unwrap().point.clone();
        assert_eq!(of("/volume/link/data"), volume);
        assert_eq!(of("/volume"), volume);
        assert_eq!(of("/elsewhere"), Path::new("/"));
    }
}
