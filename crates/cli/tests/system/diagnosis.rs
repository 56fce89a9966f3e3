//! What the founding documents look at when something is wrong: how long a status call takes, and which lines a log level lets through.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http;
use crate::machine::{Machine, Workload};

const WEB: Workload = Workload {
    namespace: "project-a",
    name: "web",
};
const WORKLOADS: &str = "workloads:\n  - { namespace: project-a, name: web, command: [NAGI, sample, web], port: 8080, replicas: 1 }\n";
/// "A response above 5 s indicates a performance problem."
const SLOW: Duration = Duration::from_secs(5);
/// Calls under which the slowest one is looked for, while the workload sleeps and wakes beside them.
const CALLS: usize = 200;

// A-036: no status call comes near the time that the documents call a problem, also not while things change, and the log
// says of each how long it took.
#[test]
fn a_status_call_is_never_slow_and_the_log_tells_how_long_it_took() {
    let mut machine = Machine::new(WORKLOADS);
    machine.start();
    machine.wait_settled(&WEB, 1);
    let mut slowest = Duration::ZERO;
    for call in 0..CALLS {
        match call % 20 {
            5 => drop(machine.call(200, "POST", &WEB.path("scale-to-zero"), r#"{"reason":"r"}"#)),
            15 => drop(machine.try_call("POST", &WEB.path("wake"), "")),
            _ => {}
        }
        let began = Instant::now();
        machine.call(200, "GET", &WEB.path("status"), "");
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < SLOW, "{slowest:?}");
    machine.stop();
    let log = machine.log();
    let latencies: Vec<f64> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["path"] == WEB.path("status"))
        .map(|line| {
            let text = line["latency"].as_str().expect("a latency").to_owned();
            let millis = text.strip_suffix("ms").expect("milliseconds");
            millis.parse().expect("a number")
        })
        .collect();
    assert!(latencies.len() >= CALLS, "{}", latencies.len());
    let most = latencies.iter().copied().fold(0.0, f64::max);
    assert!(most < SLOW.as_secs_f64() * 1_000.0, "{most} ms");
}

// A-042: LOG_LEVEL takes info and debug at least, and filters.
#[test]
fn the_log_level_of_the_environment_lets_through_what_it_says() {
    let levels = |level: &str| {
        let mut machine = Machine::new(WORKLOADS).with_env("LOG_LEVEL", level);
        machine.start();
        machine.wait_settled(&WEB, 1);
        // That a request arrived matters to whoever looks for one, and to nobody else.
        let host = [("Host", "web.project-a.localhost")];
        let answer = http::exchange(machine.gateway, "GET", "/", &host, "");
        assert_eq!(answer.expect("it serves").status, 200);
        machine.call(200, "POST", &WEB.path("scale-to-zero"), r#"{"reason":"r"}"#);
        machine.stop();
        let log = machine.log();
        let count = |level: &str| {
            let lines = log.lines().map(|line| {
                serde_json::from_str::<Value>(line)
                    .unwrap_or_else(|error| panic!("{error}: {line}"))
            });
            lines.filter(|line| line["level"] == level).count()
        };
        ["debug", "info", "error"].map(count)
    };
    let [debug, info, _] = levels("debug");
    assert!(debug > 0 && info > 0, "{debug} debug, {info} info");
    let [debug, info, _] = levels("info");
    assert!(debug == 0 && info > 0, "{debug} debug, {info} info");
    let [debug, info, _] = levels("error");
    assert_eq!((debug, info), (0, 0));
}
