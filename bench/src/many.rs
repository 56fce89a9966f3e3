//! 5,000 Deployments on the real API server: from an event to Nagi's own cache.
//!
//! A control plane of the harness, nodes and pods played by kwok, one workload in ten awake. One Deployment after the other is
//! changed. The API server's event of the change is seen by a watch of this program, and Nagi is asked for the workload at that
//! version at once: it answers when its own watch has brought it into its cache. The way of that question and its answer is
//! counted too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client};
use nagi_e2e::{ControlPlane, Delays, Options as ControlPlaneOptions, tools, wait};
use serde_json::json;
use tokio::task::JoinSet;

use crate::http::{self, Connection};
use crate::nagi::{Place, wide_runtime};
use crate::report::{Report, Row, Sense, Weight};
use crate::statistics::{largest, median, percentile};
use crate::{Options, clock, cluster};

const DEPLOYMENTS: u32 = 5_000;
/// One in so many is awake: most of what Nagi looks after sleeps.
const ONE_AWAKE_IN: u32 = 10;
const NAMESPACES: u32 = 50;
/// Each takes as many pods as Kubernetes allows by default: 110.
const FAKE_NODES: u32 = 6;
/// So many creations are under way at once.
const CREATE_WIDTH: usize = 16;
/// Controllers, scheduler and kwok work through everything in about a minute.
const SETTLED_MAX: Duration = Duration::from_mins(5);
const LOOK_EVERY: Duration = Duration::from_secs(3);
const CHANGES: u32 = 500;
const PACE: Duration = Duration::from_millis(20);
/// Our own watch has seen what Nagi's has.
const EVENT_MAX: Duration = Duration::from_secs(5);

/// When a version was seen by our watch.
type Events = Arc<Mutex<HashMap<String, Duration>>>;

/// Fills a control plane and changes Deployments on it.
pub(crate) fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    cluster::build_tools(&[tools::KUBERNETES, tools::ETCD, tools::KWOK])?;
    // The controllers' own limit of 20 calls a second would make the filling take minutes.
    let settings = ControlPlaneOptions {
        arguments: ["--kube-api-qps=1000", "--kube-api-burst=2000"]
            .map(|argument| ("kube-controller-manager", argument.to_owned()))
            .to_vec(),
        ..ControlPlaneOptions::default()
    };
    let mut control_plane = ControlPlane::start("bench-many", &settings)?;
    control_plane.start_kwok(Delays::default())?;
    control_plane.add_fake_nodes(FAKE_NODES)?;
    let runtime = wide_runtime()?;
    let kubeconfig = control_plane.kubeconfig();
    let client = runtime.block_on(cluster::client(&kubeconfig))?;
    runtime.block_on(fill(&client))?;
    let place = Place::bare(&options.nagi)?;
    let nagi = place.start_server(&runtime, &kubeconfig)?;
    let events = Events::default();
    let mut watching = JoinSet::new();
    watching.spawn_on(
        follow(Api::all(client.clone()), Arc::clone(&events)),
        runtime.handle(),
    );
    let [from_event, from_write] = runtime.block_on(change(&client, &place, &events))?;
    let resident = nagi.memory()?.resident;
    drop(watching);
    nagi.stop()?;
    control_plane.stop()?;

    report.rounds("many_event_to_cache_ms", &from_event);
    report.rounds("many_write_to_cache_ms", &from_write);
    report.row(Row {
        id: "cache",
        what: format!("5,000 Deployments: watch event to own cache, p99 of {CHANGES}"),
        unit: "ms",
        sense: Sense::AtMost,
        goal: 10.0,
        seen: percentile(&from_event, 99),
        peer: format!(
            "p50 {:.2}, slowest {:.1}; from the write's answer p99 {:.1}; {:.0} MB",
            median(&from_event),
            largest(&from_event),
            percentile(&from_write, 99),
            resident / 1e6
        ),
        weight: Weight::Printed,
    });
    Ok(())
}

fn namespace_of(number: u32) -> String {
    format!("project-{:02}", number % NAMESPACES)
}

fn name_of(number: u32) -> String {
    format!("service-{number:04}")
}

/// Creates everything and waits until those that are to be awake are.
async fn fill(client: &Client) -> anyhow::Result<()> {
    // The leader's Lease lives there.
    let names = (0..NAMESPACES).map(namespace_of);
    for name in names.chain(["scale-system".to_owned()]) {
        let namespace: Namespace = cluster::object(json!({ "metadata": { "name": name } }))?;
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .context("create a namespace")?;
    }
    let create = async |number| {
        wait::check_interrupted()?;
        let api: Api<Deployment> = Api::namespaced(client.clone(), &namespace_of(number));
        let deployment = deployment(number)?;
        api.create(&PostParams::default(), &deployment)
            .await
            .with_context(|| format!("create {}", name_of(number)))?;
        anyhow::Ok(())
    };
    stream::iter((0..DEPLOYMENTS).map(create))
        .buffer_unordered(CREATE_WIDTH)
        .try_collect::<()>()
        .await?;
    let deployments: Api<Deployment> = Api::all(client.clone());
    let began = clock::now();
    loop {
        wait::check_interrupted()?;
        let listed = deployments
            .list(&ListParams::default())
            .await
            .context("list")?;
        let settled = listed.items.iter().filter(|item| is_settled(item)).count();
        if settled == listed.items.len() {
            return Ok(());
        }
        if clock::now().saturating_sub(began) > SETTLED_MAX {
            bail!("{settled} of {} workloads came up", listed.items.len());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Its controller has seen it, and all pods that it wants are there.
fn is_settled(deployment: &Deployment) -> bool {
    let (Some(spec), Some(status)) = (&deployment.spec, &deployment.status) else {
        return false;
    };
    status.observed_generation == deployment.metadata.generation
        && status.available_replicas.unwrap_or(0) == spec.replicas.unwrap_or(1)
}

fn deployment(number: u32) -> anyhow::Result<Deployment> {
    let name = name_of(number);
    let is_awake = number.is_multiple_of(ONE_AWAKE_IN);
    let labels = json!({ "app": name });
    cluster::object(json!({
        "metadata": {
            "name": name,
            "labels": labels,
        },
        "spec": {
            "replicas": u32::from(is_awake),
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{
                    "name": "web",
                    "image": "example/web:1",
                    "ports": [{ "name": "http", "containerPort": 8080 }],
                }] },
            },
        },
    }))
}

/// Notes when the event of each version came, until it is dropped.
async fn follow(deployments: Api<Deployment>, events: Events) {
    let watched = watch(deployments, watcher::Config::default()).default_backoff();
    let mut coming = watched.boxed();
    while let Some(event) = coming.next().await {
        let now = clock::now();
        match event {
            Ok(Event::Apply(item) | Event::Delete(item)) => {
                let version = item.metadata.resource_version.unwrap_or_default();
                let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
                events.insert(version, now);
            }
            Ok(Event::Init | Event::InitApply(_) | Event::InitDone) => {}
            // It begins anew by itself; a change whose event is missed fails the measurement.
            Err(error) => eprintln!("bench: the watch of deployments: {error}"),
        }
    }
}

/// Changes Deployments; the milliseconds from the event, and from the answer to the write, to Nagi's answer.
async fn change(client: &Client, place: &Place, events: &Events) -> anyhow::Result<[Vec<f64>; 2]> {
    let mut connection = Connection::open(place.api).await?;
    let (mut from_event, mut from_write) = (Vec::new(), Vec::new());
    // The first one finds out that our own watch follows.
    for round in 0..=CHANGES {
        let began = clock::now();
        let number = round * 7 % DEPLOYMENTS;
        let (namespace, name) = (namespace_of(number), name_of(number));
        let api: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
        let change = json!({ "metadata": { "annotations": { "bench/round": round.to_string() } } });
        let changed = api
            .patch(&name, &PatchParams::default(), &Patch::Merge(&change))
            .await
            .context("change a deployment")?;
        let written = clock::now();
        let version = changed.metadata.resource_version.context("a version")?;
        let path =
            format!("/api/v1/deployments/{namespace}/{name}/status?min_resource_version={version}");
        let answer = connection
            .call(&http::request("GET", "localhost", &path, ""))
            .await?;
        cluster::succeeded(&answer)?;
        let event = event(events, &version, round == 0).await?;
        if round > 0 {
            let millis =
                |from: Duration| answer.first_byte.saturating_sub(from).as_secs_f64() * 1e3;
            from_event.push(millis(event));
            from_write.push(millis(written));
        }
        tokio::time::sleep(PACE.saturating_sub(clock::now().saturating_sub(began))).await;
    }
    ensure!(!from_event.is_empty(), "nothing was changed");
    Ok([from_event, from_write])
}

/// When our watch saw a version. The first one may have come with our first list.
async fn event(events: &Events, version: &str, may_be_listed: bool) -> anyhow::Result<Duration> {
    let began = clock::now();
    loop {
        let seen = {
            let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
            events.remove(version)
        };
        if let Some(seen) = seen {
            return Ok(seen);
        }
        let waited = clock::now().saturating_sub(began);
        if waited > EVENT_MAX {
            if may_be_listed {
                return Ok(began);
            }
            bail!("our watch has not seen version {version}");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
