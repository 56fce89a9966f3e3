//! Every rule of Nagi's domain, pure.
//!
//! What a workload is, when it may sleep, to how many replicas it wakes, when a schedule is due, who may do
//! what: each is a function of facts and `now` that answers with a decision and its reasons. Callers fetch the
//! facts, carry out the decision and show the reasons; nothing here waits, reads a clock, draws a random number,
//! or knows a wire format.
//!
//! Invariants that the property tests of this crate prove (numbers as in `ARCHITECTURE.md`):
//!
//! 1. A decision fed back with unchanged facts asks for nothing new.
//! 2. Unknown or stale facts never produce sleep.
//! 4. An automatic sleep never takes a workload with open connections or held requests.
//! 5. Time going backwards or jumping changes nothing by itself.
//! 7. The count to restore is written in the same update as the scale-down, and is never 0.

pub mod access;
pub mod guardrail;
pub mod id;
pub mod idle;
pub mod intent;
pub mod pool;
pub mod quantity;
pub mod rate;
pub mod release;
pub mod scale;
pub mod schedule;
pub mod status;
pub mod text;
pub mod wake;
pub mod wake_count;
pub mod workload;

#[cfg(test)]
mod fixtures;
