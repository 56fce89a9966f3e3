//! The shipped binary as a whole, from outside: real sockets, real processes, a real state directory.
//!
//! What single crates can prove is proven there. Here stand the promises that only hold when everything works together: the
//! founding documents' commands, `kill -9` at every durable step, a full disk, many callers, schedules over restarts.
//! Tests share nothing: each has its own directory and ports, so they run side by side.

#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    reason = "these tests start programs, wait for them and measure them from outside"
)]

mod demo;
mod diagnosis;
mod faults;
mod guard;
mod http;
mod kill;
mod machine;
mod processes;
mod schedules;
mod seeds;
mod signals;
mod steps;
mod tracer;
mod upkeep;

use std::time::{Duration, Instant};

/// Between two looks at something that another process will change. Nothing is decided by it.
const LOOK: Duration = Duration::from_millis(5);

/// Looks until there is something, for at most `limit`; `None` then.
fn wait<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if began.elapsed() > limit {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}
