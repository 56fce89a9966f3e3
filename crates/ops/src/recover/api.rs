//! The API server from the inside: alive, ready, its nodes, and one write that leaves nothing.
//!
//! The write is a Lease that is created and deleted: it goes through admission and etcd like any other, starts nothing, is
//! watched by nobody, and has one name, so that what a killed run left is taken away by the next.

use std::collections::BTreeMap;
use std::time::Duration;

use ::http::Method;
use jiff::Timestamp;
use nagi_runtime::Deadline;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::endpoint::{Answer, Chosen, ask};
use crate::observed::{Looked, Unseen};

/// Nodes of one answer: each lists up to 50 images, some kilobytes in all.
const PAGE: u32 = 20;
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
/// Where each kubelet says that it lives.
const NODE_LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const LEASE: &str = "nagi-recover-check";

/// What the API server says of itself and of its cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiFacts {
    /// `/livez`: none is wrong, or these are.
    pub livez: Looked<Vec<String>>,
    /// `/readyz?verbose`.
    pub readyz: Looked<Vec<String>>,
    /// Its nodes.
    pub nodes: Looked<Vec<NodeState>>,
    /// One write; none when it was not asked for.
    pub write: Option<Result<(), String>>,
}

/// A node as the API server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Its name.
    pub name: String,
    /// It is ready; otherwise why not.
    pub ready: Result<(), String>,
    /// Whether its disks press.
    pub pressure: Pressure,
    /// So many seconds before the server's time its kubelet last renewed its lease.
    pub lease_age: Looked<i64>,
}

/// The condition `DiskPressure`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pressure {
    /// kubelet says so.
    Yes,
    /// It does not, since then.
    No(Option<Timestamp>),
    /// It says nothing.
    Unknown,
}

#[derive(Debug, Deserialize)]
struct List<T> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Debug, Deserialize)]
struct NodeLease {
    metadata: Meta,
    #[serde(default)]
    spec: LeaseSpec,
}

#[derive(Debug, Default, Deserialize)]
struct LeaseSpec {
    #[serde(default, rename = "renewTime")]
    renewed: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct ListMeta {
    #[serde(default, rename = "continue")]
    next: String,
}

#[derive(Debug, Deserialize)]
struct Item {
    metadata: Meta,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Meta {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    last_transition_time: Option<String>,
}

/// Asks for all but the write.
pub(super) async fn facts(chosen: &Chosen, within: Duration) -> ApiFacts {
    let deadline = Deadline::in_(within);
    let (livez, readyz, nodes, leases) = tokio::join!(
        checks(chosen, "livez", deadline),
        checks(chosen, "readyz", deadline),
        nodes(chosen, within),
        leases(chosen, within),
    );
    let nodes = nodes.map(|mut nodes| {
        for node in &mut nodes {
            node.lease_age = match &leases {
                Err(unseen) => Err(unseen.clone()),
                Ok(leases) => leases.get(&node.name).copied().ok_or_else(|| {
                    Unseen::Failed("it has no lease, or no time is known of it".to_owned())
                }),
            };
        }
        nodes
    });
    ApiFacts {
        livez,
        readyz,
        nodes,
        write: None,
    }
}

/// The checks that fail.
async fn checks(chosen: &Chosen, path: &str, deadline: Deadline) -> Looked<Vec<String>> {
    let answer = get(chosen, &format!("/{path}?verbose"), deadline).await?;
    let failed = answer.text.lines().filter_map(|line| {
        let rest = line.strip_prefix("[-]")?;
        Some(rest.split(' ').next().unwrap_or(rest).to_owned())
    });
    let failed: Vec<String> = failed.collect();
    match answer.status {
        200 => Ok(failed),
        _ if !failed.is_empty() => Ok(failed),
        status => Err(Unseen::Failed(format!("/{path} answers {status}"))),
    }
}

async fn nodes(chosen: &Chosen, within: Duration) -> Looked<Vec<NodeState>> {
    let listed = listed::<Item>(chosen, "/api/v1/nodes", within).await?;
    Ok(listed.into_iter().map(|(item, _)| node(item)).collect())
}

/// How many seconds before the server's time each lease was renewed. Without that time nobody knows, and none is there.
async fn leases(chosen: &Chosen, within: Duration) -> Looked<BTreeMap<String, i64>> {
    let listed = listed::<NodeLease>(chosen, NODE_LEASES, within).await?;
    let age = |(lease, date): (NodeLease, Option<Timestamp>)| {
        let renewed: Timestamp = lease.spec.renewed?.parse().ok()?;
        Some((lease.metadata.name, date?.duration_since(renewed).as_secs()))
    };
    Ok(listed.into_iter().filter_map(age).collect())
}

/// All objects, page by page, each with the server's time. Each page has its own deadline.
async fn listed<T: DeserializeOwned>(
    chosen: &Chosen,
    path: &str,
    within: Duration,
) -> Looked<Vec<(T, Option<Timestamp>)>> {
    let mut all = Vec::new();
    let mut next = String::new();
    loop {
        let asked = match next.as_str() {
            "" => format!("{path}?limit={PAGE}"),
            next => format!("{path}?limit={PAGE}&continue={next}"),
        };
        let answer = get(chosen, &asked, Deadline::in_(within)).await?;
        if answer.status != 200 {
            return Err(Unseen::Failed(format!("{path} answers {}", answer.status)));
        }
        let list: List<T> = serde_json::from_str(&answer.text)
            .map_err(|error| Unseen::Failed(format!("{path}: {error}")))?;
        all.extend(list.items.into_iter().map(|item| (item, answer.date)));
        // A server that gives the same page for ever is no API server; a cluster of 5,000 nodes has some hundreds.
        if list.metadata.next.is_empty() || list.metadata.next == next {
            return Ok(all);
        }
        next = list.metadata.next;
    }
}

fn node(item: Item) -> NodeState {
    let condition = |kind: &str| item.status.conditions.iter().find(|one| one.kind == kind);
    let ready = match condition("Ready") {
        Some(one) if one.status == "True" => Ok(()),
        Some(one) => Err(format!("Ready is {}: {}", one.status, one.reason)),
        None => Err("it has no condition Ready".to_owned()),
    };
    let pressure = match condition("DiskPressure") {
        Some(one) if one.status == "True" => Pressure::Yes,
        Some(one) if one.status == "False" => Pressure::No(
            one.last_transition_time
                .as_deref()
                .and_then(|at| at.parse().ok()),
        ),
        Some(_) | None => Pressure::Unknown,
    };
    NodeState {
        name: item.metadata.name,
        ready,
        pressure,
        lease_age: Err(Unseen::Failed("it was not asked for".to_owned())),
    }
}

/// Writes once, and takes it back.
///
/// # Errors
/// It cannot be written, or not be taken back; in words.
pub(super) async fn write(chosen: &Chosen, deadline: Deadline) -> Result<(), String> {
    let lease = serde_json::json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": LEASE, "namespace": "kube-system" },
        "spec": { "holderIdentity": "nagi" },
    });
    let create = || {
        ask(
            chosen,
            Method::POST,
            LEASES,
            Some(lease.to_string()),
            deadline,
        )
    };
    let mut answer = create().await?;
    // What a run that was killed left.
    if answer.status == 409 {
        delete(chosen, deadline).await?;
        answer = create().await?;
    }
    if answer.status != 201 {
        return Err(said("a Lease cannot be created", &answer));
    }
    delete(chosen, deadline).await
}

async fn delete(chosen: &Chosen, deadline: Deadline) -> Result<(), String> {
    let path = format!("{LEASES}/{LEASE}");
    let answer = ask(chosen, Method::DELETE, &path, None, deadline).await?;
    match answer.status {
        200 | 202 | 404 => Ok(()),
        _ => Err(said(
            &format!("the Lease kube-system/{LEASE} cannot be deleted"),
            &answer,
        )),
    }
}

fn said(what: &str, answer: &Answer) -> String {
    let head: String = answer.text.chars().take(200).collect();
    format!("{what}: {}: {head}", answer.status)
}

async fn get(chosen: &Chosen, path: &str, deadline: Deadline) -> Looked<Answer> {
    ask(chosen, Method::GET, path, None, deadline)
        .await
        .map_err(Unseen::Failed)
}
