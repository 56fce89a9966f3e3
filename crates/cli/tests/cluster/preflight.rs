//! `nagi preflight` before the double: what is missing, what cannot be told, and how the command ends (issue 4, item 4).

use nagi_kube_double::{Double, Effect, Fault, objects};
use serde_json::{Value, json};

use crate::command::run;

/// A cluster on which everything is installed, asked as its administrator.
async fn installed() -> Double {
    let double = Double::start().await;
    for name in ["scale-api", "wake-gateway"] {
        double.put(objects::deployment("scale-system", name, 2));
        double.put(json!({ "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "namespace": "scale-system", "name": format!("{name}-sa") } }));
    }
    for kind in [
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ] {
        for name in ["nagi-changes-replicas-only", "nagi-writes-its-history"] {
            double.put(
                json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
                "metadata": { "name": name } }),
            );
        }
    }
    double.put(json!({ "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": "n1", "labels": { "agentpool": "system" } } }));
    for name in ["kube-system", "scale-system", "project-a"] {
        double
            .put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }));
    }
    double
}

/// Gives an account what its shipped role grants, but for what `but` says.
fn grant(double: &Double, account: &str, manifest: &str, but: impl Fn(&str, &str) -> bool) {
    let user = format!("system:serviceaccount:scale-system:{account}");
    let objects: Vec<Value> = serde_saphyr::from_multiple(manifest).unwrap();
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().cloned().unwrap_or_default();
        all.iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    for object in objects.iter().filter(|object| object["rules"].is_array()) {
        let namespace = object["metadata"]["namespace"].as_str();
        for rule in object["rules"].as_array().unwrap() {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        if !but(&resource, &verb) {
                            double.grant(&user, &verb, &group, &resource, namespace);
                        }
                    }
                }
            }
        }
    }
}

const API: &str = include_str!("../../../../src/api/manifests/rbac.yaml");
const GATEWAY: &str = include_str!("../../../../manifests/gateway/rbac.yaml");

fn check<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let checks = answer["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {answer}"))
}

#[tokio::test]
async fn a_cluster_with_everything_passes() {
    let double = installed().await;
    grant(&double, "scale-api-sa", API, |_, _| false);
    grant(&double, "wake-gateway-sa", GATEWAY, |_, _| false);
    double.forget_requests();
    let ended = run(&double, "preflight --output json").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let answer = ended.json();
    assert_eq!(answer["status"], "success");
    for name in [
        "api-server",
        "api-groups",
        "rights of scale-api",
        "rights of wake-gateway",
        "admission-policy",
        "history-policy",
    ] {
        assert_eq!(check(&answer, name)["result"], "ok", "{answer}");
    }
    assert!(
        check(&answer, "namespaces")["detail"]
            .as_str()
            .unwrap()
            .contains("kube-system, scale-system")
    );
    // Questions only.
    let asked = double.requests();
    assert!(
        asked
            .iter()
            .all(|one| one.method == "GET" || one.path.contains("review")),
        "{asked:?}"
    );
    let text = run(&double, "preflight").await;
    assert!(text.output.starts_with("RESULT"), "{text:?}");
    // What is optional and not there has a command too.
    assert!(text.output.contains("metrics-server"), "{text:?}");
}

#[tokio::test]
async fn each_missing_thing_is_named_with_the_command_that_mends_it() {
    let double = Double::start().await;
    double.claim_version(1, 29);
    let ended = run(&double, "preflight --output json").await;
    assert_eq!(ended.code, Some(11), "{ended:?}");
    let answer = ended.json();
    assert_eq!(answer["status"], "error");
    for (name, fix) in [
        ("scale-api", "kubectl apply -k src/api"),
        (
            "rights of scale-api",
            "kubectl apply -f src/api/manifests/rbac.yaml",
        ),
        (
            "admission-policy",
            "kubectl apply -f src/api/manifests/admission-policy.yaml",
        ),
        (
            "history-policy",
            "kubectl apply -f src/api/manifests/history-policy.yaml",
        ),
        ("nodes", "kubectl label node NODE agentpool=system"),
    ] {
        let check = check(&answer, name);
        assert_eq!(
            (&check["result"], &check["fix"]),
            (&json!("missing"), &json!(fix)),
            "{answer}"
        );
    }
    assert_eq!(check(&answer, "api-server")["result"], "missing");
    assert!(ended.errors.contains("things are missing"), "{ended:?}");
    // One right alone.
    let double = installed().await;
    grant(&double, "scale-api-sa", API, |resource, verb| {
        (resource, verb) == ("deployments", "patch")
    });
    grant(&double, "wake-gateway-sa", GATEWAY, |_, _| false);
    let ended = run(&double, "preflight --output json").await;
    assert_eq!(ended.code, Some(11), "{ended:?}");
    assert_eq!(
        check(&ended.json(), "rights of scale-api")["detail"],
        "scale-api-sa may not patch deployments.apps"
    );
    // One that Nagi can do without.
    let double = installed().await;
    grant(&double, "scale-api-sa", API, |resource, _| {
        resource == "nodes"
    });
    grant(&double, "wake-gateway-sa", GATEWAY, |_, _| false);
    let ended = run(&double, "preflight").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.output.contains("pools of nodes are not shown"),
        "{ended:?}"
    );
}

// Issue 4 item 4: the definitions, what is missing, and the command that mends it
#[tokio::test]
async fn a_kind_of_the_cluster_that_nagi_may_not_touch_is_named_with_the_command_that_lets_it() {
    let double = installed().await;
    grant(&double, "scale-api-sa", API, |_, _| false);
    grant(&double, "wake-gateway-sa", GATEWAY, |_, _| false);
    double.put(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "runners.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "plural": "runners", "kind": "Runner" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "subresources": { "scale": {
                "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size" } } }],
        },
    }));
    let answer = run(&double, "preflight --output json").await.json();
    let closed = check(&answer, "custom-kinds");
    assert_eq!(closed["result"], "note", "{answer}");
    let fix = closed["fix"].as_str().unwrap();
    assert!(fix.contains("--resource=runners.example.com"), "{fix}");
    let user = "system:serviceaccount:scale-system:scale-api-sa";
    for verb in ["get", "list", "watch", "patch"] {
        double.grant(user, verb, "example.com", "runners", None);
    }
    let answer = run(&double, "preflight --output json").await.json();
    let closed = check(&answer, "custom-kinds")["detail"].clone();
    assert!(
        closed
            .as_str()
            .unwrap()
            .contains("wake-gateway-sa may not get runners.example.com"),
        "{answer}"
    );
    let user = "system:serviceaccount:scale-system:wake-gateway-sa";
    for verb in ["get", "list", "watch"] {
        double.grant(user, verb, "example.com", "runners", None);
    }
    double.grant(user, "patch", "example.com", "runners/scale", None);
    let answer = run(&double, "preflight --output json").await.json();
    let served = check(&answer, "custom-kinds");
    assert_eq!(served["result"], "ok", "{answer}");
    assert_eq!(served["detail"], "can be scaled: runners.example.com");
}

// In the pod the account asks about itself; what it may not look at is a note and no failure.
#[tokio::test]
async fn from_inside_the_rights_are_those_of_the_caller() {
    let double = installed().await;
    double.call_as("system:serviceaccount:scale-system:scale-api-sa");
    grant(&double, "scale-api-sa", API, |_, _| false);
    double.inject(Fault::status(403).at("/validatingadmissionpolicies"));
    double.inject(
        Fault::status(403)
            .at("/api/v1/namespaces")
            .on(http::Method::GET),
    );
    let ended = run(&double, "preflight --output json").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let answer = ended.json();
    assert_eq!(check(&answer, "admission-policy")["result"], "note");
    let names: Vec<&Value> = answer["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert!(
        !names.contains(&&json!("rights of wake-gateway")),
        "{names:?}"
    );
    let asked = double.requests();
    assert!(
        !asked
            .iter()
            .any(|one| one.path.ends_with("/subjectaccessreviews"))
    );
}

// Unknown is not "there".
#[tokio::test]
async fn whoever_may_not_ask_about_others_is_told_whom_to_ask() {
    let double = installed().await;
    double.call_as("jane");
    double.inject(Fault::status(403).at("/subjectaccessreviews"));
    let ended = run(&double, "preflight").await;
    assert_eq!(ended.code, Some(11), "{ended:?}");
    assert!(
        ended
            .output
            .contains("kubectl exec -n scale-system deploy/scale-api -- nagi preflight"),
        "{ended:?}"
    );
    double.lift_all();
    double.inject(Fault::always(Effect::Status {
        code: 503,
        retry_after: None,
    }));
    let away = run(&double, "preflight").await;
    assert_eq!((away.code, away.output.as_str()), (Some(6), ""), "{away:?}");
}

#[tokio::test]
async fn with_namespaces_only_their_rights_are_needed() {
    let double = installed().await;
    let user = "system:serviceaccount:scale-system:scale-api-sa";
    let ended = run(&double, "preflight --namespaces project-a --output json").await;
    let answer = ended.json();
    let rights = check(&answer, "rights of scale-api");
    assert!(
        rights["detail"].as_str().unwrap().contains(" in project-a"),
        "{rights}"
    );
    assert_eq!(rights["fix"], "kubectl apply -k deploy/namespaced");
    double.grant(user, "patch", "apps", "deployments", Some("project-a"));
    let fewer = run(&double, "preflight --namespaces project-a --output json").await;
    let detail = check(&fewer.json(), "rights of scale-api")["detail"].clone();
    assert!(
        !detail
            .as_str()
            .unwrap()
            .contains("patch deployments.apps in project-a"),
        "{detail}"
    );
    for (namespace, said) in [("kube-system", "protected"), ("project-x", "is not there")] {
        let ended = run(&double, &format!("preflight --namespaces {namespace}")).await;
        assert_eq!(ended.code, Some(11));
        assert!(ended.output.contains(said), "{ended:?}");
    }
}
