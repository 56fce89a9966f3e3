//! What somebody wanted of a workload, and everything that must be remembered while it sleeps.
//!
//! One [`IntentUpdate`] is one durable write: replica count, count to restore, reason, actor, schedule and the
//! last changes go together or not at all (invariant 7). On Kubernetes these are annotations of the object, on
//! the local engine one file; neither is known here.

use std::fmt;

use jiff::Timestamp;

use crate::id::{KeyId, RequestId, UserName};
use crate::quantity::{Replicas, WakeCount};
use crate::text::ReasonText;
use crate::wake::Learned;

/// How many changes travel on the object itself. Enough to repair a history that lost its tail.
pub const RECENT_CHANGES_MAX: usize = 5;

/// Who caused a change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Actor {
    /// A caller of the API who proved a key.
    Key(KeyId),
    /// A user of the cluster, whose token the API server vouched for.
    User(UserName),
    /// A caller of the API while authentication is off.
    Anonymous,
    /// The gateway, for a request that arrived.
    Gateway,
    /// The loop that puts idle workloads to sleep.
    Idle,
    /// A schedule that came due.
    Schedule,
    /// Somebody who did not go through Nagi (`kubectl scale`, an edited workload file).
    Outside,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => write!(f, "key/{id}"),
            Self::User(name) => write!(f, "user/{}", name.to_word()),
            Self::Anonymous => f.write_str("anonymous"),
            Self::Gateway => f.write_str("gateway"),
            Self::Idle => f.write_str("idle"),
            Self::Schedule => f.write_str("schedule"),
            Self::Outside => f.write_str("outside"),
        }
    }
}

impl Actor {
    /// Reads what [`fmt::Display`] wrote. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "anonymous" => Some(Self::Anonymous),
            "gateway" => Some(Self::Gateway),
            "idle" => Some(Self::Idle),
            "schedule" => Some(Self::Schedule),
            "outside" => Some(Self::Outside),
            _ => match text.split_once('/')? {
                ("key", id) => KeyId::new(id).ok().map(Self::Key),
                ("user", word) => UserName::from_word(word).map(Self::User),
                _ => None,
            },
        }
    }
}

/// Who set the present count of a workload without leaving a record on it, as far as the engine tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CountWriter {
    /// A gateway of ours, for a request: it may write nothing but the count.
    Gateway,
    /// Somebody else, by the name that the engine knows, such as `kubectl-scale`.
    Other(String),
}

/// What kind of change it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// `POST …/scale-to-zero`.
    ScaleToZero,
    /// `POST …/scale-up`, upwards or downwards.
    ScaleUp,
    /// `POST …/wake`.
    Wake,
    /// The first request to a sleeping workload.
    WakeOnRequest,
    /// Nobody used it for its stated time.
    IdleSleep,
    /// A scheduled wake fired.
    ScheduledWake,
    /// A schedule was set without changing the count.
    ScheduleSet,
    /// A pending schedule was cancelled, or dropped because the workload was awake when it came due.
    ScheduleCancelled,
    /// The count changed without Nagi.
    OutsideChange,
}

impl Action {
    /// Every action, in declaration order.
    pub const ALL: [Self; 9] = [
        Self::ScaleToZero,
        Self::ScaleUp,
        Self::Wake,
        Self::WakeOnRequest,
        Self::IdleSleep,
        Self::ScheduledWake,
        Self::ScheduleSet,
        Self::ScheduleCancelled,
        Self::OutsideChange,
    ];

    /// The word for log, metric label and history.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ScaleToZero => "scale-to-zero",
            Self::ScaleUp => "scale-up",
            Self::Wake => "wake",
            Self::WakeOnRequest => "wake-on-request",
            Self::IdleSleep => "idle-sleep",
            Self::ScheduledWake => "scheduled-wake",
            Self::ScheduleSet => "schedule-set",
            Self::ScheduleCancelled => "schedule-cancelled",
            Self::OutsideChange => "outside-change",
        }
    }

    /// Reads what [`Action::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One recorded change: who, why, when, from how many to how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When it was decided.
    pub time: Timestamp,
    /// What kind of change.
    pub action: Action,
    /// Who caused it.
    pub actor: Actor,
    /// Why, in the words of the caller or of the rule.
    pub reason: ReasonText,
    /// The request that asked for it; changes without a request have none.
    pub request_id: Option<RequestId>,
    /// Wanted count before.
    pub from: Replicas,
    /// Wanted count after.
    pub to: Replicas,
}

/// Who or what put a workload to sleep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SleptBy {
    /// An explicit call.
    Api,
    /// A schedule.
    Schedule,
    /// A policy, by its name: `NAMESPACE/NAME`. The local engine's `idle_after` is `local/idle-after`.
    Policy(String),
}

impl fmt::Display for SleptBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api => f.write_str("api"),
            Self::Schedule => f.write_str("schedule"),
            Self::Policy(name) => write!(f, "policy/{name}"),
        }
    }
}

impl SleptBy {
    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "api" => Some(Self::Api),
            "schedule" => Some(Self::Schedule),
            _ => text
                .strip_prefix("policy/")
                .map(|name| Self::Policy(name.to_owned())),
        }
    }
}

/// Since when and by whom a workload sleeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asleep {
    /// When the wanted count became 0.
    pub since: Timestamp,
    /// Who decided it.
    pub by: SleptBy,
}

/// A one-off wake at a stated instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledWake {
    /// When to wake.
    pub at: Timestamp,
    /// Who asked for it.
    pub actor: Actor,
    /// The request that asked for it.
    pub request_id: Option<RequestId>,
}

/// What is remembered about a workload beside its wanted count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Intent {
    /// The count to restore.
    pub remembered: Option<WakeCount>,
    /// Present while asleep by Nagi's doing.
    pub asleep: Option<Asleep>,
    /// When the wanted count last changed; unknown is `None`, never a made-up time (A-157, W-A02).
    pub last_scale_time: Option<Timestamp>,
    /// A pending one-off wake.
    pub scheduled: Option<ScheduledWake>,
    /// No automatic sleep before this instant.
    pub keep_awake_until: Option<Timestamp>,
    /// The last changes, oldest first, at most [`RECENT_CHANGES_MAX`].
    pub changes: Vec<Change>,
    /// Learned durations of the stages of a wake.
    pub learned: Learned,
}

impl Intent {
    /// Adds a change and forgets the oldest beyond the limit.
    pub fn record(&mut self, change: Change) {
        self.changes.push(change);
        let surplus = self.changes.len().saturating_sub(RECENT_CHANGES_MAX);
        self.changes.drain(..surplus);
    }

    /// The reason of the last change, if any is known.
    pub fn last_reason(&self) -> Option<&ReasonText> {
        self.changes.last().map(|change| &change.reason)
    }
}

/// One durable write: the wanted count and everything remembered, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntentUpdate {
    /// The wanted count after the write.
    pub desired: Replicas,
    /// What is remembered after the write.
    pub intent: Intent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_stored_read_back_as_they_were() {
        for action in Action::ALL {
            assert_eq!(Action::parse(action.as_str()), Some(action));
        }
        let actors = [
            Actor::Anonymous,
            Actor::Gateway,
            Actor::Idle,
            Actor::Schedule,
            Actor::Outside,
            Actor::Key(KeyId::new("ops").unwrap()),
            Actor::User(UserName::new("system:serviceaccount:project-a:ci").unwrap()),
            Actor::User(UserName::new("https://issuer/Jane Doe").unwrap()),
        ];
        for actor in actors {
            assert_eq!(Actor::parse(&actor.to_string()), Some(actor));
        }
        for by in [
            SleptBy::Api,
            SleptBy::Schedule,
            SleptBy::Policy("a/b".into()),
        ] {
            assert_eq!(SleptBy::parse(&by.to_string()), Some(by));
        }
        assert_eq!(Actor::parse("key/NOT OK"), None);
        assert_eq!(Actor::parse("user/"), None);
        assert_eq!(SleptBy::parse("nobody"), None);
    }

    #[test]
    fn only_the_last_five_changes_stay_on_the_object() {
        let mut intent = Intent::default();
        for n in 0..8 {
            intent.record(crate::fixtures::change(n, n + 1));
        }
        assert_eq!(intent.changes.len(), RECENT_CHANGES_MAX);
        assert_eq!(intent.changes.first().map(|c| c.from), Some(Replicas(3)));
        assert_eq!(intent.changes.last().map(|c| c.to), Some(Replicas(8)));
    }
}
