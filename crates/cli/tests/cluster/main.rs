//! The shipped binary on a cluster: `nagi server` and `nagi gateway` as processes, before the double of an API server.

#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "these tests start programs, wait for them and look at them from outside"
)]

mod command;
mod gateway;
mod partial;
mod preflight;
mod process;
mod ready;
mod release;
mod scaling;
mod tokens;
