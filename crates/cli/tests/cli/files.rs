//! Commands that need no server: files, pages, scripts.

use crate::run::{call, nagi};

const GOOD: &str = "workloads:\n  - { namespace: team, name: notes, command: [sleep, \"9\"] }\n";
const BAD: &str = "\
workloads:
  - namespace: Team
    name: notes
    command: []
    pool: missing
";

fn write(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file.yaml");
    std::fs::write(&path, text).unwrap();
    let name = path.display().to_string();
    (directory, name)
}

#[test]
fn a_bad_workload_file_is_told_with_line_column_and_field() {
    let (_directory, path) = write(BAD);
    let ran = call(&["config", "check", &path])
        .run()
        .exits(5)
        .prints_nothing();
    let ran = ran
        .says(&format!("{path}:2:16: workloads[0].namespace: "))
        .says(&format!("{path}:4:14: workloads[0].command"))
        .says("is not valid: ")
        .says("hint: ");
    assert!(ran.stderr.lines().count() >= 5, "all problems: {ran:?}");
    let json = call(&["config", "check", &path, "--output", "json"])
        .run()
        .exits(5)
        .json();
    assert_eq!(json["valid"], false);
    assert_eq!(json["problems"][0]["line"], 2);
    assert_eq!(json["problems"][0]["field"], "workloads[0].namespace");
}

#[test]
fn a_workload_file_that_cannot_be_read_is_another_failure() {
    nagi("config check /nonexistent/file.yaml")
        .run()
        .exits(1)
        .says("cannot read")
        .says("cause: ");
}

#[test]
fn a_good_workload_file_is_valid() {
    let (_directory, path) = write(GOOD);
    call(&["config", "check", &path])
        .run()
        .exits(0)
        .prints("valid, 1 workload on 1 pool");
}

// DESIGN §5: what no request can wake is allowed, and told to the author.
#[test]
fn a_workload_that_nothing_can_wake_is_valid_with_a_warning() {
    let asleep = GOOD.replace(" }", ", replicas: 0 }");
    let (_directory, path) = write(&asleep);
    call(&["config", "check", &path])
        .run()
        .exits(0)
        .prints("valid, 1 workload on 1 pool")
        .says(&format!("{path}:2:70: warning: workloads[0].replicas: "))
        .says("neither a request nor a schedule nor `nagi wake` wakes it")
        .says("add `awake_replicas: 1`");
    let json = call(&["config", "check", &path, "--output", "json"])
        .run()
        .exits(0)
        .json();
    assert_eq!(json["valid"], true);
    assert_eq!(json["warnings"][0]["field"], "workloads[0].replicas");
}

#[test]
fn the_schema_accepts_what_the_check_accepts() {
    let schema = nagi("config schema").run().exits(0).json();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let good = serde_json::json!({
        "workloads": [{"namespace": "team", "name": "notes", "command": ["sleep", "9"]}]
    });
    assert!(validator.is_valid(&good));
    assert!(!validator.is_valid(&serde_json::json!({"workloads": [{"name": "notes"}]})));
}

#[test]
fn the_version_is_that_of_the_package() {
    nagi("version")
        .run()
        .exits(0)
        .prints(env!("CARGO_PKG_VERSION"));
    let json = nagi("version --output json").run().exits(0).json();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn completions_know_the_commands_of_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = nagi(&format!("completions {shell}")).run().exits(0);
        assert!(
            ran.stdout.contains("scale") && ran.stdout.contains("wake-at"),
            "{shell}"
        );
    }
}

// A shell must be able to read what it is given.
#[test]
fn bash_reads_its_completions() {
    let script = nagi("completions bash").run().exits(0).stdout;
    let (_directory, path) = write(&script);
    let status = std::process::Command::new("bash")
        .args(["-n", &path])
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn manual_pages_are_printed_or_written_for_each_command() {
    nagi("man").run().exits(0).prints(".TH nagi 1");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("man1");
    call(&["man", path.to_str().unwrap()])
        .run()
        .exits(0)
        .prints_nothing();
    let mut names: Vec<String> = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in [
        "nagi.1",
        "nagi-wake.1",
        "nagi-key-create.1",
        "nagi-config-check.1",
    ] {
        assert!(
            names.iter().any(|other| other == name),
            "{name} in {names:?}"
        );
    }
    assert!(
        !names.iter().any(|name| name.contains("generate")),
        "{names:?}"
    );
    nagi("man /proc/nagi")
        .run()
        .exits(1)
        .says("hint: choose a directory");
}

#[test]
fn generated_documents_are_whole() {
    let openapi = nagi("generate openapi").run().exits(0).json();
    assert_eq!(openapi["openapi"].as_str().unwrap().get(..3), Some("3.1"));
    for page in ["cli", "config", "api", "metrics"] {
        let ran = nagi(&format!("generate {page}")).run().exits(0);
        assert!(ran.stdout.starts_with("# "), "{page}: {}", ran.stdout);
    }
}
