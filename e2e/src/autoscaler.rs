//! The node autoscaler of the harness: nodes come when a pod needs them and go when nothing runs on them.
//!
//! Each kind of node but the first is a pool of at most one. A pod that the scheduler calls unschedulable and that fits a
//! pool without a node brings that node up: its containerd and kubelet are really started, which is its boot. A node that has
//! been empty for the given time is switched off and its object deleted. Pods are never evicted.
//!
//! It sees pods through `kubectl get --watch`. While that is away it knows nothing and does nothing.

mod pod;

use std::collections::BTreeMap;
use std::io::BufReader;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Deserializer, json};

use crate::node::{Node, NodeKind, NodeRecord, Surroundings};
use crate::wait;
use pod::Pod;

/// How often it looks whether a node has been empty for long enough.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// After a node did not come up, or the watch ended.
const PAUSE_AFTER_FAULT: Duration = Duration::from_secs(2);

/// Events that wait to be taken in; a watch that is this far ahead waits.
const EVENTS_MAX: usize = 64;

/// An autoscaler in a thread of this process; it stops when this is dropped.
#[derive(Debug)]
pub struct Autoscaler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What the pods and nodes ask for.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    /// This pool's node is to come, for this pod.
    Add { pool: usize, pod: String },
    /// This pool's node is empty.
    Empty { pool: usize },
}

// === impl Autoscaler ===

impl Autoscaler {
    /// Dropping the result waits for the thread.
    pub(crate) fn start(surroundings: Surroundings, empty_for: Duration) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("autoscaler".to_owned())
            .spawn(move || run(&surroundings, empty_for, &|| asked.load(Ordering::Relaxed)))
            .context("start the autoscaler")?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Autoscaler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            crate::say("the autoscaler panicked");
        }
    }
}

/// Runs until it is asked to stop, through all faults.
pub(crate) fn run(surroundings: &Surroundings, empty_for: Duration, stop: &dyn Fn() -> bool) {
    let mut loop_ = Loop {
        surroundings,
        empty_for,
        pools: NodeKind::standard().into_iter().skip(1).collect(),
        empty_since: BTreeMap::new(),
        started: Vec::new(),
    };
    while !stop() && !wait::is_interrupted() {
        if let Err(error) = loop_.follow(stop) {
            crate::say(&format!("autoscaler: {error:#}"));
            wait::pause(PAUSE_AFTER_FAULT);
        }
    }
}

struct Loop<'a> {
    surroundings: &'a Surroundings,
    empty_for: Duration,
    pools: Vec<NodeKind>,
    empty_since: BTreeMap<usize, Instant>,
    /// Nodes that this process started and waits for.
    started: Vec<Node>,
}

// === impl Loop ===

impl Loop<'_> {
    /// Follows one watch to its end.
    fn follow(&mut self, stop: &dyn Fn() -> bool) -> anyhow::Result<()> {
        let mut watch = Watch::start(self.surroundings)?;
        let output = watch.output()?;
        let (sender, events) = sync_channel(EVENTS_MAX);
        std::thread::scope(|scope| {
            scope.spawn(move || pass_on(output, &sender));
            let ended = self.act(&events, stop);
            // Ending the watch ends the thread that reads it; one that waits for room ends with the receiver.
            drop(events);
            watch.end()?;
            ended
        })
    }

    fn act(&mut self, events: &Receiver<Event>, stop: &dyn Fn() -> bool) -> anyhow::Result<()> {
        let mut pods: BTreeMap<String, Pod> = BTreeMap::new();
        loop {
            if stop() || wait::is_interrupted() {
                return Ok(());
            }
            match events.recv_timeout(LOOK_EVERY) {
                Ok(event) => {
                    event.apply(&mut pods)?;
                    // What else is there already, before anything is decided on half a list.
                    while let Ok(event) = events.try_recv() {
                        event.apply(&mut pods)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the watch of pods ended"),
            }
            self.decide_and_act(&pods)?;
        }
    }

    fn decide_and_act(&mut self, pods: &BTreeMap<String, Pod>) -> anyhow::Result<()> {
        let existing: Vec<String> = NodeRecord::all(&self.surroundings.cluster)?
            .into_iter()
            .map(|record| record.kind.name)
            .collect();
        let wishes = wishes(&self.pools, &existing, &pods.values());
        self.empty_since
            .retain(|&pool, _| wishes.contains(&Wish::Empty { pool }));
        for wish in wishes {
            match wish {
                Wish::Add { pool, pod } => {
                    let kind = self.pools.get(pool).context("a wish names a pool")?.clone();
                    self.add(&kind, pods.get(&pod))?;
                }
                Wish::Empty { pool } => {
                    let since = *self.empty_since.entry(pool).or_insert_with(wait::now);
                    if since.elapsed() >= self.empty_for {
                        let kind = self.pools.get(pool).context("a wish names a pool")?.clone();
                        self.remove(&kind)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, kind: &NodeKind, pod: Option<&Pod>) -> anyhow::Result<()> {
        crate::say(&format!("autoscaler: node {} comes", kind.name));
        if let Some(pod) = pod {
            self.tell(kind, pod)?;
        }
        let begun = wait::now();
        match self.surroundings.add_node(kind) {
            Ok(node) => self.started.push(node),
            Err(error) => {
                self.surroundings.remove_node(&kind.name, kind.number)?;
                return Err(error);
            }
        }
        let took = begun.elapsed().as_secs_f64();
        crate::say(&format!(
            "autoscaler: node {} is ready after {took:.1} s",
            kind.name
        ));
        Ok(())
    }

    fn remove(&mut self, kind: &NodeKind) -> anyhow::Result<()> {
        crate::say(&format!("autoscaler: node {} is empty and goes", kind.name));
        self.surroundings.remove_node(&kind.name, kind.number)?;
        for node in &mut self.started {
            if node.record.kind.name == kind.name {
                node.forget()?;
            }
        }
        self.started
            .retain(|node| node.record.kind.name != kind.name);
        Ok(())
    }

    /// The event that the usual autoscaler writes about a pod for which it orders a node.
    fn tell(&self, kind: &NodeKind, pod: &Pod) -> anyhow::Result<()> {
        let now = wall_clock();
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": format!("{}.", pod.metadata.name), "namespace": pod.metadata.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": pod.metadata.name,
                "namespace": pod.metadata.namespace,
                "uid": pod.metadata.uid,
            },
            "type": "Normal",
            "reason": "TriggeredScaleUp",
            "message": format!("pod triggered scale-up: [{{{} 0->1 (max: 1)}}]", kind.name),
            "source": {"component": "cluster-autoscaler"},
            "reportingComponent": "cluster-autoscaler",
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
        });
        self.surroundings
            .kubectl()
            .call()
            .arguments(["create", "--filename=-"])
            .input(event.to_string())
            .succeed()
    }
}

/// For people who read events; nothing is decided by it.
#[expect(
    clippy::disallowed_methods,
    reason = "an event of a developer tool says when it happened"
)]
fn wall_clock() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// One line of the watch.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: serde_json::Value,
}

// === impl Event ===

impl Event {
    fn apply(self, pods: &mut BTreeMap<String, Pod>) -> anyhow::Result<()> {
        match self.kind.as_str() {
            "ADDED" | "MODIFIED" => {
                let pod: Pod = serde_json::from_value(self.object).context("read a pod")?;
                pods.insert(pod.metadata.uid.clone(), pod);
            }
            "DELETED" => {
                let pod: Pod = serde_json::from_value(self.object).context("read a pod")?;
                pods.remove(&pod.metadata.uid);
            }
            "BOOKMARK" => {}
            other => bail!("the watch of pods says {other}: {}", self.object),
        }
        Ok(())
    }
}

/// A running `kubectl get --watch`.
struct Watch {
    child: Child,
}

// === impl Watch ===

impl Watch {
    fn start(surroundings: &Surroundings) -> anyhow::Result<Self> {
        let mut command = surroundings
            .kubectl()
            .call()
            .arguments(["get", "pods", "--all-namespaces", "--watch"])
            .arguments(["--output-watch-events", "--output=json"])
            .into_command();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the watch of pods")?;
        Ok(Self { child })
    }

    fn output(&mut self) -> anyhow::Result<ChildStdout> {
        self.child
            .stdout
            .take()
            .context("the output of the watch is piped")
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("end the watch of pods")?;
        self.child.wait().context("wait for the watch of pods")?;
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            crate::say(&format!("autoscaler: {error:#}"));
        }
    }
}

/// Reads events until the watch ends or nobody takes them; the other side then sees the channel closed.
fn pass_on(output: ChildStdout, events: &SyncSender<Event>) {
    for event in Deserializer::from_reader(BufReader::new(output)).into_iter::<Event>() {
        match event {
            Ok(event) => {
                if events.send(event).is_err() {
                    return;
                }
            }
            Err(error) => {
                if !error.is_eof() {
                    crate::say(&format!("autoscaler: read the watch of pods: {error}"));
                }
                return;
            }
        }
    }
}

fn wishes<'a>(
    pools: &[NodeKind],
    existing: &[String],
    pods: &(impl Iterator<Item = &'a Pod> + Clone),
) -> Vec<Wish> {
    let mut wishes = Vec::new();
    for (pool, kind) in pools.iter().enumerate() {
        let waiting = pods
            .clone()
            .find(|pod| pod.is_unschedulable() && pod.fits(kind));
        let exists = existing.contains(&kind.name);
        let is_used = pods.clone().any(|pod| pod.occupies(&kind.name));
        match waiting {
            Some(pod) if !exists => wishes.push(Wish::Add {
                pool,
                pod: pod.metadata.uid.clone(),
            }),
            None if exists && !is_used => wishes.push(Wish::Empty { pool }),
            Some(_) | None => {}
        }
    }
    // One node serves the pod; the next look sees whether another is needed.
    let first = wishes
        .iter()
        .position(|wish| matches!(wish, Wish::Add { .. }));
    let mut at = 0;
    wishes.retain(|wish| {
        at += 1;
        matches!(wish, Wish::Empty { .. }) || first == Some(at - 1)
    });
    wishes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(value: &serde_json::Value) -> Pod {
        let mut value = value.clone();
        value["metadata"] = json!({"name": "p", "namespace": "n", "uid": "u"});
        serde_json::from_value(value).expect("a pod")
    }

    fn pools() -> Vec<NodeKind> {
        NodeKind::standard().into_iter().skip(1).collect()
    }

    fn unschedulable(spec: &serde_json::Value) -> Pod {
        pod(&json!({
            "spec": spec,
            "status": {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}],
            },
        }))
    }

    fn gpu() -> serde_json::Value {
        json!({
            "nodeSelector": {"project": "b"},
            "tolerations": [{"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}],
            "containers": [{"name": "c", "resources": {"requests": {"nvidia.com/gpu": "1", "cpu": "100m"}}}],
        })
    }

    #[test]
    fn unschedulable_pod_brings_the_node_that_it_fits() {
        let pods = [unschedulable(&gpu())];
        assert_eq!(
            wishes(&pools(), &[], &pods.iter()),
            [Wish::Add {
                pool: 1,
                pod: "u".to_owned()
            }]
        );
        assert_eq!(wishes(&pools(), &["projectb".to_owned()], &pods.iter()), []);
    }

    #[test]
    fn pod_that_fits_no_pool_brings_none() {
        for (path, value) in [
            ("/tolerations", json!([])),
            ("/nodeSelector", json!({"project": "c"})),
            (
                "/containers",
                json!([{"name": "c", "resources": {"requests": {"nvidia.com/gpu": "2"}}}]),
            ),
        ] {
            let mut spec = gpu();
            *spec.pointer_mut(path).expect("the part is there") = value;
            assert_eq!(
                wishes(&pools(), &[], &[unschedulable(&spec)].iter()),
                [],
                "{path}"
            );
        }
    }

    #[test]
    fn pod_that_waits_for_something_else_brings_none() {
        let waits = pod(&json!({"spec": gpu(), "status": {"phase": "Pending"}}));
        assert_eq!(wishes(&pools(), &[], &[waits].iter()), []);
    }

    #[test]
    fn node_is_empty_when_only_finished_pods_and_daemons_are_on_it() {
        let existing = ["projecta".to_owned()];
        let empty = [Wish::Empty { pool: 0 }];
        let on = |phase: &str| {
            pod(&json!({"spec": {"nodeName": "projecta"}, "status": {"phase": phase}}))
        };
        assert_eq!(wishes(&pools(), &existing, &[].iter()), empty);
        assert_eq!(
            wishes(&pools(), &existing, &[on("Succeeded")].iter()),
            empty
        );
        assert_eq!(wishes(&pools(), &existing, &[on("Running")].iter()), []);
        assert_eq!(wishes(&pools(), &existing, &[on("Pending")].iter()), []);
        let mut daemon = on("Running");
        daemon.metadata.owner_references =
            serde_json::from_value(json!([{"kind": "DaemonSet"}])).expect("an owner");
        assert_eq!(wishes(&pools(), &existing, &[daemon].iter()), empty);
    }
}
