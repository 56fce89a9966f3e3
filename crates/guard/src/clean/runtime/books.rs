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
/// A pull marks with it what it fetched: behind it stands the registry, and as its value the repositories there. An import
/// marks nothing.
const SOURCE: &str = "containerd.io/distribution.source.";
/// The kind of a snapshot among what a lease holds; behind it stands the snapshotter.
const SNAPSHOTS: &str = "snapshots/";
const EXPIRES: &str = "containerd.io/gc.expire";
/// Filesystems give out whole blocks.
const BLOCK: u64 = 4096;
/// Beside its files a snapshot of overlayfs has its directory and the one for work.
const AROUND: u64 = 2 * BLOCK;

/// What is written lies in a directory of its own, beside four files of some bytes that say of it what it is.
pub(super) fn written(bytes: u64) -> Usage {
    Usage {
        bytes: bytes.next_multiple_of(BLOCK) + 5 * BLOCK,
        inodes: 6,
    }
}

/// The books of containerd at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Books {
    pub(super) records: Vec<ImageRecord>,
    pub(super) blobs: Vec<Blob>,
    pub(super) snapshots: Vec<Snapshot>,
    /// Of the snapshots that were asked about, by snapshotter and key.
    pub(super) usage: BTreeMap<Key, Usage>,
    pub(super) containers: Vec<Record>,
    pub(super) leases: Vec<Lease>,
    pub(super) ingests: Vec<Ingest>,
}

/// A snapshot by its snapshotter and its key there.
pub(super) type Key = (String, String);

/// Something that takes space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Piece<'a> {
    Blob(&'a str),
    /// Snapshotter and key.
    Snapshot(&'a str, &'a str),
}

/// The books by name, for many questions.
pub(super) struct Graph<'a> {
    books: &'a Books,
    blobs: BTreeMap<&'a str, &'a Blob>,
    snapshots: BTreeMap<(&'a str, &'a str), &'a Snapshot>,
    entries: Vec<Entry<'a>>,
    /// What stays whatever image goes.
    held: BTreeSet<Piece<'a>>,
}

/// A name of an image as it stands in the books. The CRI tells names in full; `ctr`, `nerdctl` and an import write what they
/// were given, or make one up.
struct Entry<'a> {
    record: &'a ImageRecord,
    in_full: String,
    /// What it needs: an image of the CRI is its configuration, so by that it is known whose name this is.
    needs: BTreeSet<Piece<'a>>,
}

// === impl Books ===

impl Books {
    /// The snapshotters that anything here speaks of: which ones a node uses only their traces tell. containerd 2 does not say
    /// it among its settings any more, and a class of runtimes may have one of its own.
    pub(super) fn snapshotters(&self) -> BTreeSet<String> {
        let labels = self.blobs.iter().flat_map(|one| one.labels.keys());
        let held = self.leases.iter().flat_map(|lease| &lease.resources);
        labels
            .filter_map(|label| snapshotter_of(label))
            .chain(held.filter_map(|(kind, _)| kind.strip_prefix(SNAPSHOTS)))
            .chain(self.containers.iter().map(|one| one.snapshotter.as_str()))
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// It holds what a pull fetches. A lease of a sandbox, which lasts as long as that, may hold such things too.
    pub(super) fn is_of_pull(&self, lease: &Lease, now: i128) -> bool {
        let is_sandbox = self.containers.iter().any(|one| one.id == lease.id);
        let is_fetched = |kind: &str| kind == "content" || kind == "ingests";
        let mut resources = lease.resources.iter();
        holds(lease, now) && !is_sandbox && resources.any(|(kind, _)| is_fetched(kind))
    }
}

/// Names as they are compared.
fn in_full(all: &[String]) -> BTreeSet<String> {
    all.iter().map(|name| names::in_full(name)).collect()
}

/// The snapshotter that a label names, which may have more behind a slash.
fn snapshotter_of(label: &str) -> Option<&str> {
    label.strip_prefix(TO_SNAPSHOT)?.split('/').next()
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
                .map(|one| ((one.snapshotter.as_str(), one.key.as_str()), one))
                .collect(),
            entries: Vec::new(),
            held: BTreeSet::new(),
        };
        let entry = |record: &'a ImageRecord| Entry {
            record,
            in_full: names::in_full(&record.name),
            needs: graph.reached(vec![Piece::Blob(&record.target)]),
        };
        graph.entries = books.records.iter().map(entry).collect();
        let containers = books.containers.iter();
        let mut roots: Vec<Piece<'a>> = containers
            .map(|one| Piece::Snapshot(&one.snapshotter, &one.snapshot))
            .collect();
        roots.extend(graph.leased_roots(now));
        let marked = books
            .blobs
            .iter()
            .filter(|one| one.labels.contains_key(ROOT));
        roots.extend(marked.map(|one| Piece::Blob(&one.digest)));
        let marked = books.snapshots.iter();
        let marked = marked.filter(|one| one.labels.contains_key(ROOT));
        roots.extend(marked.map(|one| Piece::Snapshot(&one.snapshotter, &one.key)));
        graph.held = graph.reached(roots);
        graph
    }

    fn leased_roots(&self, now: i128) -> Vec<Piece<'a>> {
        let books = self.books;
        let leases = books.leases.iter().filter(|lease| holds(lease, now));
        leases
            .flat_map(|lease| &lease.resources)
            .filter_map(|(kind, id)| match kind.as_str() {
                "content" => Some(Piece::Blob(id.as_str())),
                kind => {
                    let snapshotter = kind.strip_prefix(SNAPSHOTS)?;
                    Some(Piece::Snapshot(snapshotter, id.as_str()))
                }
            })
            .collect()
    }

    /// Everything that somebody's lease names.
    pub(super) fn leased(&self, now: i128) -> BTreeSet<Piece<'a>> {
        self.leased_roots(now).into_iter().collect()
    }

    /// The names under which an image stands here, whether the CRI tells them or not.
    pub(super) fn records(&self, id: &str, names: &[String]) -> Vec<&'a ImageRecord> {
        self.entries_of(id, names)
            .iter()
            .map(|entry| entry.record)
            .collect()
    }

    fn entries_of(&self, id: &str, names: &[String]) -> Vec<&Entry<'a>> {
        let told = in_full(names);
        let is_of = |entry: &&Entry<'a>| {
            entry.record.name == id
                || told.contains(&entry.in_full)
                || entry.needs.contains(&Piece::Blob(id))
        };
        let own: Vec<&Entry<'a>> = self.entries.iter().filter(is_of).collect();
        // A name for the same thing, of which the CRI has seen nothing yet.
        let targets: BTreeSet<&str> = own.iter().map(|one| &*one.record.target).collect();
        let all = self.entries.iter();
        all.filter(|entry| is_of(entry) || targets.contains(entry.record.target.as_str()))
            .collect()
    }

    /// It stands here under a name that the CRI does not tell, or tells only in full, or that in full is another image's too.
    /// Asked to remove such an image, containerd 1.6 takes the names that it tells and keeps the image.
    pub(super) fn has_odd_names(&self, id: &str, names: &[String]) -> bool {
        let is_odd = |entry: &&Entry<'a>| {
            let is_told = entry.record.name == id || names.contains(&entry.record.name);
            !is_told || !entry.needs.contains(&Piece::Blob(id))
        };
        self.entries_of(id, names).iter().any(is_odd)
    }

    /// When one of its names was written last. None when nothing is known of it.
    pub(super) fn updated(&self, id: &str, names: &[String]) -> Option<i128> {
        let records = self.records(id, names);
        records.iter().map(|record| record.updated).max()
    }

    /// What an image needs.
    pub(super) fn of_image(&self, id: &str, names: &[String]) -> BTreeSet<Piece<'a>> {
        let own = self.entries_of(id, names);
        own.iter().flat_map(|entry| &entry.needs).copied().collect()
    }

    /// It is known what each of these takes.
    pub(super) fn is_measured(&self, pieces: &BTreeSet<Piece<'a>>) -> bool {
        let mut pieces = pieces.iter();
        pieces.all(|piece| match *piece {
            Piece::Blob(_) => true,
            Piece::Snapshot(snapshotter, key) => {
                let whole = (snapshotter.to_owned(), key.to_owned());
                self.books.usage.contains_key(&whole)
            }
        })
    }

    /// A pull from its own registry has brought what this name stands for. That there is such a name says nothing, also where
    /// it has a digest: an import makes those too.
    pub(super) fn is_pulled(&self, name: &str) -> bool {
        let whole = names::in_full(name);
        let (registry, repository) = names::source(name);
        let label = format!("{SOURCE}{registry}");
        let is_marked = |entry: &Entry<'a>| {
            let blob = self.blobs.get(entry.record.target.as_str());
            let known = blob.and_then(|one| one.labels.get(&label));
            known.is_some_and(|known| known.split(',').any(|one| one == repository))
        };
        let mut own = self
            .entries
            .iter()
            .filter(|one| one.in_full == whole)
            .peekable();
        own.peek().is_some() && own.all(is_marked)
    }

    /// Something is mounted from an image: its uppermost layer lies right below what is no layer. A volume that is an image
    /// is seen by this alone, for no list of containers names that.
    pub(super) fn is_mounted(&self, id: &str, names: &[String]) -> bool {
        let tops: BTreeSet<Piece<'_>> = self
            .of_image(id, names)
            .into_iter()
            .filter_map(|piece| match piece {
                Piece::Blob(digest) => self.blobs.get(digest),
                Piece::Snapshot(..) => None,
            })
            .flat_map(|blob| named(&blob.labels))
            .filter(|piece| matches!(piece, Piece::Snapshot(..)))
            .collect();
        let mut mounted = self.books.snapshots.iter().filter(|one| !one.is_layer);
        mounted.any(|one| tops.contains(&Piece::Snapshot(&one.snapshotter, &one.parent)))
    }

    /// What the images need that are left when these are gone, and what is held anyway.
    pub(super) fn without(&self, gone: &BTreeSet<&str>) -> BTreeSet<Piece<'a>> {
        let left = self.entries.iter();
        let left = left.filter(|entry| !gone.contains(entry.record.name.as_str()));
        let mut reached: BTreeSet<Piece<'a>> =
            left.flat_map(|entry| &entry.needs).copied().collect();
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
            Piece::Snapshot(snapshotter, key) => {
                let whole = (snapshotter.to_owned(), key.to_owned());
                let own = self.books.usage.get(&whole).copied();
                let own = own.unwrap_or_default();
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
                    left.extend(blob.into_iter().flat_map(|blob| named(&blob.labels)));
                }
                Piece::Snapshot(snapshotter, key) => {
                    if let Some(snapshot) = self.snapshots.get(&(snapshotter, key)).copied() {
                        left.extend(named(&snapshot.labels));
                        left.push(Piece::Snapshot(snapshotter, &snapshot.parent));
                    }
                }
            }
        }
        reached
    }

    fn is_there(&self, piece: Piece<'_>) -> bool {
        match piece {
            Piece::Blob(digest) => self.blobs.contains_key(digest),
            Piece::Snapshot(snapshotter, key) => self.snapshots.contains_key(&(snapshotter, key)),
        }
    }
}

/// What labels name: `gc.ref.content`, `gc.ref.content.l.0`, `gc.ref.snapshot.overlayfs`, each maybe with more behind it.
fn named<'a>(labels: &'a BTreeMap<String, String>) -> Vec<Piece<'a>> {
    let named = |(label, value): (&'a String, &'a String)| {
        let ends = |rest: &str| rest.is_empty() || rest.starts_with(['.', '/']);
        if label.strip_prefix(TO_CONTENT).is_some_and(ends) {
            return Some(Piece::Blob(value.as_str()));
        }
        snapshotter_of(label).map(|name| Piece::Snapshot(name, value.as_str()))
    };
    labels.iter().filter_map(named).collect()
}

/// The image of a container in containerd's own list.
pub(super) fn uses(record: &Record, id: &str, all: &[String]) -> bool {
    names::is_meant(&record.image, id, all)
}
