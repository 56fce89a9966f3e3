//! Cleaning of real filesystems: what may go goes, and whatever else there is stays byte for byte.

mod attacks;
mod containerd;
mod crash;
mod fake;
mod faults;
mod full;
mod generated;
mod images;
mod journals;
mod limits;
mod node;
mod registry;
mod runtimes;
mod snaps;
