//! Filesystems: full, without inodes, read-only, or so full that kubelet kills pods.

use std::path::{Path, PathBuf};

use super::{Facts, Floor, Found, bytes};
use crate::cause::Cause;
use crate::observed::{Filesystem, LineClass, Looked, Space, Writable};

/// Parts of a node that write all the time. The root alone is read-only on purpose on many systems.
const WRITERS: [&str; 8] = [
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/rancher",
    "/var/lib/k0s",
    "/var/lib/etcd",
    "/var/log",
];

/// Of them, what only a node has. Docker and podman bring the directories of a runtime to any machine.
const PARTS: [&str; 4] = [
    "/var/lib/kubelet",
    "/var/lib/rancher",
    "/var/lib/k0s",
    "/var/lib/etcd",
];
/// What else a node does not live without: sockets and locks, and whatever has no filesystem of its own.
const BASE: [&str; 2] = ["/", "/run"];

/// These make inodes as long as there are blocks.
const INODES_ON_DEMAND: [&str; 2] = ["xfs", "btrfs"];

pub(super) fn judge(facts: Facts<'_>, found: &mut Found) {
    let Ok(filesystems) = &facts.observed.filesystems else {
        return;
    };
    let is_node = is_node(facts);
    for one in filesystems.iter().filter(|one| !one.holds.is_empty()) {
        if !is_node {
            let why = "nothing of a cluster is known to live on this machine";
            elsewhere(one, why, facts, found);
            continue;
        }
        if !is_lived_from(one, facts) {
            elsewhere(one, "nothing of the node lives from it", facts, found);
            continue;
        }
        read_only(one, facts, found);
        let Some(space) = &one.space else {
            continue;
        };
        if is_full(one, facts) {
            full(one, space, facts, found);
        } else if has_no_inodes(one, space, facts) {
            no_inodes(one, space, facts, found);
        } else if !one.evicting.is_empty() {
            let point = shown(&one.point);
            found.add(Cause::DiskPressure, point, one.evicting.clone(), &[]);
        }
    }
}

/// Of each filesystem that the node lives from, whether there is room: for a restart, and for a write-ahead log to go on.
pub(super) fn floors(facts: Facts<'_>) -> Looked<Vec<Floor>> {
    let filesystems = facts.observed.filesystems.as_ref().map_err(Clone::clone)?;
    let lived_from = filesystems
        .iter()
        .filter(|one| !one.holds.is_empty() && is_lived_from(one, facts));
    Ok(lived_from.map(|one| floor(one, facts)).collect())
}

fn floor(one: &Filesystem, facts: Facts<'_>) -> Floor {
    let point = shown(&one.point);
    let Some(space) = &one.space else {
        return Floor {
            point: one.point.clone(),
            is_met: false,
            evidence: format!("{point} did not say how full it is"),
        };
    };
    let inodes = match space.inodes {
        0 => String::new(),
        all => format!(", {} of {all} inodes free", space.inodes_free),
    };
    Floor {
        point: one.point.clone(),
        is_met: !is_full(one, facts) && !has_no_inodes(one, space, facts),
        evidence: format!(
            "{point}: {} of {} available{inodes}",
            bytes(space.bytes_available),
            bytes(space.bytes)
        ),
    }
}

/// A part of the node that writes is on it. Others, as /tmp, are full and take nothing down.
fn is_lived_from(one: &Filesystem, facts: Facts<'_>) -> bool {
    let data = facts.observed.etcd.as_ref().ok().map(|etcd| &etcd.data_dir);
    let is_base = |held: &PathBuf| BASE.iter().any(|base| *held == Path::new(base));
    !writers(one).is_empty()
        || one
            .holds
            .iter()
            .any(|held| is_base(held) || Some(held) == data)
}

/// Something of a cluster lives here. A full disk of another machine takes no cluster down.
fn is_node(facts: Facts<'_>) -> bool {
    let filesystems = facts.observed.filesystems.as_deref().unwrap_or_default();
    let is_part = |held: &PathBuf| PARTS.iter().any(|part| *held == Path::new(part));
    facts.observed.manifests.is_ok() || filesystems.iter().any(|one| one.holds.iter().any(is_part))
}

fn elsewhere(one: &Filesystem, why: &str, facts: Facts<'_>, found: &mut Found) {
    let has_no_inodes = one
        .space
        .is_some_and(|space| has_no_inodes(one, &space, facts));
    if is_full(one, facts) || has_no_inodes {
        found.note(format!("{} is full; {why}", shown(&one.point)));
    }
}

/// A filesystem that the node lives from has no room, by the policy.
pub(super) fn is_full(one: &Filesystem, facts: Facts<'_>) -> bool {
    // A small one is full at a hundredth of its size: /run of a small machine has less than the other limit at all.
    let is_below = |space: Space| {
        let floor = facts.policy.full_below.min(space.bytes / 100);
        space.bytes > 0 && space.bytes_available <= floor
    };
    // What can only be read and holds nothing that writes was full from the beginning, as the image of a root is.
    let is_image = match one.writable {
        Writable::No => writers(one).is_empty(),
        Writable::Yes | Writable::NotThisMount | Writable::Withdrawn => false,
    };
    one.space.is_some_and(is_below) && !is_image
}

/// Parts of the node on it that write all the time.
fn writers(one: &Filesystem) -> Vec<&Path> {
    let held = one.holds.iter().map(PathBuf::as_path);
    held.filter(|held| WRITERS.iter().any(|writer| *held == Path::new(writer)))
        .collect()
}

/// How many of its inodes are used, rounded up. None of a filesystem that makes them as long as it has blocks.
pub(crate) fn inodes_used_percent(one: &Filesystem) -> Option<u64> {
    let is_fixed = !INODES_ON_DEMAND.contains(&one.fstype.as_str());
    let space = one.space.filter(|space| is_fixed && space.inodes > 0)?;
    let used = space.inodes.saturating_sub(space.inodes_free);
    let percent = (u128::from(used) * 100).div_ceil(u128::from(space.inodes));
    u64::try_from(percent).ok()
}

pub(super) fn has_no_inodes(one: &Filesystem, space: &Space, facts: Facts<'_>) -> bool {
    let is_fixed = !INODES_ON_DEMAND.contains(&one.fstype.as_str());
    let floor = u128::from(space.inodes) * u128::from(facts.policy.inodes_free_permille) / 1000;
    let is_below =
        u128::from(space.inodes_free) <= floor || space.inodes_free < facts.policy.inodes_free_min;
    is_fixed && space.inodes > 0 && is_below
}

fn read_only(one: &Filesystem, facts: Facts<'_>, found: &mut Found) {
    let how = match one.writable {
        Writable::Yes => return,
        Writable::NotThisMount => "its mount is read-only",
        Writable::No => "the filesystem itself is mounted read-only",
        Writable::Withdrawn => {
            "mounted for writing, and the filesystem is read-only, as after an error of the disk"
        }
    };
    let writers = writers(one);
    let Some(first) = writers.first() else {
        return;
    };
    let first = facts.outside(first);
    let what = format!("{} ({}): {how}", shown(&one.point), one.fstype);
    // A rescue system mounts a node's disk so on purpose, and a pod sees it so; what the kernel withdrew is the node's.
    if facts.observed.root != Path::new("/") && one.writable != Writable::Withdrawn {
        found.note(format!(
            "{what}; so it is seen below {}",
            shown(&facts.observed.root)
        ));
        return;
    }
    let writers: Vec<String> = writers.into_iter().map(shown).collect();
    let mut evidence = vec![what, format!("it holds {}", writers.join(", "))];
    evidence.extend(facts.last_line(|class| *class == LineClass::ReadOnly));
    let point = shown(&one.point);
    found.add(
        Cause::FilesystemReadOnly,
        point,
        evidence,
        &[("path", &[&first])],
    );
}

fn full(one: &Filesystem, space: &Space, facts: Facts<'_>, found: &mut Found) {
    let shows = format!(
        "{} of {} available, {} more for root only",
        bytes(space.bytes_available),
        bytes(space.bytes),
        bytes(space.reserved()),
    );
    used_up(Cause::DiskFull, &shows, one, facts, found);
}

fn no_inodes(one: &Filesystem, space: &Space, facts: Facts<'_>, found: &mut Found) {
    let shows = format!(
        "{} of {} inodes free; {} are available and of no use",
        space.inodes_free,
        space.inodes,
        bytes(space.bytes_available),
    );
    used_up(Cause::InodesExhausted, &shows, one, facts, found);
}

fn used_up(cause: Cause, shows: &str, one: &Filesystem, facts: Facts<'_>, found: &mut Found) {
    let point = shown(&one.point);
    let mut evidence = vec![format!("{point} ({}): {shows}", one.fstype)];
    evidence.push(holds(one));
    evidence.extend(line_of(one, facts));
    // Where it is mounted on this machine, below whatever root the node is seen.
    found.add(cause, point.clone(), evidence, &[("point", &[&point])]);
}

fn holds(one: &Filesystem) -> String {
    let held: Vec<String> = one.holds.iter().map(|held| shown(held)).collect();
    format!("it holds {}", held.join(", "))
}

/// The last line that says ENOSPC of a path on this filesystem.
fn line_of(one: &Filesystem, facts: Facts<'_>) -> Option<String> {
    let lines = facts.lines(|class| matches!(class, LineClass::NoSpace(_)));
    let here: Vec<_> = lines
        .filter(|line| line.point.as_ref() == Some(&one.point))
        .collect();
    Some(super::said(here.last()?, here.len()))
}

pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}
