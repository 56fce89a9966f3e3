//! `cargo xtask coverage`: runs the tests instrumented and says how many lines of each crate they reach.
//!
//! Only lines that ship are counted: test modules, which always run, would flatter the figure. The crates whose
//! rules matter most have a floor, [`FLOORS`]. The numbers in `target/coverage/lcov.info` are the raw ones.
//!
//! It says which lines ran, not whether an assertion would have noticed a change in them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::checkout::{Checkout, TextFile};
use crate::command::{Network, Run};
use crate::setup::{CARGO_LLVM_COV, CoverageTools};
use crate::steps::Outcome;
use crate::test::counted;
use crate::tokens::test_lines;

/// The least share of lines, in per cent, that the tests of all crates together reach in these crates. F35 and A-186
/// ask for 80; the domain's rules and the REST face get more.
const FLOORS: &[Floor] = &[
    Floor {
        name: "core",
        per_cent: 85,
    },
    Floor {
        name: "server",
        per_cent: 85,
    },
];

/// Where the raw numbers go, below the root of the working copy.
pub(crate) const REPORT: &str = "target/coverage/lcov.info";

/// Tests kill programs at any moment, also while one writes its counts at its end: what it left is passed over with a warning.
const TORN: &str = "--failure-mode=all";

/// How long the crowd of the soak test calls: read by `crates/cli/tests/system/faults.rs`.
const SOAK_SECONDS: &str = "NAGI_TEST_SOAK_SECONDS";

/// A cold build on two cores takes a few minutes, the tests another few.
const LIMIT: Duration = Duration::from_mins(40);

/// A crate and the share of its lines that tests must reach.
#[derive(Debug, Clone, Copy)]
struct Floor {
    name: &'static str,
    per_cent: u64,
}

/// Lines of a crate, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Lines {
    all: u64,
    reached: u64,
}

/// Measures and judges; with `--html` also writes pages to read.
pub(crate) fn run(checkout: &Checkout, arguments: &[String]) -> anyhow::Result<()> {
    let html = match arguments {
        [] => false,
        [option] if option == "--html" => true,
        [..] => bail!("coverage knows only --html"),
    };
    let outcome = run_tests(checkout)?;
    if let Outcome::Tests(counts) = outcome
        && counts.failed > 0
    {
        bail!("{} tests failed", counts.failed);
    }
    if html {
        llvm_cov(checkout, Network::OfThisMachine)?
            .arguments(["report", TORN, "--html", "--output-dir", "target/coverage"])
            .finish()?;
        println!("open target/coverage/html/index.html");
    }
    judge(checkout)
}

/// Runs all tests of the workspace instrumented, without a network where the machine allows that (A-186).
pub(crate) fn run_tests(checkout: &Checkout) -> anyhow::Result<Outcome> {
    llvm_cov(checkout, Network::OfThisMachine)?
        .arguments(["clean", "--profraw-only"])
        .finish()?;
    counted(
        llvm_cov(checkout, Network::Own)?
            .environment("CARGO_NET_OFFLINE", "true")
            // The edit loop calls for 5 s; what everything must pass is a minute.
            .environment(SOAK_SECONDS, "60")
            .arguments([
                "test",
                "--no-report",
                "--workspace",
                "--locked",
                "--no-fail-fast",
            ]),
    )
}

/// Reads what the last run of [`run_tests`] left and compares it with the floors.
pub(crate) fn judge(checkout: &Checkout) -> anyhow::Result<()> {
    let report = checkout.root().join(REPORT);
    let directory = report.parent().context("the report lies in a directory")?;
    std::fs::create_dir_all(directory)
        .with_context(|| format!("create {}", directory.display()))?;
    llvm_cov(checkout, Network::OfThisMachine)?
        .arguments(["report", TORN, "--lcov", "--output-path"])
        .argument(&report)
        .quiet()
        .finish()?;
    let text = std::fs::read_to_string(&report).with_context(|| format!("read {REPORT}"))?;
    let crates = by_crate(&text, checkout.root(), |path| {
        std::fs::read_to_string(checkout.root().join(path)).with_context(|| format!("read {path}"))
    })?;
    for (name, lines) in &crates {
        println!(
            "{name:<10} {:>6} of {:>6} lines  {:>5.1} %",
            lines.reached,
            lines.all,
            lines.per_cent()
        );
    }
    let failures = below(&crates, FLOORS);
    if failures.is_empty() {
        Ok(())
    } else {
        bail!("{}", failures.join("; "))
    }
}

fn llvm_cov(checkout: &Checkout, network: Network) -> anyhow::Result<Run> {
    let tools = CoverageTools::find_or_install()?;
    Ok(Run::limited(CARGO_LLVM_COV.program()?, LIMIT, network)
        .argument("llvm-cov")
        .environment("LLVM_COV", tools.llvm_cov)
        .environment("LLVM_PROFDATA", tools.llvm_profdata)
        .within(checkout.root()))
}

/// Adds up an lcov report by crate, without the lines that belong to tests.
fn by_crate(
    report: &str,
    root: &Path,
    read: impl Fn(&str) -> anyhow::Result<String>,
) -> anyhow::Result<BTreeMap<String, Lines>> {
    let mut crates: BTreeMap<String, Lines> = BTreeMap::new();
    let mut current: Option<(String, std::collections::BTreeSet<usize>)> = None;
    for line in report.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            let path = Path::new(path)
                .strip_prefix(root)
                .unwrap_or(Path::new(path))
                .to_string_lossy()
                .into_owned();
            current = match crate_of(&path) {
                Some(name) => Some((
                    name,
                    test_lines(&TextFile {
                        text: read(&path)?,
                        path,
                    }),
                )),
                None => None,
            };
        } else if let Some((name, tests)) = &current
            && let Some((number, count)) = line
                .strip_prefix("DA:")
                .and_then(|line| line.split_once(','))
        {
            let number: usize = number
                .parse()
                .with_context(|| format!("read '{line}' of the report"))?;
            if !tests.contains(&number) {
                let lines = crates.entry(name.clone()).or_default();
                lines.all += 1;
                lines.reached += u64::from(count != "0");
            }
        }
    }
    Ok(crates)
}

/// The crate that a file ships in; nothing for tests, developer tasks and generated code.
fn crate_of(path: &str) -> Option<String> {
    let (name, inside) = path.strip_prefix("crates/")?.split_once('/')?;
    inside.starts_with("src/").then(|| name.to_owned())
}

fn below(crates: &BTreeMap<String, Lines>, floors: &[Floor]) -> Vec<String> {
    let mut failures = Vec::new();
    for floor in floors {
        let Some(lines) = crates.get(floor.name) else {
            failures.push(format!("no line of '{}' was measured", floor.name));
            continue;
        };
        if lines.reached * 100 < lines.all * floor.per_cent {
            failures.push(format!(
                "tests reach {:.1} % of the lines of '{}', and {} % are asked",
                lines.per_cent(),
                floor.name,
                floor.per_cent
            ));
        }
    }
    failures
}

// === impl Lines ===

impl Lines {
    /// The share in per cent, cut to one decimal.
    fn per_cent(self) -> f64 {
        let tenths = (self.reached * 1000).checked_div(self.all).unwrap_or(1000);
        f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "SF:/r/crates/core/src/lib.rs\nDA:1,4\nDA:2,0\nDA:4,1\nDA:5,1\nend_of_record\n\
        SF:/r/crates/core/tests/all.rs\nDA:1,1\nend_of_record\n\
        SF:/r/xtask/src/main.rs\nDA:1,1\nend_of_record\n";
    const SOURCE: &str = "fn a() {}\nfn b() {}\n#[cfg(test)]\nmod tests {\n}\n";

    fn floor(per_cent: u64) -> [Floor; 1] {
        [Floor {
            name: "core",
            per_cent,
        }]
    }

    #[test]
    fn only_lines_that_ship_are_counted() {
        let crates = by_crate(REPORT, Path::new("/r"), |_| Ok(SOURCE.to_owned()))
            .expect("the report is sound");
        assert_eq!(
            crates,
            BTreeMap::from([("core".to_owned(), Lines { all: 2, reached: 1 })])
        );
    }

    #[test]
    fn crate_below_its_floor_or_without_lines_fails() {
        let crates = BTreeMap::from([(
            "core".to_owned(),
            Lines {
                all: 20,
                reached: 17,
            },
        )]);
        assert_eq!(below(&crates, &floor(85)), [""; 0]);
        assert_eq!(below(&crates, &floor(86)).len(), 1);
        assert_eq!(
            below(&BTreeMap::new(), &floor(85)),
            ["no line of 'core' was measured"]
        );
    }
}
