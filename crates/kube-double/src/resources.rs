//! The resources that the double serves: built-in ones, and those that a `CustomResourceDefinition` brought.

use std::collections::BTreeMap;

use serde_json::Value;

/// Group and version; the group of the core API is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupVersion {
    pub(crate) group: String,
    pub(crate) version: String,
}

/// Group and plural: what objects are stored under, whatever version they are asked for in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) plural: String,
}

/// What is known of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) kind: String,
    pub(crate) versions: Vec<String>,
    /// Pointer to the wanted count of the `scale` subresource, and to the observed one.
    pub(crate) scale: Option<(String, String)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Resources(BTreeMap<Resource, Description>);

/// Group, version, plural, kind, has a `scale` subresource.
const BUILT_IN: [(&str, &str, &str, &str, bool); 17] = [
    ("", "v1", "pods", "Pod", false),
    ("", "v1", "nodes", "Node", false),
    ("", "v1", "namespaces", "Namespace", false),
    ("", "v1", "services", "Service", false),
    ("", "v1", "serviceaccounts", "ServiceAccount", false),
    ("", "v1", "events", "Event", false),
    (
        "",
        "v1",
        "replicationcontrollers",
        "ReplicationController",
        true,
    ),
    ("apps", "v1", "deployments", "Deployment", true),
    ("apps", "v1", "statefulsets", "StatefulSet", true),
    ("apps", "v1", "replicasets", "ReplicaSet", true),
    (
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        false,
    ),
    ("coordination.k8s.io", "v1", "leases", "Lease", false),
    ("events.k8s.io", "v1", "events", "Event", false),
    (
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        false,
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "validatingadmissionpolicies",
        "ValidatingAdmissionPolicy",
        false,
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
        false,
    ),
    (
        "policy",
        "v1",
        "poddisruptionbudgets",
        "PodDisruptionBudget",
        false,
    ),
];

// === impl GroupVersion ===

impl GroupVersion {
    pub(crate) fn new(group: &str, version: &str) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
        }
    }

    /// As it stands in `apiVersion`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Reads an `apiVersion`.
    pub(crate) fn of_object(object: &Value) -> Self {
        let text = object["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = text.split_once('/').unwrap_or(("", text));
        Self::new(group, version)
    }
}

// === impl Resources ===

impl Resources {
    pub(crate) fn built_in() -> Self {
        let describe = |(group, version, plural, kind, scales): (&str, &str, &str, &str, bool)| {
            let resource = Resource {
                group: group.to_owned(),
                plural: plural.to_owned(),
            };
            let scale =
                scales.then(|| ("/spec/replicas".to_owned(), "/status/replicas".to_owned()));
            let description = Description {
                kind: kind.to_owned(),
                versions: vec![version.to_owned()],
                scale,
            };
            (resource, description)
        };
        Self(BUILT_IN.map(describe).into())
    }

    /// The resource behind a path, if it is served.
    pub(crate) fn find(
        &self,
        group_version: &GroupVersion,
        plural: &str,
    ) -> Option<(Resource, &Description)> {
        let resource = Resource {
            group: group_version.group.clone(),
            plural: plural.to_owned(),
        };
        let description = self.0.get(&resource)?;
        let served = description.versions.contains(&group_version.version);
        served.then_some((resource, description))
    }

    /// The resource of an object, by its kind.
    pub(crate) fn of_object(&self, object: &Value) -> Option<(Resource, &Description)> {
        let group = GroupVersion::of_object(object).group;
        let kind = object["kind"].as_str()?;
        let (resource, description) = self
            .0
            .iter()
            .find(|(resource, known)| resource.group == group && known.kind == kind)?;
        Some((resource.clone(), description))
    }

    /// Serves what a `CustomResourceDefinition` describes.
    pub(crate) fn define(&mut self, definition: &Value) {
        let spec = &definition["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let versions = spec["versions"].as_array().cloned().unwrap_or_default();
        let pointer = |path: &Value| text(path).replace('.', "/");
        let scale = versions.iter().find_map(|version| {
            let scale = version.pointer("/subresources/scale")?;
            Some((
                pointer(&scale["specReplicasPath"]),
                pointer(&scale["statusReplicasPath"]),
            ))
        });
        let resource = Resource {
            group: text(&spec["group"]),
            plural: text(&spec["names"]["plural"]),
        };
        let description = Description {
            kind: text(&spec["names"]["kind"]),
            versions: versions
                .iter()
                .filter(|version| version["served"] != false)
                .map(|version| text(&version["name"]))
                .collect(),
            scale,
        };
        self.0.insert(resource, description);
    }

    /// Groups with their versions, for discovery.
    pub(crate) fn of_version(
        &self,
        group_version: &GroupVersion,
    ) -> impl Iterator<Item = (&Resource, &Description)> {
        self.0.iter().filter(|(resource, description)| {
            resource.group == group_version.group
                && description.versions.contains(&group_version.version)
        })
    }
}
