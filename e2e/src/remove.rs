//! Removes what the harness made: directories below the cache, and nothing through a mount.

use std::path::Path;

use anyhow::{Context, bail};

/// Removes a directory with all that is in it; one that is not there is removed already.
///
/// A mount below it would be emptied instead of removed, so that is refused.
#[expect(
    clippy::disallowed_methods,
    reason = "removes what the harness wrote itself"
)]
pub(crate) fn remove_directory(directory: &Path) -> anyhow::Result<()> {
    if let Some(mount) = mounts_below(directory)?.first() {
        bail!("{mount} is still mounted, so {} stays", directory.display());
    }
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes one empty directory; one that is not there is removed already.
#[expect(
    clippy::disallowed_methods,
    reason = "removes what the harness wrote itself"
)]
pub(crate) fn remove_empty_directory(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What is mounted in this process' view below a directory, the deepest first.
pub(crate) fn mounts_below(directory: &Path) -> anyhow::Result<Vec<String>> {
    let table =
        std::fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(points_below(&table, directory))
}

fn points_below(table: &str, directory: &Path) -> Vec<String> {
    let mut found: Vec<String> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| point.replace("\\040", " "))
        .filter(|point| Path::new(point).starts_with(directory))
        .collect();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_directory_are_found_deepest_first() {
        let table = "22 1 8:1 / / rw - ext4 /dev/a rw\n23 22 0:5 / /run/a rw - tmpfs t rw\n\
            24 23 0:6 / /run/a/b\\040c rw - tmpfs t rw\n25 22 0:7 / /run/ab rw - tmpfs t rw\n";
        assert_eq!(
            points_below(table, Path::new("/run/a")),
            ["/run/a/b c", "/run/a"]
        );
    }
}
