//! Objects to put into the double: deployments, pods, and the like, as the real API server would show them.

use serde_json::{Value, json};

/// A Deployment with one container that listens on a port named `http`.
pub fn deployment(namespace: &str, name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "namespace": namespace, "name": name, "labels": { "app": name } },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{
                    "name": "web", "image": "example/web:1",
                    "ports": [{ "name": "metrics", "containerPort": 9100 }, { "name": "http", "containerPort": 8080 }],
                    "readinessProbe": { "httpGet": { "path": "/ready", "port": "http" } },
                }] },
            },
        },
        "status": {
            "observedGeneration": 1, "replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas,
        },
    })
}

/// A pod of a Deployment that has no node yet.
pub fn pod(namespace: &str, deployment: &str, suffix: &str) -> Value {
    let hash = "5d4f8c7b6d";
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": format!("{deployment}-{hash}-{suffix}"),
            "labels": { "app": deployment, "pod-template-hash": hash },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{deployment}-{hash}"),
                "uid": "7d1f0d4e-0000-4000-8000-000000000000", "controller": true,
            }],
        },
        "spec": { "containers": [{
            "name": "web", "image": "example/web:1",
            "ports": [{ "name": "metrics", "containerPort": 9100 }, { "name": "http", "containerPort": 8080 }],
            "readinessProbe": { "httpGet": { "path": "/ready", "port": "http" } },
        }] },
        "status": { "phase": "Pending" },
    })
}

/// The pod on a node, with this address, not ready yet.
#[must_use]
pub fn running(mut pod: Value, address: &str) -> Value {
    pod["spec"]["nodeName"] = json!("node-1");
    pod["status"] = json!({
        "phase": "Running", "podIP": address,
        "conditions": [{ "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": "False" }],
        "containerStatuses": [{
            "name": "web", "ready": false, "restartCount": 0, "image": "example/web:1", "imageID": "",
            "state": { "running": { "startedAt": "2030-01-01T00:00:00Z" } },
        }],
    });
    pod
}

/// The pod as it serves.
#[must_use]
pub fn ready(pod: Value, address: &str) -> Value {
    let mut pod = running(pod, address);
    pod["status"]["conditions"][1]["status"] = json!("True");
    pod["status"]["containerStatuses"][0]["ready"] = json!(true);
    pod
}

/// A Deployment as large as they are in clusters: about 4 KB of JSON with two writers in `managedFields`.
pub fn realistic_deployment(number: u32) -> Value {
    let (namespace, name) = (
        format!("project-{}", number % 200),
        format!("service-{number:06}"),
    );
    let mut object = deployment(&namespace, &name, number % 3);
    let fields = json!({
        "f:metadata": { "f:annotations": { ".": {}, "f:kubectl.kubernetes.io/last-applied-configuration": {} }, "f:labels": { ".": {}, "f:app": {} } },
        "f:spec": {
            "f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:revisionHistoryLimit": {}, "f:selector": {},
            "f:strategy": { "f:rollingUpdate": { ".": {}, "f:maxSurge": {}, "f:maxUnavailable": {} }, "f:type": {} },
            "f:template": { "f:metadata": { "f:labels": { ".": {}, "f:app": {} } }, "f:spec": { "f:containers": {
                "k:{\"name\":\"web\"}": { ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:ports": {
                    ".": {}, "k:{\"containerPort\":8080,\"protocol\":\"TCP\"}": { ".": {}, "f:containerPort": {}, "f:name": {}, "f:protocol": {} } },
                    "f:readinessProbe": { ".": {}, "f:httpGet": { ".": {}, "f:path": {}, "f:port": {} } },
                    "f:resources": { ".": {}, "f:limits": { ".": {}, "f:cpu": {}, "f:memory": {} }, "f:requests": { ".": {}, "f:cpu": {}, "f:memory": {} } } } },
                "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {}, "f:terminationGracePeriodSeconds": {} } },
        },
    });
    let status = json!({ "f:status": {
        "f:availableReplicas": {}, "f:conditions": { ".": {}, "k:{\"type\":\"Available\"}": { ".": {}, "f:lastTransitionTime": {}, "f:lastUpdateTime": {}, "f:message": {}, "f:reason": {}, "f:status": {}, "f:type": {} },
            "k:{\"type\":\"Progressing\"}": { ".": {}, "f:lastTransitionTime": {}, "f:lastUpdateTime": {}, "f:message": {}, "f:reason": {}, "f:status": {}, "f:type": {} } },
        "f:observedGeneration": {}, "f:readyReplicas": {}, "f:replicas": {}, "f:updatedReplicas": {} } });
    object["metadata"]["annotations"] = json!({
        "deployment.kubernetes.io/revision": "3",
        "kubectl.kubernetes.io/last-applied-configuration": object["spec"]["template"].to_string(),
    });
    object["metadata"]["labels"] = json!({
        "app": name, "app.kubernetes.io/name": name, "app.kubernetes.io/part-of": namespace, "team": format!("team-{}", number % 20),
    });
    object["metadata"]["managedFields"] = json!([
        { "manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": "apps/v1", "time": "2029-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields },
        { "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "apps/v1", "time": "2029-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": status, "subresource": "status" },
    ]);
    object["spec"]["template"]["spec"]["nodeSelector"] = json!({ "agentpool": "projecta" });
    object["spec"]["strategy"] = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } });
    object["status"]["conditions"] = json!([
        { "type": "Available", "status": "True", "reason": "MinimumReplicasAvailable", "message": "Deployment has minimum availability.", "lastTransitionTime": "2029-01-01T00:00:00Z", "lastUpdateTime": "2029-01-01T00:00:00Z" },
        { "type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "message": "ReplicaSet has successfully progressed.", "lastTransitionTime": "2029-01-01T00:00:00Z", "lastUpdateTime": "2029-01-01T00:00:00Z" },
    ]);
    object
}
