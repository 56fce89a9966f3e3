//! The log commands of the founding documents, word for word (`tests/seeds`), with real `jq`, `grep`, `sed`, `awk`,
//! `sort` and `uniq`. Only `kubectl` is a stand-in: it prints the captured lines.

use std::net::Ipv6Addr;
use std::process::{Command, Stdio};

use super::*;

/// Runs the command at a line of a document in a shell where `kubectl` prints the log; standard output and error.
#[expect(
    clippy::disallowed_methods,
    reason = "runs the founding documents' shell commands"
)]
fn run(log_file: &std::path::Path, (document, line): (&str, usize)) -> (String, String) {
    let pipeline = nagi_seeds::command(document, line).filled();
    let script = format!("set -o pipefail\nkubectl() {{ cat \"$CAPTURED\"; }}\n{pipeline}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .env("CAPTURED", log_file)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

/// Runs a command that must not complain, and print nothing that is `null`.
fn stdout(day: &Day, place: (&str, usize)) -> String {
    let (stdout, stderr) = run(&day.path, place);
    assert_eq!(stderr, "", "{place:?}");
    assert!(!stdout.contains("null"), "{place:?}\n{stdout}");
    stdout
}

/// A day of requests, events, one panic-like line and one fatal line, as one log file.
struct Day {
    _directory: tempfile::TempDir,
    path: PathBuf,
    log: Log,
}

/// What is sent in that day: requests whose outcome, client and latency differ.
fn requests() -> Vec<RequestLine<'static>> {
    let slow = |millis| Duration::from_millis(millis);
    let status = RequestLine {
        method: "GET",
        path: "/api/v1/deployments/project-b/sample-app-b/status",
        ..request(200)
    };
    vec![
        // The three latencies of the founding experiment: 45 ms, 1.2 s, 350.5 µs.
        RequestLine {
            latency: slow(45),
            ..request(200)
        },
        RequestLine {
            latency: slow(1200),
            ..request(200)
        },
        RequestLine {
            latency: Duration::from_nanos(350_500),
            ..status
        },
        RequestLine {
            latency: slow(3),
            user_agent: None,
            ..request(401)
        },
        RequestLine {
            latency: slow(4),
            remote_ip: IpAddr::V6(Ipv6Addr::LOCALHOST),
            user_agent: Some("scan \"bot\" 1.0"),
            ..request(401)
        },
        RequestLine {
            latency: slow(5),
            key_id: Some("team-b"),
            ..request(403)
        },
        RequestLine {
            latency: slow(6),
            path: "/api/v1/nowhere",
            method: "GET",
            ..request(404)
        },
        RequestLine {
            latency: slow(7),
            ..request(500)
        },
        RequestLine {
            latency: slow(8),
            ..request(500)
        },
        RequestLine {
            latency: slow(1500),
            latency_upstream: slow(1499),
            failure: Some(Failure::UpstreamTimeout),
            ..request(504)
        },
        RequestLine {
            latency: slow(9),
            failure: Some(Failure::UpstreamConnection),
            error: Some("cannot read deployment: tcp connect error"),
            ..request(503)
        },
    ]
}

impl Day {
    fn write() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("captured");
        let log = Log::start(LevelFilter::Info, Sink::File(path.clone())).unwrap();
        let subscriber = tracing_subscriber::registry().with(log.layer());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "nagi_server", listen = "0.0.0.0:8080", "Listening");
            for request in requests() {
                log.emit(&request);
            }
            tracing::warn!(target: "nagi_local", status = "crashed", pid = 7, "Child exited");
            tracing::error!(target: "nagi_local", error = "no space left", "Journal failed");
        });
        log.fatal("Start failed", &std::fmt::Error);
        assert!(log.flush(PATIENCE));
        Self {
            _directory: directory,
            path,
            log,
        }
    }
}

// 000 L275, 001 L102 and L250. Every line parses.
#[test]
fn every_line_is_json() {
    let day = Day::write();
    let shown = stdout(&day, ("001", 102));
    let written = std::fs::read_to_string(&day.path).unwrap();
    let lines: Vec<Value> = written
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let parsed: Vec<Value> = serde_json::Deserializer::from_str(&shown)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(parsed, lines);
    for (value, line) in lines.iter().zip(written.lines()) {
        assert_eq!(value.to_string(), line, "compact");
    }
    // `jq '.latency'` prints null for lines that are no requests; that one is the document's own.
    for place in [("000", 275), ("001", 250)] {
        let (text, errors) = run(&day.path, place);
        assert_eq!(
            (text.matches("ms\"").count(), errors.as_str()),
            (requests().len(), "")
        );
    }
    assert_eq!(day.log.lines_dropped().get(), 0);
}

// 000 L344-346.
#[test]
fn error_messages_are_counted() {
    let counted = stdout(&Day::write(), ("000", 344));
    assert_eq!(
        counted,
        "      2 Internal error\n      1 Upstream timeout\n      1 Upstream connection failed\n      \
         1 Start failed\n      1 Journal failed\n"
    );
}

// 000 L349-351.
#[test]
fn errors_are_counted_by_status_and_path() {
    let counted = stdout(&Day::write(), ("000", 349));
    let path = "/api/v1/deployments/project-a/sample-app-a/scale-to-zero";
    assert_eq!(
        counted,
        format!(
            "      2 500 {path}\n      2 401 {path}\n      1 504 {path}\n      1 503 {path}\n      \
             1 404 /api/v1/nowhere\n      1 403 {path}\n"
        )
    );
}

// A-048, W-A23: 000 L354-356. The average is the true mean.
#[test]
fn average_latency_is_the_true_mean_in_milliseconds() {
    let printed = stdout(&Day::write(), ("000", 354));
    let requests = requests();
    let total: Duration = requests.iter().map(|request| request.latency).sum();
    let mean = total.as_secs_f64() * 1000.0 / f64::from(u32::try_from(requests.len()).unwrap());
    let number = printed
        .strip_prefix("Average: ")
        .unwrap()
        .strip_suffix("ms\n")
        .unwrap();
    let difference = (number.parse::<f64>().unwrap() - mean).abs();
    // `awk` prints six significant digits.
    assert!(difference < 0.001, "{printed} against {mean}");
}

// 000 L362-363, through pipes.
#[test]
fn live_view_shows_errors_and_refusals() {
    let shown = stdout(&Day::write(), ("000", 362));
    let refused = requests()
        .iter()
        .filter(|request| request.status >= 400)
        .count();
    // Two error lines are no requests: the journal and the fatal one.
    assert_eq!(shown.matches("\"message\"").count(), refused + 2);
    assert!(
        !shown.contains("Child exited"),
        "a workload's status is no HTTP status"
    );
}

// 000 L386-387.
#[test]
fn trouble_upstream_is_found() {
    let found = stdout(&Day::write(), ("000", 386));
    let statuses: Vec<_> = found
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["status"].clone())
        .collect();
    assert_eq!(statuses, [504, 503]);
}

// 000 L395-397.
#[test]
fn strange_clients_are_counted() {
    let counted = stdout(&Day::write(), ("000", 395));
    let path = "/api/v1/deployments/project-a/sample-app-a/scale-to-zero";
    assert_eq!(
        counted,
        format!(
            "      5 127.0.0.1 curl/7.88.1 {path}\n      1 ::1 scan \"bot\" 1.0 {path}\n      \
             1 127.0.0.1 curl/7.88.1 /api/v1/nowhere\n      1 127.0.0.1 - {path}\n"
        )
    );
}

// 000 L400-402.
#[test]
fn failed_authentications_are_listed() {
    let listed = stdout(&Day::write(), ("000", 400));
    let rows: Vec<Vec<_>> = listed
        .lines()
        .map(|line| line.split(' ').collect())
        .collect();
    let clients: Vec<_> = rows.iter().map(|row| row[1]).collect();
    assert_eq!(clients, ["127.0.0.1", "::1"]);
    for row in rows {
        let time: Timestamp = row[0].parse().unwrap();
        assert_eq!(row[0], format!("{time:.3}"), "RFC 3339, UTC, milliseconds");
    }
}

// 000 L405-406.
#[test]
fn refusals_are_found_and_successes_are_not() {
    let found = stdout(&Day::write(), ("000", 405));
    let statuses: Vec<_> = found
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["status"].clone())
        .collect();
    assert_eq!(statuses, [401, 401, 403]);
}

// 000 L244.
#[test]
fn authentication_failures_are_found_by_auth() {
    let found = stdout(&Day::write(), ("000", 244));
    assert_eq!(found.lines().count(), 2);
    assert_eq!(found.matches("\"status\":401").count(), 2);
}

// 000 L284-285. One request is one line, and the line holds the day.
#[test]
fn requests_of_the_day_are_counted() {
    let day = Day::write();
    let counted = stdout(&day, ("000", 284));
    let all = std::fs::read_to_string(&day.path).unwrap();
    assert_eq!(all.matches("\"request_id\"").count(), requests().len());
    // Midnight may pass between the writing and `date`; then yesterday's lines are not counted.
    let counted: usize = counted.trim().parse().unwrap();
    assert!(counted == all.lines().count() || counted == 0, "{counted}");
}

// 000 L167 and 001 L108.
#[test]
fn scale_requests_are_found_by_their_path() {
    let day = Day::write();
    let expected = requests()
        .iter()
        .filter(|line| line.path.contains("scale-to-zero"))
        .count();
    for place in [("000", 167), ("001", 108)] {
        assert_eq!(stdout(&day, place).lines().count(), expected);
    }
}

// 001 L105, byte for byte.
#[test]
fn errors_are_found_by_their_bytes() {
    let found = stdout(&Day::write(), ("001", 105));
    assert_eq!(found.lines().count(), 6);
}

// 001 L389-390.
#[test]
fn scale_history_is_found_by_the_bytes_of_the_path() {
    let found = stdout(&Day::write(), ("001", 389));
    let expected = requests()
        .iter()
        .filter(|line| line.path.contains("/deployments/"))
        .count();
    assert_eq!(found.lines().count(), 2 * expected);
}
