//! Least privilege: what the shipped roles grant is what Nagi does, no more and no less.
//!
//! The API server's audit log of the whole run is compared with the roles in the manifests. So each right must be used, and
//! what the other tests do not use is used here, part by part: a new rule needs its part. What somebody does by hand with the
//! same account does not count.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, ensure};
use nagi_e2e::rights::{self, AuditLog, Right};
use nagi_e2e::wait::{self, Look};
use serde_json::Value;

use crate::World;
use crate::installed::{API, Installed, SOON};
use crate::workload::Workload;

const NAMESPACE: &str = "scale-system";

/// Until what was begun is in the log: the events of pods that wait are read every three seconds.
const LIMIT: Duration = Duration::from_mins(1);

/// A node that a pod brings back stays for this long.
const EMPTY_FOR: Duration = Duration::from_mins(10);

/// An account, the manifests with its roles, and what they grant although it is not used.
struct Account {
    name: &'static str,
    manifests: &'static str,
    unused: &'static [&'static str],
}

const ACCOUNTS: [Account; 2] = [
    Account {
        name: "scale-api-sa",
        manifests: "src/api",
        // A-017: people ask `kubectl auth can-i` for it.
        unused: &["update deployments.apps"],
    },
    Account {
        name: "wake-gateway-sa",
        manifests: "manifests/gateway",
        unused: &[],
    },
];

/// One of each kind that Nagi knows by itself.
const WORKLOADS: [Workload; 4] = [
    Workload {
        kind: "Deployment",
        name: "a-deployment",
        project: "a",
    },
    Workload {
        kind: "StatefulSet",
        name: "a-statefulset",
        project: "a",
    },
    Workload {
        kind: "ReplicaSet",
        name: "a-replicaset",
        project: "a",
    },
    Workload {
        kind: "ReplicationController",
        name: "a-controller",
        project: "a",
    },
];

/// Its pod waits for a node that does not come, so the events about it are read.
const WAITING: Workload = Workload {
    kind: "Deployment",
    name: "waits",
    project: "nobody",
};

/// Makes Nagi use some of its rights.
type Part = fn(&Installed) -> anyhow::Result<()>;

/// What uses the rights that Nagi does not use by itself from its start on.
const PARTS: &[(&str, Part)] = &[
    ("what is not there is looked for", not_there),
    ("counts are patched", scaled),
    ("nodes, logs and history are read", told),
    ("an Event is counted up", told_twice),
    ("a wake that is refused is looked at", refused),
    ("requests wake", woken),
    // The last: from then on nobody is let in without a token.
    ("tokens and rights of people are reviewed", tokens),
];

// F20, A-017, K-30
pub(crate) fn all(world: &mut World) -> anyhow::Result<()> {
    let installed = world.installed()?;
    let _autoscaler = installed.cluster.autoscale(EMPTY_FOR)?;
    installed.settle(NAMESPACE, "scale-api", 2)?;
    installed.settle(NAMESPACE, "wake-gateway", 2)?;
    for workload in &WORKLOADS {
        workload.apply(installed, 0)?;
    }
    WAITING.apply(installed, 1)?;
    let used = PARTS
        .iter()
        .try_for_each(|(what, part)| part(installed).with_context(|| (*what).to_owned()));
    let judged = match used {
        Ok(()) => judge(installed),
        // Perhaps because of a right that it has not.
        Err(error) => Err(error.context(refused_so_far(installed)?)),
    };
    for workload in WORKLOADS.iter().chain([&WAITING]) {
        workload.delete(installed)?;
    }
    judged
}

fn judge(installed: &Installed) -> anyhow::Result<()> {
    let mut log = AuditLog::open(&installed.cluster.control_plane().audit_log());
    for account in &ACCOUNTS {
        let granted = granted(installed, account.manifests, account.name)?;
        ensure!(
            !granted.is_empty(),
            "{} has no role in {}",
            account.name,
            account.manifests
        );
        let user = rights::user(NAMESPACE, account.name);
        wait::until(
            &format!("{} to use its rights, and no others", account.name),
            LIMIT,
            || {
                let wrong = rights::differences(&granted, &log.calls(&user)?, account.unused);
                Ok(if wrong.is_empty() {
                    Look::There(())
                } else {
                    Look::NotYet(wrong.join("\n"))
                })
            },
        )?;
        report(account, &granted);
    }
    Ok(())
}

/// Which calls were refused that no rule grants.
fn refused_so_far(installed: &Installed) -> anyhow::Result<String> {
    let mut log = AuditLog::open(&installed.cluster.control_plane().audit_log());
    let mut text = String::from("some rights could not be used");
    for account in &ACCOUNTS {
        let calls = log.calls(&rights::user(NAMESPACE, account.name))?;
        for call in rights::missing(
            &granted(installed, account.manifests, account.name)?,
            &calls,
        ) {
            write!(text, "; {}: {call}", account.name)?;
        }
    }
    Ok(text)
}

/// What manifests grant an account, as they are applied.
fn granted(
    installed: &Installed,
    manifests: &str,
    account: &str,
) -> anyhow::Result<BTreeSet<Right>> {
    let text = installed.output(&format!("kubectl kustomize {manifests}"))?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).context("read objects")?;
    rights::granted(&objects, NAMESPACE, account)
}

/// What the overlay with Roles only grants is enough for all that was done with it, as `log` has it, and nothing that
/// [`all`] did not see used.
pub(crate) fn overlay(installed: &Installed, log: &mut AuditLog) -> anyhow::Result<()> {
    let [api, _] = &ACCOUNTS;
    let overlay = granted(installed, "deploy/namespaced", api.name)?;
    let mut wrong = rights::missing(&overlay, &log.calls(&rights::user(NAMESPACE, api.name))?);
    // Whoever wants custom kinds grants it in the cluster as a whole; without it they are not looked for.
    wrong.retain(|call| !call.contains("'list customresourcedefinitions.apiextensions.k8s.io'"));
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let whole = granted(installed, api.manifests, api.name)?;
    let judged: BTreeSet<Right> = whole.iter().map(Right::of_any).collect();
    for right in &overlay {
        ensure!(
            judged.contains(&right.of_any()),
            "only the overlay grants '{right}'"
        );
    }
    Ok(())
}

fn not_there(installed: &Installed) -> anyhow::Result<()> {
    for workload in &WORKLOADS {
        let path = format!(
            "{API}/api/v1/{}/project-a/nobody/status",
            workload.resource()
        );
        let answer = installed.http(&path, "")?;
        ensure!(answer.status == 404, "{path}: {answer:?}");
    }
    Ok(())
}

fn scaled(installed: &Installed) -> anyhow::Result<()> {
    for workload in &WORKLOADS {
        let path = path(workload);
        let up = r#"{"replicas":1,"reason":"a test"}"#;
        installed.api("POST", &format!("{path}/scale-up"), up)?;
        installed.settle_workload(workload.kind, "project-a", workload.name, 1)?;
    }
    Ok(())
}

/// Their pods run since [`scaled`].
fn told(installed: &Installed) -> anyhow::Result<()> {
    let [deployment, ..] = &WORKLOADS;
    let logs = format!("{}/logs", path(deployment));
    for path in ["/api/v1/pools", "/api/v1/history", &logs] {
        installed.api("GET", path, "")?;
    }
    for workload in &WORKLOADS {
        sleep(installed, workload)?;
    }
    Ok(())
}

/// The same change twice in a short time, told by the same replica.
fn told_twice(installed: &Installed) -> anyhow::Result<()> {
    let [deployment, ..] = &WORKLOADS;
    let address = a_pod_of(installed, "scale-api")?;
    for _ in 0..2 {
        for (verb, body) in [
            ("scale-up", r#"{"replicas":1,"reason":"again"}"#),
            ("scale-to-zero", r#"{"reason":"again"}"#),
        ] {
            let url = format!("http://{address}:8080{}/{verb}", path(deployment));
            let more = format!("-H 'Content-Type: application/json' -d '{body}'");
            let answer = installed.http(&url, &more)?;
            ensure!(answer.status == 200, "{url}: {answer:?}");
        }
    }
    installed.settle_workload(deployment.kind, "project-a", deployment.name, 0)
}

/// While this exists the API server refuses the gateway's wakes, with the status that it has for a test that does not hold.
const REFUSAL: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: { name: a-test-refuses-wakes }
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{ apiGroups: ["", apps], apiVersions: ["*"], operations: [UPDATE], resources: ["*/scale"] }]
  validations: [{ expression: "false", message: a test refuses it, reason: Invalid }]
  matchConditions:
  - { name: by-the-gateway, expression: "request.userInfo.username == 'system:serviceaccount:scale-system:wake-gateway-sa'" }
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: { name: a-test-refuses-wakes }
spec: { policyName: a-test-refuses-wakes, validationActions: [Deny] }
"#;

/// The gateway does not know whether somebody else was faster, and looks.
fn refused(installed: &Installed) -> anyhow::Result<()> {
    refusal(installed, true)?;
    let address = a_pod_of(installed, "wake-gateway")?;
    let refused = WORKLOADS.iter().try_for_each(|workload| {
        let answer = request(installed, &address, workload)?;
        ensure!(
            answer.status == 503,
            "a wake that is refused is no success: {answer:?}"
        );
        Ok(())
    });
    refusal(installed, false)?;
    refused
}

/// Makes the refusal take effect, or end.
fn refusal(installed: &Installed, is_wanted: bool) -> anyhow::Result<()> {
    let verb = if is_wanted { "apply" } else { "delete" };
    installed.succeed(&format!(
        "kubectl {verb} -f - <<'REFUSAL'\n{REFUSAL}\nREFUSAL"
    ))?;
    let [deployment, ..] = &WORKLOADS;
    let probe = format!(
        "kubectl scale deployment {} -n project-a --replicas=1 --dry-run=server --as={}",
        deployment.name,
        rights::user(NAMESPACE, "wake-gateway-sa")
    );
    wait::until("a policy to take effect", SOON, || {
        let ended = installed.end(&probe)?;
        Ok(if ended.status.success() == is_wanted {
            Look::NotYet(format!("{}{}", ended.output, ended.errors))
        } else {
            Look::There(())
        })
    })
}

/// The first of them twice, by the same gateway: its Event is counted up.
fn woken(installed: &Installed) -> anyhow::Result<()> {
    let address = a_pod_of(installed, "wake-gateway")?;
    let [deployment, ..] = &WORKLOADS;
    for workload in WORKLOADS.iter().chain([deployment]) {
        let answer = request(installed, &address, workload)?;
        ensure!(answer.status == 200, "{}: {answer:?}", workload.name);
        sleep(installed, workload)?;
    }
    Ok(())
}

/// Somebody who has rights in the cluster, and no key of ours.
fn tokens(installed: &Installed) -> anyhow::Result<()> {
    installed.succeed(
        "kubectl create configmap scale-api-config -n scale-system --from-literal=NAGI_KUBERNETES_TOKENS=true
         kubectl create rolebinding a-test-views -n project-a --clusterrole=view --serviceaccount=project-a:default
         kubectl rollout restart deployment/scale-api -n scale-system
         kubectl rollout status deployment/scale-api -n scale-system --timeout=180s",
    )?;
    let token = r#"-H "Authorization: Bearer $(kubectl create token default -n project-a --audience scale-api)""#;
    let [deployment, ..] = &WORKLOADS;
    let answer = installed.http(&format!("{API}{}/status", path(deployment)), token);
    // Nobody waits for it: no test comes behind this one that needs an API without keys.
    installed.succeed(
        "kubectl delete configmap scale-api-config -n scale-system
         kubectl delete rolebinding a-test-views -n project-a
         kubectl rollout restart deployment/scale-api -n scale-system",
    )?;
    let answer = answer?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

fn request(
    installed: &Installed,
    address: &str,
    workload: &Workload,
) -> anyhow::Result<crate::installed::Answer> {
    let host = format!("-H 'Host: {}.project-a.localhost'", workload.name);
    installed.http(&format!("http://{address}:8000/"), &host)
}

fn sleep(installed: &Installed, workload: &Workload) -> anyhow::Result<()> {
    let path = format!("{}/scale-to-zero", path(workload));
    installed.api("POST", &path, r#"{"reason":"a test"}"#)?;
    installed.settle_workload(workload.kind, "project-a", workload.name, 0)
}

fn path(workload: &Workload) -> String {
    format!(
        "/api/v1/{}/project-a/{}",
        workload.resource(),
        workload.name
    )
}

/// The address of one pod, always the same while nothing is rolled out.
fn a_pod_of(installed: &Installed, name: &str) -> anyhow::Result<String> {
    installed.output(&format!(
        "kubectl get pods -n {NAMESPACE} -l app.kubernetes.io/name={name} -o 'jsonpath={{.items[0].status.podIP}}'"
    ))
}

#[expect(
    clippy::print_stdout,
    reason = "for the person who reads the report of the tests"
)]
fn report(account: &Account, granted: &BTreeSet<Right>) {
    println!(
        "product: {} has {} rights and uses all but {}",
        account.name,
        granted.len(),
        account.unused.len()
    );
}
