//! The admission policies: what holds Nagi's accounts to counts and annotations of their own, and others out of its history.
//!
//! Each refusal is looked for with every right that there is, and what a policy refuses is taken once its binding is gone:
//! so it is the policy that refuses.

use std::time::Duration;

use anyhow::ensure;
use nagi_e2e::call::Ended;
use nagi_e2e::wait::{self, Look};

use crate::World;

/// The accounts of Nagi.
const API: &str = "scale-system/scale-api-sa";
const GATEWAY: &str = "scale-system/wake-gateway-sa";

/// Until the API server acts on a policy that was written or deleted.
const MOMENT: Duration = Duration::from_mins(1);

impl World {
    fn patch(
        &mut self,
        account: &str,
        what: &str,
        kind: &str,
        patch: &str,
    ) -> anyhow::Result<Ended> {
        let words = format!("patch {what} -n project-a --type={kind} -p");
        self.kubectl_as(account, &words)?.argument(patch).end()
    }
}

/// What a stolen token is wanted for: other code under somebody's workload.
const IMAGE: (&str, &str, &str) = (
    "image",
    r#"{"spec":{"template":{"spec":{"containers":[{"name":"sample-app-a","image":"other:1"}]}}}}"#,
    SPEC,
);

/// Patches of sample-app-a with the token of the API. Empty refusal: it is taken.
const WORKLOAD: &[(&str, &str, &str)] = &[
    (
        "count and own annotations",
        r#"{"metadata":{"annotations":{"nagi.dev/replicas":"2","nagi.dev/reason":"x"}},"spec":{"replicas":2}}"#,
        "",
    ),
    (
        "an own annotation is removed",
        r#"{"metadata":{"annotations":{"nagi.dev/reason":null}},"spec":{"replicas":0}}"#,
        "",
    ),
    IMAGE,
    ("paused", r#"{"spec":{"paused":true}}"#, SPEC),
    ("label", r#"{"metadata":{"labels":{"x":"y"}}}"#, METADATA),
    (
        "finalizer",
        r#"{"metadata":{"finalizers":["example.com/x"]}}"#,
        METADATA,
    ),
    (
        "owner",
        r#"{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"x","uid":"y"}]}}"#,
        METADATA,
    ),
    (
        "annotation of others",
        r#"{"metadata":{"annotations":{"example.com/x":"y"}}}"#,
        ANNOTATIONS,
    ),
    (
        "annotation that only looks like ours",
        r#"{"metadata":{"annotations":{"nagi.device/x":"y"}}}"#,
        ANNOTATIONS,
    ),
    (
        "annotation of others is removed",
        r#"{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":null}}}"#,
        ANNOTATIONS,
    ),
];

/// Patches of a workload of the one built-in kind without a group, with the token of the API. A kind that is not built in
/// would get away with the second.
const CORE: &[(&str, &str, &str)] = &[
    ("a count", r#"{"spec":{"replicas":1}}"#, ""),
    ("another number", r#"{"spec":{"minReadySeconds":5}}"#, SPEC),
];

const CONTROLLER: &str = r"
apiVersion: v1
kind: ReplicationController
metadata: { name: c, namespace: project-a }
spec:
  replicas: 0
  minReadySeconds: 1
  selector: { app: c }
  template:
    metadata: { labels: { app: c } }
    spec: { containers: [{ name: c, image: 'nagi.test/none:1' }] }
";

/// Patches of a custom resource, with every right that there is: only the policy stands in the way.
const CUSTOM: &[(&str, &str, &str)] = &[
    (
        "a count one level below, and own annotations",
        r#"{"metadata":{"annotations":{"nagi.dev/replicas":"2"}},"spec":{"workers":{"count":0}}}"#,
        "",
    ),
    ("a count", r#"{"spec":{"size":0}}"#, ""),
    ("image", r#"{"spec":{"image":"other"}}"#, COUNT),
    (
        "image below",
        r#"{"spec":{"workers":{"image":"other"}}}"#,
        COUNT,
    ),
    (
        "image far below",
        r#"{"spec":{"workers":{"deep":{"image":"other"}}}}"#,
        COUNT,
    ),
    (
        "a new text",
        r#"{"spec":{"workers":{"command":"other"}}}"#,
        COUNT,
    ),
    ("a text for a count", r#"{"spec":{"size":"other"}}"#, COUNT),
    ("a list", r#"{"spec":{"list":[2]}}"#, COUNT),
    ("removal", r#"{"spec":{"image":null}}"#, COUNT),
    (
        "a count that was left out",
        r#"{"spec":{"replicas":1}}"#,
        "",
    ),
    (
        "a count that was left out one level below",
        r#"{"spec":{"workers":{"replicas":1}}}"#,
        "",
    ),
    (
        "a number that is no count",
        r#"{"spec":{"runAsUser":0}}"#,
        COUNT,
    ),
    (
        "a number below that is no count",
        r#"{"spec":{"workers":{"runAsUser":0}}}"#,
        COUNT,
    ),
    (
        "a number for a text below",
        r#"{"spec":{"workers":{"image":7}}}"#,
        COUNT,
    ),
    (
        "beside spec",
        r#"{"data":{"a":"b"}}"#,
        "nothing beside spec and metadata",
    ),
];

/// Patches of the scale of a workload, whatever its kind.
const SCALE: &[(&str, &str, &str)] = &[
    ("a count", r#"{"spec":{"replicas":2}}"#, ""),
    // It is then left out of the spec.
    ("no replicas", r#"{"spec":{"replicas":0}}"#, ""),
    ("a count again", r#"{"spec":{"replicas":1}}"#, ""),
];

const SPEC: &str = "spec.replicas, and nothing else of spec";
const METADATA: &str = "no labels, owners or finalizers";
const ANNOTATIONS: &str = "annotations of nagi.dev, and no others";
const COUNT: &str = "a count of a custom resource, and nothing else of spec";

/// A kind whose count lies where no built-in kind has it.
const RUNNERS: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: runners.example.com }
spec:
  group: example.com
  scope: Namespaced
  names: { plural: runners, singular: runner, kind: Runner }
  versions:
    - name: v1
      served: true
      storage: true
      subresources:
        scale: { specReplicasPath: .spec.workers.count, statusReplicasPath: .status.replicas }
      schema:
        openAPIV3Schema: { type: object, x-kubernetes-preserve-unknown-fields: true }
";
const RUNNER: &str = r"
apiVersion: example.com/v1
kind: Runner
metadata: { name: r, namespace: project-a }
spec: { size: 1, image: a, workers: { count: 2, image: b, deep: { image: c } }, list: [1] }
";

/// Where the cluster and Nagi itself live.
const PROTECTED: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "scale-system",
];
const PROTECTION: &str = "nothing in kube-* and scale-system";
/// It only looks like one of them.
const OPEN: &str = "kubed";

// F20, K-30, W-A09: whatever their roles say. Without the policy the same patches are taken, so it is what refuses them.
pub(super) fn accounts_are_bound(world: &mut World) -> anyhow::Result<()> {
    world.install()?;
    let sample = "deployment sample-app-a";
    // A policy takes effect a moment after it was written.
    wait::until("the policy", MOMENT, || {
        let label = r#"{"metadata":{"labels":{"too":"early"}}}"#;
        let ended = world.patch(API, &format!("{sample} --dry-run=server"), "merge", label)?;
        Ok(if ended.status.success() {
            Look::NotYet("it refuses nothing yet".to_owned())
        } else {
            Look::There(())
        })
    })?;
    check(world, API, sample, WORKLOAD)?;
    world.kubectl("apply -f -")?.input(CONTROLLER).succeed()?;
    check(world, API, "replicationcontroller c", CORE)?;
    let (_, image, _) = IMAGE;
    for patch in [image, r#"{"spec":{"replicas":1}}"#] {
        let ended = world.patch(GATEWAY, sample, "strategic", patch)?;
        ensure!(
            !ended.status.success() && ended.errors.contains("cannot patch"),
            "{}",
            ended.errors
        );
    }

    world.kubectl("apply -f -")?.input(RUNNERS).succeed()?;
    world
        .kubectl("wait --for=condition=Established crd/runners.example.com --timeout=30s")?
        .succeed()?;
    world.kubectl("apply -f -")?.input(RUNNER).succeed()?;
    let everything = "create clusterrolebinding everything --clusterrole=cluster-admin \
                      --serviceaccount=scale-system:scale-api-sa --serviceaccount=scale-system:wake-gateway-sa";
    world.kubectl(everything)?.succeed()?;
    check(world, API, "runners.example.com r", CUSTOM)?;
    check(world, GATEWAY, sample, WORKLOAD)?;
    for what in [sample, "replicationcontroller c", "runners.example.com r"] {
        check(
            world,
            GATEWAY,
            &format!("{what} --subresource=scale"),
            SCALE,
        )?;
    }
    protected_namespaces(world)?;
    for kind in ["runners.example.com/r", "deployment/sample-app-a"] {
        let scale = format!("scale {kind} -n project-a --replicas=3");
        world.kubectl_as(GATEWAY, &scale)?.succeed()?;
    }
    world
        .kubectl("delete validatingadmissionpolicybinding nagi-changes-replicas-only")?
        .succeed()?;
    let taken = wait::until("a patch that the policy refused", MOMENT, || {
        let ended = world.patch(API, sample, "strategic", image)?;
        Ok(if ended.status.success() {
            Look::There(())
        } else {
            Look::NotYet(ended.errors)
        })
    });
    world
        .kubectl("delete clusterrolebinding everything")?
        .succeed()?;
    world.kubectl("delete crd runners.example.com")?.succeed()?;
    world.install()?;
    taken
}

/// With every right that there is, where what holds the cluster together runs.
fn protected_namespaces(world: &mut World) -> anyhow::Result<()> {
    world
        .kubectl(&format!("create namespace {OPEN}"))?
        .succeed()?;
    for namespace in PROTECTED.iter().chain([&OPEN]) {
        let make =
            format!("create deployment names --image=nagi.test/none:1 --replicas=0 -n {namespace}");
        world.kubectl(&make)?.succeed()?;
        // Each does what its own role would allow it.
        for (account, words) in [
            (GATEWAY, "scale deployment names --replicas=1"),
            (API, "annotate deployment names nagi.dev/reason=x"),
        ] {
            let words = format!("{words} -n {namespace} --dry-run=server");
            let ended = world.kubectl_as(account, &words)?.end()?;
            if *namespace == OPEN {
                ensure!(ended.status.success(), "{words}: {}", ended.errors);
            } else {
                ensure!(!ended.status.success(), "{account}: '{words}' is taken");
                ensure!(
                    ended.errors.contains(PROTECTION),
                    "{words}: {}",
                    ended.errors
                );
            }
        }
        let delete = format!("delete deployment names -n {namespace}");
        world.kubectl(&delete)?.succeed()?;
    }
    world
        .kubectl(&format!("delete namespace {OPEN} --wait=false"))?
        .succeed()
}

fn check(
    world: &mut World,
    actor: &str,
    what: &str,
    patches: &[(&str, &str, &str)],
) -> anyhow::Result<()> {
    for (name, patch, refusal) in patches {
        let kind = if patch.contains("containers") {
            "strategic"
        } else {
            "merge"
        };
        let ended = world.patch(actor, what, kind, patch)?;
        if refusal.is_empty() {
            ensure!(
                ended.status.success(),
                "{name} is refused: {}",
                ended.errors
            );
        } else {
            ensure!(!ended.status.success(), "{name} is taken");
            ensure!(ended.errors.contains(refusal), "{name}: {}", ended.errors);
        }
    }
    Ok(())
}

/// Somebody who may write Events in one namespace, as many accounts may. Nagi's accounts get the same, so that their roles
/// are not what decides.
const MALLORY: &str = "project-a/mallory";
const WRITERS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: { name: mallory, namespace: project-a }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: writes-events, namespace: project-a }
rules:
  - { apiGroups: ["", events.k8s.io], resources: [events], verbs: [get, create, patch] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: writes-events, namespace: project-a }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: writes-events }
subjects:
  - { kind: ServiceAccount, name: mallory, namespace: project-a }
  - { kind: ServiceAccount, name: scale-api-sa, namespace: scale-system }
  - { kind: ServiceAccount, name: wake-gateway-sa, namespace: scale-system }
"#;

const HISTORY: &str = "only Nagi writes its history";

/// What a history is read from, of a workload that is somebody else's.
const CHANGES: &str = r#""nagi.dev/changes":"[{\"actor\":\"user/alice\",\"action\":\"scale-to-zero\",\"reason\":\"forged\",\"from\":5,\"to\":0}]""#;

/// An Event of the group that Nagi writes.
fn event(name: &str, reporter: &str, annotations: &str) -> String {
    format!(
        r#"{{"apiVersion":"events.k8s.io/v1","kind":"Event",
            "metadata":{{"name":"{name}","namespace":"project-a","annotations":{{{annotations}}}}},
            "eventTime":"2026-01-02T03:04:05.000000Z","type":"Normal","reason":"Scaled","action":"Scaled",
            "reportingController":"{reporter}","reportingInstance":"x-1","note":"5 to 0",
            "regarding":{{"apiVersion":"apps/v1","kind":"Deployment","namespace":"project-a","name":"sample-app-a"}}}}"#
    )
}

/// The same of the older one.
fn core_event(name: &str, reporter: &str, annotations: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Event",
            "metadata":{{"name":"{name}","namespace":"project-a","annotations":{{{annotations}}}}},
            "type":"Normal","reason":"Scaled","message":"5 to 0",
            "reportingComponent":"{reporter}","reportingInstance":"x-1",
            "involvedObject":{{"apiVersion":"apps/v1","kind":"Deployment","namespace":"project-a","name":"sample-app-a"}}}}"#
    )
}

/// The same as of a component, as older clients say it and `kubectl describe` shows it.
fn from_source(event: &str) -> String {
    let kind = r#""kind":"Event","#;
    let source = format!(r#"{kind}"source":{{"component":"nagi.dev/scale-api"}},"#);
    event.replacen(kind, &source, 1)
}

impl World {
    fn tell(&mut self, account: &str, event: &str, more: &str) -> anyhow::Result<Ended> {
        let words = format!("create -f - {more}");
        self.kubectl_as(account, &words)?.input(event).end()
    }
}

fn taken(what: &str, ended: &Ended) -> anyhow::Result<()> {
    ensure!(ended.status.success(), "{what}: {}", ended.errors);
    Ok(())
}

fn refused(what: &str, ended: &Ended) -> anyhow::Result<()> {
    ensure!(!ended.status.success(), "{what} is taken");
    ensure!(ended.errors.contains(HISTORY), "{what}: {}", ended.errors);
    Ok(())
}

// Whoever may create Events in a namespace writes no history: neither a new one nor into what is there.
pub(super) fn history_is_ours(world: &mut World) -> anyhow::Result<()> {
    world.install()?;
    world.kubectl("apply -f -")?.input(WRITERS).succeed()?;
    let forged = event("forged", "nagi.dev/scale-api", CHANGES);
    let harmless = event("harmless", "example.com/x", r#""example.com/x":"y""#);
    wait::until("rights and the policy", MOMENT, || {
        let right = world.tell(MALLORY, &harmless, "--dry-run=server")?;
        let wrong = world.tell(MALLORY, &forged, "--dry-run=server")?;
        Ok(if right.status.success() && !wrong.status.success() {
            Look::There(())
        } else {
            Look::NotYet(format!("{}{}", right.errors, wrong.errors))
        })
    })?;
    for (what, event) in [
        ("changes and reporter", forged.clone()),
        ("changes", event("forged", "example.com/x", CHANGES)),
        ("reporter", event("forged", "nagi.dev/other", "")),
        ("changes, core", core_event("forged", "", CHANGES)),
        (
            "reporter, core",
            core_event("forged", "nagi.dev/scale-api", ""),
        ),
        // Of the other group the API server takes no source.
        ("source, core", from_source(&core_event("forged", "", ""))),
    ] {
        refused(what, &world.tell(MALLORY, &event, "")?)?;
    }
    for (what, event) in [
        ("somebody's own", harmless),
        ("without a reporter, core", core_event("older", "", "")),
        (
            "what only looks like ours",
            event(
                "alike",
                "nagi.device/x",
                r#""nagi.dev.example.com/changes":"y""#,
            ),
        ),
    ] {
        taken(what, &world.tell(MALLORY, &event, "")?)?;
    }
    into_what_is_there(world)?;
    // Whoever may change the policy is not kept out by it.
    world
        .kubectl("create -f - --dry-run=server")?
        .input(&*forged)
        .succeed()?;
    world
        .kubectl("delete validatingadmissionpolicybinding nagi-writes-its-history")?
        .succeed()?;
    let alone = wait::until("an Event that the policy refused", MOMENT, || {
        let ended = world.tell(MALLORY, &forged, "--dry-run=server")?;
        Ok(if ended.status.success() {
            Look::There(())
        } else {
            Look::NotYet(ended.errors)
        })
    });
    world.kubectl("delete -f -")?.input(WRITERS).succeed()?;
    world
        .kubectl("delete events -n project-a --all")?
        .succeed()?;
    world.install()?;
    alone
}

/// Nagi's own Events, and what others do to them, behind [`history_is_ours`].
fn into_what_is_there(world: &mut World) -> anyhow::Result<()> {
    let ours = "events.events.k8s.io ours";
    let told = event("ours", "nagi.dev/scale-api", CHANGES);
    taken("the API tells", &world.tell(API, &told, "")?)?;
    let waking = event("waking", "nagi.dev/scale-api", "");
    taken("the gateway tells", &world.tell(GATEWAY, &waking, "")?)?;
    let count = r#"{"series":{"count":2,"lastObservedTime":"2026-01-02T03:05:05.000000Z"}}"#;
    let more = format!(r#"{{"metadata":{{"annotations":{{{CHANGES}}}}}}}"#);
    let none = r#"{"metadata":{"annotations":{"nagi.dev/changes":null}}}"#;
    for (what, object, patch) in [
        ("counting ours up", ours, count),
        ("taking changes out of ours", ours, none),
        ("the same of the older group", "events ours", none),
        ("changes for somebody's own", "events harmless", &more),
    ] {
        refused(what, &world.patch(MALLORY, object, "merge", patch)?)?;
    }
    let other = r#"{"metadata":{"annotations":{"example.com/x":"z"}}}"#;
    let ended = world.patch(MALLORY, "events harmless", "merge", other)?;
    taken("another annotation of somebody's own", &ended)?;
    for (account, object) in [(API, ours), (GATEWAY, "events.events.k8s.io waking")] {
        let ended = world.patch(account, object, "merge", count)?;
        taken("counting an Event of one's own up", &ended)?;
    }
    Ok(())
}
