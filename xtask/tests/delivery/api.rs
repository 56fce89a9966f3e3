//! `src/api`: the Scale API.

use serde_json::{Value, json};

use crate::objects::{
    at, container, find, grants, names, of_directory, of_file, only, patched, read, rendered,
};

const MANIFESTS: &str = "src/api/manifests";

fn deployment() -> Value {
    only("src/api/manifests/deployment.yaml")
}

// F18, A-005, A-067: names, namespace, two replicas, a ClusterIP Service.
#[test]
fn names_are_those_that_the_founding_documents_use() {
    let objects = of_directory(MANIFESTS);
    for object in &objects {
        let namespace = &object["metadata"]["namespace"];
        let wide = ["Cluster", "ValidatingAdmission"]
            .iter()
            .any(|kind| object["kind"].as_str().unwrap().starts_with(kind));
        let wanted = if wide {
            Value::Null
        } else {
            json!("scale-system")
        };
        assert_eq!(*namespace, wanted, "{}", object["metadata"]["name"]);
    }
    let deployment = find(&objects, "Deployment", "scale-api");
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(container(deployment)["name"], "scale-api");
    let service = find(&objects, "Service", "scale-api");
    assert_eq!(service["spec"]["type"], "ClusterIP");
    find(&objects, "ServiceAccount", "scale-api-sa");
    find(&objects, "ClusterRole", "scale-api-role");
    find(&objects, "ClusterRoleBinding", "scale-api-binding");
    assert_eq!(
        only("src/api/namespace.yaml")["metadata"]["name"],
        "scale-system"
    );
}

// F21, A-015: `kubectl delete -f src/api/manifests/` and `apply -f` again. So nothing in there is for kustomize, and the
// namespace, which holds what people put beside the API, is not in there.
#[test]
fn directory_of_manifests_can_be_deleted_and_applied() {
    let objects = of_directory(MANIFESTS);
    for object in &objects {
        assert_ne!(object["kind"], "Namespace");
        assert_ne!(object["kind"], "Kustomization");
    }
    let mut once = names(&objects);
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), objects.len(), "each object is in one file");
}

// F26, A-169: kustomize lists every manifest, and the image is set by the name scale-api.
#[test]
fn kustomization_holds_the_manifests_and_the_namespace() {
    let rendered = rendered("src/api");
    let mut wanted = names(&of_directory(MANIFESTS));
    wanted.push("Namespace/scale-system".to_owned());
    wanted.sort_unstable();
    let mut got = names(&rendered);
    got.sort_unstable();
    assert_eq!(got, wanted);
    for object in of_directory(MANIFESTS) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let kind = object["kind"].as_str().unwrap();
        assert_eq!(*find(&rendered, kind, name), object, "{kind} {name}");
    }
}

// F19, A-010, A-012, A-014, A-043, A-045, A-050, A-069: 80 -> http 8080, 9090 -> metrics, and the selector is what the
// pods carry.
#[test]
fn service_leads_to_the_named_ports_of_its_pods() {
    let service = only("src/api/manifests/service.yaml");
    assert_eq!(
        service["spec"]["ports"],
        json!([
            { "name": "http", "port": 80, "targetPort": "http" },
            { "name": "metrics", "port": 9090, "targetPort": "metrics" },
        ])
    );
    let deployment = deployment();
    let ports = &container(&deployment)["ports"];
    assert_eq!(
        *ports,
        json!([
            { "name": "http", "containerPort": 8080, "protocol": "TCP" },
            { "name": "metrics", "containerPort": 9090, "protocol": "TCP" },
        ])
    );
    assert_eq!(
        service["spec"]["selector"],
        json!({ "app.kubernetes.io/name": "scale-api" })
    );
}

// F18, A-011, A-012: the label selects these pods and no others.
#[test]
fn label_selects_the_pods_of_the_api() {
    let deployment = deployment();
    let wanted = json!({ "app.kubernetes.io/name": "scale-api" });
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], wanted);
    let label = "app.kubernetes.io/name";
    assert_eq!(
        deployment["spec"]["template"]["metadata"]["labels"][label],
        "scale-api"
    );
    for object in crate::gateway::manifests() {
        let labels = &object["spec"]["template"]["metadata"]["labels"];
        assert_ne!(labels[label], "scale-api");
    }
}

// F18, A-095, A-166, A-167, K-29: resources, probes, user, hardening, place.
#[test]
fn deployment_has_the_values_of_the_specification() {
    let deployment = deployment();
    let pod = &deployment["spec"]["template"]["spec"];
    let container = container(&deployment);
    assert_eq!(
        container["resources"],
        json!({
            "requests": { "cpu": "100m", "memory": "128Mi" },
            "limits": { "cpu": "500m", "memory": "512Mi" },
        })
    );
    assert_eq!(
        container["livenessProbe"],
        json!({
            "httpGet": { "path": "/health", "port": "http" },
            "initialDelaySeconds": 10, "periodSeconds": 30, "timeoutSeconds": 5, "failureThreshold": 3,
        })
    );
    assert_eq!(
        container["readinessProbe"],
        json!({
            "httpGet": { "path": "/ready", "port": "http" },
            "initialDelaySeconds": 5, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3,
        })
    );
    assert_eq!(
        container["securityContext"],
        json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        })
    );
    for (field, value) in [
        ("runAsNonRoot", json!(true)),
        ("runAsUser", json!(65532)),
        ("runAsGroup", json!(65532)),
        ("seccompProfile", json!({ "type": "RuntimeDefault" })),
    ] {
        assert_eq!(pod["securityContext"][field], value, "{field}");
    }
    assert_eq!(pod["nodeSelector"], json!({ "agentpool": "system" }));
    assert_eq!(
        pod["tolerations"],
        json!([{ "key": "CriticalAddonsOnly", "operator": "Exists" }])
    );
    assert_eq!(pod["serviceAccountName"], "scale-api-sa");
    let tmp = pod["volumes"].as_array().unwrap().iter();
    let tmp = tmp
        .filter(|volume| volume["name"] == "tmp")
        .collect::<Vec<_>>();
    assert!(tmp[0]["emptyDir"].is_object());
    assert_eq!(
        container["volumeMounts"][0],
        json!({ "name": "tmp", "mountPath": "/tmp" })
    );
}

// F21, A-013, W-A28: a rollout, a drain and the end of a pod drop no request.
#[test]
fn a_pod_that_ends_is_replaced_before_and_drained_after() {
    let objects = of_directory(MANIFESTS);
    let deployment = find(&objects, "Deployment", "scale-api");
    assert_eq!(
        deployment["spec"]["strategy"]["rollingUpdate"],
        json!({ "maxSurge": 1, "maxUnavailable": 0 })
    );
    let pod = &deployment["spec"]["template"]["spec"];
    let pause = container(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"]
        .as_u64()
        .unwrap();
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    // running requests get 30 s behind the pause.
    assert!(pause > 0 && grace > pause + 30, "{pause} {grace}");
    let spread = &pod["topologySpreadConstraints"][0];
    assert_eq!(spread["topologyKey"], "kubernetes.io/hostname");
    assert_eq!(
        spread["labelSelector"]["matchLabels"],
        deployment["spec"]["selector"]["matchLabels"]
    );
    let budget = find(&objects, "PodDisruptionBudget", "scale-api");
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    assert_eq!(
        budget["spec"]["selector"]["matchLabels"],
        deployment["spec"]["selector"]["matchLabels"]
    );
}

// F10, A-031, A-034, A-035, K-14: the manifest names the key setting; the patches of the founding documents leave a plain
// value, which wins over the file.
#[test]
fn key_patches_leave_a_plain_value() {
    let deployment = deployment();
    assert!(read("src/api/manifests/deployment.yaml").contains("API_KEY"));
    let key = |object: &Value| -> Vec<Value> {
        let env = container(object)["env"].as_array().unwrap().clone();
        env.into_iter()
            .filter(|variable| variable["name"] == "API_KEY")
            .collect()
    };
    assert_eq!(key(&deployment), [Value::Null; 0]);
    for value in ["", "new-api-key"] {
        let patch = json!({ "spec": { "template": { "spec": { "containers": [
            { "name": "scale-api", "env": [{ "name": "API_KEY", "value": value }] }
        ] } } } });
        let patched = patched(&deployment, &patch);
        assert_eq!(
            key(&patched),
            [json!({ "name": "API_KEY", "value": value })]
        );
        assert_eq!(
            container(&patched)["image"],
            container(&deployment)["image"]
        );
    }
    let env = container(&deployment)["env"].as_array().unwrap();
    let file = env
        .iter()
        .find(|variable| variable["name"] == "API_KEY_FILE")
        .unwrap();
    let mounted = container(&deployment)["volumeMounts"].as_array().unwrap();
    assert!(mounted.iter().any(|mount| {
        let directory = mount["mountPath"].as_str().unwrap();
        file["value"]
            .as_str()
            .unwrap()
            .starts_with(&format!("{directory}/"))
    }));
    let volumes = deployment["spec"]["template"]["spec"]["volumes"]
        .as_array()
        .unwrap();
    let secret = volumes
        .iter()
        .find(|volume| volume["secret"].is_object())
        .unwrap();
    assert_eq!(
        secret["secret"],
        json!({ "secretName": "scale-api-key", "optional": true })
    );
}

// F11, A-042, A-089: settings may come from a ConfigMap that need not be there, and nothing in `env` overrides it.
#[test]
fn settings_may_come_from_a_config_map() {
    let deployment = deployment();
    let container = container(&deployment);
    assert_eq!(
        container["envFrom"],
        json!([{ "configMapRef": { "name": "scale-api-config", "optional": true } }])
    );
    let env = container["env"].as_array().unwrap();
    let set: Vec<&str> = env
        .iter()
        .filter_map(|variable| variable["name"].as_str())
        .collect();
    assert_eq!(set, ["API_KEY_FILE"]);
}

// F21, A-040
#[test]
fn resource_patch_of_the_founding_documents_changes_the_resources_only() {
    let deployment = deployment();
    let resources = json!({
        "requests": { "memory": "256Mi", "cpu": "200m" },
        "limits": { "memory": "512Mi", "cpu": "500m" },
    });
    let patch = json!({ "spec": { "template": { "spec": { "containers": [
        { "name": "scale-api", "resources": resources }
    ] } } } });
    let mut patched = patched(&deployment, &patch);
    assert_eq!(container(&patched)["resources"], resources);
    patched["spec"]["template"]["spec"]["containers"][0]["resources"] =
        container(&deployment)["resources"].clone();
    assert_eq!(patched, deployment);
}

// W-A27, A-088: the manifest names the image that `cargo xtask image` writes, of this version: applying it again leaves a
// system that runs.
#[test]
fn image_is_the_one_that_is_built() {
    let name = format!("scale-api:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container(&deployment())["image"], name.as_str());
    assert_eq!(container(&deployment())["imagePullPolicy"], "IfNotPresent");
}

// F20, A-018, A-019, K-02, K-03: names, and who is bound: the one account, and not `scale-api`, which nobody owns.
#[test]
fn account_and_roles_are_bound_by_name() {
    let rbac = of_file("src/api/manifests/rbac.yaml");
    for kind in ["ClusterRoleBinding", "RoleBinding"] {
        for binding in rbac.iter().filter(|object| object["kind"] == kind) {
            assert_eq!(
                binding["subjects"],
                json!([{ "kind": "ServiceAccount", "name": "scale-api-sa", "namespace": "scale-system" }])
            );
            let role = binding["roleRef"]["kind"].as_str().unwrap();
            find(&rbac, role, binding["roleRef"]["name"].as_str().unwrap());
        }
    }
    let binding = find(&rbac, "ClusterRoleBinding", "scale-api-binding");
    assert_eq!(
        binding["roleRef"],
        json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "scale-api-role" })
    );
    let account = only("src/api/manifests/serviceaccount.yaml");
    assert_eq!(account["kind"], "ServiceAccount");
    assert!(at("src/api/manifests/rbac.yaml").is_file());
}

// F20, A-017, A-081, A-082, A-145, A-168, K-30, W-A29: the exact rights. `update deployments` is there because the
// founding documents check for it; the test cluster proves that each of the others is used.
#[test]
fn account_of_the_api_has_exactly_these_rights() {
    let rbac = of_file("src/api/manifests/rbac.yaml");
    assert_eq!(grants(find(&rbac, "ClusterRole", "scale-api-role")), RIGHTS);
    assert_eq!(
        grants(find(&rbac, "Role", "scale-api-lease")),
        [
            "create coordination.k8s.io/leases",
            "get coordination.k8s.io/leases/nagi-leader",
            "patch coordination.k8s.io/leases/nagi-leader",
        ]
    );
    let custom = find(&rbac, "ClusterRole", "scale-api-custom-kinds");
    // `rules: []` would take the gathered rules away each time it is applied.
    assert_eq!(custom["rules"], Value::Null);
    assert_eq!(
        custom["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"],
        json!({ "nagi.dev/aggregate-to-scale-api": "true" })
    );
}

const RIGHTS: &[&str] = &[
    "create authentication.k8s.io/tokenreviews",
    "create authorization.k8s.io/subjectaccessreviews",
    "create events.k8s.io/events",
    "get apps/deployments",
    "get apps/replicasets",
    "get apps/statefulsets",
    "get pods/log",
    "get replicationcontrollers",
    "list apiextensions.k8s.io/customresourcedefinitions",
    "list apps/deployments",
    "list apps/replicasets",
    "list apps/statefulsets",
    "list autoscaling/horizontalpodautoscalers",
    "list events",
    "list events.k8s.io/events",
    "list keda.sh/scaledobjects",
    "list nodes",
    "list pods",
    "list replicationcontrollers",
    "patch apps/deployments",
    "patch apps/replicasets",
    "patch apps/statefulsets",
    "patch events.k8s.io/events",
    "patch replicationcontrollers",
    "update apps/deployments",
    "watch apps/deployments",
    "watch apps/replicasets",
    "watch apps/statefulsets",
    "watch autoscaling/horizontalpodautoscalers",
    "watch keda.sh/scaledobjects",
    "watch pods",
    "watch replicationcontrollers",
];

// F20, A-094: who may call, and where the API may go: names and the API server.
#[test]
fn network_policy_opens_two_ports_and_the_way_to_the_api_server() {
    let policy = only("src/api/manifests/networkpolicy.yaml");
    assert_eq!(
        policy["spec"],
        json!({
            "podSelector": { "matchLabels": { "app.kubernetes.io/name": "scale-api" } },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{ "ports": [
                { "protocol": "TCP", "port": 8080 },
                { "protocol": "TCP", "port": 9090 },
            ] }],
            "egress": [
                { "ports": [{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }] },
                { "ports": [{ "protocol": "TCP", "port": 443 }, { "protocol": "TCP", "port": 6443 }] },
            ],
        })
    );
}

// F20: the policy is bound, denies, and is about both accounts and about every kind.
#[test]
fn admission_policy_holds_both_accounts_to_the_count() {
    let objects = of_file("src/api/manifests/admission-policy.yaml");
    let policy = find(
        &objects,
        "ValidatingAdmissionPolicy",
        "nagi-changes-replicas-only",
    );
    assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    let binding = find(
        &objects,
        "ValidatingAdmissionPolicyBinding",
        "nagi-changes-replicas-only",
    );
    assert_eq!(
        binding["spec"],
        json!({ "policyName": "nagi-changes-replicas-only", "validationActions": ["Deny"] })
    );
    let condition = policy["spec"]["matchConditions"][0]["expression"]
        .as_str()
        .unwrap();
    for account in ["scale-api-sa", "wake-gateway-sa"] {
        let user = format!("'system:serviceaccount:scale-system:{account}'");
        assert!(condition.contains(&user), "{condition}");
    }
    assert_eq!(
        policy["spec"]["matchConstraints"]["resourceRules"],
        json!([{ "apiGroups": ["*"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["*", "*/scale"] }])
    );
}

// The policy is bound, denies, and is about Events of both groups; the same two accounts are let through.
#[test]
fn history_policy_lets_both_accounts_write_and_is_about_events() {
    let objects = of_file("src/api/manifests/history-policy.yaml");
    let name = "nagi-writes-its-history";
    let policy = find(&objects, "ValidatingAdmissionPolicy", name);
    assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    assert_eq!(
        policy["spec"]["matchConstraints"]["resourceRules"],
        json!([{
            "apiGroups": ["", "events.k8s.io"], "apiVersions": ["*"],
            "operations": ["CREATE", "UPDATE"], "resources": ["events"],
        }])
    );
    let binding = find(&objects, "ValidatingAdmissionPolicyBinding", name);
    assert_eq!(
        binding["spec"],
        json!({ "policyName": name, "validationActions": ["Deny"] })
    );
    let rule = policy["spec"]["validations"][0]["expression"]
        .as_str()
        .unwrap();
    for account in ["scale-api-sa", "wake-gateway-sa"] {
        let user = format!("'system:serviceaccount:scale-system:{account}'");
        assert!(rule.contains(&user), "{rule}");
    }
}

// The overlay for chosen namespaces: no right in the cluster as a whole, and in each namespace those of the ClusterRole
// that are about things in it.
#[test]
fn namespaced_overlay_has_roles_only() {
    let objects = rendered("deploy/namespaced");
    for object in &objects {
        let kind = object["kind"].as_str().unwrap();
        assert!(!kind.starts_with("Cluster"), "{kind}");
        assert!(!kind.starts_with("ValidatingAdmission"), "{kind}");
    }
    let rbac = of_file("src/api/manifests/rbac.yaml");
    let wide = [
        "nodes",
        "customresourcedefinitions",
        "tokenreviews",
        "subjectaccessreviews",
    ];
    let mut wanted = grants(find(&rbac, "ClusterRole", "scale-api-role"));
    wanted.retain(|grant| !wide.iter().any(|resource| grant.ends_with(resource)));
    wanted.retain(|grant| grant != "update apps/deployments");
    let mut namespaces = Vec::new();
    for role in objects
        .iter()
        .filter(|object| object["kind"] == "Role" && object["metadata"]["name"] == "scale-api-role")
    {
        assert_eq!(grants(role), wanted);
        namespaces.push(role["metadata"]["namespace"].as_str().unwrap());
    }
    assert_eq!(namespaces, ["project-a", "project-b"]);
    let bindings = objects
        .iter()
        .filter(|object| object["kind"] == "RoleBinding");
    for binding in bindings {
        assert_eq!(binding["subjects"][0]["namespace"], "scale-system");
    }
    let env = &container(find(&objects, "Deployment", "scale-api"))["env"];
    assert_eq!(
        *env.as_array().unwrap().last().unwrap(),
        json!({ "name": "NAGI_NAMESPACES", "value": "project-a,project-b" })
    );
}

// Every pod of ours passes the strictest profile of Kubernetes, which the namespace enforces.
#[test]
fn namespace_enforces_the_restricted_profile() {
    let namespace = only("src/api/namespace.yaml");
    assert_eq!(
        namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"],
        "restricted"
    );
}
