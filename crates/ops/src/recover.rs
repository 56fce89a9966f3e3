//! Bringing a control plane back: free, mend the store, restart, and prove that it holds.
//!
//! [`plan()`] is a pure function of what was seen, and [`apply()`] does what it says, one step after the other: before each
//! step everything is looked at anew and planned anew, so that a run which was killed goes on where the world is, and a step
//! that the world no longer wants is not done. The order of steps is that of [`Step`], which no plan can change.
//! [`climb()`] then asks rung by rung whether the cluster is back and stays so.
//!
//! What touches the node is behind [`Hands`]; [`NodeHands`] are the real ones. Space is given back by whoever knows how,
//! through [`Room`].

mod api;
mod apply;
mod climb;
mod freeing;
mod hands;
mod ladder;
mod plan;
mod remedy;
#[cfg(test)]
mod tests;

pub use api::{ApiFacts, NodeState, Pressure};
pub use apply::{Applied, Approved, Did, Done, Event, Hands, Stopped, World, apply};
pub use climb::{Climb, Eyes, climb};
pub use freeing::{FreeDisk, FreeHeld, FreeItem, FreeStep, FreeUnseen, Freeing};
pub use hands::{HandsRequest, NodeHands, Room};
pub use ladder::{Held, Ladder, Look, Outcome, Rules, Rung, Verdict, judge};
pub use plan::{Blocks, Plan, Refusal, Step, plan};
