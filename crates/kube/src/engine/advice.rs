//! What autoscalers of nodes say about pods that no node takes, and whether a node is there that only lacks its device:
//! read while there are such pods, and only then.

use std::collections::{HashMap, HashSet};
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
/// Pods that are asked about in one look. Of more, each has its turn.
const PODS_MAX: usize = 20;

/// When pods were asked about, by their uids: in which look, the first one is 1.
#[derive(Debug, Default)]
struct Turns {
    looks: u64,
    asked: HashMap<Box<str>, u64>,
}

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

impl Turns {
    /// Those whose turn it is of all that wait. First come those that were never asked about, and one of each workload before
    /// the second of any.
    fn take(&mut self, waiting: Vec<Waiting>) -> Vec<Waiting> {
        let uids: HashSet<&str> = waiting.iter().map(|pod| &*pod.uid).collect();
        self.asked.retain(|uid, _| uids.contains(&**uid));
        let mut of_workload: HashMap<WorkloadId, u32> = HashMap::new();
        let mut order = Vec::with_capacity(waiting.len());
        for pod in waiting {
            let rank = of_workload.entry(pod.id.clone()).or_default();
            let asked = self.asked.get(&pod.uid).copied().unwrap_or(0);
            order.push(((asked, *rank), pod));
            *rank += 1;
        }
        order.sort_by_key(|(turn, _)| *turn);
        order.truncate(PODS_MAX);
        self.looks += 1;
        for (_, pod) in &order {
            self.asked.insert(pod.uid.clone(), self.looks);
        }
        order.into_iter().map(|(_, pod)| pod).collect()
    }
}

impl Waiting {
    /// The nodes that may have come for this pod and lack its device, as a query; none when it asks for no device, or when
    /// nothing tells which nodes come for it.
    fn nodes_query(&self) -> Option<String> {
        self.unschedulable.device.as_ref()?;
        let selector = self.unschedulable.telling_selector()?;
        let terms = selector
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let terms: Vec<_> = terms.collect();
        Some(format!("&labelSelector={}", encoded(&terms.join(","))))
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
        let mut turns = Turns::default();
        loop {
            tokio::select! {
                // Cancel-safe: waiting on a watch channel loses nothing.
                () = shutdown.stopped() => return,
                // Cancel-safe: a tick that was not taken comes again.
                _ = looks.tick() => {}
            }
            match self.advise(&mut turns).await {
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
    async fn advise(&self, turns: &mut Turns) -> Result<(), PortError> {
        // The gateway, which faces traffic, has no right to look at nodes.
        let looks_at_nodes = self.rights == Rights::Full && self.namespaces.is_none();
        let mut problem = None;
        // Many pods wait for nodes of the same pool.
        let mut pools: HashMap<String, Vec<NodeObject>> = HashMap::new();
        for pod in self.waiting_pods(turns) {
            let mut advice = None;
            if looks_at_nodes && let Some(query) = pod.nodes_query() {
                if !pools.contains_key(&query) {
                    let nodes = match self.nodes(&query).await {
                        Ok(nodes) => nodes,
                        // Without nodes the autoscaler is heard all the same.
                        Err(error) => {
                            problem.get_or_insert(error);
                            Vec::new()
                        }
                    };
                    pools.insert(query.clone(), nodes);
                }
                let nodes = pools.get(&query).map(Vec::as_slice);
                advice = pod.without_device(nodes.unwrap_or_default());
            }
            if advice.is_none() {
                advice = match self.said(&pod).await {
                    Ok(said) => said,
                    // The API server is away, or has too much to do: the others would fare no better.
                    Err(error) if error.is_retryable() => return Err(error),
                    // Rights differ from namespace to namespace.
                    Err(error) => {
                        problem.get_or_insert(error);
                        continue;
                    }
                };
            }
            let now = self.clock.now();
            self.store.advise(&pod.id, &pod.name, advice, now);
        }
        problem.map_or(Ok(()), Err)
    }

    /// Those of the pods that no node takes whose turn it is.
    fn waiting_pods(&self, turns: &mut Turns) -> Vec<Waiting> {
        let mut waiting = Vec::new();
        self.store.each_pod(|id, pod| {
            if let Some(unschedulable) = &pod.unschedulable
                && !pod.finished
            {
                waiting.push(Waiting {
                    id: id.clone(),
                    name: pod.replica.name.clone(),
                    uid: pod.uid.clone(),
                    unschedulable: unschedulable.clone(),
                });
            }
        });
        turns.take(waiting)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(id: &str, uid: &str) -> Waiting {
        Waiting {
            id: nagi_testkit::id(id),
            name: ReplicaName::new(uid).unwrap(),
            uid: uid.into(),
            unschedulable: Box::new(Unschedulable::default()),
        }
    }

    // F24: of many pods that wait, each is asked about in its turn, and none is forgotten for those of a big workload
    #[test]
    fn each_of_many_waiting_pods_has_its_turn() {
        let all = || {
            let big = (0..50).map(|at| waiting("p/big", &format!("big-{at}")));
            big.chain([waiting("p/small", "small-0")])
                .collect::<Vec<_>>()
        };
        let mut turns = Turns::default();
        let mut asked = HashSet::new();
        for look in 0..3 {
            let taken = turns.take(all());
            assert!(taken.len() <= PODS_MAX);
            if look == 0 {
                assert!(taken.iter().any(|pod| &*pod.uid == "small-0"));
            }
            asked.extend(taken.into_iter().map(|pod| pod.uid));
        }
        assert_eq!(asked.len(), 51, "three looks are enough for 51 pods");
        turns.take(Vec::new());
        assert!(
            turns.asked.is_empty(),
            "nothing is kept of those that wait no more"
        );
    }
}
