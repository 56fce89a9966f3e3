//! The facts: what the runtime of a node says over its socket, and what the files of kubelet say of it.
//!
//! What is in use is listed last, so that a container which is made meanwhile is seen and its image stays, and so that nothing
//! lies between that list and a removal.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nagi_cri::kubelet::{self, Entry, Files, Kind, Kubelet};
use nagi_cri::{CallError, Client, ContainerState, Usage};
use nagi_runtime::Deadline;
use rustix::fs::FileType;
use rustix::io::Errno;
use serde::Deserialize;

use super::super::discover::Why;
use super::super::place;
use super::super::reach::Reach;
use super::books::{Books, Key};
use super::judge::{self, Facts};

/// A runtime that is well lists what it has within a second.
const ANSWER: Duration = Duration::from_secs(10);
/// All snapshots of one kind together are measured within this time, or counted as unknown: somebody waits for the plan.
const MEASURING: Duration = Duration::from_secs(30);
/// Dead containers of pods that are over of which it is asked how they ended; more than that are a node that is ill otherwise.
/// The rest stays.
const ENDED_MAX: usize = 1000;
/// Manifests and settings are some kilobytes.
const FILE_MAX: usize = 1 << 20;
/// gRPC's number for a snapshotter that containerd does not have.
const INVALID: u32 = 3;

/// Of which dead containers it is asked how they ended, beside those of pods that may go on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ends<'a> {
    OfNone,
    Of(&'a str),
    OfAll,
}

/// The runtime of a node.
#[derive(Debug)]
pub(super) struct Runtime {
    client: Client,
    /// As the node calls it.
    pub(super) socket: PathBuf,
    /// None where there is no kubelet.
    kubelet: Option<Kubelet>,
}

/// The files of a node, links followed as on the node and none into what may not answer.
#[derive(Debug, Clone, Copy)]
struct OnNode<'a>(&'a OwnedFd, &'a Reach);

/// What matters of a manifest.
#[derive(Debug, Deserialize)]
struct Manifest {
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    containers: Vec<OfContainer>,
    #[serde(default)]
    init_containers: Vec<OfContainer>,
    #[serde(default)]
    volumes: Vec<OfVolume>,
}

#[derive(Debug, Deserialize)]
struct OfContainer {
    image: Option<String>,
}

/// A volume may be an image.
#[derive(Debug, Deserialize)]
struct OfVolume {
    image: Option<OfImage>,
}

#[derive(Debug, Deserialize)]
struct OfImage {
    reference: Option<String>,
}

/// What matters of the settings of containerd's CRI.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    #[serde(default)]
    sandbox_image: String,
    #[serde(default)]
    containerd_root_dir: String,
}

/// The runtime of the node with this root. None where there is neither a socket nor a kubelet.
///
/// # Errors
/// There is a kubelet and no socket, a link is on the way to it, or kubelet's settings cannot be understood.
pub(super) fn runtime(root: &OwnedFd, reach: &Reach) -> Result<Option<Runtime>, (PathBuf, Why)> {
    let kubelet = kubelet_of(root, reach)?;
    let named = kubelet.clone().unwrap_or_default().socket();
    // The usual link, which is not followed.
    let socket = match named.strip_prefix("/var/run") {
        Ok(below) => Path::new("/run").join(below),
        Err(_) => named,
    };
    if let Some(fstype) = reach.refuses(&socket) {
        let why = Why::Type(fstype.to_owned());
        return Err((socket, why));
    }
    match place::kind(root, &socket) {
        Ok(_) => {}
        Err(Errno::NOENT | Errno::NOTDIR) if kubelet.is_none() => return Ok(None),
        Err(Errno::NOENT | Errno::NOTDIR) => {
            let why = Why::Runtime("there is no socket".to_owned());
            return Err((socket, why));
        }
        Err(error) => return Err((socket, error.into())),
    }
    let outside = place::path_of(root).map_err(|_| (socket.clone(), Errno::NOENT.into()))?;
    let below = socket.strip_prefix("/").unwrap_or(&socket);
    Ok(Some(Runtime {
        client: Client::at(&outside.join(below)),
        socket,
        kubelet,
    }))
}

/// None when there is no kubelet here.
///
/// # Errors
/// Its settings cannot be read or understood: nobody knows where its manifests and its socket are.
fn kubelet_of(root: &OwnedFd, reach: &Reach) -> Result<Option<Kubelet>, (PathBuf, Why)> {
    let settings = kubelet::settings(&OnNode(root, reach))?;
    match settings.broken.into_iter().next() {
        Some(file) => Err((file.clone(), Why::Manifest(file))),
        None => Ok(Some(settings.kubelet).filter(|_| settings.is_there)),
    }
}

/// The images that manifests of static pods name, links to manifests followed as kubelet does.
///
/// # Errors
/// One of them cannot be understood, or a link leads nowhere, perhaps only now: nobody knows what it needs.
fn named(kubelet: &Kubelet, root: &OwnedFd, reach: &Reach) -> Result<Vec<String>, Why> {
    let node = OnNode(root, reach);
    let mut all = Vec::new();
    for file in kubelet.manifest_files(&node)? {
        match node.read(&file)? {
            Some(bytes) => {
                let images = images_of(&bytes).ok_or_else(|| Why::Manifest(file.clone()));
                all.extend(images?);
            }
            None if file == kubelet.manifests() => {}
            None => return Err(Why::Manifest(file)),
        }
    }
    Ok(all)
}

/// The images that a manifest names. None when it cannot be understood.
fn images_of(manifest: &[u8]) -> Option<Vec<String>> {
    let manifest: Manifest = serde_saphyr::from_slice(manifest).ok()?;
    let Spec {
        containers,
        init_containers,
        volumes,
    } = manifest.spec;
    let all = containers.into_iter().chain(init_containers);
    let mounted = volumes.into_iter().filter_map(|one| one.image);
    Some(
        all.filter_map(|one| one.image)
            .chain(mounted.filter_map(|one| one.reference))
            .collect(),
    )
}

/// A file to which the way is gone without a link. None when it is not there.
///
/// # Errors
/// It cannot be read, or only a part of it: what is behind that would not be kept.
fn read(root: &OwnedFd, path: &Path) -> Result<Option<Vec<u8>>, Why> {
    let below = path.strip_prefix("/").unwrap_or(path);
    let file = match place::open_on_way(root, below.as_os_str().as_bytes()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = vec![0; FILE_MAX];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(&file, rest)? {
            0 => break,
            read => length += read,
        }
    }
    if length == FILE_MAX {
        return Err(Errno::FBIG.into());
    }
    bytes.truncate(length);
    Ok(Some(bytes))
}

// === impl Files for OnNode ===

impl Files for OnNode<'_> {
    type Error = Why;

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, Why> {
        let Self(root, reach) = self;
        read(root, &reach.real(root, file)?)
    }

    fn list(&self, directory: &Path) -> Result<Option<Vec<Entry>>, Why> {
        let Self(root, reach) = self;
        let real = reach.real(root, directory)?;
        let Some(base) = place::open_base(root, &real)? else {
            return Ok(None);
        };
        let mut entries = Vec::new();
        for name in place::names(&base)? {
            let Ok(entry) = place::look(&base, &name) else {
                continue; // Gone meanwhile.
            };
            let name = OsString::from_vec(name);
            let is_link = entry.kind.is_symlink();
            let kind = if is_link {
                self.behind(&real.join(&name))?
            } else {
                Self::kind(entry.kind)
            };
            entries.push(Entry {
                name,
                kind,
                is_link,
            });
        }
        Ok(Some(entries))
    }
}

// === impl OnNode ===

impl OnNode<'_> {
    /// What a link leads to.
    fn behind(&self, link: &Path) -> Result<Kind, Why> {
        let Self(root, reach) = self;
        match place::kind(root, &reach.real(root, link)?) {
            Ok(kind) => Ok(Self::kind(kind)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(Kind::Nowhere),
            Err(error) => Err(error.into()),
        }
    }

    fn kind(kind: FileType) -> Kind {
        match kind {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Nowhere,
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Kind::Other,
        }
    }
}

// === impl Runtime ===

impl Runtime {
    /// The facts of this moment, without what snapshots take. None where it is no runtime of a kubelet.
    ///
    /// # Errors
    /// The runtime does not answer, or answers what nobody should act on.
    pub(super) fn facts(
        &self,
        ends: Ends<'_>,
        (root, reach): (&OwnedFd, &Reach),
    ) -> Result<Option<Facts>, Why> {
        let named = named(&self.kubelet.clone().unwrap_or_default(), root, reach)?;
        let mut facts = match nagi_cri::wait(self.asked(ends)) {
            // containerd with its CRI switched off, as docker brings it.
            Err(error) if error.is_unknown_method() && self.kubelet.is_none() => return Ok(None),
            asked => asked.map_err(|error| failed(&error))?,
        };
        facts.named = named;
        if facts.containers.is_empty() && facts.sandboxes.is_empty() {
            return Err(Why::NoPods);
        }
        Ok(Some(facts))
    }

    async fn asked(&self, ends: Ends<'_>) -> Result<Facts, CallError> {
        let deadline = Deadline::in_(ANSWER);
        let client = &self.client;
        let mut facts = Facts {
            images: client.images(deadline).await?,
            ..Facts::default()
        };
        // This takes long where many are dead, so it comes first.
        self.look_at_use(&mut facts, deadline).await?;
        self.ask_how_they_ended(&mut facts, ends, deadline).await?;
        let settings = self.settings(deadline).await?;
        facts.pause = Some(settings.sandbox_image).filter(|name| !name.is_empty());
        facts.books = self.books(deadline).await?;
        self.look_at_use(&mut facts, deadline).await?;
        // Those that ended since: they are few.
        self.ask_how_they_ended(&mut facts, Ends::OfNone, deadline)
            .await?;
        Ok(facts)
    }

    async fn look_at_use(&self, facts: &mut Facts, deadline: Deadline) -> Result<(), CallError> {
        facts.sandboxes = self.client.sandboxes(deadline).await?;
        facts.containers = self.client.containers(deadline).await?;
        if let Some(books) = &mut facts.books {
            // Last of all: a sandbox that is being made stands here first.
            books.containers = self.client.records(deadline).await?;
        }
        Ok(())
    }

    /// How the dead containers ended that this was not asked of yet. Of those of a pod that may go on it is always asked:
    /// another may follow.
    async fn ask_how_they_ended(
        &self,
        facts: &mut Facts,
        ends: Ends<'_>,
        deadline: Deadline,
    ) -> Result<(), CallError> {
        let alive: BTreeSet<&str> = judge::alive(&facts.sandboxes);
        let mut others = 0;
        for one in &facts.containers {
            if one.state != ContainerState::Exited || facts.ended.contains_key(&one.id) {
                continue;
            }
            let matters = match ends {
                _ if alive.contains(one.sandbox.as_str()) => true,
                Ends::OfNone => false,
                Ends::Of(id) => one.id == id,
                Ends::OfAll => {
                    others += 1;
                    others <= ENDED_MAX
                }
            };
            if !matters {
                continue;
            }
            match self.client.ended(&one.id, deadline).await {
                Ok(ended) => drop(facts.ended.insert(one.id.clone(), ended)),
                // It went meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Those of the runtime's own, as far as it tells any.
    async fn settings(&self, deadline: Deadline) -> Result<Settings, CallError> {
        let told = self.client.settings(deadline).await?;
        let Some((_, text)) = told.iter().find(|(name, _)| name == "config") else {
            return Ok(Settings::default());
        };
        // The image of sandboxes stands in them.
        serde_saphyr::from_str(text)
            .map_err(|_| CallError::Failed("its settings cannot be understood".to_owned()))
    }

    /// None of a runtime that is not containerd.
    async fn books(&self, deadline: Deadline) -> Result<Option<Books>, CallError> {
        let client = &self.client;
        let records = match client.image_records(deadline).await {
            Err(error) if error.is_unknown_method() => return Ok(None),
            other => other?,
        };
        let mut books = Books {
            records,
            blobs: client.blobs(deadline).await?,
            leases: client.leases(deadline).await?,
            ingests: client.ingests(deadline).await?,
            containers: client.records(deadline).await?,
            ..Books::default()
        };
        for snapshotter in books.snapshotters() {
            match client.snapshots(&snapshotter, deadline).await {
                Ok(snapshots) => books.snapshots.extend(snapshots),
                // One that is switched off: nothing of it is mounted, and nothing comes back.
                Err(CallError::Refused { status, .. }) if status == INVALID => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(books))
    }

    /// Asks what these snapshots take. One that went meanwhile takes nothing. Of one that takes too long nobody knows it: a layer
    /// is looked up, but what a container wrote is walked, and it is large just where there is a reason to remove it.
    ///
    /// # Errors
    /// The runtime refuses, or fails.
    pub(super) fn measure(&self, books: &mut Books, keys: BTreeSet<Key>) -> Result<(), Why> {
        let asked = async {
            let whole = Deadline::in_(MEASURING);
            let mut usage = Vec::new();
            for key in keys {
                if whole.has_passed() {
                    break;
                }
                let deadline = Deadline::in_(ANSWER).earlier(whole);
                match self.client.usage(&key.0, &key.1, deadline).await {
                    Ok(takes) => usage.push((key, takes)),
                    Err(CallError::Silent(_)) => {}
                    Err(error) if error.is_not_found() => usage.push((key, Usage::default())),
                    Err(error) => return Err(error),
                }
            }
            Ok(usage)
        };
        books.usage.extend(wait(asked)?);
        Ok(())
    }

    /// Where images lie, as the runtime sees it.
    ///
    /// # Errors
    /// The runtime does not answer, or does not say it.
    pub(super) fn directory(&self) -> Result<PathBuf, Why> {
        let asked = async {
            let deadline = Deadline::in_(ANSWER);
            let told = self.client.image_directories(deadline).await?;
            if let Some(directory) = told.into_iter().next() {
                return Ok(directory);
            }
            // Until it has measured once containerd says nothing.
            Ok(self.settings(deadline).await?.containerd_root_dir)
        };
        let directory = wait(asked)?;
        if directory.is_empty() {
            return Err(Why::NotUnderstood);
        }
        Ok(PathBuf::from(directory))
    }

    /// Has an image removed, and makes sure that it is gone.
    ///
    /// # Errors
    /// The runtime does not do it.
    pub(super) fn remove_image(&self, id: &str, within: Duration) -> Result<bool, CallError> {
        nagi_cri::wait(async {
            self.client.remove_image(id, Deadline::in_(within)).await?;
            let left = self.client.images(Deadline::in_(ANSWER)).await?;
            Ok(left.iter().all(|image| image.id != id))
        })
    }

    /// The same for what a pull has written.
    ///
    /// # Errors
    /// The runtime does not do it.
    pub(super) fn abort(&self, ingest: &str, within: Duration) -> Result<bool, CallError> {
        nagi_cri::wait(async {
            self.client.abort(ingest, Deadline::in_(within)).await?;
            let left = self.client.ingests(Deadline::in_(ANSWER)).await?;
            Ok(left.iter().all(|one| one.name != ingest))
        })
    }

    /// The same for a container.
    ///
    /// # Errors
    /// The runtime does not do it.
    pub(super) fn remove_container(&self, id: &str, within: Duration) -> Result<bool, CallError> {
        nagi_cri::wait(async {
            self.client
                .remove_container(id, Deadline::in_(within))
                .await?;
            let left = self.client.containers(Deadline::in_(ANSWER)).await?;
            Ok(left.iter().all(|container| container.id != id))
        })
    }
}

fn wait<T>(calls: impl Future<Output = Result<T, CallError>>) -> Result<T, Why> {
    nagi_cri::wait(calls).map_err(|error| failed(&error))
}

fn failed(error: &CallError) -> Why {
    Why::Runtime(error.to_string())
}

#[cfg(test)]
mod tests;
