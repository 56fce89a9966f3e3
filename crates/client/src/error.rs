//! What can go wrong between a caller and the server.

use std::time::Duration;

use nagi_api::ErrorBody;
use thiserror::Error;

use crate::address::ServerAddress;

/// Why a call did not succeed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No connection: nothing was sent.
    #[error("cannot connect to {server}")]
    Connect {
        /// Where.
        server: ServerAddress,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke before the answer was complete. A change may or may not have been made.
    #[error("the connection to {server} broke before the answer was complete")]
    Broken {
        /// Where.
        server: ServerAddress,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// No answer in time. A change may or may not have been made.
    #[error("no answer from {server} within {} s", after.as_secs())]
    Timeout {
        /// Where.
        server: ServerAddress,
        /// The limit that was passed.
        after: Duration,
    },
    /// The server refused, and said why.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// Something answered that is not the Scale API: a proxy, another program, another port of Nagi.
    #[error("{server} is not the Scale API of nagi: it answered {status}")]
    NotTheApi {
        /// Where.
        server: ServerAddress,
        /// The HTTP status.
        status: u16,
    },
    /// The answer is not what this version of the client understands.
    #[error("cannot understand the answer of {server} to {path}")]
    Answer {
        /// Where.
        server: ServerAddress,
        /// What was asked.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The answer is larger than anything that the API sends.
    #[error("the answer of {server} to {path} is larger than {limit} bytes")]
    TooLarge {
        /// Where.
        server: ServerAddress,
        /// What was asked.
        path: String,
        /// The limit.
        limit: usize,
    },
    /// A part of the request cannot be written as HTTP.
    #[error("cannot form the request")]
    Request(#[source] http::Error),
}

/// An answer of the server that says no.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", self.body.message)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// What failed, why, and what to do.
    pub body: ErrorBody,
    /// The id under which the server logged it.
    pub request_id: Option<String>,
    /// When to come again.
    pub retry_after: Option<Duration>,
}

impl ClientError {
    /// The refusal, if the server answered with one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Connect { .. }
            | Self::Broken { .. }
            | Self::Timeout { .. }
            | Self::NotTheApi { .. }
            | Self::Answer { .. }
            | Self::TooLarge { .. }
            | Self::Request(_) => None,
        }
    }

    /// True when the server may answer the same call later: it was not reached, or is not able to for now.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Timeout { .. } => true,
            Self::Refused(refusal) => matches!(refusal.status, 429 | 502..=504),
            Self::NotTheApi { status, .. } => matches!(status, 502..=504),
            Self::Answer { .. } | Self::TooLarge { .. } | Self::Request(_) => false,
        }
    }
}
