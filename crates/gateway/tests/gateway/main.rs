//! The gateway from outside: real clients and real replicas over loopback, workloads in memory.

mod holding;
mod support;
