//! Who owns what, on a node that is made for it.

use std::fs;
use std::path::Path;

use nagi_guard::{Advice, Class, Owner, Place, Survey};

use crate::machine::{Type, du, fill, inside, settle, survey_below};

/// The files of a node, each with its owner. Numbers are pieces of 64 KiB.
const NODE: &[(&str, usize, Owner)] = &[
    (
        "var/lib/containerd/io.containerd.content.v1.content/blobs/sha256/aa",
        5,
        Owner::ContainerdContent,
    ),
    (
        "var/lib/containerd/io.containerd.content.v1.content/ingest/1/data",
        3,
        Owner::ContainerdIngest,
    ),
    (
        "var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs/bin",
        9,
        Owner::ContainerdSnapshots,
    ),
    (
        "var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db",
        1,
        Owner::Containerd,
    ),
    (
        "var/lib/kubelet/pods/1/volumes/kubernetes.io~empty-dir/cache/file",
        4,
        Owner::KubeletEmptyDir,
    ),
    ("var/lib/kubelet/pods/1/etc-hosts", 1, Owner::KubeletPods),
    ("var/log/pods/a_b_1/c/0.log", 2, Owner::PodLogs),
    (
        "var/log/pods/a_b_1/c/0.log.20260102-030405.gz",
        2,
        Owner::PodLogsRotated,
    ),
    ("var/lib/etcd/member/snap/db", 4, Owner::Etcd),
    (
        "var/log/journal/0123456789abcdef0123456789abcdef/system@0123456789abcdef0123456789abcdef-0000000000000001-0000000000000002.journal",
        6,
        Owner::JournalArchived,
    ),
    (
        "var/log/journal/0123456789abcdef0123456789abcdef/system.journal",
        2,
        Owner::JournalActive,
    ),
    (
        "var/log/journal/0123456789abcdef0123456789abcdef/notes.txt",
        1,
        Owner::Unknown,
    ),
    // Of another machine.
    (
        "var/log/journal/ffff456789abcdef0123456789abcdef/system@0123456789abcdef0123456789abcdef-0000000000000001-0000000000000002.journal",
        4,
        Owner::JournalOther,
    ),
    ("var/cache/dnf/baseos-1/packages/a-1.rpm", 3, Owner::Dnf),
    ("var/cache/apt/archives/a.deb", 3, Owner::AptArchives),
    ("var/lib/apt/lists/main", 2, Owner::AptLists),
    ("var/lib/snapd/snaps/core_1.snap", 5, Owner::SnapRevisions),
    ("var/lib/systemd/coredump/core.1", 2, Owner::Coredumps),
    ("data/of/somebody", 7, Owner::Unknown),
    // Where /var/lib/docker leads.
    ("data/docker/overlay2/a/diff/b", 3, Owner::Docker),
    ("data/docker/volumes/v/_data/c", 2, Owner::DockerVolumes),
];

fn node(root: &Path) {
    for (path, pieces, _) in NODE {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fill(&path, pieces << 16);
    }
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(
        root.join("etc/machine-id"),
        "0123456789abcdef0123456789abcdef\n",
    )
    .unwrap();
    std::os::unix::fs::symlink("/data/docker", root.join("var/lib/docker")).unwrap();
    // What is installed and what was downloaded are the same file.
    let cache = root.join("var/lib/snapd/cache");
    fs::create_dir_all(&cache).unwrap();
    fs::hard_link(
        root.join("var/lib/snapd/snaps/core_1.snap"),
        cache.join("core"),
    )
    .unwrap();
    fill(&cache.join("orphan"), 1 << 16);
    settle(root);
}

fn surveyed(root: &Path) -> Survey {
    survey_below(root, &[]).unwrap()
}

/// Bytes of files: directories of an owner take something too, but less than a piece.
fn pieces(place: &Place, owner: Owner) -> u64 {
    place.of(owner).bytes() >> 16
}

// D-07
#[test]
fn every_byte_has_one_owner_and_what_nobody_owns_is_unknown() {
    inside("", || {
        let disk = Type::Xfs.mounted(320, &[]);
        node(&disk.point);
        let place = surveyed(&disk.point).places.remove(0);
        for owner in Owner::all() {
            let planted: usize = NODE
                .iter()
                .filter(|(_, _, own)| *own == owner)
                .map(|(_, pieces, _)| pieces)
                .sum();
            let orphan = usize::from(owner == Owner::SnapCache);
            // The link in the cache comes before the one in snaps, so it is counted there.
            let linked = if owner == Owner::SnapCache {
                5
            } else if owner == Owner::SnapRevisions {
                -5
            } else {
                0
            };
            let expected = i64::try_from(planted + orphan).unwrap() + linked;
            assert_eq!(
                i64::try_from(pieces(&place, owner)).unwrap(),
                expected,
                "{owner:?}"
            );
        }
        let sum: u64 = place.owners.iter().map(|(_, tally)| tally.blocks.0).sum();
        assert_eq!(sum, du(&disk.point), "owners are all of it");
        let unknown = place
            .owners
            .iter()
            .filter(|(owner, _)| owner.class() == Class::Unknown);
        assert_eq!(unknown.count(), 1);
    });
}

// B-009, B-028: the table of the founding document, in thousandths of its size.
#[test]
fn the_table_of_the_founding_document_comes_out() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        // 1.8 GB, 920 MB, 432 MB and 273 MB.
        for (name, kilobytes) in [
            ("containerd", 1800),
            ("snapd", 920),
            ("etcd", 432),
            ("apt", 273),
        ] {
            let directory = disk.point.join("var/lib").join(name);
            fs::create_dir_all(&directory).unwrap();
            fill(&directory.join("all"), kilobytes << 12);
        }
        settle(&disk.point);
        let survey = surveyed(&disk.point);
        let tree = &survey.places[0].tree;
        let root = tree.starts().next().unwrap();
        let child = |id, name: &str| {
            let found = tree
                .below(id)
                .iter()
                .find(|child| tree.name(**child) == name);
            *found.unwrap()
        };
        let lib = child(child(root, "var"), "lib");
        let rows: Vec<(String, u64)> = tree
            .largest_below(lib)
            .into_iter()
            .map(|id| {
                let share = tree.sum(id).bytes() * 1000 / tree.sum(lib).bytes();
                (tree.name(id).into_string().unwrap(), (share + 5) / 10)
            })
            .collect();
        let expected = [("containerd", 53), ("snapd", 27), ("etcd", 13), ("apt", 8)];
        assert_eq!(rows, expected.map(|(name, share)| (name.to_owned(), share)));
        // Of the whole disk, whose root takes a little too.
        assert!(
            survey
                .advice
                .iter()
                .any(|advice| matches!(advice, Advice::ImagesAboveHalf { percent: 52, .. }))
        );
    });
}
