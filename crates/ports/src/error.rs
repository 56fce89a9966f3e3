//! One error class for every port: whose fault it was and whether a retry can help.

use std::time::Duration;

use nagi_core::id::Version;
use thiserror::Error;

/// Why a port could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PortError {
    /// The object is not there (404).
    #[error("not found")]
    NotFound,
    /// A read asked for a version that the object never had: it is from no answer about this object.
    #[error("no version {asked} of it exists, the newest is {newest}")]
    NoSuchVersion {
        /// What was asked for.
        asked: Version,
        /// What it has.
        newest: Version,
    },
    /// The object changed since it was read (409): read, decide and write again.
    #[error("the object was changed by somebody else meanwhile")]
    Conflict,
    /// The engine refused the request as it stands (403, 422, …); the same request will be refused again.
    #[error("refused by the engine: {0}")]
    Refused(String),
    /// The engine cannot be reached: connection refused, reset, no route. The word `connection` is in the log.
    #[error("connection failed: {0}")]
    Unreachable(String),
    /// The engine did not answer within its deadline. The word `timeout` is in the log.
    #[error("timeout: {0}")]
    Timeout(String),
    /// The engine takes no more for now (429) and did not do it; it may say after how long to ask again.
    #[error("the engine takes no more requests for now")]
    Busy {
        /// When to ask again, as far as it says.
        retry_after: Option<Duration>,
    },
    /// The place where intent is stored is full or read-only; reads still work.
    #[error("cannot store the change: {0}")]
    StorageFull(String),
    /// The engine answered with an error of its own (500, a broken answer).
    #[error("engine error: {0}")]
    Internal(String),
}

impl PortError {
    /// True when the same call may succeed later without anybody changing the request.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Conflict
            | Self::Unreachable(_)
            | Self::Timeout(_)
            | Self::Busy { .. }
            | Self::StorageFull(_)
            | Self::Internal(_) => true,
            Self::NotFound | Self::NoSuchVersion { .. } | Self::Refused(_) => false,
        }
    }
}
