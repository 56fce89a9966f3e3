//! Faults on a real control plane: what is said meanwhile, that nothing is lost and that nothing runs twice.
//!
//! The list of cases, with what must hold in each, is `e2e/src/faults/cases.rs`; here is what is done. With `NAGI_TEST_SOAK` the
//! cases that take longer than a minute run too, and what was seen is written down for `docs/faults.md`.

#![expect(
    clippy::disallowed_methods,
    reason = "a test that stands beside the product: it waits, measures and starts threads"
)]
#![expect(
    clippy::print_stderr,
    reason = "a test program tells why it does not begin"
)]

mod away;
mod http;
mod kill;
mod lab;
mod leader;
mod objects;
mod outage;
mod race;
mod relay;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use lab::World;
use nagi_e2e::faults::{self, Proof};
use nagi_e2e::suite::{self, Needs, Test};

/// Set to anything: all cases, and a record of what was seen.
const SOAK: &str = "NAGI_TEST_SOAK";

/// A case that holds without a word is no row of the page.
const SILENT: &str = "it tells nothing of what it saw";

type Run = fn(&mut World) -> anyhow::Result<()>;

/// What is done in each case, by the name that the list has.
const RUNS: &[(&str, Run)] = &[
    (
        "api_server_stands_still_for_10_s",
        away::api_server_stands_still,
    ),
    (
        "api_server_stands_still_for_5_min",
        away::api_server_stands_still_for_long,
    ),
    ("api_server_dies_and_comes_back", away::api_server_dies),
    ("etcd_stands_still_for_10_s", away::etcd_stands_still),
    (
        "etcd_is_compacted_while_nobody_watches",
        away::etcd_compacted,
    ),
    ("watches_are_cut", away::watches_cut),
    (
        "rights_are_taken_away_and_given_back",
        away::rights_taken_away,
    ),
    ("api_priority_and_fairness_starves_us", away::starved),
    ("token_expires", away::token_expired),
    (
        "certificate_of_the_api_server_changes",
        away::certificate_changed,
    ),
    ("leader_is_killed_at_every_call", kill::everywhere),
    (
        "leader_stands_still_inside_a_decision",
        leader::stopped_inside_a_decision,
    ),
    ("both_replicas_die_before_it_is_due", leader::both_killed),
    (
        "both_replicas_die_before_it_is_due_20_times",
        leader::both_killed_often,
    ),
    ("all_replicas_are_dead_for_a_while", leader::all_dead),
    (
        "people_scale_while_nobody_leads",
        leader::scaled_while_nobody_leads,
    ),
    ("clock_goes_back_one_hour", leader::clock_set_back),
    ("people_scale_at_random", race::short),
    ("people_scale_at_random_for_1000_rounds", race::long),
    (
        "deployment_is_deleted_and_made_again",
        objects::deleted_and_recreated,
    ),
    ("deployment_is_paused", objects::paused),
    (
        "deployment_is_in_the_middle_of_a_rollout",
        objects::mid_rollout,
    ),
    ("deployment_has_the_strategy_recreate", objects::recreate),
    ("deployment_has_an_autoscaler", objects::autoscaled),
    (
        "deployment_has_a_disruption_budget",
        objects::disruption_budget,
    ),
    ("manifest_is_applied_again", objects::applied_again),
    ("namespace_is_being_deleted", away::namespace_terminating),
    ("node_is_gone", objects::node_gone),
];

fn main() -> ExitCode {
    let soak = std::env::var_os(SOAK).is_some();
    match tests(soak) {
        Ok(tests) if soak => suite::run_each(&tests, recorded),
        Ok(tests) => suite::run_each(&tests, explained),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The cases of the list, in its order, each with what is done.
fn tests(soak: bool) -> anyhow::Result<Vec<Test<World>>> {
    let listed: BTreeSet<&str> = faults::CASES
        .iter()
        .filter_map(|case| case.proof.real())
        .collect();
    let done: BTreeSet<&str> = RUNS.iter().map(|(name, _)| *name).collect();
    ensure!(
        listed == done,
        "the list of cases and what is done differ in {:?}",
        listed.symmetric_difference(&done)
    );
    let mut tests = Vec::new();
    for case in faults::CASES {
        let name = match case.proof {
            Proof::Real(name) => name,
            Proof::Long(name) if soak => name,
            Proof::Long(_) | Proof::Double { .. } => continue,
        };
        let run = RUNS.iter().find(|(known, _)| *known == name);
        tests.extend(run.map(|(name, run)| Test {
            name,
            needs: Needs::Nothing,
            run: *run,
        }));
    }
    Ok(tests)
}

/// Adds to a failure what the replicas said.
fn explained(
    world: &mut World,
    _name: &'static str,
    _took: Duration,
    ended: anyhow::Result<()>,
) -> anyhow::Result<()> {
    ended.map_err(|error| world.explain(error))?;
    world.take_seen().context(SILENT).map(drop)
}

/// The same, and writes down what was seen.
fn recorded(
    world: &mut World,
    name: &'static str,
    took: Duration,
    ended: anyhow::Result<()>,
) -> anyhow::Result<()> {
    let took = took.saturating_sub(world.take_set_up());
    ended.map_err(|error| world.explain(error))?;
    let seen = world.take_seen().context(SILENT)?;
    faults::record(&lab::root(), name, took, seen)
}
