//! Cleaning of real filesystems: what may go goes, and whatever else there is stays byte for byte.

mod attacks;
mod containerd;
mod crash;
mod faults;
mod full;
mod generated;
mod images;
mod journals;
mod node;
mod registry;
mod snaps;
