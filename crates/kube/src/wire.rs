//! Objects of the API as far as Nagi reads them: own slim types, so that an object costs what is used of it.
//!
//! A Deployment of 4 KB with `managedFields` would be ten times that as a full type; here everything that is not named is
//! skipped while it is parsed, annotations of others included.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::names::PREFIX;

/// Metadata of any object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    pub(crate) name: Box<str>,
    pub(crate) namespace: Box<str>,
    pub(crate) uid: Box<str>,
    pub(crate) resource_version: Box<str>,
    /// RFC 3339 in UTC, which compares as text.
    pub(crate) creation_timestamp: Box<str>,
    pub(crate) labels: Labels,
    pub(crate) annotations: Annotations,
    pub(crate) owner_references: Vec<Owner>,
    #[serde(deserialize_with = "is_there")]
    pub(crate) deletion_timestamp: bool,
}

/// A reference to an owner.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Owner {
    pub(crate) api_version: Box<str>,
    pub(crate) kind: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) controller: Option<bool>,
}

/// Labels in one allocation: names and values in turn, each ended by U+0000, which neither can hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Labels(Box<str>);

/// The annotations of ours; all others are skipped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Annotations(pub(crate) BTreeMap<Box<str>, Box<str>>);

/// A workload of a built-in kind.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Scaled {
    pub(crate) metadata: Meta,
    pub(crate) spec: ScaledSpec,
    pub(crate) status: ScaledStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ScaledSpec {
    pub(crate) replicas: Option<u32>,
    pub(crate) template: Template,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Template {
    pub(crate) spec: TemplateSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct TemplateSpec {
    pub(crate) node_selector: BTreeMap<Box<str>, Box<str>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ScaledStatus {
    pub(crate) replicas: Option<u32>,
    pub(crate) available_replicas: Option<u32>,
    pub(crate) conditions: Vec<Condition>,
}

/// A condition of any object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: Box<str>,
    pub(crate) status: Box<str>,
    pub(crate) reason: Option<Box<str>>,
    pub(crate) message: Option<Box<str>>,
}

/// A pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    pub(crate) metadata: Meta,
    pub(crate) spec: PodSpec,
    pub(crate) status: PodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodSpec {
    pub(crate) node_name: Option<Box<str>>,
    pub(crate) node_selector: Labels,
    pub(crate) containers: Vec<Container>,
    pub(crate) init_containers: Vec<Container>,
    pub(crate) readiness_gates: Vec<IgnoredAny>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Container {
    pub(crate) name: Box<str>,
    pub(crate) ports: Vec<ContainerPort>,
    pub(crate) resources: Resources,
    pub(crate) readiness_probe: Option<Probe>,
    pub(crate) startup_probe: Option<Probe>,
    /// `Always` makes an init container one that goes on beside the others.
    pub(crate) restart_policy: Option<Box<str>>,
}

/// What a container asks of its node. Devices are always in the limits.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Resources {
    pub(crate) limits: Labels,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContainerPort {
    pub(crate) name: Option<Box<str>>,
    #[serde(rename = "containerPort")]
    pub(crate) number: u16,
    /// TCP when it is not stated.
    pub(crate) protocol: Option<Box<str>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Probe {
    pub(crate) http_get: Option<HttpGet>,
    pub(crate) tcp_socket: Option<TcpSocket>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct HttpGet {
    pub(crate) path: Option<Box<str>>,
    pub(crate) port: PortRef,
    pub(crate) scheme: Option<Box<str>>,
    pub(crate) host: Option<Box<str>>,
    pub(crate) http_headers: Vec<IgnoredAny>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TcpSocket {
    pub(crate) port: PortRef,
    pub(crate) host: Option<Box<str>>,
}

/// A port by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum PortRef {
    Number(u16),
    Name(Box<str>),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodStatus {
    pub(crate) phase: Option<Box<str>>,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: Option<Box<str>>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) container_statuses: Vec<ContainerStatus>,
    pub(crate) init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContainerStatus {
    pub(crate) name: Box<str>,
    pub(crate) image: Box<str>,
    pub(crate) restart_count: u32,
    pub(crate) state: ContainerState,
    pub(crate) last_state: ContainerState,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerState {
    pub(crate) waiting: Option<Waiting>,
    pub(crate) running: Option<IgnoredAny>,
    pub(crate) terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Waiting {
    pub(crate) reason: Option<Box<str>>,
    pub(crate) message: Option<Box<str>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Terminated {
    pub(crate) exit_code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: Option<Box<str>>,
}

/// An autoscaler: a `HorizontalPodAutoscaler`, or a `ScaledObject` of KEDA.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Scaler {
    pub(crate) metadata: Meta,
    pub(crate) spec: ScalerSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ScalerSpec {
    pub(crate) scale_target_ref: ScaleTarget,
    pub(crate) min_replicas: Option<i64>,
    /// The definition of a `ScaledObject` allows any number.
    pub(crate) min_replica_count: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ScaleTarget {
    pub(crate) api_version: Option<Box<str>>,
    pub(crate) kind: Option<Box<str>>,
    pub(crate) name: Box<str>,
}

/// A page of a list; the items stay text until their kind is known.
#[derive(Debug, Deserialize)]
pub(crate) struct List<'a> {
    #[serde(default)]
    pub(crate) metadata: ListMeta,
    #[serde(borrow, default, deserialize_with = "items")]
    pub(crate) items: Vec<&'a RawValue>,
}

/// A list of metadata without any says `null`.
fn items<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'de RawValue>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ListMeta {
    pub(crate) resource_version: Box<str>,
    #[serde(rename = "continue")]
    pub(crate) next: Option<String>,
}

/// A line of a watch.
#[derive(Debug, Deserialize)]
pub(crate) struct WatchLine<'a> {
    #[serde(rename = "type", borrow)]
    pub(crate) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) object: &'a RawValue,
}

/// The body of a refusal, and the object of an `ERROR` line.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) code: u16,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
}

/// Only the metadata of an object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Bare {
    pub(crate) metadata: Meta,
}

// === impl Meta ===

impl Meta {
    /// The version as a number; the API server promises that versions are (KEP-5504).
    pub(crate) fn version(&self) -> u64 {
        self.resource_version.parse().unwrap_or(0)
    }

    /// The one owner that controls it.
    pub(crate) fn controller(&self) -> Option<&Owner> {
        let mut owners = self.owner_references.iter();
        owners.find(|owner| owner.controller == Some(true))
    }
}

// === impl Labels ===

impl Labels {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.0.split_terminator('\0');
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.iter();
        pairs
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LabelsVisitor)
    }
}

struct LabelsVisitor;

impl<'de> Visitor<'de> for LabelsVisitor {
    type Value = Labels;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("labels")
    }

    fn visit_unit<E>(self) -> Result<Labels, E> {
        Ok(Labels::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
        let mut text = String::new();
        while let Some((name, value)) = map.next_entry::<Cow<'de, str>, Cow<'de, str>>()? {
            text.push_str(&name);
            text.push('\0');
            text.push_str(&value);
            text.push('\0');
        }
        Ok(Labels(text.into_boxed_str()))
    }
}

// === impl Annotations ===

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnnotationsVisitor)
    }
}

struct AnnotationsVisitor;

impl<'de> Visitor<'de> for AnnotationsVisitor {
    type Value = Annotations;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("annotations")
    }

    fn visit_unit<E>(self) -> Result<Annotations, E> {
        Ok(Annotations::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
        let mut ours = BTreeMap::new();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name.starts_with(PREFIX) {
                ours.insert(name.into(), map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Annotations(ours))
    }
}

// === impl PortRef ===

impl Default for PortRef {
    fn default() -> Self {
        Self::Number(0)
    }
}

/// True for any value but `null`.
fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<IgnoredAny>::deserialize(deserializer)?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_used_of_an_object_is_kept() {
        let json = r#"{
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {
                "name": "a", "namespace": "p", "uid": "u", "resourceVersion": "42",
                "labels": { "app": "a", "empty": "" },
                "annotations": { "nagi.dev/replicas": "2", "other/x": "y" },
                "managedFields": [{ "manager": "kubectl" }],
                "deletionTimestamp": "2030-01-01T00:00:00Z"
            },
            "spec": { "replicas": 0, "template": { "spec": { "nodeSelector": { "project": "b" }, "containers": [] } } },
            "status": { "replicas": 1, "conditions": null }
        }"#;
        // `null` where a list is usual comes from Go, and is an empty list.
        let object: Scaled = serde_json::from_str(&json.replace("null", "[]")).unwrap();
        assert_eq!(object.metadata.version(), 42);
        assert!(object.metadata.deletion_timestamp);
        let labels: Vec<_> = object.metadata.labels.iter().collect();
        assert_eq!(labels, [("app", "a"), ("empty", "")]);
        assert_eq!(object.metadata.labels.get("app"), Some("a"));
        assert_eq!(object.metadata.annotations.0.len(), 1);
        assert_eq!(object.spec.replicas, Some(0));
        assert_eq!(object.status.replicas, Some(1));
    }
}
