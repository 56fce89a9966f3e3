//! Lists in pages (R18).

use nagi_core::workload::Workload;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Succeeded;
use crate::time::Time;
use crate::workload::WorkloadItem;

/// Items of a page when the caller does not say.
pub const LIMIT_DEFAULT: usize = 100;
/// Most items of a page.
pub const LIMIT_MAX: usize = 500;

/// `GET /api/v1/{resource}` and `GET /api/v1/workloads`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ListAnswer {
    /// Always `success`.
    pub status: Succeeded,
    /// How many items the page holds, in words.
    pub message: String,
    /// The workloads, in a stable order.
    pub items: Vec<WorkloadItem>,
    /// Present when more follow: pass it as `continue`.
    #[serde(default, rename = "continue", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub continue_token: Option<String>,
    /// When the list was observed; of what was seen at different times, the earliest.
    pub observed_at: Time,
    /// What of the list cannot be read now: kinds, `pods`, `customresourcedefinitions`. Of what was read before, what was known
    /// then is shown. Left out when all of it can.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<UnreadKind>,
}

/// `GET /api/v1/scheduled-scale-ups`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScheduledListAnswer {
    /// Always `success`.
    pub status: Succeeded,
    /// How many items the page holds, in words.
    pub message: String,
    /// The pending wakes, in a stable order.
    pub items: Vec<ScheduledItem>,
    /// Present when more follow: pass it as `continue`.
    #[serde(default, rename = "continue", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub continue_token: Option<String>,
    /// When the list was observed; of what was seen at different times, the earliest.
    pub observed_at: Time,
    /// What of the list cannot be read now: kinds, `pods`, `customresourcedefinitions`. Of what was read before, what was known
    /// then is shown. Left out when all of it can.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<UnreadKind>,
}

/// A kind, or facts of all of them, that cannot be read now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnreadKind {
    /// Plural of the kind; `pods`, by which a list tells what serves; or `customresourcedefinitions`, by which it knows kinds.
    pub resource: String,
    /// Why not.
    pub reason: String,
}

/// One pending wake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduledItem {
    /// Plural of the kind.
    pub resource: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// When it wakes.
    pub scheduled_scale_up: Time,
    /// To how many; left out when nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub target_replicas: Option<u32>,
    /// Who asked for it.
    pub actor: String,
    /// In which request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub request_id: Option<String>,
    /// Wanted count now.
    pub desired_replicas: u32,
}

impl ScheduledItem {
    /// The pending wake of a workload, if it has one.
    pub fn of(workload: &Workload) -> Option<Self> {
        use nagi_core::wake_count::{Wish, wake_count};
        let scheduled = workload.intent.scheduled.as_ref()?;
        let count = wake_count(Wish::default(), workload);
        Some(Self {
            resource: workload.id.resource.to_string(),
            namespace: workload.id.namespace.to_string(),
            name: workload.id.name.to_string(),
            scheduled_scale_up: Time(scheduled.at),
            target_replicas: count.map(|(count, _)| count.replicas().0),
            actor: scheduled.actor.to_string(),
            request_id: scheduled.request_id.as_ref().map(ToString::to_string),
            desired_replicas: workload.desired.0,
        })
    }
}
