//! What a plan chooses, and that its digest holds all of it. Real filesystems are in `tests/disk`.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::clean::policy::Consent;

const MIB: u64 = 1 << 20;
const DISK: Device = Device { major: 8, minor: 1 };

fn item(path: &str, mebibytes: u64) -> Item {
    Item {
        path: path.as_bytes().to_vec(),
        device: DISK,
        inode: 7,
        size: mebibytes * MIB,
        blocks: Blocks(mebibytes * 2048),
        written: Instant::default(),
        links: 1,
        owned: None,
    }
}

fn image(path: &str, mebibytes: u64) -> Item {
    Item {
        inode: 0,
        owned: Some(Owned {
            names: vec![format!("registry.example/{path}:1")],
            inodes: 3,
            is_measured: true,
        }),
        ..item(path, mebibytes)
    }
}

fn found(reclaimer: Reclaimer, items: Vec<Item>, space: Space) -> discover::Found {
    let base = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty());
    discover::Found {
        reclaimer,
        directory: PathBuf::from(reclaimer.places().first().unwrap_or(&"/images")),
        base: base.unwrap(),
        disk: OnDisk {
            device: DISK,
            point: PathBuf::from("/"),
            fstype: "xfs".to_owned(),
            space,
            reserve: 0,
        },
        items,
        beyond: Tally::default(),
        kept: Vec::new(),
    }
}

fn space(mebibytes: u64, available: u64) -> Space {
    Space {
        bytes: mebibytes * MIB,
        bytes_free: available * MIB,
        bytes_available: available * MIB,
        inodes: 0,
        inodes_free: 0,
    }
}

fn chosen(policy: &Policy, available: u64) -> Vec<(Reclaimer, usize, u64)> {
    let ten = |name: &str| {
        (0..10)
            .map(|number| item(&format!("{name}{number}"), 10))
            .collect()
    };
    let space = space(1000, available);
    let discovery = Discovery {
        found: vec![
            found(Reclaimer::Apt, ten("apt"), space),
            found(Reclaimer::PodLogs, ten("log"), space),
        ],
        skipped: Vec::new(),
    };
    let plan = choose(policy, Instant::default(), &discovery, Vec::new());
    let steps = plan.steps.iter();
    steps
        .map(|step| (step.reclaimer, step.items.len(), step.spared.inodes))
        .collect()
}

// D-10: stop at the target, never more than one file beyond it; nothing at all where it is reached.
#[test]
fn a_plan_stops_at_the_target_and_takes_the_least_harm_first() {
    let mut policy = Policy::at(Path::new("/"));
    policy.consent = Consent::Lossy;
    let rows = [
        // Used 1,000 MiB; 200 have to go, and there are 100 of each.
        (0, [(Reclaimer::Apt, 10, 0), (Reclaimer::PodLogs, 10, 0)]),
        // 105 have to go.
        (95, [(Reclaimer::Apt, 10, 0), (Reclaimer::PodLogs, 1, 9)]),
        (185, [(Reclaimer::Apt, 2, 8), (Reclaimer::PodLogs, 0, 10)]),
        (200, [(Reclaimer::Apt, 0, 10), (Reclaimer::PodLogs, 0, 10)]),
    ];
    for (available, expected) in rows {
        assert_eq!(chosen(&policy, available), expected, "{available}");
    }
    policy.target_percent = 0;
    assert_eq!(chosen(&policy, 500), rows[0].1, "0 is never reached");
}

// D-10: the cap of a run; what lacks consent takes nothing of it.
#[test]
fn a_plan_keeps_below_its_cap_and_counts_only_what_is_agreed_to() {
    let mut policy = Policy::at(Path::new("/"));
    policy.bytes_max = Some(105 * MIB);
    assert_eq!(
        chosen(&policy, 0),
        [(Reclaimer::Apt, 10, 0), (Reclaimer::PodLogs, 0, 10)]
    );
    policy.bytes_max = Some(35 * MIB);
    policy.consent = Consent::Lossy;
    assert_eq!(
        chosen(&policy, 0),
        [(Reclaimer::Apt, 3, 7), (Reclaimer::PodLogs, 0, 10)]
    );
    policy.bytes_max = None;
    policy.consent = Consent::Regenerable;
    assert_eq!(
        chosen(&policy, 0),
        [(Reclaimer::Apt, 10, 0), (Reclaimer::PodLogs, 10, 0)]
    );
}

// 5-31 of the review: what nobody can measure is taken for as much as its runtime says that it is, and for nothing where the
// target is meant.
#[test]
fn what_is_not_measured_counts_for_the_cap_and_not_towards_the_target() {
    let unknown = |name| {
        let mut one = image(name, 10);
        one.blocks = Blocks(0);
        one.owned.as_mut().unwrap().is_measured = false;
        one
    };
    let chosen = |bytes_max| {
        let mut policy = Policy::at(Path::new("/"));
        policy.bytes_max = bytes_max;
        let items = ["one", "two", "three"].map(unknown).to_vec();
        let discovery = Discovery {
            found: vec![found(Reclaimer::Images, items, space(1000, 195))],
            skipped: Vec::new(),
        };
        let plan = choose(&policy, Instant::default(), &discovery, Vec::new());
        (plan.steps[0].items.len(), plan.disks[0].expected)
    };
    for (mebibytes, count) in [(9, 0), (10, 1), (29, 2), (30, 3)] {
        assert_eq!(chosen(Some(mebibytes * MIB)), (count, 0));
    }
    assert_eq!(chosen(None), (3, 0));
}

fn on(fstype: &str, reserve: u64, space: Space) -> OnDisk {
    OnDisk {
        device: DISK,
        point: PathBuf::from("/"),
        fstype: fstype.to_owned(),
        space,
        reserve,
    }
}

// Decision 3 of the reference: what has to go is counted in what df will say then, the reserve with it.
#[test]
fn what_is_needed_counts_the_reserve_that_fills_up_first() {
    let bytes = |space, reserve, target| needed(&on("ext4", reserve, space), &space, target).bytes;
    assert_eq!(bytes(space(1000, 0), 0, 80), 200 * MIB);
    assert_eq!(bytes(space(1000, 200), 0, 80), 0);
    assert_eq!(bytes(space(1000, 0), 0, 0), 1000 * MIB);
    assert_eq!(bytes(space(1000, 0), 0, 200), 0);
    // 950 MiB are for everybody; four fifths of them is 760.
    assert_eq!(bytes(space(1000, 0), 50 * MIB, 80), 240 * MIB);
    let with_reserve = Space {
        bytes_available: 10 * MIB,
        ..space(1000, 60)
    };
    assert_eq!(bytes(with_reserve, 0, 80), 180 * MIB);
}

// D-12, W-B09: a disk that is full of inodes is as full, but for XFS, whose count says nothing (M3).
#[test]
fn a_disk_without_inodes_is_above_its_target_however_many_bytes_are_free() {
    let full = Space {
        inodes: 1000,
        inodes_free: 0,
        ..space(1000, 900)
    };
    let of = |fstype| needed(&on(fstype, 0, full), &full, 80);
    assert_eq!(
        of("ext4"),
        Needed {
            bytes: 0,
            inodes: 200
        }
    );
    assert_eq!(of("xfs"), Needed::default());
    let mut policy = Policy::at(Path::new("/"));
    policy.consent = Consent::Lossy;
    let mut discovery = Discovery::default();
    let many = (0..300)
        .map(|number| item(&number.to_string(), 1))
        .collect();
    let mut place = found(Reclaimer::Apt, many, full);
    place.disk.fstype = "ext4".to_owned();
    discovery.found.push(place);
    let plan = choose(&policy, Instant::default(), &discovery, Vec::new());
    assert_eq!(plan.steps[0].items.len(), 200);
}

// M7: what an image gives back counts on those before it being gone. Where the cap leaves one out, none behind it goes.
#[test]
fn images_go_in_their_order_and_none_is_passed_over() {
    let sizes = [10, 50, 10];
    let of = |kind, make: fn(&str, u64) -> Item| {
        let mut policy = Policy::at(Path::new("/"));
        policy.bytes_max = Some(30 * MIB);
        let items = sizes.iter().zip(["a", "b", "c"]);
        let items = items.map(|(size, name)| make(name, *size)).collect();
        let mut discovery = Discovery::default();
        discovery.found.push(found(kind, items, space(1000, 0)));
        let plan = choose(&policy, Instant::default(), &discovery, Vec::new());
        (plan.steps[0].items.len(), plan.disks[0].expected_inodes)
    };
    assert_eq!(of(Reclaimer::Apt, item), (2, 2));
    assert_eq!(of(Reclaimer::Images, image), (1, 3));
}

fn owned(plan: &mut Plan) -> &mut Owned {
    plan.steps[0].items[2].owned.as_mut().unwrap()
}

// D-13: whatever decides what is done is in the digest.
#[test]
fn no_two_plans_share_a_digest() {
    let policy = Policy::at(Path::new("/"));
    let discovery = Discovery {
        found: vec![found(
            Reclaimer::Apt,
            vec![item("a", 1), item("b", 2), image("c", 3)],
            space(1000, 0),
        )],
        skipped: Vec::new(),
    };
    let plan = choose(&policy, Instant::default(), &discovery, Vec::new());
    let changes: [fn(&mut Plan); 20] = [
        |plan| plan.policy.quiet = Duration::ZERO,
        |plan| plan.policy.keep_images.push("/a".to_owned()),
        |plan| plan.steps[0].items[2].owned = None,
        |plan| owned(plan).names.push("d".to_owned()),
        |plan| owned(plan).inodes += 1,
        |plan| owned(plan).is_measured = false,
        |plan| plan.steps[0].items[0].inode += 1,
        |plan| plan.steps[0].items[0].size += 1,
        |plan| plan.steps[0].items[0].blocks.0 += 1,
        |plan| plan.steps[0].items[0].written.nanoseconds += 1,
        |plan| plan.steps[0].items[0].links += 1,
        |plan| plan.steps[0].items[0].device.minor += 1,
        |plan| plan.steps[0].items[0].path = b"ab".to_vec(),
        |plan| plan.steps[0].items.swap(0, 1),
        |plan| plan.steps[0].directory = PathBuf::from("/etc"),
        |plan| plan.steps[0].has_consent = false,
        |plan| plan.policy.grace = Duration::ZERO,
        |plan| plan.policy.consent = Consent::Lossy,
        |plan| plan.policy.keep.push(PathBuf::from("/a")),
        |plan| plan.policy.journal_keep = None,
    ];
    let mut digests = vec![plan.digest().to_string()];
    for change in changes {
        let mut other = plan.clone();
        change(&mut other);
        digests.push(other.digest().to_string());
    }
    assert_eq!(Digest::parse(&digests[0]), Some(plan.digest()));
    assert_eq!(Digest::parse(digests[0].get(1..).unwrap()), None);
    assert_eq!(Digest::parse(&"+".repeat(64)), None);
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 21);
    // How full the disk is and when it was looked at do not decide: they change while a person reads.
    let mut fuller = plan.clone();
    fuller.disks.clear();
    fuller.at.seconds += 1;
    assert_eq!(fuller.digest(), plan.digest());
}

// P0-3 of the review: one run never writes over its own records, however long its paths are.
#[test]
fn a_plan_holds_no_more_than_the_ring_has_slots_for() {
    let of = |length: usize| {
        let many = (0..3 * ITEMS_MAX).map(|number| item(&format!("{number:0length$}"), 1));
        let policy = Policy::at(Path::new("/"));
        let mut discovery = Discovery::default();
        let one = found(Reclaimer::Apt, many.collect(), space(1_000_000, 0));
        discovery.found.push(one);
        choose(&policy, Instant::default(), &discovery, Vec::new()).steps[0]
            .items
            .len()
    };
    assert_eq!(of(5), ITEMS_MAX);
    // A record of two slots, and one of nine.
    assert_eq!(of(600), ITEMS_MAX / 2);
    assert_eq!(of(4096), ITEMS_MAX / 9);
}
