//! The local engine: workloads as child processes of this machine, on pools of nodes that boot.

pub mod file;
pub mod process;
pub mod shim;
pub mod store;
pub mod world;

mod disk;
mod stamp;

pub use disk::WriteError;
