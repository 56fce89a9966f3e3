//! Pods as API servers tell of them, and what is made of that.

use serde_json::{Value, json};

use super::*;

fn pod(change: impl FnOnce(&mut Value)) -> Pod {
    let mut object = json!({
        "metadata": {
            "name": "web-5d4f-x", "namespace": "project-a", "uid": "u", "resourceVersion": "7",
            "labels": { "pod-template-hash": "5d4f" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "controller": true }],
        },
        "spec": { "nodeName": "n", "containers": [{
            "name": "c", "ports": [{ "name": "metrics", "containerPort": 9100 }, { "name": "http", "containerPort": 8080 }],
        }] },
        "status": { "phase": "Running", "podIP": "10.1.2.3", "containerStatuses": [{
            "name": "c", "image": "i", "restartCount": 2, "state": { "running": {} },
        }] },
    });
    change(&mut object);
    serde_json::from_value(object).unwrap()
}

fn row(change: impl FnOnce(&mut Value)) -> PodRow {
    PodRow::of(&pod(change)).unwrap()
}

#[test]
fn a_pod_belongs_to_the_deployment_of_its_replica_set() {
    let id = |pod: &Pod| owner(pod).map(|id| format!("{} {id}", id.resource));
    assert_eq!(
        id(&pod(|_| {})).as_deref(),
        Some("deployments project-a/web")
    );
    let alone = pod(|p| p["metadata"]["labels"] = json!({}));
    assert_eq!(
        id(&alone).as_deref(),
        Some("replicasets project-a/web-5d4f")
    );
    let other = |api: &str, kind: &str| {
        pod(|p| {
            p["metadata"]["ownerReferences"][0]["apiVersion"] = json!(api);
            p["metadata"]["ownerReferences"][0]["kind"] = json!(kind);
        })
    };
    assert_eq!(
        id(&other("apps/v1", "StatefulSet")).as_deref(),
        Some("statefulsets project-a/web-5d4f")
    );
    assert_eq!(
        id(&other("v1", "ReplicationController")).as_deref(),
        Some("replicationcontrollers project-a/web-5d4f")
    );
    assert_eq!(
        id(&other("example.com/v1", "Runner")).as_deref(),
        Some("runners.example.com project-a/web-5d4f")
    );
    assert_eq!(id(&other("apps/v1", "DaemonSet")), None);
    assert_eq!(id(&other("batch/v1", "Job")), None);
    assert_eq!(
        id(&pod(|p| p["metadata"]["ownerReferences"] = json!([]))),
        None
    );
}

#[test]
fn traffic_goes_to_the_port_named_http_else_to_the_first() {
    let address = |row: &PodRow| row.replica.address.map(|address| address.to_string());
    assert_eq!(address(&row(|_| {})).as_deref(), Some("10.1.2.3:8080"));
    let unnamed = row(|p| p["spec"]["containers"][0]["ports"][1]["name"] = json!("web"));
    assert_eq!(address(&unnamed).as_deref(), Some("10.1.2.3:9100"));
    assert_eq!(
        address(&row(|p| p["spec"]["containers"][0]["ports"] = json!([]))),
        None
    );
    assert_eq!(address(&row(|p| p["status"]["podIP"] = json!(null))), None);
}

#[test]
fn readiness_follows_the_probe_of_the_served_port() {
    let with = |probe: Value| {
        row(|p| p["spec"]["containers"][0]["readinessProbe"] = probe)
            .replica
            .readiness
    };
    let http = |path: &str| Readiness::Http { path: path.into() };
    assert_eq!(row(|_| {}).replica.readiness, Readiness::Tcp);
    assert_eq!(
        with(json!({ "httpGet": { "path": "/r", "port": "http" } })),
        http("/r")
    );
    assert_eq!(
        with(json!({ "httpGet": { "path": "r", "port": 8080 } })),
        http("/r")
    );
    assert_eq!(
        with(json!({ "tcpSocket": { "port": 8080 } })),
        Readiness::Tcp
    );
    for left_to_kubelet in [
        json!({ "httpGet": { "path": "/r", "port": "metrics" } }),
        json!({ "httpGet": { "path": "/r", "port": "http", "scheme": "HTTPS" } }),
        json!({ "httpGet": { "path": "/r", "port": "http", "httpHeaders": [{ "name": "Host", "value": "x" }] } }),
        json!({ "tcpSocket": { "port": 9100 } }),
        json!({ "exec": { "command": ["true"] } }),
        json!({ "grpc": { "port": 8080 } }),
    ] {
        assert_eq!(with(left_to_kubelet), Readiness::Engine);
    }
    let gated = row(|p| p["spec"]["readinessGates"] = json!([{ "conditionType": "x" }]));
    assert_eq!(gated.replica.readiness, Readiness::Engine);
}

// Kubelet calls a pod ready when each startup probe has passed, too.
#[test]
fn a_startup_probe_counts_as_kubelet_counts_it() {
    let http = |path: &str| Readiness::Http { path: path.into() };
    let probe = |path: &str| json!({ "httpGet": { "path": path, "port": "http" } });
    let with = |startup: Value, readiness: Value| {
        row(|p| {
            p["spec"]["containers"][0]["startupProbe"] = startup;
            p["spec"]["containers"][0]["readinessProbe"] = readiness;
        })
        .replica
        .readiness
    };
    assert_eq!(with(probe("/started"), json!(null)), http("/started"));
    assert_eq!(with(probe("/r"), probe("/r")), http("/r"));
    assert_eq!(with(probe("/started"), probe("/r")), Readiness::Engine);
    let exec = json!({ "exec": { "command": ["true"] } });
    assert_eq!(with(exec.clone(), json!(null)), Readiness::Engine);
    assert_eq!(with(exec, probe("/r")), Readiness::Engine);
    let other = row(|p| {
        let other = json!({ "name": "other", "startupProbe": probe("/") });
        p["spec"]["containers"].as_array_mut().unwrap().push(other);
    });
    assert_eq!(other.replica.readiness, Readiness::Engine);
    for (policy, readiness) in [
        (json!("Always"), Readiness::Engine),
        (json!(null), Readiness::Tcp),
    ] {
        let beside = row(|p| {
            let beside =
                json!({ "name": "beside", "restartPolicy": policy, "readinessProbe": probe("/") });
            p["spec"]["initContainers"] = json!([beside]);
        });
        assert_eq!(beside.replica.readiness, readiness);
    }
}

// F24: what is told of a node must not be a guess
#[test]
fn a_node_came_for_a_pod_that_is_older_and_asks_for_its_pool() {
    let waiting = |selector: Value| {
        let row = row(|p| {
            p["metadata"]["creationTimestamp"] = json!("2030-01-01T00:00:05Z");
            p["spec"]["nodeName"] = json!(null);
            p["spec"]["nodeSelector"] = selector;
            p["status"] = json!({ "conditions": [{
                "type": "PodScheduled", "status": "False", "message": "0/1 nodes are available",
            }] });
        });
        row.unschedulable.unwrap()
    };
    let labels = json!({ "project": "b", "kubernetes.io/os": "linux" });
    let labels: Labels = serde_json::from_value(labels).unwrap();
    let brought = |selector, made| waiting(selector).brought(&labels, made);
    let pool = || json!({ "project": "b", "kubernetes.io/os": "linux" });
    assert!(brought(pool(), "2030-01-01T00:00:05Z"));
    assert!(!brought(pool(), "2030-01-01T00:00:04Z"));
    assert!(!brought(pool(), ""));
    let later = "2030-01-01T00:01:00Z";
    assert!(!brought(json!({ "project": "a" }), later));
    assert!(!brought(json!({ "kubernetes.io/os": "linux" }), later));
    assert!(!brought(json!({}), later));
}

// Issue 4 item 7: a request goes over TCP.
#[test]
fn the_first_port_is_the_first_of_tcp() {
    let ports = json!([
        { "name": "dns", "containerPort": 53, "protocol": "UDP" },
        { "name": "web", "containerPort": 8080, "protocol": "TCP" },
    ]);
    let pod = pod(|p| p["spec"]["containers"][0]["ports"] = ports);
    let (_, port) = served(&pod.spec.containers).unwrap();
    assert_eq!(port, 8080);
}

// A-025, F24
#[test]
fn stages_and_reasons_come_from_what_the_engine_says() {
    let waiting = row(|p| {
        p["spec"]["nodeName"] = json!(null);
        p["status"] = json!({ "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        }] });
    });
    assert_eq!(waiting.replica.stage, Stage::WaitingForNode);
    assert!(waiting.unschedulable.is_some());
    let words = waiting.pending.unwrap().to_string();
    assert!(words.contains("3 Insufficient nvidia.com/gpu"), "{words}");
    let stuck = |reason: &str| {
        row(|p| {
            p["status"]["containerStatuses"][0]["state"] =
                json!({ "waiting": { "reason": reason, "message": "because" } });
            p["status"]["containerStatuses"][0]["lastState"] =
                json!({ "terminated": { "exitCode": 3, "reason": "Error" } });
        })
    };
    let pulling = stuck("ImagePullBackOff");
    assert_eq!(pulling.replica.stage, Stage::Pulling);
    assert_eq!(
        pulling.pending,
        Some(Pending::Engine(
            "the image i cannot be pulled: because".into()
        ))
    );
    assert_eq!(
        stuck("CrashLoopBackOff").pending,
        Some(Pending::CrashLoop {
            restarts: 2,
            last_exit: "exit code 3".into()
        })
    );
    assert_eq!(stuck("ContainerCreating").replica.stage, Stage::Pulling);
    // As a real kubelet has it between two starts.
    let between = row(|p| {
        p["status"]["containerStatuses"][0]["state"] =
            json!({ "terminated": { "exitCode": 1, "reason": "Error" } });
    });
    assert_eq!(between.replica.stage, Stage::Starting);
    assert_eq!(
        between.pending,
        Some(Pending::CrashLoop {
            restarts: 2,
            last_exit: "exit code 1".into()
        })
    );
    let of_init = |exit: u32| {
        row(|p| {
            p["status"]["containerStatuses"][0]["state"] =
                json!({ "waiting": { "reason": "PodInitializing" } });
            p["status"]["initContainerStatuses"] = json!([{
                "name": "i", "image": "i", "restartCount": 3,
                "state": { "terminated": { "exitCode": exit, "reason": "Error" } },
            }]);
        })
    };
    assert!(matches!(
        of_init(1).pending,
        Some(Pending::CrashLoop { restarts: 3, .. })
    ));
    assert_eq!(of_init(0).pending, Some(Pending::Pulling));
    // As the control plane has it when a node is silent: it takes back that the pod is ready, and nothing else.
    let conditions = |gates: Value| {
        row(|p| {
            p["spec"]["readinessGates"] = gates;
            p["status"]["conditions"] = json!([
                { "type": "Ready", "status": "False" }, { "type": "ContainersReady", "status": "True" },
            ]);
        })
    };
    assert_eq!(
        conditions(json!([])).pending,
        Some(Pending::Unready("its node n does not answer".into()))
    );
    let gated = conditions(json!([{ "conditionType": "x" }]));
    assert_eq!(gated.pending, Some(Pending::Starting));
    assert_eq!(row(|_| {}).replica.stage, Stage::Starting);
    let ready = row(|p| p["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]));
    assert_eq!(
        (ready.replica.stage, ready.replica.ready, ready.pending),
        (Stage::Ready, true, None)
    );
    assert!(row(|p| p["status"]["phase"] = json!("Failed")).finished);
}
