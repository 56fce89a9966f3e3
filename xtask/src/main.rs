//! Developer tasks, called as `cargo xtask TASK` and through the thin names of the Makefile.
//!
//! Each task lives in a module of its own and is listed in [`TASKS`], the only place that knows them all; `cargo
//! xtask help` prints that table. A task returns an error or ends well: nothing here calls `exit`.
//!
//! Nothing of the product lives here, and no crate of the product depends on this one.

#![expect(
    clippy::print_stdout,
    reason = "a developer tool talks to the terminal it was started from"
)]
#![expect(
    clippy::print_stderr,
    reason = "a developer tool talks to the terminal it was started from"
)]

mod bench;
mod chart;
mod checkout;
mod cluster;
mod command;
mod coverage;
mod docs;
mod fuzz;
mod generate;
mod image;
mod junit;
mod markdown;
mod requirements;
mod schemathesis;
mod setup;
mod soak;
mod steps;
mod test;
mod tidy;
mod tokens;
mod watch;

use std::process::ExitCode;

use checkout::Checkout;

/// One entry of the command table.
struct Task {
    name: &'static str,
    explanation: &'static str,
    run: fn(&Checkout, &[String]) -> anyhow::Result<()>,
}

/// Every task, in the order in which `help` prints them.
const TASKS: &[Task] = &[
    Task {
        name: "setup",
        explanation: "install what is missing on this machine; does nothing the second time",
        run: setup::run,
    },
    Task {
        name: "test",
        explanation: "everything that a change must pass, with a table of times at the end",
        run: test::everything,
    },
    Task {
        name: "test-cluster",
        explanation: "everything that is tested on a real Kubernetes, which is started here: harness, delivery, product",
        run: test::on_cluster,
    },
    Task {
        name: "soak",
        explanation: "every fault on a real control plane, also those of minutes, or those named; writes docs/faults.md",
        run: soak::run,
    },
    Task {
        name: "check",
        explanation: "the fast loop: format, lints, tidy, unit tests",
        run: test::fast,
    },
    Task {
        name: "tidy",
        explanation: "rules of the tree that no compiler knows: layers, file heads, twins, links",
        run: tidy::run,
    },
    Task {
        name: "coverage",
        explanation: "which lines the tests reach, by crate; --html writes pages to read",
        run: coverage::run,
    },
    Task {
        name: "advisories",
        explanation: "known weaknesses of the dependencies; needs the network",
        run: test::advisories,
    },
    Task {
        name: "docs",
        explanation: "run the shell blocks of README.md and docs/, or of the pages named",
        run: docs::run,
    },
    Task {
        name: "schemathesis",
        explanation: "call every operation of the REST API with input made from its document",
        run: schemathesis::run,
    },
    Task {
        name: "requirements",
        explanation: "which rows of a feature no test names",
        run: requirements::run,
    },
    Task {
        name: "bench",
        explanation: "speed and size against the goals and peers; --quick, --json FILE",
        run: bench::run,
    },
    Task {
        name: "cluster",
        explanation: "a real Kubernetes here: up, down, status, logs, load-image; --name NAME",
        run: cluster::run,
    },
    Task {
        name: "fuzz",
        explanation: "every fuzz target for a minute, or those named; --seconds N",
        run: fuzz::run,
    },
    Task {
        name: "gen",
        explanation: "write the generated pages and files anew; --check says which are stale",
        run: generate::run,
    },
    Task {
        name: "image",
        explanation: "the container image as an OCI archive; --samples, --prove, --output DIRECTORY",
        run: image::run,
    },
    Task {
        name: "junit",
        explanation: "unit tests with a report for each crate in target/junit",
        run: junit::run,
    },
    Task {
        name: "watch",
        explanation: "unit tests again at every change of a file",
        run: watch::run,
    },
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "help".to_owned());
    let rest: Vec<String> = arguments.collect();
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print_help();
        return ExitCode::SUCCESS;
    }
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        eprintln!("error: there is no task '{name}'");
        eprintln!("hint: 'cargo xtask help' lists the tasks");
        return ExitCode::from(2);
    };
    match Checkout::find().and_then(|checkout| (task.run)(&checkout, &rest)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print_help() {
    println!("Developer tasks of Nagi\n\nusage: cargo xtask TASK [ARGUMENT…]\n");
    for task in TASKS {
        println!("  {:<10} {}", task.name, task.explanation);
    }
}
