//! What the domain needs from the outside, as small traits named for the need.
//!
//! An adapter implements them for one engine (child processes, Kubernetes, a simulated world); faces, loops and the
//! wake driver know only these traits. Adapters translate and decide nothing.

pub mod accounts;
pub mod clock;
pub mod error;
pub mod journal;
pub mod leadership;
pub mod logs;
pub mod nodes;
pub mod traffic;
pub mod workloads;

pub use accounts::{AUDIENCE, Account, Accounts, Deed};
pub use clock::{Clock, SystemClock};
pub use error::PortError;
pub use journal::{HistoryEntry, HistoryPage, HistoryQuery, Journal};
pub use leadership::Leadership;
pub use logs::{LogLine, LogPage, LogQuery, Logs};
pub use nodes::Nodes;
pub use traffic::{NoTraffic, Settled, Traffic};
pub use workloads::{
    Engine, Facts, Glance, Read, Revision, See, Selection, Unread, Visited, WorkloadEvent,
    Workloads, each,
};
