//! Tests of the state directory: what is durable, what a torn or foreign file does.

use nagi_core::id::{KeyId, Name, Namespace, RequestId};
use nagi_core::intent::{Action, Actor, Asleep, Change, Intent, ScheduledWake, SleptBy};
use nagi_core::quantity::WakeCount;
use nagi_core::text::ReasonText;
use nagi_core::wake::{Learned, Stage};
use nagi_ports::{HistoryEntry, HistoryQuery};

use super::history::{History, SOURCE_JOURNAL, SOURCE_OBJECT, read};
use super::*;

fn id(name: &str) -> WorkloadId {
    WorkloadId::deployment(
        Namespace::new("project-a").unwrap(),
        Name::new(name).unwrap(),
    )
}

fn change(second: i64, to: u32) -> Change {
    Change {
        time: jiff::Timestamp::from_second(second).unwrap(),
        action: Action::ScaleUp,
        actor: Actor::Key(KeyId::new("ops").unwrap()),
        reason: ReasonText::new("夜間 \"quoted\"\n").unwrap(),
        request_id: RequestId::accept("r-1"),
        from: Replicas(0),
        to: Replicas(to),
    }
}

fn full() -> Remembered {
    let time = jiff::Timestamp::from_second(1_700_000_000).unwrap();
    let intent = Intent {
        remembered: WakeCount::new(3),
        asleep: Some(Asleep {
            since: time,
            by: SleptBy::Policy("local/idle-after".into()),
        }),
        last_scale_time: Some(time),
        scheduled: Some(ScheduledWake {
            at: time,
            actor: Actor::Anonymous,
            request_id: None,
        }),
        keep_awake_until: Some(time),
        changes: vec![change(1, 2), change(2, 3)],
        learned: Learned::from_stored([(Stage::Starting, Duration::from_millis(1_234))]),
    };
    Remembered {
        uid: Uid::new("u"),
        version: Version::new(7),
        declared: Replicas(2),
        update: IntentUpdate {
            desired: Replicas(0),
            intent,
        },
        removed: None,
    }
}

#[test]
fn what_was_written_is_read_back_by_the_next_engine() {
    let directory = tempfile::tempdir().unwrap();
    let bare = Remembered {
        update: IntentUpdate {
            desired: Replicas(1),
            intent: Intent::default(),
        },
        ..full()
    };
    let first = StateDirectory::open(directory.path()).unwrap();
    first.write_workload(&id("a"), None, &full()).unwrap();
    first.write_workload(&id("b.c"), None, &bare).unwrap();
    let gone = Remembered {
        removed: Some(jiff::Timestamp::from_second(3).unwrap()),
        ..full()
    };
    first.write_workload(&id("gone"), None, &gone).unwrap();
    assert_eq!(first.read_workload(&id("none")).unwrap(), None);
    let (instance, version) = (first.in_charge().instance.clone(), first.next_version());
    drop(first);
    let second = StateDirectory::open(directory.path()).unwrap();
    assert_eq!(second.read_workload(&id("a")).unwrap(), Some(full()));
    assert_eq!(second.read_workload(&id("b.c")).unwrap(), Some(bare));
    assert_eq!(second.read_workload(&id("gone")).unwrap(), Some(gone));
    let mut all = second.workloads();
    all.sort();
    assert_eq!(all, [id("a"), id("b.c"), id("gone")]);
    assert_eq!(second.in_charge().instance, instance);
    assert_eq!(second.in_charge().generation, 2);
    assert!(second.next_version() > version);
    second.forget_workload(&id("a"));
    assert_eq!(second.read_workload(&id("a")).unwrap(), None);
}

#[test]
fn an_engine_begins_anew_only_where_nothing_is_to_be_kept() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("state");
    check_forgettable(&root).unwrap();
    // As a start leaves it that was cut off before it was in charge.
    for name in DIRECTORIES {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let first = StateDirectory::open_anew(&root).unwrap();
    first.write_workload(&id("a"), None, &full()).unwrap();
    for name in FILES {
        fs::write(root.join(name), "x").unwrap();
    }
    let version = first.next_version();
    drop(first);
    let second = StateDirectory::open_anew(&root).unwrap();
    second.clear().unwrap();
    assert_eq!(second.read_workload(&id("a")).unwrap(), None);
    assert!(FILES.iter().all(|name| !root.join(name).exists()));
    assert!(
        second.next_version() > version,
        "for those who still know it"
    );
    drop(second);
    // One that goes on from what it finds.
    drop(StateDirectory::open(&root).unwrap());
    let refused = StateDirectory::open_anew(&root).unwrap_err();
    assert!(
        matches!(&refused, StoreError::Foreign { path } if path.ends_with(ENGINE)),
        "{refused}"
    );
    for name in [ENGINE, "lock"] {
        disk::remove_file(&root.join(name));
    }
    fs::write(root.join(history::NEWEST), "mine").unwrap();
    let refused = check_forgettable(&root).unwrap_err();
    assert!(
        matches!(&refused, StoreError::Foreign { path } if path.ends_with(history::NEWEST)),
        "{refused}"
    );
}

#[test]
fn a_second_engine_is_refused_and_told_by_whom() {
    let directory = tempfile::tempdir().unwrap();
    let _first = StateDirectory::open(directory.path()).unwrap();
    let error = StateDirectory::open(directory.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("in use by another nagi"), "{error}");
    assert!(
        error.contains(&format!("process {}", std::process::id())),
        "{error}"
    );
}

#[test]
fn a_damaged_file_is_an_error_that_names_it_and_never_a_state() {
    let directory = tempfile::tempdir().unwrap();
    let store = StateDirectory::open(directory.path()).unwrap();
    store.write_workload(&id("a"), None, &full()).unwrap();
    let path = directory.path().join("workloads/project-a/a.json");
    let good = fs::read_to_string(&path).unwrap();
    let good = good.trim_end();
    let mut damaged = vec![String::new(), "{".into(), "null".into(), "[]".into()];
    damaged.push(good.chars().take(good.len() / 2).collect());
    damaged.push(good.replace("\"declared\"", "\"bogus\""));
    damaged.push(good.replace("\"remembered\": 3", "\"remembered\": 4"));
    let since = "\"removed\": \"1970-01-01T00:00:03Z\", \"digest\"";
    damaged.push(good.replace("\"digest\"", since));
    for (word, other) in [
        ("\"format\": 2", "\"format\": 1"),
        ("\"remembered\": 3", "\"remembered\": 0"),
        ("policy/local/idle-after", "nobody"),
    ] {
        damaged.push(stored::sealed_anew(&good.replace(word, other)));
    }
    for content in damaged {
        assert_ne!(content, good);
        slots::create(&path, content.as_bytes()).unwrap();
        let error = store.read_workload(&id("a")).unwrap_err();
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "{content}: {error}"
        );
        assert!(error.to_string().contains("project-a/a.json"), "{error}");
    }
    drop(store);
    fs::write(directory.path().join("engine.json"), "").unwrap();
    let error = StateDirectory::open(directory.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("engine.json is damaged"), "{error}");
}

// A state directory of a Nagi from before the digest: each file is one state.
#[test]
fn a_file_of_the_format_before_is_read_and_the_next_write_makes_it_anew() {
    let directory = tempfile::tempdir().unwrap();
    let store = StateDirectory::open(directory.path()).unwrap();
    store.write_workload(&id("a"), None, &full()).unwrap();
    let path = directory.path().join("workloads/project-a/a.json");
    let mut old: serde_json::Value =
        serde_json::from_slice(fs::read_to_string(&path).unwrap().trim().as_bytes()).unwrap();
    old["format"] = 1.into();
    old.as_object_mut().unwrap().remove("digest").unwrap();
    let old = serde_json::to_string_pretty(&old).unwrap() + "\n";
    fs::write(&path, &old).unwrap();
    assert_eq!(store.read_workload(&id("a")).unwrap(), Some(full()));
    // Half of it is no state, and neither is it with a digest that it never had.
    fs::write(&path, old.split_at(old.len() / 2).0).unwrap();
    store.read_workload(&id("a")).unwrap_err();
    fs::write(&path, old.replacen('{', "{\"digest\": \"0\",", 1)).unwrap();
    store.read_workload(&id("a")).unwrap_err();
    fs::write(&path, &old).unwrap();
    let next = successor(&full());
    store
        .write_workload(&id("a"), Some(full().version), &next)
        .unwrap();
    assert_eq!(store.read_workload(&id("a")).unwrap(), Some(next));
    assert!(fs::read_to_string(&path).unwrap().contains("\"format\": 2"));
}

#[test]
fn no_next_step_leads_away_from_a_directory_that_may_hold_something() {
    let path = || PathBuf::from("a.json");
    let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
    let damaged = StoreError::Damaged {
        path: path(),
        why: String::new(),
    };
    assert!(damaged.hint().contains("backup"), "{}", damaged.hint());
    let read = StoreError::Read {
        path: path(),
        source: refused(),
    };
    let full = rustix::io::Errno::NOSPC.into();
    let full = StoreError::Write(WriteError::new(&path(), full));
    let lock = StoreError::Lock {
        path: path(),
        source: refused(),
    };
    for error in [damaged, read, full] {
        assert!(!error.hint().contains("--state-dir"), "{}", error.hint());
    }
    assert!(lock.hint().contains("move it"), "{}", lock.hint());
}

/// One write after the other, each with the version after the last.
fn successor(state: &Remembered) -> Remembered {
    Remembered {
        version: Version::new(state.version.number + 1),
        declared: Replicas(state.declared.0 + 1),
        ..state.clone()
    }
}

#[test]
fn a_write_torn_at_any_byte_leaves_what_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let store = StateDirectory::open(directory.path()).unwrap();
    let path = directory.path().join("workloads/project-a/a.json");
    let mut acknowledged = full();
    store.write_workload(&id("a"), None, &acknowledged).unwrap();
    for _ in 0..3 {
        let next = successor(&acknowledged);
        let before = fs::read(&path).unwrap();
        store
            .write_workload(&id("a"), Some(acknowledged.version), &next)
            .unwrap();
        let after = fs::read(&path).unwrap();
        assert_eq!(before.len(), after.len());
        let changed = |(at, (old, new)): (usize, (&u8, &u8))| (old != new).then_some(at);
        let places: Vec<usize> =
            (before.iter().zip(&after).enumerate().filter_map(changed)).collect();
        assert!(places.len() > 1, "overwritten in place");
        let mut kept = 0;
        let cuts: Vec<usize> = places.iter().copied().skip(1).step_by(7).collect();
        for cut in &cuts {
            // The disk got this far, from either end.
            for (head, tail) in [(&after, &before), (&before, &after)] {
                let torn = [head.get(..*cut).unwrap(), tail.get(*cut..).unwrap()].concat();
                fs::write(&path, torn).unwrap();
                let read = store.read_workload(&id("a")).unwrap().unwrap();
                // Only blanks were missing, or something of the state was.
                assert!(read == acknowledged || read == next, "cut at {cut}");
                kept += usize::from(read == acknowledged);
            }
        }
        assert!(kept > cuts.len(), "{kept} of {}", cuts.len() * 2);
        fs::write(&path, &after).unwrap();
        assert_eq!(store.read_workload(&id("a")).unwrap().as_ref(), Some(&next));
        acknowledged = next;
    }
}

#[test]
fn a_write_replaces_only_what_was_not_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let store = StateDirectory::open(directory.path()).unwrap();
    let first = full();
    store.write_workload(&id("a"), None, &first).unwrap();
    // Two writes whose answers were errors, as far as the engine knows.
    let lost = successor(&first);
    for _ in 0..2 {
        store
            .write_workload(&id("a"), Some(first.version), &lost)
            .unwrap();
    }
    let path = directory.path().join("workloads/project-a/a.json");
    let text = fs::read_to_string(&path).unwrap();
    for state in [&first, &lost] {
        let version = format!("\"version\": {},", state.version.number);
        assert_eq!(text.matches(&version).count(), 1, "{text}");
    }
    // The engine knows neither: the file is made anew, and nothing of it is left.
    let other = successor(&successor(&lost));
    store
        .write_workload(&id("a"), Some(Version::new(1)), &other)
        .unwrap();
    assert_eq!(store.read_workload(&id("a")).unwrap(), Some(other));
    assert!(
        !fs::read_to_string(&path)
            .unwrap()
            .contains("\"version\": 7,")
    );
}

#[test]
fn slots_grow_with_the_longest_reasons() {
    let directory = tempfile::tempdir().unwrap();
    let store = StateDirectory::open(directory.path()).unwrap();
    let first = full();
    store.write_workload(&id("a"), None, &first).unwrap();
    let mut long = successor(&first);
    for second in 0..5 {
        let reason = ReasonText::new("\u{1}".repeat(500)).unwrap();
        let change = Change {
            reason,
            ..change(second, 1)
        };
        long.update.intent.record(change);
    }
    store
        .write_workload(&id("a"), Some(first.version), &long)
        .unwrap();
    assert_eq!(store.read_workload(&id("a")).unwrap().as_ref(), Some(&long));
    let short = Remembered {
        version: Version::new(long.version.number + 1),
        ..first
    };
    store
        .write_workload(&id("a"), Some(long.version), &short)
        .unwrap();
    assert_eq!(store.read_workload(&id("a")).unwrap(), Some(short));
}

fn entry(history_id: u64, name: &str, second: i64) -> HistoryEntry {
    let change = change(second, 1);
    HistoryEntry {
        id: history_id,
        workload: id(name),
        change,
        source: SOURCE_JOURNAL,
    }
}

#[test]
fn history_is_read_newest_first_filtered_and_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    let mut history = History::in_directory(directory.path());
    for number in 1..=10 {
        let name = if number % 2 == 0 { "even" } else { "odd" };
        history
            .append(&entry(number, name, i64::try_from(number).unwrap()))
            .unwrap();
    }
    let all = HistoryQuery {
        limit: 4,
        ..HistoryQuery::default()
    };
    let ids = |query: &HistoryQuery| {
        let page = read(directory.path(), query);
        (
            page.entries
                .iter()
                .map(|entry| entry.id)
                .collect::<Vec<_>>(),
            page.more,
        )
    };
    assert_eq!(ids(&all), (vec![10, 9, 8, 7], true));
    assert_eq!(
        ids(&HistoryQuery {
            before: Some(5),
            ..all.clone()
        }),
        (vec![4, 3, 2, 1], false)
    );
    let even = HistoryQuery {
        name: Some(Name::new("even").unwrap()),
        ..all.clone()
    };
    assert_eq!(ids(&even), (vec![10, 8, 6, 4], true));
    let since = jiff::Timestamp::from_second(9).unwrap();
    assert_eq!(
        ids(&HistoryQuery {
            since: Some(since),
            ..all.clone()
        }),
        (vec![10, 9], false)
    );
    let other = Namespace::new("project-b").unwrap();
    assert_eq!(
        ids(&HistoryQuery {
            namespace: Some(other),
            ..all.clone()
        }),
        (vec![], false)
    );
    let page = read(directory.path(), &all);
    assert_eq!(
        page.reaches_back_to,
        Some(jiff::Timestamp::from_second(1).unwrap())
    );
    assert_eq!(page.entries[0], entry(10, "even", 10));
}

#[test]
fn history_takes_bounded_space_and_says_how_far_it_reaches() {
    let directory = tempfile::tempdir().unwrap();
    let mut history = History::in_directory(directory.path());
    for number in 0..20_000 {
        history
            .append(&entry(number, "a", i64::try_from(number).unwrap()))
            .unwrap();
    }
    let size = |name: &str| fs::metadata(directory.path().join(name)).unwrap().len();
    assert!(size("history.jsonl") + size("history.1.jsonl") < 5 << 20);
    let page = read(
        directory.path(),
        &HistoryQuery {
            limit: 1,
            ..HistoryQuery::default()
        },
    );
    assert_eq!(page.entries[0].id, 19_999);
    assert!(page.reaches_back_to.unwrap() > jiff::Timestamp::from_second(1_000).unwrap());
}

#[test]
fn changes_that_a_crash_kept_from_the_history_are_added_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut history = History::in_directory(directory.path());
    history.append(&entry(1, "a", 1)).unwrap();
    // The crash also tore a line.
    let path = directory.path().join("history.jsonl");
    let mut content = fs::read(&path).unwrap();
    content.extend_from_slice(b"{\"id\":2,\"reso");
    fs::write(&path, content).unwrap();
    let remembered = || {
        vec![
            (id("a"), vec![change(1, 1), change(5, 1)]),
            (id("b"), vec![change(3, 1)]),
        ]
    };
    for _ in 0..2 {
        let mut next = 10;
        let mut history = History::in_directory(directory.path());
        let next_id = || {
            next += 1;
            next
        };
        history.complete(remembered(), next_id).unwrap();
        let all = HistoryQuery {
            limit: 100,
            ..HistoryQuery::default()
        };
        let entries = read(directory.path(), &all).entries;
        let found: Vec<_> = entries
            .iter()
            .map(|entry| {
                (
                    entry.workload.name.as_str(),
                    entry.change.time.as_second(),
                    entry.source,
                )
            })
            .collect();
        let expected = [
            ("a", 5, SOURCE_OBJECT),
            ("b", 3, SOURCE_OBJECT),
            ("a", 1, SOURCE_JOURNAL),
        ];
        assert_eq!(found, expected);
    }
}
