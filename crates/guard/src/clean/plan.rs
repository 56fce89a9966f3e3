//! The plan: a value that says which files go, in which order, and what that gives back.
//!
//! Choosing is pure. Kinds are taken in the order of their harm and files in the order of their kind, until the disk that
//! they lie on would be at the target, or the cap of the run is reached. What lacks consent is listed and not counted.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nagi_ports::Clock;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::CleanError;
use super::audit;
use super::discover::{self, Discovery, Kept, OnDisk, Skipped};
use super::owned::{self, Left};
use super::place::{self, Entry, Instant};
use super::policy::{Policy, Reclaimer};
use super::reach::Reach;
use crate::blocks::{Blocks, Tally};
use crate::filesystem::Space;
use crate::mounts::Device;

/// Files of one plan at most; the rest waits for the next run. All their records fit in the ring, which has 2,048 slots: one
/// for each with a short path, several for a long one, and up to [`audit::SLOTS_LOST`] that are passed over where it goes round.
pub const ITEMS_MAX: usize = audit::SLOTS - audit::SLOTS_LOST;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The moment for which ages were judged. Not part of the digest.
    pub at: Instant,
    /// What was allowed.
    pub policy: Policy,
    /// The least harmful first.
    pub steps: Vec<Step>,
    /// The disks of the steps. Not part of the digest: they fill while the plan is read.
    pub disks: Vec<Disk>,
    /// Places that are left alone.
    pub skipped: Vec<Skipped>,
    /// What only its owner may give back.
    pub left: Vec<Left>,
}

/// A disk, and what the plan does for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// What tells it from others.
    pub device: Device,
    /// Where it is seen.
    pub point: PathBuf,
    /// Its type.
    pub fstype: String,
    /// How full it was.
    pub space: Space,
    /// What has to go until the target is reached.
    pub needed: Needed,
    /// What the plan gives back, without steps that lack consent.
    pub expected: u64,
    /// And how many files.
    pub expected_inodes: u64,
}

/// What has to go from a disk until its target is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needed {
    /// Bytes, the reserve with them that fills up first.
    pub bytes: u64,
    /// Files. 0 where inodes have no limit, and on XFS, which makes them as long as there are blocks.
    pub inodes: u64,
}

/// One kind at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which kind.
    pub reclaimer: Reclaimer,
    /// Where, on the node.
    pub directory: PathBuf,
    /// The disk that it lies on.
    pub disk: Device,
    /// What it loses may be lost. A step without consent is not done.
    pub has_consent: bool,
    /// What goes, in this order.
    pub items: Vec<Item>,
    /// What may go too and is not needed for the target, or is more than the cap.
    pub spared: Tally,
    /// What stays, and why.
    pub kept: Vec<(Kept, Tally)>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Below the directory of its step, as bytes.
    pub path: Vec<u8>,
    /// Its filesystem; on btrfs its subvolume.
    pub device: Device,
    /// Its number there.
    pub inode: u64,
    /// How long it is.
    pub size: u64,
    /// What it takes.
    pub blocks: Blocks,
    /// When it was written.
    pub written: Instant,
    /// How many names it has.
    pub links: u32,
    /// What only its runtime removes: then the path is what the runtime calls it, and there is no inode.
    pub owned: Option<Owned>,
}

/// An image or a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// What people call it: the names of an image, or pod, container and attempt.
    pub names: Vec<String>,
    /// How many inodes come back with it.
    pub inodes: u64,
    /// Its runtime tells what comes back. Otherwise nobody knows all of it, and what is known counts towards the target; towards
    /// the cap of the run it counts at least as its runtime tells its size.
    pub is_measured: bool,
}

/// Tells plans apart: SHA-256 of everything that decides what is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

// === impl Item ===

impl Item {
    pub(super) fn of(path: Vec<u8>, entry: &Entry) -> Self {
        Self {
            path,
            device: entry.device,
            inode: entry.inode,
            size: entry.size,
            blocks: entry.blocks,
            written: entry.written,
            links: entry.links,
            owned: None,
        }
    }

    /// What comes back when this name goes: nothing where the file has another one.
    pub fn gives_back(&self) -> u64 {
        if self.links == 1 {
            self.blocks.bytes()
        } else {
            0
        }
    }

    /// What the cap of a run takes it for: what nobody has measured may be as much as its runtime says that it is.
    pub(super) fn counts_for_cap(&self) -> u64 {
        match &self.owned {
            Some(owned) if !owned.is_measured => self.gives_back().max(self.size),
            Some(_) | None => self.gives_back(),
        }
    }

    /// And so many inodes.
    pub fn gives_back_inodes(&self) -> u64 {
        match &self.owned {
            Some(owned) => owned.inodes,
            None => u64::from(self.links == 1),
        }
    }

    /// Its runtime still has the same under this name. What it gives back may be another amount: others share its layers.
    pub(super) fn is_owned_as(&self, other: &Self) -> bool {
        let names = |item: &Self| item.owned.as_ref().map(|owned| owned.names.clone());
        self.path == other.path
            && self.size == other.size
            && self.written == other.written
            && names(self) == names(other)
    }

    /// It is still what it was.
    pub(super) fn is(&self, entry: &Entry) -> bool {
        let now = Self::of(self.path.clone(), entry);
        *self == now && entry.kind.is_file() && !entry.is_mount
    }
}

// === impl Step ===

impl Step {
    /// What it gives back.
    pub fn expected(&self) -> u64 {
        self.items.iter().map(Item::gives_back).sum()
    }

    /// Where one of its files is, on the node.
    pub fn whole(&self, item: &Item) -> PathBuf {
        self.directory
            .join(Path::new(OsStr::from_bytes(&item.path)))
    }
}

// === impl Digest ===

impl Digest {
    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (place, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *place = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

// === impl Plan ===

impl Plan {
    /// The digest of it and of its moment, for a file that holds both: who carries that out relies on how old it is.
    pub fn seal(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(b"nagi disk plan at ");
        hash.update(self.at.seconds.to_le_bytes());
        hash.update(self.at.nanoseconds.to_le_bytes());
        hash.update(self.digest().0);
        Digest(hash.finalize().into())
    }

    /// Its digest. Every field that decides what is done is in it, each with its length, so that no two plans share one. The
    /// moment is not: what is old enough is in the files that are named, and the same world planned twice is one plan.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(bytes);
        };
        field(b"nagi disk plan 2");
        field(self.rules().as_bytes());
        for path in std::iter::once(&self.policy.root).chain(&self.policy.keep) {
            field(path.as_os_str().as_encoded_bytes());
        }
        for image in &self.policy.keep_images {
            field(image.as_bytes());
        }
        for step in &self.steps {
            field(step.reclaimer.name().as_bytes());
            field(step.directory.as_os_str().as_encoded_bytes());
            field(format!("{} {}", step.disk, step.has_consent).as_bytes());
            for item in &step.items {
                field(&item.path);
                let Item {
                    path: _,
                    device,
                    inode,
                    size,
                    blocks,
                    written,
                    links,
                    owned,
                } = item;
                let (seconds, nanoseconds) = (written.seconds, written.nanoseconds);
                let numbers = format!(
                    "{device} {inode} {size} {} {seconds} {nanoseconds} {links}",
                    blocks.0
                );
                field(numbers.as_bytes());
                if let Some(owned) = owned {
                    field(format!("{} {}", owned.inodes, owned.is_measured).as_bytes());
                    owned.names.iter().for_each(|name| field(name.as_bytes()));
                }
            }
        }
        Digest(hash.finalize().into())
    }

    /// What was allowed, but for its paths, as one text.
    fn rules(&self) -> String {
        let Policy {
            root: _,
            only,
            consent,
            target_percent,
            bytes_max,
            grace,
            quiet,
            keep: _,
            keep_images,
            journal_mode,
            journal_keep,
            journal_bytes_max,
            journal_files_max,
            deadline,
        } = &self.policy;
        let mut text = String::new();
        // Writing to a string cannot fail.
        write!(
            text,
            "{only:?} {consent:?} {target_percent} {bytes_max:?} {grace:?} {quiet:?} {journal_mode:?} {journal_keep:?} \
             {journal_bytes_max:?} {journal_files_max:?} {deadline:?} {}",
            keep_images.len()
        )
        .unwrap_or(());
        text
    }

    /// What it gives back, without steps that lack consent.
    pub fn expected(&self) -> u64 {
        self.with_consent().map(Step::expected).sum()
    }

    fn with_consent(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.has_consent)
    }

    /// Puts a disk among others, with what the plan does for it. A plan of a file has none of its own.
    pub(super) fn add_disk(&self, disks: &mut Vec<Disk>, on: &OnDisk) {
        let disk = disk_of(disks, on, self.policy.target_percent);
        let steps = || self.with_consent().filter(|step| step.disk == on.device);
        disk.expected = steps().map(Step::expected).sum();
        let items = steps().flat_map(|step| &step.items);
        disk.expected_inodes = items.map(Item::gives_back_inodes).sum();
    }
}

/// Plans for now. Owners that have something are asked what of it may go, each for at most ten seconds.
///
/// # Errors
/// The mounts or the root cannot be read, something that is to be kept is not there, or this kernel cannot keep to a directory. A single place that cannot be read is
/// no error: the plan says so.
pub fn plan(policy: &Policy, clock: &dyn Clock) -> Result<Plan, CleanError> {
    plan_where(policy, clock, |_| true)
}

/// The same for what lies on these disks, and nothing else.
///
/// # Errors
/// As [`plan()`].
pub fn plan_on(disks: &[Device], policy: &Policy, clock: &dyn Clock) -> Result<Plan, CleanError> {
    plan_where(policy, clock, |disk| disks.contains(&disk))
}

fn plan_where(
    policy: &Policy,
    clock: &dyn Clock,
    is_meant: impl Fn(Device) -> bool,
) -> Result<Plan, CleanError> {
    let at = Instant::now(clock);
    let root = super::open_root(&policy.root)?;
    let reach = Reach::of(&root)?;
    for path in &policy.keep {
        kept(path, &root, &reach).map_err(|source| CleanError::Keep {
            path: path.clone(),
            source,
        })?;
    }
    let mut discovery = discover::discover(policy, &root, &reach, at, clock);
    // Before anything is chosen: what lies elsewhere takes nothing of the cap.
    discovery.found.retain(|found| is_meant(found.disk.device));
    Ok(choose(policy, at, &discovery, owned::look(&root, &reach)))
}

/// A path that is to be kept is there, and is what is compared: without links and without a way up.
fn kept(path: &Path, root: &rustix::fd::OwnedFd, reach: &Reach) -> Result<(), Errno> {
    let goes_up = path
        .components()
        .any(|part| matches!(part, std::path::Component::ParentDir));
    if goes_up {
        return Err(Errno::INVAL);
    }
    if reach.refuses(path).is_some() {
        return Err(Errno::OPNOTSUPP);
    }
    place::kind(root, path).map(drop)
}

fn choose(policy: &Policy, at: Instant, discovery: &Discovery, left: Vec<Left>) -> Plan {
    let mut disks: Vec<Disk> = Vec::new();
    let mut steps = Vec::new();
    let mut cap = policy.bytes_max.unwrap_or(u64::MAX);
    // Slots of the ring: one run must not write over its own records.
    let mut room = ITEMS_MAX;
    for found in &discovery.found {
        let disk = disk_of(&mut disks, &found.disk, policy.target_percent);
        let has_consent = policy.consents_to(found.reclaimer);
        let mut step = Step {
            reclaimer: found.reclaimer,
            directory: found.directory.clone(),
            disk: found.disk.device,
            has_consent,
            items: Vec::new(),
            spared: found.beyond,
            kept: found.kept.clone(),
        };
        let (mut expected, mut inodes, mut cap_left) = (disk.expected, disk.expected_inodes, cap);
        let mut room_left = room;
        // What an image gives back counts on those before it being gone: they share layers.
        let goes_in_turn = found.reclaimer.is_of_runtime();
        for item in &found.items {
            let bytes = item.gives_back();
            let is_enough = disk.needed.is_met_by(expected, inodes);
            let slots = audit::slots(&audit::intent(&step, item));
            let has_gap = goes_in_turn && step.spared.inodes > 0;
            if is_enough || item.counts_for_cap() > cap_left || slots > room_left || has_gap {
                step.spared += Tally::one(item.blocks);
                continue;
            }
            expected = expected.saturating_add(bytes);
            inodes += item.gives_back_inodes();
            cap_left -= item.counts_for_cap();
            room_left -= slots;
            step.items.push(item.clone());
        }
        if has_consent {
            disk.expected = expected;
            disk.expected_inodes = inodes;
            cap = cap_left;
            room = room_left;
        }
        steps.push(step);
    }
    Plan {
        at,
        policy: policy.clone(),
        steps,
        disks,
        skipped: discovery.skipped.clone(),
        left,
    }
}

fn disk_of<'a>(disks: &'a mut Vec<Disk>, on: &OnDisk, target_percent: u8) -> &'a mut Disk {
    let known = disks.iter().position(|disk| disk.device == on.device);
    let at = known.unwrap_or_else(|| {
        disks.push(Disk {
            device: on.device,
            point: on.point.clone(),
            fstype: on.fstype.clone(),
            space: on.space,
            needed: needed(on, &on.space, target_percent),
            expected: 0,
            expected_inodes: 0,
        });
        disks.len() - 1
    });
    // It was found or pushed just now.
    &mut disks[at]
}

/// What has to go until df says the target or less, of bytes and of inodes. The first bytes that are freed on a full disk
/// fill the reserve up again, and df stands still meanwhile.
pub(super) fn needed(on: &OnDisk, space: &Space, target_percent: u8) -> Needed {
    let reserve = if space.bytes_available > 0 {
        space.reserved()
    } else {
        on.reserve
    };
    let above = |used: u64, whole: u64| {
        let goal = u128::from(whole) * u128::from(target_percent.min(100)) / 100;
        used.saturating_sub(u64::try_from(goal).unwrap_or(u64::MAX))
    };
    let has_limit = on.fstype != "xfs" && space.inodes > 0;
    Needed {
        bytes: above(space.used(), space.bytes.saturating_sub(reserve)),
        inodes: if has_limit {
            above(space.inodes_used(), space.inodes)
        } else {
            0
        },
    }
}

// === impl Needed ===

impl Needed {
    /// So much is enough.
    pub(super) const fn is_met_by(&self, bytes: u64, inodes: u64) -> bool {
        bytes >= self.bytes && inodes >= self.inodes
    }
}

#[cfg(test)]
mod tests;
