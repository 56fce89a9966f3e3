//! B11, B15, B18: what the tests of `nagi recover` see of their bars, with the binary that ships.
//!
//! A node that is full, an sshd and a control plane with injected faults are what those tests are made of, so they are run:
//! `cargo xtask bench` builds them and names their program. Each figure is a line of theirs (`nagi_testkit::measured`).
//! Several rounds are made; the worst of each figure counts.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use nagi_e2e::wait;

use crate::Options;
use crate::report::{Report, Row, Sense, Weight};

/// The tests, and the bar that each tells of.
const TESTS: [(&str, &str); 4] = [
    (
        "B15",
        "recover::runs::a_full_disk_with_the_api_server_down_is_brought_back_by_one_command",
    ),
    (
        "B18",
        "recover::reach::a_tunnel_leads_to_the_api_server_and_comes_back_after_a_break",
    ),
    (
        "B18",
        "recover::reach::what_the_far_machine_does_not_do_is_said_at_once",
    ),
    (
        "B11",
        "recover::of_all_injected_faults_the_first_cause_is_the_right_one",
    ),
];
/// Tells tests to call another program than the one that was built with them.
const PROGRAM: &str = "NAGI_TEST_PROGRAM";
const MEASURED: &str = "measured: ";
const SKIPPED: &str = "skipped ";

/// A figure that a test told.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    what: String,
    seen: f64,
    unit: &'static str,
    sense: Sense,
    goal: f64,
}

/// Runs the tests, and takes their figures.
pub(crate) fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let Some(tests) = &options.tests else {
        report.skip("recovery", "no --tests names the program of the tests");
        return Ok(());
    };
    for (id, test) in TESTS {
        let mut rounds: Vec<Vec<Figure>> = Vec::new();
        for _ in 0..options.pick(3, 1) {
            wait::check_interrupted()?;
            match told(tests, test, &options.nagi)? {
                Some(figures) => rounds.push(figures),
                None => break,
            }
        }
        let Some(first) = rounds.first() else {
            report.skip(test, "its test needs what is not here");
            continue;
        };
        for (at, figure) in first.iter().enumerate() {
            let seen = rounds.iter().filter_map(|round| round.get(at));
            let seen: Vec<f64> = seen.map(|figure| figure.seen).collect();
            report.rounds(&format!("{id} {}", figure.what), &seen);
            let worst = match figure.sense {
                Sense::AtMost => seen.iter().copied().fold(f64::MIN, f64::max),
                Sense::AtLeast => seen.iter().copied().fold(f64::MAX, f64::min),
            };
            report.row(Row {
                id,
                what: format!("{}, worst of {}", figure.what, seen.len()),
                unit: figure.unit,
                sense: figure.sense,
                goal: figure.goal,
                seen: worst,
                peer: String::new(),
                weight: Weight::Printed,
            });
        }
    }
    Ok(())
}

/// What a test told; none when it had nothing to prove with here.
fn told(tests: &Path, test: &str, nagi: &Path) -> anyhow::Result<Option<Vec<Figure>>> {
    let output = program(tests)
        .args(["--exact", test, "--nocapture"])
        .env(PROGRAM, nagi)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", tests.display()))?;
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
    let [_, what, seen, unit, bar] = parts[..] else {
        return None;
    };
    let (sense, goal) = match (bar.strip_prefix("at most "), bar.strip_prefix("at least ")) {
        (Some(goal), _) => (Sense::AtMost, goal),
        (None, Some(goal)) => (Sense::AtLeast, goal),
        (None, None) => return None,
    };
    Some(Figure {
        what: what.to_owned(),
        seen: seen.parse().ok()?,
        unit: ["ms", "s", "%", "faults"]
            .into_iter()
            .find(|known| *known == unit)?,
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
