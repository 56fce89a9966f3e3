//! The commands of the shipped binary, from outside: exit codes, what stands on which stream, and what is left behind.
//!
//! Wrong input comes first. What needs a server gets a real `nagi all` of its own, on free ports, in a directory of its
//! own; what a server never does on purpose (hang, garbage, a cut answer) comes from a few lines of TCP.

#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "these tests start programs, wait for them, and fail by panicking"
)]

mod caps;
mod clean;
mod cloudwatch;
mod curl;
mod disk;
mod fake;
mod faults;
mod files;
mod https;
mod keys;
mod recover;
mod run;
mod server;
mod streams;
mod verbs;
mod waiting;
mod wrong_input;
