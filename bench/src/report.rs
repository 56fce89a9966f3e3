//! What was measured, against what was promised: a table for people, JSON with every round for machines.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::Extent;
use crate::statistics::{largest, median, percentile};

/// Letters of the longest name of a row, and of what its peer did.
const WIDE: usize = 90;
const PEER: usize = 72;

/// How a value is compared with its goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sense {
    /// At most the goal.
    AtMost,
    /// At least the goal.
    AtLeast,
}

/// Whether a missed goal fails the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Weight {
    /// It does. A quick run allows this many times the goal (or that part of it): it has few samples on a machine
    /// that is busy with other checks, and is there to notice a collapse.
    Gated { slack_when_quick: f64 },
    /// It is printed.
    Printed,
}

/// A promise and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) sense: Sense,
    pub(crate) goal: f64,
    pub(crate) seen: f64,
    /// What it was compared with, and how that did.
    pub(crate) peer: String,
    pub(crate) weight: Weight,
}

/// All rows of a run, and its raw rounds.
#[derive(Debug)]
pub(crate) struct Report {
    extent: Extent,
    rows: Vec<Row>,
    rounds: Map<String, Value>,
    /// What was not measured, and why.
    skipped: Vec<(&'static str, &'static str)>,
    /// What should have been measured, and what went wrong.
    failed: Vec<(&'static str, String)>,
}

// === impl Row ===

impl Row {
    /// What took this many milliseconds each, at one percentile, against a gated goal.
    pub(crate) fn of_millis(
        id: &'static str,
        what: &str,
        millis: &[f64],
        percent: u32,
        goal: f64,
    ) -> Self {
        Self {
            id,
            what: format!("{what}, p{percent} of {}", millis.len()),
            unit: "ms",
            sense: Sense::AtMost,
            goal,
            seen: percentile(millis, percent),
            peer: format!("p50 {:.2}, slowest {:.2}", median(millis), largest(millis)),
            weight: Weight::Gated {
                slack_when_quick: 10.0,
            },
        }
    }

    fn limit(&self, extent: Extent) -> f64 {
        match (self.weight, extent, self.sense) {
            (Weight::Gated { slack_when_quick }, Extent::Quick, Sense::AtMost) => {
                self.goal * slack_when_quick
            }
            (Weight::Gated { slack_when_quick }, Extent::Quick, Sense::AtLeast) => {
                self.goal / slack_when_quick
            }
            (Weight::Gated { .. }, Extent::Full, _) | (Weight::Printed, _, _) => self.goal,
        }
    }

    fn meets(&self, limit: f64) -> bool {
        match self.sense {
            Sense::AtMost => self.seen <= limit,
            Sense::AtLeast => self.seen >= limit,
        }
    }

    fn verdict(&self, extent: Extent) -> &'static str {
        match (
            self.weight,
            self.meets(self.goal),
            self.meets(self.limit(extent)),
        ) {
            (_, true, _) => "met",
            (Weight::Gated { .. }, false, true) => "missed, within the slack of a quick run",
            (Weight::Gated { .. }, false, false) => "MISSED",
            (Weight::Printed, false, _) => "missed (printed only)",
        }
    }
}

// === impl Report ===

impl Report {
    /// An empty report.
    pub(crate) fn begin(extent: Extent) -> Self {
        Self {
            extent,
            rows: Vec::new(),
            rounds: Map::new(),
            skipped: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Says that something cannot be measured here.
    pub(crate) fn skip(&mut self, what: &'static str, why: &'static str) {
        self.skipped.push((what, why));
    }

    /// Says that something should have been measured, and what went wrong. The report does not hold then.
    pub(crate) fn fail(&mut self, what: &'static str, error: String) {
        self.failed.push((what, error));
    }

    /// Keeps the raw values of one series.
    pub(crate) fn rounds(&mut self, name: &str, values: &[f64]) {
        self.rounds.insert(name.to_owned(), json!(values));
    }

    /// Every gated goal is met, and everything could be measured.
    pub(crate) fn holds(&self) -> bool {
        self.missed().is_empty()
    }

    /// Why the report does not hold, a line each.
    pub(crate) fn missed(&self) -> Vec<String> {
        let missed = self.rows.iter().filter(|row| {
            matches!(row.weight, Weight::Gated { .. }) && !row.meets(row.limit(self.extent))
        });
        let missed = missed.map(|row| {
            format!(
                "{} {}: {} {}, allowed {} ({})",
                row.id,
                row.what,
                short(row.seen),
                row.unit,
                short(row.limit(self.extent)),
                row.peer
            )
        });
        let failed = self.failed.iter();
        let failed = failed.map(|(what, error)| format!("{what} not measured: {error}"));
        missed.chain(failed).collect()
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let sign = |sense| if sense == Sense::AtMost { "<=" } else { ">=" };
        let mut text = format!(
            "{:<8} {:<WIDE$} {:>14} {:>14}  {:<PEER$} {}\n",
            "id", "what", "goal", "seen", "peer", ""
        );
        for row in &self.rows {
            let goal = format!("{} {} {}", sign(row.sense), short(row.goal), row.unit);
            let seen = format!("{} {}", short(row.seen), row.unit);
            // Writing to a string cannot fail.
            writeln!(
                text,
                "{:<8} {:<WIDE$} {goal:>14} {seen:>14}  {:<PEER$} {}",
                row.id,
                row.what,
                row.peer,
                row.verdict(self.extent)
            )
            .ok();
        }
        for (what, why) in &self.skipped {
            writeln!(text, "not measured: {what}: {why}").ok();
        }
        text
    }

    /// Everything, for machines.
    pub(crate) fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "id": row.id,
                "what": row.what,
                "unit": row.unit,
                "sense": match row.sense { Sense::AtMost => "at most", Sense::AtLeast => "at least" },
                "goal": row.goal,
                "seen": row.seen,
                "limit": row.limit(self.extent),
                "peer": row.peer,
                "gated": matches!(row.weight, Weight::Gated { .. }),
                "met": row.meets(row.goal),
            })
        };
        json!({
            "extent": match self.extent { Extent::Full => "full", Extent::Quick => "quick" },
            "machine": machine(),
            "holds": self.holds(),
            "goals": self.rows.iter().map(row).collect::<Vec<_>>(),
            "rounds": self.rounds,
            "missed": self.missed(),
            "skipped": self.skipped.iter().map(|(what, why)| json!({ "what": what, "why": why })).collect::<Vec<_>>(),
        })
    }
}

/// Three significant digits for small numbers, whole ones for large.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

fn machine() -> Value {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    json!({
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "processor": model.trim_start_matches([' ', '\t', ':']),
        "cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "load": read("/proc/loadavg").trim(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seen: f64, sense: Sense, weight: Weight) -> Row {
        Row {
            id: "G",
            what: "x".into(),
            unit: "ms",
            sense,
            goal: 10.0,
            seen,
            peer: String::new(),
            weight,
        }
    }

    fn holds(extent: Extent, row: Row) -> bool {
        let mut report = Report::begin(extent);
        report.row(row);
        report.holds()
    }

    #[test]
    fn what_could_not_be_measured_does_not_hold() {
        let mut report = Report::begin(Extent::Full);
        assert!(report.holds());
        report.fail("disk", "no space left".into());
        assert!(!report.holds());
        assert_eq!(report.missed(), ["disk not measured: no space left"]);
    }

    #[test]
    fn only_gated_goals_decide() {
        const GATED: Weight = Weight::Gated {
            slack_when_quick: 2.0,
        };
        assert!(holds(Extent::Full, row(10.0, Sense::AtMost, GATED)));
        assert!(!holds(Extent::Full, row(10.1, Sense::AtMost, GATED)));
        assert!(!holds(Extent::Full, row(9.9, Sense::AtLeast, GATED)));
        assert!(holds(
            Extent::Full,
            row(99.0, Sense::AtMost, Weight::Printed)
        ));
        assert!(holds(Extent::Quick, row(20.0, Sense::AtMost, GATED)));
        assert!(!holds(Extent::Quick, row(20.1, Sense::AtMost, GATED)));
        assert!(holds(Extent::Quick, row(5.0, Sense::AtLeast, GATED)));
        assert!(!holds(Extent::Quick, row(4.9, Sense::AtLeast, GATED)));
    }
}
