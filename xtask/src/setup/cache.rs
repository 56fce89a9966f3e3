//! Where tools are kept: a directory outside the clone.

use std::path::PathBuf;

use anyhow::Context;

/// Overrides the directory for downloaded and built developer tools.
const CACHE_VARIABLE: &str = "NAGI_CACHE";

/// The directory of one tool, for example `~/.cache/nagi/tools/cargo-deny-0.20.2`. It may not exist yet.
pub(super) fn tool_directory(name: &str, version: &str) -> anyhow::Result<PathBuf> {
    Ok(cache_directory()?
        .join("tools")
        .join(format!("{name}-{version}")))
}

#[expect(
    clippy::disallowed_methods,
    reason = "where the person who runs the task keeps caches"
)]
fn cache_directory() -> anyhow::Result<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable(CACHE_VARIABLE)
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("nagi")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/nagi")))
        .with_context(|| {
            format!("find a directory for tools: neither {CACHE_VARIABLE} nor HOME is set")
        })
}
