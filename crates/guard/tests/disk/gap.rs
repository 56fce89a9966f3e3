//! The gap between df and du, closed on real filesystems.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nagi_guard::{Estimate, Place, Under};

use crate::machine::{Mounted, Type, cover, fill, inside, mount_image, run, settle, survey};

const MIB: u64 = 1 << 20;

/// Lays an overlay over directories of a disk.
fn overlay(disk: &Path) -> PathBuf {
    let path = |name: &str| disk.join(name);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(path(name)).unwrap();
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        path("lower").display(),
        path("upper").display(),
        path("work").display()
    );
    let merged = path("merged");
    let arguments = ["-t", "overlay", "overlay", "-o", &options];
    run(
        "mount",
        arguments
            .iter()
            .map(AsRef::as_ref)
            .chain([merged.as_os_str()]),
    );
    merged
}

/// As D-06 asks.
fn assert_closed(place: &Place, what: &str) {
    let gap = place.gap.unwrap();
    assert!(
        gap.rest_per_mille() <= 10,
        "{what}: {} of {} bytes are not explained: {gap:?}",
        gap.rest(),
        gap.used
    );
}

// D-06: what XFS keeps for its trees is by its features and the size of its blocks.
#[test]
fn what_an_xfs_takes_for_itself_is_known_of_each_layout() {
    inside("", || {
        for options in [
            "-m reflink=0",
            "-m rmapbt=1",
            "-b size=1024 -m reflink=0,rmapbt=1",
            "-b size=2048 -d agcount=9 -i size=1024",
            "-m finobt=0,reflink=0",
        ] {
            let words: Vec<&str> = options.split(' ').collect();
            let disk = Type::Xfs.mounted(1200, &words);
            fill(&disk.point.join("file"), 10 << 20);
            settle(&disk.point);
            let place = survey(&disk.point).places.remove(0);
            let gap = place.gap.unwrap();
            println!("{options}: {} of {}", gap.rest(), gap.used);
            assert_closed(&place, options);
        }
    });
}

// D-06: 100 MiB deleted and open, 70 MiB hidden under a mount.
#[test]
fn what_is_deleted_and_what_is_hidden_explains_all_but_one_hundredth() {
    inside("", || {
        for kind in Type::ALL {
            let disk = kind.mounted(1200, &[]);
            fill(&disk.point.join("file"), 50 << 20);
            let hidden = disk.point.join("data");
            fs::create_dir(&hidden).unwrap();
            fill(&hidden.join("before-the-mount"), 70 << 20);
            cover(&hidden);
            let log = disk.point.join("app.log");
            fill(&log, 100 << 20);
            let open = File::open(&log).unwrap();
            fs::remove_file(&log).unwrap();
            settle(&disk.point);

            let place = survey(&disk.point).places.remove(0);
            assert_closed(&place, kind.name());
            let gap = place.gap.unwrap();
            assert_eq!(gap.deleted / MIB, 100, "{kind}");
            assert_eq!(gap.hidden.unwrap() / MIB, 70, "{kind}");
            let [file] = &place.deleted[..] else {
                panic!("{kind}: {:?}", place.deleted)
            };
            assert_eq!(file.path, log);
            assert_eq!(file.holders[0].pid, std::process::id());
            let Under::Seen(under) = &place.under else {
                panic!()
            };
            assert_eq!(under[0].point, hidden);
            assert_eq!(under[0].fstype, "tmpfs");

            drop(open);
            settle(&disk.point);
            let after = survey(&disk.point).places.remove(0);
            assert_closed(&after, kind.name());
            assert_eq!(after.deleted, []);
        }
    });
}

// D-06: an image that was removed while it is mounted takes space that neither du nor any process shows.
#[test]
fn a_removed_image_behind_a_loop_device_is_explained() {
    inside("", || {
        for kind in Type::ALL {
            let disk = kind.mounted(600, &[]);
            let image = disk.point.join("image");
            fill(&image, 100 << 20);
            run(
                "mkfs.ext4",
                [
                    "-q".as_ref(),
                    "-E".as_ref(),
                    "nodiscard".as_ref(),
                    image.as_os_str(),
                ],
            );
            let point = disk.point.join("mounted");
            fs::create_dir(&point).unwrap();
            mount_image(&image, &point);
            fs::remove_file(&image).unwrap();
            settle(&disk.point);
            let place = survey(&disk.point).places.remove(0);
            let gap = place.gap.unwrap();
            println!(
                "{kind}: {} of {} bytes are not explained",
                gap.rest(),
                gap.used
            );
            // Where btrfs writes to another place, what it replaced stays in use, and the length of a file does not show it.
            if kind == Type::Btrfs {
                assert!(gap.rest_per_mille() <= 60, "{gap:?}");
            } else {
                assert_closed(&place, kind.name());
            }
            assert!(gap.deleted / MIB >= 99, "{kind}: {gap:?}");
            let [file] = &place.deleted[..] else {
                panic!("{kind}: {:?}", place.deleted)
            };
            assert_eq!(file.path, image);
            assert!(file.holders[0].command.starts_with("loop"), "{file:?}");
            run("umount", [point.as_os_str()]);
            let after = survey(&disk.point).places.remove(0);
            assert_eq!(after.deleted, [], "{kind}");
        }
    });
}

// Many small files: on XFS their inodes are a large part of what is used.
#[test]
fn the_inodes_of_many_small_files_are_explained() {
    inside("", || {
        for kind in Type::ALL {
            let disk = kind.mounted(1200, &[]);
            fill(&disk.point.join("file"), 100 << 20);
            for directory in 0..40 {
                let directory = disk.point.join(directory.to_string());
                fs::create_dir(&directory).unwrap();
                for number in 0..500 {
                    fs::write(directory.join(number.to_string()), [1; 600]).unwrap();
                }
            }
            settle(&disk.point);
            assert_closed(&survey(&disk.point).places[0], kind.name());
        }
    });
}

// The books of the kernel are exact: what is left of them is less than a hundredth of what the filesystem keeps.
#[test]
fn what_btrfs_takes_for_itself_is_read_from_its_books() {
    inside("", || {
        let disk = Type::Btrfs.mounted(400, &[]);
        settle(&disk.point);
        let gap = survey(&disk.point).places.remove(0).gap.unwrap();
        assert!(
            matches!(gap.own, Estimate::Exact(own) if own > MIB),
            "{gap:?}"
        );
        assert!(gap.rest().unsigned_abs() <= 64 << 10, "{gap:?}");
    });
}

/// Makes a subvolume of a btrfs.
fn subvolume(disk: &Mounted) -> PathBuf {
    let work = disk.point.join("work");
    let words = ["-q", "subvolume", "create"].map(OsStr::new);
    run("btrfs", words.into_iter().chain([work.as_os_str()]));
    work
}

// D-06: snapshots, as far as can be told: where they are, and how much is shared.
#[test]
fn snapshots_are_named_and_what_they_share_is_counted_once() {
    inside("", || {
        let disk = Type::Btrfs.mounted(400, &[]);
        let work = subvolume(&disk);
        fill(&work.join("file"), 40 << 20);
        settle(&disk.point);
        let snapshot = disk.point.join("yesterday");
        let arguments = ["-q", "subvolume", "snapshot", "-r"];
        let paths = [work.as_os_str(), snapshot.as_os_str()];
        run("btrfs", arguments.iter().map(AsRef::as_ref).chain(paths));
        settle(&disk.point);
        let place = survey(&disk.point).places.remove(0);
        assert_eq!(place.subvolumes, [work, snapshot]);
        let gap = place.gap.unwrap();
        assert_eq!(gap.shared / MIB, 40, "{gap:?}");
        assert_closed(&place, "btrfs");
    });
}

// A container writes through an overlay: the file shows the overlay's device, and takes space of the disk below.
#[test]
fn a_file_that_was_removed_through_an_overlay_is_found_on_the_disk_below() {
    inside("", || {
        for kind in Type::ALL {
            let disk = kind.mounted(400, &[]);
            let merged = overlay(&disk.point);
            let log = merged.join("log");
            fill(&log, 20 << 20);
            let open = File::open(&log).unwrap();
            fs::remove_file(&log).unwrap();
            settle(&disk.point);
            let place = survey(&disk.point).places.remove(0);
            let gap = place.gap.unwrap();
            assert_eq!(gap.deleted / MIB, 20, "{kind}: {gap:?}");
            assert!(gap.rest().unsigned_abs() < MIB.into(), "{kind}: {gap:?}");
            drop(open);
        }
    });
}

// A program that was replaced while it runs holds its old file by its mappings alone.
#[test]
fn a_file_that_is_only_mapped_is_found_too() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let program = disk.point.join("sleeper");
        // By a process of its own, so that nobody here has it open for writing when it is run.
        let copied = crate::machine::command("cp")
            .arg("/bin/sleep")
            .arg(&program)
            .status();
        assert!(copied.unwrap().success());
        let mut child = crate::machine::command(program.to_str().unwrap())
            .arg("60")
            .spawn()
            .unwrap();
        fs::remove_file(&program).unwrap();
        settle(&disk.point);
        let place = survey(&disk.point).places.remove(0);
        child.kill().unwrap();
        child.wait().unwrap();
        let [file] = &place.deleted[..] else {
            panic!("{:?}", place.deleted)
        };
        assert_eq!(file.path, program);
        assert_eq!(
            (file.holders[0].pid, file.holders[0].fd),
            (child.id(), None)
        );
    });
}

// A part of a filesystem says nothing about the whole.
#[test]
fn only_a_whole_filesystem_has_a_gap_to_explain() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let part = disk.point.join("part");
        fs::create_dir(&part).unwrap();
        let gap = |path: &Path| survey(path).places.remove(0).gap;
        assert_eq!(gap(&part), None);
        assert!(gap(&disk.point).is_some());
    });
}

// On btrfs often only a subvolume is mounted, and the others cannot be seen.
#[test]
fn a_subvolume_alone_is_not_taken_for_the_whole() {
    inside("", || {
        let disk = Type::Btrfs.mounted(400, &[]);
        let work = subvolume(&disk);
        fill(&work.join("file"), 1 << 20);
        let alone = disk.point.join("alone");
        fs::create_dir(&alone).unwrap();
        let source = run(
            "findmnt",
            ["-no".as_ref(), "SOURCE".as_ref(), disk.point.as_os_str()],
        );
        let arguments = ["-o", "subvol=work", source.trim()];
        run(
            "mount",
            arguments
                .iter()
                .map(AsRef::as_ref)
                .chain([alone.as_os_str()]),
        );
        settle(&disk.point);
        let place = survey(&alone).places.remove(0);
        assert_eq!((place.is_whole, place.gap), (false, None));
        assert_eq!(place.filesystem.root, Path::new("/work"));
        assert!(place.visible.bytes() >= MIB);
    });
}

// Each subvolume of a btrfs shows a device number of its own, and its files take space of the one disk.
#[test]
fn a_deleted_file_of_a_subvolume_is_of_the_filesystem_of_its_mount() {
    inside("", || {
        let disk = Type::Btrfs.mounted(400, &[]);
        let work = subvolume(&disk);
        let log = work.join("app.log");
        fill(&log, 4 << 20);
        let open = File::open(&log).unwrap();
        fs::remove_file(&log).unwrap();
        settle(&disk.point);
        let device = survey(&disk.point).places.remove(0).filesystem.device;
        let found = nagi_guard::open_files(Path::new("/")).unwrap();
        let file = found.deleted.iter().find(|file| file.path == log).unwrap();
        assert_eq!(file.device, device);
        drop(open);
    });
}

// The merged view of an overlay counts files of other filesystems: it explains nothing about its own.
#[test]
fn an_overlay_is_walked_and_explains_nothing() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let merged = overlay(&disk.point);
        fill(&disk.point.join("lower/file"), 1 << 20);
        fill(&merged.join("own"), 1 << 20);
        settle(&disk.point);
        let place = survey(&merged).places.remove(0);
        assert_eq!((place.is_whole, place.gap), (false, None));
        assert!(place.visible.bytes() >= 2 * MIB);
    });
}
