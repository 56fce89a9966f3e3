//! The books of containerd itself, which stand behind the same socket as its CRI: api/services of containerd 1.x and 2.x.
//!
//! The CRI tells neither when an image came, nor what it shares with others, nor what is being pulled. containerd does. Another
//! runtime has none of these methods ([`CallError::is_unknown_method`]).

use std::collections::BTreeMap;

use nagi_runtime::Deadline;

use crate::wire::{self, Value, fields, moment, text, with};
use crate::{CallError, Client};

/// Where containerd keeps what Kubernetes uses.
const NAMESPACE: &str = "k8s.io";
/// What answers in as many messages as it likes, also in none. All else answers in one.
const STREAMS: [&str; 2] = ["content.v1.Content/List", "snapshots.v1.Snapshots/List"];

/// A name of an image. One image has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// The name: with a tag, with a digest, or the digest of the configuration alone.
    pub name: String,
    /// Digest of the manifest or index that it stands for.
    pub target: String,
    /// When it was written last, in nanoseconds since 1970: a pull of an image that is here counts.
    pub updated: i128,
}

/// A piece of an image as it was pulled: a manifest, a configuration, a packed layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: String,
    /// How long it is, in bytes.
    pub size: u64,
    /// What it needs, and what keeps it: `containerd.io/gc.…`.
    pub labels: BTreeMap<String, String>,
}

/// An unpacked layer, or what a container writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The snapshotter that has it.
    pub snapshotter: String,
    /// Its key there.
    pub key: String,
    /// The key of the one below it; empty for the lowest.
    pub parent: String,
    /// It is complete, as a layer of an image is. Otherwise something is mounted from it: the files of a container, or an image
    /// that is a volume of a pod.
    pub is_layer: bool,
    /// As of [`Blob`].
    pub labels: BTreeMap<String, String>,
}

/// What a snapshot takes on the disk, without those below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// A container in containerd's own list, where sandboxes are containers too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// By which the CRI knows it too.
    pub id: String,
    /// The name of its image.
    pub image: String,
    /// The snapshotter that has what it writes to.
    pub snapshotter: String,
    /// The key of that.
    pub snapshot: String,
    /// When it was made, in nanoseconds since 1970.
    pub created: i128,
}

/// Somebody's hold on what no image needs yet: a pull under way, or one that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: String,
    /// When it was taken, in nanoseconds since 1970.
    pub created: i128,
    /// Labels; `containerd.io/gc.expire` says when it ends.
    pub labels: BTreeMap<String, String>,
    /// What it holds: kind (`content`, `snapshots/overlayfs`, `ingests`) and id.
    pub resources: Vec<(String, String)>,
}

/// A blob that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingest {
    /// What it will be.
    pub name: String,
    /// How much of it is here, in bytes.
    pub offset: u64,
    /// When it was begun, in nanoseconds since 1970.
    pub started: i128,
    /// When it was written to last, in nanoseconds since 1970.
    pub updated: i128,
}

// === impl Client ===

impl Client {
    /// The names of all images.
    ///
    /// # Errors
    /// The runtime does not answer, or is another one.
    pub async fn image_records(&self, deadline: Deadline) -> Result<Vec<ImageRecord>, CallError> {
        self.list("images.v1.Images/List", &[], image_record, deadline)
            .await
    }

    /// All blobs.
    ///
    /// # Errors
    /// As [`Self::image_records`].
    pub async fn blobs(&self, deadline: Deadline) -> Result<Vec<Blob>, CallError> {
        self.list("content.v1.Content/List", &[], blob, deadline)
            .await
    }

    /// All snapshots of a snapshotter.
    ///
    /// # Errors
    /// As [`Self::image_records`].
    pub async fn snapshots(
        &self,
        snapshotter: &str,
        deadline: Deadline,
    ) -> Result<Vec<Snapshot>, CallError> {
        let question = with(1, snapshotter.as_bytes());
        let read = |message: &[u8]| snapshot(snapshotter, message);
        self.list("snapshots.v1.Snapshots/List", &question, read, deadline)
            .await
    }

    /// What one of them takes.
    ///
    /// # Errors
    /// As [`Self::image_records`], or it is gone.
    pub async fn usage(
        &self,
        snapshotter: &str,
        key: &str,
        deadline: Deadline,
    ) -> Result<Usage, CallError> {
        let question = [with(1, snapshotter.as_bytes()), with(2, key.as_bytes())].concat();
        let answer = self
            .native("snapshots.v1.Snapshots/Usage", &question, deadline)
            .await?;
        let mut usage = Usage::default();
        for field in answer.first().into_iter().flat_map(|one| fields(one)) {
            match field.ok_or_else(CallError::not_understood)? {
                (1, Value::Number(bytes)) => usage.bytes = bytes,
                (2, Value::Number(inodes)) => usage.inodes = inodes,
                _ => {}
            }
        }
        Ok(usage)
    }

    /// All containers and sandboxes.
    ///
    /// # Errors
    /// As [`Self::image_records`].
    pub async fn records(&self, deadline: Deadline) -> Result<Vec<Record>, CallError> {
        self.list("containers.v1.Containers/List", &[], record, deadline)
            .await
    }

    /// All leases, with what they hold.
    ///
    /// # Errors
    /// As [`Self::image_records`].
    pub async fn leases(&self, deadline: Deadline) -> Result<Vec<Lease>, CallError> {
        let mut leases = self
            .list("leases.v1.Leases/List", &[], lease, deadline)
            .await?;
        for lease in &mut leases {
            let question = with(1, lease.id.as_bytes());
            let method = "leases.v1.Leases/ListResources";
            match self.list(method, &question, resource, deadline).await {
                Ok(resources) => lease.resources = resources,
                // It ended meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(leases)
    }

    /// What is being written.
    ///
    /// # Errors
    /// As [`Self::image_records`].
    pub async fn ingests(&self, deadline: Deadline) -> Result<Vec<Ingest>, CallError> {
        self.list("content.v1.Content/ListStatuses", &[], ingest, deadline)
            .await
    }

    /// Has containerd give up what is being written under this name, whoever writes it.
    ///
    /// # Errors
    /// As [`Self::image_records`], or it is gone.
    pub async fn abort(&self, ingest: &str, deadline: Deadline) -> Result<(), CallError> {
        let question = with(1, ingest.as_bytes());
        self.native("content.v1.Content/Abort", &question, deadline)
            .await
            .map(drop)
    }

    /// A list in one message, or in several: each has its rows in field 1.
    async fn list<T>(
        &self,
        method: &str,
        question: &[u8],
        read: impl Fn(&[u8]) -> Option<T>,
        deadline: Deadline,
    ) -> Result<Vec<T>, CallError> {
        let mut rows = Vec::new();
        for message in self.native(method, question, deadline).await? {
            rows.extend(wire::all(&message, 1, &read).ok_or_else(CallError::not_understood)?);
        }
        Ok(rows)
    }

    async fn native(
        &self,
        method: &str,
        question: &[u8],
        deadline: Deadline,
    ) -> Result<Vec<bytes::Bytes>, CallError> {
        let whole = format!("containerd.services.{method}");
        let answer = self.call(&whole, Some(NAMESPACE), question, deadline);
        let answer = answer.await?;
        if answer.is_empty() && !STREAMS.contains(&method) {
            return Err(CallError::not_understood());
        }
        Ok(answer)
    }
}

/// `Image`: name 1, target 3 (digest 2), updated 8.
fn image_record(message: &[u8]) -> Option<ImageRecord> {
    let mut listed = ImageRecord {
        name: String::new(),
        target: String::new(),
        updated: 0,
    };
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(name)) => listed.name = text(name),
            (3, Value::Bytes(target)) => {
                let digests = wire::all(target, 2, |digest| Some(text(digest)))?;
                listed.target = digests.into_iter().next().unwrap_or_default();
            }
            (8, Value::Bytes(at)) => listed.updated = moment(at)?,
            _ => {}
        }
    }
    Some(listed)
}

/// `Info`: digest 1, size 2, labels 5.
fn blob(message: &[u8]) -> Option<Blob> {
    let mut listed = Blob {
        digest: String::new(),
        size: 0,
        labels: BTreeMap::new(),
    };
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(digest)) => listed.digest = text(digest),
            (2, Value::Number(size)) => listed.size = size,
            (5, Value::Bytes(label)) => listed.labels.extend([wire::entry(label)?]),
            _ => {}
        }
    }
    Some(listed)
}

/// `Info`: name 1, parent 2, kind 3 (3 is committed), labels 6.
fn snapshot(snapshotter: &str, message: &[u8]) -> Option<Snapshot> {
    let mut listed = Snapshot {
        snapshotter: snapshotter.to_owned(),
        key: String::new(),
        parent: String::new(),
        is_layer: false,
        labels: BTreeMap::new(),
    };
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(key)) => listed.key = text(key),
            (2, Value::Bytes(parent)) => listed.parent = text(parent),
            (3, Value::Number(kind)) => listed.is_layer = kind == 3,
            (6, Value::Bytes(label)) => listed.labels.extend([wire::entry(label)?]),
            _ => {}
        }
    }
    Some(listed)
}

/// `Container`: id 1, image 3, snapshotter 6, snapshot key 7, created 8.
fn record(message: &[u8]) -> Option<Record> {
    let mut listed = Record {
        id: String::new(),
        image: String::new(),
        snapshotter: String::new(),
        snapshot: String::new(),
        created: 0,
    };
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(id)) => listed.id = text(id),
            (3, Value::Bytes(image)) => listed.image = text(image),
            (6, Value::Bytes(name)) => listed.snapshotter = text(name),
            (7, Value::Bytes(key)) => listed.snapshot = text(key),
            (8, Value::Bytes(at)) => listed.created = moment(at)?,
            _ => {}
        }
    }
    Some(listed)
}

/// `Lease`: id 1, created 2, labels 3.
fn lease(message: &[u8]) -> Option<Lease> {
    let mut listed = Lease {
        id: String::new(),
        created: 0,
        labels: BTreeMap::new(),
        resources: Vec::new(),
    };
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(id)) => listed.id = text(id),
            (2, Value::Bytes(at)) => listed.created = moment(at)?,
            (3, Value::Bytes(label)) => listed.labels.extend([wire::entry(label)?]),
            _ => {}
        }
    }
    Some(listed)
}

/// `Resource`: id 1, type 2; here the other way round.
fn resource(message: &[u8]) -> Option<(String, String)> {
    wire::entry(message).map(|(id, kind)| (kind, id))
}

/// `Status`: started 1, updated 2, ref 3, offset 4.
fn ingest(message: &[u8]) -> Option<Ingest> {
    let mut listed = Ingest {
        name: String::new(),
        offset: 0,
        started: 0,
        updated: 0,
    };
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(at)) => listed.started = moment(at)?,
            (2, Value::Bytes(at)) => listed.updated = moment(at)?,
            (3, Value::Bytes(name)) => listed.name = text(name),
            (4, Value::Number(offset)) => listed.offset = offset,
            _ => {}
        }
    }
    Some(listed)
}
