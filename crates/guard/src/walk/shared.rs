//! What the workers of a walk share: the tree, and the directories that wait.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::blocks::{Blocks, Tally};
use crate::owner::Owner;

use super::links::{Link, Links};
use super::tree::{Child, NodeId, Tree};
use super::{Candidate, Found, Inherits, LargeFile, Limits, Task, Walked};

/// Subvolumes and mounts that are named.
const NAMED_MAX: usize = 1000;

/// The state, and those who wait for work.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Everything that is known so far.
#[derive(Debug)]
pub(super) struct State {
    tree: Tree,
    stack: Vec<Task>,
    /// Workers that have a directory in hand, and may find more.
    busy: usize,
    waiting: usize,
    links: Links,
    total: Found,
}

/// A directory that was found; its name is the next in the row of names.
#[derive(Debug, Clone, Copy)]
pub(super) struct FoundChild {
    pub(super) name_len: usize,
    pub(super) inherits: Inherits,
    pub(super) blocks: Blocks,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// The next directory: the task, the number of its start, and in `path` the way from there. None when all is done; then
    /// what the worker kept to itself is handed over.
    pub(super) fn next(&self, found: &mut Found, path: &mut Vec<u8>) -> Option<(Task, usize)> {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.stack.pop() {
                state.busy += 1;
                let start = state.tree.relative(task.node, path);
                if let Some(below) = &task.below {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(below);
                }
                return Some((task, start));
            }
            if state.busy == 0 {
                state.merge(found);
                self.changed.notify_all();
                return None;
            }
            state.waiting += 1;
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    /// Takes what a directory held, and says how many directories wait.
    pub(super) fn commit(&self, task: &Task, found: &mut Found) -> usize {
        let mut state = self.lock();
        state
            .tree
            .count(task.node, std::mem::take(&mut found.tally));
        let mut names = found.names.as_slice();
        for child in found.children.drain(..) {
            let Some((name, behind)) = names.split_at_checked(child.name_len) else {
                break;
            };
            names = behind;
            state.found(task, name, &child);
        }
        found.names.clear();
        for link in found.links.drain(..) {
            state.links.add(link);
        }
        if state.links.is_full() {
            state.settle_links();
        }
        state.busy -= 1;
        if state.waiting > 0 && (!state.stack.is_empty() || state.busy == 0) {
            self.changed.notify_all();
        }
        state.stack.len()
    }

    /// All of it, once the workers are gone.
    pub(super) fn finish(self, top: usize) -> Walked {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        state.finish(top)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A worker that panics makes the whole walk panic when its thread is joined.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            tree: Tree::new(limits.directories),
            stack: Vec::new(),
            busy: 0,
            waiting: 0,
            links: Links::new(limits.links),
            total: Found::new(0),
        }
    }

    pub(super) fn start(&mut self, path: PathBuf, inherits: Inherits, blocks: Blocks) {
        let node = self.tree.start(path, inherits.owner, blocks);
        self.stack.push(Task {
            node,
            below: None,
            inherits,
        });
    }

    fn found(&mut self, task: &Task, name: &[u8], child: &FoundChild) {
        let record = Child {
            parent: task.node,
            name,
            hidden: child.inherits.hidden,
            owner: child.inherits.owner,
            blocks: child.blocks,
        };
        // The limit stays reached: below a directory without a record none gets one.
        let (node, below) = if let Some(node) = self.tree.add(&record) {
            (node, None)
        } else {
            let mut below = task.below.as_deref().unwrap_or_default().to_vec();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(name);
            (task.node, Some(below.into_boxed_slice()))
        };
        self.stack.push(Task {
            node,
            below,
            inherits: child.inherits,
        });
    }

    /// Counts the names that wait, to make room.
    fn settle_links(&mut self) {
        self.tree.order();
        let ranks = self.tree.ranks();
        let settled = self.links.settle(|node| rank(&ranks, node));
        self.count_links(&settled);
    }

    fn count_links(&mut self, links: &[Link]) {
        for link in links {
            self.tree.count(link.directory, link.tally());
            let hidden = self.tree.node(link.directory).map_or(0, |node| node.hidden);
            self.total.count(link.owner, hidden, link.tally());
        }
    }

    /// Takes what a worker kept to itself.
    pub(super) fn merge(&mut self, found: &mut Found) {
        let total = &mut self.total;
        total.faults.merge(&mut found.faults);
        add(&mut total.owners, &found.owners);
        add(&mut total.hidden, &found.hidden);
        total.crossed.append(&mut found.crossed);
        total.subvolumes.append(&mut found.subvolumes);
        for device in found.devices.drain(..) {
            if !total.devices.contains(&device) {
                total.devices.push(device);
            }
        }
        for candidate in found.largest.drain() {
            total.keep(candidate.0, usize::MAX);
        }
    }

    fn finish(mut self, top: usize) -> Walked {
        self.tree.order();
        let ranks = self.tree.ranks();
        let links_by_chance = self.links.is_by_chance();
        let links = self.links.firsts(|node| rank(&ranks, node));
        self.count_links(&links);
        self.tree.finish();
        let mut total = self.total;
        let largest = std::mem::take(&mut total.largest).into_sorted_vec();
        let largest = largest.into_iter().map(|reverse| large(reverse.0));
        sort(&mut total.crossed);
        sort(&mut total.subvolumes);
        Walked {
            tree: self.tree,
            owners: total.owners,
            hidden: total.hidden,
            largest: largest.take(top).collect(),
            crossed: total.crossed,
            devices: total.devices,
            subvolumes: total.subvolumes,
            faults: total.faults,
            links_by_chance,
            is_cut: false,
        }
    }
}

fn rank(ranks: &[u32], node: NodeId) -> u32 {
    ranks.get(node.index()).copied().unwrap_or(u32::MAX)
}

fn large(candidate: Candidate) -> LargeFile {
    LargeFile {
        blocks: candidate.blocks,
        path: candidate.path.0,
        owner: Owner::at(candidate.owner),
    }
}

fn add(total: &mut Vec<Tally>, part: &[Tally]) {
    if total.len() < part.len() {
        total.resize(part.len(), Tally::default());
    }
    for (total, part) in total.iter_mut().zip(part) {
        *total += *part;
    }
}

fn sort(paths: &mut Vec<PathBuf>) {
    paths.sort_by(|one, other| one.as_os_str().as_bytes().cmp(other.as_os_str().as_bytes()));
    paths.dedup();
    paths.truncate(NAMED_MAX);
}
