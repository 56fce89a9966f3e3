//! Colours and pipes: who sees what.

use std::process::{Command, Stdio};

use crate::run::call;
use crate::server::Server;

/// Runs `nagi` on a terminal of its own and gives what stood there.
fn on_terminal(server: &Server, arguments: &str, environment: &[(&str, &str)]) -> String {
    let binary = env!("CARGO_BIN_EXE_nagi");
    // util-linux, essential in Debian: gives a child a pseudo terminal.
    let output = Command::new("script")
        .args([
            "--quiet",
            "--return",
            "--command",
            &format!("{binary} {arguments}"),
            "/dev/null",
        ])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TERM", "xterm")
        .env("NAGI_SERVER", format!("http://127.0.0.1:{}", server.port))
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("script starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn colours_are_for_terminals_only_and_can_be_switched_off() {
    let server = Server::of_two_projects();
    assert!(on_terminal(&server, "list", &[]).contains("\u{1b}["));
    assert!(
        on_terminal(&server, "list", &[("NO_COLOR", "")]).contains("\u{1b}["),
        "empty is unset"
    );
    for (arguments, environment) in [
        ("list", vec![("NO_COLOR", "1")]),
        ("list", vec![("TERM", "dumb")]),
        ("list --no-color", vec![]),
        ("list --output json", vec![]),
    ] {
        let seen = on_terminal(&server, arguments, &environment);
        assert!(
            !seen.contains('\u{1b}'),
            "{arguments} {environment:?}: {seen:?}"
        );
        assert!(seen.contains("sample-app-a"), "{seen:?}");
    }
    for arguments in [
        "list",
        "status sample-app-a",
        "history",
        "pools",
        "key list --file /nonexistent",
    ] {
        let ran = server.nagi(arguments).run();
        assert!(
            !ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'),
            "{ran:?}"
        );
    }
}

#[test]
fn on_a_terminal_the_current_stage_is_drawn_over_and_gone_at_the_end() {
    let server = Server::of_two_projects();
    let seen = on_terminal(&server, "wake sample-app-b --wait", &[]);
    assert!(seen.contains("\r\u{1b}[K"), "{seen:?}");
    let last = seen.trim_end().rsplit('\u{1b}').next().unwrap_or_default();
    assert!(last.contains("awake after"), "{seen:?}");
}

#[test]
fn a_reader_that_has_enough_ends_the_command_quietly() {
    let server = Server::of_two_projects();
    let at = format!("http://127.0.0.1:{}", server.port);
    for arguments in [
        vec!["list", "--server", &at],
        vec!["list", "--server", &at, "--output", "json", "--watch"],
        vec!["generate", "api"],
        vec!["completions", "bash"],
        vec!["man"],
    ] {
        let mut command = call(&arguments).command();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        assert_eq!(errors, "", "{arguments:?}");
    }
}
