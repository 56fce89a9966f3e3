//! The binary under the name `curl`, as the container image holds it.

use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use crate::fake::{Answers, Fake};

/// Runs it as a shell in a container would: through a link of that name.
fn curl(arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().expect("a directory");
    let link = directory.path().join("curl");
    symlink(env!("CARGO_BIN_EXE_nagi"), &link).expect("a link");
    Command::new(link)
        .args(arguments)
        .output()
        .expect("it runs")
}

#[track_caller]
fn assert_ends(output: &Output, code: i32, stdout: &str, stderr: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    if stderr.is_empty() {
        assert_eq!(said, "");
    } else {
        assert!(said.contains(stderr), "no {stderr:?} in {said}");
    }
}

// F17, A-051
#[test]
fn binary_called_curl_prints_what_a_url_says() {
    let server = Fake::answering("200 OK", "", "text/plain", "profile");
    let url = format!("http://localhost:{}/debug/pprof/profile", server.port);
    assert_ends(&curl(&[&url]), 0, "profile", "");
    assert_ends(&curl(&["-s", &url]), 0, "profile", "");
    let shown = curl(&["-si", &url]);
    let text = String::from_utf8(shown.stdout).expect("text");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\nprofile"), "{text}");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("out");
    let path = file.to_str().expect("a path");
    assert_ends(&curl(&["-s", "-o", path, &url]), 0, "", "");
    assert_eq!(std::fs::read(&file).expect("the file"), b"profile");
}

// F17, A-051
#[test]
fn curl_fails_with_the_codes_that_scripts_know() {
    let refusing = Fake::answering("404 Not Found", "", "text/plain", "no");
    let url = format!("http://localhost:{}/x", refusing.port);
    assert_ends(&curl(&[&url]), 0, "no", "");
    assert_ends(
        &curl(&["-f", &url]),
        22,
        "",
        "curl: (22) the requested URL returned error: 404",
    );
    assert_ends(&curl(&["-fs", &url]), 22, "", "");
    assert_ends(&curl(&["-fsS", &url]), 22, "", "curl: (22)");
    let silent = Fake::new(Answers::Never);
    let url = format!("http://localhost:{}/x", silent.port);
    assert_ends(&curl(&["-m", "0.05", &url]), 28, "", "curl: (28)");
    let closing = Fake::new(Answers::With(String::new()));
    let url = format!("http://localhost:{}/x", closing.port);
    assert_ends(&curl(&[&url]), 52, "", "curl: (52) empty reply from server");
    assert_ends(
        &curl(&["http://127.0.0.1:1/"]),
        7,
        "",
        "curl: (7) failed to connect",
    );
    assert_ends(&curl(&["https://localhost/"]), 1, "", "only http is");
    assert_ends(
        &curl(&["-k", "http://localhost/"]),
        2,
        "",
        "unexpected argument '-k'",
    );
    assert_ends(
        &curl(&["-d", "@file", "http://localhost/"]),
        2,
        "",
        "is not supported",
    );
}
