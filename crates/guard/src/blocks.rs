//! Allocated space, in the unit in which every filesystem of Linux counts it for a file.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

/// Blocks of 512 bytes, as `st_blocks` counts them whatever the block size of the filesystem is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blocks(pub u64);

/// What a part of a tree takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Allocated space.
    pub blocks: Blocks,
    /// Files, directories and everything else that has an inode; each once.
    pub inodes: u64,
}

// === impl Blocks ===

impl Blocks {
    /// In bytes. What no disk holds ends at the largest number.
    pub const fn bytes(self) -> u64 {
        self.0.saturating_mul(512)
    }
}

impl Add for Blocks {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Blocks {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

// === impl Tally ===

impl Tally {
    /// One inode with these blocks.
    pub const fn one(blocks: Blocks) -> Self {
        Self { blocks, inodes: 1 }
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.blocks.bytes()
    }
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            blocks: self.blocks + other.blocks,
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), Add::add)
    }
}
