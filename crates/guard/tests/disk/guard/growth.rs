//! Whose growth it is on real filesystems, and that what somebody cleaned is nobody's.

use nagi_guard::{NotKnown, Owner, Policy, Reclaimer, Shares};

use super::*;

// B-037, D-24: whose directory fills a disk is known from the third walk on, told with the warning, and remembered for a look
// without a guard.
#[test]
fn the_owner_whose_directory_fills_a_disk_is_named() {
    inside("", || {
        for kind in Type::ALL {
            let disk = kind.mounted(900, &[]);
            let node = node(&disk);
            for directory in ["var/lib/etcd", "var/log/pods"] {
                fs::create_dir_all(node.join(directory)).unwrap();
            }
            fill_to(&disk.point, 600);
            let mut guard = begin(&node, false);
            let after = |walk: u64| Ahead(Duration::from_mins(10 * walk));
            for walk in 0..4 {
                fill(&node.join(format!("var/lib/etcd/{walk}")), 40 << 20);
                fill(&node.join(format!("var/log/pods/{walk}")), 4 << 20);
                settle(&disk.point);
                act_at(&mut guard, &after(walk));
                let shares = nagi_guard::shares(&node, &guard.0.watched()).unwrap();
                guard.0.walked(&shares, &after(walk));
                // At the moment of the walk, whatever that took.
                act_at(&mut guard, &after(walk));
            }
            let round = glance_at(&mut guard, &after(3));
            let [etcd, logs, ..] = &round.disks[0].owners[..] else {
                panic!("{kind}: {:?}", round.disks);
            };
            assert_eq!(
                (etcd.owner, logs.owner),
                (Owner::Etcd, Owner::PodLogs),
                "{kind}"
            );
            // 240 MiB an hour, of 264.
            let [low, likely, high] = etcd.trend.per_hour().map(|bytes| bytes >> 20);
            println!(
                "{kind}: etcd grows by {low} to {high} MiB an hour, {:?} % of all",
                etcd.percent()
            );
            assert!(
                (232..=248).contains(&likely) && low <= likely && likely <= high,
                "{kind}"
            );
            assert!(
                (86..=94).contains(&etcd.percent().unwrap()),
                "{kind}: {etcd:?}"
            );
            fill(&node.join("var/lib/etcd/last"), 90 << 20);
            settle(&disk.point);
            let (round, ..) = act_at(&mut guard, &after(4));
            let told = round.alerts.iter().find_map(|alert| alert.mostly);
            assert_eq!(
                told.map(|by| by.owner),
                Some(Owner::Etcd),
                "{kind}: {:?}",
                round.alerts
            );
            // What the next walk cannot find is not known any more.
            let nothing = Shares {
                unknown: vec![(guard.0.watched()[0].point.clone(), NotKnown::Gone)],
                ..Shares::default()
            };
            guard.0.walked(&nothing, &after(4));
            assert!(
                glance_at(&mut guard, &after(4)).disks[0].owners.is_empty(),
                "{kind}"
            );
            guard.0.end(guard.1, &after(4)).unwrap();
            let seen =
                nagi_guard::outlook(&node, std::slice::from_ref(&disk.point), &after(4)).unwrap();
            let [first, ..] = &seen.disks[0].owners[..] else {
                panic!("{kind}: {:?}", seen.disks);
            };
            assert_eq!(first.owner, Owner::Etcd, "{kind}");
            let days = first.days_to(seen.disks[0].room());
            assert!(
                days.likely.is_some_and(|days| days < 2.0),
                "{kind}: {days:?}"
            );
        }
    });
}

// §4 (e), 5-11: what somebody else cleaned, of whom only the record tells, is no change of what others do: neither for a guard that
// watched, nor for one that is started anew, nor for a look without one.
#[test]
fn what_another_process_cleaned_is_no_change_of_growth() {
    inside("", || {
        let disk = Type::Ext4.mounted(600, &[]);
        let node = node(&disk);
        let archives = node.join("var/cache/apt/archives");
        fs::create_dir_all(&archives).unwrap();
        fill(&archives.join("hello_1_amd64.deb"), 200 << 20);
        let mut guard = begin(&node, false);
        let after = |walk: u64| Ahead(Duration::from_mins(10 * walk));
        let grow = |step: u64| {
            fill(&disk.point.join(step.to_string()), 1 << 20);
            settle(&disk.point);
        };
        let mut last = Round::default();
        for step in 0..60 {
            grow(step);
            if step == 40 {
                let policy = Policy {
                    only: vec![Reclaimer::Apt],
                    target_percent: 0,
                    grace: Duration::ZERO,
                    ..Policy::at(&node)
                };
                let clock = after(step);
                let plan = nagi_guard::plan(&policy, &clock).unwrap();
                let report = nagi_guard::apply(&plan, &clock, &mut |_| {}).unwrap();
                assert!(report.has_ring && report.done[0].removed == 1, "{report:?}");
                settle(&disk.point);
            }
            last = act_at(&mut guard, &after(step)).0;
        }
        let per_hour = |round: &Round| {
            let forecast = round.disks[0].forecasts[0].as_ref().unwrap();
            forecast.trend.unwrap().per_hour().map(|bytes| bytes >> 10)
        };
        let is_right = |low_to_high: [i64; 3]| {
            let (slow, quick) = (5 << 10, 7 << 10);
            low_to_high
                .iter()
                .all(|kibibytes| (slow..=quick).contains(kibibytes))
        };
        assert!(is_right(per_hour(&last)), "{:?}", per_hour(&last));
        guard.0.end(guard.1, &after(59)).unwrap();
        let seen = nagi_guard::outlook(&node, std::slice::from_ref(&node), &after(59)).unwrap();
        let trend = seen.disks[0].trend.unwrap();
        assert!(
            is_right(trend.per_hour().map(|bytes| bytes >> 10)),
            "{trend:?}"
        );
        let clock = after(60);
        let (mut again, eyes, mut hands) = Guard::begin(settings(&node, false), &clock).unwrap();
        let mut opened = hands.open(clock.now());
        again.done(&mut opened, &clock);
        let round = act_at(&mut (again, hands, eyes), &clock).0;
        assert!(is_right(per_hour(&round)), "{:?}", per_hour(&round));
    });
}

// 5-13: a path stands for its disk, wherever on that it lies, and each disk is walked by itself: one that is gone, and one that
// only a directory of it is mounted of, are said with their reasons and take nothing from the others.
#[test]
fn owners_are_known_of_the_disk_that_a_path_lies_on() {
    inside("", || {
        let disks = [Type::Ext4, Type::Xfs].map(|kind| kind.mounted(500, &[]));
        let node = node(&disks[0]);
        let deep = node.join("var/lib/etcd");
        fs::create_dir_all(&deep).unwrap();
        fill(&deep.join("db"), 20 << 20);
        // Beside the node, and of nobody: of its disk all the same.
        fill(&disks[0].point.join("other"), 10 << 20);
        let part = disks[1].point.join("part");
        fs::create_dir(&part).unwrap();
        let settings = GuardSettings {
            paths: vec![deep, part],
            ..settings(&node, false)
        };
        let mut guard = with(settings).unwrap();
        look(&mut guard);
        let mut watched = guard.0.watched();
        assert_eq!(watched.len(), 2, "{watched:?}");
        let shares = nagi_guard::shares(&node, &watched).unwrap();
        assert!(shares.unknown.is_empty(), "{shares:?}");
        let first = shares
            .disks
            .iter()
            .find(|disk| disk.point == watched[0].point);
        let of = |owner| {
            let owners = first.unwrap().owners.iter();
            owners
                .filter(|one| one.0 == owner)
                .map(|one| one.1)
                .sum::<u64>()
        };
        assert!(
            of(Owner::Etcd) >= 20 * MIB && of(Owner::Unknown) >= 10 * MIB,
            "{shares:?}"
        );
        // A disk that went since.
        watched[1].device.minor += 1000;
        let shares = nagi_guard::shares(&node, &watched).unwrap();
        assert_eq!(shares.disks.len(), 1, "{shares:?}");
        assert_eq!(shares.disks[0].point, watched[0].point);
        assert!(
            matches!(shares.unknown[..], [(_, NotKnown::Gone)]),
            "{shares:?}"
        );
    });
}
