//! Owned tasks, ordered shutdown and deadlines: how work is started and how it ends.
//!
//! This is the only crate, besides tests, that calls a spawn function of tokio. Every task therefore
//! has an owner that knows its name, bounds how many there are, and ends it:
//!
//! - [`Supervisor`] owns the long-lived tasks of a process. One that ends before shutdown ends the
//!   process with an error.
//! - [`TaskSet`] owns many short tasks of one kind (connections, flights), up to a limit.
//! - [`Blocking`] runs blocking closures off the workers, up to a limit.
//! - [`Shutdown`] tells everybody which phase of the shutdown the process is in.
//! - [`Deadline`] is one instant that all steps of a request spend from; [`Backoff`] spaces retries.
//! - [`random_bits`] makes ids.
//!
//! It deliberately knows nothing of the domain, reads no configuration and opens no socket.

mod backoff;
mod blocking;
mod deadline;
mod random;
mod shutdown;
mod signals;
mod supervisor;
mod task_set;

pub use backoff::Backoff;
pub use blocking::{Blocking, BlockingError};
pub use deadline::{Deadline, DeadlinePassed};
pub use random::random_bits;
pub use shutdown::{Phase, Shutdown};
pub use signals::{Reload, SignalError, Termination};
pub use supervisor::{ShutdownReport, Supervisor, SupervisorError, TaskEnd, TaskOutput};
pub use task_set::{Room, TaskSet, TaskSetClosed, TaskSetFull};
