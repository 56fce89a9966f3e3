//! What may go to make room, and who else has space: facts from where they are known, for the plan. Only data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::decide::bytes;
use crate::observed::Looked;

/// What would be given back on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeDisk {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Bytes.
    pub expected: u64,
    /// And inodes.
    pub expected_inodes: u64,
}

/// Files of one kind at one place that would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeStep {
    /// The kind, as `nagi disk clean` calls it.
    pub kind: String,
    /// `regenerable` or `lossy`.
    pub harm: String,
    /// Where.
    pub directory: PathBuf,
    /// How many.
    pub files: u64,
    /// What they give back.
    pub expected: u64,
    /// They may go as the command was given; what cannot be had again needs a word.
    pub has_consent: bool,
    /// Where the disk is mounted that they lie on.
    pub point: PathBuf,
}

/// One thing that would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeItem {
    /// What people know it by: its kind, and its path or name.
    pub name: String,
    /// Tells it from whatever was or will be of this name.
    pub state: String,
}

/// Space that no removal of ours gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeHeld {
    /// Where its disk is mounted; none where that is not known.
    pub point: Option<PathBuf>,
    /// Who has it, and how it comes back.
    pub what: String,
}

/// A place that was not looked at, so that nobody knows what might go from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeUnseen {
    /// What would be looked for, as `nagi disk clean` calls it.
    pub kind: String,
    /// Where.
    pub directory: PathBuf,
    /// Why it was not.
    pub why: String,
    /// Where its disk is mounted; none where that is not known.
    pub point: Option<PathBuf>,
}

/// What may go to make room, from where that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freeing {
    /// The digest of the plan of the disks.
    pub digest: String,
    /// For each disk.
    pub disks: Vec<FreeDisk>,
    /// In the order in which they go.
    pub steps: Vec<FreeStep>,
    /// Everything that goes by the steps that may be done.
    pub items: Vec<FreeItem>,
    /// Space that is in nobody's directory or only its owner gives back.
    pub held: Vec<FreeHeld>,
    /// Places that were not looked at.
    pub unseen: Vec<FreeUnseen>,
}

/// Differences between two plans are named up to so many: enough to see what is going on there.
const CHANGES_MAX: usize = 10;

// === impl Freeing ===

impl Freeing {
    /// What is other now than what was seen, in lines that each name one thing; at most [`CHANGES_MAX`], and how many more. None
    /// where only the amounts or their order differ.
    pub fn changes_since(&self, seen: &Self) -> Vec<String> {
        let of = |freeing: &Self| -> BTreeMap<String, String> {
            let items = freeing.items.iter().cloned();
            items.map(|one| (one.name, one.state)).collect()
        };
        let (was, is) = (of(seen), of(self));
        // Why a whole kind is not there any more comes before what is missing of it.
        let mut changes: Vec<String> = self
            .unseen
            .iter()
            .filter(|one| !seen.unseen.contains(one))
            .map(FreeUnseen::words)
            .collect();
        let looked_at = seen.unseen.iter().filter(|one| !self.unseen.contains(one));
        changes.extend(looked_at.map(|one| format!("looked at by now: {}", one.words())));
        changes.extend(was.iter().filter_map(|(name, state)| match is.get(name) {
            None => Some(format!("{name} went, or may not go any more")),
            Some(now) if now != state => Some(format!("{name} was written to or replaced")),
            Some(_) => None,
        }));
        let new = is.keys().filter(|name| !was.contains_key(*name));
        changes.extend(new.map(|name| format!("{name} came, or may go only now")));
        let more = changes.len().saturating_sub(CHANGES_MAX);
        if more > 0 {
            changes.truncate(CHANGES_MAX);
            changes.push(format!("and {more} more"));
        }
        changes
    }
}

// === impl FreeUnseen ===

impl FreeUnseen {
    /// In a line.
    pub fn words(&self) -> String {
        let Self {
            kind,
            directory,
            why,
            point: _,
        } = self;
        format!("{kind} at {} left alone: {why}", directory.display())
    }
}

/// What else would give space back on a disk: a word of the caller, what could not be looked at, or whoever holds it.
pub(super) fn instead(freeing: &Looked<Freeing>, point: &Path) -> Vec<String> {
    let Ok(freeing) = freeing else {
        return Vec::new();
    };
    let waits = freeing
        .steps
        .iter()
        .filter(|step| !step.has_consent && step.point == point);
    let waits: u64 = waits.map(|step| step.expected).sum();
    let is_here = |of: &Option<PathBuf>| of.as_deref().is_none_or(|one| one == point);
    let unseen = freeing.unseen.iter().filter(|one| is_here(&one.point));
    let held = freeing.held.iter().filter(|held| is_here(&held.point));
    let mut lines: Vec<String> = unseen.map(FreeUnseen::words).collect();
    lines.extend(held.map(|held| held.what.clone()));
    if waits > 0 {
        let lossy = format!(
            "--lossy would give back {}, which cannot be had again",
            bytes(waits)
        );
        lines.insert(0, lossy);
    }
    lines
}
