//! What the binary was built from, as a `CycloneDX` document that scanners read.
//!
//! It lists the crates that are linked in, by version and licence: what tests and build scripts use is left out. It
//! holds no time and no serial number, so the same lock file gives the same document.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use cargo_metadata::{DependencyKind, Metadata, PackageId};
use serde_json::{Value, json};

use crate::checkout::Checkout;
use crate::image::binary;

/// The package whose binary the image holds.
const PACKAGE: &str = "nagi-cli";

/// The document for the binary.
pub(super) fn of_binary(checkout: &Checkout) -> anyhow::Result<Vec<u8>> {
    let metadata = binary::metadata(checkout.root())?;
    serde_json::to_vec_pretty(&document(&metadata)?).context("write the list of components")
}

fn document(metadata: &Metadata) -> anyhow::Result<Value> {
    let links = links(metadata)?;
    let root = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == PACKAGE)
        .with_context(|| format!("find the package {PACKAGE}"))?;
    let linked = reachable(&links, &root.id);
    let reference = |id: &PackageId| {
        let package = &metadata[id];
        format!("pkg:cargo/{}@{}", package.name, package.version)
    };
    let component = |id: &PackageId, kind: &str| {
        let package = &metadata[id];
        let mut component = json!({
            "type": kind,
            "bom-ref": reference(id),
            "name": package.name.as_str(),
            "version": package.version.to_string(),
        });
        // Our own crates are in no registry: somebody else's may have their names there.
        if package.source.is_some() {
            component["purl"] = reference(id).into();
        }
        if let Some(licence) = &package.license {
            component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
        }
        component
    };
    // Sorted by name and version, not by an id that holds a path of this machine.
    let mut components: Vec<(String, Value, Value)> = linked
        .iter()
        .map(|id| {
            let mut needs: Vec<String> = links[*id].iter().map(|id| reference(id)).collect();
            needs.sort_unstable();
            let needs = json!({ "ref": reference(id), "dependsOn": needs });
            (reference(id), component(id, "library"), needs)
        })
        .collect();
    components.sort_by(|a, b| a.0.cmp(&b.0));
    let own = reference(&root.id);
    let listed: Vec<&Value> = components
        .iter()
        .filter(|(name, ..)| *name != own)
        .map(|(_, component, _)| component)
        .collect();
    let dependencies: Vec<&Value> = components.iter().map(|(.., needs)| needs).collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": component(&root.id, "application") },
        "components": listed,
        "dependencies": dependencies,
    }))
}

/// What each package links in, without what only its tests or its build script use.
fn links(metadata: &Metadata) -> anyhow::Result<BTreeMap<&PackageId, BTreeSet<&PackageId>>> {
    let resolved = metadata
        .resolve
        .as_ref()
        .context("cargo metadata resolves dependencies")?;
    Ok(resolved
        .nodes
        .iter()
        .map(|node| {
            let needs = node
                .deps
                .iter()
                .filter(|need| {
                    need.dep_kinds
                        .iter()
                        .any(|kind| kind.kind == DependencyKind::Normal)
                })
                .map(|need| &need.pkg)
                // A procedural macro runs in the compiler.
                .filter(|id| !is_macro(&metadata[*id]))
                .collect();
            (&node.id, needs)
        })
        .collect())
}

fn is_macro(package: &cargo_metadata::Package) -> bool {
    package
        .targets
        .iter()
        .any(cargo_metadata::Target::is_proc_macro)
}

fn reachable<'a>(
    links: &BTreeMap<&'a PackageId, BTreeSet<&'a PackageId>>,
    root: &'a PackageId,
) -> BTreeSet<&'a PackageId> {
    let mut found = BTreeSet::new();
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        if found.insert(id) {
            open.extend(links.get(id).into_iter().flatten());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    // F18: what is linked in is listed once, with its version and licence; what only tests or the compiler use is not.
    #[test]
    fn list_holds_what_is_linked_in_and_nothing_else() {
        let checkout = Checkout::find().expect("the working copy");
        let text = of_binary(&checkout).expect("the list");
        assert_eq!(
            text,
            of_binary(&checkout).expect("the list"),
            "the same again"
        );
        let text = String::from_utf8(text).expect("text");
        let root = checkout.root().to_str().expect("a path");
        assert!(!text.contains(root), "no path of this machine");
        let document: Value = serde_json::from_str(&text).expect("JSON");
        let components = document["components"].as_array().expect("components");
        let names: Vec<&str> = components
            .iter()
            .filter_map(|component| component["name"].as_str())
            .collect();
        for linked in ["tokio", "nagi-core", "hyper"] {
            assert_eq!(
                names.iter().filter(|name| **name == linked).count(),
                1,
                "{linked}"
            );
        }
        for other in [
            "jsonschema",
            "serde_derive",
            "xtask",
            "proptest",
            "nagi-testkit",
            "nagi-cli",
        ] {
            assert!(!names.contains(&other), "{other}");
        }
        for component in components {
            assert!(
                component["licenses"][0]["expression"].is_string(),
                "{component}"
            );
            assert!(component["version"].is_string(), "{component}");
        }
    }
}
