//! The walk: every directory below some starts, read by one thread for each core.
//!
//! A task is one directory. It is opened from its start in one call that follows no symbolic link and crosses no mount
//! (`openat2`), read in large pieces, and each entry is asked once for what it takes (`statx`). Directories that are found
//! wait on a shared stack, so that the walk goes down before it goes on and few wait. Nothing is written, not even the
//! time of access where the caller may leave it alone.
//!
//! It reads what is there while others change it: an entry that is gone when it is looked at is counted as such.

pub(crate) mod faults;
mod links;
mod pace;
mod shared;
pub(crate) mod tree;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxAttributes, StatxFlags,
};
use rustix::io::Errno;

use crate::blocks::{Blocks, Tally};
use crate::marks::{Mark, Marks};
use crate::mounts::Device;
use crate::owner::Owner;
use crate::walk::faults::Faults;
use crate::walk::links::{Link, OPEN_MAX};
use crate::walk::shared::{FoundChild, Shared, State};
use crate::walk::tree::{NODES_MAX, Tree};

pub(crate) use pace::{Pace, processor_time};

/// One piece of a directory: about a thousand names.
const PIECE: usize = 64 * 1024;
/// Longer paths are opened in steps; the kernel takes 4,095 bytes.
const PATH_STEP_MAX: usize = 4000;
/// Without the two that every directory has.
const DOTS: [&[u8]; 2] = [b".", b".."];
/// What is asked of an entry.
const ASKED: StatxFlags = StatxFlags::TYPE
    .union(StatxFlags::NLINK)
    .union(StatxFlags::INO)
    .union(StatxFlags::BLOCKS);
/// Of the entry itself, from what this machine knows of it.
const ASK: AtFlags = AtFlags::SYMLINK_NOFOLLOW
    .union(AtFlags::NO_AUTOMOUNT)
    .union(AtFlags::STATX_DONT_SYNC);

/// How far a walk is; may be read from another thread at any time.
#[derive(Debug, Default)]
pub struct Watch {
    directories: AtomicU64,
    files: AtomicU64,
    blocks: AtomicU64,
}

/// A file that takes much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeFile {
    /// Allocated space.
    pub blocks: Blocks,
    /// Where.
    pub path: PathBuf,
    /// Who owns it.
    pub owner: Owner,
}

/// A directory to walk.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) directory: OwnedFd,
    /// How it is called on the node.
    pub(crate) path: PathBuf,
}

/// How to walk.
#[derive(Debug)]
pub(crate) struct Manner<'a> {
    pub(crate) marks: &'a Marks,
    pub(crate) threads: NonZeroUsize,
    /// How many of the largest files are kept.
    pub(crate) top: usize,
    pub(crate) watch: &'a Watch,
    pub(crate) limits: Limits,
    /// None where somebody waits for it.
    pub(crate) pace: Option<&'a Pace>,
}

/// What a walk keeps at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    directories: usize,
    links: usize,
}

/// What a walk found.
#[derive(Debug)]
pub(crate) struct Walked {
    pub(crate) tree: Tree,
    /// By owner, without what is hidden.
    pub(crate) owners: Vec<Tally>,
    /// By the number of the mount that hides it.
    pub(crate) hidden: Vec<Tally>,
    pub(crate) largest: Vec<LargeFile>,
    /// Places of mounts whose ground could not be seen.
    pub(crate) crossed: Vec<PathBuf>,
    /// Devices of the files: several where there are subvolumes.
    pub(crate) devices: Vec<Device>,
    /// Roots of subvolumes inside.
    pub(crate) subvolumes: Vec<PathBuf>,
    pub(crate) faults: Faults,
    /// There were more names of files with several than are kept.
    pub(crate) links_by_chance: bool,
    /// It gave up: what was found is not all.
    pub(crate) is_cut: bool,
}

/// A directory that waits.
#[derive(Debug)]
struct Task {
    node: tree::NodeId,
    /// The way on from there when the directory has no record of its own.
    below: Option<Box<[u8]>>,
    inherits: Inherits,
}

/// What a directory hands down.
#[derive(Debug, Clone, Copy)]
struct Inherits {
    mark: Mark,
    owner: u8,
    hidden: u16,
    /// Another one than that of the directory above begins a subvolume.
    device: Device,
}

/// What one worker found in one directory, and since it began.
#[derive(Debug)]
struct Found {
    tally: Tally,
    /// Names of the directories, one behind the other.
    names: Vec<u8>,
    children: Vec<FoundChild>,
    links: Vec<Link>,
    crossed: Vec<PathBuf>,
    subvolumes: Vec<PathBuf>,
    devices: Vec<Device>,
    faults: Faults,
    owners: Vec<Tally>,
    hidden: Vec<Tally>,
    largest: BinaryHeap<Reverse<Candidate>>,
}

/// Larger first, then the path that comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    blocks: Blocks,
    path: Reverse<PathBuf>,
    owner: u8,
    /// Tells a file with several names; none for one that has a single one.
    inode: Option<(u64, u64)>,
}

// === impl Watch ===

impl Watch {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Directories that were read.
    pub fn directories(&self) -> u64 {
        self.directories.load(Ordering::Relaxed)
    }

    /// Files with one name that were looked at.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// What they take.
    pub fn blocks(&self) -> Blocks {
        Blocks(self.blocks.load(Ordering::Relaxed))
    }

    fn saw(&self, files: Tally) {
        self.directories.fetch_add(1, Ordering::Relaxed);
        self.files.fetch_add(files.inodes, Ordering::Relaxed);
        self.blocks.fetch_add(files.blocks.0, Ordering::Relaxed);
    }
}

// === impl Limits ===

impl Limits {
    /// About 100 MiB together at the most.
    pub(crate) const DEFAULT: Self = Self {
        directories: NODES_MAX,
        links: OPEN_MAX,
    };
    /// Below 1 MiB: no directory has a record, and of a file with several names the owner that comes first in the table has it.
    pub(crate) const SMALL: Self = Self {
        directories: 0,
        links: 16 * 1024,
    };
}

/// Walks everything below the starts.
///
/// # Errors
/// A start cannot be asked, or the kernel cannot tell mounts from directories (Linux before 5.8).
pub(crate) fn walk(starts: &[Start], manner: &Manner<'_>) -> Result<Walked, Errno> {
    let mut state = State::new(manner.limits);
    let mut first = Found::new(0);
    for start in starts {
        let stat = rustix::fs::statx(&start.directory, c"", ASK | AtFlags::EMPTY_PATH, ASKED)?;
        let knows_mounts = stat
            .stx_attributes_mask
            .contains(StatxAttributes::MOUNT_ROOT);
        if !knows_mounts {
            return Err(Errno::NOSYS);
        }
        let (mark, owner) = manner.marks.locate(&start.path);
        let inherits = Inherits {
            mark,
            owner: owner.number(),
            hidden: 0,
            device: device(&stat),
        };
        let blocks = Blocks(stat.stx_blocks);
        first.count(inherits.owner, 0, Tally::one(blocks));
        first.devices.push(inherits.device);
        state.start(start.path.clone(), inherits, blocks);
    }
    state.merge(&mut first);
    let shared = Shared::new(state);
    std::thread::scope(|scope| {
        for _ in 1..manner.threads.get() {
            scope.spawn(|| work(&shared, starts, manner));
        }
        work(&shared, starts, manner);
    });
    Ok(Walked {
        is_cut: manner.pace.is_some_and(Pace::is_over),
        ..shared.finish(manner.top)
    })
}

/// Takes directories until none is left.
fn work(shared: &Shared, starts: &[Start], manner: &Manner<'_>) {
    let mut found = Found::new(manner.top);
    let mut path = Vec::new();
    // On the heap once: a thread's stack need not be so deep.
    let mut piece = vec![MaybeUninit::uninit(); PIECE];
    while let Some((task, start)) = shared.next(&mut found, &mut path) {
        let Some(start) = starts.get(start) else {
            continue;
        };
        // Where it has given up, what waits is only taken off.
        if manner.pace.is_none_or(|pace| !pace.is_over()) {
            read(start, &path, &task, manner, &mut found, &mut piece);
        }
        let waiting = shared.commit(&task, &mut found);
        if let Some(pace) = manner.pace {
            pace.see_waiting(waiting);
        }
    }
}

/// Reads one directory into `found`.
fn read(
    start: &Start,
    path: &[u8],
    task: &Task,
    manner: &Manner<'_>,
    found: &mut Found,
    piece: &mut [MaybeUninit<u8>],
) {
    let whole = || tree::join(&start.path, path);
    let directory = match open(&start.directory, path) {
        Ok(directory) => directory,
        // A mount was laid there since it was found.
        Err(Errno::XDEV) => return found.crossed.push(whole()),
        Err(error) => return found.faults.add(whole, error),
    };
    let mut entries = RawDir::new(&directory, piece);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                found.faults.add(whole, error);
                break;
            }
        };
        let name = entry.file_name();
        if DOTS.contains(&name.to_bytes()) {
            continue;
        }
        if manner.pace.is_some_and(|pace| !pace.step()) {
            break;
        }
        match rustix::fs::statx(&directory, name, ASK, ASKED) {
            Ok(asked) => found.take(&asked, name.to_bytes(), task, manner, &whole),
            Err(error) => found
                .faults
                .add(|| tree::join(&whole(), name.to_bytes()), error),
        }
    }
    manner.watch.saw(found.tally);
}

/// Opens a directory below another without following a link or crossing a mount, however long its path is.
fn open(start: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    if path.len() <= PATH_STEP_MAX {
        return open_step(start, path);
    }
    let mut rest = path;
    let mut at: Option<OwnedFd> = None;
    while !rest.is_empty() {
        let (step, behind) = split_step(rest);
        let from = at.as_ref().unwrap_or(start);
        at = Some(open_step(from, step)?);
        rest = behind;
    }
    at.ok_or(Errno::NOENT)
}

/// As many whole components as one call takes; a single name is never longer.
fn split_step(path: &[u8]) -> (&[u8], &[u8]) {
    let Some(front) = path.get(..PATH_STEP_MAX) else {
        return (path, &[]);
    };
    let slash = front.iter().rposition(|byte| *byte == b'/');
    slash
        .and_then(|at| Some((path.get(..at)?, path.get(at + 1..)?)))
        .unwrap_or((path, &[]))
}

fn open_step(from: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    const HOW: OFlags = OFlags::RDONLY
        .union(OFlags::DIRECTORY)
        .union(OFlags::NOFOLLOW)
        .union(OFlags::CLOEXEC);
    const WITHIN: ResolveFlags = ResolveFlags::BENEATH
        .union(ResolveFlags::NO_SYMLINKS)
        .union(ResolveFlags::NO_MAGICLINKS)
        .union(ResolveFlags::NO_XDEV);
    let path = if path.is_empty() { b"." } else { path };
    // Reading a directory would write its time of access, which takes space on btrfs. Only its owner and root may leave
    // that out.
    let quietly = rustix::fs::openat2(
        from.as_fd(),
        path,
        HOW | OFlags::NOATIME,
        Mode::empty(),
        WITHIN,
    );
    match quietly {
        Err(Errno::PERM) => rustix::fs::openat2(from.as_fd(), path, HOW, Mode::empty(), WITHIN),
        other => other,
    }
}

// === impl Found ===

impl Found {
    fn new(top: usize) -> Self {
        Self {
            tally: Tally::default(),
            names: Vec::new(),
            children: Vec::new(),
            links: Vec::new(),
            crossed: Vec::new(),
            subvolumes: Vec::new(),
            devices: Vec::new(),
            faults: Faults::default(),
            owners: vec![Tally::default(); Owner::COUNT],
            hidden: Vec::new(),
            largest: BinaryHeap::with_capacity(top),
        }
    }

    /// Takes one entry of a directory.
    fn take(
        &mut self,
        stat: &Statx,
        name: &[u8],
        task: &Task,
        manner: &Manner<'_>,
        directory: &dyn Fn() -> PathBuf,
    ) {
        let step = manner.marks.child(task.inherits.mark, name);
        // In a clone of the tree there are no mounts: then this is what lies under one, and the marks say so.
        if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return self.crossed.push(tree::join(&directory(), name));
        }
        let is_directory = FileType::from_raw_mode(stat.stx_mode.into()).is_dir();
        let mut inherits = Inherits {
            mark: step.mark,
            owner: step.owner.map_or(task.inherits.owner, Owner::number),
            hidden: step
                .covered
                .map_or(task.inherits.hidden, |mount| mount.saturating_add(1)),
            device: device(stat),
        };
        let blocks = Blocks(stat.stx_blocks);
        if is_directory {
            if inherits.device != task.inherits.device {
                self.devices.push(inherits.device);
                self.subvolumes.push(tree::join(&directory(), name));
            }
            self.count(inherits.owner, inherits.hidden, Tally::one(blocks));
            return self.child(name, inherits, blocks);
        }
        let owner = Owner::at(inherits.owner);
        if owner.looks_at_files() {
            inherits.owner = owner.of_file(name).number();
        }
        let inode = (stat.stx_nlink > 1).then(|| (device_number(stat), stat.stx_ino));
        if let Some(inode) = inode {
            self.links.push(Link {
                inode,
                blocks,
                directory: task.node,
                owner: inherits.owner,
            });
        } else {
            self.tally += Tally::one(blocks);
            self.count(inherits.owner, inherits.hidden, Tally::one(blocks));
        }
        if self.may_be_large(blocks, manner.top) {
            let candidate = Candidate {
                blocks,
                path: Reverse(tree::join(&directory(), name)),
                owner: inherits.owner,
                inode,
            };
            self.keep(candidate, manner.top);
        }
    }

    /// Counts at its owner, or at what hides it.
    fn count(&mut self, owner: u8, hidden: u16, tally: Tally) {
        let place = match hidden {
            0 => self.owners.get_mut(usize::from(owner)),
            number => {
                let mount = usize::from(number) - 1;
                if self.hidden.len() <= mount {
                    self.hidden.resize(mount + 1, Tally::default());
                }
                self.hidden.get_mut(mount)
            }
        };
        if let Some(place) = place {
            *place += tally;
        }
    }

    fn child(&mut self, name: &[u8], inherits: Inherits, blocks: Blocks) {
        self.names.extend_from_slice(name);
        self.children.push(FoundChild {
            name_len: name.len(),
            inherits,
            blocks,
        });
    }

    /// A file of this size may be among the largest.
    fn may_be_large(&self, blocks: Blocks, top: usize) -> bool {
        let least = self.largest.peek().map(|Reverse(least)| least.blocks);
        let has_room = self.largest.len() < top || least.is_some_and(|least| blocks >= least);
        top > 0 && blocks.0 > 0 && has_room
    }

    /// Keeps it; of several names the first.
    fn keep(&mut self, candidate: Candidate, top: usize) {
        let is_same = |kept: &Candidate| kept.inode.is_some() && kept.inode == candidate.inode;
        let known = self.largest.iter().find(|kept| is_same(&kept.0));
        if known.is_some_and(|known| known.0 >= candidate) {
            return;
        }
        self.largest.retain(|kept| !is_same(&kept.0));
        self.largest.push(Reverse(candidate));
        if self.largest.len() > top {
            self.largest.pop();
        }
    }
}

fn device(stat: &Statx) -> Device {
    Device {
        major: stat.stx_dev_major,
        minor: stat.stx_dev_minor,
    }
}

fn device_number(stat: &Statx) -> u64 {
    u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor)
}

#[cfg(test)]
mod tests;
