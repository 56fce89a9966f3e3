//! `nagi preflight` in the pod, and how Nagi leaves a cluster: the chart's hook wakes what sleeps and takes the marks away.
//! Then, where no role for the whole cluster is left, the overlay that needs none.

use std::time::Duration;

use anyhow::{Context, ensure};
use nagi_e2e::rights::{self, AuditLog};
use nagi_e2e::tools;
use nagi_e2e::wait::{self, Look};
use serde_json::Value;

use crate::World;
use crate::installed::{API, Installed, SOON};

// Issue 4 item 4, A-168
pub(crate) fn preflight(world: &mut World) -> anyhow::Result<()> {
    let installed = world.installed()?;
    let answer = in_the_pod(installed, "")?;
    ensure!(answer["status"] == "success", "{answer}");
    let rights = check(&answer, "rights of scale-api")?;
    ensure!(rights["result"] == "ok", "{answer}");
    // One right less, and it is named with the command that gives it back.
    installed.succeed(
        "kubectl patch clusterrole scale-api-role --type=json \
         -p '[{\"op\":\"replace\",\"path\":\"/rules/0/verbs\",\"value\":[\"get\",\"list\",\"watch\"]}]'",
    )?;
    let found = in_the_pod(installed, "; test $? -eq 11");
    installed.succeed("kubectl apply -f src/api/manifests/rbac.yaml")?;
    let answer = found?;
    let rights = check(&answer, "rights of scale-api")?;
    ensure!(
        rights["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("patch deployments.apps"))
            && rights["fix"] == "kubectl apply -f src/api/manifests/rbac.yaml",
        "{answer}"
    );
    Ok(())
}

fn in_the_pod(installed: &Installed, then: &str) -> anyhow::Result<Value> {
    let text = installed.output(&format!(
        "kubectl exec -n scale-system deploy/scale-api -- nagi preflight --output json 2>/dev/null {then}"
    ))?;
    serde_json::from_str(&text).with_context(|| format!("read {text}"))
}

fn check<'a>(answer: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    let checks = answer["checks"].as_array().context("checks")?;
    let found = checks.iter().find(|check| check["name"] == name);
    found.with_context(|| format!("no {name}: {answer}"))
}

// Issue 4 item 4: `helm uninstall` works, without `--no-hooks`
pub(crate) fn uninstall(world: &mut World) -> anyhow::Result<()> {
    let installed = world.installed()?;
    // What is woken needs its node, which another test may have sent away.
    let _autoscaler = installed.cluster.autoscale(Duration::from_mins(5))?;
    installed.succeed(
        "kubectl delete -k manifests/gateway --wait && kubectl delete -k src/api --wait && \
         kubectl wait --for=delete namespace/scale-system --timeout=120s",
    )?;
    let helm = tools::HELM.build()?.program("helm");
    let helm = helm.display();
    installed.succeed(&format!(
        "{helm} install nagi deploy/helm/nagi --namespace scale-system --create-namespace --wait --timeout 4m"
    ))?;
    let up = r#"{"replicas":2,"reason":"a test"}"#;
    installed.api(
        "POST",
        "/api/v1/deployments/project-a/sample-app-a/scale-up",
        up,
    )?;
    installed.settle("project-a", "sample-app-a", 2)?;
    let night = r#"{"reason":"a test"}"#;
    installed.api(
        "POST",
        "/api/v1/deployments/project-a/sample-app-a/scale-to-zero",
        night,
    )?;
    installed.settle("project-a", "sample-app-a", 0)?;
    let uninstalled = installed.end(&format!(
        "{helm} uninstall nagi --namespace scale-system --timeout 5m"
    ))?;
    if !uninstalled.status.success() {
        let log = installed
            .end("kubectl logs -n scale-system -l app.kubernetes.io/name=nagi-release --tail=50")?;
        anyhow::bail!(
            "{}{}\n{}{}",
            uninstalled.output,
            uninstalled.errors,
            log.output,
            log.errors
        );
    }
    let count = "kubectl get deployment sample-app-a -n project-a -o 'jsonpath={.spec.replicas} {.status.availableReplicas}'";
    let count = installed.output(count)?;
    let (wanted, serving) = count.split_once(' ').context("two counts")?;
    ensure!(
        wanted == "2" && serving != "0",
        "it is awake, with the count that it had: {count}"
    );
    let marks = installed.output(
        "kubectl get deployments -A -o json | grep -oE '\"nagi.dev/(format|replicas|asleep-since|changes|epoch)\"' | sort -u; true",
    )?;
    ensure!(marks.is_empty(), "marks are left: {marks}");
    let left = installed.output(
        "kubectl get deployments,jobs,clusterroles,validatingadmissionpolicies -A -l app.kubernetes.io/part-of=nagi -o name",
    )?;
    ensure!(left.is_empty(), "left: {left}");
    Ok(())
}

// Issue 4 item 4: "a namespaced overlay with Roles only"
pub(crate) fn namespaced(world: &mut World) -> anyhow::Result<()> {
    let installed = world.installed()?;
    let _autoscaler = installed.cluster.autoscale(Duration::from_mins(5))?;
    let roles = installed.output(
        "kubectl get clusterrolebindings -o json | grep -c '\"name\": \"scale-api-sa\"'; true",
    )?;
    ensure!(
        roles.trim() == "0",
        "a right in the cluster as a whole is left: {roles}"
    );
    // What ran with other roles goes on asking until it has ended.
    wait::until("the end of what was uninstalled", SOON, || {
        let left = installed
            .output("kubectl get pods -n scale-system -l app.kubernetes.io/part-of=nagi -o name")?;
        Ok(if left.is_empty() {
            Look::There(())
        } else {
            Look::NotYet(left)
        })
    })?;
    let mut log = AuditLog::from_now(&installed.cluster.control_plane().audit_log())?;
    installed.succeed(
        "kubectl apply -k deploy/namespaced && \
         kubectl rollout status deployment/scale-api -n scale-system --timeout=180s && \
         kubectl create deployment outside -n default --image=nagi.test/busybox:1 --replicas=0",
    )?;
    for namespace in ["project-a", "default"] {
        let asked = format!(
            "kubectl auth can-i patch deployments -n {namespace} --as={}; true",
            rights::user("scale-system", "scale-api-sa")
        );
        let wanted = if namespace == "default" { "no" } else { "yes" };
        ensure!(installed.output(&asked)?.trim() == wanted, "{asked}");
    }
    let app = "/api/v1/deployments/project-a/sample-app-a";
    installed.api(
        "POST",
        &format!("{app}/scale-to-zero"),
        r#"{"reason":"a test"}"#,
    )?;
    installed.settle("project-a", "sample-app-a", 0)?;
    installed.api(
        "POST",
        &format!("{app}/scale-up"),
        r#"{"replicas":1,"reason":"a test"}"#,
    )?;
    installed.settle("project-a", "sample-app-a", 1)?;
    let listed = installed.api("GET", "/api/v1/deployments", "")?;
    let listed = listed["items"].as_array().context("a list")?;
    let mut namespaces: Vec<&str> = listed
        .iter()
        .filter_map(|item| item["namespace"].as_str())
        .collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    ensure!(namespaces == ["project-a", "project-b"], "{namespaces:?}");
    let outside = installed.http(
        &format!("{API}/api/v1/deployments/default/outside/status"),
        "",
    )?;
    ensure!(
        outside.status == 404,
        "what is elsewhere is not served: {outside:?}"
    );
    crate::rights::overlay(installed, &mut log)?;
    installed.succeed("kubectl delete deployment outside -n default")
}
