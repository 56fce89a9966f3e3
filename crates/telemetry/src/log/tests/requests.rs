//! The line of a request: its fields, level and words.

use std::net::Ipv6Addr;

use super::*;

fn emitted(request: &RequestLine<'_>) -> (String, Value) {
    let (log, captured) = Captured::start(LevelFilter::Info);
    log.emit(request);
    (captured.text(&log), captured.line(&log))
}

/// Every status with every failure.
fn all_outcomes() -> impl Iterator<Item = RequestLine<'static>> {
    const FAILURES: [Option<Failure>; 9] = [
        None,
        Some(Failure::UpstreamConnection),
        Some(Failure::UpstreamTimeout),
        Some(Failure::UpstreamDenied),
        Some(Failure::Storage),
        Some(Failure::Overloaded),
        Some(Failure::ShuttingDown),
        Some(Failure::Waking),
        Some(Failure::WakeFailed),
    ];
    (100..=599).flat_map(|status| {
        FAILURES.map(|failure| RequestLine {
            failure,
            ..request(status)
        })
    })
}

fn has(message: &str, words: &[&str]) -> bool {
    let message = message.to_lowercase();
    words.iter().any(|word| message.contains(word))
}

// W-A22, K-10
#[test]
fn request_line_holds_every_field_with_the_seeds_names_and_types() {
    let line = RequestLine {
        latency: Duration::from_micros(1_234_567),
        key_id: Some("team-a"),
        error: Some("no such deployment"),
        fields: &[
            ("namespace", FieldValue::Text("project-a")),
            ("replicas", FieldValue::Unsigned(3)),
            ("offset", FieldValue::Signed(-1)),
            ("dry_run", FieldValue::Flag(true)),
        ],
        ..request(404)
    };
    let (text, value) = emitted(&line);
    let (head, rest) = text.split_once("\"level\"").unwrap();
    assert!(
        head.starts_with("{\"timestamp\":\"20") && head.ends_with("Z\","),
        "{head}"
    );
    assert_eq!(value["timestamp"], value["time"]);
    assert_eq!(
        rest,
        ":\"warn\",\"message\":\"Not found\",\"method\":\"POST\",\
         \"path\":\"/api/v1/deployments/project-a/sample-app-a/scale-to-zero\",\"status\":404,\
         \"latency\":\"1234.567ms\",\"latency_upstream\":\"0.100ms\",\"remote_ip\":\"127.0.0.1\",\
         \"user_agent\":\"curl/7.88.1\",\"request_id\":\"0123\",\"key_id\":\"team-a\",\
         \"error\":\"no such deployment\",\"namespace\":\"project-a\",\"replicas\":3,\
         \"offset\":-1,\"dry_run\":true}\n"
    );
}

//
#[test]
fn absent_user_agent_is_a_dash_never_null() {
    for user_agent in [None, Some("")] {
        let (text, value) = emitted(&RequestLine {
            user_agent,
            ..request(200)
        });
        assert_eq!(value["user_agent"], "-");
        assert!(!text.contains("null"), "{text}");
    }
}

#[test]
fn ipv4_client_of_a_dual_stack_listener_is_written_as_ipv4() {
    let mapped = "::ffff:192.0.2.7".parse().unwrap();
    assert_eq!(
        emitted(&RequestLine {
            remote_ip: mapped,
            ..request(200)
        })
        .1["remote_ip"],
        "192.0.2.7"
    );
    let six = IpAddr::V6(Ipv6Addr::LOCALHOST);
    assert_eq!(
        emitted(&RequestLine {
            remote_ip: six,
            ..request(200)
        })
        .1["remote_ip"],
        "::1"
    );
}

//
#[test]
fn level_follows_the_status() {
    for line in all_outcomes() {
        let expected = match line.status {
            500..=599 => Level::Error,
            400..=499 => Level::Warn,
            _ => Level::Info,
        };
        assert_eq!(line.level(), expected, "{line:?}");
    }
    for (status, level) in [(399, "info"), (400, "warn"), (499, "warn"), (500, "error")] {
        assert_eq!(emitted(&request(status)).1["level"], level);
    }
}

//
#[test]
fn words_of_refusal_stand_on_every_401_and_403_and_on_no_success() {
    for line in all_outcomes() {
        let message = line.message();
        let refused = has(message, &["forbidden", "unauthorized", "denied"]);
        match line.status {
            401 => assert!(refused && has(message, &["authentication"]), "{line:?}"),
            403 => assert!(refused, "{line:?}"),
            0..=399 => assert!(!refused && !has(message, &["auth"]), "{line:?}"),
            _ => assert!(!has(message, &["unauthorized", "auth"]), "{line:?}"),
        }
    }
    // The names of the fields hold none of the words either.
    let (text, _) = emitted(&request(200));
    assert!(
        !has(&text, &["forbidden", "unauthorized", "denied", "auth"]),
        "{text}"
    );
}

//
#[test]
fn words_of_trouble_upstream_stand_where_it_was_and_on_no_success() {
    let trouble = ["database", "connection", "timeout"];
    for status in [500, 502, 503, 504] {
        for failure in [Failure::UpstreamConnection, Failure::UpstreamTimeout] {
            let line = RequestLine {
                failure: Some(failure),
                ..request(status)
            };
            assert!(has(line.message(), &trouble), "{line:?}");
        }
    }
    assert!(has(request(504).message(), &trouble));
    for line in all_outcomes().filter(|line| line.status < 500 && line.failure.is_none()) {
        assert!(!has(line.message(), &trouble), "{line:?}");
    }
    let storage = RequestLine {
        failure: Some(Failure::Storage),
        ..request(503)
    };
    assert!(!has(storage.message(), &trouble));
    let (text, _) = emitted(&request(200));
    assert!(!has(&text, &trouble), "{text}");
}

// `sort | uniq -c` is of use only with few different messages.
#[test]
fn messages_are_few() {
    let messages: std::collections::BTreeSet<_> =
        all_outcomes().map(|line| line.message()).collect();
    assert!(messages.len() < 40, "{messages:?}");
}

// W-A24: nothing that a client sends makes a line long or breaks it.
#[test]
fn hostile_strings_are_bounded_and_cleaned_and_the_other_fields_survive() {
    let long = "/%\"\\\u{1b}\n".repeat(20_000);
    let line = RequestLine {
        method: &long,
        path: &long,
        user_agent: Some(&long),
        request_id: &long,
        key_id: Some(&long),
        error: Some(&long),
        fields: &[("namespace", FieldValue::Text("project-a"))],
        ..request(400)
    };
    let (text, value) = emitted(&line);
    assert!(text.len() <= LINE_BYTES_MAX, "{}", text.len());
    assert_eq!(text.lines().count(), 1);
    assert_eq!(value["truncated"], true);
    assert_eq!(value["status"], 400);
    assert_eq!(value["remote_ip"], "127.0.0.1");
    assert_eq!(value["latency"], "0.412ms");
    for name in ["method", "path", "user_agent", "request_id", "key_id"] {
        let text = value[name].as_str().unwrap();
        assert!(
            text.starts_with("/%\"\\\u{fffd}") && text.ends_with('…'),
            "{name}: {text}"
        );
        assert!(!text.contains(|c: char| c.is_control()), "{name}: {text}");
    }
}

#[test]
fn threshold_holds_for_request_lines() {
    let written = LevelFilter::ALL.map(|level| {
        let (log, captured) = Captured::start(level);
        for status in [200, 404, 500] {
            log.emit(&request(status));
        }
        captured.lines(&log).len()
    });
    assert_eq!(written, [3, 3, 2, 1, 0]);
}
