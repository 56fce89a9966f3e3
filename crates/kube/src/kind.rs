//! Kinds of workloads: where they are served, and where their counts lie.

use nagi_core::id::{Name, Namespace, Resource, WorkloadId};
use serde_json::Value;

use crate::wire::{self, Scaled};

/// The one built-in kind outside `apps`: it is older than groups.
const REPLICATION_CONTROLLERS: &str = "replicationcontrollers";

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
    /// Where the built-in kinds have them: `spec.replicas` and `status`.
    BuiltIn,
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
        None if resource.as_str() == REPLICATION_CONTROLLERS => ("", REPLICATION_CONTROLLERS),
        None => ("apps", resource.as_str()),
    }
}

/// A kind as Nagi names it, from its group and its name; `None` when there can be none of that name. Its plural is not part
/// of what owners and autoscalers say. By convention it is this one, and of a kind that has another one its definition tells:
/// see `Store::rename`.
pub(crate) fn resource_of(group: &str, kind: &str) -> Option<Resource> {
    let plural = format!("{}s", kind.to_lowercase());
    let built_in = Resource::BUILT_IN.contains(&plural.as_str());
    match Resource::new(&plural) {
        Ok(known) if built_in && group_and_plural(&known).0 == group => Some(known),
        Ok(_) | Err(_) => Resource::new(format!("{plural}.{group}")).ok(),
    }
}

impl Kind {
    /// The built-in kinds.
    pub(crate) fn built_in() -> [Self; 4] {
        Resource::BUILT_IN.map(|name| {
            let resource = Resource::new(name).expect("a constant that is a name");
            let (group, plural) = group_and_plural(&resource);
            Self {
                group: group.into(),
                version: "v1".into(),
                plural: plural.into(),
                name: resource.kind().into(),
                counts: Counts::BuiltIn,
                resource,
            }
        })
    }

    /// What it would be called by convention, when its definition gives it another plural.
    pub(crate) fn by_convention(&self) -> Option<Resource> {
        resource_of(&self.group, &self.name).filter(|usual| *usual != self.resource)
    }

    /// It is no kind that the cluster brings along.
    pub(crate) fn is_built_in(&self) -> bool {
        self.counts == Counts::BuiltIn
    }

    /// As `apiVersion`.
    pub(crate) fn api_version(&self) -> String {
        match &*self.group {
            "" => self.version.to_string(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// What its objects have whose pods are the business of somebody above: a Deployment makes its `ReplicaSets`, a
    /// `DeploymentConfig` of `OpenShift` its `ReplicationControllers`.
    pub(crate) fn may_be_owned(&self) -> bool {
        ["replicasets", REPLICATION_CONTROLLERS].contains(&self.resource.as_str())
    }

    /// The path of all objects, or of those of a namespace.
    pub(crate) fn path(&self, namespace: Option<&Namespace>) -> String {
        let (version, plural) = (&self.version, &self.plural);
        let root = match &*self.group {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        match namespace {
            None => format!("{root}/{plural}"),
            Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
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
                // A kind of its own need not write its default into the object. Unknown is not zero: it is what runs, and
                // the one replica that controllers take for no count.
                replicas: count(wanted).or_else(|| count(observed).max(Some(1))),
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

    /// Where the wanted count lies, as a JSON pointer.
    fn pointer(&self) -> &str {
        match &self.counts {
            Counts::BuiltIn => "/spec/replicas",
            Counts::Paths { wanted, .. } => wanted,
        }
    }

    /// The count that an object states; `None` when it states none.
    pub(crate) fn stated(&self, object: &[u8]) -> Option<u64> {
        let object: Value = serde_json::from_slice(object).ok()?;
        object.pointer(self.pointer())?.as_u64()
    }

    /// The merge patch that sets the wanted count.
    pub(crate) fn count_patch(&self, count: u32) -> Value {
        let pointer = self.pointer();
        let mut patch = Value::from(count);
        for part in pointer.rsplit('/').filter(|part| !part.is_empty()) {
            patch = serde_json::json!({ part: patch });
        }
        patch
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kind_is_named_by_its_group_unless_it_is_built_in_there() {
        let named = |group: &str, kind: &str| resource_of(group, kind).map(|it| it.to_string());
        for (group, kind, name) in [
            ("apps", "Deployment", Some("deployments")),
            ("", "ReplicationController", Some("replicationcontrollers")),
            ("", "Deployment", None),
            (
                "apps",
                "ReplicationController",
                Some("replicationcontrollers.apps"),
            ),
            ("example.com", "Runner", Some("runners.example.com")),
        ] {
            assert_eq!(named(group, kind).as_deref(), name, "{group}/{kind}");
        }
    }

    // Unknown is not zero: an object without a count is not asleep.
    #[test]
    fn a_count_that_is_not_stated_is_what_runs_and_one_at_least() {
        let kind = Kind {
            resource: Resource::new("runners.example.com").unwrap(),
            group: "example.com".into(),
            version: "v1".into(),
            plural: "runners".into(),
            name: "Runner".into(),
            counts: Counts::Paths {
                wanted: "/spec/size".into(),
                observed: "/status/size".into(),
            },
        };
        for (spec, status, expected) in [
            (json!({ "size": 3 }), json!({ "size": 1 }), 3),
            (json!({ "size": 0 }), json!({ "size": 1 }), 0),
            (json!({}), json!({ "size": 2 }), 2),
            (json!({}), json!({ "size": 0 }), 1),
            (json!({}), json!({}), 1),
        ] {
            let object = json!({
                "metadata": { "name": "a", "namespace": "b", "uid": "u", "resourceVersion": "1" },
                "spec": spec, "status": status,
            });
            let scaled = kind.parse(&object.to_string()).unwrap();
            assert_eq!(scaled.spec.replicas, Some(expected), "{object}");
        }
    }
}
