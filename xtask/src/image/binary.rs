//! The binary of the image: static, and the same wherever it was built.
//!
//! Three kinds of paths would reach it through panic messages: of the working copy, of the crates that Cargo unpacked,
//! and of the standard library where its source is installed. All are mapped to fixed ones, and the result is searched
//! for what is left of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cargo_metadata::Metadata;

use crate::checkout::Checkout;
use crate::command::Run;
use crate::setup;

/// Flags for rustc travel in this variable, separated by [`SEPARATOR`]: paths may hold blanks.
const FLAGS_VARIABLE: &str = "CARGO_ENCODED_RUSTFLAGS";
const SEPARATOR: &str = "\u{1f}";

/// Type of the program header that names a dynamic loader (`PT_INTERP`).
const INTERPRETER: u32 = 3;

/// The target of the image on this machine.
pub(super) fn target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// Builds the binary from the files below `root`, which is the working copy or a copy of it.
pub(super) fn build(checkout: &Checkout, root: &Path) -> anyhow::Result<PathBuf> {
    let target = target();
    setup::for_image(checkout, &target)?;
    let paths = paths(root, &metadata(root)?)?;
    let flags: Vec<String> = paths
        .iter()
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .collect();
    Run::cargo()
        .arguments(["build", "--release", "--locked", "--package", "nagi-cli"])
        .arguments(["--target", target.as_str()])
        .environment(FLAGS_VARIABLE, flags.join(SEPARATOR))
        .within(root)
        .finish()?;
    let binary = root.join("target").join(target).join("release/nagi");
    let bytes = std::fs::read(&binary).with_context(|| format!("read {}", binary.display()))?;
    if !is_static(&bytes)? {
        bail!(
            "{} asks for a dynamic loader, and the image has none",
            binary.display()
        );
    }
    for (from, _) in &paths {
        // With the slash: /build is no trace in /builder.
        let trace = format!("{}/", from.display());
        if holds(&bytes, trace.as_bytes()) {
            bail!(
                "{} tells that it was built with {trace}, so a build elsewhere would differ",
                binary.display()
            );
        }
    }
    Ok(binary)
}

/// What the package `nagi-cli` is built from, for the target of the image.
pub(super) fn metadata(root: &Path) -> anyhow::Result<Metadata> {
    let text = Run::cargo()
        .arguments(["metadata", "--format-version=1", "--locked"])
        .arguments(["--filter-platform", target().as_str()])
        .within(root)
        .output()?;
    cargo_metadata::MetadataCommand::parse(text).context("read what 'cargo metadata' printed")
}

/// Directories of this machine, and what the binary calls them.
fn paths(root: &Path, metadata: &Metadata) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut unpacked: Vec<PathBuf> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_some())
        .filter_map(|package| package.manifest_path.parent()?.parent())
        .map(|directory| directory.as_std_path().to_owned())
        .collect();
    unpacked.sort_unstable();
    unpacked.dedup();
    let version = Run::new("rustc").argument("-vV").within(root).output()?;
    let commit = version
        .lines()
        .find_map(|line| line.strip_prefix("commit-hash: "))
        .context("rustc tells its commit")?;
    let installed = Run::new("rustc")
        .arguments(["--print", "sysroot"])
        .within(root)
        .output()?;
    let library = Path::new(installed.trim()).join("lib/rustlib/src/rust");
    let mut paths = vec![
        (root.to_owned(), "/nagi".to_owned()),
        (library, format!("/rustc/{commit}")),
    ];
    paths.extend(
        unpacked
            .into_iter()
            .map(|directory| (directory, "/crates".to_owned())),
    );
    Ok(paths)
}

fn holds(bytes: &[u8], trace: &[u8]) -> bool {
    bytes.windows(trace.len()).any(|window| window == trace)
}

/// Whether a 64-bit little-endian ELF program starts without a dynamic loader.
fn is_static(program: &[u8]) -> anyhow::Result<bool> {
    let number = |offset: usize, length: usize| -> anyhow::Result<usize> {
        let bytes = program
            .get(offset..offset.saturating_add(length))
            .context("the program ends too early")?;
        let value = bytes
            .iter()
            .rev()
            .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).context("an offset is too large")
    };
    if !program.starts_with(b"\x7fELF\x02\x01") {
        bail!("the program is no 64-bit little-endian ELF file");
    }
    let table = number(0x20, 8)?;
    let size = number(0x36, 2)?;
    for entry in 0..number(0x38, 2)? {
        let offset = table.saturating_add(entry.saturating_mul(size));
        if number(offset, 4)? == usize::try_from(INTERPRETER)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    // F18, A-166
    #[test]
    fn program_that_needs_a_loader_is_not_static() {
        let own = std::env::current_exe().expect("this test");
        let own = std::fs::read(own).expect("its bytes");
        assert!(!is_static(&own).expect("an ELF program"));
        let mut alone = b"\x7fELF\x02\x01".to_vec();
        alone.resize(0x40, 0);
        assert!(is_static(&alone).expect("an ELF header"));
        is_static(b"#!/bin/sh").expect_err("a script");
        is_static(b"\x7fELF\x02\x01").expect_err("a torn file");
    }

    #[test]
    fn trace_of_a_directory_is_found() {
        assert!(holds(b"panicked at /work/nagi/src", b"/work/nagi"));
        assert!(!holds(b"panicked at /nagi/src", b"/work/nagi"));
    }
}
