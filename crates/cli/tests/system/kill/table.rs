//! The table itself: every method of every port, and which operations of the kill table exercise it.
//!
//! The list of methods is read from the source of the ports, so a new method without a row fails, and so does a row whose
//! method is gone.

use std::collections::BTreeSet;
use std::path::Path;

use super::operations::OPERATIONS;
use super::reload::RELOADS;
use crate::machine::{Machine, Workload};
use crate::tracer::{Plan, Tracer};

/// What a kill can meet in a method.
enum Row {
    /// Operations that take its durable steps, or that call it between their steps.
    Killed(&'static [&'static str]),
    /// It reads: these calls of the API go through it and must take no step at all.
    Reads(&'static [&'static str]),
    /// The local engine has none of it; another engine's tests say what a kill can meet.
    Elsewhere,
}

const STATUS: &str = "/api/v1/deployments/project-a/web/status";

/// `Trait::method` and its row.
const TABLE: &[(&str, Row)] = &[
    (
        "Workloads::write",
        Row::Killed(&[
            "sleep",
            "sleep with schedule",
            "wake by call",
            "scale up",
            "wake by request",
            "cancel a schedule",
            "a schedule fires",
            "idle sleep",
        ]),
    ),
    (
        "Workloads::count_writer",
        Row::Killed(&["another count in the file"]),
    ),
    (
        "Workloads::subscribe",
        Row::Killed(&["wake by call", "wake by request", "idle sleep"]),
    ),
    ("Workloads::engine", Row::Reads(&["/ready"])),
    ("Workloads::reachable", Row::Reads(&["/ready"])),
    ("Workloads::unattended", Row::Reads(&[STATUS])),
    // A dry run asks a cluster for what the write would be refused with (`crates/kube/tests/engine`); here nothing is asked.
    ("Workloads::rehearse", Row::Elsewhere),
    ("Workloads::get", Row::Reads(&[STATUS])),
    (
        "Workloads::visit",
        Row::Reads(&[
            "/api/v1/deployments",
            "/api/v1/workloads",
            "/api/v1/scheduled-scale-ups",
        ]),
    ),
    // Questions to a cluster (`tests/cluster/tokens.rs`), which keeps nothing of them.
    ("Accounts::identify", Row::Elsewhere),
    ("Accounts::may", Row::Elsewhere),
    ("Traffic::activity", Row::Reads(&[STATUS])),
    ("Traffic::prepare", Row::Killed(&["idle sleep"])),
    ("Traffic::settle", Row::Killed(&["idle sleep"])),
    ("Journal::history", Row::Reads(&["/api/v1/history"])),
    (
        "Logs::read",
        Row::Reads(&["/api/v1/deployments/project-a/web/logs"]),
    ),
    ("Nodes::pools", Row::Reads(&["/api/v1/pools"])),
    ("Clock::now", Row::Killed(&["a schedule fires"])),
    ("Clock::monotonic", Row::Killed(&["idle sleep"])),
];

/// `Trait::method` of every trait in a source file. The source is formatted by rustfmt, which this relies on.
fn methods(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside: Option<&str> = None;
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("pub trait ") {
            inside = rest.split([':', ' ', '<']).next();
        } else if line == "}" {
            inside = None;
        } else if let Some(name) = inside
            && let Some(rest) = line
                .strip_prefix("    fn ")
                .or_else(|| line.strip_prefix("    async fn "))
        {
            let method = rest.split(['(', '<']).next().unwrap_or_default();
            found.push(format!("{name}::{method}"));
        }
    }
    found
}

/// Those of all ports.
fn all_methods() -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ports/src");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory).expect("the source of the ports") {
        let source = std::fs::read_to_string(entry.expect("a file").path()).expect("a source file");
        found.extend(methods(&source));
    }
    // What `Workloads::visit` shows; nobody has one outside a visit.
    found.retain(|method| !method.starts_with("Glance::"));
    found
}

#[test]
fn every_method_of_every_port_has_a_row_and_every_row_a_method() {
    let methods = all_methods();
    assert!(methods.contains("Workloads::write"), "{methods:?}");
    let rows: BTreeSet<String> = TABLE
        .iter()
        .map(|(method, _)| (*method).to_owned())
        .collect();
    let without: Vec<_> = methods.difference(&rows).collect();
    assert!(
        without.is_empty(),
        "add a row to the kill table for: {without:?}"
    );
    let gone: Vec<_> = rows.difference(&methods).collect();
    assert!(
        gone.is_empty(),
        "rows of the kill table without a method: {gone:?}"
    );
}

#[test]
fn every_row_names_operations_that_run() {
    let operations = OPERATIONS.iter().map(|operation| operation.name);
    let reloads = RELOADS.iter().map(|reload| reload.name);
    let run: BTreeSet<&str> = operations.chain(reloads).collect();
    for (method, row) in TABLE {
        let Row::Killed(names) = row else { continue };
        assert!(!names.is_empty(), "{method}");
        for name in *names {
            assert!(run.contains(name), "{method}: there is no '{name}'");
        }
    }
}

#[test]
fn a_method_is_found_in_the_source_of_a_trait_and_nowhere_else() {
    let source = "pub trait A: Debug {\n    fn one(&self);\n    async fn two<T>(\n        x: T,\n    );\n}\nimpl A for B {\n    fn three() {}\n}\nfn four() {}\n";
    assert_eq!(methods(source), ["A::one", "A::two"]);
}

#[test]
fn reading_takes_no_durable_step() {
    const WEB: Workload = Workload {
        namespace: "project-a",
        name: "web",
    };
    let workloads = "workloads:\n  - { namespace: project-a, name: web, command: [NAGI, sample, web], port: 8080, replicas: 1 }\n";
    for (method, row) in TABLE {
        let Row::Reads(paths) = row else { continue };
        let mut machine = Machine::new(workloads);
        machine.start();
        machine.wait_settled(&WEB, 1);
        let tracer = Tracer::attach(machine.id(), machine.state(), Plan::Record);
        for path in *paths {
            machine.call(200, "GET", path, "");
        }
        machine.kill();
        let steps = tracer.finish().steps;
        assert!(steps.is_empty(), "{method}: {steps:?}");
    }
}
