//! The disk of a node: what fills it, who owns that, and what would be free.
//!
//! [`survey()`] reads and judges, and changes nothing: it opens no file for writing, needs no temporary file and maps no
//! memory, so it works where nothing is left, neither a byte nor an inode. It needs no server and no network.
//!
//! [`plan()`] says what may go and [`apply()`] lets it go. This is the only code of Nagi that removes files on a node.

mod advice;
mod blocks;
mod btrfs;
pub mod caps;
mod clean;
mod daemon;
mod filesystem;
mod gap;
mod kubelet;
mod loops;
mod marks;
mod mounts;
mod open_files;
mod own;
mod owner;
mod owner_table;
mod ring;
mod run_files;
pub mod schedule;
mod survey;
mod view;
mod walk;
mod xfs;

pub use advice::{Advice, SIZE_ADVISED, SIZE_FLOOR, Signal};
pub use blocks::{Blocks, Tally};
pub use clean::{
    After, ApplyError, AskError, AuditError, CleanError, Consent, Digest, Disk, Done, End, Event,
    Freed, Harm, ITEMS_MAX, Instant, Item, JournalMode, Kept, Left, Motion, Needed, Owned, Plan,
    Policy, Reclaimer, Report, Skipped, Step, Why, apply, plan, plan_on,
};
pub use daemon::{
    Acted, Action, Alert, Allocate, Ballast, BallastError, BallastSeen, Basis, Cause, Changed,
    DISKS_MAX, Days, Deeds, DiskNow, DiskOutlook, DiskState, Eyes, Fill, Forecast, GOAL_PERCENT,
    Growth, Guard, GuardError, GuardSettings, Hands, Key, Level, Looked, NAMED, Outcome, Outlook,
    OutlookError, Point, Question, Questions, REMIND, Reading, Reserve, Resource, Round, Rules,
    SILENT, Scramble, Seen, Series, Silent, State, Trend, Trouble, What, decide, forecast, judge,
    outlook, wanted,
};
pub use filesystem::{Filesystem, Kind, ReadOnly, Space};
pub use gap::{Estimate, Gap};
pub use kubelet::{Quantity, ThresholdSource, Thresholds};
pub use mounts::{Device, Mount, Mounts};
pub use open_files::{Deleted, Holder, OpenFiles, open_files};
pub use owner::{Class, Owner};
pub use run_files::{RunError, RunFiles, RunLock};
pub use survey::{
    Effort, Glance, Hidden, NotKnown, Place, Request, Share, Shares, Survey, SurveyError, Under,
    Watched, glance, shares, survey,
};
pub use walk::faults::Fault;
pub use walk::tree::{NodeId, Tree};
pub use walk::{LargeFile, Watch};
