//! Things beside everything that may go, which are nobody's to remove.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use nagi_e2e::call::Call;

use crate::history::{self, ARCHIVES, TWICE};
use crate::node::Node;

/// Files from the root of the node, and what a byte-wise comparison would compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoys(BTreeMap<PathBuf, String>);

/// Where a human keeps things.
pub(crate) const HOME: &str = "home/admin";

/// Those that a node has from the beginning. They are as old as what may go.
pub(crate) fn old(root: &Path) -> anyhow::Result<()> {
    let journals = history::own_journals(root);
    let other_machine = root.join("var/log/journal").join("f".repeat(32));
    let two_weeks_ago = SystemTime::now() - Duration::from_hours(24 * 14);
    let files = [
        root.join(ARCHIVES).join("mine.deb"),
        root.join(ARCHIVES).join("history-1_1.0-1_amd64.deb.bak"),
        root.join(ARCHIVES).join("notes.txt"),
        journals.join("user-notes.txt"),
        journals.join("system@no-number.journal~"),
        other_machine.join(history::archived(0, two_weeks_ago)?),
        root.join("var/crash/notes.txt"),
        root.join("var/lib/systemd/coredump/core.conf"),
        root.join(HOME).join("diary.txt"),
    ];
    for file in files {
        let parent = file.parent().context("it lies somewhere")?;
        std::fs::create_dir_all(parent)?;
        std::fs::write(&file, history::random(3000)?)?;
        history::is_of(&file, two_weeks_ago)?;
    }
    std::fs::hard_link(
        root.join(ARCHIVES).join(format!("{TWICE}_1.0-1_amd64.deb")),
        root.join(HOME).join("kept.deb"),
    )
    .context("give a package a second name")
}

// === impl Decoys ===

impl Decoys {
    /// What is on the node now that must be there afterwards, letter by letter.
    pub(crate) fn of(node: &Node) -> anyhow::Result<Self> {
        let root = node.root();
        let mut found = BTreeMap::new();
        for directory in [ARCHIVES, "var/crash", "var/lib/systemd/coredump", HOME] {
            for path in files_of(&root.join(directory))? {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let may_go = name.starts_with("history-") && name.ends_with("_amd64.deb");
                if !may_go {
                    found.insert(path.strip_prefix(&root)?.to_owned(), digest(&path)?);
                }
            }
        }
        for directory in std::fs::read_dir(root.join("var/log/journal"))? {
            for path in files_of(&directory?.path())? {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let is_foreign = !path.starts_with(history::own_journals(&root));
                if is_foreign || name.contains("notes") || name.ends_with('~') {
                    found.insert(path.strip_prefix(&root)?.to_owned(), digest(&path)?);
                }
            }
        }
        for (path, text) in node.volume_files()? {
            found.insert(path.strip_prefix(&root)?.to_owned(), text);
        }
        ensure!(
            found.len() >= 12,
            "there are decoys of every kind: {found:?}"
        );
        Ok(Self(found))
    }

    /// Fails unless all are as they were.
    pub(crate) fn check(&self, node: &Node) -> anyhow::Result<()> {
        let root = node.root();
        for (path, before) in &self.0 {
            let now = digest(&root.join(path))?;
            ensure!(*before == now, "{} has changed", path.display());
        }
        // The active journal grows, and is there.
        let active = history::own_journals(&root).join("system.journal");
        ensure!(active.is_file(), "the active journal is there");
        Ok(())
    }
}

// === impl Node ===

impl Node {
    /// What a pod of somebody else keeps on the node's disk.
    fn volume_files(&self) -> anyhow::Result<Vec<(PathBuf, String)>> {
        let pods = self.root().join("var/lib/kubelet/pods");
        let mut found = Vec::new();
        for pod in std::fs::read_dir(&pods)? {
            let data = pod?.path().join("volumes/kubernetes.io~empty-dir/data");
            if data.is_dir() {
                for file in files_of(&data)? {
                    let text = digest(&file)?;
                    found.push((file, text));
                }
            }
        }
        ensure!(!found.is_empty(), "the pod has a file");
        Ok(found)
    }

    /// Lets the pod of somebody else have a file.
    pub(crate) fn write_volume_file(&self) -> anyhow::Result<()> {
        let pods = self.root().join("var/lib/kubelet/pods");
        for pod in std::fs::read_dir(&pods)? {
            let data = pod?.path().join("volumes/kubernetes.io~empty-dir/data");
            if data.is_dir() {
                std::fs::write(data.join("table.db"), history::random(1 << 20)?)?;
            }
        }
        Ok(())
    }
}

fn files_of(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)
        .with_context(|| format!("look into {}", directory.display()))?
    {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// What a file holds, and which file it is.
fn digest(path: &Path) -> anyhow::Result<String> {
    let of = |program: &str, options: &[&str]| {
        Call::new(program)
            .arguments(options)
            .argument(path)
            .output()
    };
    let (which, content) = (
        of("stat", &["--format=%i %h %s %Y"])?,
        of("sha256sum", &["--binary"])?,
    );
    let content = content.split(' ').next().unwrap_or_default();
    Ok(format!("{} {content}", which.trim()))
}
