//! The engine against the double of an API server: what it reads, writes, refuses, and how it comes back.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod accounts;
mod faults;
mod kinds;
mod lab;
mod leading;
mod logs;
mod others;
mod partial;
mod plugin;
mod proxied;
mod reads;
mod writes;
