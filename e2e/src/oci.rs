//! Container images written without a container engine: one layer in an OCI archive that containerd, podman, buildah
//! and skopeo read.
//!
//! The same files and settings give the same bytes on every machine and at every time: entries are sorted, every time
//! stamp is the epoch, and nothing of the machine goes in. The layer is not compressed: a registry client compresses it
//! when it pushes, and bytes that no compressor made are the same whichever version of one is installed.
//!
//! It writes single-layer images for one platform and reads none.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

/// Where containerd looks for the name under which it keeps an imported image.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Where other tools look for its tag.
const REFERENCE_NAME: &str = "org.opencontainers.image.ref.name";

const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// When everything in an image was made, as far as the image tells.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What a file holds.
#[derive(Debug, Clone)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What this file of the machine holds when the image is written.
    File(PathBuf),
}

/// One entry of the layer.
#[derive(Debug, Clone)]
enum Entry {
    Directory { mode: u32 },
    File { mode: u32, content: Content },
    Link { target: String },
}

#[derive(Debug, Clone)]
struct Owned {
    entry: Entry,
    /// Number of the user and of the group that own it.
    owner: u32,
}

/// An image that is being described: first its files, then how a container of it starts.
#[derive(Debug, Clone)]
pub struct Image {
    /// By path from the root, without a leading slash. Sorted, so a directory comes before what is in it.
    entries: BTreeMap<String, Owned>,
    entrypoint: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<String>,
    user: String,
    ports: Vec<u16>,
    architecture: &'static str,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Digest of the manifest: what names the image in a registry, as `sha256:…`.
    pub digest: String,
    /// Size of the archive in bytes.
    pub bytes: u64,
}

/// The name by which container runtimes know an image: `app:1` is `docker.io/library/app:1`.
pub fn full_name(name: &str) -> String {
    let tagged = match name.rsplit_once('/').map_or(name, |(_, last)| last) {
        last if last.contains([':', '@']) => name.to_owned(),
        _ => format!("{name}:latest"),
    };
    match tagged.split_once('/') {
        None => format!("docker.io/library/{tagged}"),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => tagged,
        Some(_) => format!("docker.io/{tagged}"),
    }
}

// === impl Image ===

impl Default for Image {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            entrypoint: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            user: String::new(),
            ports: Vec::new(),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
        }
    }
}

impl Image {
    /// An image without files, for the architecture of this machine.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory, its mode as in `0o755`. Directories that only lie on the way need not be named.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32, owner: u32) -> Self {
        self.entry(path, owner, Entry::Directory { mode })
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, owner: u32, content: Content) -> Self {
        self.entry(path, owner, Entry::File { mode, content })
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(self, path: &str, target: &str) -> Self {
        let target = target.to_owned();
        self.entry(path, 0, Entry::Link { target })
    }

    /// What a container runs.
    #[must_use]
    pub fn entrypoint<const N: usize>(mut self, words: [&str; N]) -> Self {
        self.entrypoint = words.map(str::to_owned).to_vec();
        self
    }

    /// With which arguments, unless the pod names others.
    #[must_use]
    pub fn arguments<const N: usize>(mut self, words: [&str; N]) -> Self {
        self.arguments = words.map(str::to_owned).to_vec();
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// Number of the user and the group that the container runs as. Left out: root.
    #[must_use]
    pub fn user(mut self, user: u32) -> Self {
        self.user = format!("{user}:{user}");
        self
    }

    /// Names a port that it listens on.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// Writes the archive under the image's name, such as `scale-api:0.1.0`.
    ///
    /// # Errors
    /// A file cannot be read, or the archive cannot be written; then no archive, or the former one, is at `path`.
    pub fn write(&self, path: &Path, name: &str) -> anyhow::Result<Written> {
        let layer = Blob::new(self.layer()?);
        let config = Blob::json(&self.config(&layer))?;
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config.descriptor(CONFIG_TYPE),
            "layers": [layer.descriptor(LAYER_TYPE)],
        }))?;
        let name = full_name(name);
        let mut named = manifest.descriptor(MANIFEST_TYPE);
        named["platform"] = json!({ "architecture": self.architecture, "os": "linux" });
        let tag = name.rsplit_once(':').map_or("", |(_, tag)| tag);
        named["annotations"] = json!({ CONTAINERD_NAME: name, REFERENCE_NAME: tag });
        let index = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [named],
        }))?;
        let mut files = BTreeMap::from([
            ("index.json".to_owned(), index.bytes),
            (
                "oci-layout".to_owned(),
                br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            ),
        ]);
        let digest = format!("sha256:{}", manifest.digest);
        for blob in [layer, config, manifest] {
            files.insert(format!("blobs/sha256/{}", blob.digest), blob.bytes);
        }
        let mut archive = Image::new();
        for (path, bytes) in files {
            archive = archive.file(&path, 0o644, 0, Content::Bytes(bytes));
        }
        let bytes = archive.layer()?;
        replace(path, &bytes)?;
        Ok(Written {
            digest,
            bytes: u64::try_from(bytes.len()).context("an archive fits into 64 bits")?,
        })
    }

    /// Writes the files below a directory, for a build that goes on with them. Owner is whoever runs it.
    ///
    /// # Errors
    /// Something cannot be written; what was written before that stays.
    pub fn write_tree(&self, directory: &Path) -> anyhow::Result<()> {
        for (path, Owned { entry, .. }) in &self.entries {
            let target = directory.join(path);
            let failed = || format!("write {}", target.display());
            let mode = match entry {
                Entry::Directory { mode } => {
                    std::fs::create_dir_all(&target).with_context(failed)?;
                    *mode
                }
                Entry::File { mode, content } => {
                    std::fs::write(&target, content.read()?).with_context(failed)?;
                    *mode
                }
                Entry::Link { target: to } => {
                    symlink(to, &target).with_context(failed)?;
                    continue;
                }
            };
            std::fs::set_permissions(&target, Permissions::from_mode(mode)).with_context(failed)?;
        }
        Ok(())
    }

    fn entry(mut self, path: &str, owner: u32, entry: Entry) -> Self {
        let path = path.trim_matches('/').to_owned();
        let parents: Vec<&str> = path
            .match_indices('/')
            .map(|(end, _)| path.split_at(end).0)
            .collect();
        for parent in parents {
            self.entries.entry(parent.to_owned()).or_insert(Owned {
                entry: Entry::Directory { mode: 0o755 },
                owner: 0,
            });
        }
        self.entries.insert(path, Owned { entry, owner });
        self
    }

    fn config(&self, layer: &Blob) -> Value {
        let ports: serde_json::Map<String, Value> = self
            .ports
            .iter()
            .map(|port| (format!("{port}/tcp"), json!({})))
            .collect();
        json!({
            "created": CREATED,
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "User": self.user,
                "ExposedPorts": ports,
                "Env": self.environment,
                "Entrypoint": self.entrypoint,
                "Cmd": self.arguments,
                "WorkingDir": "/",
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)] },
            "history": [{ "created": CREATED, "created_by": "cargo xtask image" }],
        })
    }

    fn layer(&self) -> anyhow::Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, Owned { entry, owner }) in &self.entries {
            let mut header = Header::new_ustar();
            header.set_uid(u64::from(*owner));
            header.set_gid(u64::from(*owner));
            header.set_mtime(0);
            header.set_size(0);
            let failed = || format!("put {path} into the image");
            match entry {
                Entry::Directory { mode } => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(*mode);
                    builder
                        .append_data(&mut header, format!("{path}/"), std::io::empty())
                        .with_context(failed)?;
                }
                Entry::File { mode, content } => {
                    let bytes = content.read()?;
                    header.set_entry_type(EntryType::Regular);
                    header.set_mode(*mode);
                    header.set_size(u64::try_from(bytes.len()).with_context(failed)?);
                    builder
                        .append_data(&mut header, path, bytes.as_ref())
                        .with_context(failed)?;
                }
                Entry::Link { target } => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    builder
                        .append_link(&mut header, path, target)
                        .with_context(failed)?;
                }
            }
        }
        builder.into_inner().context("end the archive")
    }
}

// === impl Content ===

impl Content {
    fn read(&self) -> anyhow::Result<Cow<'_, [u8]>> {
        match self {
            Self::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File(file) => std::fs::read(file)
                .map(Cow::Owned)
                .with_context(|| format!("read {}", file.display())),
        }
    }
}

/// Writes a file so that it is there in full or not at all, also when several write it at once: the nodes of a cluster start
/// together, and the first start on a machine makes the images of all.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let Some(directory) = path.parent() else {
        bail!("{} is no file", path.display());
    };
    std::fs::create_dir_all(directory)
        .with_context(|| format!("create {}", directory.display()))?;
    let write = || {
        let mut partial = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(directory)?;
        partial.write_all(bytes)?;
        partial.persist(path).map_err(std::io::Error::from)
    };
    write()
        .map(drop)
        .with_context(|| format!("write {}", path.display()))
}

/// Bytes under their digest.
#[derive(Debug)]
struct Blob {
    bytes: Vec<u8>,
    digest: String,
}

// === impl Blob ===

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let digest = Sha256::digest(&bytes)
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 0xf])
            .filter_map(|digit| char::from_digit(u32::from(digit), 16))
            .collect();
        Self { bytes, digest }
    }

    fn json(value: &Value) -> anyhow::Result<Self> {
        Ok(Self::new(
            serde_json::to_vec(value).context("write a part of the image as JSON")?,
        ))
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({
            "mediaType": media_type,
            "digest": format!("sha256:{}", self.digest),
            "size": self.bytes.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn image() -> Image {
        Image::new()
            .link("usr/bin/curl", "nagi")
            .file(
                "usr/bin/nagi",
                0o755,
                0,
                Content::Bytes(b"program".to_vec()),
            )
            .directory("tmp", 0o1777, 65532)
            .entrypoint(["/usr/bin/nagi"])
            .arguments(["server"])
            .environment("PATH", "/usr/bin")
            .user(65532)
            .port(8080)
    }

    fn written(image: &Image, name: &str) -> (Written, Vec<u8>) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("image.tar");
        let written = image.write(&path, name).expect("the image is written");
        (written, std::fs::read(path).expect("it is there"))
    }

    #[test]
    fn several_write_one_archive_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("images/image.tar");
        std::thread::scope(|scope| {
            let write = || image().write(&path, "nagi.test/a:1").map(drop);
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(write)).collect();
            for thread in threads {
                thread.join().expect("no panic").expect("it is written");
            }
        });
        let left = std::fs::read_dir(directory.path().join("images")).expect("it is there");
        assert_eq!(left.count(), 1, "nothing but the archive is left");
    }

    fn entries(archive: &[u8]) -> BTreeMap<String, (Header, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().expect("an archive");
        entries
            .map(|entry| {
                let mut entry = entry.expect("an entry");
                let path = entry.path().expect("a path").display().to_string();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).expect("content");
                (path, (entry.header().clone(), bytes))
            })
            .collect()
    }

    fn blob(files: &BTreeMap<String, (Header, Vec<u8>)>, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let hex = digest.strip_prefix("sha256:").expect("SHA-256");
        let (_, bytes) = &files[&format!("blobs/sha256/{hex}")];
        assert_eq!(
            Blob::new(bytes.clone()).digest,
            hex,
            "content is what the digest names"
        );
        assert_eq!(descriptor["size"], bytes.len());
        bytes.clone()
    }

    #[test]
    fn same_content_gives_the_same_bytes_in_whatever_order_it_was_described() {
        let (first, bytes) = written(&image(), "scale-api:1");
        let other = Image::new()
            .directory("tmp", 0o1777, 65532)
            .file(
                "/usr/bin/nagi",
                0o755,
                0,
                Content::Bytes(b"program".to_vec()),
            )
            .link("/usr/bin/curl", "nagi")
            .entrypoint(["/usr/bin/nagi"])
            .arguments(["server"])
            .environment("PATH", "/usr/bin")
            .user(65532)
            .port(8080);
        let (second, same) = written(&other, "scale-api:1");
        assert_eq!(first, second);
        assert_eq!(bytes, same);
        let changed = image().file("etc/x", 0o644, 0, Content::Bytes(Vec::new()));
        assert_ne!(written(&changed, "scale-api:1").0.digest, first.digest);
    }

    // F18, A-166
    #[test]
    fn archive_is_an_oci_layout_whose_digests_hold() {
        let (outcome, bytes) = written(&image(), "scale-api:1");
        let files = entries(&bytes);
        assert_eq!(files["oci-layout"].1, br#"{"imageLayoutVersion":"1.0.0"}"#);
        let index: Value = serde_json::from_slice(&files["index.json"].1).expect("JSON");
        let named = &index["manifests"][0];
        assert_eq!(named["digest"], outcome.digest.as_str());
        assert_eq!(
            named["annotations"][CONTAINERD_NAME],
            "docker.io/library/scale-api:1"
        );
        let manifest: Value = serde_json::from_slice(&blob(&files, named)).expect("JSON");
        let config: Value =
            serde_json::from_slice(&blob(&files, &manifest["config"])).expect("JSON");
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/nagi"]));
        assert_eq!(config["config"]["ExposedPorts"], json!({ "8080/tcp": {} }));
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            manifest["layers"][0]["digest"]
        );
        let layer = entries(&blob(&files, &manifest["layers"][0]));
        let paths: Vec<&str> = layer.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            ["tmp/", "usr/", "usr/bin/", "usr/bin/curl", "usr/bin/nagi"]
        );
        let (header, content) = &layer["usr/bin/nagi"];
        assert_eq!(content, b"program");
        assert_eq!(header.mode().expect("a mode"), 0o755);
        assert_eq!(header.mtime().expect("a time"), 0);
        let (link, _) = &layer["usr/bin/curl"];
        assert_eq!(link.link_name_bytes().expect("a target").as_ref(), b"nagi");
        let (tmp, _) = &layer["tmp/"];
        assert_eq!(
            (tmp.mode().expect("a mode"), tmp.uid().expect("an owner")),
            (0o1777, 65532)
        );
    }

    #[test]
    fn names_are_completed_as_runtimes_do_it() {
        for (short, full) in [
            ("app", "docker.io/library/app:latest"),
            ("app:1", "docker.io/library/app:1"),
            ("team/app:1", "docker.io/team/app:1"),
            ("localhost/app:1", "localhost/app:1"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            (
                "registry.example.com/team/app:1",
                "registry.example.com/team/app:1",
            ),
        ] {
            assert_eq!(full_name(short), full);
        }
    }

    #[test]
    fn file_that_is_missing_leaves_no_archive() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("image.tar");
        let gone = Content::File(directory.path().join("nagi"));
        let error = Image::new()
            .file("nagi", 0o755, 0, gone)
            .write(&path, "app")
            .expect_err("there is no such file");
        assert!(format!("{error:#}").contains("read "), "{error:#}");
        assert!(!path.exists());
    }
}
