//! Our own REST API from the calling side: what `nagi status`, `nagi wake` and the other verbs are made of.
//!
//! [`Client`] has one method for each operation. An answer keeps the body as it came beside its typed form, so that a
//! caller can show what a newer server said. An error says which of three things happened: nobody was reached, the
//! server refused and said why, or the answer made no sense. [`EventFollower`] reads the event stream and takes it up
//! again where it broke.
//!
//! Each call opens a connection of its own and has a deadline. TLS is spoken where the address asks for it. There is deliberately
//! no pool and no retry of calls; and nothing of the server's rules is known here.

mod address;
mod connect;
mod error;
mod exchange;
mod follow;
mod operations;
mod query;
mod sse;

pub use address::{AddressError, ServerAddress};
pub use error::{ClientError, Refusal};
pub use exchange::{Answer, Client, EventStream, Key, KeyError, ServerEvent};
pub use follow::{EventFollower, Followed};
pub use operations::{DryRun, HistoryFilter, ListFilter, LogsFrom};
