//! Where tools are kept: a directory outside the clone.

use std::path::PathBuf;

/// The directory of one tool, for example `~/.cache/nagi/tools/cargo-deny-0.20.2`. It may not exist yet.
pub(super) fn tool_directory(name: &str, version: &str) -> anyhow::Result<PathBuf> {
    Ok(nagi_e2e::cache::tools()?.join(format!("{name}-{version}")))
}
