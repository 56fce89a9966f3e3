//! `manifests/gateway`: the data plane.

use serde_json::json;

use crate::objects::{container, find, grants, names, of_directory, of_file, rendered};

const MANIFESTS: &str = "manifests/gateway";

pub(crate) fn manifests() -> Vec<serde_json::Value> {
    [
        "deployment",
        "networkpolicy",
        "poddisruptionbudget",
        "rbac",
        "service",
        "serviceaccount",
    ]
    .iter()
    .flat_map(|name| of_file(&format!("{MANIFESTS}/{name}.yaml")))
    .collect()
}

#[test]
fn kustomization_holds_every_manifest() {
    let mut wanted = names(&manifests());
    wanted.sort_unstable();
    let mut got = names(&rendered(MANIFESTS));
    got.sort_unstable();
    assert_eq!(got, wanted);
    // The kustomization itself is one more file.
    let files = std::fs::read_dir(crate::objects::at(MANIFESTS))
        .unwrap()
        .count();
    assert_eq!(files, 7);
}

// It faces traffic: it may change counts through `scale`, and never a workload itself, which would be to run code.
#[test]
fn account_of_the_gateway_changes_scale_only() {
    let objects = manifests();
    let rights = grants(find(&objects, "ClusterRole", "wake-gateway-role"));
    assert_eq!(rights, RIGHTS);
    for right in rights {
        let reads = ["get ", "list ", "watch "]
            .iter()
            .any(|verb| right.starts_with(verb));
        assert!(
            reads || right.ends_with("/scale") || right.ends_with(" events.k8s.io/events"),
            "{right}"
        );
    }
    let binding = find(&objects, "ClusterRoleBinding", "wake-gateway-binding");
    assert_eq!(
        binding["subjects"],
        json!([{ "kind": "ServiceAccount", "name": "wake-gateway-sa", "namespace": "scale-system" }])
    );
    assert_eq!(binding["roleRef"]["name"], "wake-gateway-role");
}

const RIGHTS: &[&str] = &[
    "create events.k8s.io/events",
    "get apps/deployments",
    "get apps/replicasets",
    "get apps/statefulsets",
    "get replicationcontrollers",
    "list apiextensions.k8s.io/customresourcedefinitions",
    "list apps/deployments",
    "list apps/replicasets",
    "list apps/statefulsets",
    "list autoscaling/horizontalpodautoscalers",
    "list events",
    "list keda.sh/scaledobjects",
    "list pods",
    "list replicationcontrollers",
    "patch apps/deployments/scale",
    "patch apps/replicasets/scale",
    "patch apps/statefulsets/scale",
    "patch events.k8s.io/events",
    "patch replicationcontrollers/scale",
    "watch apps/deployments",
    "watch apps/replicasets",
    "watch apps/statefulsets",
    "watch autoscaling/horizontalpodautoscalers",
    "watch keda.sh/scaledobjects",
    "watch pods",
    "watch replicationcontrollers",
];

#[test]
fn gateway_is_hardened_and_replaced_as_the_api_is() {
    let objects = manifests();
    let gateway = find(&objects, "Deployment", "wake-gateway");
    let api = of_directory("src/api/manifests");
    let api = find(&api, "Deployment", "scale-api");
    assert_eq!(container(gateway)["image"], container(api)["image"]);
    assert_eq!(
        container(gateway)["securityContext"],
        container(api)["securityContext"]
    );
    assert_eq!(gateway["spec"]["strategy"], api["spec"]["strategy"]);
    assert_eq!(container(gateway)["args"], json!(["gateway"]));
    let pod = &gateway["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    assert_eq!(pod["serviceAccountName"], "wake-gateway-sa");
    let service = find(&objects, "Service", "wake-gateway");
    assert_eq!(
        service["spec"]["ports"],
        json!([
            { "name": "http", "port": 80, "targetPort": "http" },
            { "name": "metrics", "port": 9090, "targetPort": "metrics" },
        ])
    );
    assert_eq!(
        service["spec"]["selector"],
        gateway["spec"]["selector"]["matchLabels"]
    );
    find(&objects, "PodDisruptionBudget", "wake-gateway");
}
