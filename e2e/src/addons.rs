//! What a cluster runs for itself: CoreDNS and metrics-server, as Deployments from images of our own.

use serde_json::{Value, json};

use crate::control_plane::Kubectl;
use crate::image::{COREDNS, METRICS_SERVER};
use crate::node::{DNS_SERVICE, DOMAIN};

/// Where both live.
const NAMESPACE: &str = "kube-system";

/// Creates or updates both; it does not wait for their pods.
pub(crate) fn apply(kubectl: &Kubectl) -> anyhow::Result<()> {
    let mut items = coredns();
    items.extend(metrics_server());
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    kubectl
        .call()
        .arguments(["apply", "--server-side", "--filename=-"])
        .input(list.to_string())
        .succeed()
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": NAMESPACE, "labels": {"k8s-app": name}})
}

fn service_account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(name)})
}

fn cluster_role(name: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules,
    })
}

/// Binds a role to the account of an add-on.
fn binding(name: &str, kind: &str, role_kind: &str, role: &str, account: &str) -> Value {
    let mut metadata = json!({"name": name});
    if kind == "RoleBinding" {
        metadata["namespace"] = json!(NAMESPACE);
    }
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}],
    })
}

/// A Deployment of one pod on the node that is always there.
fn deployment(name: &str, container: &Value, volumes: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(name),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"k8s-app": name}},
            "template": {
                "metadata": {"labels": {"k8s-app": name}},
                "spec": {
                    "serviceAccountName": name,
                    "priorityClassName": "system-cluster-critical",
                    "nodeSelector": {"agentpool": "system"},
                    "dnsPolicy": "Default",
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    })
}

fn coredns() -> Vec<Value> {
    let name = "coredns";
    // No `forward`: there is nothing outside that could be asked.
    let corefile = format!(
        ".:53 {{\n    errors\n    health\n    ready\n    kubernetes {DOMAIN} in-addr.arpa {{\n        pods insecure\n    }}\n    \
         cache 5\n    reload\n}}\n"
    );
    let container = json!({
        "name": name,
        "image": COREDNS,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "initialDelaySeconds": 30},
        "resources": {"requests": {"cpu": "50m", "memory": "50Mi"}},
        "securityContext": {
            "runAsUser": 0,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            "readOnlyRootFilesystem": true,
        },
        "volumeMounts": [{"name": "configuration", "mountPath": "/etc/coredns", "readOnly": true}],
    });
    vec![
        service_account(name),
        cluster_role(
            "system:coredns",
            &json!([
                {
                    "apiGroups": [""],
                    "resources": ["endpoints", "services", "pods", "namespaces"],
                    "verbs": ["list", "watch"],
                },
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": ["list", "watch"],
                },
            ]),
        ),
        binding(
            "system:coredns",
            "ClusterRoleBinding",
            "ClusterRole",
            "system:coredns",
            name,
        ),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(name),
            "data": {"Corefile": corefile},
        }),
        deployment(
            name,
            &container,
            &json!([{"name": "configuration", "configMap": {"name": name}}]),
        ),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            // The name by which everybody knows it, also where another program answers.
            "metadata": {"name": "kube-dns", "namespace": NAMESPACE, "labels": {"k8s-app": name}},
            "spec": {
                "clusterIP": DNS_SERVICE,
                "selector": {"k8s-app": name},
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                ],
            },
        }),
    ]
}

fn metrics_server() -> Vec<Value> {
    let name = "metrics-server";
    let container = json!({
        "name": name,
        "image": METRICS_SERVER,
        "imagePullPolicy": "Never",
        "args": [
            "--secure-port=10250",
            "--cert-dir=/tmp",
            // The kubelets sign their own certificates.
            "--kubelet-insecure-tls",
            "--kubelet-preferred-address-types=InternalIP",
            // It accepts nothing shorter.
            "--metric-resolution=15s",
        ],
        "ports": [{"name": "https", "containerPort": 10250}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "https", "scheme": "HTTPS"}, "periodSeconds": 5},
        "resources": {"requests": {"cpu": "50m", "memory": "60Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": 1000,
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    });
    vec![
        service_account(name),
        cluster_role(
            "system:metrics-server",
            &json!([
                {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
            ]),
        ),
        binding(
            "system:metrics-server",
            "ClusterRoleBinding",
            "ClusterRole",
            "system:metrics-server",
            name,
        ),
        binding(
            "metrics-server:system:auth-delegator",
            "ClusterRoleBinding",
            "ClusterRole",
            "system:auth-delegator",
            name,
        ),
        binding(
            "metrics-server-auth-reader",
            "RoleBinding",
            "Role",
            "extension-apiserver-authentication-reader",
            name,
        ),
        deployment(name, &container, &json!([{"name": "tmp", "emptyDir": {}}])),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(name),
            "spec": {
                "selector": {"k8s-app": name},
                "ports": [{"name": "https", "port": 443, "targetPort": "https"}],
            },
        }),
        json!({
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": true,
                "service": {"name": name, "namespace": NAMESPACE},
            },
        }),
    ]
}
