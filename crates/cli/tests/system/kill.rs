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
//! A reload of the workload file (`kill/reload.rs`) and a change of the keys file (`kill/keys.rs`) are killed in the same way; what
//! must hold after them is theirs to say.
//!
//! The table (`kill/table.rs`) has a row for each method of each port. A method without a row fails this test, and so does a
//! row whose operations take no durable step although it says so.

mod keys;
mod operations;
mod reload;
mod table;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::machine::Machine;
use crate::steps::Step;
use crate::tracer::{Phase, Plan, Trace, Tracer};
use crate::{LOOK, processes, wait};
use operations::{OPERATIONS, Operation};

/// An operation is over when it has taken no further step for this long; its last steps (a node is given back, a
/// supervisor's files go) follow the end of processes and come within milliseconds of it.
const QUIET: Duration = Duration::from_millis(300);
/// A place that must come, and does not, when no step was taken for this long. The longest pause within an operation is a
/// second, that of idleness and of a process's grace; the rest is for all these traced processes on two cores.
const UNREACHED_AFTER: Duration = Duration::from_secs(20);
/// The same for a place that need not come, which costs this time whenever it does not.
const OPTIONAL_AFTER: Duration = Duration::from_secs(5);
/// What a restart has to put right takes as long as processes need to end and start.
const RIGHT_MAX: Duration = Duration::from_mins(1);

/// Jobs at once: each starts and traces processes and mostly waits, and two cores have to do for all of them.
const AT_ONCE: usize = 16;
/// Places of a job: so few that no long row is left alone at the end, and so many that preparing a machine does not count.
const JOB: usize = 12;

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

/// Whether a run without this place means that the table is wrong. The engine writes its nodes down and clears up after
/// ended replicas on tasks of its own, at their own pace: several changes share one write, and what a preparation left
/// may be cleared up before or in the operation. So may the second of two equal steps.
fn must_come(step: &Step, occurrence: usize) -> bool {
    let step = step.to_string();
    let of_nodes = step.ends_with("nodes.json") || step == "sync .";
    let of_ended_replicas = step.starts_with("remove replicas/");
    occurrence == 1 && !of_nodes && !of_ended_replicas
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

/// Runs something once by a plan, and judges what came of it.
type Attempt = Box<dyn FnMut(Plan, &str) -> Trace>;

/// What is killed at every place.
struct Row {
    name: &'static str,
    /// Prepares for attempts one after the other, with a machine of their own.
    prepare: Box<dyn Fn() -> Attempt + Send + Sync>,
}

/// A part of the table that is worked off on one machine.
enum Job {
    /// Finds out which places a row has.
    Record(Arc<Row>),
    /// Kills at some of them.
    Kill(Arc<Row>, Vec<Place>),
}

/// What came of the jobs of a row.
#[derive(Debug, Default)]
struct Told {
    places: usize,
    killed: usize,
    /// Places that must come, and did not.
    unreached: BTreeSet<String>,
    failed: bool,
}

/// Every place that two recorded runs have.
fn recorded(row: &Row) -> Vec<Place> {
    let mut attempt = (row.prepare)();
    let mut record = || attempt(Plan::Record, "after the last step").steps;
    // What only one of two runs did belongs to the preparation before it, not to the operation.
    let recorded = in_both(&record(), &record());
    assert!(
        !recorded.is_empty(),
        "{}: takes no durable step, so the table is wrong about it",
        row.name
    );
    places(&recorded)
}

/// Kills at these places.
fn killed_at(row: &Row, places: &[Place]) -> Told {
    let mut attempt = (row.prepare)();
    let mut told = Told::default();
    for place in places {
        let plan = || Plan::Kill {
            step: place.step.clone(),
            occurrence: place.occurrence,
            phase: place.phase,
        };
        let at = format!("{:?} {} ({})", place.phase, place.step, place.occurrence);
        // A step may be missing in one run: two changes of the world can share one write. Three runs without it are no chance.
        let must_come = must_come(&place.step, place.occurrence);
        let tries = if must_come { 3 } else { 1 };
        let reached = (0..tries).any(|_| attempt(plan(), &at).killed);
        told.killed += usize::from(reached);
        if !reached && must_come {
            told.unreached.insert(at);
        }
    }
    told
}

/// Runs one operation by each plan.
fn attempts(operation: &'static Operation) -> Attempt {
    let mut machine = Machine::new(operations::WORKLOADS);
    machine.start();
    Box::new(move |plan, place| {
        operation.prepare(&machine);
        let is_recorded = plan == Plan::Record;
        let (tracer, acknowledged) = operation.act(&mut machine, plan);
        let is_done = |machine: &Machine| operation.is_done(machine);
        let trace = end(&mut machine, tracer, is_recorded.then_some(&is_done));
        judge(operation, &mut machine, acknowledged, place);
        trace
    })
}

/// Ends a run: where the plan kills, after that; where it only records, when it is done and quiet.
fn end(
    machine: &mut Machine,
    tracer: Tracer,
    recorded_until: Option<&dyn Fn(&Machine) -> bool>,
) -> Trace {
    if let Some(is_done) = recorded_until {
        let done = wait(RIGHT_MAX, || is_done(machine).then_some(()));
        assert!(
            done.is_some(),
            "it does not come to its end without a kill\n{}",
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
    } else {
        let patience = match tracer.plan() {
            Plan::Kill {
                step, occurrence, ..
            } if !must_come(step, *occurrence) => OPTIONAL_AFTER,
            Plan::Kill { .. } | Plan::Record => UNREACHED_AFTER,
        };
        let mut seen = (tracer.steps_so_far(), Instant::now());
        wait(RIGHT_MAX, || {
            let taken = tracer.steps_so_far();
            if taken != seen.0 {
                seen = (taken, Instant::now());
            }
            (tracer.has_ended() || seen.1.elapsed() >= patience).then_some(())
        });
    }
    machine.kill();
    tracer.finish()
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

fn rows() -> Vec<Row> {
    let operations = OPERATIONS.iter().map(|operation| Row {
        name: operation.name,
        prepare: Box::new(move || attempts(operation)),
    });
    let reloads = reload::RELOADS.iter().map(|reload| Row {
        name: reload.name,
        prepare: Box::new(move || reload::attempts(reload)),
    });
    let keys = keys::CHANGES.iter().map(|change| Row {
        name: change.name,
        prepare: Box::new(move || keys::attempts(change)),
    });
    operations.chain(reloads).chain(keys).collect()
}

/// The jobs that wait, how many rows are not recorded yet, and what came of those that ended.
struct Table {
    waiting: VecDeque<Job>,
    unrecorded: usize,
    told: BTreeMap<&'static str, Told>,
}

/// Works until nothing waits and nothing can come any more.
fn work(table: &Mutex<Table>) {
    let lock = || table.lock().expect("no panic");
    loop {
        let next = {
            let mut table = lock();
            let next = table.waiting.pop_front();
            if next.is_none() && table.unrecorded == 0 {
                return;
            }
            next
        };
        // On a thread of its own, so that a failure ends this job and no other.
        match next {
            None => std::thread::sleep(LOOK),
            Some(Job::Record(row)) => {
                let recorded = {
                    let row = Arc::clone(&row);
                    std::thread::spawn(move || recorded(&row)).join()
                };
                let mut table = lock();
                table.unrecorded -= 1;
                let told = table.told.entry(row.name).or_default();
                told.failed |= recorded.is_err();
                let places = recorded.unwrap_or_default();
                told.places = places.len();
                let jobs = places
                    .chunks(JOB)
                    .map(|places| Job::Kill(Arc::clone(&row), places.to_vec()));
                table.waiting.extend(jobs);
            }
            Some(Job::Kill(row, places)) => {
                let name = row.name;
                let ended = std::thread::spawn(move || killed_at(&row, &places)).join();
                let mut table = lock();
                let told = table.told.entry(name).or_default();
                told.failed |= ended.is_err();
                let ended = ended.unwrap_or_default();
                told.killed += ended.killed;
                told.unreached.extend(ended.unreached);
            }
        }
    }
}

// Invariant 7 of the design; F06, A-029; "kill table" of the REST issue.
#[test]
fn nothing_is_lost_and_nothing_runs_twice_wherever_the_process_is_killed() {
    let only = std::env::var(ONLY).ok();
    let waiting: VecDeque<Job> = rows()
        .into_iter()
        .filter(|row| only.as_deref().is_none_or(|only| only == row.name))
        .map(|row| Job::Record(Arc::new(row)))
        .collect();
    assert!(!waiting.is_empty(), "no row is called {only:?}");
    let table = Mutex::new(Table {
        unrecorded: waiting.len(),
        waiting,
        told: BTreeMap::new(),
    });
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| work(&table));
        }
    });
    let told = table.into_inner().expect("no panic").told;
    for (name, told) in &told {
        println!(
            "{name:<28} {:>3} places, {:>3} kills",
            told.places, told.killed
        );
    }
    let failed: Vec<_> = told
        .iter()
        .filter(|(_, told)| told.failed || !told.unreached.is_empty())
        .map(|(name, told)| match told.unreached.len() {
            0 => (*name).to_owned(),
            _ => format!("{name}: never came to {:?}", told.unreached),
        })
        .collect();
    assert!(failed.is_empty(), "failed: {failed:?}");
}
