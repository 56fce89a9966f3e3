//! One workload as an answer shows it: in its status, and as an item of lists.

use std::collections::BTreeMap;
use std::time::Duration;

use nagi_core::intent::Change;
use nagi_core::wake::{Mark, Stage, Trigger};
use nagi_core::workload::{Replica, Workload};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Succeeded;
use crate::time::Time;

/// `GET …/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusAnswer {
    /// Always `success`.
    pub status: Succeeded,
    /// `Deployment status retrieved successfully`.
    #[schema(example = "Deployment status retrieved successfully")]
    pub message: String,
    /// The workload, whatever its kind.
    pub deployment: WorkloadItem,
    /// When the answer was made.
    pub timestamp: Time,
}

/// A workload: counts, status, and what is remembered of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkloadItem {
    /// Its name.
    #[schema(example = "sample-app-a")]
    pub name: String,
    /// Its namespace.
    #[schema(example = "project-a")]
    pub namespace: String,
    /// Its name again, under the field that the first API reference used.
    pub deployment: String,
    /// Plural of its kind.
    #[schema(example = "deployments")]
    pub resource: String,
    /// Replicas that exist, starting and stopping ones included.
    pub current_replicas: u32,
    /// Replicas that are wanted.
    pub desired_replicas: u32,
    /// Replicas that serve.
    pub available_replicas: u32,
    /// `active`, `inactive`, `scaling`, or `unknown` when nothing could be observed.
    #[schema(example = "active")]
    pub status: String,
    /// Why it is `scaling`, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    /// The same as one word: `waiting-for-node`, `pool-at-maximum`, `does-not-fit`, `pulling`, `starting`, `unready`,
    /// `crash-loop`, `stopping`, `engine`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason_code: Option<String>,
    /// When the wanted count last changed; left out when nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub last_scale_time: Option<Time>,
    /// The count that the next wake restores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub remembered_replicas: Option<u32>,
    /// When it wakes by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub scheduled_scale_up: Option<Time>,
    /// Since when it sleeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub asleep_since: Option<Time>,
    /// Who put it to sleep: `api`, `schedule` or `policy/NAMESPACE/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub asleep_by: Option<String>,
    /// No automatic sleep before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub keep_awake_until: Option<Time>,
    /// It sleeps by itself after this many seconds without use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub idle_after_seconds: Option<f64>,
    /// Why nobody puts it to sleep when it is idle, or wakes it on schedule, now. Only the status tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub unattended: Option<String>,
    /// The autoscaler that owns its count while it is awake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub autoscaler: Option<String>,
    /// The pool that its replicas run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub pool: Option<String>,
    /// Host names by which the gateway finds it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its replicas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<ReplicaItem>,
    /// The wake that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub wake: Option<WakeItem>,
    /// The last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub last_change: Option<ChangeItem>,
    /// Requests and connections open through the gateway now; left out when nobody counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub in_flight_requests: Option<u64>,
    /// Requests held by the gateway until it is awake; left out when nobody counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub held_requests: Option<u64>,
    /// Version of the object that the facts come from; pass it as `min_resource_version`.
    #[schema(example = "42")]
    pub resource_version: String,
    /// When the facts were observed.
    pub observed_at: Time,
}

/// One replica: a pod, or a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaItem {
    /// Its name.
    pub name: String,
    /// How far it has come: a stage of a wake.
    #[schema(example = "ready")]
    pub stage: String,
    /// It serves.
    pub ready: bool,
    /// It has been told to end.
    pub stopping: bool,
    /// How often it was started again after it ended by itself.
    pub restarts: u32,
    /// Where it listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub address: Option<String>,
}

/// A wake under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WakeItem {
    /// The stage it is in: `accepted`, `scaling`, `waiting-for-node`, `node-joining`, `driver`, `pulling`, `starting`,
    /// `ready`, or `failed`.
    #[schema(example = "waiting-for-node")]
    pub stage: String,
    /// Seconds until it is likely to serve; `null` when nothing taught it yet.
    pub eta_seconds: Option<f64>,
    /// `request`, `call` or `schedule`.
    #[schema(example = "call")]
    pub trigger: String,
    /// The stages that were entered so far.
    pub stages: Vec<StageItem>,
    /// Why it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub failure: Option<String>,
}

/// When a wake entered a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StageItem {
    /// The stage.
    pub stage: String,
    /// Seconds since the wake began.
    pub after_seconds: f64,
}

/// One change of the wanted count or of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeItem {
    /// When.
    pub time: Time,
    /// What: `scale-to-zero`, `scale-up`, `wake`, `wake-on-request`, `idle-sleep`, `scheduled-wake`, `schedule-set`,
    /// `schedule-cancelled`, `outside-change`.
    #[schema(example = "scale-to-zero")]
    pub action: String,
    /// Who: `key/ID`, `user/NAME`, `anonymous`, `gateway`, `idle`, `schedule`, `outside`.
    #[schema(example = "key/ops")]
    pub actor: String,
    /// Why.
    pub reason: String,
    /// In which request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub request_id: Option<String>,
    /// Wanted count before.
    pub from: u32,
    /// Wanted count after.
    pub to: u32,
}

impl From<&Workload> for WorkloadItem {
    /// Everything but what only the wake driver and the gateway know.
    fn from(workload: &Workload) -> Self {
        let intent = &workload.intent;
        Self {
            name: workload.id.name.to_string(),
            namespace: workload.id.namespace.to_string(),
            deployment: workload.id.name.to_string(),
            resource: workload.id.resource.to_string(),
            current_replicas: workload.current.0,
            desired_replicas: workload.desired.0,
            available_replicas: workload.available.0,
            status: workload.status().as_str().to_owned(),
            reason: workload.pending.as_ref().map(ToString::to_string),
            reason_code: workload.pending.as_ref().map(|p| p.code().to_owned()),
            last_scale_time: intent.last_scale_time.map(Time::in_millis),
            remembered_replicas: intent.remembered.map(|count| count.replicas().0),
            scheduled_scale_up: intent.scheduled.as_ref().map(|s| Time(s.at)),
            asleep_since: intent.asleep.as_ref().map(|a| Time::in_millis(a.since)),
            asleep_by: intent.asleep.as_ref().map(|a| a.by.to_string()),
            keep_awake_until: intent.keep_awake_until.map(Time),
            idle_after_seconds: workload.idle_after.map(|d| d.as_secs_f64()),
            unattended: None,
            autoscaler: workload.autoscaler.as_ref().map(|a| a.name.clone()),
            pool: workload.pool.as_ref().map(ToString::to_string),
            hosts: workload.hosts.iter().map(ToString::to_string).collect(),
            labels: workload.labels.clone(),
            replicas: workload.replicas.iter().map(ReplicaItem::from).collect(),
            wake: None,
            last_change: intent.changes.last().map(ChangeItem::from),
            in_flight_requests: None,
            held_requests: None,
            resource_version: workload.version.to_string(),
            observed_at: Time::in_millis(workload.observed_at),
        }
    }
}

impl From<&Replica> for ReplicaItem {
    fn from(replica: &Replica) -> Self {
        Self {
            name: replica.name.to_string(),
            stage: replica.stage.as_str().to_owned(),
            ready: replica.ready,
            stopping: replica.stopping,
            restarts: replica.restarts,
            address: replica.address.map(|a| a.to_string()),
        }
    }
}

impl From<&Change> for ChangeItem {
    fn from(change: &Change) -> Self {
        Self {
            time: Time::in_millis(change.time),
            action: change.action.as_str().to_owned(),
            actor: change.actor.to_string(),
            reason: change.reason.to_string(),
            request_id: change.request_id.as_ref().map(ToString::to_string),
            from: change.from.0,
            to: change.to.0,
        }
    }
}

impl WakeItem {
    /// A wake from its parts; `failure` makes its stage `failed`.
    pub fn new(
        stage: Stage,
        marks: &[Mark],
        eta: Option<Duration>,
        trigger: Trigger,
        failure: Option<String>,
    ) -> Self {
        let word = if failure.is_some() {
            FAILED_STAGE
        } else {
            stage.as_str()
        };
        Self {
            stage: word.to_owned(),
            eta_seconds: eta.map(seconds),
            trigger: trigger.as_str().to_owned(),
            stages: marks.iter().map(StageItem::from).collect(),
            failure,
        }
    }
}

impl From<&Mark> for StageItem {
    fn from(mark: &Mark) -> Self {
        Self {
            stage: mark.stage.as_str().to_owned(),
            after_seconds: seconds(mark.after),
        }
    }
}

/// The word for the stage of a wake that was given up.
pub const FAILED_STAGE: &str = "failed";

/// Seconds with three decimals, which is as exact as anything shown here is measured.
pub(crate) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
