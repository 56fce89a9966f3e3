//! What autoscalers of nodes say about pods that no node takes, and whether a node is there that only lacks its device:
//! read while there are such pods, and only then.

use std::time::Duration;

use nagi_core::id::{ReplicaName, WorkloadId};
use nagi_core::wake::Stage;
use nagi_ports::PortError;
use nagi_runtime::Shutdown;
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};

use super::{Rights, Shared};
use crate::nodes::NodeObject;
use crate::pods::{Advice, Unschedulable, shortened};
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

/// A pod that no node takes.
#[derive(Debug)]
struct Waiting {
    id: WorkloadId,
    name: ReplicaName,
    uid: Box<str>,
    unschedulable: Box<Unschedulable>,
}

impl Waiting {
    fn is_for_device(&self) -> bool {
        self.unschedulable.device.is_some()
    }

    /// A node that came for the pod is ready, and its device is not: the driver, or the plugin that tells kubelet of it, is
    /// still to come. A node whose devices are all in use has them.
    fn without_device(&self, nodes: &[NodeObject]) -> Option<Advice> {
        let device = self.unschedulable.device.as_deref()?;
        let mut nodes = nodes.iter();
        let node = nodes.find(|node| {
            let meta = &node.metadata;
            node.is_ready()
                && !node.has(device)
                && self
                    .unschedulable
                    .brought(&meta.labels, &meta.creation_timestamp)
        })?;
        Some(Advice {
            stage: Some(Stage::Driver),
            words: format!(
                "node {} is ready but has no {device} yet: its driver or device plugin is not there",
                node.metadata.name
            )
            .into(),
        })
    }
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
            match self.advise().await {
                Ok(()) => told = None,
                Err(error) => {
                    if told.as_ref() != Some(&error) {
                        tracing::info!(error = %error, "Events of pods or nodes cannot be read, what a pod waits for may be told in part");
                    }
                    told = Some(error);
                }
            }
        }
    }

    /// One look.
    async fn advise(&self) -> Result<(), PortError> {
        let waiting = self.waiting_pods();
        // The gateway, which faces traffic, has no right to look at nodes.
        let looks_at_nodes = self.rights == Rights::Full && self.namespaces.is_none();
        let nodes = if looks_at_nodes && waiting.iter().any(Waiting::is_for_device) {
            self.nodes().await
        } else {
            Ok(Vec::new())
        };
        // Without nodes the autoscaler is heard all the same.
        for pod in waiting {
            let advice = match pod.without_device(nodes.as_deref().unwrap_or_default()) {
                Some(advice) => Some(advice),
                None => self.said(&pod).await?,
            };
            let now = self.clock.now();
            self.store.advise(&pod.id, &pod.name, advice, now);
        }
        nodes.map(drop)
    }

    fn waiting_pods(&self) -> Vec<Waiting> {
        let mut waiting = Vec::new();
        self.store.each_pod(|id, pod| {
            if let Some(unschedulable) = &pod.unschedulable
                && !pod.finished
                && waiting.len() < PODS_MAX
            {
                waiting.push(Waiting {
                    id: id.clone(),
                    name: pod.replica.name.clone(),
                    uid: pod.uid.clone(),
                    unschedulable: unschedulable.clone(),
                });
            }
        });
        waiting
    }

    /// The last word of an autoscaler about a pod.
    async fn said(&self, pod: &Waiting) -> Result<Option<Advice>, PortError> {
        let collection = format!("/api/v1/namespaces/{}/events", pod.id.namespace);
        let selector = format!(
            "&fieldSelector={}",
            encoded(&format!("involvedObject.uid={}", pod.uid))
        );
        let events: Vec<CoreEvent> = self.list_live(&collection, &selector).await?;
        let said = events.into_iter().filter_map(|event| {
            let stage = match event.reason.as_str() {
                // The Cluster Autoscaler, and Karpenter.
                "TriggeredScaleUp" | "Nominated" => Some(Stage::NodeJoining),
                "NotTriggerScaleUp" => None,
                _ => return None,
            };
            let at = event
                .last_timestamp
                .or(event.event_time)
                .unwrap_or_default();
            let words = format!("the autoscaler says: {}", shortened(&event.message)).into();
            Some((at, Advice { stage, words }))
        });
        // RFC 3339 in UTC compares as text.
        let last = said.max_by(|a, b| a.0.cmp(&b.0));
        Ok(last.map(|(_, advice)| advice))
    }
}
