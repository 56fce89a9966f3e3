//! The control groups of nodes: one per node and hierarchy, below which its kubelet keeps the pods'.
//!
//! Version 1 has a hierarchy per controller, version 2 one for all; both are below `/sys/fs/cgroup`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::process;
use crate::remove::remove_empty_directory;
use crate::wait::{self, Look};

const ROOT: &str = "/sys/fs/cgroup";

/// A group can be removed a moment after its last process has ended.
const EMPTY_LIMIT: Duration = Duration::from_secs(10);

/// The controllers that a kubelet asks for.
const CONTROLLERS: &str = "+cpu +cpuset +io +memory +pids";

/// Whether this machine has control groups.
pub(crate) fn are_there() -> bool {
    hierarchies().is_ok()
}

/// Makes a group in every hierarchy.
pub(crate) fn create(name: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        if hierarchy.join("cgroup.controllers").exists() && hierarchy == Path::new(ROOT) {
            write(&hierarchy.join("cgroup.subtree_control"), CONTROLLERS)?;
        }
        let group = hierarchy.join(name);
        match std::fs::create_dir(&group) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("create {}", group.display()));
            }
            Ok(()) | Err(_) => {}
        }
        // In version 1 a new group of this controller may use nothing until it is told what.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if group.join("cpuset.cpu_exclusive").exists() {
                let of_parent = std::fs::read_to_string(hierarchy.join(file))
                    .with_context(|| format!("read {file} of {}", hierarchy.display()))?;
                write(&group.join(file), of_parent.trim())?;
            }
        }
    }
    Ok(())
}

/// Which groups are meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Groups<'a> {
    /// Those whose name begins so.
    Beginning(&'a str),
    /// The one with this name, in every hierarchy.
    Named(&'a str),
}

/// Ends every process in some groups.
pub(crate) fn end_processes(which: Groups<'_>) -> anyhow::Result<()> {
    process::end_all("containers to end", || {
        let mut found = Vec::new();
        for group in groups(which)? {
            // A group that goes away meanwhile has no processes.
            let listed = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            found.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    })
}

/// Removes some groups.
pub(crate) fn remove(which: Groups<'_>) -> anyhow::Result<()> {
    wait::until("control groups to be empty", EMPTY_LIMIT, || {
        let mut busy = Vec::new();
        // The deepest first: a group goes after those below it.
        for group in groups(which)?.iter().rev() {
            if let Err(error) = remove_empty_directory(group) {
                busy.push(format!("{}: {error}", group.display()));
            }
        }
        Ok(match busy.first() {
            None => Look::There(()),
            Some(first) => Look::NotYet(first.clone()),
        })
    })
}

/// All groups that are meant, and those below them, parents first.
fn groups(which: Groups<'_>) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        found.extend(below(&hierarchy).into_iter().filter(|group| {
            let name = group.file_name().unwrap_or_default().to_string_lossy();
            match which {
                Groups::Beginning(prefix) => name.starts_with(prefix),
                Groups::Named(wanted) => name == wanted,
            }
        }));
    }
    let mut at = 0;
    while let Some(group) = found.get(at).cloned() {
        found.extend(below(&group));
        at += 1;
    }
    Ok(found)
}

/// Directories in a directory; none when it is gone.
fn below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn hierarchies() -> anyhow::Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let found = below(root);
    if found.is_empty() {
        bail!("there are no control groups in {ROOT}, and containers need them");
    }
    Ok(found)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
