//! Filesystems without a byte or an inode left: the survey needs neither.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use crate::machine::{Type, du, fill, inside, run, settle, survey_below};

/// Writes until nothing goes in any more, down to single bytes.
pub(crate) fn fill_up(point: &Path) {
    let mut number = 0;
    for piece in [1 << 20, 1 << 12, 1] {
        loop {
            number += 1;
            let Ok(mut file) = File::create(point.join(format!("fill{number}"))) else {
                break;
            };
            let data = vec![7; piece];
            while file
                .write_all(&data)
                .and_then(|()| file.sync_data())
                .is_ok()
            {}
            if file.metadata().unwrap().len() == 0 {
                break;
            }
        }
    }
}

pub(crate) fn free(point: &Path) -> (u64, u64) {
    let stat = rustix::fs::statvfs(point).unwrap();
    (stat.f_bfree, stat.f_ffree)
}

// B-027, D-12
#[test]
fn the_survey_works_where_nothing_is_left_and_takes_nothing() {
    inside("", || {
        for kind in Type::ALL {
            let disk = kind.mounted(if kind == Type::Xfs { 320 } else { 120 }, &[]);
            let node = disk.point.join("node");
            fs::create_dir_all(node.join("var/lib/containerd")).unwrap();
            fill(&node.join("var/lib/containerd/blob"), 8 << 20);
            fill_up(&disk.point);
            settle(&disk.point);
            let before = free(&disk.point);
            let survey = survey_below(&node, &[]).unwrap();
            assert_eq!(free(&disk.point), before, "{kind}");
            let place = &survey.places[0];
            assert_eq!(place.visible.blocks.0, du(&disk.point), "{kind}");
            // XFS keeps a few blocks back that nobody gets.
            let available = place.filesystem.space.unwrap().bytes_available;
            assert!(available < 64 << 10, "{kind}: {available}");
            let one = fs::write(disk.point.join("one"), "x");
            assert_eq!(
                one.unwrap_err().raw_os_error(),
                Some(28),
                "{kind} had room left"
            );
            assert_eq!(place.unread.1, 0);
            let gap = place.gap.unwrap();
            assert!(gap.rest_per_mille() <= 10, "{kind}: {} {gap:?}", gap.rest());
        }
    });
}

// D-12: the same with inodes.
#[test]
fn a_filesystem_without_inodes_is_surveyed_and_the_fullest_directory_is_named() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &["-N", "1024"]);
        let sessions = disk.point.join("sessions");
        fs::create_dir(&sessions).unwrap();
        let few = disk.point.join("few");
        fs::create_dir(&few).unwrap();
        for number in 0..3 {
            File::create(few.join(number.to_string())).unwrap();
        }
        let mut count = 0_u64;
        while File::create(sessions.join(count.to_string())).is_ok() {
            count += 1;
        }
        settle(&disk.point);
        assert_eq!(free(&disk.point).1, 0);
        let survey = survey_below(&disk.point, &[]).unwrap();
        let place = &survey.places[0];
        assert_eq!(
            place.filesystem.space.unwrap().inodes_used_percent(),
            Some(100)
        );
        assert!(place.filesystem.space.unwrap().used_percent() < Some(10));
        let named = place
            .crowded
            .iter()
            .map(|id| (place.tree.path(*id), place.tree.own(*id).inodes));
        let named: Vec<_> = named.collect();
        assert_eq!(named, [(sessions, count + 1), (few, 4)]);
    });
}

// A filesystem that the kernel closed after an error is still read.
#[test]
fn a_filesystem_that_cannot_be_written_is_surveyed() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        fill(&disk.point.join("file"), 1 << 20);
        settle(&disk.point);
        run(
            "mount",
            ["-o".as_ref(), "remount,ro".as_ref(), disk.point.as_os_str()],
        );
        let survey = survey_below(&disk.point, &[]).unwrap();
        assert_eq!(survey.places[0].visible.blocks.0, du(&disk.point));
        assert!(survey.advice.iter().any(|advice| matches!(
            advice,
            nagi_guard::Advice::ReadOnly { point } if *point == disk.point
        )));
    });
}
