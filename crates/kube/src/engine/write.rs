//! Writes: one patch each, on the condition that the object is still the one that was judged.

use std::sync::Arc;

use http::Method;
use nagi_core::id::{Version, WorkloadId};
use nagi_core::intent::IntentUpdate;
use nagi_core::quantity::Replicas;
use nagi_core::release::Marks;
use nagi_core::workload::Workload;
use nagi_ports::PortError;
use nagi_runtime::Deadline;
use serde_json::json;

use super::{ORDER, Rights, Shared, Watched};
use crate::annotate;
use crate::api::{Api, ApiError, Call, Content};
use crate::lanes::Lane;
use crate::names::{FIELD_MANAGER, FIELD_MANAGER_GATEWAY};
use crate::wire::Bare;

impl Shared {
    /// Writes count and intent. `epoch` is the term of a leader that writes.
    pub(crate) async fn write(
        &self,
        before: &Workload,
        update: IntentUpdate,
        epoch: Option<u64>,
    ) -> Result<Arc<Workload>, PortError> {
        let watched = self.judge(before, &update).await?;
        match self.rights {
            Rights::Full => self.patch(&watched, before, update, epoch).await,
            Rights::ScaleOnly => self.wake(&watched, before, update).await,
        }
    }

    /// The kind of a workload to which this may be written: nothing is promised that nobody would keep, and nothing of a newer
    /// release is destroyed.
    pub(crate) async fn judge(
        &self,
        before: &Workload,
        update: &IntentUpdate,
    ) -> Result<Arc<Watched>, PortError> {
        let watched = self.kind_of(&before.id).await?;
        let is_promise = update.intent.scheduled.is_some();
        if is_promise
            && update.intent.scheduled != before.intent.scheduled
            && let Some(lead) = self.lead.get()
        {
            lead.keeps_promises().await?;
        }
        let fencing = self.store.fencing(&before.id);
        if self.rights == Rights::Full && fencing.is_some_and(|(_, marks)| marks == Marks::Newer) {
            return Err(PortError::Refused(
                "a newer release of Nagi wrote its annotations; this one would destroy them"
                    .to_owned(),
            ));
        }
        Ok(watched)
    }

    /// Sleep, wake and everything remembered, in one merge patch of the object itself. The `scale` subresource would drop
    /// the annotations.
    async fn patch(
        &self,
        watched: &Watched,
        before: &Workload,
        update: IntentUpdate,
        epoch: Option<u64>,
    ) -> Result<Arc<Workload>, PortError> {
        let id = &before.id;
        self.still_counts(watched, before).await?;
        let mut patch = if update.desired == before.desired {
            // The count stays whose it is.
            json!({})
        } else {
            watched.kind.count_patch(update.desired.0)
        };
        patch["metadata"] = json!({
            "resourceVersion": before.version.to_string(),
            "annotations": annotate::write(&update.intent, epoch),
        });
        let at = format!(
            "{}?fieldManager={FIELD_MANAGER}",
            watched.kind.object_path(id)
        );
        let call = Call::with(Method::PATCH, at, Content::MergePatch, &patch);
        let lane = Lane::of(before.desired, update.desired);
        match self.in_turn(lane, &call).await {
            Ok(body) => {
                let stated = watched.kind.stated(&body);
                if update.desired != before.desired && stated != Some(update.desired.0.into()) {
                    return Err(self.not_kept(watched, id, update.desired, stated));
                }
                self.tell(watched, before, &update);
                match self.take(watched, id, &body) {
                    // Deleted again already: what was written was written.
                    Err(PortError::NotFound) => Ok(Arc::new(written(before, update, &body))),
                    // Whoever wrote it would go on and on.
                    Ok(now) if now.intent == before.intent && update.intent != before.intent => {
                        Err(PortError::Refused(format!(
                            "what Nagi remembers was written to {id}, and its annotations are as before: an admission webhook \
                             keeps them"
                        )))
                    }
                    other => other,
                }
            }
            Err(ApiError::Status { code: 409, .. }) => {
                // Whoever decides again shall see what was in the way.
                self.live(watched, id, ORDER).await?;
                Err(PortError::Conflict)
            }
            Err(error) => Err(self.failed(watched, id, error)),
        }
    }

    /// What was read in another place, as before the definition of its kind changed, or before a backup was restored, is no
    /// ground for a write.
    ///
    /// # Errors
    /// [`PortError::Conflict`]: the facts are new now.
    pub(super) async fn still_counts(
        &self,
        watched: &Watched,
        before: &Workload,
    ) -> Result<(), PortError> {
        if self.store.goes_on(&before.id, before.version) {
            return Ok(());
        }
        self.live(watched, &before.id, ORDER).await?;
        Err(PortError::Conflict)
    }

    /// The wake of a process that may do nothing else: 0 → n through `scale`. At zero a Scale is written as `spec: {}`, so
    /// this takes effect once, however many send it.
    async fn wake(
        &self,
        watched: &Watched,
        before: &Workload,
        update: IntentUpdate,
    ) -> Result<Arc<Workload>, PortError> {
        let (id, count) = (&before.id, update.desired);
        if !before.desired.is_zero() || count.is_zero() {
            return Err(PortError::Refused(
                "this process may wake, and write nothing else".to_owned(),
            ));
        }
        let patch = json!([
            { "op": "test", "path": "/spec", "value": {} },
            { "op": "add", "path": "/spec/replicas", "value": count.0 },
        ]);
        let object = watched.kind.object_path(id);
        let at = format!("{object}/scale?fieldManager={FIELD_MANAGER_GATEWAY}");
        let call = Call::with(Method::PATCH, at, Content::JsonPatch, &patch);
        match self.in_turn(Lane::Wake, &call).await {
            Ok(body) => {
                self.tell(watched, before, &update);
                let scale: Bare = serde_json::from_slice(&body).unwrap_or_default();
                let (version, now) = (scale.metadata.version(), self.clock.now());
                self.store.apply_count(id, count.0, version, now);
                let known = self
                    .store
                    .workload(id, now)
                    .filter(|known| known.version.number >= version)
                    .filter(|known| self.store.goes_on(id, known.version));
                match known {
                    Some(known) => Ok(Arc::new(known)),
                    None => self.live(watched, id, ORDER).await,
                }
            }
            Err(ApiError::Status {
                code: 422, message, ..
            }) => {
                let now = self.live(watched, id, ORDER).await?;
                if now.desired.is_zero() {
                    return Err(PortError::Refused(message));
                }
                // Somebody else was faster: as good.
                Ok(now)
            }
            Err(error) => Err(self.failed(watched, id, error)),
        }
    }

    /// The API server took a count and the object states another one: a webhook keeps it, or the count lies elsewhere by
    /// now.
    fn not_kept(
        &self,
        watched: &Watched,
        id: &WorkloadId,
        wanted: Replicas,
        stated: Option<u64>,
    ) -> PortError {
        if !watched.kind.is_built_in() {
            self.kinds_wanted.notify_one();
        }
        let stated = stated.map_or_else(|| "none".to_owned(), |count| count.to_string());
        PortError::Refused(format!(
            "the count {wanted} was written to {id}, and {stated} is what it has: an admission webhook or its definition keeps it"
        ))
    }

    /// Says as an Event what was written.
    fn tell(&self, watched: &Watched, before: &Workload, update: &IntentUpdate) {
        let last = update.intent.changes.last();
        if let Some(change) = last.filter(|last| before.intent.changes.last() != Some(last)) {
            self.recorder
                .note(&watched.kind, &before.id, before.uid.as_str(), change);
        }
    }

    pub(super) async fn in_turn(&self, lane: Lane, call: &Call) -> Result<bytes::Bytes, ApiError> {
        let deadline = Deadline::in_(ORDER);
        let entered = deadline.timeout(self.lanes.enter(lane)).await;
        let _room = entered.map_err(|_passed| {
            ApiError::Unreachable(format!("other writes were in the way for {ORDER:?}"))
        })?;
        Api::call(&self.api, call, deadline.remaining()).await
    }
}

/// What a write made of a workload that is gone since.
fn written(before: &Workload, update: IntentUpdate, body: &[u8]) -> Workload {
    let bare: Bare = serde_json::from_slice(body).unwrap_or_default();
    Workload {
        version: Version {
            number: bare.metadata.version(),
            ..before.version
        },
        desired: update.desired,
        intent: update.intent,
        unrecorded: None,
        ..before.clone()
    }
}
