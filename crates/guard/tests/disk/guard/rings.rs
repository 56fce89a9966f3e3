//! What a guard makes beforehand so that it can be written when nothing is left: U19.

use std::os::unix::fs::MetadataExt as _;

use super::*;

/// The ring of what was removed.
const RECORD: &str = "var/lib/nagi-guard/disk-audit.ring";

/// How many rings lie there, each with all of its blocks.
fn rings(node: &Path) -> usize {
    let names = ["var/lib/nagi-guard/guard.ring", RECORD];
    let whole = names.iter().filter(|name| {
        let stat = fs::metadata(node.join(name));
        stat.is_ok_and(|stat| stat.len() == MIB && stat.blocks() * 512 >= MIB)
    });
    whole.count()
}

// Both are there before the first cleaning, on each filesystem and on one that allocates nothing beforehand; and nothing of how
// they were made is.
#[test]
fn the_rings_are_made_when_a_guard_begins() {
    inside("", || {
        let options: [(Type, &[&str]); 4] = [
            (Type::Ext4, &[]),
            (Type::Ext4, &["-O", "^extents,^64bit"]),
            (Type::Xfs, &[]),
            (Type::Btrfs, &[]),
        ];
        for (kind, options) in options {
            let disk = kind.mounted(400, options);
            let node = node(&disk);
            let clock = SystemClock::new();
            let (_guard, _eyes, mut hands) = Guard::begin(settings(&node, false), &clock).unwrap();
            let opened = hands.open(clock.now());
            assert!(opened.troubles.is_empty(), "{kind}: {:?}", opened.troubles);
            settle(&disk.point);
            assert_eq!(rings(&node), 2, "{kind} {options:?}");
            let names = fs::read_dir(node.join("var/lib/nagi-guard")).unwrap();
            assert_eq!(names.count(), 2, "{kind}");
        }
    });
}

// Where there is no room for it, that is said once, and the guard goes on.
#[test]
fn a_record_that_has_no_room_is_told_once() {
    inside("", || {
        let disk = Type::Ext4.mounted(400, &[]);
        let node = node(&disk);
        fill_up(&disk.point);
        let clock = SystemClock::new();
        let (mut guard, eyes, mut hands) = Guard::begin(settings(&node, false), &clock).unwrap();
        let mut opened = hands.open(clock.now());
        let is_record = |one: &&Trouble| matches!(one, Trouble::Record(Errno::NOSPC));
        let told = opened.troubles.iter().filter(is_record).count();
        assert_eq!(told, 1, "{:?}", opened.troubles);
        guard.done(&mut opened, &clock);
        let mut both = (guard, hands, eyes);
        for _ in 0..3 {
            let (_, troubles, _) = act(&mut both);
            assert!(!troubles.iter().any(|one| is_record(&one)), "{troubles:?}");
        }
        assert!(!node.join(RECORD).exists());
    });
}
