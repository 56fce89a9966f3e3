//! The directory of a cluster, `clusters/NAME` below the cache: everything that it writes, and what the next start needs to
//! know to take it away.
//!
//! A lock beside it says that somebody owns the cluster right now. A cluster of a test belongs to the test's process: when
//! that is gone without having cleaned up, the next start of any cluster does it. One from `cluster up` stays until `cluster
//! down`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use serde::{Deserialize, Serialize};

use crate::cache;
use crate::clean;
use crate::files;
use crate::lock::Lock;
use crate::network::{Addresses, Network};
use crate::process::Recorded;
use crate::wait;

/// With this the names of namespaces and control groups stay readable.
const NAME_LETTERS_MAX: usize = 30;

/// The owner may be another cluster's start that takes this one's rubbish away.
const CLEANING_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Choosing addresses takes a few calls of `ip`.
const CHOOSE_LIMIT: Duration = Duration::from_secs(30);

/// Who ends a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Lifetime {
    /// The process that started it; without that process it is rubbish.
    Process,
    /// A person, with `cluster down`.
    Person,
}

/// What is recorded of a cluster, in `cluster.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) lifetime: Lifetime,
    /// Without it the control plane listens on the machine's loopback.
    pub(crate) network: Option<Network>,
    /// Where the API server is; empty until it is known.
    pub(crate) server: String,
    /// Whether the start has come to its end.
    pub(crate) is_up: bool,
    pub(crate) components: Vec<Recorded>,
}

/// A directory that this process owns.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    _lock: Lock,
}

/// Whether a control plane gets a network of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Network,
    Loopback,
}

// === impl Directory ===

impl Directory {
    /// Takes a name: cleans up what an earlier cluster of that name left, and rubbish of others, and chooses addresses.
    pub(crate) fn claim(
        name: &str,
        lifetime: Lifetime,
        wanted: Wanted,
    ) -> anyhow::Result<(Self, Record)> {
        check_name(name)?;
        let directory = Self::own(name)?;
        clean::remove(&directory)?;
        clean::remove_rubbish()?;
        let _choosing = Lock::take(
            &root()?.join("addresses.lock"),
            "addresses to be chosen",
            CHOOSE_LIMIT,
        )?;
        let network = match wanted {
            Wanted::Loopback => None,
            Wanted::Network => Some(Network {
                cluster: name.to_owned(),
                addresses: free_addresses()?,
            }),
        };
        let record = Record {
            name: name.to_owned(),
            lifetime,
            network,
            server: String::new(),
            is_up: false,
            components: Vec::new(),
        };
        record.store(&directory.path)?;
        Ok((directory, record))
    }

    /// Becomes the owner of a name, whether or not there is a cluster.
    pub(crate) fn own(name: &str) -> anyhow::Result<Self> {
        let begun = wait::now();
        loop {
            if let Some(directory) = Self::try_own(name)? {
                return Ok(directory);
            }
            if begun.elapsed() > CLEANING_LIMIT {
                bail!(
                    "cluster '{name}' belongs to another process that is running\n\
                     hint: wait for it, or choose another name"
                );
            }
            wait::check_interrupted()?;
            wait::pause(LOOK_EVERY);
        }
    }

    /// Becomes the owner unless there is one.
    pub(crate) fn try_own(name: &str) -> anyhow::Result<Option<Self>> {
        check_name(name)?;
        let root = root()?;
        let lock = Lock::try_take(&root.join(format!("{name}.lock")))?;
        Ok(lock.map(|lock| Self {
            name: name.to_owned(),
            path: root.join(name),
            _lock: lock,
        }))
    }
}

// === impl Record ===

impl Record {
    /// Reads what is recorded of a cluster.
    pub(crate) fn load(directory: &Path) -> anyhow::Result<Option<Self>> {
        files::load(&directory.join("cluster.json"))
    }

    /// Keeps it.
    pub(crate) fn store(&self, directory: &Path) -> anyhow::Result<()> {
        files::store(&directory.join("cluster.json"), self)
    }
}

/// Where the directories of all clusters are.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    Ok(cache::directory()?.join("clusters"))
}

/// The names of all clusters that left something.
pub(crate) fn names() -> anyhow::Result<Vec<String>> {
    let entries = files::entries(&root()?)?;
    let directories = entries.iter().filter(|path| path.is_dir());
    Ok(directories
        .filter_map(|path| files::name(path))
        .map(str::to_owned)
        .collect())
}

/// A name becomes part of file names, namespaces and labels.
pub(crate) fn check_name(name: &str) -> anyhow::Result<()> {
    let good = name.starts_with(|letter: char| letter.is_ascii_lowercase())
        && name.len() <= NAME_LETTERS_MAX
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !good {
        bail!(
            "'{name}' is no name for a cluster\n\
             hint: at most {NAME_LETTERS_MAX} small letters, digits and '-', beginning with a letter"
        );
    }
    Ok(())
}

fn free_addresses() -> anyhow::Result<Addresses> {
    let root = root()?;
    let mut taken = Vec::new();
    for name in names()? {
        // What another version of the harness recorded is seen by its links and routes.
        if let Ok(Some(record)) = Record::load(&root.join(&name)) {
            taken.extend(record.network.map(|network| network.addresses));
        }
    }
    for addresses in Addresses::all().filter(|addresses| !taken.contains(addresses)) {
        if addresses.is_free()? {
            return Ok(addresses);
        }
    }
    bail!(
        "no range of addresses is free: every one is routed on this machine or belongs to a cluster\n\
         hint: 'cargo xtask cluster status' lists the clusters"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_cluster_can_be_part_of_other_names() {
        for name in ["nagi", "a-1"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "1a", "a_b", "A", "../a", "a.b", &"a".repeat(31)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
