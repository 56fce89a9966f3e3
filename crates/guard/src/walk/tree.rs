//! The directories that a walk found: names in one place, a fixed record for each.
//!
//! Memory grows with directories, not with files: 32 bytes and the name for each, up to a limit. What is found beyond it
//! is counted at the nearest directory that has a record, so sums stay right.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::blocks::{Blocks, Tally};
use crate::owner::Owner;

/// At 32 bytes, 16 for sums and about 16 for a name, at most 64 MiB.
pub(super) const NODES_MAX: usize = 1 << 20;

/// A directory of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

/// Directories and what they take.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    names: Vec<u8>,
    /// Where the walk began, each with its whole path.
    starts: Vec<PathBuf>,
    limit: usize,
    folded: u64,
    sums: Vec<Tally>,
    /// Every node behind its parent's other children of smaller names.
    by_parent: Vec<NodeId>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    parent: u32,
    name_at: u32,
    name_len: u16,
    pub(super) hidden: u16,
    pub(super) owner: u8,
    inodes: u32,
    blocks: u64,
}

/// A directory that was found in another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Child<'a> {
    pub(super) parent: NodeId,
    pub(super) name: &'a [u8],
    pub(super) hidden: u16,
    pub(super) owner: u8,
    /// What the directory itself takes.
    pub(super) blocks: Blocks,
}

// === impl NodeId ===

impl NodeId {
    pub(super) fn index(self) -> usize {
        // Linux has no machine whose pointers are narrower.
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

// === impl Tree ===

impl Tree {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            nodes: Vec::new(),
            names: Vec::new(),
            starts: Vec::new(),
            limit,
            folded: 0,
            sums: Vec::new(),
            by_parent: Vec::new(),
        }
    }

    /// Adds a directory where a walk begins; all of them come before anything else.
    pub(super) fn start(&mut self, path: PathBuf, owner: u8, blocks: Blocks) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.starts.push(path);
        self.nodes.push(Node {
            parent: id.0,
            name_at: 0,
            name_len: 0,
            hidden: 0,
            owner,
            inodes: 1,
            blocks: blocks.0,
        });
        id
    }

    /// Adds a directory below another; none when the limit is reached.
    pub(super) fn add(&mut self, child: &Child<'_>) -> Option<NodeId> {
        let name_at = u32::try_from(self.names.len()).ok();
        let id = u32::try_from(self.nodes.len()).ok();
        let name_len = u16::try_from(child.name.len()).ok();
        let room = self.nodes.len() < self.limit;
        let (true, Some(name_at), Some(id), Some(name_len)) = (room, name_at, id, name_len) else {
            self.folded += 1;
            self.count(child.parent, Tally::one(child.blocks));
            return None;
        };
        self.names.extend_from_slice(child.name);
        self.nodes.push(Node {
            parent: child.parent.0,
            name_at,
            name_len,
            hidden: child.hidden,
            owner: child.owner,
            inodes: 1,
            blocks: child.blocks.0,
        });
        Some(NodeId(id))
    }

    /// Counts files at a directory.
    pub(super) fn count(&mut self, id: NodeId, tally: Tally) {
        if let Some(node) = self.nodes.get_mut(id.index()) {
            node.blocks = node.blocks.saturating_add(tally.blocks.0);
            let inodes = u64::from(node.inodes).saturating_add(tally.inodes);
            node.inodes = u32::try_from(inodes).unwrap_or(u32::MAX);
        }
    }

    pub(super) fn node(&self, id: NodeId) -> Option<Node> {
        self.nodes.get(id.index()).copied()
    }

    /// Writes the path of a directory from its start into `path`, and gives the number of the start.
    pub(super) fn relative(&self, id: NodeId, path: &mut Vec<u8>) -> usize {
        path.clear();
        let mut at = id;
        // From the end to the beginning, then turned: no memory beside the buffer is needed.
        while let Some(node) = self.nodes.get(at.index())
            && node.parent != at.0
        {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(self.name_of(*node).iter().rev());
            at = NodeId(node.parent);
        }
        path.reverse();
        at.index()
    }

    /// Makes the sums and the order; nothing is added after it.
    pub(super) fn finish(&mut self) {
        self.sums = self
            .nodes
            .iter()
            .map(|node| Tally {
                blocks: Blocks(node.blocks),
                inodes: u64::from(node.inodes),
            })
            .collect();
        // A directory is always added after the one that it lies in.
        for index in (0..self.nodes.len()).rev() {
            let parent = self
                .nodes
                .get(index)
                .map(|node| NodeId(node.parent).index());
            if let Some(parent) = parent
                && parent != index
                && let Some(own) = self.sums.get(index).copied()
                && let Some(sum) = self.sums.get_mut(parent)
            {
                *sum += own;
            }
        }
    }

    /// Orders the directories by their parent and name.
    pub(super) fn order(&mut self) {
        let count = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let mut order: Vec<NodeId> = (0..count).map(NodeId).collect();
        order.sort_unstable_by_key(|id| {
            let node = self.nodes.get(id.index());
            // Starts are in no other directory: they come first.
            let parent = node.map(|node| (node.parent != id.0, node.parent));
            (parent, node.map(|node| self.name_of(*node)))
        });
        self.by_parent = order;
    }

    /// For each directory its place in the order of all paths. The order is that of [`Self::order`].
    pub(super) fn ranks(&self) -> Vec<u32> {
        let mut ranks = vec![0; self.nodes.len()];
        let mut stack: Vec<NodeId> = self.starts().collect();
        stack.reverse();
        let mut next = 0;
        while let Some(id) = stack.pop() {
            if let Some(rank) = ranks.get_mut(id.index()) {
                *rank = next;
            }
            next += 1;
            stack.extend(self.below(id).iter().rev());
        }
        ranks
    }

    /// The directories where the walk began.
    pub fn starts(&self) -> impl Iterator<Item = NodeId> {
        (0..u32::try_from(self.starts.len()).unwrap_or(u32::MAX)).map(NodeId)
    }

    /// The directories right below one, by name.
    pub fn below(&self, id: NodeId) -> &[NodeId] {
        let parent = |child: &NodeId| {
            let node = self.nodes.get(child.index());
            node.map(|node| (node.parent != child.0, node.parent))
        };
        let wanted = Some((true, id.0));
        let from = self
            .by_parent
            .partition_point(|child| parent(child) < wanted);
        let rest = self.by_parent.get(from..).unwrap_or_default();
        let count = rest.partition_point(|child| parent(child) == wanted);
        rest.get(..count).unwrap_or_default()
    }

    /// The same, the largest first; of equal ones the first by name.
    pub fn largest_below(&self, id: NodeId) -> Vec<NodeId> {
        let mut children = self.below(id).to_vec();
        children.sort_by_key(|child| Reverse(self.sum(*child).blocks));
        children
    }

    /// How many directories have a record.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Nothing was walked.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Directories beyond the limit, whose content is counted at one above them.
    pub const fn folded(&self) -> u64 {
        self.folded
    }

    /// All that was found.
    pub fn total(&self) -> Tally {
        self.starts().map(|start| self.sum(start)).sum()
    }

    /// What a directory takes with all below it.
    pub fn sum(&self, id: NodeId) -> Tally {
        self.sums.get(id.index()).copied().unwrap_or_default()
    }

    /// What a directory takes with the files in it, but without the directories in it.
    pub fn own(&self, id: NodeId) -> Tally {
        self.node(id).map_or_else(Tally::default, |node| Tally {
            blocks: Blocks(node.blocks),
            inodes: u64::from(node.inodes),
        })
    }

    /// Who owns the directory.
    pub fn owner(&self, id: NodeId) -> Owner {
        self.node(id)
            .map_or(Owner::Unknown, |node| Owner::at(node.owner))
    }

    /// A mount lies over it or over one above it.
    pub fn is_hidden(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(|node| node.hidden != 0)
    }

    /// The path of a directory.
    pub fn path(&self, id: NodeId) -> PathBuf {
        let mut relative = Vec::new();
        let start = self.relative(id, &mut relative);
        let start = self
            .starts
            .get(start)
            .map_or(Path::new(""), PathBuf::as_path);
        join(start, &relative)
    }

    /// Its last component; for a start the whole path.
    pub fn name(&self, id: NodeId) -> OsString {
        match self.starts.get(id.index()) {
            Some(path) => path.clone().into_os_string(),
            None => self.node(id).map_or_else(OsString::new, |node| {
                OsString::from_vec(self.name_of(node).to_vec())
            }),
        }
    }

    /// Every directory, in no order that means anything.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> {
        (0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)).map(NodeId)
    }

    fn name_of(&self, node: Node) -> &[u8] {
        let from = NodeId(node.name_at).index();
        let to = from.saturating_add(usize::from(node.name_len));
        self.names.get(from..to).unwrap_or_default()
    }
}

/// A path below a start; names are bytes.
pub(super) fn join(start: &Path, relative: &[u8]) -> PathBuf {
    if relative.is_empty() {
        return start.to_owned();
    }
    start.join(std::ffi::OsStr::from_bytes(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(parent: NodeId, name: &[u8], blocks: u64) -> Child<'_> {
        Child {
            parent,
            name,
            hidden: 0,
            owner: 0,
            blocks: Blocks(blocks),
        }
    }

    #[test]
    fn sums_go_up_and_children_stand_in_their_order() {
        let mut tree = Tree::new(NODES_MAX);
        let root = tree.start("/r".into(), 0, Blocks(1));
        let other = tree.start("/s".into(), 0, Blocks(0));
        let b = tree.add(&child(root, b"b", 2)).unwrap();
        let a = tree.add(&child(root, b"a\xff", 2)).unwrap();
        let deep = tree.add(&child(b, b"deep", 4)).unwrap();
        tree.count(
            deep,
            Tally {
                blocks: Blocks(10),
                inodes: 3,
            },
        );
        tree.order();
        tree.finish();
        assert_eq!(tree.below(root), [a, b]);
        assert_eq!(tree.largest_below(root), [b, a]);
        assert_eq!(tree.below(other), []);
        assert_eq!(tree.below(deep), []);
        assert_eq!(tree.sum(root).blocks, Blocks(19));
        assert_eq!(tree.sum(root).inodes, 7);
        assert_eq!(tree.total().inodes, 8);
        assert_eq!(tree.own(b), Tally::one(Blocks(2)));
        assert_eq!(tree.path(deep), Path::new("/r/b/deep"));
        assert_eq!(tree.path(a).as_os_str().as_bytes(), b"/r/a\xff");
        assert_eq!(tree.path(root), Path::new("/r"));
        let ranks = tree.ranks();
        let rank = |id: NodeId| ranks.get(id.index()).copied().unwrap();
        assert_eq!(
            [root, a, b, deep, other].map(rank),
            [0, 1, 2, 3, 4],
            "in the order of paths"
        );
    }

    #[test]
    fn beyond_the_limit_everything_is_counted_and_nothing_is_kept() {
        let mut tree = Tree::new(2);
        let root = tree.start("/r".into(), 0, Blocks(1));
        let kept = tree.add(&child(root, b"a", 2)).unwrap();
        assert_eq!(tree.add(&child(kept, b"b", 4)), None);
        tree.order();
        tree.finish();
        assert_eq!(tree.folded(), 1);
        assert_eq!(tree.total().blocks, Blocks(7));
        assert_eq!(tree.total().inodes, 3);
        assert_eq!(tree.own(kept).blocks, Blocks(6));
    }
}
