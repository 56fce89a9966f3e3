//! Scheduled wakes of the real binary: on time, once, whatever the host's time zone, and over a death of the process.

use std::time::Duration;

use serde_json::Value;

use crate::machine::{Machine, Workload};
use crate::{processes, wait};

const BATCH: Workload = Workload {
    namespace: "project-a",
    name: "batch",
};
const ONE_BATCH: &str = "\
workloads:
  - { namespace: project-a, name: batch, command: [sleep, '100000'], replicas: 2, stop_grace: 1s }
";
/// A wake may come this late (F06).
const LATE_MAX: Duration = Duration::from_secs(1);

/// A busy machine may take its time to notice; how late the wake itself was is judged by its own time.
const FIRED_MAX: Duration = Duration::from_secs(20);

fn sleep_until(machine: &Machine, at: jiff::Timestamp) {
    let body = format!(r#"{{"reason":"night","scheduled_scale_up":"{at}"}}"#);
    machine.call(200, "POST", &BATCH.path("scale-to-zero"), &body);
}

/// The wall clock in whole milliseconds, which is what answers show.
fn now() -> jiff::Timestamp {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_millisecond(now.as_millisecond()).expect("a time of this age")
}

/// How many scheduled wakes the history knows.
fn fired(machine: &Machine) -> usize {
    let history = machine.call(200, "GET", "/api/v1/history?name=batch&limit=100", "");
    let items = history["items"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .filter(|item| item["action"] == "scheduled-wake")
        .count()
}

fn woken_at(status: &Value) -> jiff::Timestamp {
    let time = status["last_scale_time"].as_str().expect("it was scaled");
    time.parse().expect("RFC 3339")
}

// F06, R07, W-A01: on time, once, and the host's time zone changes nothing.
#[test]
fn a_schedule_fires_on_time_whatever_the_time_zone_of_the_host() {
    for zone in ["UTC", "Asia/Tokyo", "America/St_Johns"] {
        let mut machine = Machine::new(ONE_BATCH).with_env("TZ", zone);
        machine.start();
        machine.wait_settled(&BATCH, 2);
        let at = now() + Duration::from_secs(2);
        sleep_until(&machine, at);
        let woken = wait(FIRED_MAX, || (fired(&machine) > 0).then_some(()));
        assert!(woken.is_some(), "{zone}: never fired\n{}", machine.log());
        let awake = machine.wait_settled(&BATCH, 2);
        let late = woken_at(&awake).duration_since(at);
        assert!(
            !late.is_negative() && late.unsigned_abs() <= LATE_MAX,
            "{zone}: {late} late"
        );
        assert_eq!(fired(&machine), 1, "{zone}");
    }
}

// A-099, F06: what was due while nobody ran fires at the next start, once.
#[test]
fn a_schedule_missed_while_killed_is_caught_up_once() {
    let mut machine = Machine::new(ONE_BATCH);
    machine.start();
    machine.wait_settled(&BATCH, 2);
    let at = now() + Duration::from_secs(3);
    sleep_until(&machine, at);
    machine.kill();
    assert!(
        now() < at,
        "this machine is too slow to kill it before the time"
    );
    let passed = wait(FIRED_MAX, || (now() > at).then_some(()));
    assert!(passed.is_some(), "the clock stands still");
    machine.start();
    machine.wait_settled(&BATCH, 2);
    machine.kill();
    machine.start();
    machine.wait_settled(&BATCH, 2);
    assert_eq!(fired(&machine), 1);
}

// A-165: an orderly end within the grace period; `--on-exit stop` takes the replicas along, the default keeps them.
#[test]
fn an_orderly_end_keeps_or_stops_the_replicas_as_asked() {
    for (flags, left) in [(&["--on-exit", "stop"][..], 0), (&[][..], 2)] {
        let mut machine = Machine::new(ONE_BATCH).with_flags(flags);
        machine.start();
        machine.wait_settled(&BATCH, 2);
        let instance = machine.instance();
        assert_eq!(machine.stop(), (Some(0), None), "{}", machine.log());
        assert_eq!(
            processes::replicas(&instance, BATCH.name).len(),
            left,
            "{flags:?}"
        );
        assert!(machine.log().contains("Shutting down server..."));
    }
}
