//! Nodes and pods that exist in the API only, played by kwok, and Karpenter, a real node autoscaler, over them.
//!
//! For what a machine cannot hold or cannot wait for: thousands of workloads, and a pool whose node takes ten minutes to come
//! back, played at any speed. A node counts as fake by the annotation that Karpenter's provider sets as well.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, log};
use crate::files;
use crate::node::{NodeKind, Taint};
use crate::process::Component;
use crate::tools;

/// Marks nodes that kwok plays, as `name=value`.
pub const FAKE_NODE: &str = "kwok.x-k8s.io/node=fake";

/// Some hundred nodes a second on an idle machine.
const CREATE_LIMIT: Duration = Duration::from_mins(5);

/// Karpenter's provider has one class of nodes, with nothing to set.
const NODE_CLASS: &str = "default";

/// The first port of kwok and Karpenter where they have a network of their own.
const KWOK_PORT: u16 = 10247;

/// How long things take that are only played.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delays {
    /// From the node's object to a ready node.
    pub node_joins: Duration,
    /// From a ready node to one that offers its devices: the driver is installed, its plugin starts. Until then the node has
    /// none, and no pod that asks for one is placed there. Nodes without devices have no driver.
    pub driver: Duration,
    /// From a pod that has its node to one whose containers run.
    pub image_pull: Duration,
    /// From containers that run to a ready pod.
    pub pod_starts: Duration,
}

/// A kind of machine that Karpenter may order.
#[derive(Debug, Clone)]
pub struct MachineKind {
    /// Its name.
    pub name: String,
    /// How many processors it has.
    pub processors: u32,
    /// Memory, as Kubernetes writes it.
    pub memory: String,
    /// Devices: a resource and how many.
    pub devices: Option<(String, u32)>,
    /// Price of an hour.
    pub price: f64,
}

/// Machines that Karpenter orders for pods that find no node.
#[derive(Debug, Clone)]
pub struct MachinePool {
    /// Its name.
    pub name: String,
    /// Labels of its nodes.
    pub labels: Vec<(String, String)>,
    /// Taints of its nodes.
    pub taints: Vec<Taint>,
    /// An empty node goes after this time.
    pub empty_for: Duration,
}

/// The node with a GPU that every real cluster has, as a pool and a kind of machine for Karpenter.
pub fn gpu_pool(empty_for: Duration) -> anyhow::Result<(MachineKind, MachinePool)> {
    let gpu = NodeKind::standard()
        .into_iter()
        .find(|kind| kind.devices.is_some())
        .context("a standard node has devices")?;
    let machine = MachineKind {
        name: "gpu-4".to_owned(),
        processors: 4,
        memory: "16Gi".to_owned(),
        devices: gpu.devices,
        price: 3.5,
    };
    let pool = MachinePool {
        name: gpu.name,
        labels: gpu.labels,
        taints: gpu.taints,
        empty_for,
    };
    Ok((machine, pool))
}

// === impl Delays ===

impl Delays {
    /// Reads `WHAT=SECONDS` separated by commas, where `WHAT` is `join`, `driver`, `pull` or `start`.
    ///
    /// # Errors
    /// Another name, or what is no number of seconds of at most a day.
    pub fn read(text: &str) -> anyhow::Result<Self> {
        const SECONDS_MAX: f64 = 86_400.0;
        let mut delays = Self::default();
        for part in text.split(',') {
            let (what, seconds) = part.split_once('=').unwrap_or((part, ""));
            let read = seconds.parse().ok();
            let Some(time) = read
                .filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds))
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            else {
                bail!("'{part}': a delay is a name and seconds, as in driver=90");
            };
            *match what {
                "join" => &mut delays.node_joins,
                "driver" => &mut delays.driver,
                "pull" => &mut delays.image_pull,
                "start" => &mut delays.pod_starts,
                _ => bail!("'{what}' is no delay\nhint: join, driver, pull or start"),
            } = time;
        }
        Ok(delays)
    }

    /// Stages beside kwok's own. Where several match an object kwok takes the one with a weight.
    fn stages(self) -> anyhow::Result<Vec<Value>> {
        let mut stages = Vec::new();
        if !self.driver.is_zero() {
            let (device, _) = NodeKind::standard()
                .into_iter()
                .find_map(|kind| kind.devices)
                .context("a standard node has devices")?;
            stages.extend(driver_stages(&device, self.driver));
        }
        if !self.image_pull.is_zero() {
            stages.extend(pull_stages(self.image_pull));
        }
        Ok(stages)
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Plays every node that has the annotation [`FAKE_NODE`], and the pods on it.
    pub fn start_kwok(&mut self, delays: Delays) -> anyhow::Result<()> {
        let kwok = tools::KWOK.build()?;
        let stages = kwok.files("kustomize").join("stage");
        let mut configuration: Vec<String> = delays
            .stages()?
            .iter()
            .map(|stage| format!("{stage:#}"))
            .collect();
        for (file, delay) in [
            ("node/fast/node-initialize.yaml", delays.node_joins),
            (
                "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
                Duration::ZERO,
            ),
            ("pod/fast/pod-ready.yaml", delays.pod_starts),
            ("pod/fast/pod-complete.yaml", Duration::ZERO),
            ("pod/fast/pod-delete.yaml", Duration::ZERO),
        ] {
            let path = stages.join(file);
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("read {}", path.display()))?;
            configuration.push(delayed(&text, delay));
        }
        let path = self.directory().join("kwok-stages.yaml");
        files::write_private(&path, &configuration.join("\n---\n"))?;
        let [port] = self.free_ports([KWOK_PORT])?;
        let component = self.local_component(
            "kwok",
            kwok.program("kwok"),
            vec![
                format!("--kubeconfig={}", self.kubeconfig().display()),
                format!("--config={}", path.display()),
                "--manage-all-nodes=false".to_owned(),
                format!("--manage-nodes-with-annotation-selector={FAKE_NODE}"),
                "--node-lease-duration-seconds=40".to_owned(),
                format!("--server-address=127.0.0.1:{port}"),
            ],
            Vec::new(),
        );
        self.run(&component)
    }

    /// Creates nodes `fake-0`, `fake-1`, … for kwok to play, each with room for as many pods as Kubernetes allows by default.
    pub fn add_fake_nodes(&self, count: u32) -> anyhow::Result<()> {
        let (name, value) = FAKE_NODE.split_once('=').context("a name and a value")?;
        let room = json!({"cpu": "1000", "memory": "1Ti", "pods": "110"});
        let nodes: Vec<Value> = (0..count)
            .map(|number| {
                json!({
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {
                        "name": format!("fake-{number}"),
                        "annotations": {name: value},
                        "labels": {"kubernetes.io/os": "linux", "kubernetes.io/hostname": format!("fake-{number}")},
                    },
                    "status": {"capacity": room, "allocatable": room},
                })
            })
            .collect();
        self.kubectl()
            .arguments(["create", "--filename=-"])
            .input(json!({"apiVersion": "v1", "kind": "List", "items": nodes}).to_string())
            .limit(CREATE_LIMIT)
            .succeed()
    }

    /// Starts Karpenter with kinds of machines and pools. Its nodes are kwok's: start that first.
    pub fn start_karpenter(
        &mut self,
        machines: &[MachineKind],
        pools: &[MachinePool],
    ) -> anyhow::Result<()> {
        let karpenter = tools::KARPENTER.build()?;
        for directory in ["crds", "kwok-crds"] {
            self.kubectl()
                .arguments(["apply", "--server-side", "--filename"])
                .argument(karpenter.files(directory))
                .succeed()?;
        }
        self.kubectl()
            .arguments(["wait", "customresourcedefinition", "--all"])
            .arguments(["--for=condition=Established", "--timeout=50s"])
            .succeed()?;
        let mut items: Vec<Value> = pools.iter().map(MachinePool::object).collect();
        items.push(json!({
            "apiVersion": "karpenter.kwok.sh/v1alpha1",
            "kind": "KWOKNodeClass",
            "metadata": {"name": NODE_CLASS},
        }));
        self.kubectl()
            .arguments(["apply", "--filename=-"])
            .input(json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())
            .succeed()?;
        let path = self.directory().join("machines.json");
        let machines: Vec<Value> = machines.iter().map(MachineKind::offering).collect();
        files::write_json(&path, &Value::Array(machines))?;
        let [metrics, health] = self.free_ports([8080, 8081])?;
        let variable = |name: &str, value: String| (name.to_owned(), value);
        let component = self.local_component(
            "karpenter",
            karpenter.program("karpenter"),
            Vec::new(),
            vec![
                variable("KUBECONFIG", self.kubeconfig().display().to_string()),
                variable("INSTANCE_TYPES_FILE_PATH", path.display().to_string()),
                variable("DISABLE_LEADER_ELECTION", "true".to_owned()),
                variable("SYSTEM_NAMESPACE", "kube-system".to_owned()),
                variable("CPU_REQUESTS", "1000".to_owned()),
                variable("METRICS_PORT", metrics.to_string()),
                variable("HEALTH_PROBE_PORT", health.to_string()),
            ],
        );
        self.run(&component)
    }

    /// A program that lives beside the control plane.
    fn local_component(
        &self,
        name: &str,
        program: PathBuf,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> Component {
        Component {
            name: name.to_owned(),
            program,
            arguments,
            environment,
            place: self.place(),
            log: log(self.directory(), name),
        }
    }
}

// === impl MachineKind ===

impl MachineKind {
    /// As Karpenter's provider reads it.
    fn offering(&self) -> Value {
        let mut resources = json!({
            "cpu": self.processors.to_string(),
            "memory": self.memory,
            "pods": "110",
            "ephemeral-storage": "20Gi",
        });
        if let Some((resource, count)) = &self.devices {
            resources[resource] = json!(count.to_string());
        }
        let requirement =
            |key: &str, value: &str| json!({"key": key, "operator": "In", "values": [value]});
        json!({
            "name": self.name,
            "architecture": "amd64",
            "operatingSystems": ["linux"],
            "resources": resources,
            "offerings": [{
                "Price": self.price,
                "Available": true,
                "Requirements": [
                    requirement("karpenter.sh/capacity-type", "on-demand"),
                    requirement("topology.kubernetes.io/zone", "zone-1"),
                ],
            }],
        })
    }
}

// === impl MachinePool ===

impl MachinePool {
    fn object(&self) -> Value {
        let labels: serde_json::Map<String, Value> = self
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        json!({
            "apiVersion": "karpenter.sh/v1",
            "kind": "NodePool",
            "metadata": {"name": self.name},
            "spec": {
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "requirements": [
                            {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
                            {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
                        ],
                        "taints": self.taints,
                        "expireAfter": "Never",
                        "nodeClassRef": {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": NODE_CLASS},
                    },
                },
                "disruption": {
                    "consolidationPolicy": "WhenEmpty",
                    "consolidateAfter": format!("{}s", self.empty_for.as_secs()),
                    "budgets": [{"nodes": "100%"}],
                },
            },
        })
    }
}

/// One weighs what it must to be taken before kwok's own, which weigh nothing; kwok counts 1 as nothing too.
const WEIGHT: u32 = 100;

/// What a selector of a stage asks for: a jq expression, an operator, values.
fn asks(key: &str, operator: &str, values: &[&str]) -> Value {
    let mut asked = json!({"key": key, "operator": operator});
    if !values.is_empty() {
        asked["values"] = json!(values);
    }
    asked
}

fn stage(name: &str, kind: &str, delay: Duration, selector: &[Value], next: &Value) -> Value {
    json!({
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": selector},
            "weight": WEIGHT,
            "delay": {"durationMilliseconds": delay.as_millis()},
            "next": next,
        },
    })
}

/// A node that comes offers none of its devices, as before a device plugin has registered; a while after it is ready it does.
fn driver_stages(device: &str, delay: Duration) -> [Value; 2] {
    let ready = r#".status.conditions.[] | select( .type == "Ready" ) | .status"#;
    let offered = format!(".status.allocatable[{device:?}]");
    let there = format!(".status.capacity[{device:?}]");
    [
        stage(
            "node-without-driver",
            "Node",
            Duration::ZERO,
            &[
                asks(ready, "NotIn", &["True"]),
                asks(&there, "Exists", &[]),
                asks(&offered, "NotIn", &["0"]),
            ],
            &json!({"statusTemplate": format!("allocatable:\n  {device}: \"0\"\n")}),
        ),
        stage(
            "node-driver",
            "Node",
            delay,
            &[
                asks(ready, "In", &["True"]),
                asks(&there, "Exists", &[]),
                asks(&offered, "In", &["0"]),
            ],
            &json!({"statusTemplate": format!(
                "allocatable:\n  {device}: {{{{ index .status.capacity {device:?} | Quote }}}}\n"
            )}),
        ),
    ]
}

/// A pod that has its node waits for its image, and then runs without being ready. kwok's own stage makes it so: it takes a pod
/// that has no address yet.
fn pull_stages(delay: Duration) -> [Value; 2] {
    let lives = asks(".metadata.deletionTimestamp", "DoesNotExist", &[]);
    let containers = |state: &str| {
        format!(
            "phase: Pending\ncontainerStatuses:\n{{{{ range .spec.containers }}}}\n- image: {{{{ .image | Quote }}}}\n  \
             name: {{{{ .name | Quote }}}}\n  ready: false\n  restartCount: 0\n  state:\n    {state}\n{{{{ end }}}}\n"
        )
    };
    [
        stage(
            "pod-pulling",
            "Pod",
            Duration::ZERO,
            &[
                lives.clone(),
                asks(".status.containerStatuses", "DoesNotExist", &[]),
            ],
            &json!({
                "event": {"type": "Normal", "reason": "Pulling", "message": "Pulling image"},
                "statusTemplate": containers("waiting: {reason: ContainerCreating}"),
            }),
        ),
        stage(
            "pod-pulled",
            "Pod",
            delay,
            &[
                lives,
                asks(
                    ".status.containerStatuses.[].state.waiting.reason",
                    "In",
                    &["ContainerCreating"],
                ),
            ],
            &json!({
                "event": {"type": "Normal", "reason": "Pulled", "message": "Successfully pulled image"},
                "statusTemplate": containers("running: {startedAt: {{ Now | Quote }}}"),
            }),
        ),
    ]
}

/// A stage that begins later than it would.
fn delayed(stage: &str, delay: Duration) -> String {
    if delay.is_zero() {
        return stage.to_owned();
    }
    let line = format!(
        "  delay:\n    durationMilliseconds: {}\n  next:",
        delay.as_millis()
    );
    stage.replacen("  next:", &line, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_stands_before_what_comes_next() {
        let stage = "spec:\n  selector: {}\n  next:\n    statusTemplate: |\n      next:\n";
        assert_eq!(delayed(stage, Duration::ZERO), stage);
        assert_eq!(
            delayed(stage, Duration::from_secs(2)),
            "spec:\n  selector: {}\n  delay:\n    durationMilliseconds: 2000\n  next:\n    statusTemplate: |\n      next:\n"
        );
    }

    #[test]
    fn delays_are_names_and_seconds() {
        let read = Delays::read("join=60,driver=0.5,pull=90,start=2").expect("good");
        assert_eq!(
            read,
            Delays {
                node_joins: Duration::from_mins(1),
                driver: Duration::from_millis(500),
                image_pull: Duration::from_secs(90),
                pod_starts: Duration::from_secs(2),
            }
        );
        for text in [
            "",
            "driver",
            "driver=",
            "driver=-1",
            "driver=soon",
            "driver=NaN",
            "drive=1",
            "join=1;pull=2",
            "join=1e9",
        ] {
            assert!(Delays::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_is_played_that_takes_no_time() {
        assert_eq!(
            Delays::default().stages().expect("good"),
            Vec::<Value>::new()
        );
    }

    #[test]
    fn machine_with_devices_offers_them() {
        let machine = MachineKind {
            name: "gpu".to_owned(),
            processors: 4,
            memory: "16Gi".to_owned(),
            devices: Some(("nvidia.com/gpu".to_owned(), 1)),
            price: 3.5,
        };
        assert_eq!(machine.offering()["resources"]["nvidia.com/gpu"], "1");
    }
}
