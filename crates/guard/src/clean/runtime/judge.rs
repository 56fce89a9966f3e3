//! Which images and containers may go, and why the others stay. Pure.
//!
//! An image stays that is pinned, used by any container (a dead one is evidence, and kubelet starts it anew), mounted as a volume,
//! that of sandboxes, named by a static pod, named by a person, held by a lease, under a name that the runtime does not tell, younger than the
//! grace, or of an age that nobody tells. Of dead containers the newest of each name stays, as kubelet keeps one, and all of a
//! pod that may still run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nagi_cri::{Container, ContainerState, Ended, Image, Lease, Sandbox};

use super::super::discover::Kept;
use super::books::{self, Books, Graph};
use super::names;

/// A pull is under way until its last layer is unpacked, and on a disk that is slow and full that takes minutes for each. What
/// still holds something after this time was given up: a lease ends by itself only after a day.
const PULL: Duration = Duration::from_hours(1);
/// As long as a lease of containerd lasts by itself.
const GIVEN_UP: Duration = Duration::from_hours(24);
/// Kubelet looks for an image that it did not get again after five minutes at the latest: a pod that has no container after
/// twice that time waits for something that does not come.
const BEGINNING: Duration = Duration::from_mins(10);

/// What a runtime said, and what the node says of it, at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) images: Vec<Image>,
    pub(super) containers: Vec<Container>,
    pub(super) sandboxes: Vec<Sandbox>,
    /// How containers ended that have.
    pub(super) ended: BTreeMap<String, Ended>,
    /// The image of sandboxes, as the runtime's settings have it.
    pub(super) pause: Option<String>,
    /// Images that manifests of static pods name.
    pub(super) named: Vec<String>,
    /// None of a runtime that has none.
    pub(super) books: Option<Books>,
}

/// By which images and containers are judged. Instants are nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// What is younger than this stays.
    pub(super) settled: i128,
    /// For leases, which end.
    pub(super) now: i128,
    pub(super) keep: &'a [String],
}

/// Something under way, for which everything may be needed in a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    /// An image is being pulled or imported.
    Pull,
    /// A pod is being started.
    Pod,
}

/// One that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) id: String,
    pub(super) names: Vec<String>,
    /// Of an image, as its runtime tells it.
    pub(super) size: u64,
    /// When its name was written last, or when it ended.
    pub(super) at: i128,
    /// Each of its names was pulled, so its registry has it.
    pub(super) is_pullable: bool,
}

/// What came of judging.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// The oldest first.
    pub(super) goes: Vec<Candidate>,
    /// Why others stay, and what they take as far as the runtime tells it.
    pub(super) stays: Vec<(Kept, u64)>,
}

/// Something is under way: an image that nothing uses yet may be in use in a moment.
///
/// A pull has a lease on what it has fetched until everything is unpacked; what it writes shows only at the beginning. Kubelet
/// makes the sandbox of a pod first, and then looks for the image of each container and makes that. So a pod is being started
/// while its sandbox has no container, when that or its newest container is young, or when one of its containers has just
/// ended well: then the next one follows, as after an init container. One that runs longer cannot be told from a pod that is
/// complete.
pub(super) fn motion(facts: &Facts, now: i128, quiet: Duration) -> Option<Motion> {
    let since = |span: Duration| {
        let span = i128::try_from(span.as_nanos()).unwrap_or(i128::MAX);
        now.saturating_sub(span)
    };
    if let Some(books) = &facts.books {
        let is_written = books.ingests.iter().any(|one| one.updated > since(quiet));
        let is_pull = |lease: &Lease| {
            lease.created > since(quiet)
                || (lease.created > since(PULL) && books.is_of_pull(lease, now))
        };
        if is_written || books.leases.iter().any(is_pull) {
            return Some(Motion::Pull);
        }
        let mut made = books.containers.iter();
        if made.any(|one| one.created > since(quiet)) {
            return Some(Motion::Pod);
        }
    }
    let has_container = |id: &str| facts.containers.iter().any(|one| one.sandbox == id);
    let begins = |one: &Sandbox| {
        one.created > since(quiet)
            || (one.is_ready && one.created > since(BEGINNING) && !has_container(&one.id))
    };
    let is_made = facts.sandboxes.iter().any(begins)
        || facts
            .containers
            .iter()
            .any(|one| one.created > since(quiet));
    let follows = |ended: &Ended| ended.code == 0 && ended.at > since(quiet);
    (is_made || facts.ended.values().any(follows)).then_some(Motion::Pod)
}

/// Which images may go.
pub(super) fn images(facts: &Facts, rules: Rules<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let graph = facts
        .books
        .as_ref()
        .map(|books| Graph::of(books, rules.now));
    let leased = graph.as_ref().map(|graph| graph.leased(rules.now));
    for image in &facts.images {
        let names = names_of(image);
        let updated = graph
            .as_ref()
            .and_then(|graph| graph.updated(&image.id, &names));
        let is_leased = || match (&graph, &leased) {
            (Some(graph), Some(leased)) => !graph.of_image(&image.id, &names).is_disjoint(leased),
            (Some(_) | None, _) => false,
        };
        let means = |reference: &String| names::is_meant(reference, &image.id, &names);
        let is_listed = |names: &[String]| {
            let mut keep = rules.keep.iter();
            keep.any(|kept| names::lists(kept, &image.id, names))
        };
        let is_mounted = || {
            let graph = graph.as_ref();
            graph.is_some_and(|graph| graph.is_mounted(&image.id, &names))
        };
        let is_odd = || {
            let graph = graph.as_ref();
            graph.is_some_and(|graph| graph.has_odd_names(&image.id, &names))
        };
        let is_pulled = |name: &String| graph.as_ref().is_some_and(|graph| graph.is_pulled(name));
        let kept = if image.is_pinned {
            Some(Kept::Pinned)
        } else if is_used(facts, image, &names) || is_mounted() {
            Some(Kept::Used)
        } else if facts.pause.as_ref().is_some_and(means) || names::is_like_pause(&names) {
            Some(Kept::Sandbox)
        } else if facts.named.iter().any(means) {
            Some(Kept::Manifest)
        } else if is_listed(&names) {
            Some(Kept::KeepList)
        } else if is_leased() {
            Some(Kept::Leased)
        } else if is_odd() {
            Some(Kept::NotUnderstood)
        } else {
            match updated {
                None => Some(Kept::AgeUnknown),
                Some(at) if at > rules.settled => Some(Kept::Young),
                Some(_) => None,
            }
        };
        match (kept, updated) {
            (None, Some(at)) => verdict.goes.push(Candidate {
                id: image.id.clone(),
                is_pullable: !names.is_empty() && names.iter().all(is_pulled),
                names,
                size: image.size,
                at,
            }),
            (kept, _) => verdict
                .stays
                .push((kept.unwrap_or(Kept::AgeUnknown), image.size)),
        }
    }
    verdict.oldest_first();
    verdict
}

/// An entry of a person's list that names no image. Nobody knows which one should stay.
pub(super) fn names_none<'a>(facts: &Facts, keep: &'a [String]) -> Option<&'a String> {
    keep.iter().find(|kept| {
        let mut images = facts.images.iter();
        !images.any(|image| names::lists(kept, &image.id, &names_of(image)))
    })
}

fn names_of(image: &Image) -> Vec<String> {
    image.tags.iter().chain(&image.digests).cloned().collect()
}

fn is_used(facts: &Facts, image: &Image, names: &[String]) -> bool {
    let means = |reference: &String| names::is_meant(reference, &image.id, names);
    let by_container = |one: &Container| one.images.iter().any(means);
    let books = facts.books.as_ref();
    let mut records = books.into_iter().flat_map(|books| &books.containers);
    facts.containers.iter().any(by_container)
        || records.any(|record| books::uses(record, &image.id, names))
}

/// Which pulls were given up: nothing was written to them for a day, and no lease that is younger holds them. containerd ends
/// a lease after that time, but lets go only of what it comes by when it collects for another reason.
pub(super) fn pulls(facts: &Facts, rules: Rules<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let Some(books) = &facts.books else {
        return verdict;
    };
    let day = i128::try_from(GIVEN_UP.as_nanos()).unwrap_or(i128::MAX);
    let since = rules.now.saturating_sub(day);
    let is_held = |name: &str| {
        let mut leases = books.leases.iter().filter(|lease| lease.created > since);
        leases.any(|lease| {
            let mut held = lease.resources.iter();
            held.any(|(kind, id)| kind == "ingests" && id == name)
        })
    };
    for one in &books.ingests {
        if is_held(&one.name) {
            verdict.stays.push((Kept::Leased, one.offset));
        } else if one.updated > since.min(rules.settled) {
            verdict.stays.push((Kept::Young, one.offset));
        } else {
            verdict.goes.push(Candidate {
                id: one.name.clone(),
                names: vec![one.name.clone()],
                size: one.offset,
                at: one.updated,
                is_pullable: true,
            });
        }
    }
    verdict.oldest_first();
    verdict
}

/// Which dead containers may go.
pub(super) fn containers(facts: &Facts, rules: Rules<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let alive = alive(&facts.sandboxes);
    // Kubelet counts a restart by the newest dead one, and shows its log.
    let mut newest: BTreeMap<(&str, &str, &str, &str), (u32, i128)> = BTreeMap::new();
    for one in facts.containers.iter().filter(|one| is_dead(one)) {
        let age = (one.attempt, one.created);
        let known = newest.entry(name_of(one)).or_insert(age);
        *known = age.max(*known);
    }
    for one in &facts.containers {
        let ended = facts.ended.get(&one.id).filter(|ended| ended.at > 0);
        let is_newest = newest.get(&name_of(one)) == Some(&(one.attempt, one.created));
        let kept = if !is_dead(one) {
            Some(Kept::Active)
        } else if alive.contains(one.sandbox.as_str()) {
            Some(Kept::PodAlive)
        } else if is_newest {
            Some(Kept::Newest)
        } else {
            match ended {
                None => Some(Kept::AgeUnknown),
                Some(ended) if ended.at > rules.settled => Some(Kept::Young),
                Some(_) => None,
            }
        };
        match (kept, ended) {
            (None, Some(ended)) => verdict.goes.push(Candidate {
                id: one.id.clone(),
                names: vec![
                    format!("{}/{}/{}", one.namespace, one.pod, one.name),
                    format!("attempt {}", one.attempt),
                ],
                size: 0,
                at: ended.at,
                is_pullable: false,
            }),
            (kept, _) => verdict.stays.push((kept.unwrap_or(Kept::AgeUnknown), 0)),
        }
    }
    verdict.oldest_first();
    verdict
}

/// The sandboxes of pods that may go on.
pub(super) fn alive(sandboxes: &[Sandbox]) -> BTreeSet<&str> {
    let ready = sandboxes.iter().filter(|one| one.is_ready);
    ready.map(|one| one.id.as_str()).collect()
}

fn is_dead(container: &Container) -> bool {
    container.state == ContainerState::Exited
}

fn name_of(one: &Container) -> (&str, &str, &str, &str) {
    (&one.namespace, &one.pod, &one.uid, &one.name)
}

// === impl Verdict ===

impl Verdict {
    fn oldest_first(&mut self) {
        self.goes
            .sort_by(|one, other| (one.at, &one.id).cmp(&(other.at, &other.id)));
    }
}

#[cfg(test)]
mod tests;
