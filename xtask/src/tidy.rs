//! `cargo xtask tidy`: the rules of the tree that no compiler knows.
//!
//! Each rule is a pure function from text or metadata to [`Finding`]s, in a file of its own under `tidy/`, with a
//! test that breaks it once. This file gathers what the rules look at, calls them all and prints what they found.
//!
//! Rules that clippy or cargo-deny can hold are in `clippy.toml` and `deny.toml`, not here.

mod heads;
mod layers;
mod names;

use std::fmt;

use anyhow::{Context, bail};

use crate::checkout::{Checkout, extension};
use crate::command::Run;

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

/// Checks every rule.
pub(crate) fn run(checkout: &Checkout, arguments: &[String]) -> anyhow::Result<()> {
    if let Some(argument) = arguments.first() {
        bail!("tidy knows no '{argument}'\nhint: 'cargo xtask tidy' checks everything");
    }
    let mut findings = check(checkout)?;
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
    let paths = checkout.paths()?;
    let sources = checkout.read(&paths, |path| extension(path) == Some("rs"))?;
    let mut findings = layers::check(&metadata(checkout)?, checkout.root());
    findings.extend(names::check(&paths, &sources));
    findings.extend(sources.iter().filter_map(heads::check));
    Ok(findings)
}

fn metadata(checkout: &Checkout) -> anyhow::Result<cargo_metadata::Metadata> {
    let text = Run::cargo()
        .arguments([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
            "--locked",
        ])
        .within(checkout.root())
        .output()?;
    cargo_metadata::MetadataCommand::parse(text).context("read what 'cargo metadata' printed")
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
