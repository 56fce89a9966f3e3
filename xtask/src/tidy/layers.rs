//! The layers: which crate of the workspace may depend on which, and what each must never reach.
//!
//! [`LAYERS`], in `layers/table.rs`, is the one table. It is compared with the manifests as cargo reads them: normal and build
//! dependencies against one column, dev-dependencies against that column and a second one. A ban on an outside crate
//! holds for everything that a crate reaches through other crates of the workspace too.
//!
//! The rows of crates that do not exist yet are here already, so that their first manifest meets its limits.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::{Dependency, DependencyKind, Metadata, Package};

use super::Finding;
use table::{LAYERS, Layer, NOWHERE, Outside};

const RULE: &str = "layers";

/// The parts of the workspace's manifests that the rule looks at.
#[derive(Debug)]
struct Manifest {
    name: String,
    path: String,
    dependencies: Vec<Edge>,
}

#[derive(Debug, PartialEq, Eq)]
struct Edge {
    name: String,
    kind: EdgeKind,
    place: Place,
}

/// Where a dependency comes from: one from outside may be called like one of ours without its prefix (`kube`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Workspace,
    Outside,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EdgeKind {
    /// What the shipped crate depends on, its build script included.
    Shipped,
    /// What only its tests depend on.
    Tests,
}

/// Compares the manifests with the table.
pub(super) fn check(metadata: &Metadata, root: &Path) -> Vec<Finding> {
    let manifests: Vec<Manifest> = metadata
        .packages
        .iter()
        .map(|package| Manifest::of(package, root))
        .collect();
    compare(&manifests, LAYERS)
}

fn compare(manifests: &[Manifest], layers: &[Layer]) -> Vec<Finding> {
    let by_name: BTreeMap<&str, &Manifest> = manifests
        .iter()
        .map(|manifest| (manifest.name.as_str(), manifest))
        .collect();
    let mut findings = Vec::new();
    for manifest in manifests {
        let mut found = |advice: String| {
            findings.push(Finding {
                path: manifest.path.clone(),
                line: 1,
                rule: RULE,
                advice,
            });
        };
        let Some(layer) = layers.iter().find(|layer| layer.name == manifest.name) else {
            found(format!(
                "'{}' has no row: add it to LAYERS in xtask/src/tidy/layers/table.rs",
                manifest.name
            ));
            continue;
        };
        for edge in &manifest.dependencies {
            if edge.place == Place::Workspace {
                inside(layer, edge, &mut found);
            }
        }
        outside(layer, manifest, &by_name, &mut found);
        for edge in &manifest.dependencies {
            if let Some((name, instead)) = NOWHERE.iter().find(|(name, _)| *name == edge.name) {
                found(format!("'{name}' is used nowhere: use {instead}"));
            }
        }
    }
    findings
}

fn inside(layer: &Layer, edge: &Edge, found: &mut impl FnMut(String)) {
    let name = edge.name.as_str();
    let allowed = match edge.kind {
        EdgeKind::Shipped => layer.uses.contains(&name),
        EdgeKind::Tests => layer.uses.contains(&name) || layer.tests_use.contains(&name),
    };
    if !allowed {
        let whose = match edge.kind {
            EdgeKind::Shipped => "",
            EdgeKind::Tests => "the tests of ",
        };
        found(format!(
            "{whose}'{}' must not depend on '{name}': dependencies point down (ARCHITECTURE.md)",
            layer.name
        ));
    }
}

fn outside(
    layer: &Layer,
    manifest: &Manifest,
    by_name: &BTreeMap<&str, &Manifest>,
    found: &mut impl FnMut(String),
) {
    for (through, name) in reached(manifest, by_name) {
        let way = if through == manifest.name {
            String::new()
        } else {
            format!(" (through '{through}')")
        };
        match layer.outside {
            Outside::Only(allowed) if !allowed.contains(&name) => {
                found(format!(
                    "'{}' may use only {} from outside, not '{name}'{way}",
                    layer.name,
                    allowed.join(", ")
                ));
            }
            Outside::Never(groups) if groups.iter().any(|group| group.contains(&name)) => {
                found(format!("'{}' must never reach '{name}'{way}", layer.name));
            }
            Outside::Only(_) | Outside::Never(_) => {}
        }
    }
}

/// Everything from outside that `manifest` ships with, each with the crate that names it.
fn reached<'a>(
    manifest: &'a Manifest,
    by_name: &BTreeMap<&str, &'a Manifest>,
) -> BTreeSet<(&'a str, &'a str)> {
    let mut outside = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut queue = vec![manifest];
    while let Some(next) = queue.pop() {
        if !seen.insert(next.name.as_str()) {
            continue;
        }
        for edge in next
            .dependencies
            .iter()
            .filter(|edge| edge.kind == EdgeKind::Shipped)
        {
            match edge.place {
                Place::Workspace => queue.extend(by_name.get(edge.name.as_str())),
                Place::Outside => {
                    outside.insert((next.name.as_str(), edge.name.as_str()));
                }
            }
        }
    }
    outside
}

// === impl Manifest ===

impl Manifest {
    fn of(package: &Package, root: &Path) -> Self {
        let path = package.manifest_path.as_std_path();
        let path = path.strip_prefix(root).unwrap_or(path);
        Self {
            name: short(package.name.as_ref()),
            path: path.to_string_lossy().into_owned(),
            dependencies: package.dependencies.iter().map(Edge::of).collect(),
        }
    }
}

// === impl Edge ===

impl Edge {
    fn of(dependency: &Dependency) -> Self {
        let tests = dependency.kind == DependencyKind::Development;
        let kind = if tests {
            EdgeKind::Tests
        } else {
            EdgeKind::Shipped
        };
        let (name, place) = if dependency.path.is_some() {
            (short(&dependency.name), Place::Workspace)
        } else {
            (dependency.name.clone(), Place::Outside)
        };
        Self { name, kind, place }
    }
}

fn short(name: &str) -> String {
    name.strip_prefix("nagi-").unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Layer] = &[
        Layer {
            name: "core",
            uses: &[],
            tests_use: &["sim"],
            outside: Outside::Only(&["jiff"]),
        },
        Layer {
            name: "ports",
            uses: &["core"],
            tests_use: &[],
            outside: Outside::Never(&[&["hyper"]]),
        },
        Layer {
            name: "sim",
            uses: &["ports"],
            tests_use: &[],
            outside: Outside::Never(&[&["axum"]]),
        },
    ];

    fn manifest(name: &str, edges: &[(&str, EdgeKind)]) -> Manifest {
        let dependencies = edges
            .iter()
            .map(|(name, kind)| Edge {
                name: (*name).to_owned(),
                kind: *kind,
                place: if TABLE.iter().any(|layer| layer.name == *name) {
                    Place::Workspace
                } else {
                    Place::Outside
                },
            })
            .collect();
        Manifest {
            name: name.to_owned(),
            path: format!("crates/{name}/Cargo.toml"),
            dependencies,
        }
    }

    fn advice(manifests: &[Manifest]) -> Vec<String> {
        compare(manifests, TABLE)
            .into_iter()
            .map(|finding| finding.advice)
            .collect()
    }

    #[test]
    fn dependency_that_points_down_is_allowed() {
        let core = manifest("core", &[("jiff", EdgeKind::Shipped)]);
        let ports = manifest(
            "ports",
            &[("core", EdgeKind::Shipped), ("tokio", EdgeKind::Shipped)],
        );
        assert_eq!(advice(&[core, ports]), [""; 0]);
    }

    #[test]
    fn dependency_that_points_up_is_found() {
        let core = manifest("core", &[("ports", EdgeKind::Shipped)]);
        let found = advice(&[core, manifest("ports", &[])]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found
                .iter()
                .all(|advice| advice.contains("'core' must not depend on 'ports'")),
            "{found:?}"
        );
    }

    #[test]
    fn second_column_loosens_tests_only() {
        let sim = || manifest("sim", &[]);
        assert_eq!(
            advice(&[manifest("core", &[("sim", EdgeKind::Tests)]), sim()]),
            [""; 0]
        );
        assert_eq!(
            advice(&[manifest("core", &[("sim", EdgeKind::Shipped)]), sim()]).len(),
            1
        );
        assert_eq!(
            advice(&[manifest("ports", &[("sim", EdgeKind::Tests)]), sim()]).len(),
            1
        );
    }

    #[test]
    fn closed_list_of_outside_crates_is_closed() {
        let found = advice(&[manifest("core", &[("serde", EdgeKind::Shipped)])]);
        assert_eq!(
            found,
            ["'core' may use only jiff from outside, not 'serde'"]
        );
        assert_eq!(
            advice(&[manifest("core", &[("serde", EdgeKind::Tests)])]),
            [""; 0]
        );
    }

    #[test]
    fn banned_crate_is_found_through_another_crate() {
        let ports = manifest("ports", &[("axum", EdgeKind::Shipped)]);
        let sim = manifest("sim", &[("ports", EdgeKind::Shipped)]);
        assert_eq!(
            advice(&[ports, sim]),
            ["'sim' must never reach 'axum' (through 'ports')"]
        );
        assert_eq!(
            advice(&[manifest("ports", &[("hyper", EdgeKind::Shipped)])]),
            ["'ports' must never reach 'hyper'"]
        );
    }

    #[test]
    fn a_crate_from_outside_may_be_called_like_one_of_ours() {
        let mut ports = manifest("ports", &[("sim", EdgeKind::Shipped)]);
        assert_eq!(advice(&[manifest("sim", &[]), ports]).len(), 1);
        ports = manifest("ports", &[("sim", EdgeKind::Shipped)]);
        ports.dependencies[0].place = Place::Outside;
        assert_eq!(advice(&[manifest("sim", &[]), ports]), [""; 0]);
    }

    #[test]
    fn crate_that_is_used_nowhere_is_found_in_tests_too() {
        let found = advice(&[manifest("sim", &[("once_cell", EdgeKind::Tests)])]);
        assert_eq!(
            found,
            ["'once_cell' is used nowhere: use std::sync::OnceLock"]
        );
    }

    #[test]
    fn crate_without_a_row_is_found() {
        let found = advice(&[manifest("extras", &[])]);
        assert!(
            found
                .iter()
                .any(|advice| advice.contains("'extras' has no row")),
            "{found:?}"
        );
    }

    #[test]
    fn doubles_never_ship() {
        for double in ["testkit", "kube-double"] {
            // What measures the product is no part of it.
            let mut shipped = LAYERS.iter().filter(|layer| layer.name != "bench");
            assert!(
                shipped.all(|layer| !layer.uses.contains(&double)),
                "{double}"
            );
        }
    }

    #[test]
    fn table_itself_points_down_and_has_no_circle() {
        for (index, layer) in LAYERS.iter().enumerate() {
            for used in layer.uses.iter().chain(layer.tests_use) {
                let at = LAYERS.iter().position(|other| other.name == *used);
                assert!(
                    at.is_some_and(|at| at < index),
                    "{} uses {used}",
                    layer.name
                );
            }
        }
    }
}
