//! The facts: what the runtime of a node says over its socket, and what the files of kubelet say of it.
//!
//! The images are listed before the containers, so that a container which is made meanwhile is seen and its image stays.

use std::collections::BTreeSet;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nagi_cri::{CallError, Client, ContainerState};
use nagi_runtime::Deadline;
use rustix::io::Errno;
use serde::Deserialize;

use super::super::discover::Why;
use super::super::place;
use super::super::reach::Reach;
use super::books::Books;
use super::judge::Facts;
use crate::kubelet;

/// A runtime that is well lists what it has within a second.
const ANSWER: Duration = Duration::from_secs(10);
/// Dead containers of which it is asked how they ended; more than that are a node that is ill otherwise. The rest stays.
const ENDED_MAX: usize = 1000;
/// Manifests and settings are some kilobytes.
const FILE_MAX: usize = 1 << 20;
/// Where kubeadm puts manifests of static pods.
const MANIFESTS: &str = "/etc/kubernetes/manifests";
const SNAPSHOTTER: &str = "overlayfs";

/// The runtime of a node.
#[derive(Debug)]
pub(super) struct Runtime {
    client: Client,
    /// As the node calls it.
    pub(super) socket: PathBuf,
}

/// What matters of kubelet's settings.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kubelet {
    container_runtime_endpoint: Option<String>,
    static_pod_path: Option<PathBuf>,
}

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
}

#[derive(Debug, Deserialize)]
struct OfContainer {
    image: Option<String>,
}

/// What matters of the settings of containerd's CRI.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    #[serde(default)]
    sandbox_image: String,
    #[serde(default)]
    containerd_root_dir: String,
    #[serde(default)]
    containerd: OfContainerd,
}

#[derive(Debug, Default, Deserialize)]
struct OfContainerd {
    #[serde(default)]
    snapshotter: String,
}

/// The runtime of the node with this root. None where there is neither a socket nor a kubelet.
///
/// # Errors
/// There is a kubelet and no socket, a link is on the way to it, or kubelet's settings cannot be understood.
pub(super) fn runtime(root: &OwnedFd, reach: &Reach) -> Result<Option<Runtime>, (PathBuf, Why)> {
    let settings = kubelet_of(root, reach).map_err(|why| (PathBuf::from(kubelet::FILE), why))?;
    let endpoint = settings
        .as_ref()
        .and_then(|one| one.container_runtime_endpoint.as_deref());
    let named = nagi_cri::socket(endpoint);
    // The usual link, which is not followed.
    let socket = match named.strip_prefix("/var/run") {
        Ok(below) => Path::new("/run").join(below),
        Err(_) => named,
    };
    if let Some(fstype) = reach.refuses(&socket) {
        let why = Why::Type(fstype.to_owned());
        return Err((socket, why));
    }
    match place::is_there(root, &socket) {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::NOTDIR) if settings.is_none() => return Ok(None),
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
    }))
}

/// None when there is no kubelet here.
///
/// # Errors
/// Its settings cannot be read or understood: nobody knows where its manifests and its socket are.
fn kubelet_of(root: &OwnedFd, reach: &Reach) -> Result<Option<Kubelet>, Why> {
    let file = Path::new(kubelet::FILE);
    let Some(bytes) = read(root, reach, file)? else {
        return Ok(None);
    };
    let read = serde_saphyr::from_slice(&bytes);
    read.map(Some).map_err(|_| Why::Manifest(file.to_owned()))
}

/// The images that manifests of static pods name.
///
/// # Errors
/// One of them cannot be understood: nobody knows what it needs.
fn named(root: &OwnedFd, reach: &Reach) -> Result<Vec<String>, Why> {
    let directory = kubelet_of(root, reach)?.and_then(|one| one.static_pod_path);
    let directory = directory.unwrap_or_else(|| PathBuf::from(MANIFESTS));
    if let Some(fstype) = reach.refuses(&directory) {
        return Err(Why::Type(fstype.to_owned()));
    }
    let Some(base) = place::open_base(root, &directory)? else {
        return Ok(Vec::new());
    };
    let mut images = Vec::new();
    for name in place::names(&base)? {
        let path = directory.join(std::ffi::OsStr::from_bytes(&name));
        let extension = path.extension().unwrap_or_default();
        let is_manifest = ["yaml", "yml", "json", "manifest"].map(std::ffi::OsStr::new);
        if name.starts_with(b".") || !is_manifest.contains(&extension) {
            continue;
        }
        let not_understood = || Why::Manifest(path.clone());
        let bytes = read(root, reach, &path)?.ok_or_else(not_understood)?;
        let manifest: Manifest = serde_saphyr::from_slice(&bytes).map_err(|_| not_understood())?;
        let Spec {
            containers,
            init_containers,
        } = manifest.spec;
        let all = containers.into_iter().chain(init_containers);
        images.extend(all.filter_map(|one| one.image));
    }
    Ok(images)
}

/// A file on the way to which no link and no foreign filesystem is. None when it is not there.
///
/// # Errors
/// It cannot be read, or only a part of it: what is behind that would not be kept.
fn read(root: &OwnedFd, reach: &Reach, path: &Path) -> Result<Option<Vec<u8>>, Why> {
    if let Some(fstype) = reach.refuses(path) {
        return Err(Why::Type(fstype.to_owned()));
    }
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

// === impl Runtime ===

impl Runtime {
    /// The facts of this moment, without what snapshots take.
    ///
    /// # Errors
    /// The runtime does not answer, or answers what nobody should act on.
    pub(super) fn facts(&self, root: &OwnedFd, reach: &Reach) -> Result<Facts, Why> {
        let named = named(root, reach)?;
        let mut facts = wait(self.asked())?;
        facts.named = named;
        if facts.containers.is_empty() && facts.sandboxes.is_empty() {
            return Err(Why::NoPods);
        }
        Ok(facts)
    }

    async fn asked(&self) -> Result<Facts, CallError> {
        let deadline = Deadline::in_(ANSWER);
        let client = &self.client;
        let images = client.images(deadline).await?;
        let settings = self.settings(deadline).await?;
        let mut books = self.books(&settings, deadline).await?;
        let sandboxes = client.sandboxes(deadline).await?;
        let containers = client.containers(deadline).await?;
        if let Some(books) = &mut books {
            // Last of all: a sandbox that is being made stands here first.
            books.containers = client.records(deadline).await?;
        }
        let mut facts = Facts {
            images,
            containers,
            sandboxes,
            books,
            pause: Some(settings.sandbox_image).filter(|name| !name.is_empty()),
            ..Facts::default()
        };
        let dead = facts.containers.iter();
        let dead = dead.filter(|one| one.state == ContainerState::Exited);
        for one in dead.take(ENDED_MAX) {
            match client.ended(&one.id, deadline).await {
                Ok(ended) => drop(facts.ended.insert(one.id.clone(), ended)),
                // It went meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(facts)
    }

    async fn settings(&self, deadline: Deadline) -> Result<Settings, CallError> {
        let told = self.client.settings(deadline).await?;
        let config = told.iter().find(|(name, _)| name == "config");
        let read = config.and_then(|(_, text)| serde_saphyr::from_str(text).ok());
        Ok(read.unwrap_or_default())
    }

    /// None of a runtime that is not containerd.
    async fn books(
        &self,
        settings: &Settings,
        deadline: Deadline,
    ) -> Result<Option<Books>, CallError> {
        let client = &self.client;
        let records = match client.image_records(deadline).await {
            Err(error) if error.is_unknown_method() => return Ok(None),
            other => other?,
        };
        let snapshotter = match settings.containerd.snapshotter.as_str() {
            "" => SNAPSHOTTER.to_owned(),
            named => named.to_owned(),
        };
        Ok(Some(Books {
            records,
            blobs: client.blobs(deadline).await?,
            snapshots: client.snapshots(&snapshotter, deadline).await?,
            leases: client.leases(deadline).await?,
            ingests: client.ingests(deadline).await?,
            snapshotter,
            ..Books::default()
        }))
    }

    /// Asks what these snapshots take. One that went meanwhile takes nothing.
    ///
    /// # Errors
    /// The runtime does not answer.
    pub(super) fn measure(&self, books: &mut Books, keys: BTreeSet<String>) -> Result<(), Why> {
        let snapshotter = books.snapshotter.clone();
        let asked = async {
            let deadline = Deadline::in_(ANSWER);
            let mut usage = Vec::new();
            for key in keys {
                match self.client.usage(&snapshotter, &key, deadline).await {
                    Ok(takes) => usage.push((key, takes)),
                    Err(error) if error.is_not_found() => {}
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
    nagi_cri::wait(calls).map_err(|error| Why::Runtime(error.to_string()))
}
