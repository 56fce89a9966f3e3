//! A GPU pool that Karpenter brings up from zero and takes away when Nagi says so, with every delay of a real one played by
//! kwok; and what Nagi says of each.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use nagi_e2e::call::Call;
use nagi_e2e::wait::{self, Look};
use nagi_e2e::{ControlPlane, Delays, Program, build_nagi, free_ports, gpu_pool};
use serde_json::{Value, json};

use crate::{LIMIT, World, loopback};

/// How long each thing takes that is played: long beside a look of this test, short for a test.
const PLAYED: Duration = Duration::from_secs(3);
/// Nagi looks at nodes every 3 s while a pod waits for a device, so three of its looks fall into this.
const DRIVER: Duration = Duration::from_secs(10);

pub(crate) fn pool(_world: &mut World) -> anyhow::Result<()> {
    let mut control_plane = ControlPlane::start("harness-played", &loopback())?;
    control_plane.start_kwok(Delays {
        node_joins: PLAYED,
        driver: DRIVER,
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
    let nagi = Nagi::start(&control_plane)?;
    control_plane
        .kubectl()
        .arguments(["apply", "--filename=-"])
        .input(deployment.to_string())
        .succeed()?;
    stages(&control_plane, &nagi)?;
    nodes_and_pods(&control_plane, 1)?;
    nagi.cli("sleep default/gpu --wait --timeout 60s")
        .succeed()?;
    nodes_and_pods(&control_plane, 0)?;
    let asleep = nagi.status()?;
    ensure!(asleep["status"] == "inactive", "{asleep}");
    nagi.cli("wake default/gpu").succeed()?;
    stages(&control_plane, &nagi)?;
    nodes_and_pods(&control_plane, 1)?;
    wait::until("Nagi to see it serve", LIMIT, || {
        let awake = nagi.status()?;
        let is_so = awake["status"] == "active" && awake["available_replicas"] == 1;
        Ok(if is_so {
            Look::There(())
        } else {
            Look::NotYet(awake.to_string())
        })
    })?;
    drop(nagi);
    control_plane.stop()
}

/// `nagi server` on the played cluster, and its command line.
struct Nagi {
    binary: PathBuf,
    port: u16,
    _program: Program,
}

impl Nagi {
    fn start(control_plane: &ControlPlane) -> anyhow::Result<Self> {
        let binary = build_nagi()?;
        let [port, metrics] = free_ports()?;
        let environment = [
            ("HOME", control_plane.directory().display().to_string()),
            (
                "KUBECONFIG",
                control_plane.kubeconfig().display().to_string(),
            ),
            ("PORT", port.to_string()),
            ("NAGI_METRICS_LISTEN", format!("127.0.0.1:{metrics}")),
        ];
        let arguments = ["server".to_owned()];
        let program = control_plane.start_program("nagi", &binary, &arguments, &environment)?;
        let this = Self {
            binary,
            port,
            _program: program,
        };
        wait::until("an answer of Nagi", LIMIT, || {
            Ok(match this.cli("list").succeed() {
                Ok(()) => Look::There(()),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })?;
        Ok(this)
    }

    fn cli(&self, line: &str) -> Call {
        Call::new(&self.binary)
            .arguments(line.split(' '))
            .environment("NAGI_SERVER", format!("http://127.0.0.1:{}", self.port))
    }

    fn status(&self) -> anyhow::Result<Value> {
        let text = self.cli("status default/gpu --output json").output()?;
        let mut answer: Value = serde_json::from_str(&text).context("read the status")?;
        Ok(answer["deployment"].take())
    }
}

/// Waits until there are as many nodes, and as many pods that are ready.
fn nodes_and_pods(control_plane: &ControlPlane, count: usize) -> anyhow::Result<()> {
    let what = format!("{count} nodes for {count} pods");
    wait::until(&what, LIMIT, || {
        let nodes = shown(control_plane, "nodes", "{.items[*].metadata.name}")?;
        let ready = shown(control_plane, "deployment/gpu", "{.status.readyReplicas}")?;
        let is_so =
            nodes.split_whitespace().count() == count && ready.parse().unwrap_or(0) == count;
        Ok(if is_so {
            Look::There(())
        } else {
            Look::NotYet(format!("nodes '{nodes}', {ready} ready"))
        })
    })
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
/// does not take it; the pod is on it and its container waits; the container runs and is not ready. In none of them Nagi
/// says that it runs, and in each why it does not.
fn stages(control_plane: &ControlPlane, nagi: &Nagi) -> anyhow::Result<()> {
    let node = r#"{.items[*].status.conditions[?(@.type=="Ready")].status} {.items[*].status.allocatable.nvidia\.com/gpu}"#;
    let pod = r#"{.items[*].status.conditions[?(@.type=="PodScheduled")].message}|{.items[*].status.containerStatuses[*].state}|{.items[*].status.containerStatuses[*].ready}"#;
    let expected: [(&str, Holds, &str, &str); 4] = [
        (
            "a node that is not ready",
            |node, _| !node.is_empty() && !node.starts_with("True") && node.ends_with('0'),
            "the autoscaler says",
            "node-joining",
        ),
        (
            "a ready node without its device",
            |node, pod| node == "True 0" && pod.contains("Insufficient nvidia.com/gpu"),
            "is ready but has no nvidia.com/gpu yet",
            "driver",
        ),
        (
            "a pod that waits for its image",
            |node, pod| node == "True 1" && pod.contains("ContainerCreating"),
            "its images are being pulled",
            "pulling",
        ),
        (
            "a pod that runs and is not ready",
            |_, pod| pod.contains("running") && pod.ends_with("|false"),
            "starting",
            "starting",
        ),
    ];
    for (what, holds, says, stage) in expected {
        wait::until(what, LIMIT, || {
            let node = shown(control_plane, "nodes", node)?;
            let pod = shown(control_plane, "pods", pod)?;
            if !holds(&node, &pod) {
                return Ok(Look::NotYet(format!("node '{node}', pod '{pod}'")));
            }
            let told = nagi.status()?;
            ensure!(
                told["status"] == "scaling" && told["available_replicas"] == 0,
                "{what}: {told}"
            );
            let reason = told["reason"].as_str().unwrap_or_default();
            Ok(
                if reason.contains(says) && told["replicas"][0]["stage"] == stage {
                    Look::There(())
                } else {
                    Look::NotYet(told.to_string())
                },
            )
        })?;
    }
    Ok(())
}
