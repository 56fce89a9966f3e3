//! The API server from the inside: alive, ready, its nodes, and one write that leaves nothing.
//!
//! The write is a Lease that is created and deleted: it goes through admission and etcd like any other, starts nothing, is
//! watched by nobody, and has one name, so that what a killed run left is taken away by the next.

use ::http::Method;
use jiff::Timestamp;
use nagi_runtime::Deadline;
use serde::Deserialize;

use crate::endpoint::{Answer, Chosen, ask};
use crate::observed::{Looked, Unseen};

/// Nodes of one answer: each lists up to 50 images, some kilobytes in all.
const PAGE: u32 = 50;
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
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
struct List {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Item>,
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
pub(super) async fn facts(chosen: &Chosen, deadline: Deadline) -> ApiFacts {
    let (livez, readyz, nodes) = tokio::join!(
        checks(chosen, "livez", deadline),
        checks(chosen, "readyz", deadline),
        nodes(chosen, deadline),
    );
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

async fn nodes(chosen: &Chosen, deadline: Deadline) -> Looked<Vec<NodeState>> {
    let mut nodes = Vec::new();
    let mut next = String::new();
    loop {
        let path = match next.as_str() {
            "" => format!("/api/v1/nodes?limit={PAGE}"),
            next => format!("/api/v1/nodes?limit={PAGE}&continue={next}"),
        };
        let answer = get(chosen, &path, deadline).await?;
        if answer.status != 200 {
            return Err(Unseen::Failed(format!(
                "/api/v1/nodes answers {}",
                answer.status
            )));
        }
        let list: List = serde_json::from_str(&answer.text)
            .map_err(|error| Unseen::Failed(format!("/api/v1/nodes: {error}")))?;
        nodes.extend(list.items.into_iter().map(node));
        // A server that gives the same page for ever is no API server; a cluster of 5,000 nodes has a hundred.
        if list.metadata.next.is_empty() || list.metadata.next == next {
            return Ok(nodes);
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
