//! `cargo xtask setup`: installs what is missing on this machine, and nothing that is there.
//!
//! Rust itself comes by `rust-toolchain.toml`; here come Debian packages (when root; otherwise the exact command is
//! printed), the tools that read coverage, and pinned cargo and Python tools. Those go into a cache outside the
//! clone, `NAGI_CACHE`, by default `nagi` below `XDG_CACHE_HOME` or `~/.cache`: a clone is deleted, a cache stays.
//!
//! Each part looks first, so a second run does nothing and needs no network.

mod cache;
mod cargo_tools;
mod coverage_tools;
mod debian;
mod python;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::checkout::Checkout;
use crate::command::Run;

pub(crate) use cargo_tools::{CARGO_DENY, CARGO_LLVM_COV};
use cargo_tools::{CARGO_FUZZ, PDU};
pub(crate) use coverage_tools::CoverageTools;
pub(crate) use python::schemathesis;

/// Sets up everything that any task needs.
pub(crate) fn run(checkout: &Checkout, arguments: &[String]) -> anyhow::Result<()> {
    if let Some(argument) = arguments.first() {
        bail!("setup knows no '{argument}'\nhint: 'cargo xtask setup' sets up everything");
    }
    for_tests(checkout)
}

/// Sets up what `cargo xtask test` needs.
pub(crate) fn for_tests(checkout: &Checkout) -> anyhow::Result<()> {
    debian::install_missing(debian::FOR_TESTS)?;
    if debian::is_root()? {
        debian::install_missing(debian::FOR_TESTS_OF_ROOT)?;
    }
    progress("Debian packages");
    CoverageTools::find_or_install()?;
    progress("coverage tools");
    for tool in [CARGO_DENY, CARGO_LLVM_COV] {
        tool.install_if_missing()?;
        progress(&format!("{} {}", tool.name, tool.version));
    }
    python::install_schemathesis(checkout)?;
    progress("schemathesis");
    // All targets, not only this machine's: cargo-deny reads every manifest, and later steps work offline.
    Run::cargo()
        .arguments(["fetch", "--locked", "--quiet"])
        .within(checkout.root())
        .finish()?;
    progress("dependencies");
    Ok(())
}

/// Sets up what the container image is built with: Rust's standard library for `target`, and a C compiler for it.
pub(crate) fn for_image(checkout: &Checkout, target: &str) -> anyhow::Result<()> {
    debian::install_missing(debian::FOR_IMAGE)?;
    let installed = Run::new("rustc")
        .arguments(["--print", "sysroot"])
        .within(checkout.root())
        .output()?;
    let library = Path::new(installed.trim()).join("lib/rustlib").join(target);
    if library.is_dir() {
        return Ok(());
    }
    Run::new("rustup")
        .arguments(["target", "add", target])
        .within(checkout.root())
        .finish()
        .with_context(|| format!("install Rust for {target}, which needs the network once"))
}

/// Sets up what builds a Dockerfile.
pub(crate) fn for_recipe() -> anyhow::Result<()> {
    debian::install_missing(debian::FOR_RECIPE)
}

/// Sets up what a cluster needs to be built and, as root, to have nodes.
pub(crate) fn for_cluster(checkout: &Checkout) -> anyhow::Result<()> {
    python::install_go(checkout)?;
    if debian::is_root()? {
        debian::install_missing(debian::FOR_CLUSTERS)?;
    }
    Ok(())
}

/// Sets up cargo-deny alone.
pub(crate) fn cargo_deny() -> anyhow::Result<()> {
    CARGO_DENY.install_if_missing()
}

/// Sets up the peer of `nagi disk`, and gives the path of its program.
pub(crate) fn pdu() -> anyhow::Result<PathBuf> {
    PDU.install_if_missing()?;
    PDU.program()
}

/// Sets up cargo-fuzz, which the tests do not need, and gives the path of its program.
pub(crate) fn cargo_fuzz() -> anyhow::Result<PathBuf> {
    CARGO_FUZZ.install_if_missing()?;
    CARGO_FUZZ.program()
}

fn progress(what: &str) {
    println!("setup: {what}: ok");
}
