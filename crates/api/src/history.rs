//! Past changes (R20).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Succeeded;
use crate::time::Time;

/// `GET /api/v1/history`, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HistoryAnswer {
    /// Always `success`.
    pub status: Succeeded,
    /// How many items the page holds, in words.
    pub message: String,
    /// The changes, newest first.
    pub items: Vec<HistoryItem>,
    /// Present when older ones follow: pass it as `continue`.
    #[serde(default, rename = "continue", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub continue_token: Option<String>,
    /// How far back the history reaches at all; `null` while it is empty.
    pub reaches_back_to: Option<Time>,
    /// When the history was read.
    pub observed_at: Time,
}

/// One past change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HistoryItem {
    /// Grows with time; unique.
    pub id: u64,
    /// When.
    pub time: Time,
    /// Plural of the kind.
    pub resource: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What: `scale-to-zero`, `scale-up`, `wake`, `wake-on-request`, `idle-sleep`, `scheduled-wake`, `schedule-set`,
    /// `schedule-cancelled`, `outside-change`.
    #[schema(example = "scale-to-zero")]
    pub action: String,
    /// Who: `key/ID`, `user/NAME`, `anonymous`, `gateway`, `idle`, `schedule`, `outside`.
    #[schema(example = "key/ops")]
    pub actor: String,
    /// Why.
    pub reason: String,
    /// In which request; `null` for changes without one.
    pub request_id: Option<String>,
    /// Wanted count before.
    pub from: u32,
    /// Wanted count after.
    pub to: u32,
    /// Where it was read: `journal` or `object`.
    #[schema(example = "journal")]
    pub source: String,
}
