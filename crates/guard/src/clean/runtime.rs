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
use ask::{Ends, Runtime};
use books::{Graph, Key, Piece};
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
    /// Where its images really lie, on the node.
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
    let ends = if policy.asks_for(Reclaimer::Containers) {
        Ends::OfAll
    } else {
        Ends::OfNone
    };
    let looked = || {
        let Some(facts) = at_rest(&runtime, ends, policy, (root, reach), now)? else {
            return Ok(None);
        };
        let named = on_the_node(&runtime.directory()?, root);
        // Its root may be a link, to a disk for data.
        let directory = reach.real(root, &named)?;
        Ok(Some((facts, directory)))
    };
    let Some((facts, directory)) = looked().map_err(|why| (socket, why))? else {
        return Ok(None);
    };
    Ok(Some(Asked {
        runtime,
        facts,
        directory,
        at,
        now,
    }))
}

/// The facts of a runtime with nothing under way. None as of [`Runtime::facts`].
fn at_rest(
    runtime: &Runtime,
    ends: Ends<'_>,
    policy: &Policy,
    node: (&OwnedFd, &Reach),
    now: Instant,
) -> Result<Option<Facts>, Why> {
    let Some(facts) = runtime.facts(ends, node)? else {
        return Ok(None);
    };
    match judge::motion(&facts, nanoseconds(now), policy.quiet) {
        Some(motion) => Err(Why::RuntimeBusy(motion)),
        None => Ok(Some(facts)),
    }
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
    /// The runtime does not say what it takes, or an image that is to be kept is not there.
    pub(super) fn sort(
        &mut self,
        kind: Reclaimer,
        policy: &Policy,
        disk: Device,
    ) -> Result<Sorted, Why> {
        let verdict = self.judged(kind, policy);
        // What was to be kept may go under the name that it really has.
        let is_image = matches!(kind, Reclaimer::Images | Reclaimer::LocalImages);
        if is_image
            && !verdict.goes.is_empty()
            && let Some(kept) = judge::names_none(&self.facts, &policy.keep_images)
        {
            return Err(Why::KeepImage(kept.clone()));
        }
        let mut sorted = Sorted::default();
        for (why, size) in &verdict.stays {
            let tally = Tally::one(Blocks(size.div_ceil(512)));
            super::discover::count(&mut sorted.kept, *why, tally);
        }
        sorted.items = match kind {
            Reclaimer::Images | Reclaimer::LocalImages => {
                // Those of the kind before are gone by then, and what both share with them.
                let earlier = match kind {
                    Reclaimer::LocalImages if policy.asks_for(Reclaimer::Images) => {
                        self.judged(Reclaimer::Images, policy).goes
                    }
                    Reclaimer::LocalImages
                    | Reclaimer::Images
                    | Reclaimer::Apt
                    | Reclaimer::Pulls
                    | Reclaimer::Containers
                    | Reclaimer::Snaps
                    | Reclaimer::PodLogs
                    | Reclaimer::Journal
                    | Reclaimer::Coredumps => Vec::new(),
                };
                self.images(&earlier, &verdict.goes, disk)?
            }
            Reclaimer::Containers => self.containers(&verdict.goes, disk)?,
            Reclaimer::Pulls => {
                let all = verdict.goes.iter();
                all.map(|one| item(one, disk, Some(books::written(one.size))))
                    .collect()
            }
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

    /// What each of these gives back, when those before it and the earlier ones are gone.
    fn images(
        &mut self,
        earlier: &[Candidate],
        goes: &[Candidate],
        disk: Device,
    ) -> Result<Vec<Item>, Why> {
        let now = nanoseconds(self.now);
        let Some(books) = &mut self.facts.books else {
            return Ok(Vec::new());
        };
        let graph = Graph::of(books, now);
        let needed = goes
            .iter()
            .flat_map(|one| graph.of_image(&one.id, &one.names));
        let keys: BTreeSet<Key> = needed
            .filter_map(|piece| match piece {
                Piece::Snapshot(snapshotter, key) => Some((snapshotter.to_owned(), key.to_owned())),
                Piece::Blob(_) => None,
            })
            .collect();
        drop(graph);
        self.runtime.measure(books, keys)?;
        let graph = Graph::of(books, now);
        let names_of = |one: &Candidate| {
            let records = graph.records(&one.id, &one.names);
            records.into_iter().map(|record| record.name.as_str())
        };
        let mut gone: BTreeSet<&str> = earlier.iter().flat_map(names_of).collect();
        let mut before = graph.without(&gone);
        let mut items = Vec::new();
        for one in goes {
            let records = graph.records(&one.id, &one.names);
            gone.extend(records.iter().map(|record| record.name.as_str()));
            let after = graph.without(&gone);
            let freed: BTreeSet<Piece<'_>> = before.difference(&after).copied().collect();
            let is_measured = !records.is_empty() && graph.is_measured(&freed);
            let all = freed.iter().map(|piece| graph.takes(*piece));
            let freed = all.fold(Usage::default(), |sum, one| Usage {
                bytes: sum.bytes + one.bytes,
                inodes: sum.inodes + one.inodes,
            });
            let mut item = item(one, disk, Some(freed));
            if let Some(owned) = &mut item.owned {
                owned.is_measured = is_measured;
            }
            items.push(item);
            before = after;
        }
        Ok(items)
    }

    fn containers(&mut self, goes: &[Candidate], disk: Device) -> Result<Vec<Item>, Why> {
        let key_of = |facts: &Facts, id: &str| {
            let mut records = facts.books.iter().flat_map(|books| &books.containers);
            records
                .find(|record| record.id == id)
                .map(|record| (record.snapshotter.clone(), record.snapshot.clone()))
        };
        let keys: Vec<Option<Key>> = goes
            .iter()
            .map(|one| key_of(&self.facts, &one.id))
            .collect();
        if let Some(books) = &mut self.facts.books {
            self.runtime
                .measure(books, keys.iter().flatten().cloned().collect())?;
        }
        let usage = |key: &Key| self.facts.books.as_ref()?.usage.get(key).copied();
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
        Reclaimer::Pulls => return judge::pulls(facts, rules),
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
    let refused = |why| match why {
        Why::RuntimeBusy(_) => Refusal::Busy,
        Why::Link
        | Why::BelongsTo(_)
        | Why::ReadOnly
        | Why::Type(_)
        | Why::Unreadable(_)
        | Why::OwnerElsewhere
        | Why::Owner(_)
        | Why::NotUnderstood
        | Why::Runtime(_)
        | Why::NoPods
        | Why::Manifest(_)
        | Why::KeepImage(_)
        | Why::NoMachineId => Refusal::Away,
    };
    let runtime = ask::runtime(root, reach).map_err(|(_, why)| refused(why))?;
    let runtime = runtime.ok_or(Refusal::Away)?;
    let id = String::from_utf8_lossy(&item.path);
    let ends = if kind == Reclaimer::Containers {
        Ends::Of(&id)
    } else {
        Ends::OfNone
    };
    // Nothing but judging comes between these and the removal.
    let facts = at_rest(&runtime, ends, policy, (root, reach), now).map_err(refused)?;
    let facts = facts.ok_or(Refusal::Away)?;
    let goes = judged(kind, &facts, policy, (at, now)).goes;
    let may_go = goes
        .iter()
        .any(|one| item.is_owned_as(&self::item(one, item.device, None)));
    if !may_go {
        return Err(Refusal::Changed);
    }
    let within = policy.deadline.min(REMOVAL);
    let gone = match kind {
        Reclaimer::Containers => runtime.remove_container(&id, within),
        Reclaimer::Pulls => runtime.abort(&id, within),
        Reclaimer::Images
        | Reclaimer::LocalImages
        | Reclaimer::Apt
        | Reclaimer::Snaps
        | Reclaimer::PodLogs
        | Reclaimer::Journal
        | Reclaimer::Coredumps => runtime.remove_image(&id, within),
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
