//! Files with several names: each is counted once, at the first of its paths.
//!
//! Which name a walk meets first is chance, with several threads at least. So the names are kept until the end and the
//! first in the order of paths is taken. Beyond a limit those kept so far are settled and only a bit for each file stays:
//! every file is still counted once, but among later names the one that was met first counts.

use std::collections::HashMap;

use crate::blocks::{Blocks, Tally};

use super::tree::NodeId;

/// At 32 bytes each, 32 MiB.
pub(super) const OPEN_MAX: usize = 1 << 20;

/// One name of a file that has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    /// The device and the number of the inode.
    pub(super) inode: (u64, u64),
    pub(super) blocks: Blocks,
    pub(super) directory: NodeId,
    pub(super) owner: u8,
}

/// The names that are not counted yet, and the files that are.
#[derive(Debug)]
pub(super) struct Links {
    open: Vec<Link>,
    open_max: usize,
    /// By device and number of 64 inodes that lie together, as filesystems number them.
    settled: HashMap<(u64, u64), u64>,
}

// === impl Link ===

impl Link {
    pub(super) const fn tally(&self) -> Tally {
        Tally::one(self.blocks)
    }
}

// === impl Links ===

impl Links {
    pub(super) fn new(open_max: usize) -> Self {
        Self {
            open: Vec::new(),
            open_max,
            settled: HashMap::new(),
        }
    }

    /// Takes a name.
    pub(super) fn add(&mut self, link: Link) {
        if self.settled.is_empty() || !self.is_settled(link.inode) {
            self.open.push(link);
        }
    }

    /// As many names wait as may.
    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= self.open_max
    }

    /// Whether it had to settle before the end, so that chance decided about later names.
    pub(super) fn is_by_chance(&self) -> bool {
        !self.settled.is_empty()
    }

    /// Gives one name of each file that waits, the first by `rank`, to be counted.
    pub(super) fn settle(&mut self, rank: impl Fn(NodeId) -> u32) -> Vec<Link> {
        let firsts = self.firsts(rank);
        for link in &firsts {
            let (key, bit) = place(link.inode);
            *self.settled.entry(key).or_default() |= bit;
        }
        firsts
    }

    /// The same at the end, where nothing needs to be remembered.
    pub(super) fn firsts(&mut self, rank: impl Fn(NodeId) -> u32) -> Vec<Link> {
        let mut open = std::mem::take(&mut self.open);
        open.sort_unstable_by_key(|link| (link.inode, rank(link.directory), link.owner));
        open.dedup_by_key(|link| link.inode);
        open
    }

    fn is_settled(&self, inode: (u64, u64)) -> bool {
        let (key, bit) = place(inode);
        self.settled.get(&key).is_some_and(|bits| bits & bit != 0)
    }
}

fn place((device, inode): (u64, u64)) -> ((u64, u64), u64) {
    ((device, inode >> 6), 1 << (inode & 63))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walk::tree::{Child, NODES_MAX, Tree};

    /// A start and 8 directories in it.
    fn directories() -> Vec<NodeId> {
        let mut tree = Tree::new(NODES_MAX);
        let root = tree.start("/".into(), 0, Blocks(0));
        let add = |name: u8| {
            let child = Child {
                parent: root,
                name: &[name],
                hidden: 0,
                owner: 0,
                blocks: Blocks(0),
            };
            tree.add(&child).unwrap()
        };
        (b'a'..b'i').map(add).collect()
    }

    fn link(inode: u64, directory: NodeId) -> Link {
        Link {
            inode: (1, inode),
            blocks: Blocks(8),
            directory,
            owner: 0,
        }
    }

    /// Later directories come first.
    fn backwards(directories: &[NodeId]) -> impl Fn(NodeId) -> u32 {
        move |id| {
            let place = directories.iter().rev().position(|other| *other == id);
            u32::try_from(place.unwrap()).unwrap()
        }
    }

    // D-05
    #[test]
    fn of_several_names_the_first_path_counts_whatever_the_walk_met_first() {
        let directories = directories();
        let [a, b, ..] = directories[..] else {
            panic!()
        };
        for order in [[a, b], [b, a]] {
            let mut links = Links::new(OPEN_MAX);
            for directory in order {
                links.add(link(7, directory));
            }
            assert_eq!(links.firsts(backwards(&directories)), [link(7, b)]);
            assert!(!links.is_by_chance());
        }
    }

    #[test]
    fn the_same_number_on_another_device_is_another_file() {
        let directories = directories();
        let mut links = Links::new(OPEN_MAX);
        let mut other = link(7, directories[0]);
        other.inode.0 = 2;
        links.add(link(7, directories[0]));
        links.add(other);
        assert_eq!(links.firsts(backwards(&directories)).len(), 2);
    }

    #[test]
    fn what_is_settled_is_remembered_file_by_file() {
        let directories = directories();
        let mut links = Links::new(1);
        for inode in [0, 32, 63, 64, 96] {
            let link = link(inode, directories[0]);
            links.add(link);
            assert!(links.is_full(), "{inode} is none of those before");
            assert_eq!(links.settle(backwards(&directories)), [link]);
            links.add(link);
            assert!(!links.is_full(), "{inode} again");
        }
    }

    #[test]
    fn beyond_the_limit_every_file_is_still_counted_once() {
        let directories = directories();
        let mut links = Links::new(10);
        let mut counted = Vec::new();
        for (round, directory) in directories.iter().enumerate() {
            for inode in 60..70 {
                links.add(link(inode, *directory));
                if links.is_full() {
                    let settled = links.settle(backwards(&directories));
                    counted.extend(settled.into_iter().map(|link| link.inode));
                }
            }
            // Each lies in the same 64 as the one before, or the next.
            links.add(link(2000 + 32 * u64::try_from(round).unwrap(), *directory));
            if round > 0 {
                let mut other = link(60, *directory);
                other.inode.0 = 2;
                links.add(other);
            }
        }
        let rest = links.firsts(backwards(&directories));
        counted.extend(rest.into_iter().map(|link| link.inode));
        counted.sort_unstable();
        let files = counted.len();
        counted.dedup();
        assert_eq!((files, counted.len()), (19, 19));
        assert!(links.is_by_chance());
    }
}
