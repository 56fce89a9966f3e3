//! The disk of a node: a sparse file with an ext4 filesystem that holds something from the beginning.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::call::Call;

/// Two gigabytes on a busy disk.
const WRITE_LIMIT: Duration = Duration::from_mins(5);

/// Writes a filesystem of so many bytes with what is in a directory. The state of its files last changed when they were
/// written: no call of the kernel can say so, and who looks whether a file is old looks at both.
pub(super) fn write(disk: &Path, bytes: u64, tree: &Path) -> anyhow::Result<()> {
    let file = std::fs::File::create(disk).with_context(|| format!("create {}", disk.display()))?;
    file.set_len(bytes)
        .with_context(|| format!("make {} long", disk.display()))?;
    Call::new("mkfs.ext4")
        .arguments(["-q", "-F", "-d"])
        .argument(tree)
        .argument(disk)
        .limit(WRITE_LIMIT)
        .succeed()?;
    let mut commands = String::new();
    age(tree, tree, &mut commands)?;
    // It tells of mistakes and ends well all the same.
    let said = Call::new("debugfs")
        .arguments(["-w", "-f", "-"])
        .argument(disk)
        .input(commands)
        .limit(WRITE_LIMIT)
        .end()?;
    let is_good = |line: &str| line.starts_with("debugfs");
    if !said.status.success() || !said.errors.lines().all(is_good) {
        bail!(
            "debugfs cannot make the files of {} old: {}",
            disk.display(),
            said.errors
        );
    }
    Ok(())
}

fn age(tree: &Path, directory: &Path, commands: &mut String) -> anyhow::Result<()> {
    for path in crate::files::entries(directory)? {
        let metadata = path
            .symlink_metadata()
            .with_context(|| format!("look at {}", path.display()))?;
        if metadata.is_dir() {
            age(tree, &path, commands)?;
        } else if metadata.is_file() {
            let below = path.strip_prefix(tree).context("it lies below")?.display();
            writeln!(
                commands,
                "set_inode_field \"/{below}\" ctime @{}",
                metadata.mtime()
            )?;
        }
    }
    Ok(())
}
