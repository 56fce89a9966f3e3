//! The line of one HTTP request.
//!
//! Level and message follow from the status and the class of the failure, so that the founding
//! documents' searches find what they look for: `auth` and `unauthorized` every 401, `forbidden` and
//! `denied` every 403, `connection` and `timeout` trouble with what lies upstream, and none of these
//! words of ours a success. Strings of the client are bounded and cleaned.
//! It deliberately has no place for bodies, queries or credentials.

use std::net::IpAddr;
use std::time::Duration;

use crate::level::Level;
use crate::log::line::{Controls, Line, VALUE_BYTES_MAX};
use crate::names::field;

/// Methods of the standards have at most 17 letters (`UPDATEREDIRECTREF`); the rest is noise.
const METHOD_BYTES_MAX: usize = 32;
/// The longest path of the API, with a namespace of 63, a name of 253 and a `plural.group` resource
/// of 253 characters, is below 700.
const PATH_BYTES_MAX: usize = 1024;
/// Browsers send about 120 characters; 512 keeps rare ones whole and a hostile one small.
const USER_AGENT_BYTES_MAX: usize = 512;
/// As long as the longest id that is taken (R21).
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Ids of keys are short names.
const KEY_ID_BYTES_MAX: usize = 128;
/// The seeds' `awk` and `sort` work on columns: an absent user agent must still be one.
const NO_USER_AGENT: &str = "-";

/// Why a request failed, as far as its log message must tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The engine or Kubernetes could not be reached, or the connection broke.
    UpstreamConnection,
    /// The engine or Kubernetes did not answer in time.
    UpstreamTimeout,
    /// The engine or Kubernetes refused: this server lacks a right.
    UpstreamDenied,
    /// What must be durable could not be written.
    Storage,
    /// A limit of this server was reached.
    Overloaded,
    /// This server is draining.
    ShuttingDown,
    /// The workload is not awake yet.
    Waking,
    /// The workload could not be woken.
    WakeFailed,
}

/// A further field of a request line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FieldValue<'a> {
    /// A string; control characters are replaced, at most 2,048 encoded bytes.
    Text(&'a str),
    /// A JSON number.
    Unsigned(u64),
    /// A JSON number.
    Signed(i64),
    /// `true` or `false`.
    Flag(bool),
    /// `<decimal>ms`.
    Duration(Duration),
}

/// What is logged of one request: one line each, when its answer has ended.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    /// The method as sent.
    pub method: &'a str,
    /// The path of the URL as sent, without the query.
    pub path: &'a str,
    /// The status that was answered.
    pub status: u16,
    /// From the request's arrival to the end of the answer.
    pub latency: Duration,
    /// The share of `latency` spent waiting for the engine or Kubernetes; zero without.
    pub latency_upstream: Duration,
    /// The client: the peer, unless a trusted proxy says otherwise.
    pub remote_ip: IpAddr,
    /// The `User-Agent`; `None` or empty is logged as `-`.
    pub user_agent: Option<&'a str>,
    /// The id of the request.
    pub request_id: &'a str,
    /// Why it failed, when the status alone does not say.
    pub failure: Option<Failure>,
    /// The id of the key that was used, never the key.
    pub key_id: Option<&'a str>,
    /// The error with its causes.
    pub error: Option<&'a str>,
    /// More fields, such as namespace, action or `dry_run`; names as in [`names::field`](field).
    pub fields: &'a [(&'static str, FieldValue<'a>)],
}

// === impl RequestLine ===

impl RequestLine<'_> {
    /// 5xx is an error, 4xx a warning, everything else information.
    pub(crate) fn level(&self) -> Level {
        match self.status {
            500.. => Level::Error,
            400..=499 => Level::Warn,
            0..=399 => Level::Info,
        }
    }

    /// The constant text for this status and failure.
    pub(crate) fn message(&self) -> &'static str {
        match (self.status, self.failure) {
            // The documents find every 401 by `auth` and `unauthorized`, every 403 by
            // `forbidden` and `denied`, whatever failed behind them.
            (401, _) => "Unauthorized, authentication failed",
            (403, _) => "Forbidden, access denied",
            (0..=399, _) => "Request completed",
            (_, Some(failure)) => failure.message(),
            (400, None) => "Bad request",
            (404, None) => "Not found",
            (405, None) => "Method not allowed",
            // Not "timeout": that word stands for trouble upstream, this is a slow client.
            (408, None) => "Request not received in time",
            (409, None) => "Conflict",
            (410, None) => "Gone",
            (413, None) => "Request body too large",
            (429, None) => "Too many requests",
            (431, None) => "Request header too large",
            (402 | 406 | 407 | 411 | 412 | 414..=428 | 430 | 432..=499, None) => "Request refused",
            (500, None) => "Internal error",
            (501, None) => "Not implemented",
            (502, None) => "Bad gateway, upstream connection failed",
            (503, None) => "Service unavailable",
            (504, None) => "Upstream timeout",
            (505.., None) => "Request failed",
        }
    }

    /// Writes the fields behind the message.
    pub(crate) fn write(&self, line: &mut Line) {
        let client = Controls::Replace;
        line.string(field::METHOD, self.method, METHOD_BYTES_MAX, client);
        line.string(field::PATH, self.path, PATH_BYTES_MAX, client);
        line.literal(field::STATUS, self.status);
        line.milliseconds(field::LATENCY, self.latency);
        line.milliseconds(field::LATENCY_UPSTREAM, self.latency_upstream);
        // A dual-stack listener sees IPv4 clients as `::ffff:192.0.2.1`; people search `192.0.2.1`.
        line.literal_text(field::REMOTE_IP, self.remote_ip.to_canonical());
        let user_agent = self
            .user_agent
            .filter(|name| !name.is_empty())
            .unwrap_or(NO_USER_AGENT);
        line.string(field::USER_AGENT, user_agent, USER_AGENT_BYTES_MAX, client);
        line.string(
            field::REQUEST_ID,
            self.request_id,
            REQUEST_ID_BYTES_MAX,
            client,
        );
        if let Some(key_id) = self.key_id {
            line.string(field::KEY_ID, key_id, KEY_ID_BYTES_MAX, client);
        }
        if let Some(error) = self.error {
            line.string(field::ERROR, error, VALUE_BYTES_MAX, Controls::Escape);
        }
        for (name, value) in self.fields {
            value.write(line, name);
        }
    }
}

// === impl Failure ===

impl Failure {
    fn message(self) -> &'static str {
        match self {
            Self::UpstreamConnection => "Upstream connection failed",
            Self::UpstreamTimeout => "Upstream timeout",
            Self::UpstreamDenied => "Upstream denied access to this server",
            Self::Storage => "Storage unavailable",
            Self::Overloaded => "Limit of this server reached",
            Self::ShuttingDown => "Shutting down",
            Self::Waking => "Workload not awake yet",
            Self::WakeFailed => "Wake failed",
        }
    }
}

// === impl FieldValue ===

impl FieldValue<'_> {
    fn write(self, line: &mut Line, name: &str) {
        match self {
            Self::Text(text) => line.string(name, text, VALUE_BYTES_MAX, Controls::Replace),
            Self::Unsigned(number) => line.literal(name, number),
            Self::Signed(number) => line.literal(name, number),
            Self::Flag(flag) => line.literal(name, flag),
            Self::Duration(duration) => line.milliseconds(name, duration),
        }
    }
}
