//! Limits for what grows on a node: offered as drop-in files, sized by the disk, and taken back as they came.
//!
//! [`plan()`] looks and writes nothing. A drop-in is a file of its own beside the configuration of its owner, so that nothing of
//! a person is edited; whatever else lies under its name stays, or is kept beside it where that is asked for, and so does a file
//! of ours that a person has changed ([`seal`]). [`apply()`] writes each as a whole; [`remove()`] takes away what is ours and puts
//! back what was kept. Nothing is restarted: [`Cap::then`] says what has to be.

pub(crate) mod files;
mod render;
pub(crate) mod seal;
#[cfg(test)]
mod tests;
mod theirs;

use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use thiserror::Error;

use crate::clean::CleanError;

pub use render::{Limits, LimitsError};
pub use theirs::Held;

/// Begins a file of ours; its checksum follows.
pub(crate) const MARK: &str = "# Written by nagi guard caps; nagi guard caps --remove --apply takes it back, unless it is edited: ";
/// The same for JSON, which has no comments: a label of docker's daemon, which nothing else reads.
pub(crate) const MARK_JSON: &str = "{\n  \"labels\": [\"written-by=nagi-guard-caps:";

/// Where the journal lies that outlives a boot: `SystemMaxUse` is for that one.
const JOURNAL: &str = "/var/log/journal";
/// Where crash dumps lie.
const COREDUMPS: &str = "/var/lib/systemd/coredump";

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capped {
    /// The journal: by default a tenth of its disk, at most 4 GiB.
    Journal,
    /// Crash dumps: by default a tenth of their disk.
    Coredumps,
    /// Logs of containers and unused images: by default 50 MiB a container, and images up to 85 %, where kubelet's own eviction
    /// of images begins as well.
    Kubelet,
    /// Disabled revisions of snaps: by default two or three are kept.
    Snaps,
    /// Logs of docker's containers: by default without a limit.
    Docker,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cap {
    /// What it limits.
    pub what: Capped,
    /// Where the file goes, on the node; none where a person runs a command or edits a file of theirs.
    pub path: Option<PathBuf>,
    /// What is in it, or what a person does.
    pub text: String,
    /// How it stands.
    pub standing: Standing,
    /// What somebody else has set that is at least as strict: it stays, and is in no file of ours.
    pub held: Vec<Held>,
}

/// How a limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is none; it would be written.
    Missing,
    /// It is there as it would be written.
    Set,
    /// It is ours with other values; it would be replaced.
    Other,
    /// Somebody else has set one that is at least as strict.
    Held,
    /// The same, and a file of ours loosens it; that would be taken away.
    Looser,
    /// A file of somebody else has its name; it stays.
    Foreign,
    /// It was ours, and somebody changed it since; it stays.
    Edited,
    /// Its owner is not on this node, or reads no drop-in.
    Absent,
    /// No file of ours: a person does it.
    Command,
}

/// What becomes of a file that has the name of one of ours and is of somebody else, or was changed by somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// It stays, and the limit is not set.
    Stay,
    /// It is kept beside ours, and comes back when ours is taken away.
    Kept,
}

/// What became of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was written.
    Written,
    /// It was taken away.
    Removed,
    /// It was taken away, and what was there before is back.
    Restored,
    /// Nothing was to be done.
    Left,
}

/// Why a limit could not be set.
#[derive(Debug, Error)]
pub enum CapError {
    /// The node cannot be looked at.
    #[error(transparent)]
    Node(#[from] CleanError),
    /// A file cannot be read, written or removed.
    #[error("cannot change {}", .path.display())]
    File {
        /// On the node.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
}

// === impl Capped ===

impl Capped {
    /// Every one, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Journal,
        Self::Coredumps,
        Self::Kubelet,
        Self::Snaps,
        Self::Docker,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Coredumps => "coredumps",
            Self::Kubelet => "kubelet",
            Self::Snaps => "snaps",
            Self::Docker => "docker",
        }
    }

    /// Where its drop-in goes, below the directory that its owner reads.
    const fn place(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Journal => Some(("/etc/systemd", "journald.conf.d/50-nagi.conf")),
            Self::Coredumps => Some(("/etc/systemd", "coredump.conf.d/50-nagi.conf")),
            // Only where kubelet is started with `--config-dir`, which is this directory by convention.
            Self::Kubelet => Some(("/etc/kubernetes/kubelet.conf.d", "50-nagi.conf")),
            Self::Snaps => None,
            // No drop-in: docker reads this one file, so it is written only where there is none.
            Self::Docker => Some(("/etc/docker", "daemon.json")),
        }
    }

    /// Where it is seen that its owner is on the node: one of these is there.
    const fn signs(self) -> &'static [&'static str] {
        match self {
            Self::Journal => &["/etc/systemd"],
            // A package of its own: systemd alone keeps no dumps.
            Self::Coredumps => &[
                "/usr/lib/systemd/systemd-coredump",
                "/lib/systemd/systemd-coredump",
                COREDUMPS,
            ],
            Self::Kubelet => &["/etc/kubernetes/kubelet.conf.d"],
            Self::Snaps => &["/var/lib/snapd"],
            Self::Docker => &["/etc/docker"],
        }
    }
}

// === impl Cap ===

impl Cap {
    /// What has to be done before it counts.
    pub const fn then(&self) -> &'static str {
        match self.what {
            Capped::Journal => "systemctl restart systemd-journald",
            Capped::Coredumps => "nothing: it is read at the next crash",
            Capped::Kubelet => "systemctl restart kubelet, once its disks are no longer full",
            Capped::Snaps => "nothing: it counts from the next refresh on",
            Capped::Docker => {
                "systemctl restart docker; it counts for containers that are made after that"
            }
        }
    }
}

/// Limits by the size of the disks that the journal and the crash dumps of the node lie on, or would lie on.
///
/// # Errors
/// The node cannot be looked at.
pub fn for_node(root: &Path) -> Result<Limits, CapError> {
    let node = files::Node::open(root)?;
    Ok(Limits::for_disks(
        node.disk_bytes(Path::new(JOURNAL))?,
        node.disk_bytes(Path::new(COREDUMPS))?,
    ))
}

/// What would be written on this node, and how it stands. Reads only.
///
/// # Errors
/// The node cannot be looked at.
pub fn plan(root: &Path, limits: &Limits) -> Result<Vec<Cap>, CapError> {
    let node = files::Node::open(root)?;
    let caps = Capped::ALL.into_iter().map(|what| {
        let text = render::text(what, limits, &[]);
        let has_owner = what.signs().iter().any(|sign| node.has(Path::new(sign)));
        let place = what.place();
        let path = place.map(|(above, below)| Path::new(above).join(below));
        let standing = match (&path, place) {
            _ if !has_owner => Standing::Absent,
            (Some(path), Some((above, _))) if node.is_directory(Path::new(above)) => {
                node.standing(path, &text)?
            }
            (Some(_), Some(_)) => Standing::Absent,
            _ => Standing::Command,
        };
        let cap = Cap {
            what,
            path,
            text,
            standing,
            held: Vec::new(),
        };
        let cap = beside_others(&node, limits, cap)?;
        Ok(match (what, cap.standing) {
            // All that docker is told stands in that file: it is neither written over nor put aside.
            (Capped::Docker, Standing::Foreign) => Cap {
                path: None,
                text: render::by_hand_for_docker(limits),
                standing: Standing::Command,
                ..cap
            },
            (Capped::Docker, Standing::Edited) => Cap {
                path: None,
                text: render::edited_for_docker(limits),
                ..cap
            },
            _ => cap,
        })
    });
    caps.collect()
}

/// The same beside what others have set: what of it is as strict stays, and ours is needed only for the rest.
fn beside_others(node: &files::Node, limits: &Limits, cap: Cap) -> Result<Cap, CapError> {
    let is_ours = match cap.standing {
        Standing::Missing | Standing::Set | Standing::Other => true,
        Standing::Foreign => false,
        // What stands in a file of ours that somebody edited is told as that.
        Standing::Edited
        | Standing::Absent
        | Standing::Command
        | Standing::Held
        | Standing::Looser => return Ok(cap),
    };
    let Some(path) = &cap.path else {
        return Ok(cap);
    };
    let theirs = theirs::theirs(node, cap.what, limits, path, is_ours)?;
    if theirs.is_whole {
        let standing = match (cap.standing, theirs.is_loosened) {
            (_, true) => Standing::Looser,
            (Standing::Set, false) => Standing::Set,
            (_, false) => Standing::Held,
        };
        return Ok(Cap {
            standing,
            held: theirs.held,
            ..cap
        });
    }
    if theirs.held.is_empty() || !is_ours {
        return Ok(cap);
    }
    let text = render::text(cap.what, limits, &theirs.left_out);
    Ok(Cap {
        standing: node.standing(path, &text)?,
        text,
        held: theirs.held,
        ..cap
    })
}

/// Writes what is missing or has other values, and takes away what loosens a limit of somebody else.
///
/// # Errors
/// A file cannot be written: what was written before stays.
pub fn apply(root: &Path, caps: &[Cap], others: Others) -> Result<Vec<(Capped, Change)>, CapError> {
    let node = files::Node::open(root)?;
    let changes = caps.iter().map(|cap| {
        let is_due = match cap.standing {
            Standing::Missing | Standing::Other => true,
            Standing::Foreign | Standing::Edited => others == Others::Kept,
            Standing::Set
            | Standing::Held
            | Standing::Looser
            | Standing::Absent
            | Standing::Command => false,
        };
        let change = match &cap.path {
            Some(path) if cap.standing == Standing::Looser => node.take_back(path)?,
            Some(path) if is_due => node.write(path, &cap.text, Mode::from_raw_mode(0o644))?,
            Some(_) | None => Change::Left,
        };
        Ok((cap.what, change))
    });
    changes.collect()
}

/// Takes away what is ours, and puts back what it replaced. What somebody changed stays.
///
/// # Errors
/// A file cannot be removed: what was removed before is gone.
pub fn remove(root: &Path, caps: &[Cap]) -> Result<Vec<(Capped, Change)>, CapError> {
    let node = files::Node::open(root)?;
    let changes = caps.iter().map(|cap| {
        let change = match (&cap.path, cap.standing) {
            // Where somebody removed ours, what it had replaced comes back all the same.
            (
                Some(path),
                Standing::Set
                | Standing::Other
                | Standing::Missing
                | Standing::Held
                | Standing::Looser,
            ) => node.take_back(path)?,
            (_, Standing::Foreign | Standing::Edited | Standing::Absent | Standing::Command)
            | (
                None,
                Standing::Set
                | Standing::Other
                | Standing::Missing
                | Standing::Held
                | Standing::Looser,
            ) => Change::Left,
        };
        Ok((cap.what, change))
    });
    changes.collect()
}
