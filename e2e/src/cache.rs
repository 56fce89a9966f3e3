//! Where developer tools, their builds and running clusters are kept: a directory outside the clone.
//!
//! `NAGI_CACHE`, by default `nagi` below `XDG_CACHE_HOME` or `~/.cache`: a clone is deleted, a cache stays.

use std::path::PathBuf;

use anyhow::Context;

/// Overrides the directory for downloaded and built developer tools.
const CACHE_VARIABLE: &str = "NAGI_CACHE";

/// Where tools are that were downloaded or built for developers, each in a directory of its own.
pub fn tools() -> anyhow::Result<PathBuf> {
    Ok(directory()?.join("tools"))
}

/// The directory; it may not exist yet.
#[expect(
    clippy::disallowed_methods,
    reason = "where the person who runs the task keeps caches"
)]
pub fn directory() -> anyhow::Result<PathBuf> {
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
