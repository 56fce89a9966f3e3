//! Runs the steps of a task one after another, goes on after a failed one, and closes with a table.
//!
//! The closing line, `N passed, N failed`, counts the tests that the steps reported and each step that runs no
//! tests of its own as one. It is alone on its line so that a machine can read it. Tests that could prove nothing on this
//! machine stand in a line before it, each with its reason, and not among those that passed. What failed is said again
//! there, because a forge shows the end of a long log and seldom more.

use std::time::{Duration, Instant};

use anyhow::bail;

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The step is one check, and it held.
    Held,
    /// The step ran tests: this many passed and failed.
    Tests(Counts),
}

/// How many tests a step ran. Those that were skipped did not pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// What could not run here: `TEST: REASON`.
    pub(crate) skipped: Vec<String>,
    /// What failed, each with its first words on one line: `TEST: WORDS`.
    pub(crate) failures: Vec<String>,
}

/// A step that has ended.
#[derive(Debug)]
struct Ended {
    name: &'static str,
    took: Duration,
    counts: Counts,
    error: Option<String>,
}

/// The steps of a task as they run.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    ended: Vec<Ended>,
}

// === impl Steps ===

impl Steps {
    /// Runs one step and remembers how it ended.
    pub(crate) fn run(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> anyhow::Result<Outcome>,
    ) {
        println!("\n==> {name}");
        let started = now();
        let result = step();
        let took = started.elapsed();
        self.ended.push(Ended::new(name, took, result));
    }

    /// Prints the table and the closing line; fails when a step did.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        println!("\n{}", table(&self.ended));
        let failed: Vec<&str> = self
            .ended
            .iter()
            .filter(|step| step.error.is_some() || step.counts.failed > 0)
            .map(|step| step.name)
            .collect();
        if failed.is_empty() {
            return Ok(());
        }
        bail!("failed: {}", failed.join(", "));
    }
}

// === impl Ended ===

impl Ended {
    fn new(name: &'static str, took: Duration, result: anyhow::Result<Outcome>) -> Self {
        match result {
            Ok(Outcome::Held) => Self {
                name,
                took,
                counts: Counts {
                    passed: 1,
                    ..Counts::default()
                },
                error: None,
            },
            Ok(Outcome::Tests(counts)) => Self {
                name,
                took,
                counts,
                error: None,
            },
            Err(error) => {
                let error = format!("{error:#}");
                eprintln!("error: {error}");
                Self {
                    name,
                    took,
                    counts: Counts {
                        failed: 1,
                        ..Counts::default()
                    },
                    error: Some(error),
                }
            }
        }
    }
}

/// So much of what a failure says stands in its line, in bytes.
const FAILURE_BYTES_MAX: usize = 700;

/// A failure on one line: its name and the first of its words.
pub(crate) fn failure_line(name: &str, text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut line = format!("{name}: {}", words.join(" "));
    line.truncate(line.floor_char_boundary(FAILURE_BYTES_MAX));
    line
}

/// Gathers from the lines of test programs what each failed test said: the sections `---- TEST stdout ----`.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// Name and text of each.
    sections: Vec<(String, String)>,
    open: bool,
}

// === impl Failures ===

impl Failures {
    /// Takes the next line.
    pub(crate) fn line(&mut self, line: &str) {
        let head = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" ----"));
        if let Some(head) = head {
            let name = head.strip_suffix(" stdout").unwrap_or(head);
            self.sections.push((name.to_owned(), String::new()));
            self.open = true;
        } else if line == "failures:" || line.starts_with("test ") {
            self.open = false;
        } else if self.open
            && let Some((_, text)) = self.sections.last_mut()
            && text.len() < FAILURE_BYTES_MAX
        {
            text.push_str(line);
            text.push('\n');
        }
    }

    /// A line for each.
    pub(crate) fn finish(self) -> Vec<String> {
        let line = |(name, text): &(String, String)| failure_line(name, text);
        self.sections.iter().map(line).collect()
    }
}

/// What a test program reports in its closing line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reported {
    passed: u64,
    pub(crate) failed: u64,
    ignored: u64,
}

// === impl Reported ===

impl Reported {
    /// How many passed, when this many said before that they could not run. The standard test runner knows no such test and
    /// counts it as passed; programs with a runner of their own count it as ignored.
    pub(crate) fn passed_of(self, said: u64) -> u64 {
        self.passed
            .saturating_sub(said.saturating_sub(self.ignored))
    }
}

/// Reads the closing line of one test program, `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
pub(crate) fn counts_in_line(line: &str) -> Option<Reported> {
    let (_, rest) = line
        .trim()
        .strip_prefix("test result: ")?
        .split_once(". ")?;
    let number = |word: &str| {
        rest.split("; ")
            .find_map(|part| part.strip_suffix(word))
            .and_then(|number| number.trim().parse().ok())
    };
    Some(Reported {
        passed: number(" passed")?,
        failed: number(" failed")?,
        ignored: number(" ignored")?,
    })
}

/// Reads the line of a test that could not run here, `skipped TEST: REASON`.
pub(crate) fn skipped_in_line(line: &str) -> Option<String> {
    let skipped = line.strip_prefix("skipped ")?;
    skipped.contains(": ").then(|| skipped.to_owned())
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures the steps of a developer task, nothing of the product"
)]
fn now() -> Instant {
    Instant::now()
}

fn table(ended: &[Ended]) -> String {
    let mut lines = Vec::new();
    let mut total = Counts::default();
    let mut time = Duration::ZERO;
    for step in ended {
        let failed = step.error.is_some() || step.counts.failed > 0;
        let word = if failed { "FAILED" } else { "ok" };
        lines.push(format!(
            "{word:<6} {:>7.1} s  {}",
            step.took.as_secs_f64(),
            step.name
        ));
        total.passed += step.counts.passed;
        total.failed += step.counts.failed;
        total.skipped.extend(step.counts.skipped.iter().cloned());
        time += step.took;
    }
    lines.push(format!("{:<6} {:>7.1} s\n", "total", time.as_secs_f64()));
    for step in ended {
        if let Some(error) = &step.error {
            lines.push(format!("FAILED {}: {error}\n", step.name));
        }
        for failure in &step.counts.failures {
            lines.push(format!("FAILED {}: {failure}\n", step.name));
        }
    }
    if !total.skipped.is_empty() {
        let count = total.skipped.len();
        lines.push(format!("{count} skipped: {}", total.skipped.join("; ")));
    }
    lines.push(format!("{} passed, {} failed", total.passed, total.failed));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_line_of_a_test_program_is_counted() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out";
        let reported = counts_in_line(line).expect("it is one");
        assert_eq!((reported.passed_of(0), reported.failed), (12, 3));
        assert_eq!(counts_in_line("running 3 tests"), None);
    }

    #[test]
    fn a_test_that_could_not_run_did_not_pass_whoever_counted_it() {
        let of = |line: &str, said| counts_in_line(line).expect("it is one").passed_of(said);
        let by_the_standard_runner = "test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured";
        assert_eq!(of(by_the_standard_runner, 2), 5);
        let by_our_own = "test result: ok. 5 passed; 0 failed; 2 ignored; 0 measured";
        assert_eq!(of(by_our_own, 2), 5);
    }

    #[test]
    fn table_names_each_failure_and_closes_with_the_sum() {
        let ended = [
            Ended::new("lints", Duration::from_secs(1), Ok(Outcome::Held)),
            Ended::new(
                "tests",
                Duration::ZERO,
                Ok(Outcome::Tests(Counts {
                    passed: 7,
                    failed: 0,
                    skipped: vec!["a::b: no rights".to_owned()],
                    ..Counts::default()
                })),
            ),
            Ended::new(
                "documents",
                Duration::ZERO,
                Ok(Outcome::Tests(Counts {
                    failed: 1,
                    failures: vec![failure_line("docs/a.md:3", "must end\n  with 0")],
                    ..Counts::default()
                })),
            ),
            Ended::new("tidy", Duration::ZERO, Err(anyhow::anyhow!("two findings"))),
        ];
        let table = table(&ended);
        assert!(table.contains("FAILED tidy: two findings"), "{table}");
        let again = "FAILED documents: docs/a.md:3: must end with 0";
        assert!(table.contains(again), "{table}");
        let last: Vec<&str> = table.lines().rev().take(2).collect();
        assert_eq!(last, ["8 passed, 2 failed", "1 skipped: a::b: no rights"]);
    }

    #[test]
    fn what_a_failed_test_said_is_gathered_and_what_surrounds_it_is_not() {
        let mut failures = Failures::default();
        let output = "running 2 tests\ntest a::b ... FAILED\n\nfailures:\n\n---- a::b stdout ----\n\
            thread 'a::b' panicked at src/a.rs:1:2:\nno lamp\n\n\nfailures:\n    a::b\n\n\
            test result: FAILED. 0 passed; 1 failed";
        output.lines().for_each(|line| failures.line(line));
        assert_eq!(
            failures.finish(),
            ["a::b: thread 'a::b' panicked at src/a.rs:1:2: no lamp"]
        );
    }

    #[test]
    fn a_long_failure_is_cut_between_two_characters() {
        let line = failure_line("a", &"凪".repeat(1_000));
        assert!(
            line.len() <= FAILURE_BYTES_MAX && line.ends_with('凪'),
            "{line}"
        );
    }

    #[test]
    fn a_test_that_could_not_run_is_told_from_all_other_lines() {
        let line = "skipped faults::a_full_disk: no mount";
        assert_eq!(
            skipped_in_line(line).as_deref(),
            Some("faults::a_full_disk: no mount")
        );
        for other in ["skipped", "skipped all", "test a ... ok", "  skipped a: b"] {
            assert_eq!(skipped_in_line(other), None, "{other}");
        }
    }
}
