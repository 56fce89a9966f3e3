//! `llvm-profdata` and `llvm-cov`, of the LLVM that rustc was built with: they read what instrumented tests write.
//!
//! They come from the toolchain's own component `llvm-tools`; where rustup cannot download it, from Debian's package
//! `llvm-N` of the same major version, whose formats are the same.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::debian::{self, Package};
use crate::command::{Run, on_path};

/// The two programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CoverageTools {
    pub(crate) llvm_cov: PathBuf,
    pub(crate) llvm_profdata: PathBuf,
}

// === impl CoverageTools ===

impl CoverageTools {
    /// Finds them, installing what is missing.
    pub(crate) fn find_or_install() -> anyhow::Result<Self> {
        let rustc = Rustc::ask()?;
        if let Some(tools) = Self::find(&rustc) {
            return Ok(tools);
        }
        if on_path("rustup").is_some() {
            println!("setup: adding the component llvm-tools to the Rust toolchain");
            let added = Run::new("rustup")
                .arguments(["component", "add", "llvm-tools"])
                .finish();
            if let Some(tools) = Self::find(&rustc) {
                return Ok(tools);
            }
            if let Err(error) = added {
                println!("setup: {error:#}; trying the package of the distribution");
            }
        }
        let package = format!("llvm-{}", rustc.llvm_major);
        let program = format!("llvm-profdata-{}", rustc.llvm_major);
        debian::install_missing(&[Package {
            program: &program,
            name: &package,
        }])?;
        let Some(tools) = Self::find(&rustc) else {
            bail!(
                "coverage needs llvm-profdata and llvm-cov of LLVM {}\n\
                 hint: run 'rustup component add llvm-tools'",
                rustc.llvm_major
            );
        };
        Ok(tools)
    }

    fn find(rustc: &Rustc) -> Option<Self> {
        let component = rustc.libraries.join("bin");
        let of_toolchain = Self {
            llvm_cov: component.join("llvm-cov"),
            llvm_profdata: component.join("llvm-profdata"),
        };
        if of_toolchain.llvm_cov.is_file() && of_toolchain.llvm_profdata.is_file() {
            return Some(of_toolchain);
        }
        Some(Self {
            llvm_cov: on_path(&format!("llvm-cov-{}", rustc.llvm_major))?,
            llvm_profdata: on_path(&format!("llvm-profdata-{}", rustc.llvm_major))?,
        })
    }
}

/// What rustc says about itself.
#[derive(Debug)]
struct Rustc {
    llvm_major: String,
    /// `lib/rustlib/HOST` of the toolchain.
    libraries: PathBuf,
}

impl Rustc {
    fn ask() -> anyhow::Result<Self> {
        let about = Run::new("rustc")
            .arguments(["--version", "--verbose"])
            .output()?;
        let sysroot = Run::new("rustc")
            .arguments(["--print", "sysroot"])
            .output()?;
        Self::read(&about, Path::new(sysroot.trim()))
            .context("rustc does not say its host and its LLVM")
    }

    fn read(about: &str, sysroot: &Path) -> Option<Self> {
        let value = |name: &str| {
            about
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let (llvm_major, _) = value("LLVM version:")?.split_once('.')?;
        let libraries = sysroot.join("lib/rustlib").join(value("host:")?);
        Some(Self {
            llvm_major: llvm_major.to_owned(),
            libraries,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustc_names_its_llvm_and_its_host() {
        let about = "rustc 1.95.0 (5980 2026-04-14)\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.2\n";
        let rustc = Rustc::read(about, Path::new("/t")).expect("both are there");
        assert_eq!(rustc.llvm_major, "22");
        assert_eq!(
            rustc.libraries,
            Path::new("/t/lib/rustlib/x86_64-unknown-linux-gnu")
        );
        assert!(Rustc::read("rustc 1.95.0\n", Path::new("/t")).is_none());
    }
}
