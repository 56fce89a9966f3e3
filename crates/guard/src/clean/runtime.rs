//! Images and dead containers, which only their runtime removes: it is asked what it has, and asked to let some of it go.
//!
//! [`ask`] collects facts over the socket, [`judge`] says what may go and why the rest stays, [`books`] what comes back. Right
//! before each removal everything is asked and judged anew; nothing is ever unlinked below the runtime's directories.
//!
//! Where the runtime is away, hangs, lists no pod at all, or is starting a pod or pulling, nothing of this is done, and the
//! plan says why. There is no way to lock a runtime: between the last look and the removal some milliseconds remain, in which
//! a pod would have to be begun, find the image, and not be seen. It then pulls the image, as it does after kubelet's own
//! collection.

mod ask;
mod books;
mod judge;
mod names;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nagi_cri::Usage;

use super::discover::{Kept, Why};
use super::place::{self, Instant};
use super::plan::{Item, Owned};
use super::policy::{Policy, Reclaimer};
use super::reach::Reach;
use crate::blocks::{Blocks, Tally};
use crate::mounts::Device;
use ask::Runtime;
use books::{Graph, Piece};
use judge::{Candidate, Facts, Rules, Verdict};

pub use judge::Motion;

/// containerd collects before it answers, a gigabyte in some seconds; a disk that needs minutes is ill.
const REMOVAL: Duration = Duration::from_mins(2);
const SECOND: i128 = 1_000_000_000;

/// A look at the runtime of a node.
#[derive(Debug)]
pub(super) struct Asked {
    runtime: Runtime,
    facts: Facts,
    /// Where its images lie, on the node.
    pub(super) directory: PathBuf,
    at: Instant,
    now: Instant,
}

/// One kind of it: what goes in its order, and what stays.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    pub(super) items: Vec<Item>,
    pub(super) kept: Vec<(Kept, Tally)>,
}

/// Why something stayed after all.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not what the plan says, or may not go any more.
    Changed,
    /// A pod is being started, or an image pulled.
    Busy,
    /// The runtime does not say what it has.
    Away,
    /// It does not remove this one.
    Failed(String),
}

/// The runtime of a node and its facts. None where there is no runtime.
///
/// # Errors
/// The socket, and why nothing of this may be done.
pub(super) fn look(
    policy: &Policy,
    root: &OwnedFd,
    reach: &Reach,
    (at, now): (Instant, Instant),
) -> Result<Option<Asked>, (PathBuf, Why)> {
    let Some(runtime) = ask::runtime(root, reach)? else {
        return Ok(None);
    };
    let socket = runtime.socket.clone();
    let looked = || {
        let facts = runtime.facts(root, reach)?;
        if let Some(motion) = judge::motion(&facts, nanoseconds(now.before(policy.quiet))) {
            return Err(Why::RuntimeBusy(motion));
        }
        let directory = on_the_node(&runtime.directory()?, root);
        Ok((facts, directory))
    };
    let (facts, directory) = looked().map_err(|why| (socket, why))?;
    Ok(Some(Asked {
        runtime,
        facts,
        directory,
        at,
        now,
    }))
}

/// A runtime of the same root as this process names what lies below the node's root as this process sees it.
fn on_the_node(directory: &Path, root: &OwnedFd) -> PathBuf {
    let seen = place::path_of(root).unwrap_or_default();
    match directory.strip_prefix(&seen) {
        Ok(below) => Path::new("/").join(below),
        Err(_) => directory.to_owned(),
    }
}

// === impl Asked ===

impl Asked {
    /// What may go of one kind, and what each gives back when those before it are gone.
    ///
    /// # Errors
    /// The runtime does not say what it takes.
    pub(super) fn sort(
        &mut self,
        kind: Reclaimer,
        policy: &Policy,
        disk: Device,
    ) -> Result<Sorted, Why> {
        let verdict = self.judged(kind, policy);
        let mut sorted = Sorted::default();
        for (why, size) in &verdict.stays {
            let tally = Tally::one(Blocks(size.div_ceil(512)));
            super::discover::count(&mut sorted.kept, *why, tally);
        }
        sorted.items = match kind {
            Reclaimer::Images | Reclaimer::LocalImages => self.images(&verdict.goes, disk)?,
            Reclaimer::Containers => self.containers(&verdict.goes, disk)?,
            Reclaimer::Apt
            | Reclaimer::Snaps
            | Reclaimer::PodLogs
            | Reclaimer::Journal
            | Reclaimer::Coredumps => Vec::new(),
        };
        Ok(sorted)
    }

    fn judged(&self, kind: Reclaimer, policy: &Policy) -> Verdict {
        judged(kind, &self.facts, policy, (self.at, self.now))
    }

    fn images(&mut self, goes: &[Candidate], disk: Device) -> Result<Vec<Item>, Why> {
        let now = nanoseconds(self.now);
        let Some(books) = &mut self.facts.books else {
            return Ok(Vec::new());
        };
        let graph = Graph::of(books, now);
        let needed = goes
            .iter()
            .flat_map(|one| graph.of_image(&one.id, &one.names));
        let keys: BTreeSet<String> = needed
            .filter_map(|piece| match piece {
                Piece::Snapshot(key) => Some(key.to_owned()),
                Piece::Blob(_) => None,
            })
            .collect();
        drop(graph);
        self.runtime.measure(books, keys)?;
        let graph = Graph::of(books, now);
        let mut gone = BTreeSet::new();
        let mut before = graph.without(&gone);
        let mut items = Vec::new();
        for one in goes {
            gone.extend(
                books
                    .of_image(&one.id, &one.names)
                    .map(|record| record.name.as_str()),
            );
            let after = graph.without(&gone);
            let freed = before.difference(&after).map(|piece| graph.takes(*piece));
            let freed = freed.fold(Usage::default(), |sum, one| Usage {
                bytes: sum.bytes + one.bytes,
                inodes: sum.inodes + one.inodes,
            });
            items.push(item(one, disk, Some(freed)));
            before = after;
        }
        Ok(items)
    }

    fn containers(&mut self, goes: &[Candidate], disk: Device) -> Result<Vec<Item>, Why> {
        let key_of = |facts: &Facts, id: &str| {
            let mut records = facts.books.iter().flat_map(|books| &books.containers);
            records
                .find(|record| record.id == id)
                .map(|record| record.snapshot.clone())
        };
        let keys: Vec<Option<String>> = goes
            .iter()
            .map(|one| key_of(&self.facts, &one.id))
            .collect();
        if let Some(books) = &mut self.facts.books {
            self.runtime
                .measure(books, keys.iter().flatten().cloned().collect())?;
        }
        let usage = |key: &String| self.facts.books.as_ref()?.usage.get(key).copied();
        let all = goes.iter().zip(&keys);
        Ok(all
            .map(|(one, key)| item(one, disk, key.as_ref().and_then(usage)))
            .collect())
    }
}

fn judged(
    kind: Reclaimer,
    facts: &Facts,
    policy: &Policy,
    (at, now): (Instant, Instant),
) -> Verdict {
    let rules = Rules {
        settled: nanoseconds(at.before(policy.grace)),
        now: nanoseconds(now),
        keep: &policy.keep_images,
    };
    let is_pullable = match kind {
        Reclaimer::Images => true,
        Reclaimer::LocalImages => false,
        Reclaimer::Containers => return judge::containers(facts, rules),
        Reclaimer::Apt
        | Reclaimer::Snaps
        | Reclaimer::PodLogs
        | Reclaimer::Journal
        | Reclaimer::Coredumps => return Verdict::default(),
    };
    let mut verdict = judge::images(facts, rules);
    verdict.goes.retain(|one| one.is_pullable == is_pullable);
    if !is_pullable {
        // Said once, with the others.
        verdict.stays.clear();
    }
    verdict
}

fn item(one: &Candidate, device: Device, takes: Option<Usage>) -> Item {
    let known = takes.unwrap_or_default();
    Item {
        path: one.id.clone().into_bytes(),
        device,
        inode: 0,
        size: one.size,
        blocks: Blocks(known.bytes.div_ceil(512)),
        written: instant(one.at),
        links: 1,
        owned: Some(Owned {
            names: one.names.clone(),
            inodes: known.inodes,
            is_measured: takes.is_some(),
        }),
    }
}

/// Asks the runtime once more, and then to let one thing go.
///
/// # Errors
/// It stays.
pub(super) fn let_go(
    kind: Reclaimer,
    item: &Item,
    policy: &Policy,
    (root, reach): (&OwnedFd, &Reach),
    (at, now): (Instant, Instant),
) -> Result<(), Refusal> {
    let asked = look(policy, root, reach, (at, now)).map_err(|(_, why)| match why {
        Why::RuntimeBusy(_) => Refusal::Busy,
        Why::Link
        | Why::ReadOnly
        | Why::Type(_)
        | Why::Unreadable(_)
        | Why::OwnerElsewhere
        | Why::Owner(_)
        | Why::NotUnderstood
        | Why::Runtime(_)
        | Why::NoPods
        | Why::Manifest(_)
        | Why::NoMachineId => Refusal::Away,
    })?;
    let asked = asked.ok_or(Refusal::Away)?;
    let goes = asked.judged(kind, policy).goes;
    let may_go = goes
        .iter()
        .any(|one| item.is_owned_as(&self::item(one, item.device, None)));
    if !may_go {
        return Err(Refusal::Changed);
    }
    let id = String::from_utf8_lossy(&item.path);
    let within = policy.deadline.min(REMOVAL);
    let gone = if kind == Reclaimer::Containers {
        asked.runtime.remove_container(&id, within)
    } else {
        asked.runtime.remove_image(&id, within)
    };
    match gone {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::Failed("its owner said yes and kept it".to_owned())),
        Err(error) => Err(Refusal::Failed(error.to_string())),
    }
}

fn nanoseconds(at: Instant) -> i128 {
    i128::from(at.seconds) * SECOND + i128::from(at.nanoseconds)
}

fn instant(nanoseconds: i128) -> Instant {
    Instant {
        seconds: i64::try_from(nanoseconds.div_euclid(SECOND)).unwrap_or(i64::MAX),
        // Below a billion.
        nanoseconds: u32::try_from(nanoseconds.rem_euclid(SECOND)).unwrap_or(0),
    }
}
