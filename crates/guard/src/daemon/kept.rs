//! What the guard knows of a ballast without asking its disk.

use std::time::Duration;

use jiff::Timestamp;

use crate::mounts::Device;

/// A ballast that could not be taken is tried again after this.
const BALLAST_AGAIN: Duration = Duration::from_hours(1);

/// What is known of a ballast, and when it was last given up.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// The disk that it lies on, by its number: a place on the node may be seen in several ways.
    pub(super) device: Device,
    pub(super) failed_at: Option<Timestamp>,
    pub(super) looked_at: Timestamp,
    pub(super) held: u64,
    /// What of it goes first.
    pub(super) half: u64,
    /// Something is done to it, and it is not known yet what it holds.
    pub(super) is_changing: bool,
}

// === impl Kept ===

impl Kept {
    /// One that was opened now, and what its halves hold.
    pub(super) const fn of([first, second]: [u64; 2], device: Device, now: Timestamp) -> Self {
        Self {
            device,
            held: first + second,
            half: if second > 0 { second } else { first },
            failed_at: None,
            looked_at: now,
            is_changing: false,
        }
    }

    pub(super) fn may_be_tried(&self, now: Timestamp) -> bool {
        let elapsed = self.failed_at.map(|then| now.duration_since(then));
        elapsed.is_none_or(|elapsed| elapsed.unsigned_abs() >= BALLAST_AGAIN)
    }
}
