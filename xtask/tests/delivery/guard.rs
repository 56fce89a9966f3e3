//! `deploy/guard`: the guard on every node, as a `DaemonSet` or as a unit of systemd.

use serde_json::{Value, json};

use crate::objects::{container, find, names, of_file, read, rendered};

const MANIFESTS: &str = "deploy/guard";

fn manifests() -> Vec<Value> {
    ["daemonset", "namespace", "serviceaccount"]
        .iter()
        .flat_map(|name| of_file(&format!("{MANIFESTS}/{name}.yaml")))
        .collect()
}

#[test]
fn kustomization_holds_every_manifest_of_the_guard() {
    let mut wanted = names(&manifests());
    wanted.sort_unstable();
    let mut got = names(&rendered(MANIFESTS));
    got.sort_unstable();
    assert_eq!(got, wanted);
}

// It works without the API server: no token, no rights. It sees the node, also disks that are mounted later, runs wherever
// there is a disk, and is among the last to be evicted when one is full.
#[test]
fn the_guard_asks_no_api_server_and_sees_its_node() {
    let objects = manifests();
    let kinds: Vec<&Value> = objects.iter().map(|object| &object["kind"]).collect();
    assert_eq!(
        kinds,
        ["DaemonSet", "Namespace", "ServiceAccount"],
        "no role, no binding"
    );
    let set = find(&objects, "DaemonSet", "nagi-guard");
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]));
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    assert_eq!(
        pod["volumes"],
        json!([{ "name": "node", "hostPath": { "path": "/", "type": "Directory" } }])
    );
    let guard = container(set);
    assert_eq!(guard["args"], json!(["guard", "--root=/host"]));
    let mount =
        json!([{ "name": "node", "mountPath": "/host", "mountPropagation": "HostToContainer" }]);
    assert_eq!(guard["volumeMounts"], mount);
    let security = &guard["securityContext"];
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(security["readOnlyRootFilesystem"], true);
    let namespace = find(&objects, "Namespace", "nagi-guard");
    let labels = &namespace["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "privileged");
}

// The unit has mounts of the node and not its own, or it would guard a copy.
#[test]
fn the_unit_of_the_guard_keeps_the_mounts_of_the_node() {
    let unit = read("deploy/guard/systemd/nagi-guard.service");
    let has = |line: &str| unit.lines().any(|one| one == line);
    assert!(has("ExecStart=/usr/local/bin/nagi guard") && has("Restart=always"));
    let own_mounts = [
        "ProtectSystem=",
        "ProtectHome=",
        "PrivateTmp=",
        "ReadWritePaths=",
        "RootDirectory=",
    ];
    for key in own_mounts {
        assert!(!unit.lines().any(|line| line.starts_with(key)), "{key}");
    }
    let mut section = "";
    for line in unit
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if line.starts_with('[') {
            section = line;
            continue;
        }
        assert!(
            ["[Unit]", "[Service]", "[Install]"].contains(&section),
            "{line} in {section}"
        );
        assert!(
            line.split_once('=')
                .is_some_and(|(key, _)| !key.contains(' ')),
            "{line}"
        );
    }
}
