//! What is there: every file that a rule allows to go, in its order, and why the others stay.

mod of_runtime;
mod why;

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nagi_ports::Clock;
use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;

use super::JournalMode as Mode;
use super::ask::{self, AskError};
use super::held::{self, Held};
use super::journal::{self, File, Head, Limits};
use super::owned;
use super::place::{self, Entry, Instant};
use super::plan::Item;
use super::policy::{Policy, Reclaimer};
use super::reach::Reach;
use super::rules;
use super::snaps;
use crate::blocks::Tally;
use crate::filesystem::{Kind, Space};
use crate::gap;
use crate::mounts::{Device, Mounts};
use crate::owner::Owner;

use of_runtime::Asked;
pub use why::{Kept, Skipped, Why};

const SYSFS: &str = "/sys";
/// Files of one place that are held, fifty times what a plan takes; with their paths about 20 MiB. The rest is only counted.
const FOUND_MAX: usize = 100_000;
/// An owner that is well says at once what it has.
const ANSWER: Duration = Duration::from_secs(10);

/// One place of one kind.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) reclaimer: Reclaimer,
    pub(super) directory: PathBuf,
    pub(super) base: OwnedFd,
    pub(super) disk: OnDisk,
    /// In the order in which they go.
    pub(super) items: Vec<Item>,
    /// What may go too and is more than a search holds.
    pub(super) beyond: Tally,
    pub(super) kept: Vec<(Kept, Tally)>,
}

/// The filesystem of a base.
#[derive(Debug, Clone)]
pub(super) struct OnDisk {
    pub(super) device: Device,
    pub(super) point: PathBuf,
    pub(super) fstype: String,
    pub(super) space: Space,
    /// What only root may write: on an ext4 that is full df does not say it, and then this is computed.
    pub(super) reserve: u64,
}

/// Everything that is there.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    pub(super) found: Vec<Found>,
    pub(super) skipped: Vec<Skipped>,
}

/// The node that is looked at.
struct Node<'a> {
    policy: &'a Policy,
    root: &'a OwnedFd,
    reach: &'a Reach,
    clock: &'a dyn Clock,
    /// Where roots of owners lead that are links.
    moved: &'a [(Owner, PathBuf)],
}

/// One look at one place.
struct Search<'a> {
    policy: &'a Policy,
    /// What was touched later stays.
    settled: Instant,
    directory: &'a Path,
    base: &'a OwnedFd,
    /// As of [`Node`].
    moved: &'a [(Owner, PathBuf)],
    items: Vec<Item>,
    beyond: Tally,
    kept: Vec<(Kept, Tally)>,
}

/// Looks at every place of the kinds that are asked for. `at` is the moment for which ages are judged.
pub(super) fn discover(
    policy: &Policy,
    root: &OwnedFd,
    reach: &Reach,
    at: Instant,
    clock: &dyn Clock,
) -> Discovery {
    let mut discovery = Discovery::default();
    let kinds = Reclaimer::ALL
        .into_iter()
        .filter(|kind| policy.asks_for(*kind));
    let moved = owned::moved(root, reach);
    let node = Node {
        policy,
        root,
        reach,
        clock,
        moved: &moved,
    };
    // Asked once, when its turn comes.
    let mut asked = Asked::NotYet;
    for kind in kinds {
        if kind.is_of_runtime() {
            node.of_runtime(kind, at, &mut asked, &mut discovery);
        }
        for directory in kind.places() {
            let directory = Path::new(*directory);
            match node.look(kind, directory, at) {
                Ok(Some(found)) => discovery.found.push(found),
                Ok(None) => {}
                Err(why) => discovery.skipped.push(Skipped {
                    reclaimer: kind,
                    directory: directory.to_owned(),
                    why,
                }),
            }
        }
    }
    keep_what_is_held(&mut discovery.found);
    discovery
}

/// What a process has open stays.
fn keep_what_is_held(found: &mut [Found]) {
    let of_interest = |found: &&mut Found| held::matters(found.reclaimer);
    let asked = found
        .iter()
        .filter(|found| held::matters(found.reclaimer))
        .flat_map(|found| &found.items);
    let held = Held::of(asked);
    for found in found.iter_mut().filter(of_interest) {
        let is_held: Vec<Item> = found.items.extract_if(.., |item| held.has(item)).collect();
        for item in is_held {
            count(&mut found.kept, Kept::Active, Tally::one(item.blocks));
        }
    }
}

// === impl Node ===

impl Node<'_> {
    /// None when the place is not there.
    fn look(
        &self,
        reclaimer: Reclaimer,
        directory: &Path,
        at: Instant,
    ) -> Result<Option<Found>, Why> {
        if let Some(fstype) = self.reach.refuses(directory) {
            return Err(Why::Type(fstype.to_owned()));
        }
        let Some(base) = place::open_base(self.root, directory)? else {
            return Ok(None);
        };
        if let Some(owner) = owned::owner_of(directory, self.moved) {
            return Err(Why::BelongsTo(owner));
        }
        let disk = on_disk(&base, &self.reach.mounts)?;
        let mut search = Search {
            policy: self.policy,
            settled: at.before(self.policy.grace),
            directory,
            base: &base,
            moved: self.moved,
            items: Vec::new(),
            beyond: Tally::default(),
            kept: Vec::new(),
        };
        match reclaimer {
            Reclaimer::Apt => search.apt()?,
            Reclaimer::Snaps => search.snaps(self)?,
            Reclaimer::PodLogs => search.pod_logs()?,
            Reclaimer::Journal => search.journal(self, at)?,
            Reclaimer::Coredumps => search.coredumps()?,
            // These have no places.
            Reclaimer::Pulls
            | Reclaimer::Images
            | Reclaimer::Containers
            | Reclaimer::LocalImages => {}
        }
        let (items, beyond, kept) = (search.items, search.beyond, search.kept);
        Ok(Some(Found {
            reclaimer,
            directory: directory.to_owned(),
            base,
            disk,
            items,
            beyond,
            kept,
        }))
    }
}

fn on_disk(base: &OwnedFd, mounts: &Mounts) -> Result<OnDisk, Why> {
    let path = place::path_of(base).map_err(|_| Why::Unreadable(Errno::NOENT))?;
    let mount = mounts.at(&path).ok_or(Why::Unreadable(Errno::NOENT))?;
    match Kind::of(&mount.kind) {
        Kind::Disk => {}
        Kind::Memory
        | Kind::Layered
        | Kind::Image
        | Kind::Remote
        | Kind::Pseudo
        | Kind::Unknown => return Err(Why::Type(mount.kind.clone())),
    }
    let stat = rustix::fs::fstatvfs(base)?;
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(Why::ReadOnly);
    }
    let space = Space::of(&stat);
    let bytes = gap::device_bytes(Path::new(SYSFS), mount.device).unwrap_or(space.bytes);
    Ok(OnDisk {
        device: mount.device,
        point: mount.point.clone(),
        fstype: mount.kind.clone(),
        reserve: reserve(&mount.kind, bytes, stat.f_frsize).max(space.reserved()),
        space,
    })
}

/// What an ext4 keeps back by default: a twentieth of the device for root, and at most 4,096 blocks or a fiftieth for itself.
fn reserve(fstype: &str, device_bytes: u64, block: u64) -> u64 {
    match fstype {
        "ext2" | "ext3" => device_bytes / 20,
        "ext4" => device_bytes / 20 + (device_bytes / 50).min(block.saturating_mul(4096)),
        _ => 0,
    }
}

// === impl Search ===

impl Search<'_> {
    fn apt(&mut self) -> Result<(), Errno> {
        self.each(b"", rules::is_apt_cache)?;
        self.each(b"archives", rules::is_package)?;
        self.each(b"archives/partial", rules::is_package)?;
        self.oldest_first();
        Ok(())
    }

    /// What snapd says is disabled. Its files are looked at, and only snapd removes them.
    fn snaps(&mut self, node: &Node<'_>) -> Result<(), Why> {
        if self.policy.root != Path::new("/") {
            return Err(Why::OwnerElsewhere);
        }
        let list = snap_list(node.clock).map_err(Why::Owner)?;
        for revision in snaps::disabled(&list).ok_or(Why::NotUnderstood)? {
            let name = revision.file().into_bytes();
            let Ok(entry) = place::look(self.base, &name) else {
                continue; // Gone meanwhile.
            };
            // That it is mounted says nothing: snapd mounts every revision that is installed. The other name is the one in
            // snapd's cache.
            self.take_named(b"", &name, &entry, 1..=2, true);
        }
        self.oldest_first();
        Ok(())
    }

    fn pod_logs(&mut self) -> Result<(), Errno> {
        for pod in place::names(place::open_below(self.base, b"")?)? {
            if !rules::is_pod(&pod) {
                continue;
            }
            let Some(directory) = self.below(&pod)? else {
                continue;
            };
            for container in place::names_below(&directory)? {
                self.container(&[&pod[..], b"/", &container].concat())?;
            }
        }
        self.oldest_first();
        Ok(())
    }

    /// Kubelet renames a log and then asks the runtime to open a new one. Until that has worked the container writes into the
    /// renamed file: it stays until there is a new one beside it.
    fn container(&mut self, path: &[u8]) -> Result<(), Errno> {
        let Some(directory) = self.below(path)? else {
            return Ok(());
        };
        for name in place::names_below(&directory)? {
            let Ok(entry) = place::look(&directory, &name) else {
                continue; // Gone meanwhile.
            };
            if entry.kind.is_dir() {
                continue;
            }
            let is_rotated = Owner::PodLogs.of_file(&name) == Owner::PodLogsRotated;
            let current = rules::current_log(&name).filter(|_| is_rotated);
            let has_current = |current: &[u8]| {
                place::look(&directory, current).is_ok_and(|entry| entry.kind.is_file())
            };
            match current {
                None => self.keep(Kept::Unknown, &entry),
                Some(current) if has_current(current) => self.take(path, &name, &entry, true),
                Some(_) => self.keep(Kept::Active, &entry),
            }
        }
        Ok(())
    }

    fn coredumps(&mut self) -> Result<(), Errno> {
        self.each(b"", |name| rules::is_core(name) || rules::is_crash(name))?;
        self.oldest_first();
        Ok(())
    }

    /// The journals of this machine; those of others that were collected here are somebody's archive.
    fn journal(&mut self, node: &Node<'_>, at: Instant) -> Result<(), Why> {
        let machine = machine_id(node).ok_or(Why::NoMachineId)?;
        let Some(directory) = self.below(&machine)? else {
            return Ok(());
        };
        let mut files = Vec::new();
        for name in place::names_below(&directory)? {
            let Ok(entry) = place::look(&directory, &name) else {
                continue; // Gone meanwhile.
            };
            if entry.kind.is_file() {
                files.push(journal_file(&directory, name, entry));
            }
        }
        let limits = Limits {
            from: self.policy.journal_keep.map(|keep| at.before(keep)),
            bytes_max: self.policy.journal_bytes_max,
            files_max: self.policy.journal_files_max,
        };
        let (goes, stays) = journal::judge(files, self.policy.journal_mode, limits);
        for (file, why) in stays {
            let kept = match why {
                journal::Kept::Unknown => Kept::Unknown,
                journal::Kept::Active => Kept::Active,
                journal::Kept::Wanted => Kept::Window,
                journal::Kept::NotUnderstood => Kept::NotUnderstood,
            };
            self.keep(kept, &file.entry);
        }
        for file in goes {
            // Compat mode is journalctl's, which knows no grace.
            let knows_grace = match self.policy.journal_mode {
                Mode::Strict => true,
                Mode::Compat => false,
            };
            if let Some(why) = self.stays_by_entries(&directory, &file, limits.from) {
                self.keep(why, &file.entry);
                continue;
            }
            self.take(&machine, &file.name, &file.entry, knows_grace);
        }
        Ok(())
    }

    /// Why a journal stays that by its head may go: one of its entries lies in the window, or they cannot all be read. That
    /// costs a read of the file, so it is done only where what is lost may be lost.
    fn stays_by_entries(
        &self,
        directory: &OwnedFd,
        file: &File,
        from: Option<Instant>,
    ) -> Option<Kept> {
        let is_read =
            self.policy.journal_mode == Mode::Strict && self.policy.consents_to(Reclaimer::Journal);
        if !is_read {
            return None;
        }
        let opened = place::open_file(directory, &file.name).ok();
        let latest = opened.and_then(|opened| journal::entries::latest(opened, file.entry.size));
        match (latest, from) {
            (Some(latest), Some(from)) if latest < from.micros() => None,
            (Some(_), _) => Some(Kept::Window),
            (None, _) => Some(Kept::NotUnderstood),
        }
    }

    /// Looks at every file of one directory.
    fn each(&mut self, path: &[u8], is_known: impl Fn(&[u8]) -> bool) -> Result<(), Errno> {
        let Some(directory) = self.below(path)? else {
            return Ok(());
        };
        for name in place::names_below(&directory)? {
            let Ok(entry) = place::look(&directory, &name) else {
                continue; // Gone meanwhile.
            };
            if entry.kind.is_dir() {
                continue;
            }
            if is_known(&name) {
                self.take(path, &name, &entry, true);
            } else {
                self.keep(Kept::Unknown, &entry);
            }
        }
        Ok(())
    }

    /// A directory below. None for what is none, is a link, lies behind a mount, or is where the root of an owner leads: nothing
    /// there is ours.
    fn below(&self, path: &[u8]) -> Result<Option<OwnedFd>, Errno> {
        let whole = self.directory.join(OsStr::from_bytes(path));
        if owned::owner_of(&whole, self.moved).is_some() {
            return Ok(None);
        }
        match place::open_below(self.base, path) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes a file whose name is known, unless something speaks against it.
    fn take(&mut self, directory: &[u8], name: &[u8], entry: &Entry, knows_grace: bool) {
        self.take_named(directory, name, entry, 1..=1, knows_grace);
    }

    /// The same for a file that may have so many names.
    fn take_named(
        &mut self,
        directory: &[u8],
        name: &[u8],
        entry: &Entry,
        links: RangeInclusive<u32>,
        knows_grace: bool,
    ) {
        let path = if directory.is_empty() {
            name.to_vec()
        } else {
            [directory, b"/", name].concat()
        };
        let whole = self.directory.join(OsStr::from_bytes(&path));
        let kept = if !entry.kind.is_file() {
            Some(Kept::Unknown)
        } else if entry.is_mount {
            Some(Kept::Mount)
        } else if !links.contains(&entry.links) {
            Some(Kept::Links)
        } else if self.policy.keeps(&whole) {
            Some(Kept::KeepList)
        } else if knows_grace && entry.touched() > self.settled {
            Some(Kept::Young)
        } else {
            None
        };
        match kept {
            Some(why) => self.keep(why, entry),
            None if self.items.len() >= FOUND_MAX => self.beyond += Tally::one(entry.blocks),
            None => self.items.push(Item::of(path, entry)),
        }
    }

    fn keep(&mut self, why: Kept, entry: &Entry) {
        count(&mut self.kept, why, Tally::one(entry.blocks));
    }

    fn oldest_first(&mut self) {
        self.items
            .sort_by(|one, other| (one.written, &one.path).cmp(&(other.written, &other.path)));
    }
}

pub(super) fn count(kept: &mut Vec<(Kept, Tally)>, why: Kept, tally: Tally) {
    match kept.iter_mut().find(|(known, _)| *known == why) {
        Some((_, sum)) => *sum += tally,
        None => kept.push((why, tally)),
    }
}

/// What snapd says it has.
pub(super) fn snap_list(clock: &dyn Clock) -> Result<String, AskError> {
    ask::ask(snaps::PROGRAM, &snaps::listing(), ANSWER, clock)
}

fn journal_file(directory: &OwnedFd, name: Vec<u8>, entry: Entry) -> File {
    let opened = place::open_file(directory, &name);
    let (head, made) = match &opened {
        Ok(file) => (Head::read(file, entry.size), made(file)),
        Err(error) => (Head::Unreadable(*error), None),
    };
    File {
        name,
        entry,
        head,
        made,
    }
}

/// When journald made the file, as it notes itself.
fn made(file: &OwnedFd) -> Option<u64> {
    let mut value = [0; 8];
    let read = rustix::fs::fgetxattr(file, c"user.crtime_usec", &mut value[..]).ok()?;
    (read == value.len()).then(|| u64::from_le_bytes(value))
}

/// As [`place::machine_id`], unless what lies on the way may not answer.
fn machine_id(node: &Node<'_>) -> Option<Vec<u8>> {
    if node.reach.refuses(Path::new("/etc/machine-id")).is_some() {
        return None;
    }
    place::machine_id(node.root).map(String::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Ten million files: what is held is bounded, the rest is counted.
    #[test]
    fn a_search_holds_no_more_than_its_limit() {
        let root = place::open_root(Path::new("/")).unwrap();
        let policy = Policy::at(Path::new("/"));
        let mut entry = place::look(&root, b"proc").unwrap();
        entry.kind = rustix::fs::FileType::RegularFile;
        (entry.links, entry.is_mount) = (1, false);
        let mut search = Search {
            policy: &policy,
            settled: Instant {
                seconds: i64::MAX,
                nanoseconds: 0,
            },
            directory: Path::new("/var/cache/apt"),
            base: &root,
            moved: &[],
            items: Vec::new(),
            beyond: Tally::default(),
            kept: Vec::new(),
        };
        for number in 0..FOUND_MAX + 7 {
            search.take(b"archives", number.to_string().as_bytes(), &entry, true);
        }
        assert_eq!((search.items.len(), search.beyond.inodes), (FOUND_MAX, 7));
        assert_eq!(search.kept, []);
    }
}
