//! Each rule where it holds and where it does not, on facts that are made by hand. A real containerd is in `tests/disk`.

mod motion;

use nagi_cri::{Blob, ImageRecord, Lease, Record, Snapshot, Usage};

use super::super::books::Piece;
use super::*;

const SECOND: i128 = 1_000_000_000;
/// What a pull from the registry of these tests leaves.
const SOURCE: &str = "containerd.io/distribution.source.registry.example";
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
    let books = facts.books.get_or_insert_with(Books::default);
    let blob = |digest: String, size, labels: &[(&str, String)]| Blob {
        digest,
        size,
        labels: labels
            .iter()
            .map(|(key, value)| (format!("containerd.io/gc.ref.{key}"), value.clone()))
            .collect(),
    };
    let digest = format!("registry.example/{name}@sha256:m-{name}");
    for name_of in [tag, digest] {
        books.records.push(ImageRecord {
            name: name_of,
            target: format!("m-{name}"),
            updated: at * SECOND,
        });
    }
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
    let manifest = books.blobs.iter_mut().rev().nth(2).unwrap();
    let (of, repository) = (SOURCE.to_owned(), format!("other,{name}"));
    manifest.labels.insert(of, repository);
    books.snapshots.push(Snapshot {
        snapshotter: "overlayfs".to_owned(),
        key: format!("s-{name}"),
        parent: String::new(),
        is_layer: true,
        labels: BTreeMap::new(),
    });
    let usage = Usage {
        bytes: 8192,
        inodes: 3,
    };
    let key = ("overlayfs".to_owned(), format!("s-{name}"));
    books.usage.insert(key, usage);
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
            image: "registry.example/idle:1".to_owned(),
            snapshot: "box".to_owned(),
            ..record("box", 0)
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
        "registry.example/idle",
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
        books(facts).records[2].updated = (NOW + 5) * SECOND;
    });
    // Another name of the same manifest, which the CRI does not tell.
    keeps(Kept::NotUnderstood, &[], |facts| {
        let mut record = books(facts).records[0].clone();
        record.name = "import-2026-12-01@sha256:m-idle".to_owned();
        books(facts).records.push(record);
    });
    // 5-31 of the review: of another manifest of the same image, as after packing its layers anew; told in full only; and in
    // full that of another image too.
    keeps(Kept::NotUnderstood, &[], |facts| {
        let mut manifest = books(facts).blobs[0].clone();
        manifest.digest = "m-packed".to_owned();
        books(facts).blobs.push(manifest);
        name(facts, "short:1", "m-packed");
    });
    keeps(Kept::NotUnderstood, &[], |facts| {
        let whole = "docker.io/library/short:1".to_owned();
        facts.images[0].tags.push(whole);
        name(facts, "short:1", "m-idle");
    });
    keeps(Kept::NotUnderstood, &[], |facts| {
        let mut other = idle();
        add(&mut other, "other", 0);
        facts.books = other.books;
        let whole = "docker.io/library/short:1";
        facts.images[0].tags.push(whole.to_owned());
        name(facts, whole, "m-idle");
        name(facts, "short:1", "m-other");
    });
    keeps(Kept::AgeUnknown, &[], |facts| facts.books = None);
    keeps(Kept::AgeUnknown, &[], |facts| books(facts).records.clear());
}

/// Writes a name into the books.
fn name(facts: &mut Facts, name: &str, target: &str) {
    books(facts).records.push(ImageRecord {
        name: name.to_owned(),
        target: target.to_owned(),
        updated: 0,
    });
}

fn record(id: &str, created: i128) -> Record {
    Record {
        id: id.to_owned(),
        image: String::new(),
        snapshotter: "overlayfs".to_owned(),
        snapshot: String::new(),
        created,
    }
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
    let local = add(&mut facts, "local", 7);
    // Its names are those of a pulled one, also that with a digest.
    source_of(&mut facts, &local).clear();
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

/// From where a pull has brought the manifest of an image.
fn source_of<'a>(facts: &'a mut Facts, id: &str) -> &'a mut String {
    let manifest = id.replace("sha256:", "m-");
    let blobs = &mut books(facts).blobs;
    let blob = blobs.iter_mut().find(|blob| blob.digest == manifest);
    blob.unwrap().labels.get_mut(SOURCE).unwrap()
}

// 5-01 of the review: what cannot be had again waits for consent, whatever it is called. Each name must have been pulled.
#[test]
fn an_image_with_a_name_that_was_never_pulled_is_not_pullable() {
    let is_pullable = |change: &dyn Fn(&mut Facts)| {
        let mut facts = idle();
        change(&mut facts);
        images(&facts, rules(&[])).goes[0].is_pullable
    };
    assert!(is_pullable(&|_| {}));
    let rows: [fn(&mut Facts); 5] = [
        |facts| source_of(facts, "sha256:idle").clear(),
        // Another repository, which only begins like its own.
        |facts| "idle-too,other".clone_into(source_of(facts, "sha256:idle")),
        // A pulled image that was given a name of the node too.
        |facts| {
            facts.images[0].tags.push("local/idle:1".to_owned());
            let mut record = books(facts).records[0].clone();
            record.name = "local/idle:1".to_owned();
            books(facts).records.push(record);
        },
        // containerd does not have the name that the CRI tells.
        |facts| {
            facts.images[0]
                .tags
                .push("registry.example/idle:2".to_owned());
        },
        // It has lost all its names.
        |facts| {
            facts.images[0].tags.clear();
            facts.images[0].digests.clear();
            books(facts).records.retain(|one| one.name == "sha256:idle");
        },
    ];
    for (at, change) in rows.into_iter().enumerate() {
        assert!(!is_pullable(&change), "{at}");
    }
}

// 5-02 of the review: no container names the image of a volume; what is mounted lies right upon its uppermost layer.
#[test]
fn an_image_that_is_mounted_as_a_volume_is_used() {
    let mount = |facts: &mut Facts, parent: &str, is_layer| {
        let key = "/var/lib/containerd/io.containerd.grpc.v1.cri/image-volumes/box/m-idle";
        books(facts).snapshots.push(Snapshot {
            snapshotter: "overlayfs".to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            is_layer,
            labels: BTreeMap::new(),
        });
        let lease = lease("snapshots/overlayfs", key, None);
        books(facts).leases.push(lease);
    };
    keeps(Kept::Used, &[], |facts| mount(facts, "s-idle", false));
    // Of another image, of none, and a layer of another image upon this one.
    for (parent, is_layer) in [("s-other", false), ("", false), ("s-idle", true)] {
        let mut facts = idle();
        mount(&mut facts, parent, is_layer);
        assert_eq!(images(&facts, rules(&[])).goes.len(), 1, "{parent}");
    }
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
        snapshotter: "overlayfs".to_owned(),
        key: "s-base".to_owned(),
        parent: String::new(),
        is_layer: true,
        labels: BTreeMap::new(),
    });
    let of = |id: &String, name: &str| {
        let own = format!("registry.example/{name}");
        [
            id.clone(),
            format!("{own}:1"),
            format!("{own}@sha256:m-{name}"),
        ]
    };
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
        Piece::Snapshot("overlayfs", "s-one"),
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
        snapshotter: "overlayfs".to_owned(),
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
        Piece::Snapshot("overlayfs", "s-base"),
        Piece::Snapshot("overlayfs", "s-one"),
    ];
    assert_eq!(graph.without(&gone), BTreeSet::from(expected));
}

// 5-09 of the review: which snapshotters there are the books tell, whatever the settings say, and each is looked into.
#[test]
fn layers_of_every_snapshotter_count_and_hold() {
    let mut facts = idle();
    let id = add(&mut facts, "other", 0);
    let books = books(&mut facts);
    let config = books.blobs.iter_mut().find(|blob| blob.digest == id);
    let labels = &mut config.unwrap().labels;
    labels.clear();
    labels.insert(
        "containerd.io/gc.ref.snapshot.btrfs/new".to_owned(),
        "s-other".to_owned(),
    );
    books.containers.push(Record {
        snapshotter: "devmapper".to_owned(),
        ..record("kata", 0)
    });
    let lease = lease("snapshots/stargz", "s", None);
    books.leases.push(lease);
    let known = books.snapshotters();
    assert_eq!(
        known.iter().map(String::as_str).collect::<Vec<_>>(),
        ["btrfs", "devmapper", "overlayfs", "stargz"]
    );
    // The one of overlayfs has the same key and is none of this image.
    let names = ["registry.example/other:1".to_owned()];
    let pieces = |books: &Books| {
        let graph = Graph::of(books, NOW * SECOND);
        graph
            .of_image(&id, &names)
            .iter()
            .filter(|piece| matches!(piece, Piece::Snapshot(..)))
            .count()
    };
    assert_eq!(pieces(books), 0);
    let own = books.snapshots.iter_mut().find(|one| one.key == "s-other");
    own.unwrap().snapshotter = "btrfs".to_owned();
    assert_eq!(pieces(books), 1);
}
