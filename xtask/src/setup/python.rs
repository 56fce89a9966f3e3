//! schemathesis, which calls every operation of the REST API with input made from its OpenAPI document.
//!
//! It lives in a Python environment of its own, built from `xtask/schemathesis/requirements.txt`: exact versions with hashes. A
//! copy of that list inside the environment, written last, says that it is complete.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::cache;
use super::debian;
use crate::checkout::Checkout;
use crate::command::Run;

const NAME: &str = "schemathesis";
const VERSION: &str = "4.32.5";

/// The list of packages, from the root of the working copy.
const LIST: &str = "xtask/schemathesis/requirements.txt";

/// The path of the program.
pub(crate) fn schemathesis() -> anyhow::Result<PathBuf> {
    Ok(cache::tool_directory(NAME, VERSION)?.join("bin").join(NAME))
}

/// Builds the environment unless it is there and complete.
pub(super) fn install_if_missing(checkout: &Checkout) -> anyhow::Result<()> {
    let directory = cache::tool_directory(NAME, VERSION)?;
    let wanted = std::fs::read_to_string(checkout.root().join(LIST))
        .with_context(|| format!("read {LIST}"))?;
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
    println!("setup: installing {NAME} {VERSION}");
    Run::new("python3")
        .arguments(["-m", "venv", "--clear"])
        .argument(&directory)
        .finish()?;
    Run::new(directory.join("bin/pip"))
        .arguments([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "--requirement",
        ])
        .argument(checkout.root().join(LIST))
        .finish()
        .with_context(|| format!("install {NAME} {VERSION}"))?;
    std::fs::write(marker(&directory), wanted).with_context(|| format!("mark {NAME} as complete"))
}

fn is_complete(directory: &Path, wanted: &str) -> bool {
    let program = directory.join("bin").join(NAME);
    program.is_file()
        && std::fs::read_to_string(marker(directory)).is_ok_and(|found| found == wanted)
}

fn marker(directory: &Path) -> PathBuf {
    directory.join("complete.txt")
}
