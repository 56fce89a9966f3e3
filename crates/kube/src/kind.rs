//! Kinds of workloads: where they are served, and where their counts lie.

use nagi_core::id::{Name, Namespace, Resource, WorkloadId};
use serde_json::Value;

use crate::wire::{self, Scaled};

/// One kind of workloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    /// As Nagi names it: `deployments`, or `plural.group`.
    pub(crate) resource: Resource,
    pub(crate) group: Box<str>,
    pub(crate) version: Box<str>,
    pub(crate) plural: Box<str>,
    /// `Deployment`.
    pub(crate) name: Box<str>,
    pub(crate) counts: Counts,
}

/// Where the counts lie in an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Counts {
    /// Where `apps/v1` has them.
    Apps,
    /// Where the CRD says: JSON pointers.
    Paths {
        wanted: Box<str>,
        observed: Box<str>,
    },
}

/// Group and plural of a kind, as roles name them. What has no group in its name is one of the built-in kinds.
pub(crate) fn group_and_plural(resource: &Resource) -> (&str, &str) {
    match resource.as_str().split_once('.') {
        Some((plural, group)) => (group, plural),
        None => ("apps", resource.as_str()),
    }
}

impl Kind {
    /// The built-in kinds.
    pub(crate) fn built_in() -> [Self; 3] {
        let apps = |plural: &str, name: &str| Self {
            resource: Resource::new(plural).expect("a constant that is a name"),
            group: "apps".into(),
            version: "v1".into(),
            plural: plural.into(),
            name: name.into(),
            counts: Counts::Apps,
        };
        [
            apps("deployments", "Deployment"),
            apps("statefulsets", "StatefulSet"),
            apps("replicasets", "ReplicaSet"),
        ]
    }

    /// As `apiVersion`.
    pub(crate) fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    /// The path of all objects, or of those of a namespace.
    pub(crate) fn path(&self, namespace: Option<&Namespace>) -> String {
        let (group, version, plural) = (&self.group, &self.version, &self.plural);
        match namespace {
            None => format!("/apis/{group}/{version}/{plural}"),
            Some(namespace) => format!("/apis/{group}/{version}/namespaces/{namespace}/{plural}"),
        }
    }

    /// The path of one object.
    pub(crate) fn object_path(&self, id: &WorkloadId) -> String {
        format!("{}/{}", self.path(Some(&id.namespace)), id.name)
    }

    /// The same object of this kind.
    pub(crate) fn id(&self, namespace: &str, name: &str) -> Option<WorkloadId> {
        Some(WorkloadId {
            resource: self.resource.clone(),
            namespace: Namespace::new(namespace).ok()?,
            name: Name::new(name).ok()?,
        })
    }

    /// Reads an object of this kind.
    pub(crate) fn parse(&self, json: &str) -> Result<Scaled, serde_json::Error> {
        let Counts::Paths { wanted, observed } = &self.counts else {
            return serde_json::from_str(json);
        };
        let object: Value = serde_json::from_str(json)?;
        let count = |pointer: &str| {
            let count = object.pointer(pointer).and_then(Value::as_u64);
            count.map(|count| u32::try_from(count).unwrap_or(u32::MAX))
        };
        let bare: wire::Bare = serde_json::from_str(json)?;
        Ok(Scaled {
            metadata: bare.metadata,
            spec: wire::ScaledSpec {
                // A kind of its own need not write its default into the object.
                replicas: Some(count(wanted).unwrap_or(0)),
                template: wire::Template::default(),
            },
            status: wire::ScaledStatus {
                replicas: count(observed),
                // No path for it is stated anywhere; most kinds have it here.
                available_replicas: count("/status/availableReplicas")
                    .or_else(|| count("/status/readyReplicas")),
                conditions: Vec::new(),
            },
        })
    }

    /// The merge patch that sets the wanted count.
    pub(crate) fn count_patch(&self, count: u32) -> Value {
        let pointer = match &self.counts {
            Counts::Apps => "/spec/replicas",
            Counts::Paths { wanted, .. } => wanted,
        };
        let mut patch = Value::from(count);
        for part in pointer.rsplit('/').filter(|part| !part.is_empty()) {
            patch = serde_json::json!({ part: patch });
        }
        patch
    }
}
