//! The parts of a pod that decide which node it needs.
//!
//! Labels are compared with `nodeSelector` only, not with affinities: the sample workloads choose their nodes that way.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::node::NodeKind;

/// A pod.
#[derive(Debug, Deserialize)]
pub(super) struct Pod {
    pub(super) metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

/// What names it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    #[serde(default)]
    pub(super) owner_references: Vec<Owner>,
}

/// What made it.
#[derive(Debug, Deserialize)]
pub(super) struct Owner {
    kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    node_selector: BTreeMap<String, String>,
    tolerations: Vec<Toleration>,
    containers: Vec<Container>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Toleration {
    key: String,
    operator: String,
    value: String,
    effect: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    resources: Resources,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    requests: BTreeMap<String, String>,
    limits: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    reason: String,
}

// === impl Pod ===

impl Pod {
    /// Whether the scheduler has said that no node will do.
    pub(super) fn is_unschedulable(&self) -> bool {
        self.status.phase == "Pending"
            && self.status.conditions.iter().any(|condition| {
                condition.kind == "PodScheduled"
                    && condition.status == "False"
                    && condition.reason == "Unschedulable"
            })
    }

    /// Whether it keeps a node from being empty.
    pub(super) fn occupies(&self, node: &str) -> bool {
        self.spec.node_name == node
            && !matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
            && !self
                .metadata
                .owner_references
                .iter()
                .any(|owner| owner.kind == "DaemonSet")
    }

    /// Whether a node of this kind would do.
    pub(super) fn fits(&self, kind: &NodeKind) -> bool {
        let has_label = |key: &str, value: &str| match key {
            "kubernetes.io/hostname" => value == kind.name,
            "kubernetes.io/os" => value == "linux",
            key => kind
                .labels
                .iter()
                .any(|(name, content)| name == key && content == value),
        };
        let selected = self
            .spec
            .node_selector
            .iter()
            .all(|(key, value)| has_label(key, value));
        let tolerated = kind.taints.iter().all(|taint| {
            self.spec.tolerations.iter().any(|toleration| {
                let same_key = toleration.key == taint.key || toleration.key.is_empty();
                let same_value = match toleration.operator.as_str() {
                    "Exists" => true,
                    _ => toleration.value == taint.value && !toleration.key.is_empty(),
                };
                let same_effect = toleration.effect == taint.effect || toleration.effect.is_empty();
                same_key && same_value && same_effect
            })
        });
        selected && tolerated && self.devices_fit(kind)
    }

    /// Only extended resources are counted: processor and memory are the machine's, and the scheduler knows them.
    fn devices_fit(&self, kind: &NodeKind) -> bool {
        let mut wanted: BTreeMap<&str, u32> = BTreeMap::new();
        for container in &self.spec.containers {
            // For a device the two are the same, and either may be left out.
            let mut own: BTreeMap<&str, u32> = BTreeMap::new();
            let Resources { requests, limits } = &container.resources;
            for (resource, count) in requests.iter().chain(limits) {
                if resource.contains('/') {
                    // What is no whole number is more than any node has.
                    own.insert(resource, count.parse().unwrap_or(u32::MAX));
                }
            }
            for (resource, count) in own {
                let sum = wanted.entry(resource).or_default();
                *sum = sum.saturating_add(count);
            }
        }
        wanted.into_iter().all(|(resource, count)| {
            kind.devices
                .as_ref()
                .is_some_and(|(name, has)| name == resource && *has >= count)
        })
    }
}
