//! Giving space back: a plan of what may go, and an executor that does the plan and nothing else.
//!
//! [`plan()`] reads and chooses, and changes nothing. Its answer is a value: each file by device, inode, size, time and
//! number of names, under one digest. [`apply()`] looks again; a step in which anything differs from what the plan says is
//! refused as a whole. Each removal is written down before it is done.
//!
//! What may go is a closed list of [`Reclaimer`]s, each with names that it knows and a place. Whatever no rule names stays.
//! Nothing is unlinked below the directories of containerd, kubelet, etcd, docker and snapd: snapd is asked to let its disabled
//! revisions go, the container runtime images and dead containers, and for the rest the plan says how much it is and how its owner gives it back.
//!
//! Both work where neither a byte nor an inode is left: no temporary file, no mapped memory, nothing written on the disk that
//! is cleaned but a ring that was allocated while there was room.

mod apply;
pub(crate) mod ask;
mod audit;
mod discover;
mod held;
mod journal;
mod locks;
mod owned;
pub(crate) mod place;
mod plan;
mod policy;
pub(crate) mod reach;
mod rules;
mod runtime;
mod snaps;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

use crate::mounts::MountsError;

pub use apply::{After, ApplyError, Done, End, Event, Report, apply};
pub use ask::AskError;
pub use audit::{AuditError, Freed};
pub(crate) use audit::{freed, prepare as prepare_record, written as freed_at};
pub use discover::{Kept, Skipped, Why};
pub use journal::Mode as JournalMode;
pub use owned::Left;
pub use place::Instant;
pub use plan::{Digest, Disk, ITEMS_MAX, Item, Needed, Owned, Plan, Step, plan, plan_on};
pub use policy::{Consent, Harm, Policy, Reclaimer};
pub use runtime::Motion;

/// Why nothing can be planned or done.
#[derive(Debug, Error)]
pub enum CleanError {
    /// The mounts of this process cannot be read.
    #[error("cannot read /proc/self/mountinfo")]
    ReadMounts(#[source] std::io::Error),
    /// They cannot be understood.
    #[error("cannot understand /proc/self/mountinfo")]
    ParseMounts(#[source] MountsError),
    /// The root of the node cannot be opened.
    #[error("cannot open {}", .path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// Something that is to be kept is not there, or cannot be named so: then it would keep nothing.
    #[error("cannot keep {}", .path.display())]
    Keep {
        /// The path on the node.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// Nothing can be kept within a directory.
    #[error(
        "this kernel cannot keep within a directory (openat2), or that is forbidden here: nothing can be removed safely"
    )]
    Kernel,
}

/// Opens the root of a node.
///
/// # Errors
/// It cannot be, or this kernel cannot keep to a directory.
pub(crate) fn open_root(path: &Path) -> Result<OwnedFd, CleanError> {
    place::open_root(path).map_err(|source| match source {
        Errno::NOSYS => CleanError::Kernel,
        source => CleanError::Root {
            path: path.to_owned(),
            source,
        },
    })
}
