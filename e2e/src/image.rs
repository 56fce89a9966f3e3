//! Images on nodes: archives that are imported into a node's containerd. There is no registry.
//!
//! `pause` and what the cluster itself runs are made from the built programs, once per build. Images that a person or a test
//! loads are kept with the cluster, so that a node that joins later has them too.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::cache;
use crate::call::Call;
use crate::control_plane::FIRST_NODE;
use crate::files;
use crate::oci::{Content, Image};
use crate::tools::{self, Built};

/// What holds the namespaces of a pod.
pub(crate) const PAUSE: &str = "nagi.test/pause:1";
/// The image of CoreDNS.
pub(crate) const COREDNS: &str = "nagi.test/coredns:1";
/// The image of metrics-server.
pub(crate) const METRICS_SERVER: &str = "nagi.test/metrics-server:1";

/// A web server that answers with its pod's name on port 8080; `/web -get URL` is a client.
pub(crate) const WEB: &str = "nagi.test/web:1";

/// Nobody, as distributions number it.
const NOBODY: u32 = 65534;

/// An archive of some 100 MB on a busy disk.
const IMPORT_LIMIT: Duration = Duration::from_mins(3);

/// The namespace in which containerd keeps what Kubernetes uses.
const CONTAINERD_NAMESPACE: &str = "k8s.io";

/// A call of containerd's own client.
pub(crate) fn ctr(socket: &Path) -> Call {
    Call::new("ctr")
        .argument("--address")
        .argument(socket)
        .arguments(["--namespace", CONTAINERD_NAMESPACE])
}

/// Imports an archive into a node's containerd.
pub(crate) fn import(socket: &Path, archive: &Path) -> anyhow::Result<()> {
    ctr(socket)
        .arguments(["images", "import"])
        .argument(archive)
        .limit(IMPORT_LIMIT)
        .succeed()
}

/// The archives that a node begins with.
pub(crate) fn of_node(
    cluster: &Path,
    stand_ins: &Built,
    node: &str,
) -> anyhow::Result<Vec<PathBuf>> {
    let mut archives = vec![pause(stand_ins)?];
    if node == FIRST_NODE.0 {
        let tools = [
            (tools::COREDNS, "coredns", COREDNS),
            (tools::METRICS_SERVER, "metrics-server", METRICS_SERVER),
        ];
        for (tool, program, name) in tools {
            archives.push(archive(&tool.build()?, program, name)?);
        }
    }
    archives.extend(loaded(cluster)?);
    Ok(archives)
}

/// The archive of one program, written when it is not there: in the root of its image, and run as nobody.
fn archive(built: &Built, program: &str, name: &str) -> anyhow::Result<PathBuf> {
    archive_of(built, program, name, |image| {
        image
            .file(program, 0o755, 0, Content::File(built.program(program)))
            .entrypoint([&format!("/{program}")])
            .user(NOBODY)
    })
}

/// The archive of a program that manifests of kubeadm call by its name, and run as root.
pub(crate) fn on_its_path(built: &Built, program: &str, name: &str) -> anyhow::Result<PathBuf> {
    archive_of(built, program, name, |image| {
        let path = format!("usr/local/bin/{program}");
        image
            .file(&path, 0o755, 0, Content::File(built.program(program)))
            .environment("PATH", "/usr/local/bin")
    })
}

/// The archive of `pause`.
pub(crate) fn pause(stand_ins: &Built) -> anyhow::Result<PathBuf> {
    archive(stand_ins, "pause", PAUSE)
}

fn archive_of(
    built: &Built,
    program: &str,
    name: &str,
    filled: impl FnOnce(Image) -> Image,
) -> anyhow::Result<PathBuf> {
    let of_build = built
        .directory()
        .file_name()
        .context("a build has a name")?
        .to_string_lossy();
    let path = cache::directory()?
        .join("images")
        .join(format!("{of_build}-{program}.tar"));
    if !path.exists() {
        filled(Image::new().directory("tmp", 0o1777, 0))
            .write(&path, name)
            .with_context(|| format!("make the image {name}"))?;
    }
    Ok(path)
}

/// The archive of the web server for tests.
pub(crate) fn web(stand_ins: &Built) -> anyhow::Result<PathBuf> {
    archive(stand_ins, "web", WEB)
}

fn loaded_directory(cluster: &Path) -> PathBuf {
    cluster.join("images")
}

/// The archives that were loaded into a cluster, in the order of their names.
fn loaded(cluster: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut archives = files::entries(&loaded_directory(cluster))?;
    archives.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    Ok(archives)
}

/// Keeps an archive with a cluster and imports it into the containerds of its nodes.
pub(crate) fn load(cluster: &Path, archive: &Path, sockets: &[PathBuf]) -> anyhow::Result<()> {
    let Some(name) = archive.file_name().filter(|_| archive.is_file()) else {
        bail!(
            "{} is no file\nhint: give an OCI archive, such as 'cargo xtask image' writes",
            archive.display()
        );
    };
    for socket in sockets {
        if let Err(error) = import(socket, archive) {
            // The autoscaler takes nodes away at any time.
            if UnixStream::connect(socket).is_ok() {
                return Err(error);
            }
            crate::say(&format!("{} went away meanwhile", socket.display()));
        }
    }
    let directory = loaded_directory(cluster);
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("create {}", directory.display()))?;
    // A node that joins meanwhile must not find half of it.
    let kept = directory.join(name).with_extension("tar");
    let unfinished = kept.with_extension("unfinished");
    std::fs::copy(archive, &unfinished)
        .and_then(|_| std::fs::rename(&unfinished, &kept))
        .with_context(|| format!("keep {}", kept.display()))
}
