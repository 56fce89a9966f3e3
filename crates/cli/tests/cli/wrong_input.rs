//! What is wrong is refused before anything is sent, with the rule, and exit code 2.

use std::net::TcpListener;

use crate::fake::{Answers, Fake};
use crate::run::{call, nagi};

// By convention a variable that is set to nothing is not set …
#[test]
fn a_variable_set_to_nothing_counts_as_not_set() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().display().to_string();
    let mut arguments = vec![
        "all",
        "--workloads",
        "/nonexistent.yaml",
        "--state-dir",
        &state,
    ];
    for listen in ["--listen", "--metrics-listen", "--gateway-listen"] {
        arguments.extend([listen, "127.0.0.1:0"]);
    }
    let mut nothing = call(&arguments);
    for name in [
        "NAGI_ON_EXIT",
        "NAGI_SERVER",
        "NAGI_KEY",
        "LOG_LEVEL",
        "NAGI_RATE_LIMIT",
    ] {
        nothing = nothing.env(name, "");
    }
    // It comes as far as the file, which is not there.
    nothing.run().exits(1).prints("cannot read workload file");
}

// … but for those that protect: left empty by mistake, they must not open a door. K-14
#[test]
fn a_variable_that_protects_may_not_be_set_to_nothing() {
    for name in [
        "API_KEY_FILE",
        "NAGI_KEYS_FILE",
        "NAGI_REQUIRE_AUTH",
        "NAGI_ALLOWED_NAMESPACES",
    ] {
        nagi("server").env(name, "").run().exits(2).prints(name);
    }
}

// a server's last words are a line of its log.
#[test]
fn a_variable_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStrExt as _;
    let no_text = std::ffi::OsStr::from_bytes(b"k\xff");
    for arguments in ["all --workloads a.yaml", "server", ""] {
        let mut command = nagi(arguments).command();
        command.env("API_KEY", no_text);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}: {output:?}");
        let line = String::from_utf8(output.stdout).unwrap();
        let line: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
        let error = line["error"].as_str().unwrap();
        assert!(
            error.contains("API_KEY is not UTF-8"),
            "{arguments}: {error}"
        );
    }
    let mut command = nagi("demo").command();
    command.env("API_KEY", no_text);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("API_KEY is not UTF-8"), "{said}");
    let mut command = nagi("list").command();
    command.env("NAGI_KEY", no_text);
    let output = command.output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("NAGI_KEY is not UTF-8"), "{words}");
    assert!(output.stdout.is_empty());
}

#[test]
fn help_that_finds_no_room_is_no_success() {
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    for arguments in ["--help", "list --help", "version", "config schema"] {
        let mut command = nagi(arguments).command();
        let status = command
            .stdout(full())
            .stderr(std::process::Stdio::null())
            .status();
        assert_eq!(status.unwrap().code(), Some(1), "{arguments}");
    }
}

// Every one of these must not reach the server.
#[test]
fn wrong_command_lines_are_refused_before_anything_is_sent() {
    let fake = Fake::new(Answers::Never);
    for (arguments, rule) in [
        ("lsit", "similar"),
        ("status", "<NAME>"),
        ("wake", "<NAME>"),
        ("wake web extra", "unexpected argument"),
        ("wake web --replicas many", "invalid value"),
        ("wake web --replicas -1", "-1"),
        ("wake UPPER", "DNS subdomain"),
        ("wake a/b/c/d", "NAMESPACE/NAME"),
        ("status a/b/c", "no kind \"a\""),
        ("status deployment/b/c", "did you mean deployments?"),
        ("wake web -n UPPER", "DNS label"),
        (
            "wake project-a/web -n project-b",
            "--namespace says project-b",
        ),
        ("wake web --timeout 5s", "--wait"),
        ("wake web --wait --timeout soon", "span of time"),
        ("wake web --wait --timeout 0s", "span of time"),
        ("sleep web --wake-at tomorrow", "RFC 3339"),
        ("sleep web --wake-at 2030-01-31T07:00:00", "no zone"),
        ("sleep web --wake-at 2030-02-30T07:00:00Z", "does not exist"),
        ("sleep web --at +forever", "RFC 3339"),
        ("scale web", "<COUNT>"),
        ("scale web 0", "sleep"),
        ("scale web x", "a whole number"),
        ("scale web -1", "a whole number"),
        ("scale web --replicas 0", "sleep"),
        ("scale web --replicas x", "a whole number"),
        ("scale web 1 --replicas 2", "cannot be used"),
        (
            "list --status asleep",
            "active, inactive, scaling or unknown",
        ),
        ("list --limit 0", "1..=500"),
        ("list --limit 501", "1..=500"),
        ("list --scheduled --label a", "cannot be used with"),
        ("list --output xml", "json"),
        ("list -n ..", "DNS label"),
        ("history --since yesterday", "RFC 3339"),
        ("history --limit 501", "1..=500"),
        ("history a/b -n c", "--namespace says c"),
        ("events --type sleep", "scale, status, wake or schedule"),
        ("events a/b -n c", "--namespace says c"),
        ("logs web --tail 10001", "0 to 10000"),
        ("logs web --tail -1", "-1"),
        ("completions basic", "bash"),
        ("config", "check"),
        ("key", "create"),
    ] {
        nagi(arguments)
            .at(fake.port)
            .run()
            .exits(2)
            .says(rule)
            .prints_nothing();
    }
    assert_eq!(fake.requests(), 0, "something was sent");
}

#[test]
fn wrong_addresses_and_keys_are_refused_with_the_name_of_the_setting() {
    for server in ["", "localhost:8080", "https://", "ftp://a", "http://a/?b=c"] {
        call(&["list", "--server", server])
            .run()
            .exits(2)
            .says("--server (NAGI_SERVER)");
    }
    for key in ["two words", "zeile\n", "凪"] {
        // A key with a line end at its end is one from a file; only inside it is wrong.
        let code = if key.trim() == "zeile" { 6 } else { 2 };
        let ran = nagi("list").env("NAGI_KEY", key).at(closed_port()).run();
        let ran = ran.exits(code);
        if code == 2 {
            ran.says("--key (NAGI_KEY)");
        }
    }
}

#[test]
fn an_empty_key_is_no_key() {
    nagi("list")
        .env("NAGI_KEY", "")
        .at(closed_port())
        .run()
        .exits(6);
}

#[test]
fn a_server_that_is_not_there_is_told_with_the_next_step() {
    nagi("list")
        .at(closed_port())
        .run()
        .exits(6)
        .prints_nothing()
        .says("error: cannot connect to http://127.0.0.1:")
        .says("hint: is nagi running? 'nagi all' starts it")
        .says("--server or NAGI_SERVER");
}

//
#[test]
fn the_server_of_a_cluster_checks_its_settings_first() {
    for (name, value) in [("PORT", "http"), ("LOG_LEVEL", "verbose")] {
        let ran = nagi("").env(name, value).run().exits(2);
        let error = ran.json()["error"].to_string();
        assert!(error.contains(name) && error.contains(value), "{error}");
    }
}

#[test]
fn help_names_every_exit_code() {
    let ran = nagi("--help").run().exits(0);
    for code in 0..=10 {
        assert!(
            ran.stdout.contains(&format!("\n  {code:>2}  ")),
            "{code}: {}",
            ran.stdout
        );
    }
}

/// A port on which nobody listens: it was free a moment ago.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
