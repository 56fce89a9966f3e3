//! What the tests of disks and of recovery see of their bars (B3 to B15 and B17 to B20).
//!
//! Full disks, a container runtime, an etcd above its quota, an sshd and injected faults are what those tests are made of, so
//! they are run: `cargo xtask bench` builds them and names their programs. Where a test calls `nagi` it calls the binary that
//! ships. Each figure is a line of theirs (`nagi_testkit::measured`); they do fewer rounds here than in `make soak`.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use nagi_e2e::{tools, wait};

use crate::Options;
use crate::report::{Report, Row, Sense, Weight};

/// A test that tells figures of a bar.
struct Telling {
    bar: &'static str,
    /// The test target that it is in.
    target: &'static str,
    test: &'static str,
    /// Run several times, of which the worst counts: it tells of time.
    is_timed: bool,
}

/// Tests that count.
const fn counts(bar: &'static str, target: &'static str, test: &'static str) -> Telling {
    Telling {
        bar,
        target,
        test,
        is_timed: false,
    }
}

/// Tests that take the time.
const fn times(bar: &'static str, target: &'static str, test: &'static str) -> Telling {
    Telling {
        bar,
        target,
        test,
        is_timed: true,
    }
}

/// The unit tests of the guard.
const OF_THE_CRATE: &str = "nagi_guard";

const TESTS: &[Telling] = &[
    counts(
        "B3",
        "disk",
        "clean::generated::what_is_expected_is_what_comes_back",
    ),
    counts(
        "B4",
        "disk",
        "clean::generated::in_trees_made_by_chance_everything_that_may_go_goes_and_nothing_else",
    ),
    counts(
        "B5",
        "disk",
        "clean::full::at_0_bytes_a_plan_is_carried_out_and_gives_back_what_it_announced",
    ),
    counts(
        "B5",
        "disk",
        "clean::full::at_0_inodes_a_plan_is_carried_out",
    ),
    counts(
        "B6",
        "disk",
        "clean::crash::a_cleaner_that_is_killed_leaves_a_record_of_every_file_that_is_gone",
    ),
    counts(
        "B6",
        "disk",
        "clean::crash::a_filesystem_that_is_shut_down_has_a_record_of_every_file_that_is_gone",
    ),
    counts(
        "B7",
        "disk",
        "clean::journals::compat_mode_leaves_what_journalctl_leaves",
    ),
    counts(
        "B8",
        "real",
        "recovery::a_real_etcd_above_its_quota_on_a_full_disk_is_mended_without_a_crash",
    ),
    counts(
        "B9",
        "disk",
        "clean::images::pods_that_are_begun_while_images_are_cleaned_lose_nothing",
    ),
    counts(
        "B9",
        "disk",
        "clean::images::the_same_pods_are_harmed_by_list_and_remove",
    ),
    counts(
        "B10",
        "cli",
        "recover::runs::a_disk_that_stays_above_its_target_is_up_and_not_stable",
    ),
    counts(
        "B11",
        "cli",
        "recover::of_all_injected_faults_the_first_cause_is_the_right_one",
    ),
    counts("B12", "real", "six_classes_are_those_of_kubectl"),
    times(
        "B13",
        "system",
        "guard::a_disk_at_0_bytes_is_told_within_5_seconds_on_every_way",
    ),
    counts(
        "B14",
        OF_THE_CRATE,
        "daemon::forecast::tests::the_moment_of_full_is_found_within_the_bars_on_every_shape",
    ),
    counts(
        "B14",
        OF_THE_CRATE,
        "daemon::forecast::tests::a_runaway_is_told_within_half_an_hour",
    ),
    counts(
        "B14",
        OF_THE_CRATE,
        "daemon::forecast::tests::a_disk_that_never_fills_is_told_in_less_than_one_of_two_hundred_hours",
    ),
    times(
        "B15",
        "cli",
        "recover::runs::a_full_disk_with_the_api_server_down_is_brought_back_by_one_command",
    ),
    times(
        "B17",
        "disk",
        "guard::ballast_reserves_and_gives_back_at_0_bytes",
    ),
    times(
        "B18",
        "cli",
        "recover::reach::a_tunnel_leads_to_the_api_server_and_comes_back_after_a_break",
    ),
    times(
        "B18",
        "cli",
        "recover::reach::what_the_far_machine_does_not_do_is_said_at_once",
    ),
    counts(
        "B19",
        OF_THE_CRATE,
        "schedule::tests::fifty_foreign_crontabs_stay_as_they_are",
    ),
    counts(
        "B20",
        "disk",
        "clean::attacks::nothing_that_is_laid_in_the_way_leads_out",
    ),
    counts(
        "B20",
        "cli",
        "disk::the_right_to_read_everything_is_all_that_a_survey_needs",
    ),
];
/// Tells tests to call another program than the one that was built with them.
const PROGRAM: &str = "NAGI_TEST_PROGRAM";
/// Tells tests where etcd and kubectl are.
const PROGRAMS: &str = "NAGI_TEST_PROGRAMS";
const MEASURED: &str = "measured: ";
const SKIPPED: &str = "skipped ";
const UNITS: [&str; 9] = [
    "ms", "s", "%", "faults", "files", "pods", "times", "tables", "escapes",
];

/// A figure that a test told.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    bar: &'static str,
    what: String,
    seen: f64,
    unit: &'static str,
    sense: Sense,
    goal: f64,
}

/// Runs the tests, and takes their figures.
pub(crate) fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    if options.tests.is_empty() {
        report.skip("bars", "no --tests names the programs of the tests");
        return Ok(());
    }
    let (etcd, kubernetes) = (tools::ETCD.build()?, tools::KUBERNETES.build()?);
    let programs = [etcd.program("etcd"), kubernetes.program("kubectl")];
    let directories = programs.iter().filter_map(|program| program.parent());
    let directories = std::env::join_paths(directories).context("name directories")?;
    for telling in TESTS {
        let tests = options.tests.get(telling.target);
        let tests = tests.with_context(|| format!("--tests names no {}", telling.target))?;
        let mut rounds: Vec<Vec<Figure>> = Vec::new();
        let wanted = if telling.is_timed {
            options.pick(3, 1)
        } else {
            1
        };
        for _ in 0..wanted {
            wait::check_interrupted()?;
            let mut test = program(tests);
            test.args(["--exact", telling.test, "--nocapture"])
                .env(PROGRAM, &options.nagi)
                .env(PROGRAMS, &directories);
            match told(test, telling.test)? {
                Some(figures) => rounds.push(figures),
                None => break,
            }
        }
        let Some(first) = rounds.first() else {
            report.skip(telling.test, "its test needs what is not here");
            continue;
        };
        for (at, figure) in first.iter().enumerate() {
            let seen = rounds.iter().filter_map(|round| round.get(at));
            let seen: Vec<f64> = seen.map(|figure| figure.seen).collect();
            report.rounds(&format!("{} {}", figure.bar, figure.what), &seen);
            let worst = match figure.sense {
                Sense::AtMost => seen.iter().copied().fold(f64::MIN, f64::max),
                Sense::AtLeast => seen.iter().copied().fold(f64::MAX, f64::min),
            };
            let what = match seen.len() {
                1 => figure.what.clone(),
                several => format!("{}, worst of {several}", figure.what),
            };
            report.row(Row {
                id: figure.bar,
                what,
                unit: figure.unit,
                sense: figure.sense,
                goal: figure.goal,
                seen: worst,
                peer: String::new(),
                weight: weight(figure.bar),
            });
        }
    }
    Ok(())
}

/// B1 to B13 decide; the rest is printed.
fn weight(bar: &str) -> Weight {
    let number = bar.strip_prefix('B').and_then(|number| number.parse().ok());
    if number.is_some_and(|number: u32| number <= 13) {
        Weight::Gated {
            slack_when_quick: 1.0,
        }
    } else {
        Weight::Printed
    }
}

/// What a test told; none when it had nothing to prove with here.
fn told(mut program: Command, test: &str) -> anyhow::Result<Option<Vec<Figure>>> {
    let output = program
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {test}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{test} failed: {said}{errors}");
    if said.lines().any(|line| line.starts_with(SKIPPED)) {
        return Ok(None);
    }
    let lines = said.lines().filter_map(|line| line.strip_prefix(MEASURED));
    let figures: Vec<Figure> = lines
        .map(|line| figure(line).with_context(|| format!("read '{line}'")))
        .collect::<anyhow::Result<_>>()?;
    ensure!(!figures.is_empty(), "{test} told no figure: {said}");
    Ok(Some(figures))
}

#[expect(clippy::disallowed_methods, reason = "it starts what it measures")]
fn program(path: &Path) -> Command {
    Command::new(path)
}

/// `ID | WHAT | SEEN | UNIT | at most GOAL`
fn figure(line: &str) -> Option<Figure> {
    let parts: Vec<&str> = line.split(" | ").collect();
    let [id, what, seen, unit, bar] = parts[..] else {
        return None;
    };
    // A test may tell of more than the bar that it is here for.
    let mut bars = TESTS.iter().map(|telling| telling.bar);
    let (sense, goal) = match (bar.strip_prefix("at most "), bar.strip_prefix("at least ")) {
        (Some(goal), _) => (Sense::AtMost, goal),
        (None, Some(goal)) => (Sense::AtLeast, goal),
        (None, None) => return None,
    };
    Some(Figure {
        bar: bars.find(|bar| *bar == id)?,
        what: what.to_owned(),
        seen: seen.parse().ok()?,
        unit: UNITS.into_iter().find(|known| *known == unit)?,
        sense,
        goal: goal.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_test_is_a_figure() {
        let read = figure("B18 | a tunnel is up | 41.5 | ms | at most 500").unwrap();
        assert_eq!((read.seen, read.goal, read.unit), (41.5, 500.0, "ms"));
        assert_eq!(read.sense, Sense::AtMost);
        let read = figure("B11 | right | 100 | % | at least 95").unwrap();
        assert_eq!(read.sense, Sense::AtLeast);
        for wrong in [
            "",
            "B18 | up | x | ms | at most 1",
            "B18 | up | 1 | ms | 500",
            "B18 | up | 1 | miles | at most 5",
        ] {
            assert_eq!(figure(wrong), None, "{wrong}");
        }
    }
}
