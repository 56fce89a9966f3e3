//! Reloads of the workload file that are killed: what a person wanted of a workload survives its leaving the file and coming
//! back, wherever the process dies, and so does another count in the file.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Attempt;
use super::operations::sleep_until;
use crate::machine::{Machine, Workload};
use crate::tracer::{Plan, Trace, Tracer};
use crate::{processes, wait};

const BEGIN: &str = "workloads:\n  - { namespace: project-a, name: other, command: [sleep, '100000'], replicas: 1 }\n";
const SECTION: &str = "  - { namespace: project-a, name: section, command: [sleep, '100000'], replicas: 2, stop_grace: 1s }\n";
const OTHER: Workload = Workload {
    namespace: "project-a",
    name: "other",
};
const WORKLOAD: Workload = Workload {
    namespace: "project-a",
    name: "section",
};
/// What a person wanted of it, which is not what the file says.
const WANTED: u64 = 3;
/// What the file says.
const DECLARED: u64 = 2;
/// What another file says.
const DECLARED_ANEW: u64 = 4;
const FAR: Duration = Duration::from_hours(1);
const IN_FORCE_MAX: Duration = Duration::from_mins(1);

/// A change of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Leaves,
    Returns,
    Count,
}

/// A reload, and in which state it meets the workload.
pub(super) struct Reload {
    pub(super) name: &'static str,
    change: Change,
    asleep: bool,
}

pub(super) const RELOADS: &[Reload] = &[
    Reload {
        name: "asleep, leaves the file",
        change: Change::Leaves,
        asleep: true,
    },
    Reload {
        name: "awake, leaves the file",
        change: Change::Leaves,
        asleep: false,
    },
    Reload {
        name: "asleep, back in the file",
        change: Change::Returns,
        asleep: true,
    },
    Reload {
        name: "awake, back in the file",
        change: Change::Returns,
        asleep: false,
    },
    Reload {
        name: "another count in the file",
        change: Change::Count,
        asleep: false,
    },
];

/// Runs one reload by each plan.
pub(super) fn attempts(reload: &'static Reload) -> Attempt {
    let mut machine = Machine::new(&with(DECLARED));
    machine.start();
    Box::new(move |plan, place| {
        reload.prepare(&machine);
        reload.attempt(&mut machine, plan, place)
    })
}

/// The file with the workload in it.
fn with(replicas: u64) -> String {
    format!(
        "{BEGIN}{}",
        SECTION.replace("replicas: 2", &format!("replicas: {replicas}"))
    )
}

fn status(machine: &Machine) -> Option<Value> {
    let answer = machine.try_call("GET", &WORKLOAD.path("status"), "").ok()?;
    (answer.status == 200).then(|| answer.json()["deployment"].take())
}

/// The nodes that are written down.
fn written_nodes(machine: &Machine) -> Vec<Value> {
    let text = std::fs::read_to_string(machine.state().join("nodes.json")).expect("a file");
    let mut written: Value =
        serde_json::from_str(&text).expect("whole, as it is renamed to its place");
    let nodes = written["nodes"].as_array_mut().expect("a list");
    std::mem::take(nodes)
}

/// Puts a file in force, at once and not at the next look.
fn write(machine: &Machine, text: &str) {
    std::fs::write(machine.directory().join("workloads.yaml"), text).expect("a file");
    // It may have seen the file by itself, and may have been killed for it already.
    kill(Pid::from_raw(machine.id()), Signal::SIGHUP).ok();
}

fn wait_until(machine: &Machine, what: &str, holds: impl Fn() -> bool) {
    let held = wait(IN_FORCE_MAX, || holds().then_some(()));
    assert!(held.is_some(), "never {what}:\n{}", machine.log());
}

// === impl Reload ===

impl Reload {
    fn prepare(&self, machine: &Machine) {
        // The first change after a start opens the history.
        machine.call(200, "POST", &OTHER.path("scale-to-zero"), &sleep_until(FAR));
        write(machine, &with(DECLARED));
        wait_until(machine, "described", || {
            status(machine).is_some_and(|item| {
                self.change != Change::Count || item["desired_replicas"] == DECLARED
            })
        });
        let up = format!(r#"{{"replicas":{WANTED},"reason":"prepare"}}"#);
        machine.call(200, "POST", &WORKLOAD.path("scale-up"), &up);
        machine.wait_settled(&WORKLOAD, WANTED);
        if self.asleep {
            machine.call(
                200,
                "POST",
                &WORKLOAD.path("scale-to-zero"),
                &sleep_until(FAR),
            );
            machine.wait_settled(&WORKLOAD, 0);
        }
        if self.change == Change::Returns {
            write(machine, BEGIN);
            Self::wait_gone(machine);
        }
    }

    /// Until no process is left, and its node is given back: who is back on a node before that was seen changes no node.
    fn wait_gone(machine: &Machine) {
        wait_until(machine, "gone", || {
            status(machine).is_none()
                && processes::replicas(&machine.instance(), WORKLOAD.name).is_empty()
                && written_nodes(machine).is_empty()
        });
    }

    fn attempt(&self, machine: &mut Machine, plan: Plan, place: &str) -> Trace {
        let (text, ends_with) = match self.change {
            Change::Leaves => (BEGIN.to_owned(), None),
            Change::Returns => (with(DECLARED), Some(if self.asleep { 0 } else { WANTED })),
            Change::Count => (with(DECLARED_ANEW), Some(DECLARED_ANEW)),
        };
        let is_done = move |machine: &Machine| match (ends_with, status(machine)) {
            (None, None) => processes::replicas(&machine.instance(), WORKLOAD.name).is_empty(),
            (Some(count), Some(item)) => item["available_replicas"] == count,
            (None, Some(_)) | (Some(_), None) => false,
        };
        let is_recorded = plan == Plan::Record;
        let tracer = Tracer::attach(machine.id(), machine.state(), plan);
        write(machine, &text);
        let trace = super::end(machine, tracer, is_recorded.then_some(&is_done));
        self.judge(machine, place);
        trace
    }

    /// Starts with the file as it is now, and where the workload is not in it, again with it.
    fn judge(&self, machine: &mut Machine, place: &str) {
        let name = self.name;
        let instance = machine.instance();
        let watch = || {
            let running = processes::replicas(&instance, WORKLOAD.name);
            let twice = running.values().any(|count| *count > 1);
            assert!(!twice, "{name}, killed {place}: {running:?}");
        };
        machine.start_watching(watch);
        if self.change == Change::Leaves {
            Self::wait_gone(machine);
            machine.kill();
            std::fs::write(machine.directory().join("workloads.yaml"), with(DECLARED))
                .expect("a file");
            machine.start_watching(watch);
        }
        let wanted = match (self.change, self.asleep) {
            (Change::Count, _) => DECLARED_ANEW,
            (Change::Leaves | Change::Returns, true) => 0,
            (Change::Leaves | Change::Returns, false) => WANTED,
        };
        let item = machine.wait_settled(&WORKLOAD, wanted);
        if self.asleep {
            assert_eq!(
                item["remembered_replicas"], WANTED,
                "{name}, killed {place}: {item}"
            );
            assert!(
                !item["scheduled_scale_up"].is_null() && !item["asleep_since"].is_null(),
                "{name}, killed {place}: {item}"
            );
            machine.call(202, "POST", &WORKLOAD.path("wake"), "");
            machine.wait_settled(&WORKLOAD, WANTED);
        }
    }
}
