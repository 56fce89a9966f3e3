//! Paths that mean something on the way through a tree: rules of ownership, and places where a mount lies.
//!
//! A walk takes its position in this tree of names along. Off the marked paths, where nearly all directories are, that
//! costs nothing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use crate::owner::Owner;
use crate::owner_table::{CONTAINERD_ROOTS, CONTAINERD_RULES, JOURNALS, RULES};

/// A position: [`Mark::OFF`], or a marked path or one above such a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(u16);

/// The marked paths.
#[derive(Debug)]
pub(crate) struct Marks {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    owner: Option<Owner>,
    /// Which mount lies here.
    covered: Option<u16>,
    children: Vec<(Vec<u8>, Mark)>,
}

/// What a child of a directory means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) mark: Mark,
    /// A rule begins here.
    pub(crate) owner: Option<Owner>,
    /// The mount that hides it.
    pub(crate) covered: Option<u16>,
}

// === impl Mark ===

impl Mark {
    /// Nothing below is marked.
    pub(crate) const OFF: Self = Self(u16::MAX);
}

// === impl Step ===

impl Step {
    const OFF: Self = Self {
        mark: Mark::OFF,
        owner: None,
        covered: None,
    };
}

// === impl Marks ===

impl Marks {
    /// No path is marked.
    pub(crate) fn none() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }

    /// The rules of ownership for a node whose root directory is `root`. `moved` are directories of the rules that are
    /// symbolic links on this node, and where they lead: the rules hold there too. Only the journals of the machine of this
    /// id are its own.
    pub(crate) fn owners(root: &Path, moved: &[(PathBuf, PathBuf)], machine: Option<&str>) -> Self {
        let mut marks = Self::none();
        let own = machine.map(|id| (format!("{JOURNALS}/{id}"), Owner::JournalActive));
        for (path, owner) in rules().chain(own) {
            let path = Path::new(&path);
            marks.own(&beneath(root, path), owner);
            for (from, to) in moved {
                if let Ok(rest) = path.strip_prefix(from) {
                    marks.own(&to.join(rest), owner);
                }
            }
        }
        marks
    }

    /// Marks the place of a mount by its number.
    pub(crate) fn cover(&mut self, path: &Path, mount: u16) {
        let node = self.insert(path);
        if let Some(node) = self.nodes.get_mut(node) {
            node.covered = Some(mount);
        }
    }

    /// Where an absolute path stands, and who owns it.
    pub(crate) fn locate(&self, path: &Path) -> (Mark, Owner) {
        let names = names(path);
        names.fold((Mark(0), Owner::Unknown), |(mark, owner), name| {
            let step = self.child(mark, name.as_bytes());
            (step.mark, step.owner.unwrap_or(owner))
        })
    }

    /// What the entry `name` of a directory means. An exact name goes before a pattern.
    pub(crate) fn child(&self, mark: Mark, name: &[u8]) -> Step {
        if mark == Mark::OFF {
            return Step::OFF;
        }
        let Some(node) = self.nodes.get(usize::from(mark.0)) else {
            return Step::OFF;
        };
        let exact = node.children.iter().find(|(own, _)| own == name);
        let found = exact.or_else(|| node.children.iter().find(|(own, _)| fits(own, name)));
        let Some((_, mark)) = found else {
            return Step::OFF;
        };
        let child = self.nodes.get(usize::from(mark.0));
        Step {
            mark: *mark,
            owner: child.and_then(|child| child.owner),
            covered: child.and_then(|child| child.covered),
        }
    }

    fn own(&mut self, path: &Path, owner: Owner) {
        let node = self.insert(path);
        if let Some(node) = self.nodes.get_mut(node) {
            node.owner = Some(owner);
        }
    }

    fn insert(&mut self, path: &Path) -> usize {
        let mut at = 0;
        for name in names(path) {
            let name = name.as_bytes();
            let known = self.nodes.get(at).and_then(|node| {
                let child = node.children.iter().find(|(own, _)| own == name);
                child.map(|(_, mark)| usize::from(mark.0))
            });
            at = match known {
                Some(known) => known,
                None => self.add(at, name),
            };
        }
        at
    }

    /// Adds a child. A table of more than 65,534 marks keeps the first: no node has as many mounts.
    fn add(&mut self, parent: usize, name: &[u8]) -> usize {
        let index = self.nodes.len();
        let mark = match u16::try_from(index) {
            Ok(number) if number != Mark::OFF.0 => Mark(number),
            Ok(_) | Err(_) => return parent,
        };
        if let Some(node) = self.nodes.get_mut(parent) {
            node.children.push((name.to_vec(), mark));
        }
        self.nodes.push(Node::default());
        index
    }
}

/// The directories that rules name outright.
pub(crate) fn ruled() -> impl Iterator<Item = PathBuf> {
    rules()
        .filter(|(path, _)| !path.contains('*'))
        .map(|(path, _)| PathBuf::from(path))
}

/// A path of the node as it is seen from here.
pub(crate) fn beneath(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Every rule: where, and whose.
pub(crate) fn rules() -> impl Iterator<Item = (String, Owner)> {
    let fixed = RULES
        .iter()
        .map(|(path, owner)| ((*path).to_owned(), *owner));
    let containerd = CONTAINERD_ROOTS.iter().flat_map(|root| {
        CONTAINERD_RULES
            .iter()
            .map(move |(below, owner)| (format!("{root}{below}"), *owner))
    });
    fixed.chain(containerd)
}

fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
            None
        }
    })
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    pattern
        .strip_suffix(b"*")
        .is_some_and(|front| name.starts_with(front))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(marks: &Marks, path: &str) -> Owner {
        marks.locate(Path::new(path)).1
    }

    // D-07
    #[test]
    fn the_nearest_rule_above_a_path_decides() {
        let marks = Marks::owners(Path::new("/"), &[], Some("0123"));
        for (path, expected) in [
            ("/var/log/journal/0123", Owner::JournalActive),
            ("/var/log/journal/4567", Owner::JournalOther),
            ("/var/log/journal", Owner::JournalOther),
            ("/var/lib/containerd", Owner::Containerd),
            (
                "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs",
                Owner::ContainerdSnapshots,
            ),
            (
                "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256",
                Owner::ContainerdContent,
            ),
            (
                "/var/lib/containerd/io.containerd.content.v1.content/ingest/a",
                Owner::ContainerdIngest,
            ),
            (
                "/var/lib/kubelet/pods/1-2/volumes/kubernetes.io~empty-dir/a",
                Owner::KubeletEmptyDir,
            ),
            (
                "/var/lib/kubelet/pods/1-2/volumes/kubernetes.io~csi/a",
                Owner::KubeletPods,
            ),
            ("/var/lib/kubelet/plugins", Owner::Kubelet),
            ("/var/lib/etcd/member/wal", Owner::Etcd),
            ("/var/log/pods/a_b_c/d", Owner::PodLogs),
            ("/var/log/nginx", Owner::Logs),
            ("/lib64/ld.so", Owner::System),
            ("/var/lib/containerd-old", Owner::Unknown),
            ("/data", Owner::Unknown),
            ("/", Owner::Unknown),
        ] {
            assert_eq!(owner(&marks, path), expected, "{path}");
        }
    }

    // /var/lib/docker is a link to a bigger disk on many nodes.
    #[test]
    fn rules_hold_where_a_link_leads_and_below_another_root() {
        let moved = [(PathBuf::from("/var/lib/docker"), PathBuf::from("/data/d"))];
        let marks = Marks::owners(Path::new("/"), &moved, None);
        assert_eq!(owner(&marks, "/data/d/overlay2/x"), Owner::Docker);
        assert_eq!(owner(&marks, "/data/d/volumes/x"), Owner::DockerVolumes);
        assert_eq!(owner(&marks, "/data"), Owner::Unknown);
        let marks = Marks::owners(Path::new("/host"), &[], None);
        assert_eq!(owner(&marks, "/host/var/lib/etcd"), Owner::Etcd);
        assert_eq!(owner(&marks, "/var/lib/etcd"), Owner::Unknown);
    }

    #[test]
    fn a_mount_hides_exactly_its_place() {
        let mut marks = Marks::owners(Path::new("/"), &[], None);
        marks.cover(Path::new("/var/lib/etcd"), 7);
        let (lib, _) = marks.locate(Path::new("/var/lib"));
        let step = marks.child(lib, b"etcd");
        assert_eq!((step.covered, step.owner), (Some(7), Some(Owner::Etcd)));
        assert_eq!(marks.child(lib, b"etcd2"), Step::OFF);
        assert_eq!(marks.child(step.mark, b"member"), Step::OFF);
        assert_eq!(marks.child(Mark::OFF, b"var"), Step::OFF);
    }
}
