//! Which places may be opened at all: a server that is away, or a program that serves files and hangs, would hold the cleaner
//! for ever. So what is mounted on the way is looked up by its text, and only then is the way gone.
//!
//! No way to what we remove follows a link. What belongs to another program and is only read or asked about may lie behind one, as
//! `/var/lib/containerd` behind a link to a disk for data: [`Reach::real`] goes that way part by part, once, and what it ends at
//! is what is opened, by a way without links.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::discover::Why;
use super::{CleanError, place};
use crate::filesystem::Kind;
use crate::mounts::{Device, Mounts};

/// Links that are followed on one way, as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// What is mounted on a node.
#[derive(Debug)]
pub(crate) struct Reach {
    pub(super) mounts: Mounts,
    /// The root of the node, as this process sees it.
    root: PathBuf,
}

// === impl Reach ===

impl Reach {
    /// Of the node with this root.
    pub(crate) fn of(root: &OwnedFd) -> Result<Self, CleanError> {
        let text = std::fs::read("/proc/self/mountinfo").map_err(CleanError::ReadMounts)?;
        Ok(Self {
            mounts: Mounts::parse(&text).map_err(CleanError::ParseMounts)?,
            root: place::path_of(root).map_err(CleanError::ReadMounts)?,
        })
    }

    /// The filesystem that a place of the node lies on, as mounts tell them apart.
    pub(crate) fn device_of(&self, place: &Path) -> Option<Device> {
        let below = place.strip_prefix("/").unwrap_or(place);
        Some(self.mounts.at(&self.root.join(below))?.device)
    }

    /// Where a place of the node really is, the links on the way followed as on the node. Of what is not there yet its directories
    /// decide. Whoever opens it follows no link any more, so that a link which changes meanwhile leads nowhere.
    ///
    /// # Errors
    /// A filesystem on the way may not answer, or there are too many links.
    pub(crate) fn real(&self, root: &OwnedFd, place: &Path) -> Result<PathBuf, Why> {
        let mut real = PathBuf::from("/");
        let mut rest = Vec::new();
        ahead(place, &mut rest);
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == ".." {
                real.pop();
                continue;
            }
            let next = real.join(part);
            if let Some(fstype) = self.refuses(&next) {
                return Err(Why::Type(fstype.to_owned()));
            }
            let Some(target) = place::link(root, &next)? else {
                real = next;
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::LOOP.into());
            }
            if target.is_absolute() {
                real = PathBuf::from("/");
            }
            ahead(&target, &mut rest);
        }
        Ok(real)
    }

    /// The type of a filesystem on the way to a place of the node that may not answer, or that nobody knows. Links are not
    /// followed on the way, so that its text tells what is crossed. The filesystem of the root itself has answered already.
    pub(crate) fn refuses(&self, place: &Path) -> Option<&str> {
        let below = place.strip_prefix("/").unwrap_or(place);
        let whole = self.root.join(below);
        let on_the_way = whole
            .ancestors()
            .take_while(|above| above.starts_with(&self.root));
        let mounts = on_the_way.filter_map(|above| self.mounts.at(above));
        let own = self.mounts.at(&self.root).map(|mount| mount.id);
        mounts
            .filter(|mount| Some(mount.id) != own)
            .filter(|mount| match Kind::of(&mount.kind) {
                Kind::Disk | Kind::Memory | Kind::Layered | Kind::Image => false,
                Kind::Remote | Kind::Pseudo | Kind::Unknown => true,
            })
            .map(|mount| mount.kind.as_str())
            .next()
    }
}

/// The parts of a way are the next ones: the first of them is the last of the list.
fn ahead(way: &Path, rest: &mut Vec<OsString>) {
    let parts = way.components().rev();
    rest.extend(parts.filter_map(|part| match part {
        Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_crossed_on_the_way_counts_as_what_is_reached() {
        let text = "\
1 0 8:1 / / rw - ext4 /dev/a rw
2 1 8:1 /n /host rw - ext4 /dev/a rw
3 2 0:5 / /host/var rw - nfs4 s:/ rw
4 3 8:2 / /host/var/log rw - xfs /dev/b rw
5 2 0:6 / /host/run rw - tmpfs t rw
6 2 0:7 / /host/srv rw - strange s rw
";
        let reach = Reach {
            mounts: Mounts::parse(text.as_bytes()).unwrap(),
            root: PathBuf::from("/host"),
        };
        let rows = [
            ("/etc", None),
            ("/run/x", None),
            ("/var/cache/apt", Some("nfs4")),
            ("/var/log/pods", Some("nfs4")),
            ("/srv", Some("strange")),
        ];
        for (place, refused) in rows {
            assert_eq!(reach.refuses(Path::new(place)), refused, "{place}");
        }
        // A node that lives in memory, with its data on a disk.
        let text = "\
1 0 0:1 / / rw - rootfs rootfs rw
2 1 8:2 / /var rw - xfs /dev/b rw
";
        let reach = Reach {
            mounts: Mounts::parse(text.as_bytes()).unwrap(),
            root: PathBuf::from("/"),
        };
        assert_eq!(reach.refuses(Path::new("/var/log/pods")), None);
    }

    // 5-17 of the review: links lead where they lead on the node, and none leads to what may not answer.
    #[test]
    fn a_place_behind_links_is_found_where_they_lead_on_the_node() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(at.join("data/containerd")).unwrap();
        std::fs::create_dir_all(at.join("var/lib")).unwrap();
        let link = |to: &str, from: &str| std::os::unix::fs::symlink(to, at.join(from)).unwrap();
        link("/data/containerd", "var/lib/containerd");
        link("../../../data", "var/lib/up");
        link("around", "var/around");
        link("/away/containerd", "var/lib/away");
        let root = place::open_root(&at).unwrap();
        let mut reach = Reach::of(&root).unwrap();
        let real = |reach: &Reach, path: &str| reach.real(&root, Path::new(path));
        for (path, expected) in [
            ("/var/lib/containerd/a/b", "/data/containerd/a/b"),
            ("/var/lib/up/containerd", "/data/containerd"),
            ("/var/lib/none/a", "/var/lib/none/a"),
            ("/", "/"),
        ] {
            assert_eq!(real(&reach, path), Ok(expected.into()), "{path}");
        }
        assert_eq!(real(&reach, "/var/around/a"), Err(Why::Link));
        let table = format!(
            "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / {}/away rw - nfs4 s:/ rw\n",
            at.display()
        );
        reach.mounts = Mounts::parse(table.as_bytes()).unwrap();
        let refused = Why::Type("nfs4".to_owned());
        assert_eq!(real(&reach, "/var/lib/away/a"), Err(refused));
    }
}
