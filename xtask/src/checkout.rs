//! The working copy that the tasks look at: where it is, which files belong to it, where caches go.
//!
//! "Belongs" is what git says: tracked, or new and not ignored. So build output and editors' droppings never
//! reach a check, and a new file is checked before it is added.
//!
//! It reads the working copy and never writes to it; what tasks write lies below `target/`.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::command::Run;

/// The working copy.
#[derive(Debug)]
pub(crate) struct Checkout {
    root: PathBuf,
}

/// A text file of the working copy.
#[derive(Debug, Clone)]
pub(crate) struct TextFile {
    /// Path from the root of the working copy, with `/` between its parts.
    pub(crate) path: String,
    /// Its content, read as UTF-8.
    pub(crate) text: String,
}

/// The extension of a path, without the dot.
pub(crate) fn extension(path: &str) -> Option<&str> {
    Path::new(path).extension()?.to_str()
}

/// Removes a directory that a task made below `target/`; one that is not there is removed already.
#[expect(
    clippy::disallowed_methods,
    reason = "removes what a task wrote itself"
)]
pub(crate) fn remove_directory(directory: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

// === impl Checkout ===

impl Checkout {
    /// Finds the working copy that this program was built from.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest
            .parent()
            .context("the directory of xtask has no parent")?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Its root directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The paths of all its files, in order.
    pub(crate) fn paths(&self) -> anyhow::Result<Vec<String>> {
        let listing = Run::new("git")
            .arguments([
                "ls-files",
                "--cached",
                "--others",
                "--exclude-standard",
                "-z",
            ])
            .within(&self.root)
            .output()?;
        let mut paths: Vec<String> = listing
            .split('\0')
            .filter(|path| !path.is_empty())
            // A file that was deleted but not yet from the index is still listed.
            .filter(|path| self.root.join(path).symlink_metadata().is_ok())
            .map(str::to_owned)
            .collect();
        paths.sort_unstable();
        paths.dedup();
        Ok(paths)
    }

    /// Reads those of `paths` that `wanted` accepts.
    pub(crate) fn read(
        &self,
        paths: &[String],
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<Vec<TextFile>> {
        paths
            .iter()
            .filter(|path| wanted(path))
            .map(|path| {
                let text = std::fs::read_to_string(self.root.join(path))
                    .with_context(|| format!("read {path}"))?;
                Ok(TextFile {
                    path: path.clone(),
                    text,
                })
            })
            .collect()
    }
}
