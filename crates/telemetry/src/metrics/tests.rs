//! The metrics as Prometheus reads them.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn metrics() -> Metrics {
    Metrics::new("1.2.3", LinesDropped::default())
}

/// One of everything.
fn filled() -> Metrics {
    let metrics = metrics();
    metrics.http_request("GET", "/health", 200, Duration::from_micros(400));
    metrics.scale_operation("scale-up", "changed");
    metrics.wake("request", "ready");
    metrics.wake_stage("scaling", Duration::from_millis(3));
    metrics.set_workloads("active", 3);
    metrics.set_workloads_observed(Duration::from_millis(1_500));
    metrics.set_scheduled_scale_ups(2);
    metrics.set_authentication(Authentication::Disabled);
    metrics.queue("events").set(4);
    metrics.gateway_request("served");
    metrics
}

/// Every sample's value by its name with labels, as text: these are exact.
fn samples(metrics: &Metrics) -> BTreeMap<String, String> {
    let text = metrics.encode().unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| line.rsplit_once(' ').unwrap());
    pairs
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

// R22
#[test]
fn every_family_has_the_stated_name_type_and_labels() {
    let text = filled().encode().unwrap();
    let mut kinds: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [
            "nagi_auth_disabled gauge",
            "nagi_build_info gauge",
            "nagi_gateway_held_requests gauge",
            "nagi_gateway_in_flight_requests gauge",
            "nagi_gateway_requests_total counter",
            "nagi_http_request_duration_seconds histogram",
            "nagi_http_requests_total counter",
            "nagi_log_lines_dropped_total counter",
            "nagi_queue_depth gauge",
            "nagi_scale_operations_total counter",
            "nagi_scheduled_scale_ups gauge",
            "nagi_wake_stage_seconds histogram",
            "nagi_wakes_total counter",
            "nagi_workloads gauge",
            "nagi_workloads_observed_timestamp_seconds gauge",
            "process_cpu_seconds_total counter",
            "process_open_fds gauge",
            "process_resident_memory_bytes gauge",
            "process_start_time_seconds gauge",
            "process_threads gauge",
        ]
    );
    for line in [
        "nagi_auth_disabled 1",
        "nagi_build_info{version=\"1.2.3\"} 1",
        "nagi_gateway_requests_total{result=\"served\"} 1",
        "nagi_http_request_duration_seconds_bucket{le=\"0.0005\",route=\"/health\"} 1",
        "nagi_http_request_duration_seconds_count{route=\"/health\"} 1",
        "nagi_http_requests_total{method=\"GET\",route=\"/health\",status=\"200\"} 1",
        "nagi_log_lines_dropped_total 0",
        "nagi_queue_depth{queue=\"events\"} 4",
        "nagi_scale_operations_total{action=\"scale-up\",result=\"changed\"} 1",
        "nagi_scheduled_scale_ups 2",
        "nagi_wake_stage_seconds_bucket{le=\"0.005\",stage=\"scaling\"} 1",
        "nagi_wakes_total{trigger=\"request\",result=\"ready\"} 1",
        "nagi_workloads{status=\"active\"} 3",
        "nagi_workloads_observed_timestamp_seconds 1.5",
    ] {
        assert!(
            text.lines().any(|seen| seen == line),
            "{line} is not in\n{text}"
        );
    }
}

// what `promtool check metrics` asks for, as far as it can be said in a few lines.
#[test]
fn every_sample_belongs_to_a_family_with_help_and_type() {
    let text = filled().encode().unwrap();
    let headed = |prefix: &str| -> BTreeSet<_> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
        lines
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    };
    let (helps, types) = (headed("# HELP "), headed("# TYPE "));
    assert_eq!(helps, types);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        assert!(types.contains(family), "{line}");
    }
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
}

// the real thing, where it is installed (Debian package `prometheus`).
#[test]
fn promtool_has_no_complaint() {
    for metrics in [filled(), metrics()] {
        let text = metrics.encode().unwrap();
        assert_eq!(promtool(&text).as_deref().unwrap_or_default(), "", "{text}");
    }
    // The check can fail: without its help line a counter is complained about.
    let lame = "# TYPE nagi_wakes counter\nnagi_wakes_total 1\n";
    assert!(promtool(lame).is_none_or(|complaints| complaints.contains("nagi_wakes_total")));
}

/// What `promtool check metrics` says about `text`; `None` where it is not installed.
#[expect(
    clippy::disallowed_methods,
    reason = "runs promtool on the rendered text"
)]
fn promtool(text: &str) -> Option<String> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("promtool is not installed: only our own checks ran");
            return None;
        }
        Err(error) => panic!("cannot start promtool: {error}"),
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let complaints = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() || !complaints.is_empty());
    Some(complaints)
}

// R22: the number of series does not grow with what clients send.
#[test]
fn invented_methods_are_one_series() {
    let metrics = metrics();
    let before = samples(&metrics).len();
    for number in 0..1000 {
        metrics.http_request(&format!("M{number}"), "unknown", 405, Duration::ZERO);
    }
    metrics.http_request("get", "unknown", 405, Duration::ZERO);
    let after = samples(&metrics);
    let other = "nagi_http_requests_total{method=\"other\",route=\"unknown\",status=\"405\"}";
    assert_eq!(after[other], "1001");
    let counters = 1;
    let histogram = HTTP_SECONDS.len() + 3;
    assert_eq!(after.len() - before, counters + histogram);
}

#[test]
fn known_methods_keep_their_name() {
    for method in MethodLabel::KNOWN {
        assert_eq!(MethodLabel::from(method), MethodLabel(method));
    }
    assert_eq!(MethodLabel::from("get"), MethodLabel::OTHER);
}

#[test]
fn guards_bring_down_what_they_counted_up() {
    let metrics = metrics();
    let (held, flight, queued) = (
        metrics.gateway_held(),
        (metrics.gateway_in_flight(), metrics.gateway_in_flight()),
        metrics.queue("wakes").enter(),
    );
    let up = samples(&metrics);
    assert_eq!(up["nagi_gateway_held_requests"], "1");
    assert_eq!(up["nagi_gateway_in_flight_requests"], "2");
    assert_eq!(up["nagi_queue_depth{queue=\"wakes\"}"], "1");
    drop((held, flight, queued));
    let down = samples(&metrics);
    assert_eq!(down["nagi_gateway_held_requests"], "0");
    assert_eq!(down["nagi_gateway_in_flight_requests"], "0");
    assert_eq!(down["nagi_queue_depth{queue=\"wakes\"}"], "0");
}

#[test]
fn clones_count_into_the_same_families_and_lost_lines_are_those_of_the_log() {
    let dropped = LinesDropped::default();
    let metrics = Metrics::new("1", dropped.clone());
    dropped.inc_by(7);
    metrics.clone().wake("call", "ready");
    metrics.set_authentication(Authentication::Disabled);
    metrics.set_authentication(Authentication::Enabled);
    let samples = samples(&metrics);
    assert_eq!(samples["nagi_log_lines_dropped_total"], "7");
    assert_eq!(
        samples["nagi_wakes_total{trigger=\"call\",result=\"ready\"}"],
        "1"
    );
    assert_eq!(samples["nagi_auth_disabled"], "0");
}

#[test]
fn process_metrics_are_those_of_this_process() {
    let metrics = metrics();
    let value = |name: &str| -> f64 { samples(&metrics)[name].parse().unwrap() };
    let before = value("process_cpu_seconds_total");
    // Reading it costs CPU time, so this ends.
    while value("process_cpu_seconds_total") < before + 0.01 {}
    assert!(value("process_resident_memory_bytes") > 1_000_000.0);
    assert!(value("process_threads") >= 1.0);
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_start_time_seconds") > 1.7e9);
}
