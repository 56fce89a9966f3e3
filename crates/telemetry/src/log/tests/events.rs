//! `tracing` events as lines.

use tracing::subscriber::with_default;

use super::*;

fn logged(level: LevelFilter, events: impl FnOnce()) -> Vec<Value> {
    let (log, captured) = Captured::start(level);
    let subscriber = tracing_subscriber::registry().with(log.layer());
    with_default(subscriber, events);
    captured.lines(&log)
}

/// The line without its two times.
fn without_times(line: &Value) -> Value {
    let mut line = line.clone();
    let object = line.as_object_mut().unwrap();
    assert!(object.remove("timestamp").is_some() && object.remove("time").is_some());
    line
}

#[test]
fn event_becomes_a_line_with_its_fields_by_type() {
    let lines = logged(LevelFilter::Info, || {
        tracing::warn!(
            target: "nagi_local",
            workload = "sample-app-a",
            namespace = %"project-a",
            pid = 42_u64,
            offset = -1_i64,
            ratio = 0.5,
            adopted = true,
            state = ?Some("x"),
            "Child exited"
        );
    });
    let expected = serde_json::json!({
        "level": "warn", "message": "Child exited", "workload": "sample-app-a",
        "namespace": "project-a", "pid": 42, "offset": -1, "ratio": 0.5, "adopted": true,
        "state": "Some(\"x\")",
    });
    assert_eq!(without_times(&lines[0]), expected);
}

#[test]
fn absent_values_are_left_out_and_no_value_is_null() {
    let lines = logged(LevelFilter::Info, || {
        let none: Option<u64> = None;
        tracing::info!(target: "nagi", absent = none, ratio = f64::NAN, "Counted");
    });
    let expected = serde_json::json!({"level": "info", "message": "Counted", "ratio": "NaN"});
    assert_eq!(without_times(&lines[0]), expected);
}

#[test]
fn error_value_is_written_with_its_causes() {
    let error = LogError::OpenFile {
        path: "/x".into(),
        source: io::Error::other("disk is gone"),
    };
    let lines = logged(LevelFilter::Info, || {
        let error: &(dyn Error + 'static) = &error;
        tracing::error!(target: "nagi", error, "Journal failed");
    });
    assert_eq!(lines[0]["error"], "cannot open log file /x: disk is gone");
}

// `.status >= 400` is true for every string, so no other line may have a status.
#[test]
fn fields_that_belong_to_request_lines_are_renamed_on_events() {
    let lines = logged(LevelFilter::Info, || {
        tracing::info!(
            target: "nagi", status = "active", latency = "1s", level = "x", time = 1, "Observed"
        );
    });
    let expected = serde_json::json!({
        "level": "info", "message": "Observed", "event_status": "active", "event_latency": "1s",
        "event_level": "x", "event_time": 1,
    });
    assert_eq!(without_times(&lines[0]), expected);
}

#[test]
fn event_carries_the_fields_of_its_spans_and_the_nearest_wins() {
    let lines = logged(LevelFilter::Info, || {
        let outer = tracing::info_span!(
            target: "nagi", "request", request_id = "r1", stage = "outer",
            late = tracing::field::Empty
        );
        let _outer = outer.enter();
        outer.record("late", 7);
        let _inner = tracing::info_span!(target: "nagi", "wake", stage = "scaling").entered();
        tracing::info!(target: "nagi", "Stage reached");
        tracing::info!(target: "nagi", stage = "ready", "Stage reached");
    });
    assert_eq!(lines[0]["request_id"], "r1");
    assert_eq!(lines[0]["late"], 7);
    assert_eq!(lines[0]["stage"], "scaling");
    assert_eq!(lines[1]["stage"], "ready");
}

#[test]
fn debug_adds_lines_and_says_which_module_wrote_them() {
    let events = || {
        tracing::debug!(target: "nagi_core", "Nothing to do");
        tracing::info!(target: "nagi_core", "Workload asleep");
    };
    let lines = logged(LevelFilter::Debug, events);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["level"], "debug");
    assert_eq!(lines[0]["target"], "nagi_core");
    let lines = logged(LevelFilter::Info, events);
    assert_eq!(lines.len(), 1);
    // a module name such as `nagi_server::auth` must not look like a failure.
    assert_eq!(lines[0].get("target"), None);
}

#[test]
fn libraries_are_heard_from_warn_up_and_named() {
    let events = || {
        tracing::info!(target: "hyper::proto", "chatter");
        tracing::warn!(target: "hyper::proto", "trouble");
        tracing::error!(target: "h2", "disaster");
    };
    for (level, count) in [
        (LevelFilter::Debug, 2),
        (LevelFilter::Info, 2),
        (LevelFilter::Warn, 2),
        (LevelFilter::Error, 1),
        (LevelFilter::Fatal, 0),
    ] {
        assert_eq!(logged(level, events).len(), count, "{level}");
    }
    assert_eq!(
        logged(LevelFilter::Info, events)[0]["target"],
        "hyper::proto"
    );
}

#[test]
fn huge_debug_value_is_cut_while_it_is_formatted() {
    struct Endless;
    impl std::fmt::Debug for Endless {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            loop {
                formatter.write_str("日本")?;
            }
        }
    }
    let lines = logged(LevelFilter::Info, || {
        tracing::info!(target: "nagi", value = ?Endless, "Big");
    });
    assert_eq!(lines[0]["truncated"], true);
}

#[test]
fn event_that_logs_while_it_is_formatted_writes_both_lines() {
    struct Chatty(Log);
    impl std::fmt::Display for Chatty {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.emit(&request(200));
            formatter.write_str("chatty")
        }
    }
    let (log, captured) = Captured::start(LevelFilter::Info);
    let subscriber = tracing_subscriber::registry().with(log.layer());
    with_default(
        subscriber,
        || tracing::info!(target: "nagi", who = %Chatty(log.clone()), "Spoke"),
    );
    assert_eq!(captured.lines(&log).len(), 2);
}

//
#[test]
fn event_without_a_message_is_named_by_its_place() {
    let lines = logged(
        LevelFilter::Info,
        || tracing::error!(target: "nagi", code = 1),
    );
    assert!(
        lines[0]["message"].as_str().unwrap().contains("events.rs"),
        "{}",
        lines[0]
    );
}
