//! What autoscalers of nodes say about pods that no node takes: read while there are such pods, and only then.

use std::time::Duration;

use nagi_core::id::{ReplicaName, WorkloadId};
use nagi_ports::PortError;
use nagi_runtime::Shutdown;
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};

use super::Shared;
use crate::pods::{Advice, shortened};
use crate::reflect::encoded;

/// Between two looks. An autoscaler decides every ten seconds.
const LOOK: Duration = Duration::from_secs(3);
/// Pods that are asked about in one look.
const PODS_MAX: usize = 20;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CoreEvent {
    reason: String,
    message: String,
    last_timestamp: Option<String>,
    event_time: Option<String>,
}

impl Shared {
    /// Asks until the process has drained.
    pub(super) async fn take_advice(&self, shutdown: Shutdown) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told: Option<PortError> = None;
        loop {
            tokio::select! {
                // Cancel-safe: waiting on a watch channel loses nothing.
                () = shutdown.stopped() => return,
                // Cancel-safe: a tick that was not taken comes again.
                _ = looks.tick() => {}
            }
            for (id, name, uid) in self.waiting_pods() {
                match self.advice(&id, &uid).await {
                    Ok(advice) => {
                        told = None;
                        self.store.advise(&id, &name, advice, self.clock.now());
                    }
                    Err(error) => {
                        if told.as_ref() != Some(&error) {
                            tracing::info!(error = %error, "Events of pods cannot be read, autoscalers are not heard");
                        }
                        told = Some(error);
                        break;
                    }
                }
            }
        }
    }

    fn waiting_pods(&self) -> Vec<(WorkloadId, ReplicaName, Box<str>)> {
        let mut waiting = Vec::new();
        self.store.each_pod(|id, pod| {
            if pod.unschedulable && !pod.finished && waiting.len() < PODS_MAX {
                waiting.push((id.clone(), pod.replica.name.clone(), pod.uid.clone()));
            }
        });
        waiting
    }

    /// The last word of an autoscaler about a pod.
    async fn advice(&self, id: &WorkloadId, uid: &str) -> Result<Option<Advice>, PortError> {
        let collection = format!("/api/v1/namespaces/{}/events", id.namespace);
        let selector = format!(
            "&fieldSelector={}",
            encoded(&format!("involvedObject.uid={uid}"))
        );
        let events: Vec<CoreEvent> = self.list_live(&collection, &selector).await?;
        let said = events.into_iter().filter_map(|event| {
            let coming = match event.reason.as_str() {
                // The Cluster Autoscaler, and Karpenter.
                "TriggeredScaleUp" | "Nominated" => true,
                "NotTriggerScaleUp" => false,
                _ => return None,
            };
            let at = event
                .last_timestamp
                .or(event.event_time)
                .unwrap_or_default();
            let advice = Advice {
                coming,
                words: shortened(&event.message).into(),
            };
            Some((at, advice))
        });
        // RFC 3339 in UTC compares as text.
        let last = said.max_by(|a, b| a.0.cmp(&b.0));
        Ok(last.map(|(_, advice)| advice))
    }
}
