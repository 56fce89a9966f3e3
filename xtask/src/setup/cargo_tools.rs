//! Tools that cargo builds from source, each pinned to one version and kept in a directory of its own.

use std::path::PathBuf;

use anyhow::Context;

use super::cache;
use crate::command::Run;

/// Checks what the product is built from.
pub(crate) const CARGO_DENY: CargoTool = CargoTool {
    name: "cargo-deny",
    program: "cargo-deny",
    version: "0.20.2",
};

/// Measures which lines the tests run.
pub(crate) const CARGO_LLVM_COV: CargoTool = CargoTool {
    name: "cargo-llvm-cov",
    program: "cargo-llvm-cov",
    version: "0.9.1",
};

/// Runs the fuzz targets.
pub(crate) const CARGO_FUZZ: CargoTool = CargoTool {
    name: "cargo-fuzz",
    program: "cargo-fuzz",
    version: "0.13.2",
};

/// Walks a disk, as the peer of `nagi disk`.
pub(crate) const PDU: CargoTool = CargoTool {
    name: "parallel-disk-usage",
    program: "pdu",
    version: "0.24.0",
};

/// A tool that cargo builds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CargoTool {
    /// Its package.
    pub(crate) name: &'static str,
    /// Its program.
    pub(crate) program: &'static str,
    /// The one version that is used.
    pub(crate) version: &'static str,
}

// === impl CargoTool ===

impl CargoTool {
    /// The path of its program.
    pub(crate) fn program(self) -> anyhow::Result<PathBuf> {
        Ok(cache::tool_directory(self.name, self.version)?
            .join("bin")
            .join(self.program))
    }

    /// Builds it unless it is there.
    pub(super) fn install_if_missing(self) -> anyhow::Result<()> {
        if self.program()?.is_file() {
            return Ok(());
        }
        println!(
            "setup: building {} {} (a few minutes, once)",
            self.name, self.version
        );
        let directory = cache::tool_directory(self.name, self.version)?;
        Run::cargo()
            .arguments([
                "install",
                "--locked",
                "--quiet",
                "--version",
                self.version,
                "--root",
            ])
            .argument(&directory)
            .argument(self.name)
            // Cargo says that the directory is not on the PATH; it need not be, tasks call the program by its path.
            .finish()
            .with_context(|| format!("install {} {}", self.name, self.version))
    }
}
