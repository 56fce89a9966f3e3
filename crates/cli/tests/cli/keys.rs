//! Keys: made, used, limited to their namespaces, revoked while the server runs.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use crate::run::{Call, call};
use crate::server::{Server, TWO_PROJECTS};

/// A revoked key counts for at most 5 s (DESIGN §7); a busy machine gets as much again to notice.
const REVOKED_MAX: Duration = Duration::from_secs(5);

struct Keys {
    directory: tempfile::TempDir,
}

impl Keys {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> String {
        self.directory
            .path()
            .join("keys.yaml")
            .display()
            .to_string()
    }

    fn key(&self, arguments: &str) -> Call {
        let arguments: Vec<&str> = ["key"]
            .into_iter()
            .chain(arguments.split_whitespace())
            .collect();
        call(&arguments).env("NAGI_KEYS_FILE", &self.path())
    }

    fn create(&self, arguments: &str) -> String {
        let ran = self.key(&format!("create {arguments}")).run().exits(0);
        assert_eq!(ran.stdout.lines().count(), 1, "the key alone: {ran:?}");
        ran.stdout.trim().to_owned()
    }
}

#[test]
fn wrong_keys_are_not_made() {
    let keys = Keys::new();
    for (arguments, code, rule) in [
        (
            "create --id alice --role owner --namespace a",
            2,
            "viewer, operator or admin",
        ),
        (
            "create --id Alice --role viewer --namespace a",
            2,
            "DNS label",
        ),
        ("create --id alice --role viewer", 2, "--namespace"),
        (
            "create --id alice --role viewer --namespace A",
            2,
            "DNS label",
        ),
        (
            "create --id alice --role viewer --namespace *,a",
            2,
            "stands alone",
        ),
        (
            "create --id alice --role viewer --namespace a --expires soon",
            2,
            "RFC 3339",
        ),
        (
            "create --id alice --role viewer --namespace a --expires 2020-01-01T00:00:00Z",
            2,
            "past",
        ),
        (
            "create --id api-key --role viewer --namespace a",
            5,
            "reserved",
        ),
        ("list", 2, "cannot read the keys file"),
        ("list", 2, "hint: is the path right"),
        ("revoke alice --yes", 2, "cannot read the keys file"),
    ] {
        keys.key(arguments)
            .run()
            .exits(code)
            .says(rule)
            .prints_nothing();
    }
    assert!(
        !std::path::Path::new(&keys.path()).exists(),
        "nothing was written"
    );
    call(&["key", "list"]).run().exits(2).says("--file");
}

#[test]
fn a_key_is_shown_once_and_stored_nowhere() {
    let keys = Keys::new();
    let key = keys.create("--id alice --role operator --namespace project-a --expires +90d");
    assert!(key.starts_with("nagi_alice_") && key.len() > 64, "{key}");
    let secret = key.rsplit('_').next().unwrap();
    let file = std::fs::read_to_string(keys.path()).unwrap();
    assert!(!file.contains(secret), "{file}");
    let mode = std::fs::metadata(keys.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let list = keys
        .key("list")
        .run()
        .exits(0)
        .prints("alice")
        .prints("operator")
        .prints("project-a");
    assert!(!list.stdout.contains(secret), "{list:?}");
    keys.key("create --id alice --role viewer --namespace a")
        .run()
        .exits(5)
        .says("exists already");
    let json = keys.key("list --output json").run().exits(0).json();
    assert_eq!(json["items"][0]["namespaces"][0], "project-a");
    assert!(json["items"][0].get("sha256").is_none(), "{json}");
}

#[test]
fn revoking_asks_and_knows_near_names() {
    let keys = Keys::new();
    keys.create("--id alice --role viewer --namespace *");
    keys.key("revoke alcie --yes")
        .run()
        .exits(3)
        .says("did you mean alice?");
    // Nobody can be asked; an answer that was piped in is no answer of a person.
    keys.key("revoke alice")
        .input("y\n")
        .run()
        .exits(2)
        .says("--yes");
    keys.key("list").run().exits(0).prints("alice");
    keys.key("revoke alice --yes")
        .run()
        .exits(0)
        .prints("alice is revoked");
    keys.key("list")
        .run()
        .exits(0)
        .prints_nothing()
        .says("no keys");
}

// W-A23, DESIGN §7
#[test]
fn a_key_reaches_its_namespaces_only_and_stops_to_count_when_it_is_revoked() {
    let keys = Keys::new();
    let alice = keys.create("--id alice --role operator --namespace project-a");
    let viewer = keys.create("--id eve --role viewer --namespace project-a,project-b");
    let server = Server::start(TWO_PROJECTS, &["--keys-file", &keys.path()]);
    let with = |key: &str, arguments: &str| server.nagi(arguments).env("NAGI_KEY", key).run();

    server
        .nagi("list")
        .run()
        .exits(4)
        .prints_nothing()
        .says("NAGI_KEY");
    with("nagi_alice_wrong", "list").exits(4).prints_nothing();

    let list = with(&alice, "list").exits(0).prints("project-a");
    assert!(!list.stdout.contains("project-b"), "{list:?}");
    with(&alice, "sleep twin -n project-b")
        .exits(4)
        .says("project-b");
    with(&alice, "wake sample-app-b").exits(3).prints_nothing();
    with(&viewer, "sleep sample-app-a").exits(4);
    with(&viewer, "status sample-app-b").exits(0);
    with(&alice, "sleep sample-app-a --wait").exits(0);
    let history = with(&alice, "history sample-app-a --output json")
        .exits(0)
        .json();
    assert_eq!(history["items"][0]["actor"], "key/alice");

    // A key that is made while the server runs counts soon, and a revoked one no longer.
    let bob = keys.create("--id bob --role viewer --namespace *");
    let began = Instant::now();
    while with(&bob, "list").code != 0 {
        assert!(began.elapsed() < 2 * REVOKED_MAX, "bob does not count");
    }
    keys.key("revoke alice --yes").run().exits(0);
    let began = Instant::now();
    while with(&alice, "list").code != 4 {
        assert!(began.elapsed() < 2 * REVOKED_MAX, "alice still counts");
    }
    with(&bob, "list").exits(0);
}
