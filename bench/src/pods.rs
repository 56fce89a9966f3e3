//! The first request to a sleeping pod of a real cluster, and how long the cluster takes to start.
//!
//! The cluster is the harness's, in namespaces of its own. `nagi gateway` runs beside it, as it does in a pod, with the default
//! configuration. The pod's server says in every answer when it opened its port, by the clock that all processes of the machine
//! share; a watch of this program notes when the API shows the pod's address. Before the later of the two nobody can reach the
//! pod through the API, so the time is counted from there to the first byte at the client.
//!
//! Two Deployments take turns: one without a readiness probe, which is ready when its port answers, and one with an HTTP
//! probe, which the gateway asks itself.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client};
use nagi_e2e::{Cluster, ClusterOptions, tools, wait};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::http::{self, Connection};
use crate::nagi::{Place, wide_runtime};
use crate::report::{Report, Row, Sense, Weight};
use crate::statistics::{largest, median, percentile};
use crate::{Options, clock, cluster};

const NAMESPACE: &str = "project-a";
/// In this header the pod says when it opened its port.
const OPENED: &str = "listening-since-nanoseconds";
/// A pod gets a second to end.
const GONE_MAX: Duration = Duration::from_mins(1);
/// From the last pod's end until everybody knows it.
const SETTLE: Duration = Duration::from_millis(300);
/// Between two looks whether the pods are gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One Deployment and what was measured with it.
#[derive(Debug)]
struct Series {
    name: &'static str,
    what: &'static str,
    probe: Option<Value>,
    /// From the later of "its port answers" and "its address is in the API" to the first byte.
    after: Vec<f64>,
    /// From the request to that moment: what the cluster takes.
    cold: Vec<f64>,
    /// From the request to the first byte.
    whole: Vec<f64>,
}

/// What the watch has seen of pods, by name.
#[derive(Debug, Default)]
struct Seen {
    /// When the API showed the address.
    visible: HashMap<String, Duration>,
    there: HashSet<String>,
}

/// Where the rounds happen.
#[derive(Debug)]
struct Stage {
    place: Place,
    deployments: Api<Deployment>,
    seen: Arc<Mutex<Seen>>,
}

/// Starts a cluster, and wakes pods on it one after another.
pub(crate) fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    if let Some(why) = cluster::no_nodes() {
        report.skip(
            "the first request to a sleeping pod, the start of a cluster",
            why,
        );
        return Ok(());
    }
    cluster::build_tools(&[
        tools::KUBERNETES,
        tools::ETCD,
        tools::COREDNS,
        tools::METRICS_SERVER,
        tools::STAND_INS,
    ])?;
    let began = clock::now();
    let running = Cluster::start("bench", &ClusterOptions::default())?;
    let started_in = clock::now().saturating_sub(began);
    report.row(Row {
        id: "cluster",
        what: "`make cluster` from warm caches to all nodes ready".into(),
        unit: "s",
        sense: Sense::AtMost,
        goal: 30.0,
        seen: started_in.as_secs_f64(),
        peer: String::new(),
        weight: Weight::Gated {
            slack_when_quick: 2.0,
        },
    });
    let image = running.load_web_image()?;
    let mut all = [
        Series::new("plain", "no readiness probe", None),
        Series::new(
            "probed",
            "an HTTP readiness probe",
            Some(json!({ "httpGet": { "path": "/", "port": "http" }, "periodSeconds": 1 })),
        ),
    ];
    let runtime = wide_runtime()?;
    let kubeconfig = running.kubeconfig();
    let client = runtime.block_on(cluster::client(&kubeconfig))?;
    let deployments = Api::namespaced(client.clone(), NAMESPACE);
    runtime.block_on(create(&client, &deployments, image, &all))?;
    let place = Place::bare(&options.nagi)?;
    let gateway = place.start_gateway(&runtime, &kubeconfig)?;
    let stage = Stage {
        place,
        deployments,
        seen: Arc::default(),
    };
    let mut watching = JoinSet::new();
    watching.spawn_on(
        follow(Api::namespaced(client, NAMESPACE), Arc::clone(&stage.seen)),
        runtime.handle(),
    );
    // The first pod of an image on a node is another thing than every later one.
    for round in 0..=options.pick(30, 5) {
        for series in &mut all {
            let sample = runtime
                .block_on(stage.wake(series.name, round))
                .with_context(|| format!("round {round} with {}", series.what))?;
            if round > 0 {
                series.add(sample);
            }
        }
    }
    drop(watching);
    gateway.stop()?;
    running.stop()?;
    for series in all {
        series.tell(report);
    }
    Ok(())
}

async fn create(
    client: &Client,
    deployments: &Api<Deployment>,
    image: &str,
    all: &[Series],
) -> anyhow::Result<()> {
    let namespace: Namespace = cluster::object(json!({ "metadata": { "name": NAMESPACE } }))?;
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .context("create a namespace")?;
    for series in all {
        deployments
            .create(&PostParams::default(), &series.deployment(image)?)
            .await
            .with_context(|| format!("create {}", series.name))?;
    }
    Ok(())
}

/// Notes what happens to pods until it is dropped.
async fn follow(pods: Api<Pod>, seen: Arc<Mutex<Seen>>) {
    let watched = watch(pods, watcher::Config::default()).default_backoff();
    let mut events = watched.boxed();
    while let Some(event) = events.next().await {
        let now = clock::now();
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => {
                let name = pod.metadata.name.unwrap_or_default();
                if pod.status.is_some_and(|status| status.pod_ip.is_some()) {
                    seen.visible.entry(name.clone()).or_insert(now);
                }
                seen.there.insert(name);
            }
            Ok(Event::Delete(pod)) => {
                seen.there.remove(&pod.metadata.name.unwrap_or_default());
            }
            Ok(Event::Init) => seen.there.clear(),
            Ok(Event::InitDone) => {}
            // It begins anew by itself; a round that misses an event fails.
            Err(error) => eprintln!("bench: the watch of pods: {error}"),
        }
    }
}

// === impl Stage ===

impl Stage {
    /// Puts a workload to sleep, asks for it, and gives when its pod could be reached, when the answer began, and when it was
    /// asked.
    async fn wake(&self, name: &str, round: u32) -> anyhow::Result<[Duration; 3]> {
        let zero = json!({ "spec": { "replicas": 0 } });
        self.deployments
            .patch_scale(name, &PatchParams::default(), &Patch::Merge(&zero))
            .await
            .context("scale to zero")?;
        self.wait_until_gone(name).await?;
        // A moment that is not the same every time, so that it does not fall into step with anything.
        let jitter = Duration::from_millis(u64::from(round * 7 % 23));
        tokio::time::sleep(SETTLE + jitter).await;

        let host = format!("{name}.{NAMESPACE}.localhost");
        let request = http::request("GET", &host, "/", "");
        let mut connection = Connection::open(self.place.gateway).await?;
        let began = clock::now();
        let answer = connection.call(&request).await?;
        cluster::succeeded(&answer)?;
        let opened: u64 = http::header(&answer.head, OPENED)?
            .parse()
            .context("read when the port was opened")?;
        let opened = Duration::from_nanos(opened);
        ensure!(
            opened > began,
            "the request met a pod that was awake already"
        );
        let pod = String::from_utf8_lossy(&answer.body).trim().to_owned();
        let visible = self.visible(&pod).await?;
        Ok([opened.max(visible), answer.first_byte, began])
    }

    async fn wait_until_gone(&self, name: &str) -> anyhow::Result<()> {
        let prefix = format!("{name}-");
        let began = clock::now();
        loop {
            wait::check_interrupted()?;
            let left: Vec<String> = {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                let left = seen.there.iter().filter(|pod| pod.starts_with(&prefix));
                left.cloned().collect()
            };
            if left.is_empty() {
                return Ok(());
            }
            if clock::now().saturating_sub(began) > GONE_MAX {
                bail!("still there: {}", left.join(", "));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// When the address of a pod was visible; our own watch may be a moment behind the gateway's.
    async fn visible(&self, pod: &str) -> anyhow::Result<Duration> {
        for _ in 0..100 {
            let seen = {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.visible.get(pod).copied()
            };
            if let Some(visible) = seen {
                return Ok(visible);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("our watch has not seen the address of {pod}");
    }
}

// === impl Series ===

impl Series {
    fn new(name: &'static str, what: &'static str, probe: Option<Value>) -> Self {
        Self {
            name,
            what,
            probe,
            after: Vec::new(),
            cold: Vec::new(),
            whole: Vec::new(),
        }
    }

    fn deployment(&self, image: &str) -> anyhow::Result<Deployment> {
        let labels = json!({ "app": self.name });
        let mut container = json!({
            "name": "web",
            "image": image,
            "imagePullPolicy": "Never",
            "ports": [{ "name": "http", "containerPort": 8080 }],
        });
        if let Some(probe) = &self.probe {
            container["readinessProbe"] = probe.clone();
        }
        cluster::object(json!({
            "metadata": { "name": self.name, "annotations": cluster::annotations()? },
            "spec": {
                "replicas": 0,
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "nodeSelector": { "project": "a" },
                        "automountServiceAccountToken": false,
                        "terminationGracePeriodSeconds": 1,
                        "containers": [container],
                    },
                },
            },
        }))
    }

    fn add(&mut self, [reachable, first_byte, began]: [Duration; 3]) {
        let millis = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1e3;
        self.after.push(millis(reachable, first_byte));
        self.cold.push(millis(began, reachable));
        self.whole.push(millis(began, first_byte));
    }

    fn tell(&self, report: &mut Report) {
        let of_cold: Vec<f64> = self
            .whole
            .iter()
            .zip(&self.cold)
            .map(|(whole, cold)| whole / cold)
            .collect();
        report.row(Row {
            id: "pod",
            what: format!(
                "first request, {}: first byte after port and address, p95 of {}",
                self.what,
                self.after.len()
            ),
            unit: "ms",
            sense: Sense::AtMost,
            goal: 25.0,
            seen: percentile(&self.after, 95),
            peer: format!(
                "p50 {:.1}, slowest {:.1}; whole p50 {:.0}, {:.2} x the pod's own start",
                median(&self.after),
                largest(&self.after),
                median(&self.whole),
                median(&of_cold)
            ),
            weight: Weight::Gated {
                slack_when_quick: 5.0,
            },
        });
        let mut keep =
            |what: &str, values| report.rounds(&format!("pod_{}_{what}_ms", self.name), values);
        keep("reachable_to_first_byte", &self.after);
        keep("request_to_reachable", &self.cold);
        keep("request_to_first_byte", &self.whole);
    }
}
