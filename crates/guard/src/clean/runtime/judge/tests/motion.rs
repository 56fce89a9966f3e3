//! What is under way, and for how long it counts as that.

use nagi_cri::Ingest;

use super::*;

/// Makes something of that moment.
type Change = fn(&mut Facts, i128);

fn in_motion(facts: &Facts) -> Option<Motion> {
    motion(facts, NOW * SECOND, Duration::from_secs(15))
}

fn sandbox(created: i128) -> Sandbox {
    Sandbox {
        id: "box".to_owned(),
        is_ready: true,
        created,
    }
}

// B9: what is under way holds everything, and what has settled nothing.
#[test]
fn a_pull_and_a_pod_that_is_begun_are_seen() {
    let since = NOW * SECOND - 15 * SECOND;
    let rows: [(Motion, Change); 6] = [
        (Motion::Pull, |facts, at| {
            books(facts).ingests.push(Ingest {
                name: "layer".to_owned(),
                offset: 1,
                started: 0,
                updated: at,
            });
        }),
        (Motion::Pull, |facts, at| {
            let lease = lease("snapshots/overlayfs", "s-idle", None);
            books(facts).leases.push(Lease {
                created: at,
                ..lease
            });
        }),
        (Motion::Pod, |facts, at| {
            books(facts).containers.push(record("box", at));
        }),
        (Motion::Pod, |facts, at| {
            facts.sandboxes.push(sandbox(at));
            facts
                .containers
                .push(container("c", ContainerState::Running));
        }),
        (Motion::Pod, |facts, at| {
            facts.containers.push(Container {
                created: at,
                ..container("c", ContainerState::Running)
            });
        }),
        // An init container has ended well: the next one follows.
        (Motion::Pod, |facts, at| {
            facts.ended.insert("c".to_owned(), Ended { at, code: 0 });
        }),
    ];
    assert_eq!(in_motion(&idle()), None);
    for (at, (expected, change)) in rows.into_iter().enumerate() {
        let mut facts = idle();
        change(&mut facts, since + 1);
        assert_eq!(in_motion(&facts), Some(expected), "{at}");
        let mut facts = idle();
        change(&mut facts, since);
        assert_eq!(in_motion(&facts), None, "{at}");
    }
    // One that crashes and is made anew keeps its image itself.
    let mut facts = idle();
    let ended = Ended {
        at: since + 1,
        code: 1,
    };
    facts.ended.insert("c".to_owned(), ended);
    assert_eq!(in_motion(&facts), None);
}

// 5-07 of the review: a pull that unpacks writes nothing, and one whose registry stalls neither; its lease is there.
#[test]
fn a_pull_is_seen_until_it_is_over_and_one_that_was_given_up_is_not() {
    let hour = NOW * SECOND - 3600 * SECOND;
    let seen = |created, kind: &str, ends, change: &dyn Fn(&mut Facts)| {
        let mut facts = idle();
        books(&mut facts).leases.push(Lease {
            created,
            ..lease(kind, "l-new", ends)
        });
        change(&mut facts);
        in_motion(&facts)
    };
    for kind in ["content", "ingests"] {
        assert_eq!(seen(hour + 1, kind, None, &|_| {}), Some(Motion::Pull));
        assert_eq!(seen(hour, kind, None, &|_| {}), None, "given up");
    }
    let ended = Some("1970-01-01T02:46:39Z");
    assert_eq!(seen(hour + 1, "content", ended, &|_| {}), None, "ended");
    // Of a volume that is an image, and of a sandbox, which holds what was fetched for it as long as it lasts.
    assert_eq!(seen(hour + 1, "snapshots/overlayfs", None, &|_| {}), None);
    let of_sandbox = |facts: &mut Facts| books(facts).containers.push(record("lease", 0));
    assert_eq!(seen(hour + 1, "content", None, &of_sandbox), None);
}

// 5-07 of the review: kubelet waits for an image, a volume or a secret before it makes the first container.
#[test]
fn a_pod_without_a_container_is_being_started_and_not_for_ever() {
    let limit = NOW * SECOND - 600 * SECOND;
    let with = |created, is_ready, change: &dyn Fn(&mut Facts)| {
        let mut facts = idle();
        facts.sandboxes.push(Sandbox {
            is_ready,
            ..sandbox(created)
        });
        change(&mut facts);
        in_motion(&facts)
    };
    assert_eq!(with(limit + 1, true, &|_| {}), Some(Motion::Pod));
    assert_eq!(with(limit, true, &|_| {}), None);
    assert_eq!(with(limit + 1, false, &|_| {}), None, "it is over");
    let has_one = |facts: &mut Facts| {
        let one = container("c", ContainerState::Running);
        facts.containers.push(one);
    };
    assert_eq!(with(limit + 1, true, &has_one), None);
    let of_other = |facts: &mut Facts| {
        let one = container("c", ContainerState::Running);
        facts.containers.push(Container {
            sandbox: "other".to_owned(),
            ..one
        });
    };
    assert_eq!(with(limit + 1, true, &of_other), Some(Motion::Pod));
}

// D-15: what a pull wrote that was given up goes, and nothing that anybody may go on with.
#[test]
fn a_pull_was_given_up_when_nobody_wrote_for_a_day_and_no_younger_lease_holds_it() {
    let now = 200_000 * SECOND;
    let day = now - 86_400 * SECOND;
    let judged = |updated, lease: Option<(i128, &str)>, settled| {
        let mut facts = idle();
        books(&mut facts).ingests.push(Ingest {
            name: "layer-1".to_owned(),
            offset: 5,
            started: 0,
            updated,
        });
        let lease = lease.map(|(created, name)| Lease {
            created,
            ..self::lease("ingests", name, None)
        });
        books(&mut facts).leases.extend(lease);
        let rules = Rules {
            settled,
            now,
            keep: &[],
        };
        pulls(&facts, rules)
    };
    let goes = judged(day, Some((day, "layer-1")), now).goes;
    assert_eq!((goes[0].id.as_str(), goes[0].size), ("layer-1", 5));
    assert_eq!(judged(day, Some((now, "layer-2")), now).goes.len(), 1);
    let rows = [
        (judged(day + 1, None, now), Kept::Young),
        (judged(day, None, day - 1), Kept::Young),
        (judged(day, Some((day + 1, "layer-1")), now), Kept::Leased),
    ];
    for (verdict, why) in rows {
        assert_eq!((verdict.goes, verdict.stays), (vec![], vec![(why, 5)]));
    }
    assert_eq!(pulls(&Facts::default(), rules(&[])).goes, []);
}
