//! Takes a cluster away: processes, containers, control groups, namespaces, links, mounts and files, in this order.
//!
//! Nothing here depends on how far the cluster got, how it ended or what is recorded: everything is found by marks and names, so
//! it works after `kill -9` at any moment, and a second time. Other clusters, and other containerds on the machine, carry other marks.

use std::path::Path;

use anyhow::Context;
use rustix::mount::{UnmountFlags, unmount};

use crate::cgroup::{self, Groups};
use crate::directory::{self, Directory, Lifetime, Record};
use crate::network;
use crate::process;
use crate::remove::{mounts_below, remove_directory};
use crate::wait::Unstoppable;

/// Takes away all that a cluster left.
pub(crate) fn remove(directory: &Directory) -> anyhow::Result<()> {
    let _unstoppable = Unstoppable::begin();
    let path = &directory.path;
    if !path.exists() {
        return Ok(());
    }
    process::end_marked(path)?;
    // Without control groups there are no containers.
    if cgroup::are_there() {
        let prefix = network::prefix(&directory.name);
        let groups = Groups::Beginning(&prefix);
        cgroup::end_processes(groups)?;
        // What a container's end set off, such as a shim that reports it.
        process::end_marked(path)?;
        cgroup::remove(groups)?;
    }
    network::remove(&directory.name)?;
    unmount_below(path)?;
    remove_directory(path)
}

/// Takes away clusters whose process ended without doing it, or while it started them.
pub(crate) fn remove_rubbish() -> anyhow::Result<()> {
    let root = directory::root()?;
    for name in directory::names()? {
        let Some(owned) = Directory::try_own(&name)? else {
            continue;
        };
        let is_rubbish = match Record::load(&root.join(&name)) {
            Ok(record) => {
                record.is_none_or(|record| record.lifetime == Lifetime::Process || !record.is_up)
            }
            // Another version of the harness wrote it, and may still use it.
            Err(error) => {
                crate::say(&format!("'{name}' is left alone: {error:#}"));
                false
            }
        };
        if is_rubbish {
            crate::say(&format!("cleaning up '{name}', whose process is gone"));
            remove(&owned)?;
        }
    }
    Ok(())
}

/// Mounts live in the namespaces of the nodes; one that reached the machine's own goes too.
fn unmount_below(directory: &Path) -> anyhow::Result<()> {
    for point in mounts_below(directory)? {
        unmount(point.as_str(), UnmountFlags::DETACH)
            .with_context(|| format!("unmount {point}"))?;
    }
    Ok(())
}
