//! Workloads that a test adds: pods of the first sample's image under another name, of any kind.

use nagi_e2e::call::Call;
use serde_json::{Value, json};

use crate::installed::Installed;

/// A workload in the namespace of the first sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) kind: &'static str,
    pub(crate) name: &'static str,
    /// Whose nodes its pods need.
    pub(crate) project: &'static str,
}

// === impl Workload ===

impl Workload {
    /// Makes it, with this many pods wanted.
    pub(crate) fn apply(&self, installed: &Installed, replicas: u32) -> anyhow::Result<()> {
        let call: Call = installed.bash("kubectl apply --filename=-")?;
        call.input(self.object(replicas).to_string()).succeed()
    }

    /// Deletes it, with its pods.
    pub(crate) fn delete(&self, installed: &Installed) -> anyhow::Result<()> {
        installed.succeed(&format!(
            "kubectl delete {} {} -n project-a --ignore-not-found",
            self.kind, self.name
        ))
    }

    /// `deployments`.
    pub(crate) fn resource(&self) -> String {
        format!("{}s", self.kind.to_lowercase())
    }

    fn object(&self, replicas: u32) -> Value {
        let labels = json!({"app.kubernetes.io/name": self.name});
        // The one kind that is older than groups and than selectors by sets.
        let (api_version, selector) = match self.kind {
            "ReplicationController" => ("v1", labels.clone()),
            _ => ("apps/v1", json!({"matchLabels": labels})),
        };
        json!({
            "apiVersion": api_version,
            "kind": self.kind,
            "metadata": {
                "name": self.name,
                "namespace": "project-a",
                "annotations": {"nagi.dev/awake-replicas": "1"},
            },
            "spec": {
                "replicas": replicas,
                "selector": selector,
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "nodeSelector": {"project": self.project},
                        "terminationGracePeriodSeconds": 1,
                        "containers": [{
                            "name": "app",
                            "image": concat!("sample-app-a:", env!("CARGO_PKG_VERSION")),
                            "ports": [{"name": "http", "containerPort": 8080}],
                            "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1},
                        }],
                    },
                },
            },
        })
    }
}
