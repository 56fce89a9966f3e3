//! Trees with everything in them that a walk can trip over, against `du -x`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use nagi_guard::Under;

use crate::machine::{
    NOBODY_SPECIAL, Type, cover, du, du_inodes, fill, inside, run, settle, survey, survey_below,
};

/// Hard links, holes, loops, odd names, and a directory that a mount is laid over later.
fn plant(root: &Path) {
    for directory in ["a/b/c", "d", "mounted/below"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fill(&root.join("a/file"), 300_000);
    fs::hard_link(root.join("a/file"), root.join("a/b/same")).unwrap();
    fs::hard_link(root.join("a/file"), root.join("d/same")).unwrap();
    let sparse = fs::File::create(root.join("a/b/sparse")).unwrap();
    sparse.write_all_at(b"x", 1 << 30).unwrap();
    symlink("..", root.join("a/b/c/up")).unwrap();
    symlink("self", root.join("self")).unwrap();
    symlink("/", root.join("d/everything")).unwrap();
    fill(&root.join(OsStr::from_bytes(b"d/\xff\xfe")), 5000);
    for number in 0..300 {
        fs::write(root.join(format!("a/b/c/{number}")), vec![1; number * 40]).unwrap();
    }
    fill(&root.join("mounted/below/hidden"), 1 << 20);
    settle(root);
}

// D-05, D-06, B-008
#[test]
fn a_tree_takes_what_du_says_on_every_filesystem_and_what_a_mount_hides_comes_on_top() {
    inside("", || {
        for kind in Type::ALL {
            let disk = kind.mounted(400, &[]);
            plant(&disk.point);
            let whole = du(&disk.point);
            assert_eq!(
                survey(&disk.point).places[0].visible.blocks.0,
                whole,
                "{kind}"
            );
            let mounted = disk.point.join("mounted");
            let below = du(&mounted);
            cover(&mounted);
            fill(&mounted.join("elsewhere"), 1 << 20);
            // A second view of a part of it counts nothing twice.
            let bound = disk.point.join("d/bound");
            fs::create_dir(&bound).unwrap();
            settle(&disk.point);
            let place = survey(&disk.point).places.remove(0);
            assert_eq!(place.visible.blocks.0, du(&disk.point), "{kind}");
            assert_eq!(place.visible.inodes, du_inodes(&disk.point), "{kind}");
            let Under::Seen(hidden) = &place.under else {
                panic!("root sees past mounts: {:?}", place.under)
            };
            let [one] = &hidden[..] else {
                panic!("{hidden:?}")
            };
            assert_eq!(
                (&one.point, one.tally.blocks.0),
                (&mounted, below),
                "{kind}"
            );
            run(
                "mount",
                [
                    "--bind".as_ref(),
                    disk.point.join("a").as_os_str(),
                    bound.as_os_str(),
                ],
            );
            let with_bound = survey(&disk.point).places.remove(0);
            assert_eq!(with_bound.tree.total(), place.tree.total(), "{kind}");
            let Under::Seen(hidden) = &with_bound.under else {
                panic!()
            };
            let told: Vec<_> = hidden
                .iter()
                .map(|one| (&one.point, one.tally.inodes))
                .collect();
            assert_eq!(told, [(&mounted, 3), (&bound, 1)], "{kind}");
            assert_eq!(place.unread.1, 0);
        }
    });
}

// Without the right to look past mounts each is named, and the rest still is what du says.
#[test]
fn whoever_may_not_look_under_mounts_is_told_which() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        plant(&disk.point);
        let mounted = disk.point.join("mounted");
        cover(&mounted);
        // A file can be mounted over as well.
        let file = disk.point.join("d/hosts");
        fill(&file, 9000);
        settle(&disk.point);
        let visible = du(&disk.point) - fs::metadata(&file).unwrap().blocks();
        run(
            "mount",
            [
                "--bind".as_ref(),
                "/etc/hostname".as_ref(),
                file.as_os_str(),
            ],
        );
        let seen = nobody(&disk.point);
        assert!(
            seen.contains(&format!("not under: {}", mounted.display())),
            "{seen}"
        );
        assert!(
            seen.contains(&format!("not under: {}", file.display())),
            "{seen}"
        );
        assert!(seen.contains(&format!("visible: {visible}\n")), "{seen}");
    });
}

/// What somebody without capabilities is told, by a process of its own.
fn nobody(point: &Path) -> String {
    let program = std::env::current_exe().unwrap();
    let output = crate::machine::command("setpriv")
        .args(["--bounding-set", NOBODY_SPECIAL, "--inh-caps=-all"])
        .arg(program)
        .args(["--exact", "trees::tell", "--nocapture"])
        .env(TOLD, point)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&text)
    );
    String::from_utf8_lossy(&text).into_owned()
}

/// Names the directory that [`tell`] is about.
const TOLD: &str = "TELL_OF_DIRECTORY";

// The other half of the tests beside it; alone it has nothing to tell.
#[test]
fn tell() {
    let Some(point) = std::env::var_os(TOLD) else {
        return;
    };
    let place = survey(Path::new(&point)).places.remove(0);
    println!("visible: {}", place.visible.blocks.0);
    if let Under::NotSeen(why, points) = &place.under {
        println!("why: {why}");
        for point in points {
            println!("not under: {}", point.display());
        }
    }
    for fault in &place.unread.0 {
        println!("unread: {}: {}", fault.path.display(), fault.error);
    }
    println!("gap: {:?}", place.gap);
}

#[test]
fn a_directory_that_may_not_be_read_is_named_and_the_rest_is_counted() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        plant(&disk.point);
        let closed = disk.point.join("a/b");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).unwrap();
        let seen = nobody(&disk.point);
        let line = format!("unread: {}: Permission denied", closed.display());
        assert!(seen.contains(&line), "{seen}");
        let all = survey(&disk.point).places.remove(0);
        assert_eq!(all.unread.1, 0, "root reads it");
        assert!(!seen.contains(&format!("visible: {}\n", all.visible.blocks.0)));
    });
}

// In a container often only parts of a disk are seen, each at its own place: they are walked together.
#[test]
fn a_disk_of_which_only_parts_are_seen_is_walked_part_by_part() {
    inside("", || {
        let (node, disk) = (Type::Ext4.mounted(64, &[]), Type::Ext4.mounted(64, &[]));
        let (kubelet, log) = (
            node.point.join("var/lib/kubelet"),
            node.point.join("var/log"),
        );
        for (part, place) in [("pods", &kubelet), ("logs", &log)] {
            let part = disk.point.join(part);
            fs::create_dir(&part).unwrap();
            fs::create_dir_all(place).unwrap();
            fill(&part.join("file"), 1 << 20);
            run(
                "mount",
                ["--bind".as_ref(), part.as_os_str(), place.as_os_str()],
            );
        }
        settle(&disk.point);
        run("umount", [disk.point.as_os_str()]);
        let survey = survey_below(&node.point, &[]).unwrap();
        let [_, parts] = &survey.places[..] else {
            panic!("{:?}", survey.filesystems)
        };
        assert_eq!(parts.paths, [log.clone(), kubelet.clone()]);
        assert_eq!(parts.visible.blocks.0, du(&kubelet) + du(&log));
        assert_eq!((parts.is_whole, parts.gap), (false, None));
        assert_eq!(parts.filesystem.holds, [kubelet, log]);
    });
}
