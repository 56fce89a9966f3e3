//! Files of a cluster: written whole or not at all, and readable by their owner only, since many are keys.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Writes a file anew.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let name = path.file_name().context("a file has a name")?;
    let unfinished = path.with_file_name(format!("{}.unfinished", name.to_string_lossy()));
    let write = || -> std::io::Result<()> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?
            .write_all(text.as_bytes())?;
        std::fs::rename(&unfinished, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Writes a value as JSON, which every program that reads YAML reads too.
pub(crate) fn write_json(path: &Path, value: &Value) -> anyhow::Result<()> {
    write_private(path, &format!("{value:#}\n"))
}

/// Writes something of ours as JSON.
pub(crate) fn store<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let text =
        serde_json::to_string_pretty(value).with_context(|| format!("write {}", path.display()))?;
    write_private(path, &text)
}

/// Reads what [`store`] wrote; nothing when there is no such file.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let value = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    Ok(Some(value))
}

/// What is in a directory, in order; nothing when it is not there.
pub(crate) fn entries(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let look = || -> std::io::Result<Vec<PathBuf>> {
        let mut found = std::fs::read_dir(directory)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<Vec<_>>>()?;
        found.sort_unstable();
        Ok(found)
    };
    match look() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        ended => ended.with_context(|| format!("look into {}", directory.display())),
    }
}

/// The last part of a path, when it is text.
pub(crate) fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}
