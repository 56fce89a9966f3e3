//! The filesystems of a node without a walk: milliseconds, for whoever asks what is full and not what fills it.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;

use super::node::{Node, resolve};
use super::{Effort, Request, SurveyError};
use crate::advice::Advice;
use crate::filesystem::Filesystem;
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
    pub fn filesystem_of(&self, path: &Path) -> Option<&Filesystem> {
        let place = path
            .ancestors()
            .find_map(|ancestor| resolve(&self.root, ancestor))?;
        let device = self.mounts.at(&place)?.device;
        self.filesystems.iter().find(|one| one.device == device)
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
}
