//! Surveys of real filesystems: ext4, XFS and btrfs on loop devices, each test in mounts of its own.
//!
//! A test starts its own program a second time in a mount namespace that ends with it, so that nothing stays mounted
//! whatever happens. That needs root; without it each test says that it proves nothing here.

#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "these tests start the tools of the system, remove what they wrote, and fail by panicking"
)]

mod caps;
mod clean;
mod full;
mod gap;
mod guard;
mod machine;
mod many;
mod owners;
mod space;
mod trees;
