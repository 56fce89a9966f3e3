//! A GPU pool that Karpenter brings up from zero and takes away, with every delay of a real one played by kwok.

use std::time::Duration;

use nagi_e2e::wait::{self, Look};
use nagi_e2e::{ControlPlane, Delays, gpu_pool};
use serde_json::json;

use crate::{LIMIT, World, loopback};

/// How long each thing takes that is played: long beside a look, short for a test.
const PLAYED: Duration = Duration::from_secs(3);

pub(crate) fn pool(_world: &mut World) -> anyhow::Result<()> {
    let mut control_plane = ControlPlane::start("harness-played", &loopback())?;
    control_plane.start_kwok(Delays {
        node_joins: PLAYED,
        driver: PLAYED,
        image_pull: PLAYED,
        pod_starts: PLAYED,
    })?;
    let (machine, pool) = gpu_pool(Duration::from_secs(1))?;
    control_plane.start_karpenter(&[machine], &[pool])?;
    let pod = json!({
        "metadata": {"labels": {"app": "gpu"}},
        "spec": {
            "nodeSelector": {"project": "b"},
            "tolerations": [{"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}],
            "containers": [{
                "name": "gpu",
                "image": "nagi.test/none:1",
                "resources": {"limits": {"nvidia.com/gpu": 1}},
            }],
        },
    });
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "gpu"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "gpu"}}, "template": pod},
    });
    control_plane
        .kubectl()
        .arguments(["apply", "--filename=-"])
        .input(deployment.to_string())
        .succeed()?;
    for replicas in [1, 0, 1] {
        control_plane
            .kubectl()
            .arguments(["scale", "deployment/gpu"])
            .argument(format!("--replicas={replicas}"))
            .succeed()?;
        if replicas == 1 {
            stages(&control_plane)?;
        }
        let what = format!("{replicas} nodes for {replicas} pods");
        wait::until(&what, LIMIT, || {
            let nodes = shown(&control_plane, "nodes", "{.items[*].metadata.name}")?;
            let ready = shown(&control_plane, "deployment/gpu", "{.status.readyReplicas}")?;
            let is_so = nodes.split_whitespace().count() == replicas
                && ready.parse().unwrap_or(0) == replicas;
            Ok(if is_so {
                Look::There(())
            } else {
                Look::NotYet(format!("nodes '{nodes}', {ready} ready"))
            })
        })?;
    }
    control_plane.stop()
}

/// What the API shows of the played pool.
fn shown(control_plane: &ControlPlane, what: &str, path: &str) -> anyhow::Result<String> {
    control_plane
        .kubectl()
        .arguments(["get", what])
        .argument(format!("--output=jsonpath={path}"))
        .output()
}

/// Judges what is shown of nodes and pods.
type Holds = fn(&str, &str) -> bool;

/// Each delay shows as it does with a real node: the node is not ready; it is, and has no device, so that the scheduler
/// does not take it; the pod is on it and its container waits; the container runs and is not ready.
fn stages(control_plane: &ControlPlane) -> anyhow::Result<()> {
    let node = r#"{.items[*].status.conditions[?(@.type=="Ready")].status} {.items[*].status.allocatable.nvidia\.com/gpu}"#;
    let pod = r#"{.items[*].status.conditions[?(@.type=="PodScheduled")].message}|{.items[*].status.containerStatuses[*].state}|{.items[*].status.containerStatuses[*].ready}"#;
    let expected: [(&str, Holds); 4] = [
        ("a node that is not ready", |node, _| {
            !node.is_empty() && !node.starts_with("True") && node.ends_with('0')
        }),
        ("a ready node without its device", |node, pod| {
            node == "True 0" && pod.contains("Insufficient nvidia.com/gpu")
        }),
        ("a pod that waits for its image", |node, pod| {
            node == "True 1" && pod.contains("ContainerCreating")
        }),
        ("a pod that runs and is not ready", |_, pod| {
            pod.contains("running") && pod.ends_with("|false")
        }),
    ];
    for (what, holds) in expected {
        wait::until(what, LIMIT, || {
            let node = shown(control_plane, "nodes", node)?;
            let pod = shown(control_plane, "pods", pod)?;
            Ok(if holds(&node, &pod) {
                Look::There(())
            } else {
                Look::NotYet(format!("node '{node}', pod '{pod}'"))
            })
        })?;
    }
    Ok(())
}
