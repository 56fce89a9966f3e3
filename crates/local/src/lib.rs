//! The local engine: workloads as child processes of this machine, on pools of nodes that boot.

pub mod file;
