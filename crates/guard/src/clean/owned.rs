//! What only its owner may give back: how much it is, and how. Nothing here is ever removed by Nagi.
//!
//! Files below the directories of containerd, docker, snapd, apt and dnf belong to a program that keeps books about them.
//! Removing one from outside breaks images, containers, snaps or what that program believes to have, so the plan only names
//! what a person or the owner can do. Such a directory may be a link: then what it leads to is the owner's too, and nothing is
//! removed there, whatever our own rules say of it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::place;
use super::reach::Reach;
use crate::blocks::Tally;
use crate::owner::Owner;
use crate::owner_table::{CONTAINERD_ROOTS, RULES};

/// Something of an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Whose.
    pub owner: Owner,
    /// Where, on the node.
    pub directory: PathBuf,
    /// What comes back.
    pub tally: Tally,
    /// By which command or setting.
    pub lever: &'static str,
}

/// A place of an owner: files at most so many directories below it that pass the rule.
struct Place {
    owner: Owner,
    directory: &'static str,
    depth: usize,
    counts: fn(&[u8], u32) -> bool,
    lever: &'static str,
}

const DNF: &str = "dnf clean packages; it downloads them again when they are needed";

const PLACES: [Place; 8] = [
    // A revision and its copy in the cache are one file with two names: it comes back when the last of them goes.
    Place {
        owner: Owner::SnapCache,
        directory: "/var/lib/snapd/cache",
        depth: 0,
        counts: |_, links| links == 1,
        lever: "snapd keeps at most five of these; remove disabled revisions first: snap remove NAME --revision=REV",
    },
    Place {
        owner: Owner::ContainerdIngest,
        directory: "/var/lib/containerd/io.containerd.content.v1.content/ingest",
        depth: 1,
        counts: |_, _| true,
        lever: "pulls under way or given up: 'nagi disk clean' has containerd drop those that nobody wrote to for 24 hours",
    },
    Place {
        owner: Owner::DockerLogs,
        directory: "/var/lib/docker/containers",
        depth: 1,
        counts: |name, _| Owner::Docker.of_file(name) == Owner::DockerLogs,
        lever: "set max-size and max-file of the json-file driver in daemon.json, and make the container anew",
    },
    Place {
        owner: Owner::ContainerdContent,
        directory: "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256",
        depth: 0,
        counts: |_, _| true,
        lever: "all images, used ones too; of those that nothing uses 'nagi disk clean' asks the runtime to let go",
    },
    Place {
        owner: Owner::AptLists,
        directory: "/var/lib/apt/lists",
        depth: 1,
        counts: |_, _| true,
        lever: "apt-get distclean, where apt has it; apt-get update brings them back, with a network",
    },
    // REPOSITORY/packages/NAME.rpm, and below yum's directory VERSION and architecture above that.
    Place {
        owner: Owner::Dnf,
        directory: "/var/cache/dnf",
        depth: 2,
        counts: is_package,
        lever: DNF,
    },
    Place {
        owner: Owner::Dnf,
        directory: "/var/cache/libdnf5",
        depth: 2,
        counts: is_package,
        lever: DNF,
    },
    Place {
        owner: Owner::Dnf,
        directory: "/var/cache/yum",
        depth: 4,
        counts: is_package,
        lever: "yum clean packages; it downloads them again when they are needed",
    },
];

/// Whose roots are the owner's alone.
const KEEPERS: [Owner; 6] = [
    Owner::Containerd,
    Owner::Kubelet,
    Owner::Etcd,
    Owner::Docker,
    Owner::ContainersStorage,
    Owner::Snapd,
];

/// Where the roots of owners lead that are links on this node. One that leads to what may not answer holds nothing of ours.
pub(super) fn moved(root: &OwnedFd, reach: &Reach) -> Vec<(Owner, PathBuf)> {
    let ruled = RULES.iter().filter(|(_, owner)| KEEPERS.contains(owner));
    let runtimes = CONTAINERD_ROOTS
        .iter()
        .map(|path| (*path, Owner::Containerd));
    let roots = ruled.copied().chain(runtimes);
    roots
        .filter_map(|(path, owner)| {
            let real = reach.real(root, Path::new(path)).ok()?;
            (real != Path::new(path)).then_some((owner, real))
        })
        .collect()
}

/// Whose a path of the node is by a link.
pub(super) fn owner_of(path: &Path, moved: &[(Owner, PathBuf)]) -> Option<Owner> {
    let mut moved = moved.iter();
    let found = moved.find(|(_, real)| path.starts_with(real));
    found.map(|(owner, _)| *owner)
}

/// Looks at every place. One that cannot be read, or may not answer, is left out: nothing depends on it.
pub(super) fn look(root: &OwnedFd, reach: &Reach) -> Vec<Left> {
    PLACES
        .iter()
        .filter_map(|place| {
            let directory = reach.real(root, Path::new(place.directory)).ok()?;
            let base = place::open_base(root, &directory).ok()??;
            let tally = count(&base, place.depth, place.counts);
            (tally.inodes > 0).then_some(Left {
                owner: place.owner,
                directory,
                tally,
                lever: place.lever,
            })
        })
        .collect()
}

/// Metadata beside them is fetched again by any use, so that removing it gives nothing back.
fn is_package(name: &[u8], _: u32) -> bool {
    name.ends_with(b".rpm")
}

fn count(directory: &OwnedFd, depth: usize, counts: fn(&[u8], u32) -> bool) -> Tally {
    let mut sum = Tally::default();
    for name in place::names(directory).unwrap_or_default() {
        let Ok(entry) = place::look(directory, &name) else {
            continue; // Gone meanwhile.
        };
        if entry.kind.is_dir() && depth > 0 {
            if let Ok(below) = place::open_below(directory, &name) {
                sum += count(&below, depth - 1, counts);
            }
        } else if entry.kind.is_file() && counts(&name, entry.links) {
            sum += Tally::one(entry.blocks);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    // D-15: what nothing here removes is named with the way in which it comes back.
    #[test]
    fn what_only_owners_give_back_is_named_with_its_lever() {
        let node = tempfile::tempdir().unwrap();
        for path in [
            "var/lib/apt/lists/deb.debian.org_dists_bookworm_main_Packages",
            "var/lib/apt/lists/partial/deb.debian.org_dists_bookworm_contrib_Packages",
            "var/cache/dnf/baseos-0123/packages/kernel-1.x86_64.rpm",
            "var/cache/dnf/baseos-0123/repodata/primary.xml.gz",
            "var/cache/yum/x86_64/7/base/packages/kernel-1.x86_64.rpm",
            "var/cache/libdnf5/fedora-0123/packages/kernel-1.x86_64.rpm",
        ] {
            let path = node.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![7; 4096]).unwrap();
        }
        let root = place::open_root(node.path()).unwrap();
        let left = look(&root, &Reach::of(&root).unwrap());
        let seen: Vec<_> = left
            .iter()
            .map(|one| (one.owner, one.directory.to_str().unwrap(), one.tally.inodes))
            .collect();
        assert_eq!(
            seen,
            [
                (Owner::AptLists, "/var/lib/apt/lists", 2),
                (Owner::Dnf, "/var/cache/dnf", 1),
                (Owner::Dnf, "/var/cache/libdnf5", 1),
                (Owner::Dnf, "/var/cache/yum", 1),
            ]
        );
        assert!(left.iter().all(|one| !one.lever.is_empty()));
    }
}
