//! Orders and their answers: scale to zero, scale up, wake, cancel a schedule.

use jiff::Timestamp;
use nagi_core::quantity::{Replicas, WakeCount};
use nagi_core::scale::{Direction, Plan, Warning};
use nagi_core::schedule::parse_instant;
use nagi_core::text::{REASON_CHARS_MAX, ReasonText};
use nagi_core::workload::Workload;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::{FieldError, Json};
use crate::problem::Succeeded;
use crate::time::Time;

/// Body of `POST …/scale-to-zero` (A-151). Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScaleToZeroRequest {
    /// Why: 1 to 500 characters.
    #[schema(
        min_length = 1,
        max_length = 500,
        pattern = r"[^\s\x00]",
        example = "コスト最適化のため"
    )]
    pub reason: String,
    /// When to wake by itself: RFC 3339 with a zone, in the future, at most a year ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub scheduled_scale_up: Option<String>,
}

/// Body of `POST …/scale-up` (A-154). Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScaleUpRequest {
    /// How many replicas to have: an integer from 1 to the ceiling (100 by default).
    #[schema(minimum = 1, example = 2)]
    pub replicas: u32,
    /// Why: 1 to 500 characters.
    #[schema(
        min_length = 1,
        max_length = 500,
        pattern = r"[^\s\x00]",
        example = "サンプルアプリ開始のため"
    )]
    pub reason: String,
}

/// Body of `POST …/wake`; it may be left out as a whole (R14). Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct WakeRequest {
    /// To how many replicas, when not to the remembered count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub replicas: Option<u32>,
    /// Why: 1 to 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 500)]
    pub reason: Option<String>,
}

/// What `POST …/scale-to-zero` asks for, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToZero {
    /// Why.
    pub reason: ReasonText,
    /// When to wake by itself.
    pub wake_at: Option<Timestamp>,
}

/// What `POST …/scale-up` asks for, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up {
    /// How many.
    pub replicas: WakeCount,
    /// Why.
    pub reason: ReasonText,
}

/// What `POST …/wake` asks for, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToWake {
    /// To how many.
    pub replicas: Option<WakeCount>,
    /// Why.
    pub reason: Option<ReasonText>,
}

impl ToZero {
    /// Checks a body. `now` judges the schedule.
    ///
    /// # Errors
    /// The field at fault and what it must be.
    pub fn read(body: &Json, now: Timestamp) -> Result<Self, FieldError> {
        let reason = reason(body)?;
        let wake_at = match body.field("scheduled_scale_up") {
            None | Some(Json::Null) => None,
            Some(Json::Text(text)) => {
                let at = parse_instant(text, now)
                    .map_err(|e| FieldError::new("scheduled_scale_up", e, INSTANT_LIMIT))?;
                Some(at)
            }
            Some(other) => {
                return Err(FieldError::new(
                    "scheduled_scale_up",
                    format_args!("must be a string, got {}", other.kind()),
                    INSTANT_LIMIT,
                ));
            }
        };
        Ok(Self { reason, wake_at })
    }
}

impl Up {
    /// Checks a body against the ceiling.
    ///
    /// # Errors
    /// The field at fault and what it must be.
    pub fn read(body: &Json, ceiling: Replicas) -> Result<Self, FieldError> {
        let replicas = match body.field("replicas") {
            None => return Err(missing("replicas", &replicas_limit(ceiling))),
            Some(value) => replicas(value, ceiling)?,
        };
        // Whoever sends a time expects that nothing happens before it.
        if !matches!(body.field("scheduled_scale_up"), None | Some(Json::Null)) {
            return Err(FieldError::new(
                "scheduled_scale_up",
                "belongs to scale-to-zero: a scale-up happens at once",
                "left out",
            ));
        }
        Ok(Self {
            replicas,
            reason: reason(body)?,
        })
    }
}

impl ToWake {
    /// Checks a body against the ceiling; `null` counts as left out.
    ///
    /// # Errors
    /// The field at fault and what it must be.
    pub fn read(body: &Json, ceiling: Replicas) -> Result<Self, FieldError> {
        let replicas = match body.field("replicas") {
            None | Some(Json::Null) => None,
            Some(value) => Some(replicas(value, ceiling)?),
        };
        let reason = match body.field("reason") {
            None | Some(Json::Null) => None,
            Some(_) => Some(reason(body)?),
        };
        Ok(Self { replicas, reason })
    }
}

const INSTANT_LIMIT: &str =
    "RFC 3339 with 'T' and a zone, later than now and at most one year ahead";

fn replicas_limit(ceiling: Replicas) -> String {
    format!("an integer from 1 to {ceiling}")
}

fn missing(field: &str, limit: &str) -> FieldError {
    FieldError::new(field, "is required", limit)
}

fn replicas(value: &Json, ceiling: Replicas) -> Result<WakeCount, FieldError> {
    let limit = replicas_limit(ceiling);
    let wrong = |got: &dyn std::fmt::Display| {
        FieldError::new(
            "replicas",
            format_args!("must be {limit}, got {got}"),
            &limit,
        )
    };
    let Json::Integer(number) = value else {
        return Err(wrong(&value.kind()));
    };
    u32::try_from(*number)
        .ok()
        .filter(|count| Replicas(*count) <= ceiling)
        .and_then(WakeCount::new)
        .ok_or_else(|| wrong(number))
}

fn reason(body: &Json) -> Result<ReasonText, FieldError> {
    let limit = format!("1 to {REASON_CHARS_MAX} characters");
    match body.field("reason") {
        None => Err(missing("reason", &limit)),
        Some(Json::Text(text)) => {
            ReasonText::new(text.as_str()).map_err(|e| FieldError::new("reason", e, &limit))
        }
        Some(other) => Err(FieldError::new(
            "reason",
            format_args!("must be a string, got {}", other.kind()),
            &limit,
        )),
    }
}

/// Answer of `scale-to-zero` and `scale-up` (A-152, A-155).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScaleAnswer {
    /// Always `success`.
    pub status: Succeeded,
    /// `Deployment scaled to zero`, or `Deployment scaled to <n> replicas`.
    #[schema(example = "Deployment scaled to zero")]
    pub message: String,
    /// What it came to.
    pub deployment: ScaleResult,
    /// What the caller should know beside success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Present and `true` when nothing was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub dry_run: Option<bool>,
    /// When the answer was made.
    pub timestamp: Time,
}

/// What a scale order came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScaleResult {
    /// Name.
    #[schema(example = "sample-app-a")]
    pub name: String,
    /// Namespace.
    #[schema(example = "project-a")]
    pub namespace: String,
    /// Plural of the kind.
    #[schema(example = "deployments")]
    pub resource: String,
    /// Wanted count before.
    pub previous_replicas: u32,
    /// After scale-to-zero 0, as the first API reference has it; after scale-up the observed count.
    pub current_replicas: u32,
    /// Replicas observed right after the write, starting and stopping ones included.
    pub observed_replicas: u32,
    /// Wanted count now.
    pub target_replicas: u32,
    /// `scaled-to-zero`, `scaling-up`, `scaling-down` or `unchanged`.
    #[schema(example = "scaled-to-zero")]
    pub target_status: String,
    /// `up`, `down` or `none`.
    #[schema(example = "down")]
    pub direction: String,
    /// The reason as sent.
    pub scaling_reason: String,
    /// The wake that is pending now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub scheduled_scale_up: Option<Time>,
    /// The count that the next wake restores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub remembered_replicas: Option<u32>,
    /// When the wanted count last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub last_scale_time: Option<Time>,
    /// Version of the object after the write; pass it as `min_resource_version`.
    #[schema(example = "42")]
    pub resource_version: String,
}

impl ScaleResult {
    /// From the plan and the workload as it is after the write.
    pub fn new(plan: &Plan, after: &Workload, reason: &ReasonText) -> Self {
        let observed = after.current.0;
        let (current, target_status) = match (plan.to.is_zero(), plan.direction()) {
            (true, _) => (0, "scaled-to-zero"),
            (false, Direction::Up) => (observed, "scaling-up"),
            (false, Direction::Down) => (observed, "scaling-down"),
            (false, Direction::None) => (observed, "unchanged"),
        };
        Self {
            name: after.id.name.to_string(),
            namespace: after.id.namespace.to_string(),
            resource: after.id.resource.to_string(),
            previous_replicas: plan.from.0,
            current_replicas: current,
            observed_replicas: observed,
            target_replicas: plan.to.0,
            target_status: target_status.to_owned(),
            direction: direction(plan.direction()).to_owned(),
            scaling_reason: reason.to_string(),
            scheduled_scale_up: plan.scheduled.map(Time),
            remembered_replicas: after.intent.remembered.map(|count| count.replicas().0),
            last_scale_time: after.intent.last_scale_time.map(Time::in_millis),
            resource_version: after.version.to_string(),
        }
    }
}

/// Answer of `POST …/wake` (R14): 202 while it is waking, 200 when it serves already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WakeAnswer {
    /// Always `success`.
    pub status: Succeeded,
    /// `Wake started`, `Already waking` (an earlier call, schedule or request began it) or `Already awake`.
    #[schema(example = "Wake started")]
    pub message: String,
    /// What it came to.
    pub deployment: WakeResult,
    /// What the caller should know beside success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Present and `true` when nothing was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub dry_run: Option<bool>,
    /// When the answer was made.
    pub timestamp: Time,
}

/// What a wake came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WakeResult {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Plural of the kind.
    pub resource: String,
    /// Wanted count before.
    pub previous_replicas: u32,
    /// Replicas observed now.
    pub current_replicas: u32,
    /// Wanted count now.
    pub target_replicas: u32,
    /// The stage it is in.
    #[schema(example = "scaling")]
    pub stage: String,
    /// Seconds until it is likely to serve; `null` when unknown.
    pub eta_seconds: Option<f64>,
    /// The wake that stays pending beside this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub scheduled_scale_up: Option<Time>,
    /// Version of the object after the write of this wake, or of the one that is under way already; pass it as
    /// `min_resource_version`.
    #[schema(example = "42")]
    pub resource_version: String,
}

/// Answer of `DELETE …/scheduled-scale-up` (R12).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleAnswer {
    /// Always `success`.
    pub status: Succeeded,
    /// `Scheduled scale up cancelled`.
    #[schema(example = "Scheduled scale up cancelled")]
    pub message: String,
    /// What was cancelled.
    pub deployment: ScheduleResult,
    /// Present and `true` when nothing was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub dry_run: Option<bool>,
    /// When the answer was made.
    pub timestamp: Time,
}

/// A schedule that was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleResult {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Plural of the kind.
    pub resource: String,
    /// The instant that is no longer scheduled.
    pub scheduled_scale_up: Time,
    /// Version of the object after the write.
    #[schema(example = "42")]
    pub resource_version: String,
}

impl ScheduleResult {
    /// From the cancelled instant and the workload as it is after the write.
    pub fn new(cancelled: Timestamp, after: &Workload) -> Self {
        Self {
            name: after.id.name.to_string(),
            namespace: after.id.namespace.to_string(),
            resource: after.id.resource.to_string(),
            scheduled_scale_up: Time(cancelled),
            resource_version: after.version.to_string(),
        }
    }
}

/// The word for a direction (R11).
pub const fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "up",
        Direction::Down => "down",
        Direction::None => "none",
    }
}

/// A warning in words (R24).
pub fn warning(warning: &Warning) -> String {
    match warning {
        Warning::Autoscaler { name, minimum } if minimum.is_zero() => format!(
            "{name} owns the replica count while the workload is awake, and its minimum is 0"
        ),
        Warning::Autoscaler { name, minimum } => format!(
            "{name} owns the replica count while the workload is awake (minimum {minimum}); it pauses at 0"
        ),
        Warning::NoWakeCount => {
            "nobody has said to how many replicas it wakes: a scale-up must name a count, or set awake_replicas in the \
             workload file (on Kubernetes the annotation nagi.dev/awake-replicas)"
                .to_owned()
        }
        Warning::ConnectionsCut { open: 1 } => {
            "1 open connection is cut when the replicas stop".to_owned()
        }
        Warning::ConnectionsCut { open } => {
            format!("{open} open connections are cut when the replicas stop")
        }
        Warning::RequestsRefused { held: 1 } => {
            "1 request that waits for it to wake is refused".to_owned()
        }
        Warning::RequestsRefused { held } => {
            format!("{held} requests that wait for it to wake are refused")
        }
    }
}

#[cfg(test)]
mod tests;
