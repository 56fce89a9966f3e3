//! The gateway from outside: real clients and real replicas over loopback, workloads in memory.

mod balancing;
mod holding;
mod limits;
mod probing;
mod proxying;
mod refusing;
mod sleeping;
mod smuggling;
mod support;
mod tunnels;
