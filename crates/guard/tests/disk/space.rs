//! How full a filesystem is, against what statvfs and `stat -f` say.

use std::path::Path;

use nagi_guard::{Filesystem, Kind, ReadOnly, Space, SurveyError};

use crate::machine::{Type, fill, inside, run, settle, survey, survey_below};

/// `stat -f`: blocks, free, available, inodes, free inodes, unit.
fn stat(point: &Path) -> Space {
    let text = run(
        "stat",
        [
            "-f".as_ref(),
            "-c".as_ref(),
            "%b %f %a %c %d %S".as_ref(),
            point.as_os_str(),
        ],
    );
    let numbers: Vec<u64> = text
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    let [blocks, free, available, inodes, inodes_free, unit] = numbers[..] else {
        panic!("{text}")
    };
    Space {
        bytes: blocks * unit,
        bytes_free: free * unit,
        bytes_available: available * unit,
        inodes,
        inodes_free,
    }
}

fn filesystem(point: &Path) -> Filesystem {
    let survey = survey(point);
    let listed = survey.filesystems.iter().find(|one| one.point == point);
    listed.expect("it is listed").clone()
}

// D-03
#[test]
fn each_filesystem_says_what_stat_says() {
    inside("", || {
        for kind in Type::ALL {
            let disk = kind.mounted(400, &[]);
            fill(&disk.point.join("file"), 20 << 20);
            settle(&disk.point);
            let found = filesystem(&disk.point);
            assert_eq!(found.space, Some(stat(&disk.point)), "{kind}");
            assert_eq!(
                (found.fstype.as_str(), found.kind),
                (kind.name(), Kind::Disk)
            );
            assert_eq!(found.read_only, ReadOnly::No);
            assert!(
                found.source.to_string_lossy().starts_with("/dev/loop"),
                "{found:?}"
            );
            assert!(found.is_whole() && found.holds.is_empty());
            if kind == Type::Ext4 {
                let space = found.space.unwrap();
                assert!(space.reserved() > 10 << 20, "5 % of 400 MiB: {space:?}");
            }
        }
    });
}

// D-03: the mount, or the filesystem itself.
#[test]
fn a_filesystem_that_nobody_can_write_is_told_from_a_mount_that_is_closed() {
    inside("", || {
        let disk = Type::Ext4.mounted(32, &[]);
        run(
            "mount",
            [
                "-o".as_ref(),
                "remount,bind,ro".as_ref(),
                disk.point.as_os_str(),
            ],
        );
        assert_eq!(filesystem(&disk.point).read_only, ReadOnly::Mount);
        run(
            "mount",
            ["-o".as_ref(), "remount,ro".as_ref(), disk.point.as_os_str()],
        );
        assert_eq!(filesystem(&disk.point).read_only, ReadOnly::Filesystem);
        // What the kernel does after an error leaves the mount as it was.
        run(
            "mount",
            [
                "-o".as_ref(),
                "remount,bind,rw".as_ref(),
                disk.point.as_os_str(),
            ],
        );
        assert_eq!(filesystem(&disk.point).read_only, ReadOnly::Withdrawn);
    });
}

// D-03: guarded paths, also those that are links, below another root.
#[test]
fn each_disk_says_which_guarded_paths_live_on_it() {
    inside("", || {
        let (root, images) = (Type::Ext4.mounted(32, &[]), Type::Ext4.mounted(32, &[]));
        let node = root.point.join("node");
        for directory in [
            "var/lib/kubelet",
            "var/lib/containerd",
            "data/docker",
            "var/log",
        ] {
            std::fs::create_dir_all(node.join(directory)).unwrap();
        }
        std::os::unix::fs::symlink("/data/docker", node.join("var/lib/docker")).unwrap();
        let containerd = node.join("var/lib/containerd");
        run(
            "mount",
            [
                "--bind".as_ref(),
                images.point.as_os_str(),
                containerd.as_os_str(),
            ],
        );
        let survey = survey_below(&node, &[]).unwrap();
        let holds = |point: &Path| {
            let device = survey.filesystems.iter().find(|one| one.point == point);
            let holds = device.unwrap().holds.iter();
            holds
                .map(|path| path.strip_prefix(&node).unwrap().display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            holds(&root.point),
            ["", "var/lib/kubelet", "data/docker", "var/log"]
        );
        assert_eq!(holds(&images.point), ["var/lib/containerd"]);
        // Without paths both are walked, for both hold something.
        let walked: Vec<&Path> = survey
            .places
            .iter()
            .map(|place| place.filesystem.point.as_path())
            .collect();
        assert_eq!(walked, [root.point.as_path(), images.point.as_path()]);
    });
}

// What is unknown or not for storage is reported, and not walked.
#[test]
fn where_nothing_is_stored_nothing_is_walked() {
    let refused = survey_below(Path::new("/"), &[Path::new("/proc/self/net")]);
    assert!(
        matches!(&refused, Err(SurveyError::NotWalked { fstype, .. }) if fstype == "proc"),
        "{refused:?}"
    );
    let missing = survey_below(Path::new("/"), &[Path::new("/not/there")]);
    assert!(
        matches!(missing, Err(SurveyError::Find { .. })),
        "{missing:?}"
    );
}
