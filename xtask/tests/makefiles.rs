//! The Makefiles offer the targets that people and the founding documents call, and make can read each of them.
//!
//! Targets are not run here, only expanded: what they call is tested where it is written.

use std::path::Path;
use std::process::Command;

/// The targets of the founding documents' unit tests.
const UNIT: &[&str] = &[
    "help",
    "test",
    "coverage",
    "coverage-html",
    "lint",
    "vet",
    "watch",
    "test-handlers",
    "test-k8s",
    "test-middleware",
    "test-config",
    "test-utils",
    "test-run",
    "quick",
    "bench",
    "check-coverage",
    "ci",
    "clean",
    "debug",
    "test-junit",
];

/// Our own thin names.
const ROOT: &[&str] = &[
    "help",
    "setup",
    "demo",
    "test",
    "check",
    "coverage",
    "docs",
    "gen",
    "bench",
    "bench-quick",
    "fuzz",
    "clean",
];

#[expect(clippy::disallowed_methods, reason = "the test asks make itself")]
fn make(directory: &str, arguments: &[&str]) -> (bool, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(directory);
    let output = Command::new("make")
        .arg("-C")
        .arg(root)
        .args(arguments)
        .output()
        .expect("make is there");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

fn assert_all(directory: &str, targets: &[&str]) {
    let (_, help) = make(directory, &["help"]);
    for target in targets {
        let (found, commands) = make(directory, &["--dry-run", target, "TEST=idle"]);
        assert!(found && !commands.is_empty(), "{target}: {commands}");
        assert!(
            help.contains(&format!("  {target} ")),
            "help explains {target}:\n{help}"
        );
    }
}

#[test]
fn unit_tests_have_the_targets_of_the_founding_documents() {
    assert_all("tests/unit", UNIT);
}

#[test]
fn root_has_the_thin_names() {
    assert_all(".", ROOT);
}

#[test]
fn target_that_does_not_exist_is_refused() {
    assert!(!make("tests/unit", &["--dry-run", "no-such-target"]).0);
}

#[test]
fn test_run_without_a_test_says_what_to_do() {
    assert!(!make("tests/unit", &["test-run", "TEST="]).0);
}
