//! The operations of the kill table: how each begins, what it does, what may be found after a kill.

use std::time::Duration;

use serde_json::Value;

use crate::http;
use crate::machine::{Machine, Workload};
use crate::tracer::{Plan, Tracer};
use crate::wait;

/// A workload without a port for most, one behind the gateway, one that sleeps by itself.
pub(super) const WORKLOADS: &str = "\
workloads:
  - { namespace: project-a, name: batch, command: [sleep, '100000'], replicas: 2, stop_grace: 1s }
  - { namespace: project-a, name: web, command: [NAGI, sample, web], port: 8080, replicas: 0, awake_replicas: 2, stop_grace: 1s }
  - { namespace: project-a, name: idle, command: [NAGI, sample, web], port: 8080, replicas: 0, awake_replicas: 2, idle_after: 1s,
      stop_grace: 1s }
  - { namespace: project-a, name: other, command: [sleep, '100000'], replicas: 0, awake_replicas: 1 }
";

const BATCH: Workload = Workload {
    namespace: "project-a",
    name: "batch",
};
const WEB: Workload = Workload {
    namespace: "project-a",
    name: "web",
};
const OTHER: Workload = Workload {
    namespace: "project-a",
    name: "other",
};
const IDLE: Workload = Workload {
    namespace: "project-a",
    name: "idle",
};

/// An operation changes the wanted count from `from` to `to`.
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) workload: Workload,
    from: u64,
    to: u64,
    /// What a sleeping workload must remember all the time.
    pub(super) remembered: u64,
    /// A wake that is pending when it begins.
    scheduled: bool,
    action: Action,
}

/// What happens.
enum Action {
    /// A call of the API.
    Call {
        method: &'static str,
        verb: &'static str,
        body: &'static str,
    },
    /// A sleep with a wake far ahead.
    SleepWithSchedule,
    /// A request through the gateway.
    Request,
    /// Nothing, until it is idle.
    Idle,
    /// A scheduled wake whose time comes.
    ScheduleComes,
    /// Nagi itself starts; the replicas still run.
    Start,
    /// Nagi itself starts; the replicas are dead.
    StartAnew,
}

/// All of them. The count to restore is none that the workload file knows: one that came from there would be seen.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "sleep",
        workload: BATCH,
        from: 3,
        to: 0,
        remembered: 3,
        scheduled: false,
        action: Action::Call {
            method: "POST",
            verb: "scale-to-zero",
            body: r#"{"reason":"kill table"}"#,
        },
    },
    Operation {
        name: "sleep with schedule",
        workload: BATCH,
        from: 3,
        to: 0,
        remembered: 3,
        scheduled: false,
        action: Action::SleepWithSchedule,
    },
    Operation {
        name: "wake by call",
        workload: BATCH,
        from: 0,
        to: 3,
        remembered: 3,
        scheduled: false,
        action: Action::Call {
            method: "POST",
            verb: "wake",
            body: "",
        },
    },
    Operation {
        name: "scale up",
        workload: BATCH,
        from: 3,
        to: 4,
        remembered: 3,
        scheduled: false,
        action: Action::Call {
            method: "POST",
            verb: "scale-up",
            body: r#"{"replicas":4,"reason":"kill table"}"#,
        },
    },
    Operation {
        name: "wake by request",
        workload: WEB,
        from: 0,
        to: 3,
        remembered: 3,
        scheduled: false,
        action: Action::Request,
    },
    Operation {
        name: "cancel a schedule",
        workload: BATCH,
        from: 0,
        to: 0,
        remembered: 3,
        scheduled: true,
        action: Action::Call {
            method: "DELETE",
            verb: "scheduled-scale-up",
            body: "",
        },
    },
    Operation {
        name: "a schedule fires",
        workload: BATCH,
        from: 0,
        to: 3,
        remembered: 3,
        scheduled: false,
        action: Action::ScheduleComes,
    },
    Operation {
        name: "idle sleep",
        workload: IDLE,
        from: 3,
        to: 0,
        remembered: 3,
        scheduled: false,
        action: Action::Idle,
    },
    Operation {
        name: "start, replicas alive",
        workload: BATCH,
        from: 3,
        to: 3,
        remembered: 3,
        scheduled: false,
        action: Action::Start,
    },
    Operation {
        name: "start, replicas dead",
        workload: BATCH,
        from: 3,
        to: 3,
        remembered: 3,
        scheduled: false,
        action: Action::StartAnew,
    },
];

/// Far enough ahead that no run sees it come.
const FAR: Duration = Duration::from_hours(1);
/// Near enough to wait for, far enough to be observed from before it comes.
const NEAR: Duration = Duration::from_millis(900);
/// One second of idleness and the processes' ends.
const ASLEEP_MAX: Duration = Duration::from_secs(20);

// === impl Operation ===

impl Operation {
    /// Brings the workload to where the operation begins, wherever an earlier one left it.
    pub(super) fn prepare(&self, machine: &Machine) {
        // The first change after a start opens the history. With one here, every run of the operation takes the same steps.
        machine.call(200, "POST", &OTHER.path("scale-to-zero"), &sleep_until(FAR));
        let up = format!(r#"{{"replicas":{},"reason":"prepare"}}"#, self.remembered);
        machine.call(200, "POST", &self.workload.path("scale-up"), &up);
        if self.from > 0 {
            if !matches!(self.action, Action::Idle) {
                machine.wait_settled(&self.workload, self.from);
            }
            return;
        }
        machine.wait_settled(&self.workload, self.remembered);
        let body = if self.scheduled {
            sleep_until(FAR)
        } else {
            r#"{"reason":"prepare"}"#.to_owned()
        };
        machine.call(200, "POST", &self.workload.path("scale-to-zero"), &body);
        machine.wait_settled(&self.workload, 0);
    }

    /// Does it under observation. True when it was answered with success.
    pub(super) fn act(&self, machine: &mut Machine, plan: Plan) -> (Tracer, bool) {
        let attach = |machine: &Machine, plan| Tracer::attach(machine.id(), machine.state(), plan);
        let call = |machine: &Machine, method, verb, body: &str| {
            let answer = machine.try_call(method, &self.workload.path(verb), body);
            answer.is_ok_and(|answer| (200..300).contains(&answer.status))
        };
        match self.action {
            Action::Call { method, verb, body } => {
                let tracer = attach(machine, plan);
                let acknowledged = call(machine, method, verb, body);
                (tracer, acknowledged)
            }
            Action::SleepWithSchedule => {
                let tracer = attach(machine, plan);
                let acknowledged = call(machine, "POST", "scale-to-zero", &sleep_until(FAR));
                (tracer, acknowledged)
            }
            Action::Request => {
                let tracer = attach(machine, plan);
                let answered = self.request(machine);
                (tracer, answered)
            }
            Action::Idle => {
                // Kept in use until all its replicas serve; from then on a second is left to attach.
                let in_use = wait(ASLEEP_MAX, || {
                    let answered = self.request(machine);
                    let item =
                        machine.call(200, "GET", &self.workload.path("status"), "")["deployment"]
                            .take();
                    (answered && item["available_replicas"] == self.from).then_some(())
                });
                assert!(
                    in_use.is_some(),
                    "{} does not come up\n{}",
                    self.workload.name,
                    machine.log()
                );
                (attach(machine, plan), false)
            }
            Action::ScheduleComes => {
                machine.call(
                    200,
                    "POST",
                    &self.workload.path("scale-to-zero"),
                    &sleep_until(NEAR),
                );
                (attach(machine, plan), false)
            }
            Action::Start | Action::StartAnew => {
                machine.kill();
                if matches!(self.action, Action::StartAnew) {
                    machine.kill_replicas();
                }
                machine.start_behind_gate();
                let tracer = attach(machine, plan);
                machine.open_gate();
                (tracer, false)
            }
        }
    }

    /// A request that wakes it; true when it was served.
    fn request(&self, machine: &Machine) -> bool {
        let host = format!(
            "{}.{}.localhost",
            self.workload.name, self.workload.namespace
        );
        let answer = http::exchange(machine.gateway, "GET", "/", &[("Host", &host)], "");
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// It has come to where it leads.
    pub(super) fn is_done(&self, machine: &Machine) -> bool {
        let Ok(answer) = machine.try_call("GET", &self.workload.path("status"), "") else {
            return false;
        };
        let item = answer.json()["deployment"].take();
        let counts = ["desired_replicas", "current_replicas", "available_replicas"];
        counts.iter().all(|field| item[field] == self.to)
    }

    /// Whether this may be the wanted count after a kill.
    pub(super) fn may_be(&self, desired: u64, acknowledged: bool) -> bool {
        // What sleeps by itself does so again, and a schedule comes whoever was killed: then both are right at any time.
        desired == self.to || (!acknowledged && desired == self.from)
    }

    /// What only holds for one kind of operation.
    pub(super) fn judge(&self, machine: &Machine, item: &Value, acknowledged: bool, place: &str) {
        let name = self.name;
        let scheduled = !item["scheduled_scale_up"].is_null();
        match self.action {
            Action::SleepWithSchedule => {
                let asleep = item["desired_replicas"] == 0;
                assert_eq!(
                    scheduled, asleep,
                    "{name}, killed {place}: the schedule and the count are one update: {item}"
                );
            }
            Action::Call {
                method: "DELETE", ..
            } => {
                assert!(
                    !(acknowledged && scheduled),
                    "{name}, killed {place}: a cancelled schedule is back: {item}"
                );
            }
            Action::ScheduleComes => self.judge_fired(machine, place),
            Action::Call { .. }
            | Action::Request
            | Action::Idle
            | Action::Start
            | Action::StartAnew => {
                assert!(
                    !scheduled,
                    "{name}, killed {place}: nobody asked for a schedule: {item}"
                );
            }
        }
        if item["desired_replicas"] == 0 && !matches!(self.action, Action::ScheduleComes) {
            // The remembered count is not only shown, it is what a wake restores.
            machine.call(202, "POST", &self.workload.path("wake"), "");
            machine.wait_settled(&self.workload, self.remembered);
        }
    }

    /// It fires in the end, to the count that was remembered, and once.
    fn judge_fired(&self, machine: &Machine, place: &str) {
        let name = self.name;
        let item = machine.wait_settled(&self.workload, self.to);
        assert!(
            item["scheduled_scale_up"].is_null(),
            "{name}, killed {place}: it fired and is still pending: {item}"
        );
        let path = format!(
            "/api/v1/history?namespace={}&name={}",
            self.workload.namespace, self.workload.name
        );
        let history = machine.call(200, "GET", &path, "");
        let actions: Vec<&str> = history["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item["action"].as_str())
            .collect();
        // Newest first: what came after the sleep that set the schedule.
        let fired = actions
            .iter()
            .take_while(|action| **action != "scale-to-zero")
            .filter(|action| **action == "scheduled-wake")
            .count();
        assert!(
            fired <= 1,
            "{name}, killed {place}: it fired {fired} times: {actions:?}"
        );
    }
}

/// A body that asks for a sleep until this long from now.
pub(super) fn sleep_until(ahead: Duration) -> String {
    let at = jiff::Timestamp::now() + ahead;
    format!(r#"{{"reason":"kill table","scheduled_scale_up":"{at:.3}"}}"#)
}
