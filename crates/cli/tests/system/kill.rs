//! The kill table: `kill -9` before and after every durable step of every operation, and what the restart must find.
//!
//! For each operation one run is recorded: which steps it takes, in all threads. Then, for every step, the operation runs
//! again and the process is killed instead of the step, and again right after it. Nagi is started anew in the same
//! directory, and then:
//!
//! - the wanted count is the one before or the one after the operation; an operation that was answered has happened;
//! - the count to restore is what it was: never lost, never 0;
//! - at no moment does a replica run twice, and in the end exactly the wanted ones run;
//! - a schedule has fired once, or is still there.
//!
//! The table (`kill/table.rs`) has a row for each method of each port. A method without a row fails this test, and so does a
//! row whose operations take no durable step although it says so.

mod operations;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::machine::Machine;
use crate::steps::Step;
use crate::tracer::{Phase, Plan};
use crate::{processes, wait};
use operations::{OPERATIONS, Operation};

/// An operation is over when it has taken no further step for this long; its last steps (a node is given back, a
/// supervisor's files go) follow the end of processes and come within milliseconds of it.
const QUIET: Duration = Duration::from_millis(300);
/// From the action to the step at which to kill. The longest operation waits a second for idleness.
const REACHED_MAX: Duration = Duration::from_secs(6);
/// What a restart has to put right takes as long as processes need to end and start.
const RIGHT_MAX: Duration = Duration::from_secs(20);

/// For a person who looks for the cause of a failure: the one operation to run.
const ONLY: &str = "NAGI_TEST_KILL_ONLY";

/// A `kill -9` at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    step: Step,
    /// Counted from 1 among equal steps.
    occurrence: usize,
    phase: Phase,
}

/// Every place of a recorded run.
fn places(steps: &[Step]) -> Vec<Place> {
    let mut seen: BTreeMap<&Step, usize> = BTreeMap::new();
    let mut places = Vec::new();
    for step in steps {
        let occurrence = seen.entry(step).or_default();
        *occurrence += 1;
        for phase in [Phase::Before, Phase::After] {
            places.push(Place {
                step: step.clone(),
                occurrence: *occurrence,
                phase,
            });
        }
    }
    places
}

/// Whether a run without this place means that the table is wrong. The engine writes its nodes down on a task of its
/// own, at its own pace: several changes share one write, and one before the operation may fall into it. So may the
/// second of two equal steps.
fn must_come(place: &Place) -> bool {
    let step = place.step.to_string();
    let of_nodes = step.ends_with("nodes.json") || step == "sync .";
    place.occurrence == 1 && !of_nodes
}

/// The steps of the first run that the second took as often.
fn in_both(first: &[Step], second: &[Step]) -> Vec<Step> {
    let count = |steps: &[Step], step: &Step| steps.iter().filter(|one| *one == step).count();
    let mut kept: Vec<Step> = Vec::new();
    for step in first {
        if count(&kept, step) < count(second, step) {
            kept.push(step.clone());
        }
    }
    kept
}

/// Runs one operation at every place; gives a line for the person who reads the test's output.
fn run(operation: &Operation) -> String {
    let mut machine = Machine::new(operations::WORKLOADS);
    machine.start();
    // What only one of two runs did belongs to the preparation before it, not to the operation.
    let recorded = in_both(
        &record(operation, &mut machine),
        &record(operation, &mut machine),
    );
    assert!(
        !recorded.is_empty(),
        "{}: takes no durable step, so the table is wrong about it",
        operation.name
    );
    let mut unreached = BTreeSet::new();
    let places = places(&recorded);
    for place in &places {
        // A step may be missing in one run: two changes of the world can share one write. Three runs without it are no chance.
        let reached = (0..3).any(|_| kill_at(operation, &mut machine, place));
        if !reached && must_come(place) {
            unreached.insert(format!("{:?} {}", place.phase, place.step));
        }
    }
    assert!(
        unreached.is_empty(),
        "{}: never came to {unreached:?}",
        operation.name
    );
    format!(
        "{:<28} {:>3} steps, {:>3} kills",
        operation.name,
        recorded.len(),
        places.len()
    )
}

/// One run without a kill until it is over.
fn record(operation: &Operation, machine: &mut Machine) -> Vec<Step> {
    operation.prepare(machine);
    let (tracer, acknowledged) = operation.act(machine, Plan::Record);
    let done = wait(RIGHT_MAX, || operation.is_done(machine).then_some(()));
    assert!(
        done.is_some(),
        "{}: does not come to its end without a kill\n{}",
        operation.name,
        machine.log()
    );
    let mut seen = tracer.steps_so_far();
    wait(RIGHT_MAX, || {
        std::thread::sleep(QUIET);
        let now = tracer.steps_so_far();
        let quiet = now == seen;
        seen = now;
        quiet.then_some(())
    });
    machine.kill();
    let steps = tracer.finish().steps;
    judge(operation, machine, acknowledged, "after the last step");
    steps
}

/// One run with a kill; false when the step did not come.
fn kill_at(operation: &Operation, machine: &mut Machine, place: &Place) -> bool {
    operation.prepare(machine);
    let plan = Plan::Kill {
        step: place.step.clone(),
        occurrence: place.occurrence,
        phase: place.phase,
    };
    let (tracer, acknowledged) = operation.act(machine, plan);
    wait(REACHED_MAX, || tracer.has_ended().then_some(()));
    machine.kill();
    let trace = tracer.finish();
    judge(
        operation,
        machine,
        acknowledged,
        &format!("{:?} {} ({})", place.phase, place.step, place.occurrence),
    );
    trace.killed
}

/// Starts Nagi again and looks whether everything is as it must be.
fn judge(operation: &Operation, machine: &mut Machine, acknowledged: bool, place: &str) {
    let name = operation.name;
    let workload = operation.workload;
    let instance = machine.instance();
    let twice = || {
        let running = processes::replicas(&instance, workload.name);
        let twice = running.values().any(|count| *count > 1);
        assert!(!twice, "{name}, killed {place}: {running:?}");
        running
    };
    machine.start_watching(|| drop(twice()));

    let item = machine.call(200, "GET", &workload.path("status"), "")["deployment"].take();
    let desired = item["desired_replicas"].as_u64().expect("a count");
    if acknowledged {
        assert!(
            operation.may_be(desired, true),
            "{name}, killed {place}: was answered, but {desired} are wanted\n{}",
            machine.log()
        );
    }
    assert!(
        operation.may_be(desired, acknowledged),
        "{name}, killed {place}: {desired} are wanted: {item}"
    );
    if desired == 0 {
        assert_eq!(
            item["remembered_replicas"], operation.remembered,
            "{name}, killed {place}: {item}"
        );
    }
    operation.judge(machine, &item, acknowledged, place);

    // What is wanted may still change (a schedule comes, idleness), so it is read anew at every look.
    let counts = || {
        let item = machine.call(200, "GET", &workload.path("status"), "")["deployment"].take();
        ["desired_replicas", "current_replicas", "available_replicas"]
            .map(|field| item[field].as_u64())
    };
    let right = wait(RIGHT_MAX, || {
        let running = u64::try_from(twice().len()).ok();
        counts().iter().all(|count| *count == running).then_some(())
    });
    assert!(
        right.is_some(),
        "{name}, killed {place}: {:?} and {:?} run\n{}",
        counts(),
        twice(),
        machine.log()
    );
}

// Invariant 7 of the design; F06, A-029; "kill table" of the REST issue.
#[test]
fn nothing_is_lost_and_nothing_runs_twice_wherever_the_process_is_killed() {
    let only = std::env::var(ONLY).ok();
    // One operation has one machine of its own and mostly waits.
    let lines = std::thread::scope(|scope| {
        let chosen = OPERATIONS
            .iter()
            .filter(|operation| only.as_deref().is_none_or(|only| only == operation.name));
        let runs: Vec<_> = chosen
            .map(|operation| (operation.name, scope.spawn(|| run(operation))))
            .collect();
        let ended = runs
            .into_iter()
            .map(|(name, run)| run.join().map_err(|_| name));
        ended.collect::<Vec<_>>()
    });
    for line in lines.iter().flatten() {
        println!("{line}");
    }
    let failed: Vec<_> = lines
        .iter()
        .filter_map(|line| line.as_ref().err())
        .collect();
    assert!(failed.is_empty(), "failed: {failed:?}");
}
