//! Tools from the Python registry, each in an environment of its own: schemathesis, which calls every operation of the REST
//! API with input made from its OpenAPI document, and a Go toolchain where the machine has none.
//!
//! An environment is built from a list of exact versions with hashes. A copy of that list inside it, written last, says
//! that it is complete.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::cache;
use super::debian;
use crate::checkout::Checkout;
use crate::command::Run;

const SCHEMATHESIS: Environment = Environment {
    name: "schemathesis",
    version: "4.32.5",
    list: "xtask/schemathesis/requirements.txt",
};

/// The name is where the harness looks for a toolchain.
const GO: Environment = Environment {
    name: nagi_e2e::go::INSTALLED,
    version: "1.26.6",
    list: "xtask/go-toolchain/requirements.txt",
};

/// An environment of one tool.
#[derive(Debug, Clone, Copy)]
struct Environment {
    name: &'static str,
    version: &'static str,
    /// The list of packages, from the root of the working copy.
    list: &'static str,
}

/// The path of the program schemathesis.
pub(crate) fn schemathesis() -> anyhow::Result<PathBuf> {
    let name = SCHEMATHESIS.name;
    Ok(SCHEMATHESIS.directory()?.join("bin").join(name))
}

/// Builds the environment of schemathesis unless it is there and complete.
pub(super) fn install_schemathesis(checkout: &Checkout) -> anyhow::Result<()> {
    SCHEMATHESIS.install_if_missing(checkout)
}

/// Installs a Go toolchain unless the machine has one that is new enough.
pub(super) fn install_go(checkout: &Checkout) -> anyhow::Result<()> {
    if nagi_e2e::go::find().is_ok() {
        return Ok(());
    }
    GO.install_if_missing(checkout)?;
    nagi_e2e::go::find().map(drop)
}

// === impl Environment ===

impl Environment {
    fn directory(self) -> anyhow::Result<PathBuf> {
        cache::tool_directory(self.name, self.version)
    }

    fn install_if_missing(self, checkout: &Checkout) -> anyhow::Result<()> {
        let Self {
            name,
            version,
            list,
        } = self;
        let directory = self.directory()?;
        let wanted = std::fs::read_to_string(checkout.root().join(list))
            .with_context(|| format!("read {list}"))?;
        if is_complete(&directory, &wanted) {
            return Ok(());
        }
        let has_venv = Run::new("python3")
            .arguments(["-c", "import ensurepip, venv"])
            .quiet()
            .finish()
            .is_ok();
        if !has_venv {
            debian::install(&["python3-venv"])?;
        }
        eprintln!("setup: installing {name} {version}");
        Run::new("python3")
            .arguments(["-m", "venv", "--clear"])
            .argument(&directory)
            .aside()
            .finish()?;
        Run::new(directory.join("bin/pip"))
            .arguments([
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--require-hashes",
                "--requirement",
            ])
            .argument(checkout.root().join(list))
            .aside()
            .finish()
            .with_context(|| format!("install {name} {version}"))?;
        std::fs::write(marker(&directory), wanted)
            .with_context(|| format!("mark {name} as complete"))
    }
}

fn is_complete(directory: &Path, wanted: &str) -> bool {
    std::fs::read_to_string(marker(directory)).is_ok_and(|found| found == wanted)
}

fn marker(directory: &Path) -> PathBuf {
    directory.join("complete.txt")
}
