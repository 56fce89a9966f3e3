//! `cargo xtask tidy`: the rules of the tree that no compiler knows.
//!
//! Each rule is a pure function from text or metadata to [`Finding`]s, in a file of its own under `tidy/`, with a
//! test that breaks it once. This file gathers what the rules look at, calls them all and prints what they found.
//!
//! Rules that clippy or cargo-deny can hold are in `clippy.toml` and `deny.toml`, not here.

mod heads;
mod layers;
mod layout;
mod lengths;
mod links;
mod literals;
mod manifests;
mod marks;
mod names;
mod requirements;
mod twins;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, bail};

use crate::checkout::{Checkout, TextFile, extension};
use crate::command::Run;
use crate::docs;
use crate::markdown;
use crate::tokens;
use requirements::Ids;

/// The option that stamps the Japanese twins anew.
const ACCEPT_TWINS: &str = "--accept-twins";

/// Something that breaks a rule, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// The file, from the root of the working copy.
    pub(crate) path: String,
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// The short name of the rule.
    pub(crate) rule: &'static str,
    /// What is wrong and what to do.
    pub(crate) advice: String,
}

/// Everything that the rules look at.
struct Tree {
    paths: Vec<String>,
    sources: Vec<TextFile>,
    manifests: Vec<TextFile>,
    pages: Vec<TextFile>,
    scripts: Vec<TextFile>,
}

/// Checks every rule, or with `--accept-twins [PAGE…]` stamps the Japanese twins anew.
pub(crate) fn run(checkout: &Checkout, arguments: &[String]) -> anyhow::Result<()> {
    match arguments.split_first() {
        None => report(check(checkout)?),
        Some((first, pages)) if first == ACCEPT_TWINS => accept_twins(checkout, pages),
        Some((first, _)) => bail!("tidy knows no '{first}'\nhint: it knows {ACCEPT_TWINS} [PAGE…]"),
    }
}

fn report(mut findings: Vec<Finding>) -> anyhow::Result<()> {
    findings.sort_unstable();
    findings.dedup();
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("tidy: 1 finding"),
        count => bail!("tidy: {count} findings"),
    }
}

fn check(checkout: &Checkout) -> anyhow::Result<Vec<Finding>> {
    let tree = Tree::read(checkout)?;
    let mut findings = layers::check(&metadata(checkout)?, checkout.root());
    findings.extend(names::check(&tree.paths, &tree.sources));
    findings.extend(layout::check(
        &tree.paths,
        &checkout.read(&tree.paths, layout::wants)?,
    ));
    findings.extend(lengths::check(&tree.sources));
    findings.extend(tree.sources.iter().filter_map(heads::check));
    findings.extend(tree.manifests.iter().flat_map(manifests::check));
    findings.extend(check_pieces(&tree));
    let hashes = hashes(checkout, &tree.pages)?;
    findings.extend(twins::check(&twin_pages(&tree.pages, &hashes)));
    let pages: BTreeMap<&str, markdown::Page> = tree
        .pages
        .iter()
        .map(|page| (page.path.as_str(), markdown::Page::read(&page.text)))
        .collect();
    findings.extend(links::check(&pages, &tree.paths));
    Ok(findings)
}

/// The rules that look at pieces of Rust files, and the requirement ids everywhere.
fn check_pieces(tree: &Tree) -> Vec<Finding> {
    let ids = Ids::read(crate::requirements::LIST);
    let mut findings = Vec::new();
    let pieces: Vec<(&str, Vec<tokens::Piece<'_>>)> = tree
        .sources
        .iter()
        .map(|file| (file.path.as_str(), tokens::pieces(file)))
        .collect();
    for (path, pieces) in &pieces {
        findings.extend(marks::check(path, pieces));
        // The rule's own file and its tests talk about ids that do not exist.
        if !path.starts_with("xtask/") {
            findings.extend(ids.check_comments(path, pieces));
        }
    }
    findings.extend(literals::check(&pieces));
    findings.extend(
        tree.pages
            .iter()
            .chain(&tree.scripts)
            .flat_map(|file| ids.check_page(file)),
    );
    findings
}

fn accept_twins(checkout: &Checkout, wanted: &[String]) -> anyhow::Result<()> {
    let tree = Tree::read(checkout)?;
    let stamped = twins::accept(&twin_pages(&tree.pages, &hashes(checkout, &tree.pages)?));
    for twin in stamped {
        if wanted.is_empty() || wanted.contains(&twin.path) {
            std::fs::write(checkout.root().join(&twin.path), twin.text)
                .with_context(|| format!("write {}", twin.path))?;
            println!("stamped {}", twin.path);
        }
    }
    Ok(())
}

fn twin_pages<'a>(pages: &'a [TextFile], hashes: &'a [String]) -> Vec<twins::Page<'a>> {
    pages
        .iter()
        .zip(hashes)
        .map(|(page, hash)| twins::Page {
            path: &page.path,
            text: &page.text,
            hash,
            commands: docs::commands(&markdown::Page::read(&page.text)),
        })
        .collect()
}

/// What `git hash-object` prints for each page.
fn hashes(checkout: &Checkout, pages: &[TextFile]) -> anyhow::Result<Vec<String>> {
    if pages.is_empty() {
        return Ok(Vec::new());
    }
    let listing = Run::new("git")
        .arguments(["hash-object", "--"])
        .arguments(pages.iter().map(|page| &page.path))
        .within(checkout.root())
        .output()?;
    Ok(listing.lines().map(str::to_owned).collect())
}

fn metadata(checkout: &Checkout) -> anyhow::Result<cargo_metadata::Metadata> {
    let text = Run::cargo()
        .arguments([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .within(checkout.root())
        .output()?;
    cargo_metadata::MetadataCommand::parse(text).context("read what 'cargo metadata' printed")
}

// === impl Tree ===

impl Tree {
    fn read(checkout: &Checkout) -> anyhow::Result<Self> {
        let paths = checkout.paths()?;
        let sources = checkout.read(&paths, |path| extension(path) == Some("rs"))?;
        let manifests = checkout.read(&paths, |path| {
            path == "Cargo.toml" || path.ends_with("/Cargo.toml")
        })?;
        let pages = checkout.read(&paths, |path| extension(path) == Some("md"))?;
        let scripts = checkout.read(&paths, |path| {
            matches!(extension(path), Some("sh" | "yml" | "yaml"))
        })?;
        Ok(Self {
            paths,
            sources,
            manifests,
            pages,
            scripts,
        })
    }
}

// === impl Finding ===

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}:{}: {}: {}",
            self.path, self.line, self.rule, self.advice
        )
    }
}
