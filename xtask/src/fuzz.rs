//! `cargo xtask fuzz`: every fuzz target of `fuzz/` for a minute, with libFuzzer.
//!
//! The targets are programs of their own, in a package outside the workspace: they need a nightly compiler and an
//! instrumented build of everything. What a run learns goes to `target/fuzz`; the committed corpus is only read. An
//! input that breaks a target stays in `fuzz/artifacts` for a look.

use std::path::Path;

use anyhow::{Context, bail};

use crate::checkout::Checkout;
use crate::command::{Run, on_path};
use crate::setup;

/// Of one target, unless the caller says otherwise.
const SECONDS: u32 = 60;
/// Longest input: several times the longest useful one, and short enough for many runs.
const INPUT_BYTES_MAX: u32 = 4096;
/// An input that takes longer is a finding.
const INPUT_SECONDS_MAX: u32 = 5;

/// Runs all targets, or those named; `--seconds N` makes it shorter or longer.
pub(crate) fn run(checkout: &Checkout, arguments: &[String]) -> anyhow::Result<()> {
    let (seconds, named) = read(arguments)?;
    let root = checkout.root();
    let known = targets(root)?;
    if let Some(unknown) = named.iter().find(|name| !known.contains(name)) {
        bail!(
            "there is no fuzz target '{unknown}'\nhint: there are {}",
            known.join(", ")
        );
    }
    needs_nightly()?;
    let program = setup::cargo_fuzz()?;
    let chosen = if named.is_empty() { &known } else { &named };
    for target in chosen {
        println!("\n==> fuzz {target}, {seconds} s");
        let learned = root.join("target/fuzz").join(target);
        std::fs::create_dir_all(&learned)
            .with_context(|| format!("create {}", learned.display()))?;
        Run::new(&program)
            .arguments(["run", target])
            .argument(&learned)
            .argument(root.join("fuzz/corpus").join(target))
            .arguments(["--", "-print_final_stats=1", "-verbosity=0"])
            .argument(format!("-max_total_time={seconds}"))
            .argument(format!("-max_len={INPUT_BYTES_MAX}"))
            .argument(format!("-timeout={INPUT_SECONDS_MAX}"))
            // Over the version that rust-toolchain.toml names.
            .environment("RUSTUP_TOOLCHAIN", "nightly")
            .within(root)
            .finish()
            .with_context(|| format!("fuzz target {target}"))?;
    }
    Ok(())
}

fn read(arguments: &[String]) -> anyhow::Result<(u32, Vec<String>)> {
    let mut seconds = SECONDS;
    let mut named = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--seconds" {
            let value = arguments.next().context("--seconds needs a number")?;
            seconds = value.parse().context("--seconds needs a number")?;
        } else {
            named.push(argument.clone());
        }
    }
    Ok((seconds, named))
}

/// Each file in `fuzz/fuzz_targets` is a target of its name.
fn targets(root: &Path) -> anyhow::Result<Vec<String>> {
    let directory = root.join("fuzz/fuzz_targets");
    let mut targets = Vec::new();
    for entry in std::fs::read_dir(&directory).context("list the fuzz targets")? {
        let path = entry.context("list the fuzz targets")?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str());
        targets.push(name.context("a target has a name")?.to_owned());
    }
    targets.sort_unstable();
    Ok(targets)
}

fn needs_nightly() -> anyhow::Result<()> {
    const HINT: &str =
        "hint: run 'rustup toolchain install nightly --profile minimal', then this again";
    if on_path("rustup").is_none() {
        bail!("fuzzing needs rustup with a nightly toolchain, and there is no rustup\n{HINT}");
    }
    let installed = Run::new("rustup")
        .arguments(["toolchain", "list"])
        .output()?;
    if !installed
        .lines()
        .any(|line| line.starts_with("nightly-") || line.starts_with("nightly "))
    {
        bail!(
            "fuzzing needs a nightly toolchain: libFuzzer's instrumentation is not in the stable one\n{HINT}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // A target without a corpus starts from nothing in every run.
    #[test]
    fn every_fuzz_target_has_a_corpus_and_a_manifest_entry() {
        let checkout = Checkout::find().expect("a working copy");
        let manifest =
            std::fs::read_to_string(checkout.root().join("fuzz/Cargo.toml")).expect("a manifest");
        let targets = targets(checkout.root()).expect("targets");
        assert!(!targets.is_empty());
        for target in targets {
            let corpus = checkout.root().join("fuzz/corpus").join(&target);
            assert!(
                std::fs::read_dir(corpus).is_ok_and(|mut files| files.next().is_some()),
                "{target}"
            );
            assert!(
                manifest.contains(&format!("name = \"{target}\"")),
                "{target}"
            );
        }
    }
}
