//! Keys: what counts at the start, how files are followed, what a file may hold.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use nagi_core::access::{Reach, Role};
use nagi_runtime::Shutdown;
use nagi_telemetry::{LevelFilter, Log, Metrics, Sink};
use nagi_testkit::epoch;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn metrics() -> Metrics {
    let log = Log::start(LevelFilter::Fatal, Sink::Writer(Box::new(std::io::sink()))).unwrap();
    Metrics::new("0", log.lines_dropped())
}

fn open(sources: KeySources) -> Result<Keyring, KeyringError> {
    Keyring::open(sources, metrics())
}

fn counts(ring: &Keyring, key: &str) -> bool {
    ring.current().prove(key, epoch()).is_ok()
}

fn entry(id: &str) -> KeyEntry {
    KeyEntry {
        id: KeyId::new(id).unwrap(),
        role: Role::Operator,
        reach: file::reach(&["project-a".to_owned()]).unwrap(),
        created: epoch(),
        expires: Some(epoch() + SignedDuration::from_hours(1)),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a file that the test made itself"
)]
fn remove(path: &std::path::Path) {
    fs::remove_file(path).unwrap();
}

fn place(name: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    (directory, path)
}

// DESIGN §7, K-14: every combination of sources.
#[test]
fn sources_override_each_other_as_designed() {
    let (_directory, path) = place("key");
    fs::write(&path, "from-file\n").unwrap();
    let (env, file) = (|k: &str| Some(k.to_owned()), || Some(path.clone()));
    let rows = [
        (None, None, None),
        (env("from-env"), None, Some("from-env")),
        (None, file(), Some("from-file")),
        (env("from-env"), file(), Some("from-env")),
        (env(""), file(), None),
        (env(""), None, None),
        (None, Some(path.with_file_name("absent")), None),
    ];
    for (api_key, api_key_file, counted) in rows {
        let label = format!("{api_key:?} {api_key_file:?}");
        let sources = KeySources {
            api_key,
            api_key_file,
            ..KeySources::default()
        };
        let required = KeySources {
            required: true,
            ..sources.clone()
        };
        let ring = open(sources).unwrap();
        assert_eq!(ring.current().are_off(), counted.is_none(), "{label}");
        for key in ["from-env", "from-file", ""] {
            assert_eq!(counts(&ring, key), counted == Some(key), "{label} {key}");
        }
        assert_eq!(open(required).is_err(), counted.is_none(), "{label}");
    }
}

// DESIGN §7: what a server must not start with.
#[test]
fn a_source_that_is_there_but_useless_stops_the_start() {
    let (directory, path) = place("key");
    let single = || KeySources {
        api_key_file: Some(path.clone()),
        ..KeySources::default()
    };
    let many = |path: PathBuf| KeySources {
        keys_file: Some(path),
        ..KeySources::default()
    };
    for useless in ["", " \n", "two\nlines", &"x".repeat(10_000)] {
        fs::write(&path, useless).unwrap();
        assert!(open(single()).is_err(), "{useless:.20}");
    }
    remove(&path);
    fs::create_dir(&path).unwrap();
    assert!(matches!(
        open(single()),
        Err(KeyringError::ReadSingle { .. })
    ));
    assert!(matches!(
        open(many(directory.path().join("absent"))),
        Err(KeyringError::KeysFile(KeyFileError::Read { .. }))
    ));
    let malformed = directory.path().join("malformed");
    fs::write(&malformed, "keys: 1").unwrap();
    assert!(matches!(
        open(many(malformed)),
        Err(KeyringError::KeysFile(KeyFileError::Malformed { .. }))
    ));
    // An empty list is a list: authentication is on, and nobody gets in; strict mode wants somebody.
    let empty = directory.path().join("empty");
    fs::write(&empty, "version: 1\nkeys: []\n").unwrap();
    assert!(!open(many(empty.clone())).unwrap().current().are_off());
    let strict = KeySources {
        required: true,
        ..many(empty)
    };
    assert!(matches!(open(strict), Err(KeyringError::Required)));
}

// A key that no header can carry would lock everybody out.
#[test]
fn a_key_that_nobody_can_send_is_refused_at_the_start() {
    for (key, accepted) in [
        (" ", false),
        ("キー", false),
        ("a ", false),
        ("a\tb", false),
        ("a b", true),
        ("~!x", true),
    ] {
        let ring = open(KeySources {
            api_key: Some(key.to_owned()),
            ..KeySources::default()
        });
        match ring {
            Ok(ring) => assert!(accepted && counts(&ring, key), "{key:?}"),
            Err(error) => assert!(
                !accepted && matches!(error, KeyringError::Unsendable),
                "{key:?}: {error}"
            ),
        }
    }
}

// DESIGN §7: an empty API_KEY does not open what the keys file closes.
#[test]
fn a_keys_file_keeps_authentication_on() {
    let (_directory, path) = place("keys.json");
    let key = file::create(&path, &entry("ci")).unwrap();
    let ring = open(KeySources {
        api_key: Some(String::new()),
        keys_file: Some(path),
        ..KeySources::default()
    })
    .unwrap();
    assert!(!ring.current().are_off());
    assert!(counts(&ring, &key) && !counts(&ring, ""));
}

// F10
#[test]
fn a_key_is_made_listed_proven_and_revoked() {
    for name in ["keys.yaml", "keys.json"] {
        let (_directory, path) = place(name);
        let key = file::create(&path, &entry("ci")).unwrap();
        assert!(
            key.starts_with("nagi_ci_") && key.len() == "nagi_ci_".len() + 64,
            "{key}"
        );
        let everybody = KeyEntry {
            reach: Reach::All,
            expires: None,
            role: Role::Admin,
            ..entry("root")
        };
        file::create(&path, &everybody).unwrap();
        assert_eq!(file::list(&path).unwrap(), [entry("ci"), everybody]);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.starts_with('{'), name.ends_with("json"));
        assert!(!text.contains(key.rsplit('_').next().unwrap()));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );

        let ring = open(KeySources {
            keys_file: Some(path.clone()),
            ..KeySources::default()
        })
        .unwrap();
        let grant = ring.current().prove(&key, epoch()).unwrap();
        assert_eq!(
            (grant.holder, grant.role),
            (Holder::Key(KeyId::new("ci").unwrap()), Role::Operator)
        );
        assert!(!counts(&ring, &key.replace("nagi_ci_", "nagi_root_")));
        assert!(!counts(&ring, key.split_at(key.len() - 1).0));
        assert!(
            ring.current()
                .prove(&key, epoch() + SignedDuration::from_hours(1))
                .is_err()
        );

        assert!(matches!(
            file::create(&path, &entry("ci")),
            Err(KeyFileError::Exists { .. })
        ));
        assert!(matches!(
            file::create(&path, &entry("api-key")),
            Err(KeyFileError::Reserved { .. })
        ));
        file::revoke(&path, &entry("ci").id).unwrap();
        assert!(matches!(
            file::revoke(&path, &entry("ci").id),
            Err(KeyFileError::Unknown { .. })
        ));
        assert_eq!(file::list(&path).unwrap().len(), 1);
    }
}

#[test]
fn a_malformed_file_is_refused_with_its_place_and_without_its_content() {
    let good = "version: 1\nkeys:\n  - {id: a, role: viewer, namespaces: [p], created: 2030-01-01T00:00:00Z, salt: 00112233445566778899aabbccddeeff, sha256: SUM}\n"
        .replace("SUM", &"ab".repeat(32));
    assert!(file::validate(good.as_bytes()) == Ok(1));
    let twice = format!("{good}{}", good.lines().last().unwrap());
    let broken = [
        ("version: 1", "version: 2"),
        ("version: 1\n", ""),
        ("id: a", "id: A"),
        ("id: a", "id: api-key"),
        ("role: viewer", "role: root"),
        ("[p]", "[]"),
        ("[p]", "[P]"),
        ("[p]", "['*', p]"),
        ("2030-01-01T00:00:00Z", "2030-01-01"),
        ("0011", "001"),
        ("00112233445566778899aabbccddeeff", "0011"),
        ("abab", "ab"),
        ("abab", "zzab"),
        ("role:", "rule: x, role:"),
    ];
    let texts = broken
        .map(|(from, to)| good.replacen(from, to, 1))
        .into_iter();
    for text in texts.chain([
        twice,
        String::new(),
        "[]".to_owned(),
        good.clone() + "\u{0}",
        good.clone() + "\t- x",
        "keys: 1\nversion: 1".to_owned(),
        "keys: [".to_owned(),
        "version: one\nkeys: []".to_owned(),
        good.replace("role: viewer, ", ""),
        good.replace("created: ", "created: x"),
        "a: &x [*x]".to_owned(),
    ]) {
        let reason = file::validate(text.as_bytes()).expect_err(&text);
        // In words of whoever keeps the keys, not of the library that reads them.
        for word in [
            "expected", "EOF", "pars", "struct", "scalar", "sequence", "type", "invalid",
        ] {
            assert!(!reason.contains(word), "{text}: {reason}");
        }
        assert!(
            !reason.contains("00112233") && !reason.contains("abababab"),
            "{reason}"
        );
    }
    assert!(file::validate(b"\xff").is_err());
    for (from, to, said) in [
        ("role: viewer, ", "", "line 3, column"),
        ("role: viewer, ", "", "the field role is missing"),
        (
            "role:",
            "rule: x, role:",
            "an unknown field; allowed: id, role",
        ),
        ("2030-01-01T00:00:00Z", "soon", "RFC 3339"),
    ] {
        let reason = file::validate(good.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert!(reason.contains(said), "{reason}");
    }
}

/// What the metrics tell of the keys file and of `API_KEY_FILE`: 1 while the present content is in force.
fn in_force(metrics: &Metrics) -> [Option<String>; 2] {
    let text = metrics.encode().unwrap();
    ["keys", "api-key"].map(|file| {
        let sample = format!("nagi_file_in_force{{file=\"{file}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&sample));
        value.map(ToOwned::to_owned)
    })
}

/// Follows the files for some seconds of paused time.
async fn follow(ring: &Keyring, seconds: u64) {
    let following = ring.clone().follow(Shutdown::never());
    // The look itself runs on a blocking thread, which paused time waits for.
    drop(tokio::time::timeout(Duration::from_secs(seconds), following).await);
}

// Issue 3 item 4: within 5 s, without restart; the last good content stays.
#[tokio::test(start_paused = true)]
async fn files_are_followed_and_bad_content_changes_nothing() {
    let (directory, path) = place("keys.yaml");
    let single = directory.path().join("key");
    let first = file::create(&path, &entry("first")).unwrap();
    fs::write(&single, "one").unwrap();
    let metrics = metrics();
    let sources = KeySources {
        api_key_file: Some(single.clone()),
        keys_file: Some(path.clone()),
        ..KeySources::default()
    };
    let ring = Keyring::open(sources, metrics.clone()).unwrap();
    let told = |keys: &str, single: &str| {
        let told = [keys, single].map(|value| Some(value.to_owned()));
        assert_eq!(in_force(&metrics), told);
    };
    told("1", "1");
    let id = |id| Holder::Key(KeyId::new(id).unwrap());
    let mut first_watched = ring.watch(id("first"));
    assert!(counts(&ring, &first) && counts(&ring, "one"));

    let second = file::create(&path, &entry("second")).unwrap();
    file::revoke(&path, &entry("first").id).unwrap();
    fs::write(&single, "other").unwrap();
    follow(&ring, 5).await;
    assert!(!counts(&ring, &first) && counts(&ring, &second));
    assert!(!counts(&ring, "one") && counts(&ring, "other"));
    first_watched.changed().await;
    let mut second_watched = ring.watch(id("second"));
    let mut single_watched = ring.watch(id(SINGLE_KEY_ID));

    fs::write(&path, "keys: [").unwrap();
    remove(&single);
    follow(&ring, 5).await;
    assert!(
        counts(&ring, &second) && counts(&ring, "other"),
        "the last good content stays"
    );
    told("0", "0");

    fs::write(&single, "third").unwrap();
    remove(&path);
    follow(&ring, 5).await;
    assert!(counts(&ring, "third") && counts(&ring, &second));
    told("0", "1");
    single_watched.changed().await;
    let soon = tokio::time::timeout(Duration::ZERO, second_watched.changed());
    assert!(soon.await.is_err(), "others changed, this one did not");
    let third = file::create(&path, &entry("third")).unwrap();
    follow(&ring, 5).await;
    assert!(counts(&ring, &third) && !counts(&ring, &second));
    told("1", "1");
    second_watched.changed().await;
}

// K-14: a mounted secret that appears later closes the door; API_KEY keeps overriding a file.
#[tokio::test(start_paused = true)]
async fn a_key_file_that_appears_later_counts() {
    let (_directory, path) = place("key");
    let open_at_first = open(KeySources {
        api_key_file: Some(path.clone()),
        ..KeySources::default()
    })
    .unwrap();
    // The keys file keeps it looking at files.
    let keys_file = path.with_file_name("keys.yaml");
    file::create(&keys_file, &entry("ci")).unwrap();
    let metrics = metrics();
    let sources = KeySources {
        api_key: Some("env".to_owned()),
        api_key_file: Some(path.clone()),
        keys_file: Some(keys_file),
        ..KeySources::default()
    };
    let overridden = Keyring::open(sources, metrics.clone()).unwrap();
    assert!(open_at_first.current().are_off());
    fs::write(&path, "late").unwrap();
    tokio::join!(follow(&open_at_first, 3), follow(&overridden, 3));
    assert!(counts(&open_at_first, "late") && !open_at_first.current().are_off());
    assert!(counts(&overridden, "env") && !counts(&overridden, "late"));
    assert_eq!(in_force(&metrics)[1], None, "it is not followed");
}

#[test]
fn neither_debug_nor_errors_show_a_key() {
    let sources = KeySources {
        api_key: Some("hunter2".to_owned()),
        ..KeySources::default()
    };
    let shown = format!("{sources:?} {:?}", open(sources.clone()).unwrap().current());
    assert!(!shown.contains("hunter2"), "{shown}");
}

// Two `nagi key` at a time: neither loses the other's work.
#[test]
fn keys_made_at_the_same_time_are_all_there() {
    let (_directory, path) = place("keys.yaml");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let path = &path;
            scope.spawn(move || file::create(path, &entry(&format!("k{n}"))).unwrap());
        }
    });
    assert_eq!(file::list(&path).unwrap().len(), 8);
}

proptest! {
    #[test]
    fn reading_any_bytes_ends_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _outcome = file::validate(&bytes).is_ok();
    }

    #[test]
    fn hexadecimal_reads_back(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
        prop_assert_eq!(from_hex(&hex(&bytes)), Some(bytes));
    }
}
