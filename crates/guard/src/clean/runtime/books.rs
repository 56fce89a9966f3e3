//! What containerd would collect: its books as a graph, and what is left of it without some images. Pure.
//!
//! containerd keeps what can be reached from a name of an image, a container, a lease that has not ended, or a mark
//! (`containerd.io/gc.root`), by the labels `containerd.io/gc.ref.…` and the parents of snapshots; the rest goes. So what an
//! image gives back is what only it reaches: layers that others share stay, and packed layers go with the unpacked ones
//! (docs/garbage-collection.md of containerd).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use nagi_cri::{Blob, ImageRecord, Ingest, Lease, Record, Snapshot, Usage};

use super::names;

const ROOT: &str = "containerd.io/gc.root";
const TO_CONTENT: &str = "containerd.io/gc.ref.content";
const TO_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";
const EXPIRES: &str = "containerd.io/gc.expire";
/// Filesystems give out whole blocks.
const BLOCK: u64 = 4096;
/// Beside its files a snapshot of overlayfs has its directory and the one for work.
const AROUND: u64 = 2 * BLOCK;

/// The books of containerd at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Books {
    pub(super) snapshotter: String,
    pub(super) records: Vec<ImageRecord>,
    pub(super) blobs: Vec<Blob>,
    pub(super) snapshots: Vec<Snapshot>,
    /// Of the snapshots that were asked about.
    pub(super) usage: BTreeMap<String, Usage>,
    pub(super) containers: Vec<Record>,
    pub(super) leases: Vec<Lease>,
    pub(super) ingests: Vec<Ingest>,
}

/// Something that takes space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Piece<'a> {
    Blob(&'a str),
    Snapshot(&'a str),
}

/// The books by name, for many questions.
pub(super) struct Graph<'a> {
    books: &'a Books,
    blobs: BTreeMap<&'a str, &'a Blob>,
    snapshots: BTreeMap<&'a str, &'a Snapshot>,
    /// What stays whatever image goes.
    held: BTreeSet<Piece<'a>>,
}

// === impl Books ===

impl Books {
    /// The names under which an image stands here.
    pub(super) fn of_image<'a>(
        &'a self,
        id: &'a str,
        names: &'a [String],
    ) -> impl Iterator<Item = &'a ImageRecord> {
        self.records
            .iter()
            .filter(move |record| record.name == id || names.contains(&record.name))
    }

    /// When one of its names was written last. None when nothing is known of it.
    pub(super) fn updated(&self, id: &str, names: &[String]) -> Option<i128> {
        self.of_image(id, names).map(|record| record.updated).max()
    }
}

/// It has not ended. One whose end cannot be understood has not.
fn holds(lease: &Lease, now: i128) -> bool {
    let ends = lease.labels.get(EXPIRES);
    let ends = ends.and_then(|text| text.parse::<Timestamp>().ok());
    ends.is_none_or(|ends| ends.as_nanosecond() > now)
}

// === impl Graph ===

impl<'a> Graph<'a> {
    pub(super) fn of(books: &'a Books, now: i128) -> Self {
        let mut graph = Self {
            books,
            blobs: books
                .blobs
                .iter()
                .map(|one| (one.digest.as_str(), one))
                .collect(),
            snapshots: books
                .snapshots
                .iter()
                .map(|one| (one.key.as_str(), one))
                .collect(),
            held: BTreeSet::new(),
        };
        let containers = books.containers.iter();
        let mut roots: Vec<Piece<'a>> = containers
            .map(|one| Piece::Snapshot(&one.snapshot))
            .collect();
        roots.extend(graph.leased_roots(now));
        let marked = books
            .blobs
            .iter()
            .filter(|one| one.labels.contains_key(ROOT));
        roots.extend(marked.map(|one| Piece::Blob(&one.digest)));
        let marked = books.snapshots.iter();
        let marked = marked.filter(|one| one.labels.contains_key(ROOT));
        roots.extend(marked.map(|one| Piece::Snapshot(&one.key)));
        graph.held = graph.reached(roots);
        graph
    }

    fn leased_roots(&self, now: i128) -> Vec<Piece<'a>> {
        let books = self.books;
        let leases = books.leases.iter().filter(|lease| holds(lease, now));
        let of_snapshotter = format!("snapshots/{}", books.snapshotter);
        leases
            .flat_map(|lease| &lease.resources)
            .filter_map(|(kind, id)| match kind.as_str() {
                "content" => Some(Piece::Blob(id.as_str())),
                kind if *kind == of_snapshotter => Some(Piece::Snapshot(id.as_str())),
                _ => None,
            })
            .collect()
    }

    /// Everything that somebody's lease names.
    pub(super) fn leased(&self, now: i128) -> BTreeSet<Piece<'a>> {
        self.leased_roots(now).into_iter().collect()
    }

    /// What an image needs.
    pub(super) fn of_image(&self, id: &str, names: &[String]) -> BTreeSet<Piece<'a>> {
        let records = self.books.records.iter();
        let own = records.filter(|record| record.name == id || names.contains(&record.name));
        self.reached(own.map(|record| Piece::Blob(&record.target)).collect())
    }

    /// What the images need that are left when these are gone, and what is held anyway.
    pub(super) fn without(&self, gone: &BTreeSet<&str>) -> BTreeSet<Piece<'a>> {
        let left = self.books.records.iter();
        let left = left.filter(|record| !gone.contains(record.name.as_str()));
        let mut reached = self.reached(left.map(|record| Piece::Blob(&record.target)).collect());
        reached.extend(&self.held);
        reached
    }

    /// What a piece takes.
    pub(super) fn takes(&self, piece: Piece<'_>) -> Usage {
        match piece {
            Piece::Blob(digest) => Usage {
                bytes: self
                    .blobs
                    .get(digest)
                    .map_or(0, |blob| blob.size.next_multiple_of(BLOCK)),
                inodes: 1,
            },
            Piece::Snapshot(key) => {
                let own = self.books.usage.get(key).copied().unwrap_or_default();
                Usage {
                    bytes: own.bytes + AROUND,
                    inodes: own.inodes + 2,
                }
            }
        }
    }

    fn reached(&self, roots: Vec<Piece<'a>>) -> BTreeSet<Piece<'a>> {
        let mut reached = BTreeSet::new();
        let mut left = roots;
        while let Some(piece) = left.pop() {
            if !self.is_there(piece) || !reached.insert(piece) {
                continue;
            }
            match piece {
                Piece::Blob(digest) => {
                    let blob = self.blobs.get(digest).copied();
                    left.extend(blob.into_iter().flat_map(|blob| self.named(&blob.labels)));
                }
                Piece::Snapshot(key) => {
                    if let Some(snapshot) = self.snapshots.get(key).copied() {
                        left.extend(self.named(&snapshot.labels));
                        left.push(Piece::Snapshot(&snapshot.parent));
                    }
                }
            }
        }
        reached
    }

    fn is_there(&self, piece: Piece<'_>) -> bool {
        match piece {
            Piece::Blob(digest) => self.blobs.contains_key(digest),
            Piece::Snapshot(key) => self.snapshots.contains_key(key),
        }
    }

    /// What labels name: `gc.ref.content`, `gc.ref.content.l.0`, `gc.ref.snapshot.overlayfs`, each maybe with more behind it.
    fn named(&self, labels: &'a BTreeMap<String, String>) -> Vec<Piece<'a>> {
        let named = |(label, value): (&'a String, &'a String)| {
            let ends = |rest: &str| rest.is_empty() || rest.starts_with(['.', '/']);
            if label.strip_prefix(TO_CONTENT).is_some_and(ends) {
                return Some(Piece::Blob(value.as_str()));
            }
            let rest = label.strip_prefix(TO_SNAPSHOT)?;
            let rest = rest.strip_prefix(self.books.snapshotter.as_str())?;
            ends(rest).then_some(Piece::Snapshot(value.as_str()))
        };
        labels.iter().filter_map(named).collect()
    }
}

/// The image of a container in containerd's own list.
pub(super) fn uses(record: &Record, id: &str, all: &[String]) -> bool {
    names::is_meant(&record.image, id, all)
}
