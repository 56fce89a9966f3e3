//! `cargo xtask image --prove`: `src/api/Dockerfile`, built by buildah in another directory and another root filesystem,
//! gives the same files and the same settings as the archive that was written without it.
//!
//! So it proves two things at once: that the recipe for container engines is right, and that the image does not depend on
//! where it was built. No registry is asked: the base is an image of our own that holds nothing but directories, into
//! which the machine's compilers are mounted. buildah runs without a daemon, with its chroot isolation and in a storage of
//! its own, so that it works in a container too and leaves other images on the machine alone.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use flate2::read::GzDecoder;
use nagi_e2e::oci::Image;
use serde_json::Value;

use crate::checkout::{Checkout, remove_directory};
use crate::command::Run;
use crate::setup;

/// The recipe.
const RECIPE: &str = "src/api/Dockerfile";
/// Where the build happens in the container, as the recipe says.
const PLACE: &str = "/nagi-source";
/// What it becomes in the storage of the test.
const NAME: &str = "localhost/nagi-proof:1";
/// Where the machine's Rust is mounted.
const RUST: &str = "/rust";
/// Where the crates that were fetched already are mounted.
const CRATES: &str = "/cargo/registry";

/// A file of an image: everything about it that a container can see, but for its times.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: tar::EntryType,
    mode: u32,
    owner: (u64, u64),
    target: Option<PathBuf>,
    content: Vec<u8>,
}

/// An image as a container would see it.
#[derive(Debug)]
struct Contents {
    files: BTreeMap<PathBuf, Seen>,
    settings: Value,
}

/// Builds the recipe, and compares what comes out with `archive`.
pub(super) fn prove(checkout: &Checkout, archive: &Path) -> anyhow::Result<()> {
    setup::for_recipe()?;
    let scratch = checkout.root().join("target/image-proof");
    // What was compiled last time stays, so that only the changes are compiled again; the rest is made anew.
    let compiled = scratch.join("compiled");
    std::fs::create_dir_all(&compiled).with_context(|| format!("create {}", compiled.display()))?;
    let made = scratch.join("made");
    remove_directory(&made)?;
    let built = build(checkout, &compiled, &made).and_then(|built| read(&built));
    remove_directory(&made)?;
    let differences = differences(&read(archive)?, &built?);
    if !differences.is_empty() {
        bail!(
            "{RECIPE} gives another image than {}:\n{}",
            archive.display(),
            differences.join("\n")
        );
    }
    println!("{RECIPE} gives the same files and settings, built in {PLACE}");
    Ok(())
}

fn build(checkout: &Checkout, compiled: &Path, made: &Path) -> anyhow::Result<PathBuf> {
    let base = made.join("base.tar");
    base_image().write(&base, "nagi-proof-base:1")?;
    let storage = made.join("storage");
    let sysroot = Run::new("rustc")
        .arguments(["--print", "sysroot"])
        .within(checkout.root())
        .output()?;
    let crates = registry(checkout)?;
    let mounts = [
        ("/usr".into(), "/usr"),
        ("/etc/alternatives".into(), "/etc/alternatives"),
        (PathBuf::from(sysroot.trim()), RUST),
        (crates, CRATES),
    ];
    let mut run = buildah(&storage)
        .arguments([
            "build",
            "--isolation",
            "chroot",
            "--pull-never",
            "--layers=false",
        ])
        .argument("--build-arg")
        .argument(format!("RUST=oci-archive:{}", base.display()));
    for (from, to) in mounts {
        run = run
            .argument("--volume")
            .argument(format!("{}:{to}:ro", from.display()));
    }
    run.argument("--volume")
        .argument(format!("{}:{PLACE}/target", compiled.display()))
        .arguments(["--file", RECIPE, "--tag", NAME, "."])
        .within(checkout.root())
        .finish()?;
    let built = made.join("built.tar");
    buildah(&storage)
        .arguments(["push", NAME])
        .argument(format!("oci-archive:{}", built.display()))
        .finish()?;
    Ok(built)
}

fn buildah(storage: &Path) -> Run {
    Run::new("buildah")
        .arguments(["--storage-driver", "vfs", "--root"])
        .argument(storage.join("root"))
        .argument("--runroot")
        .argument(storage.join("run"))
}

/// Directories for what is mounted, and the links that Debian has at the root.
fn base_image() -> Image {
    let mut image = Image::new()
        .directory("tmp", 0o1777, 0)
        .environment("PATH", &format!("{RUST}/bin:/usr/bin"))
        .environment("HOME", "/root")
        .environment("CARGO_HOME", "/cargo")
        .environment("CARGO_NET_OFFLINE", "true");
    for directory in ["usr", "etc/alternatives", "root", "cargo/registry", "rust"] {
        image = image.directory(directory, 0o755, 0);
    }
    for link in ["bin", "lib", "lib64", "sbin"] {
        image = image.link(link, &format!("usr/{link}"));
    }
    image
}

/// Where Cargo keeps the crates that it fetched.
fn registry(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    let metadata = super::binary::metadata(checkout.root())?;
    metadata
        .packages
        .iter()
        .filter(|package| package.source.is_some())
        .find_map(|package| {
            let manifest = package.manifest_path.as_std_path();
            // registry/src/INDEX/CRATE/Cargo.toml
            manifest.ancestors().nth(4).map(Path::to_owned)
        })
        .context("find where Cargo keeps what it fetched")
}

/// Reads an OCI archive with one image of one layer. buildah compresses it whatever it is told.
fn read(archive: &Path) -> anyhow::Result<Contents> {
    let bytes = std::fs::read(archive).with_context(|| format!("read {}", archive.display()))?;
    let mut blobs = entries(&bytes)?;
    let mut json = |path: &str| -> anyhow::Result<Value> {
        let blob = blobs
            .remove(Path::new(path))
            .with_context(|| format!("{} has no {path}", archive.display()))?;
        serde_json::from_slice(&blob.content).with_context(|| format!("read {path}"))
    };
    let path = |descriptor: &Value| -> anyhow::Result<String> {
        let digest = descriptor["digest"].as_str().context("a digest")?;
        Ok(format!("blobs/{}", digest.replace(':', "/")))
    };
    let index = json("index.json")?;
    let manifest = json(&path(&index["manifests"][0])?)?;
    let config = json(&path(&manifest["config"])?)?;
    let layers = manifest["layers"].as_array().context("layers")?;
    let [layer] = layers.as_slice() else {
        bail!("{} has {} layers", archive.display(), layers.len());
    };
    let is_compressed = layer["mediaType"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("gzip"));
    let layer = blobs
        .remove(Path::new(&path(layer)?))
        .context("the layer is there")?;
    let layer = if is_compressed {
        let mut plain = Vec::new();
        GzDecoder::new(&*layer.content)
            .read_to_end(&mut plain)
            .context("decompress the layer")?;
        plain
    } else {
        layer.content
    };
    let mut settings = serde_json::Map::new();
    for name in [
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "WorkingDir",
    ] {
        // An empty setting may be written or left out.
        let value = &config["config"][name];
        let empty = value.is_null()
            || value == ""
            || value == "/"
            || value.as_array().is_some_and(Vec::is_empty);
        if !empty {
            settings.insert(name.to_owned(), value.clone());
        }
    }
    Ok(Contents {
        files: entries(&layer)?,
        settings: Value::Object(settings),
    })
}

fn entries(archive: &[u8]) -> anyhow::Result<BTreeMap<PathBuf, Seen>> {
    let mut archive = tar::Archive::new(archive);
    let mut files = BTreeMap::new();
    for entry in archive.entries().context("read an archive")? {
        let mut entry = entry.context("read an entry")?;
        let path = entry.path().context("read a path")?.into_owned();
        // The root itself may be in an archive or not.
        let path: PathBuf = path.components().filter(is_name).collect();
        if path.as_os_str().is_empty() {
            continue;
        }
        let header = entry.header();
        let target = entry.link_name().context("read a link")?;
        let mut seen = Seen {
            kind: header.entry_type(),
            mode: header.mode().context("read a mode")? & 0o7777,
            owner: (
                header.uid().context("read an owner")?,
                header.gid().context("read a group")?,
            ),
            target: target.map(std::borrow::Cow::into_owned),
            content: Vec::new(),
        };
        entry
            .read_to_end(&mut seen.content)
            .with_context(|| format!("read {}", path.display()))?;
        files.insert(path, seen);
    }
    Ok(files)
}

fn is_name(component: &std::path::Component<'_>) -> bool {
    matches!(component, std::path::Component::Normal(_))
}

fn differences(ours: &Contents, theirs: &Contents) -> Vec<String> {
    let mut found = Vec::new();
    if ours.settings != theirs.settings {
        found.push(format!(
            "settings: {} and {}",
            ours.settings, theirs.settings
        ));
    }
    let paths = ours.files.keys().chain(theirs.files.keys());
    let mut paths: Vec<&PathBuf> = paths.collect();
    paths.sort_unstable();
    paths.dedup();
    for path in paths {
        let shown = path.display();
        match (ours.files.get(path), theirs.files.get(path)) {
            (Some(ours), Some(theirs)) if ours == theirs => {}
            (Some(ours), Some(theirs)) => found.push(format!(
                "{shown}: {} and {}",
                ours.summary(),
                theirs.summary()
            )),
            (Some(ours), None) => found.push(format!("{shown}: {} and nothing", ours.summary())),
            (None, theirs) => found.push(format!(
                "{shown}: nothing and {}",
                theirs.map(Seen::summary).unwrap_or_default()
            )),
        }
    }
    found
}

// === impl Seen ===

impl Seen {
    /// Enough to see what differs.
    fn summary(&self) -> String {
        format!(
            "{:?} {:o} of {:?}, {} bytes",
            self.kind,
            self.mode,
            self.owner,
            self.content.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nagi_e2e::oci::Content;

    fn contents(image: &Image) -> Contents {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("image.tar");
        image.write(&path, "a:1").expect("it is written");
        read(&path).expect("it is read")
    }

    fn image() -> Image {
        Image::new()
            .file(
                "usr/bin/nagi",
                0o755,
                0,
                Content::Bytes(b"program".to_vec()),
            )
            .link("usr/bin/curl", "nagi")
            .entrypoint(["/usr/bin/nagi"])
    }

    #[test]
    fn every_difference_that_a_container_sees_is_named() {
        let same = contents(&image());
        assert_eq!(differences(&same, &contents(&image())), [""; 0]);
        let more = image().directory("tmp", 0o1777, 0);
        let other = Content::Bytes(b"Program".to_vec());
        for (image, named) in [
            (more, "tmp: nothing and Directory 1777"),
            (
                image().file("usr/bin/nagi", 0o755, 0, other),
                "usr/bin/nagi",
            ),
            (image().link("usr/bin/curl", "other"), "usr/bin/curl"),
            (image().user(1), "settings"),
            (image().entrypoint(["/nagi"]), "settings"),
        ] {
            let found = differences(&same, &contents(&image));
            assert!(
                found.iter().any(|line| line.starts_with(named)),
                "{named}: {found:?}"
            );
        }
    }
}
