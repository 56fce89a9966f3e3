//! The node that all tests share, and what they ask of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nagi_e2e::call::{Call, Ended};
use nagi_e2e::wait::{self, Look};
use nagi_e2e::{NodeKind, StackedCluster, StackedOptions, build_nagi};
use serde_json::{Value, json};

use crate::history;

const NAME: &str = "recovery";

/// As in the incident: a control-plane node and two others.
const NODES: usize = 3;

/// A pod that somebody else runs on the node.
pub(crate) const OTHERS: &str = "others";

/// A pod starts in seconds; on two busy cores in a minute.
pub(crate) const LIMIT: Duration = Duration::from_mins(3);

/// Steps and proof: a port that opens within two minutes, and seven for the rest, since a pressure counts as over after five.
const RECOVERY_LIMIT: Duration = Duration::from_mins(10);

/// The exit code of a refusal.
const REFUSED: i32 = 5;

/// The static pods of a control plane.
pub(crate) const STATIC_PODS: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

/// Names of pods and their phases, one a line.
const PHASES: &str =
    "--output=jsonpath={range .items[*]}{.metadata.name} {.status.phase}{\"\\n\"}{end}";

/// What the tests share.
#[derive(Debug, Default)]
pub(crate) struct World {
    node: Option<Node>,
}

/// A control-plane node with Nagi's binary and a pod of somebody else.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) cluster: StackedCluster,
}

/// What tells a pod that nobody touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) container: String,
    pub(crate) since: String,
    pub(crate) restarts: u64,
}

/// How a recovery ended.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) answer: Value,
    pub(crate) errors: String,
    pub(crate) code: Option<i32>,
}

// === impl World ===

impl World {
    pub(crate) fn node(&mut self) -> anyhow::Result<&mut Node> {
        if self.node.is_none() {
            self.node = Some(Node::start()?);
        }
        self.node.as_mut().context("it was just started")
    }
}

// === impl Node ===

impl Node {
    fn start() -> anyhow::Result<Self> {
        let workers = NodeKind::standard().into_iter().skip(1);
        let options = StackedOptions {
            programs: vec![build_nagi()?],
            history: Some(history::write),
            workers: workers
                .map(|kind| NodeKind {
                    devices: None,
                    ..kind
                })
                .collect(),
        };
        let node = Self {
            cluster: StackedCluster::start(NAME, &options)?,
        };
        let image = node.cluster.load_web_image()?;
        node.apply(&json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": OTHERS},
            "spec": {
                "nodeName": node.cluster.node(),
                "containers": [{
                    "name": "web",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }],
                "volumes": [{"name": "data", "emptyDir": {}}],
            },
        }))?;
        node.wait_until_ready(OTHERS)?;
        Ok(node)
    }

    pub(crate) fn apply(&self, object: &Value) -> anyhow::Result<()> {
        self.cluster
            .kubectl()
            .arguments(["apply", "--server-side", "--filename=-"])
            .input(object.to_string())
            .succeed()
    }

    pub(crate) fn wait_until_ready(&self, pod: &str) -> anyhow::Result<()> {
        self.cluster
            .kubectl()
            .arguments(["wait", "pod", pod, "--for=condition=Ready"])
            .argument("--timeout=170s")
            .limit(LIMIT)
            .succeed()
    }

    /// What kubectl prints for a path of an object.
    pub(crate) fn told(&self, kind: &str, name: &str, path: &str) -> anyhow::Result<String> {
        self.cluster
            .kubectl()
            .arguments(["get", kind, name])
            .argument(format!("--output=jsonpath={path}"))
            .output()
    }

    /// The container of a pod, since when it runs, and how often it was started anew.
    pub(crate) fn running(&self, pod: &str) -> anyhow::Result<Running> {
        let of = |path: &str| {
            self.told(
                "pod",
                pod,
                &format!("{{.status.containerStatuses[0].{path}}}"),
            )
        };
        Ok(Running {
            container: of("containerID")?,
            since: of("state.running.startedAt")?,
            restarts: of("restartCount")?.parse().context("read a count")?,
        })
    }

    /// The binary, called on the node as root.
    pub(crate) fn nagi<const N: usize>(&self, arguments: [&str; N]) -> Call {
        self.cluster
            .inside("nagi")
            .arguments(arguments)
            .limit(LIMIT)
    }

    /// What it answers as JSON, however it ends.
    pub(crate) fn nagi_json<const N: usize>(
        &self,
        arguments: [&str; N],
    ) -> anyhow::Result<(Value, Ended)> {
        let ended = self.nagi(arguments).arguments(["--output", "json"]).end()?;
        let answer = serde_json::from_str(&ended.output).with_context(|| {
            format!(
                "nagi {arguments:?} ended with {}: {}{}",
                ended.status, ended.output, ended.errors
            )
        })?;
        Ok((answer, ended))
    }

    /// The cause that a diagnosis on the node names.
    pub(crate) fn cause(&self) -> anyhow::Result<String> {
        let (answer, _) = self.nagi_json(["recover", "diagnose"])?;
        Ok(match answer["cause"]["id"].as_str() {
            Some(cause) => cause.to_owned(),
            None => format!("none: {answer}"),
        })
    }

    /// `nagi recover run --apply` on the node, with more words.
    pub(crate) fn recover(&self, more: &[&str]) -> anyhow::Result<Recovery> {
        self.recover_within("7m", more)
    }

    /// The same, and the proof takes no longer.
    pub(crate) fn recover_within(&self, within: &str, more: &[&str]) -> anyhow::Result<Recovery> {
        let ended = self
            .nagi(["recover", "run", "--apply", "--stable=30s"])
            .arguments([
                format!("--nodes={NODES}"),
                format!("--within={within}"),
                "--output=json".to_owned(),
            ])
            .arguments(more)
            .limit(RECOVERY_LIMIT)
            .end()?;
        let answer: Value = serde_json::from_str(&ended.output).with_context(|| {
            format!(
                "'recover run' ended with {}: {}{}",
                ended.status, ended.output, ended.errors
            )
        })?;
        say(&format!(
            "it ended with {}: {}",
            ended.status, answer["message"]
        ));
        for time in answer["times"].as_array().into_iter().flatten() {
            say(&format!("  {} took {} s", time["part"], time["seconds"]));
        }
        Ok(Recovery {
            answer,
            errors: ended.errors,
            code: ended.status.code(),
        })
    }

    /// The names of the images on the node.
    pub(crate) fn images(&self) -> anyhow::Result<Vec<String>> {
        let listed = self
            .cluster
            .ctr()
            .arguments(["images", "list", "--quiet"])
            .output()?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.cluster.root()
    }

    /// The API server says that it is ready.
    pub(crate) fn answers(&self) -> anyhow::Result<Look<()>> {
        let ended = self
            .cluster
            .kubectl()
            .arguments(["get", "--raw=/readyz", "--request-timeout=5s"])
            .end()?;
        Ok(if ended.status.success() {
            Look::There(())
        } else {
            Look::NotYet(ended.errors)
        })
    }

    /// The API server answers, and the node is ready.
    pub(crate) fn wait_until_healthy(&self) -> anyhow::Result<()> {
        wait::until("the API server to answer", LIMIT, || self.answers())?;
        self.cluster
            .kubectl()
            .arguments(["wait", "node", "--all", "--for=condition=Ready"])
            .argument("--timeout=170s")
            .limit(LIMIT)
            .succeed()
    }

    /// A diagnosis on the node finds nothing.
    pub(crate) fn wait_until_sound(&self) -> anyhow::Result<()> {
        wait::until("a diagnosis without a cause", LIMIT, || {
            let (answer, ended) = self.nagi_json(["recover", "diagnose"])?;
            Ok(if ended.status.success() && answer["status"] == "sound" {
                Look::There(())
            } else {
                Look::NotYet(answer.to_string())
            })
        })
    }

    /// Bytes that nobody has, the reserve with them, and those that are not root's alone.
    pub(crate) fn free(&self) -> anyhow::Result<Free> {
        let text = Call::new("stat")
            .arguments(["--file-system", "--format=%S %f %a %d"])
            .argument(self.root())
            .output()?;
        let numbers: Vec<u64> = text
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .context("read what stat says")?;
        let [block, free, available, inodes] = numbers[..] else {
            bail!("stat says '{text}'");
        };
        Ok(Free {
            bytes: block * free,
            available: block * available,
            inodes,
        })
    }
}

// === impl Recovery ===

impl Recovery {
    /// Fails unless the cluster is back, and stays so.
    pub(crate) fn is_back(&self) -> anyhow::Result<()> {
        ensure!(
            self.code == Some(0) && self.answer["status"] == "recovered",
            "{:#}\n{}",
            self.answer,
            self.errors
        );
        Ok(())
    }

    /// Fails unless it was refused and nothing was done; gives the next command.
    pub(crate) fn is_refused(&self) -> anyhow::Result<&str> {
        ensure!(
            self.code == Some(REFUSED) && self.answer["status"] == "refused",
            "{self:?}"
        );
        ensure!(self.steps().next().is_none(), "nothing was done: {self:?}");
        let next = self.answer["plan"]["refusals"][0]["next"].as_str();
        next.with_context(|| format!("there is a next command: {self:?}"))
    }

    /// The names of the steps that were done.
    pub(crate) fn steps(&self) -> impl Iterator<Item = &str> {
        let done = self.answer["done"].as_array();
        done.into_iter()
            .flatten()
            .filter_map(|step| step["step"].as_str())
    }
}

/// How much a disk has left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Free {
    pub(crate) bytes: u64,
    pub(crate) available: u64,
    pub(crate) inodes: u64,
}

/// Tells the person who waits.
#[expect(
    clippy::print_stderr,
    reason = "what was seen, for whoever reads the log of the run"
)]
pub(crate) fn say(what: &str) {
    eprintln!("recovery: {what}");
}

pub(crate) fn sound(world: &mut World) -> anyhow::Result<()> {
    let node = world.node()?;
    wait::until("every static pod to run", LIMIT, || {
        let pods = node
            .cluster
            .kubectl()
            .arguments(["get", "pods", "--namespace=kube-system"])
            .argument(PHASES)
            .output()?;
        let runs = |name: &&str| {
            let line = format!("{name}-{} Running", node.cluster.node());
            pods.lines().any(|pod| pod == line)
        };
        Ok(if STATIC_PODS.iter().all(runs) {
            Look::There(())
        } else {
            Look::NotYet(pods)
        })
    })?;
    let journal = node
        .cluster
        .inside("journalctl")
        .arguments(["--unit=kubelet", "--lines=1", "--output=cat"])
        .output()?;
    ensure!(!journal.is_empty(), "kubelet writes to the journal");
    // A service that ends by itself comes back, and that is counted.
    let containerd =
        node.cluster
            .systemctl(["show", "--property=MainPID", "--value", "containerd"])?;
    node.cluster
        .inside("kill")
        .arguments(["-KILL", containerd.trim()])
        .succeed()?;
    wait::until("containerd to be started anew", LIMIT, || {
        let shown =
            node.cluster
                .systemctl(["show", "--property=NRestarts,ActiveState", "containerd"])?;
        Ok(if shown == "ActiveState=active\nNRestarts=1\n" {
            Look::There(())
        } else {
            Look::NotYet(shown)
        })
    })?;
    node.wait_until_sound()
}

pub(crate) fn leaves_nothing(world: &mut World) -> anyhow::Result<()> {
    let node = match world.node.take() {
        Some(node) => node,
        None => Node::start()?,
    };
    let directory = node.cluster.directory().to_owned();
    ensure!(
        !loops(&directory)?.is_empty(),
        "the search finds a loop device"
    );
    node.cluster.stop()?;
    ensure!(!directory.exists(), "no file is left");
    wait::until("its loop device to go", LIMIT, || {
        let left = loops(&directory)?;
        Ok(if left.is_empty() {
            Look::There(())
        } else {
            Look::NotYet(left)
        })
    })?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let text = directory.display().to_string();
    ensure!(!mounts.contains(&text), "no mount is left: {mounts}");
    let mark = format!("nagi_{NAME}_");
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").context("look into the control groups")? {
        let hierarchy = hierarchy?.path();
        let groups = std::fs::read_dir(&hierarchy).into_iter().flatten();
        for group in groups {
            let group = group?.file_name();
            ensure!(
                !group.to_string_lossy().contains(&mark),
                "{} is left in {}",
                group.display(),
                hierarchy.display()
            );
        }
    }
    let namespaces = Call::new("ip").argument("netns").output()?;
    ensure!(!namespaces.contains(&mark), "{namespaces}");
    Ok(())
}

/// Loop devices of files below a directory.
fn loops(directory: &Path) -> anyhow::Result<String> {
    let all = Call::new("losetup")
        .arguments(["--list", "--noheadings", "--output=NAME,BACK-FILE"])
        .output()?;
    let text = directory.display().to_string();
    let own: Vec<&str> = all.lines().filter(|line| line.contains(&text)).collect();
    Ok(own.join("\n"))
}
