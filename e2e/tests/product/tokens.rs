//! Users of the cluster call the Scale API with tokens of the cluster, and the cluster's own authorizer says what they may.

use anyhow::ensure;
use nagi_e2e::wait::{self, Look};

use crate::World;
use crate::installed::{API, Answer, Installed, SOON};

const STATUS: &str = "/api/v1/deployments/project-a/sample-app-a/status";
const TO_ZERO: &str = "/api/v1/deployments/project-a/sample-app-a/scale-to-zero";
const UP: &str = "/api/v1/deployments/project-a/sample-app-a/scale-up";
const OTHER: &str = "/api/v1/deployments/project-b/sample-app-b/status";

/// A call with a token that is made for it.
fn call(installed: &Installed, audience: &str, method: &str, path: &str) -> anyhow::Result<Answer> {
    let audience = format!("kubectl create token jane -n project-a --audience {audience}");
    let body = match path {
        UP => r#"-H 'Content-Type: application/json' -d '{"replicas":1,"reason":"a test"}'"#,
        TO_ZERO => r#"-H 'Content-Type: application/json' -d '{"reason":"a test"}'"#,
        _ => "",
    };
    let more = format!(r#"-X {method} -H "Authorization: Bearer $({audience})" {body}"#);
    installed.http(&format!("{API}{path}"), &more)
}

/// The API under other settings.
fn restart(installed: &Installed) -> anyhow::Result<()> {
    installed.succeed(
        "kubectl rollout restart deployment/scale-api -n scale-system && \
         kubectl rollout status deployment/scale-api -n scale-system --timeout=180s",
    )?;
    // Pods that are ending still answer for a while, under the settings that they began with.
    wait::until("the end of the old pods", SOON, || {
        let pods = installed.output(
            "kubectl get pods -n scale-system -l app.kubernetes.io/name=scale-api --no-headers",
        )?;
        Ok(if pods.lines().count() == 2 {
            Look::There(())
        } else {
            Look::NotYet(pods)
        })
    })
}

// Issue 4 item 4, K-14
pub(crate) fn all(world: &mut World) -> anyhow::Result<()> {
    let installed = world.installed()?;
    installed.succeed(
        "kubectl create configmap scale-api-config -n scale-system --from-literal=NAGI_KUBERNETES_TOKENS=true && \
         kubectl create serviceaccount jane -n project-a",
    )?;
    restart(installed)?;
    let tested = users(installed);
    installed.succeed(
        "kubectl delete configmap scale-api-config -n scale-system && \
         kubectl delete rolebinding jane-views jane-edits -n project-a --ignore-not-found && \
         kubectl delete serviceaccount jane -n project-a",
    )?;
    restart(installed)?;
    tested?;
    let open = installed.http(&format!("{API}{STATUS}"), "")?;
    ensure!(open.status == 200, "it is open again: {open:?}");
    Ok(())
}

fn users(installed: &Installed) -> anyhow::Result<()> {
    let nobody = installed.http(&format!("{API}{STATUS}"), "")?;
    ensure!(nobody.status == 401, "without a token: {nobody:?}");
    let other = call(
        installed,
        "https://kubernetes.default.svc.cluster.local",
        "GET",
        STATUS,
    )?;
    ensure!(other.status == 401, "for another audience: {other:?}");
    let refused = call(installed, "scale-api", "GET", STATUS)?;
    ensure!(
        refused.status == 403
            && refused
                .text
                .contains("may not get deployments/scale in namespace project-a"),
        "without a right: {refused:?}"
    );
    // The command that the answer names, with the roles that every cluster has.
    let bind = |name: &str, role: &str| {
        installed.succeed(&format!(
            "kubectl create rolebinding {name} -n project-a --clusterrole={role} \
             --user=system:serviceaccount:project-a:jane"
        ))
    };
    bind("jane-views", "view")?;
    expect(installed, "GET", STATUS, 200)?;
    let refused = call(installed, "scale-api", "POST", TO_ZERO)?;
    ensure!(
        refused.status == 403,
        "a viewer changes nothing: {refused:?}"
    );
    expect(installed, "GET", OTHER, 403)?;
    let list = call(installed, "scale-api", "GET", "/api/v1/workloads")?;
    ensure!(
        list.status == 200
            && list.text.contains("sample-app-a")
            && !list.text.contains("project-b"),
        "a list of what may be seen: {list:?}"
    );
    bind("jane-edits", "edit")?;
    // It may be asleep already, and then a sleep would record nothing.
    expect(installed, "POST", UP, 200)?;
    expect(installed, "POST", TO_ZERO, 200)?;
    let actor = installed.output(
        r"kubectl get deployment sample-app-a -n project-a -o 'jsonpath={.metadata.annotations.nagi\.dev/actor}'",
    )?;
    ensure!(
        actor == "user/system:serviceaccount:project-a:jane",
        "by {actor:?}"
    );
    installed.settle("project-a", "sample-app-a", 0)?;
    // What was taken away counts within ten seconds.
    installed.succeed("kubectl delete rolebinding jane-views jane-edits -n project-a")?;
    expect(installed, "GET", STATUS, 403)
}

/// Calls until the authorizer of the cluster, and the one answer that we keep, have come to it.
fn expect(installed: &Installed, method: &str, path: &str, status: u16) -> anyhow::Result<()> {
    wait::until(&format!("{status} for {method} {path}"), SOON, || {
        let answer = call(installed, "scale-api", method, path)?;
        Ok(if answer.status == status {
            Look::There(())
        } else {
            Look::NotYet(format!("{answer:?}"))
        })
    })
}
