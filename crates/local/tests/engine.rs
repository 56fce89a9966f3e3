//! The engine with real processes: what the ports promise, and what a killed engine leaves to the next one.
//!
//! Every wait is for a state to come, with a limit that only a failure reaches.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests start processes, look at the clock and fail by panicking"
)]

#[path = "engine/faults.rs"]
mod faults;
#[path = "engine/lab.rs"]
mod lab;
#[path = "engine/ports.rs"]
mod ports;
#[path = "engine/reload.rs"]
mod reload;
