//! Where lists and watches lead to: workloads, pods and autoscalers into the store.

use std::sync::Arc;

use nagi_core::id::{Name, Namespace, ReplicaName, WorkloadId};
use nagi_core::quantity::Replicas;
use nagi_ports::Clock;

use crate::kind::{Kind, resource_of};
use crate::pods::{self, PodRow};
use crate::reflect::{Listed, Sink};
use crate::store::{From, Store, Within};
use crate::wire::{Pod, Scaler};

/// Workloads of one kind.
#[derive(Debug)]
pub(crate) struct WorkloadSink {
    pub(crate) kind: Arc<Kind>,
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Pods of workloads.
#[derive(Debug)]
pub(crate) struct PodSink {
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What kind of autoscalers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScalerKind {
    /// `HorizontalPodAutoscaler` of Kubernetes.
    Hpa,
    /// `ScaledObject` of KEDA.
    ScaledObject,
}

/// Autoscalers of one kind.
#[derive(Debug)]
pub(crate) struct ScalerSink {
    pub(crate) kind: ScalerKind,
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<dyn Clock>,
}

fn within(namespace: Option<&Namespace>) -> Within<'_> {
    namespace.map_or(Within::Everywhere, Within::Namespace)
}

// === impl WorkloadSink ===

impl Sink for WorkloadSink {
    fn path(&self, namespace: Option<&Namespace>) -> String {
        self.kind.path(namespace)
    }

    fn name(&self) -> String {
        self.kind.resource.to_string()
    }

    fn apply(&self, json: &str, by: Listed) -> Result<(), serde_json::Error> {
        let object = self.kind.parse(json)?;
        self.store
            .apply(&self.kind, &object, From::Watch(by), self.clock.now());
        Ok(())
    }

    fn delete(&self, json: &str) -> Result<(), serde_json::Error> {
        let metadata = self.kind.parse(json)?.metadata;
        if let Some(id) = self.kind.id(&metadata.namespace, &metadata.name) {
            self.store.remove(&id, metadata.version());
        }
        Ok(())
    }

    fn begin_timeline(&self, namespace: Option<&Namespace>) {
        self.store
            .begin_timeline(&self.kind.resource, within(namespace));
    }

    fn complete(&self, namespace: Option<&Namespace>, list: u32, version: u64) {
        self.store
            .sweep(&self.kind.resource, within(namespace), list, version);
    }
}

// === impl PodSink ===

impl Sink for PodSink {
    fn path(&self, namespace: Option<&Namespace>) -> String {
        namespace.map_or_else(
            || "/api/v1/pods".to_owned(),
            |namespace| format!("/api/v1/namespaces/{namespace}/pods"),
        )
    }

    fn name(&self) -> String {
        "pods".to_owned()
    }

    fn apply(&self, json: &str, by: Listed) -> Result<(), serde_json::Error> {
        let pod: Pod = serde_json::from_str(json)?;
        if let Some(id) = pods::owner(&pod)
            && let Some(row) = PodRow::of(&pod)
        {
            self.store.apply_pod(&id, row, by, self.clock.now());
        }
        Ok(())
    }

    fn delete(&self, json: &str) -> Result<(), serde_json::Error> {
        let pod: Pod = serde_json::from_str(json)?;
        if let Some(id) = pods::owner(&pod)
            && let Ok(name) = ReplicaName::new(&*pod.metadata.name)
        {
            let version = pod.metadata.version();
            self.store.remove_pod(&id, &name, version, self.clock.now());
        }
        Ok(())
    }

    fn begin_timeline(&self, namespace: Option<&Namespace>) {
        self.store.forget_pod_versions(within(namespace));
    }

    fn complete(&self, namespace: Option<&Namespace>, list: u32, _version: u64) {
        self.store
            .sweep_pods(within(namespace), list, self.clock.now());
    }
}

// === impl ScalerSink ===

impl ScalerKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Hpa => "HorizontalPodAutoscaler",
            Self::ScaledObject => "ScaledObject",
        }
    }

    /// What it aims at, and the least count that it goes to while there is work.
    fn target(self, scaler: &Scaler) -> Option<(WorkloadId, Replicas)> {
        let target = &scaler.spec.scale_target_ref;
        let (kind, minimum) = match self {
            Self::Hpa => (
                target.kind.as_deref()?,
                scaler.spec.min_replicas.unwrap_or(1),
            ),
            Self::ScaledObject => (
                target.kind.as_deref().unwrap_or("Deployment"),
                scaler.spec.min_replica_count.unwrap_or(0),
            ),
        };
        let group = target.api_version.as_deref().unwrap_or("apps/v1");
        let group = group.split_once('/').map_or("", |(group, _)| group);
        let id = WorkloadId {
            resource: resource_of(group, kind)?,
            namespace: Namespace::new(&*scaler.metadata.namespace).ok()?,
            name: Name::new(&*target.name).ok()?,
        };
        let minimum = u32::try_from(minimum.max(0)).unwrap_or(u32::MAX);
        Some((id, Replicas(minimum)))
    }
}

impl ScalerSink {
    fn named(&self, name: &str) -> String {
        format!("{}/{name}", self.kind.name())
    }
}

impl Sink for ScalerSink {
    fn path(&self, namespace: Option<&Namespace>) -> String {
        let (group, plural) = match self.kind {
            ScalerKind::Hpa => ("autoscaling/v2", "horizontalpodautoscalers"),
            ScalerKind::ScaledObject => ("keda.sh/v1alpha1", "scaledobjects"),
        };
        namespace.map_or_else(
            || format!("/apis/{group}/{plural}"),
            |namespace| format!("/apis/{group}/namespaces/{namespace}/{plural}"),
        )
    }

    fn name(&self) -> String {
        self.kind.name().to_owned()
    }

    fn apply(&self, json: &str, by: Listed) -> Result<(), serde_json::Error> {
        let scaler: Scaler = serde_json::from_str(json)?;
        let name = self.named(&scaler.metadata.name);
        if let Some((id, minimum)) = self.kind.target(&scaler) {
            self.store
                .apply_scaler(&id, &name, minimum, by.number, self.clock.now());
        }
        Ok(())
    }

    fn delete(&self, json: &str) -> Result<(), serde_json::Error> {
        let scaler: Scaler = serde_json::from_str(json)?;
        if let Ok(namespace) = Namespace::new(&*scaler.metadata.namespace) {
            let name = self.named(&scaler.metadata.name);
            self.store
                .remove_scaler(&namespace, &name, self.clock.now());
        }
        Ok(())
    }

    /// Of autoscalers none is kept.
    fn begin_timeline(&self, _namespace: Option<&Namespace>) {}

    fn complete(&self, namespace: Option<&Namespace>, list: u32, _version: u64) {
        let now = self.clock.now();
        self.store
            .sweep_scalers(self.kind.name(), within(namespace), list, now);
    }
}
