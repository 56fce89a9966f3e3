//! What the double can be made to do wrong, and for which requests.

use std::time::Duration;

use http::Method;

/// What happens to a request that a fault takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It is answered after this long.
    Latency(Duration),
    /// It is never answered; the connection stays open.
    Hang,
    /// It is answered when the fault is lifted.
    Hold,
    /// It is answered as done and changes nothing: an admission webhook keeps the object as it is.
    KeepObject,
    /// It is carried out, and then never answered: the answer is lost.
    LoseAnswer,
    /// It is answered with this status and changes nothing.
    Status {
        /// The status.
        code: u16,
        /// `Retry-After`, in seconds.
        retry_after: Option<u32>,
    },
    /// The connection is closed without an answer, and nothing changes.
    Cut,
}

/// A fault: which requests it takes, how often, and what happens to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Only requests with this method.
    pub method: Option<Method>,
    /// Only requests whose path and query hold this text.
    pub path: Option<String>,
    /// How many requests it takes before it is over; `None` for all of them.
    pub times: Option<u32>,
    /// What happens.
    pub effect: Effect,
}

// === impl Fault ===

impl Fault {
    /// Takes every request until it is lifted.
    pub const fn always(effect: Effect) -> Self {
        Self {
            method: None,
            path: None,
            times: None,
            effect,
        }
    }

    /// Every request is answered with this status.
    pub const fn status(code: u16) -> Self {
        Self::always(Effect::Status {
            code,
            retry_after: None,
        })
    }

    /// Takes only so many requests.
    #[must_use]
    pub const fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Takes only requests with this method.
    #[must_use]
    pub fn on(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Takes only requests whose path and query hold this text.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    pub(crate) fn takes(&self, method: &Method, path_and_query: &str) -> bool {
        self.times != Some(0)
            && self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self
                .path
                .as_ref()
                .is_none_or(|wanted| path_and_query.contains(wanted.as_str()))
    }
}
