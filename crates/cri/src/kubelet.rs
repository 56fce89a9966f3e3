//! The settings of kubelet that say where its runtime and its static pods are: its file, the drop-ins over that, and the flags
//! that kubeadm and people give it; and which files it takes for manifests of static pods.
//!
//! The rules are kubelet's own, so that nobody has them a second time. Those who work on a node reach its files in ways of their
//! own, which are [`Files`].

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Deserializer};

/// Where kubeadm puts kubelet's file.
pub const CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// Flags that kubeadm gives kubelet by systemd; by many of its versions the socket of the runtime is one of them.
const FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// Flags that people give it, where its packages have systemd read them: those for Debian, and those for Red Hat.
const EXTRA: [&str; 2] = ["/etc/default/kubelet", "/etc/sysconfig/kubelet"];
/// Where kubeadm puts manifests of static pods, and where kubelet is told to look.
const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// What kubelet uses unless it is told otherwise.
const SOCKET: &str = "/run/containerd/containerd.sock";
/// Where systemd starts kubelet: what is relative in a flag or a drop-in begins there.
const WORKING_DIRECTORY: &str = "/";
/// How the name of a drop-in ends.
const DROP_IN: &[u8] = b".conf";

/// The files of a node, as whoever works on it reaches them.
pub trait Files {
    /// Why one cannot be reached.
    type Error;

    /// What a file holds, links to it followed as on the node. None when it is not there.
    ///
    /// # Errors
    /// It may be there, and cannot be read.
    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, Self::Error>;

    /// What a directory holds, in any order. None when it is not there, or is no directory.
    ///
    /// # Errors
    /// It may be there, and cannot be read.
    fn list(&self, directory: &Path) -> Result<Option<Vec<Entry>>, Self::Error>;
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: OsString,
    /// What it is, or what it leads to where it is a link.
    pub kind: Kind,
    /// It is a link.
    pub is_link: bool,
}

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A pipe, a socket or a device.
    Other,
    /// A link that leads nowhere, or what went meanwhile.
    Nowhere,
}

/// What the files of a kubelet say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// As far as they can be understood.
    pub kubelet: Kubelet,
    /// One of them is there; otherwise there is no kubelet.
    pub is_there: bool,
    /// Those that cannot be understood, or hold nothing: that is what a full disk leaves of a file that was being written.
    pub broken: Vec<PathBuf>,
}

/// What matters of them. What is not set has kubelet's or kubeadm's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kubelet {
    container_runtime_endpoint: Option<String>,
    static_pod_path: Option<PathBuf>,
}

/// What one file says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    #[serde(default)]
    container_runtime_endpoint: Word<String>,
    #[serde(default)]
    static_pod_path: Word<PathBuf>,
}

/// What a file says of one setting.
#[derive(Debug, Default)]
enum Word<T> {
    #[default]
    Nothing,
    /// Null: what was said before does not count.
    TakenBack,
    Is(T),
}

/// Reads the settings of the kubelet of a node: its file, then the drop-ins of `--config-dir` by their names, then the flags, of
/// which each counts for more than those before.
///
/// # Errors
/// A file that cannot be reached, and why.
pub fn settings<F: Files>(files: &F) -> Result<Settings, (PathBuf, F::Error)> {
    let read = |file: &Path| files.read(file).map_err(|why| (file.to_owned(), why));
    let env = read(Path::new(FLAGS))?;
    let mut flags = flags_of("KUBELET_KUBEADM_ARGS", env.as_deref());
    // Behind those of kubeadm on the command line.
    for file in EXTRA {
        let env = read(Path::new(file))?;
        flags.extend(flags_of("KUBELET_EXTRA_ARGS", env.as_deref()));
    }
    // Of a flag that is said twice the last counts.
    let flag = |name: &str| {
        let mut all = flags.iter().rev();
        all.find(|flag| flag.0 == name).map(|flag| flag.1.as_str())
    };
    let from_here = |path: &str| below(Path::new(WORKING_DIRECTORY), Path::new(path));
    let file = flag("config").map_or_else(|| PathBuf::from(CONFIG), from_here);
    let bytes = read(&file)?;
    let mut settings = Settings {
        is_there: env.is_some() || bytes.is_some(),
        ..Settings::default()
    };
    if let Some(bytes) = bytes {
        // What is relative in it begins where it lies.
        let base = file.parent().unwrap_or(Path::new(WORKING_DIRECTORY));
        settings.take(&file, &bytes, base);
    }
    if let Some(directory) = flag("config-dir").map(from_here) {
        let drop_ins = if is_link(files, &directory)? {
            // Kubelet does not go into it, whatever whoever made it expects.
            settings.broken.push(directory);
            Vec::new()
        } else {
            drop_ins(files, &directory)?
        };
        for file in drop_ins {
            let bytes = read(&file)?.unwrap_or_default();
            settings.take(&file, &bytes, Path::new(WORKING_DIRECTORY));
        }
    }
    let kubelet = &mut settings.kubelet;
    if let Some(socket) = flag("container-runtime-endpoint") {
        kubelet.container_runtime_endpoint = Some(socket.to_owned());
    }
    if let Some(path) = flag("pod-manifest-path") {
        kubelet.static_pod_path = Some(from_here(path));
    }
    Ok(settings)
}

fn is_link<F: Files>(files: &F, path: &Path) -> Result<bool, (PathBuf, F::Error)> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(false);
    };
    let listed = files.list(above).map_err(|why| (above.to_owned(), why))?;
    let mut entries = listed.into_iter().flatten();
    Ok(entries.any(|entry| entry.is_link && entry.name == name))
}

/// The drop-ins of a directory and of those below it, in the order in which kubelet takes them. It follows no link to a directory.
fn drop_ins<F: Files>(files: &F, directory: &Path) -> Result<Vec<PathBuf>, (PathBuf, F::Error)> {
    let listed = files.list(directory);
    let mut entries = listed
        .map_err(|why| (directory.to_owned(), why))?
        .unwrap_or_default();
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    let mut all = Vec::new();
    for entry in entries {
        let path = directory.join(&entry.name);
        if entry.kind == Kind::Directory && !entry.is_link {
            all.extend(drop_ins(files, &path)?);
        } else if entry.name.as_bytes().ends_with(DROP_IN) {
            all.push(path);
        }
    }
    Ok(all)
}

/// A path as a directory has it, without a part that leads back.
fn below(directory: &Path, path: &Path) -> PathBuf {
    let mut whole = PathBuf::new();
    for part in directory.join(path).components() {
        match part {
            Component::ParentDir => {
                whole.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => whole.push(part),
        }
    }
    whole
}

// === impl Settings ===

impl Settings {
    /// Takes what one more file says. `base` is where what is relative in it begins.
    fn take(&mut self, file: &Path, bytes: &[u8], base: &Path) {
        let is_empty = bytes.iter().all(u8::is_ascii_whitespace);
        let read = serde_saphyr::from_slice::<Said>(bytes);
        let Some(said) = read.ok().filter(|_| !is_empty) else {
            self.broken.push(file.to_owned());
            return;
        };
        said.container_runtime_endpoint
            .over(&mut self.kubelet.container_runtime_endpoint);
        let path = match said.static_pod_path {
            Word::Is(path) if path.as_os_str().is_empty() => Word::TakenBack,
            Word::Is(path) => Word::Is(below(base, &path)),
            other @ (Word::TakenBack | Word::Nothing) => other,
        };
        path.over(&mut self.kubelet.static_pod_path);
    }
}

// === impl Word ===

impl<T> Word<T> {
    /// Over what was said before.
    fn over(self, setting: &mut Option<T>) {
        match self {
            Self::Nothing => {}
            Self::TakenBack => *setting = None,
            Self::Is(value) => *setting = Some(value),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let read = Option::deserialize(value)?;
        Ok(read.map_or(Self::TakenBack, Self::Is))
    }
}

// === impl Kubelet ===

impl Kubelet {
    /// The socket of its runtime.
    pub fn socket(&self) -> PathBuf {
        let named = self.container_runtime_endpoint.as_deref();
        let named = named.map(|one| one.trim_start_matches("unix://"));
        PathBuf::from(named.filter(|one| !one.is_empty()).unwrap_or(SOCKET))
    }

    /// The directory of manifests of static pods, or the one file of them.
    pub fn manifests(&self) -> &Path {
        let named = self.static_pod_path.as_deref();
        named.unwrap_or(Path::new(MANIFESTS))
    }

    /// The files that it takes for manifests, in its order: of its directory every regular one whose name does not begin with a
    /// dot, whatever the rest of the name is, and links to such. Where there is no such directory, the one file of that name,
    /// which need not be there.
    ///
    /// A link that leads nowhere is one of them: kubelet passes it over, and takes it as soon as it leads somewhere.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn manifest_files<F: Files>(&self, files: &F) -> Result<Vec<PathBuf>, F::Error> {
        let place = self.manifests();
        let Some(mut entries) = files.list(place)? else {
            return Ok(vec![place.to_owned()]);
        };
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        entries.retain(|entry| {
            let may_be = match entry.kind {
                Kind::File | Kind::Nowhere => true,
                Kind::Directory | Kind::Other => false,
            };
            may_be && !entry.name.as_bytes().starts_with(b".")
        });
        let all = entries.into_iter();
        Ok(all.map(|entry| place.join(entry.name)).collect())
    }
}

/// The flags with a value that a file of systemd gives to a variable: `NAME="--name=value --other value"`.
fn flags_of(variable: &str, file: Option<&[u8]>) -> Vec<(String, String)> {
    let file = String::from_utf8_lossy(file.unwrap_or_default());
    // Of a variable that is set twice the last counts.
    let mut lines = file.lines().rev().map(str::trim);
    let value = lines.find_map(|line| line.strip_prefix(variable)?.strip_prefix('='));
    let line = value.unwrap_or_default().trim_matches(['"', '\'']);
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut flags = flags(&words);
    flags.retain(|flag| !flag.1.is_empty());
    flags
}

/// `--name=value`, and `--name value` in two words.
pub fn flags(words: &[&str]) -> Vec<(String, String)> {
    let mut flags = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let Some(flag) = word.strip_prefix("--") else {
            continue;
        };
        let next = words.get(index + 1).filter(|next| !next.starts_with("--"));
        let (name, value) = match (flag.split_once('='), next) {
            (Some((name, value)), _) => (name, value),
            (None, Some(next)) => (flag, *next),
            (None, None) => (flag, ""),
        };
        flags.push((name.to_owned(), value.to_owned()));
    }
    flags
}

#[cfg(test)]
mod tests;
