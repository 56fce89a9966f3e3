//! Each rule where it holds and where it does not, on facts that are made by hand. A real containerd is in `tests/disk`.

use nagi_cri::{Blob, ImageRecord, Ingest, Lease, Record, Snapshot, Usage};

use super::super::books::Piece;
use super::*;

const SECOND: i128 = 1_000_000_000;
/// Everything here is of this moment, in seconds, or before it.
const NOW: i128 = 10_000;

fn rules(keep: &[String]) -> Rules<'_> {
    Rules {
        settled: (NOW - 3600) * SECOND,
        now: NOW * SECOND,
        keep,
    }
}

/// An image of one name, with what it is made of in the books: a manifest, a configuration, one packed layer and one unpacked.
fn add(facts: &mut Facts, name: &str, at: i128) -> String {
    let id = format!("sha256:{name}");
    let tag = format!("registry.example/{name}:1");
    facts.images.push(Image {
        id: id.clone(),
        tags: vec![tag.clone()],
        digests: vec![format!("registry.example/{name}@sha256:m-{name}")],
        size: 1000,
        is_pinned: false,
    });
    let books = facts.books.get_or_insert_with(|| Books {
        snapshotter: "overlayfs".to_owned(),
        ..Books::default()
    });
    let blob = |digest: String, size, labels: &[(&str, String)]| Blob {
        digest,
        size,
        labels: labels
            .iter()
            .map(|(key, value)| (format!("containerd.io/gc.ref.{key}"), value.clone()))
            .collect(),
    };
    books.records.push(ImageRecord {
        name: tag,
        target: format!("m-{name}"),
        updated: at * SECOND,
    });
    books.records.push(ImageRecord {
        name: id.clone(),
        target: format!("m-{name}"),
        updated: 0,
    });
    books.blobs.extend([
        blob(
            format!("m-{name}"),
            100,
            &[
                ("content.config", id.clone()),
                ("content.l.0", format!("l-{name}")),
            ],
        ),
        blob(
            id.clone(),
            100,
            &[("snapshot.overlayfs", format!("s-{name}"))],
        ),
        blob(format!("l-{name}"), 10_000, &[]),
    ]);
    books.snapshots.push(Snapshot {
        key: format!("s-{name}"),
        parent: String::new(),
        labels: BTreeMap::new(),
    });
    let usage = Usage {
        bytes: 8192,
        inodes: 3,
    };
    books.usage.insert(format!("s-{name}"), usage);
    id
}

/// One image that may go.
fn idle() -> Facts {
    let mut facts = Facts::default();
    add(&mut facts, "idle", 0);
    facts
}

fn container(id: &str, state: ContainerState) -> Container {
    Container {
        id: id.to_owned(),
        sandbox: "box".to_owned(),
        namespace: "default".to_owned(),
        pod: "pod".to_owned(),
        uid: "uid".to_owned(),
        name: "main".to_owned(),
        attempt: 0,
        state,
        images: Vec::new(),
        created: 0,
    }
}

fn books(facts: &mut Facts) -> &mut Books {
    facts.books.as_mut().unwrap()
}

/// One member of what is kept: it goes without that, and stays with it.
fn keeps(why: Kept, keep: &[&str], change: impl Fn(&mut Facts)) {
    let keep: Vec<String> = keep.iter().map(|&one| one.to_owned()).collect();
    let mut facts = idle();
    let without = images(&facts, rules(&[]));
    assert_eq!((without.goes.len(), without.stays.len()), (1, 0), "{why:?}");
    change(&mut facts);
    let with = images(&facts, rules(&keep));
    assert_eq!(with.goes, [], "{why:?}");
    assert_eq!(with.stays, [(why, 1000)]);
}

// D-15, N-4: each member of the keep set keeps, and nothing else does.
#[test]
fn each_member_of_what_is_kept_keeps_its_image() {
    keeps(Kept::Pinned, &[], |facts| facts.images[0].is_pinned = true);
    for state in [
        ContainerState::Created,
        ContainerState::Running,
        ContainerState::Exited,
        ContainerState::Unknown,
    ] {
        for name in [
            "sha256:idle",
            "registry.example/idle:1",
            "registry.example/idle@sha256:m-idle",
            "registry.example/idle:9@sha256:m-idle",
        ] {
            keeps(Kept::Used, &[], |facts| {
                facts.containers.push(Container {
                    images: vec![name.to_owned()],
                    ..container("c", state)
                });
            });
        }
    }
    // A sandbox that is being made stands in the runtime's own list only.
    keeps(Kept::Used, &[], |facts| {
        books(facts).containers.push(Record {
            id: "box".to_owned(),
            image: "registry.example/idle:1".to_owned(),
            snapshot: "box".to_owned(),
            created: 0,
        });
    });
    keeps(Kept::Sandbox, &[], |facts| {
        facts.pause = Some("registry.example/idle:1".to_owned());
    });
    // containerd 1.6 pins nothing; where its settings cannot be read the name must do.
    keeps(Kept::Sandbox, &[], |facts| {
        facts.images[0]
            .tags
            .push("registry.k8s.io/pause:3.6".to_owned());
    });
    keeps(Kept::Manifest, &[], |facts| {
        facts.named = vec!["registry.example/idle:1".to_owned()];
    });
    for kept in [
        "registry.example/idle:1",
        "registry.example/",
        "sha256:idle",
    ] {
        keeps(Kept::KeepList, &[kept], |_| {});
    }
    for (kind, piece) in [
        ("content", "l-idle"),
        ("content", "m-idle"),
        ("snapshots/overlayfs", "s-idle"),
    ] {
        keeps(Kept::Leased, &[], |facts| {
            books(facts).leases.push(lease(kind, piece, None));
        });
    }
    keeps(Kept::Young, &[], |facts| {
        books(facts).records[0].updated = (NOW - 3599) * SECOND;
    });
    // A clock that was set back makes things young, and those stay.
    keeps(Kept::Young, &[], |facts| {
        books(facts).records[1].updated = (NOW + 5) * SECOND;
    });
    keeps(Kept::AgeUnknown, &[], |facts| facts.books = None);
    keeps(Kept::AgeUnknown, &[], |facts| books(facts).records.clear());
}

fn lease(kind: &str, piece: &str, ends: Option<&str>) -> Lease {
    Lease {
        id: "lease".to_owned(),
        created: 0,
        labels: ends
            .map(|ends| ("containerd.io/gc.expire".to_owned(), ends.to_owned()))
            .into_iter()
            .collect(),
        resources: vec![(kind.to_owned(), piece.to_owned())],
    }
}

#[test]
fn a_lease_that_has_ended_holds_nothing_and_one_that_is_not_understood_does() {
    for (ends, count) in [
        ("1970-01-01T00:00:01Z", 1),
        ("1970-01-02T00:00:00Z", 0),
        ("some day", 0),
    ] {
        let mut facts = idle();
        let held = lease("content", "l-idle", Some(ends));
        books(&mut facts).leases.push(held);
        assert_eq!(images(&facts, rules(&[])).goes.len(), count, "{ends}");
    }
    // Of something else.
    let mut facts = idle();
    books(&mut facts)
        .leases
        .push(lease("content", "other", None));
    assert_eq!(images(&facts, rules(&[])).goes.len(), 1);
}

#[test]
fn the_oldest_goes_first_and_what_was_imported_is_told_apart() {
    let mut facts = idle();
    add(&mut facts, "later", 9);
    add(&mut facts, "local", 7);
    facts.images[2].digests.clear();
    let goes = images(&facts, rules(&[])).goes;
    let told: Vec<_> = goes
        .iter()
        .map(|one| (one.id.as_str(), one.is_pullable))
        .collect();
    let expected = [
        ("sha256:idle", true),
        ("sha256:local", false),
        ("sha256:later", true),
    ];
    assert_eq!(told, expected);
}

/// Makes something of that moment.
type Change = fn(&mut Facts, i128);

// B9: what is under way holds everything, and what has settled nothing.
#[test]
fn a_pull_and_a_pod_that_is_begun_are_seen() {
    let since = (NOW - 15) * SECOND;
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
            let lease = lease("content", "l-idle", None);
            books(facts).leases.push(Lease {
                created: at,
                ..lease
            });
        }),
        (Motion::Pod, |facts, at| {
            books(facts).containers.push(Record {
                id: "box".to_owned(),
                image: String::new(),
                snapshot: String::new(),
                created: at,
            });
        }),
        (Motion::Pod, |facts, at| {
            facts.sandboxes.push(Sandbox {
                id: "box".to_owned(),
                is_ready: true,
                created: at,
            });
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
    assert_eq!(motion(&idle(), since), None);
    for (at, (expected, change)) in rows.into_iter().enumerate() {
        let mut facts = idle();
        change(&mut facts, since + 1);
        assert_eq!(motion(&facts, since), Some(expected), "{at}");
        let mut facts = idle();
        change(&mut facts, since);
        assert_eq!(motion(&facts, since), None, "{at}");
    }
    // One that crashes and is made anew keeps its image itself.
    let mut facts = idle();
    let ended = Ended {
        at: since + 1,
        code: 1,
    };
    facts.ended.insert("c".to_owned(), ended);
    assert_eq!(motion(&facts, since), None);
}

// D-15: kubelet keeps the newest dead container of each name; a pod that may run keeps all.
#[test]
fn of_dead_containers_the_newest_of_each_name_stays() {
    let mut facts = Facts {
        sandboxes: vec![Sandbox {
            id: "alive".to_owned(),
            is_ready: true,
            created: 0,
        }],
        ..Facts::default()
    };
    let mut put = |id: &str, state, attempt, change: &dyn Fn(&mut Container)| {
        let mut one = Container {
            attempt,
            ..container(id, state)
        };
        change(&mut one);
        facts.ended.insert(id.to_owned(), Ended { at: 5, code: 1 });
        facts.containers.push(one);
    };
    let exited = ContainerState::Exited;
    put("first", exited, 0, &|_| {});
    put("last", exited, 1, &|_| {});
    put("other-name", exited, 0, &|one| one.name = "side".to_owned());
    put("other-pod", exited, 0, &|one| one.uid = "uid-2".to_owned());
    put("runs", ContainerState::Running, 2, &|_| {});
    put("unknown", ContainerState::Unknown, 0, &|_| {});
    put("made", ContainerState::Created, 0, &|_| {});
    put("of-alive", exited, 0, &|one| {
        one.sandbox = "alive".to_owned();
    });
    put("young", exited, 0, &|_| {});
    put("no-end", exited, 0, &|_| {});
    let young = Ended {
        at: (NOW - 1) * SECOND,
        code: 1,
    };
    facts.ended.insert("young".to_owned(), young);
    facts.ended.remove("no-end");
    let verdict = containers(&facts, rules(&[]));
    let goes: Vec<&str> = verdict.goes.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(goes, ["first"]);
    let count = |why| verdict.stays.iter().filter(|(one, _)| *one == why).count();
    assert_eq!(count(Kept::Newest), 3);
    assert_eq!(count(Kept::Active), 3);
    assert_eq!(count(Kept::PodAlive), 1);
    assert_eq!(count(Kept::Young), 1);
    assert_eq!(count(Kept::AgeUnknown), 1);
}

// B3, M7: what others share stays, and goes with the last of them.
#[test]
fn an_image_gives_back_what_only_it_reaches() {
    let mut facts = Facts::default();
    let one = add(&mut facts, "one", 0);
    let two = add(&mut facts, "two", 0);
    let books = books(&mut facts);
    // Both lie upon one layer, packed and unpacked.
    for name in ["one", "two"] {
        let manifest = format!("m-{name}");
        let blob = books.blobs.iter_mut().find(|blob| blob.digest == manifest);
        let label = "containerd.io/gc.ref.content.l.1".to_owned();
        blob.unwrap().labels.insert(label, "l-base".to_owned());
        let key = format!("s-{name}");
        let own = books.snapshots.iter_mut().find(|one| one.key == key);
        own.unwrap().parent = "s-base".to_owned();
    }
    books.blobs.push(Blob {
        digest: "l-base".to_owned(),
        size: 1 << 20,
        labels: BTreeMap::new(),
    });
    books.snapshots.push(Snapshot {
        key: "s-base".to_owned(),
        parent: String::new(),
        labels: BTreeMap::new(),
    });
    let of = |id: &String, name: &str| [id.clone(), format!("registry.example/{name}:1")];
    let (of_one, of_two) = (of(&one, "one"), of(&two, "two"));
    let graph = Graph::of(books, NOW * SECOND);
    let whole = graph.without(&BTreeSet::new());
    let gone: BTreeSet<&str> = of_one.iter().map(String::as_str).collect();
    let left = graph.without(&gone);
    let freed: Vec<Piece<'_>> = whole.difference(&left).copied().collect();
    let expected = [
        Piece::Blob("l-one"),
        Piece::Blob("m-one"),
        Piece::Blob("sha256:one"),
        Piece::Snapshot("s-one"),
    ];
    assert_eq!(freed, expected);
    let sum: u64 = freed.iter().map(|piece| graph.takes(*piece).bytes).sum();
    assert_eq!(sum, 3 * 4096 + 2 * 4096 + 8192 + 8192);
    // One of its names alone frees nothing.
    let tag: BTreeSet<&str> = of_one.iter().skip(1).map(String::as_str).collect();
    assert_eq!(graph.without(&tag), whole);
    let gone: BTreeSet<&str> = of_one.iter().chain(&of_two).map(String::as_str).collect();
    assert_eq!(graph.without(&gone), BTreeSet::new());
    // A container that writes upon it, a mark and a lease hold what they reach.
    let mut held = books.clone();
    held.containers.push(Record {
        id: "c".to_owned(),
        image: String::new(),
        snapshot: "s-one".to_owned(),
        created: 0,
    });
    let blob = held.blobs.iter_mut().find(|blob| blob.digest == "l-two");
    let root = "containerd.io/gc.root".to_owned();
    blob.unwrap().labels.insert(root, "now".to_owned());
    held.leases.push(lease("content", "l-one", None));
    let graph = Graph::of(&held, NOW * SECOND);
    let expected = [
        Piece::Blob("l-one"),
        Piece::Blob("l-two"),
        Piece::Snapshot("s-base"),
        Piece::Snapshot("s-one"),
    ];
    assert_eq!(graph.without(&gone), BTreeSet::from(expected));
}
