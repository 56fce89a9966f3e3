//! Measures the shipped release binary, with its default configuration, against the goals and against peers.
//!
//! `cargo xtask bench` builds both and starts this. It runs `nagi all` as a user does, talks to it over sockets only, and
//! prints a table of goal, seen and peer. What is compared is measured in turns within one run, so that a busy machine
//! slows both sides. The exit code says whether the gated goals hold.
//!
//! The same program plays the other parts: `child` is a sample app that knows when it opened its port, `peer` is a bare
//! axum server, `double` an API server full of Deployments, `reflector` the peer that watches it, `pin` starts a program on
//! one core. It shares nothing with the product but the types of the wire.
//!
//! After Ctrl-C every wait fails, so that what was started is ended and taken away on the way out.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developer tool talks to the terminal it was started from"
)]

mod bars;
mod child;
mod clock;
mod cluster;
mod disk;
mod double;
mod durable;
mod footprint;
mod guard;
mod http;
mod large;
mod load;
mod many;
mod nagi;
mod order;
mod peer;
mod pin;
mod pods;
mod reflector;
mod replicas;
mod report;
mod rest;
mod statistics;
mod wake;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use nagi_e2e::wait;

use report::Report;

/// What a line begins with that says why a run does not hold; `cargo xtask bench` looks for it.
const NOT_HELD: &str = "not held: ";

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Enough rounds to decide whether the goals are met; about half an hour.
    Full,
    /// Enough to notice a collapse, with wide margins and by medians; about a minute. No cluster is started.
    Quick,
}

/// The command line.
#[derive(Debug)]
struct Options {
    nagi: PathBuf,
    /// The peer of `nagi disk`, where it was built.
    pdu: Option<PathBuf>,
    /// Programs of tests, which tell figures too, by their target.
    tests: BTreeMap<String, PathBuf>,
    extent: Extent,
    json: Option<PathBuf>,
    only: Option<String>,
}

/// One group of measurements.
struct Section {
    name: &'static str,
    /// Whether a quick run leaves it out unless it is asked for by name.
    only_full: bool,
    measure: fn(&Options, &mut Report) -> anyhow::Result<()>,
}

/// From those that need a quiet machine to those that make noise.
const SECTIONS: &[Section] = &[
    Section {
        name: "footprint",
        only_full: false,
        measure: footprint::measure,
    },
    Section {
        name: "guard",
        only_full: false,
        measure: guard::measure,
    },
    Section {
        name: "durable",
        only_full: false,
        measure: durable::measure,
    },
    Section {
        name: "disk",
        only_full: false,
        measure: disk::measure,
    },
    Section {
        name: "bars",
        only_full: true,
        measure: bars::measure,
    },
    Section {
        name: "wake",
        only_full: false,
        measure: wake::measure,
    },
    Section {
        name: "order",
        only_full: false,
        measure: order::measure,
    },
    Section {
        name: "replicas",
        only_full: false,
        measure: replicas::measure,
    },
    Section {
        name: "rest",
        only_full: false,
        measure: rest::measure,
    },
    Section {
        name: "large",
        only_full: false,
        measure: large::measure,
    },
    Section {
        name: "pods",
        only_full: true,
        measure: pods::measure,
    },
    Section {
        name: "many",
        only_full: true,
        measure: many::measure,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (role, rest) = arguments
        .split_first()
        .map_or(("", &arguments[..]), |(first, rest)| (first.as_str(), rest));
    let ended = match role {
        "child" => child::run(rest),
        "double" => double::run(rest),
        "peer" => peer::run(rest),
        "reflector" => reflector::run(rest),
        "pin" => pin::run(rest),
        _ => measure(&arguments),
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let options = Options::read(arguments)?;
    wait::heed_signals()?;
    let mut report = Report::begin(options.extent);
    // What a build wrote just before goes to the disk first, or it would fall into what is measured.
    rustix::fs::sync();
    for section in SECTIONS {
        let is_wanted = match options.only.as_deref() {
            Some(only) => only == section.name,
            None => options.extent == Extent::Full || !section.only_full,
        };
        if !is_wanted {
            continue;
        }
        let began = clock::now();
        eprintln!("bench: {}", section.name);
        if let Err(error) = (section.measure)(&options, &mut report) {
            wait::check_interrupted()?;
            report.fail(section.name, format!("{error:#}"));
        }
        let took = clock::now().saturating_sub(began);
        eprintln!("bench: {} took {:.0} s", section.name, took.as_secs_f64());
    }
    println!("{}", report.table());
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report.json()).context("encode the report")?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    // On standard output, where whoever runs this reads them.
    for line in report.missed() {
        println!("{NOT_HELD}{line}");
    }
    Ok(if report.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

// === impl Options ===

impl Options {
    fn read(arguments: &[String]) -> anyhow::Result<Self> {
        let mut options = Self {
            nagi: PathBuf::new(),
            pdu: None,
            tests: BTreeMap::new(),
            extent: Extent::Full,
            json: None,
            only: None,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--nagi" => options.nagi = PathBuf::from(value()?),
                "--pdu" => options.pdu = Some(PathBuf::from(value()?)),
                "--tests" => {
                    let value = value()?;
                    let named = value.split_once('=');
                    let (target, path) =
                        named.with_context(|| format!("--tests TARGET=PROGRAM, not {value}"))?;
                    options.tests.insert(target.to_owned(), path.into());
                }
                "--quick" => options.extent = Extent::Quick,
                "--json" => options.json = Some(PathBuf::from(value()?)),
                "--only" => options.only = Some(value()?.clone()),
                other => {
                    bail!("bench knows no '{other}'\nhint: --quick, --json FILE, --only SECTION")
                }
            }
        }
        if let Some(only) = &options.only
            && SECTIONS.iter().all(|section| section.name != only)
        {
            bail!("there is no section '{only}'");
        }
        options.nagi = options
            .nagi
            .canonicalize()
            .with_context(|| format!("find {}", options.nagi.display()))?;
        Ok(options)
    }

    /// The percentile that a time is judged by. A quick run has few rounds, beside other checks: one stall is no collapse.
    const fn percent(&self) -> u32 {
        self.pick(99, 50)
    }

    /// One number for each extent.
    const fn pick<T: Copy>(&self, full: T, quick: T) -> T {
        match self.extent {
            Extent::Full => full,
            Extent::Quick => quick,
        }
    }
}
