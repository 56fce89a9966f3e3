//! Why a file stays, and why a place is left alone: the words that plans and reports share.

use std::path::PathBuf;

use rustix::io::Errno;

use super::super::ask::AskError;
use super::super::policy::Reclaimer;
use super::super::runtime::Motion;
use crate::owner::Owner;

/// Why a file stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// No rule knows its name, or it is no plain file.
    Unknown,
    /// It is written to, or may be: a process has it open, or no newer log has taken its place.
    Active,
    /// It was written or renamed within the grace period.
    Young,
    /// It has other names, so that removing one frees nothing.
    Links,
    /// Something is mounted on it.
    Mount,
    /// It, or a directory above it, is to be kept.
    KeepList,
    /// It lies in the window that is kept.
    Window,
    /// Nobody can tell what would be lost.
    NotUnderstood,
    /// The runtime is told to keep this image.
    Pinned,
    /// A container has this image, alive or dead, or a pod has mounted it.
    Used,
    /// Sandboxes of pods are made of this image.
    Sandbox,
    /// A static pod names this image.
    Manifest,
    /// A pull that is under way or was given up holds some of this image.
    Leased,
    /// Nobody tells how old it is.
    AgeUnknown,
    /// Its pod may still run.
    PodAlive,
    /// It is the last of its name that ended.
    Newest,
}

/// A place that is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// What would be looked for.
    pub reclaimer: Reclaimer,
    /// Where, on the node.
    pub directory: PathBuf,
    /// Why it is not.
    pub why: Why,
}

/// Why a place is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// There is a symbolic link on the way.
    Link,
    /// The root of this owner is a link that leads there, and nobody else removes anything below it.
    BelongsTo(Owner),
    /// Its filesystem cannot be written to.
    ReadOnly,
    /// Its filesystem is none that is cleaned: this type.
    Type(String),
    /// It cannot be read.
    Unreadable(Errno),
    /// Its owner can only be asked on the node itself, with `/` as the root.
    OwnerElsewhere,
    /// Its owner does not say what may go.
    Owner(AskError),
    /// Its owner says it in a form that is not known.
    NotUnderstood,
    /// The container runtime does not answer, or refuses.
    Runtime(String),
    /// It is at work, and what nothing uses now may be used in a moment.
    RuntimeBusy(Motion),
    /// It lists neither a pod nor a container: then nobody can tell what is used.
    NoPods,
    /// This manifest of a static pod, or file of kubelet's settings, cannot be understood: nobody knows which image is needed.
    Manifest(PathBuf),
    /// No image is called like this one that a person wants kept: nobody knows which one that is, and it might go.
    KeepImage(String),
    /// The node has no `/etc/machine-id`, so that nobody knows which journals are its own.
    NoMachineId,
}

// === impl Why ===

impl Why {
    /// It should have been looked at, and could not be; otherwise there is nothing of ours.
    pub const fn is_failure(&self) -> bool {
        match self {
            Self::ReadOnly
            | Self::Unreadable(_)
            | Self::Owner(_)
            | Self::Runtime(_)
            | Self::Manifest(_)
            | Self::KeepImage(_) => true,
            Self::Link
            | Self::BelongsTo(_)
            | Self::RuntimeBusy(_)
            | Self::NoPods
            | Self::Type(_)
            | Self::OwnerElsewhere
            | Self::NotUnderstood
            | Self::NoMachineId => false,
        }
    }
}

// === impl From<Errno> for Why ===

impl From<Errno> for Why {
    fn from(error: Errno) -> Self {
        match error {
            Errno::LOOP => Self::Link,
            Errno::ROFS => Self::ReadOnly,
            error => Self::Unreadable(error),
        }
    }
}
