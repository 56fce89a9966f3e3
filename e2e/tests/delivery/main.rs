//! What is delivered to a cluster, before a real API server: it takes every object, holds Nagi's accounts to their bounds,
//! and Helm installs what kustomize does.
//!
//! No node is needed, so these tests run without root. That pods run from the manifests is shown on whole clusters.

mod chart;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use nagi_e2e::call::{Call, Ended};
use nagi_e2e::rights;
use nagi_e2e::suite::{self, Needs, Test};
use nagi_e2e::tools;
use nagi_e2e::wait::{self, Look};
use nagi_e2e::{ControlPlane, Options, Where};

const TESTS: &[Test<World>] = &[
    Test {
        name: "every_manifest_is_taken_and_can_be_deleted_and_applied_again",
        needs: Needs::Nothing,
        run: manifests_are_taken,
    },
    Test {
        name: "patches_of_the_founding_documents_are_taken",
        needs: Needs::Nothing,
        run: founding_patches,
    },
    Test {
        name: "applying_again_keeps_the_rights_for_other_kinds",
        needs: Needs::Nothing,
        run: aggregated_rights_stay,
    },
    Test {
        name: "accounts_of_nagi_change_counts_and_their_own_annotations_only",
        needs: Needs::Nothing,
        run: accounts_are_bound,
    },
    Test {
        name: "helm_renders_what_kustomize_renders",
        needs: Needs::Nothing,
        run: chart::renders_what_kustomize_renders,
    },
    Test {
        name: "helm_refuses_what_the_chart_does_not_know",
        needs: Needs::Nothing,
        run: chart::refuses_unknown_values,
    },
    Test {
        name: "helm_installs_upgrades_and_uninstalls",
        needs: Needs::Nothing,
        run: chart::installs_upgrades_and_uninstalls,
    },
    Test {
        name: "what_the_double_is_trusted_with_a_real_api_server_does",
        needs: Needs::Nothing,
        run: conformance,
    },
    Test {
        name: "a_dead_cluster_is_diagnosed_as_a_real_etcd_and_a_real_kubectl_say",
        needs: Needs::Nothing,
        run: diagnosis,
    },
];

/// The accounts of Nagi.
const API: &str = "scale-api-sa";
const GATEWAY: &str = "wake-gateway-sa";

/// Until the API server acts on a policy that was written or deleted.
const MOMENT: Duration = Duration::from_mins(1);

/// What the tests share.
#[derive(Default)]
struct World {
    control_plane: Option<ControlPlane>,
    /// Kubeconfigs of the accounts of Nagi, as they were last installed.
    accounts: BTreeMap<String, PathBuf>,
}

// === impl World ===

impl World {
    fn start(&mut self) -> anyhow::Result<()> {
        if self.control_plane.is_none() {
            let options = Options {
                place: Where::Loopback,
                ..Options::default()
            };
            self.control_plane = Some(ControlPlane::start("delivery", &options)?);
        }
        Ok(())
    }

    /// A call of kubectl from the root of the working copy.
    fn kubectl(&mut self, words: &str) -> anyhow::Result<Call> {
        self.start()?;
        let control_plane = self.control_plane.as_ref().context("it was started")?;
        let call = control_plane.kubectl().within(&root());
        Ok(call.arguments(words.split_whitespace()))
    }

    /// Applies what other tests may have changed.
    fn install(&mut self) -> anyhow::Result<()> {
        for directory in ["src/api", "manifests/gateway", "src/samples/app-a"] {
            self.kubectl(&format!("apply -k {directory}"))?.succeed()?;
        }
        // An account that was deleted and made again takes no older token.
        self.accounts.clear();
        Ok(())
    }

    /// A call of kubectl with nothing but the token of an account of Nagi.
    fn kubectl_as(&mut self, account: &str, words: &str) -> anyhow::Result<Call> {
        let call = self.kubectl(words)?;
        let control_plane = self.control_plane.as_ref().context("it was started")?;
        let kubeconfig = match self.accounts.get(account) {
            Some(known) => known.clone(),
            None => control_plane.account("scale-system", account)?,
        };
        self.accounts.insert(account.to_owned(), kubeconfig.clone());
        Ok(call.environment("KUBECONFIG", kubeconfig))
    }

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

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn main() -> ExitCode {
    suite::run(TESTS)
}

// F21, A-015, A-019, A-014, A-023, A-084
fn manifests_are_taken(world: &mut World) -> anyhow::Result<()> {
    world.install()?;
    for what in [
        "apply -k src/samples/app-b",
        "apply -f manifests/nvidia-plugin/",
        "apply -k deploy/namespaced --dry-run=server",
    ] {
        world.kubectl(what)?.succeed()?;
    }
    for _ in 0..2 {
        for what in [
            "delete -f src/api/manifests/",
            "apply -f src/api/manifests/",
            "delete svc scale-api -n scale-system",
            "apply -f src/api/manifests/service.yaml",
            "delete sa scale-api-sa -n scale-system",
            "apply -f src/api/manifests/serviceaccount.yaml",
            "apply -f src/api/manifests/rbac.yaml",
            "delete deployment sample-app-a -n project-a",
            "apply -f src/samples/app-a/manifests/deployment.yaml",
            "apply -f src/samples/app-a/manifests/",
            "apply -f src/samples/app-b/manifests/",
        ] {
            world.kubectl(what)?.succeed()?;
        }
    }
    for verb in ["get", "list", "update"] {
        let asked = format!(
            "auth can-i {verb} deployments --as={}",
            rights::user("scale-system", API)
        );
        ensure!(world.kubectl(&asked)?.output()?.trim() == "yes", "{asked}");
    }
    Ok(())
}

// F10, F21, F22, A-024, A-028, A-034, A-035, A-040, A-042, A-088
fn founding_patches(world: &mut World) -> anyhow::Result<()> {
    world.install()?;
    let container = |fields: &str| {
        format!(
            r#"{{"spec":{{"template":{{"spec":{{"containers":[{{"name":"scale-api",{fields}}}]}}}}}}}}"#
        )
    };
    for fields in [
        r#""env":[{"name":"API_KEY","value":""}]"#,
        r#""env":[{"name":"API_KEY","value":"new-api-key"}]"#,
        r#""env":[{"name":"LOG_LEVEL","value":"debug"}]"#,
        r#""resources":{"requests":{"memory":"256Mi","cpu":"200m"},"limits":{"memory":"512Mi","cpu":"500m"}}"#,
    ] {
        world
            .kubectl("patch deployment scale-api -n scale-system -p")?
            .argument(container(fields))
            .succeed()?;
    }
    for patch in [
        r#"{"spec":{"replicas":1}}"#,
        r#"{"spec":{"template":{"spec":{"nodeSelector":{"project":"a"}}}}}"#,
    ] {
        world
            .kubectl("patch deployment sample-app-a -n project-a -p")?
            .argument(patch)
            .succeed()?;
    }
    for what in [
        "set image deployment/scale-api scale-api=scale-api:2 -n scale-system",
        "scale deployment scale-api --replicas=3 -n scale-system",
        "rollout restart deployment/scale-api -n scale-system",
        "scale deployment sample-app-a --replicas=0 -n project-a",
    ] {
        world.kubectl(what)?.succeed()?;
    }
    Ok(())
}

// The cluster gathers rules into this role; a manifest with `rules: []` would take them away each time.
fn aggregated_rights_stay(world: &mut World) -> anyhow::Result<()> {
    world.install()?;
    for (role, manifest) in [
        ("scale-api-custom-kinds", "src/api"),
        ("wake-gateway-custom-kinds", "manifests/gateway"),
    ] {
        let rules =
            r#"{"rules":[{"apiGroups":["example.com"],"resources":["runners"],"verbs":["get"]}]}"#;
        world
            .kubectl(&format!("patch clusterrole {role} --type=merge -p"))?
            .argument(rules)
            .succeed()?;
        let ended = world.kubectl(&format!("apply -k {manifest}"))?.end()?;
        ensure!(ended.status.success(), "{}", ended.errors);
        let unchanged = format!("clusterrole.rbac.authorization.k8s.io/{role} unchanged");
        ensure!(ended.output.contains(&unchanged), "{}", ended.output);
    }
    Ok(())
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
        "beside spec",
        r#"{"data":{"a":"b"}}"#,
        "nothing beside spec and metadata",
    ),
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

// F20, K-30, W-A09: whatever their roles say. Without the policy the same patches are taken, so it is what refuses them.
fn accounts_are_bound(world: &mut World) -> anyhow::Result<()> {
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

/// Tests of the adapter against this API server: the suite that its double passes too, and the engine itself.
const ON_A_REAL_ONE: [&str; 7] = [
    "test",
    "--package",
    "nagi-kube",
    "--test",
    "real",
    "--locked",
    "--quiet",
];

/// Building them takes the most of it.
const CONFORMANCE_LIMIT: Duration = Duration::from_mins(15);

// A difference between the double and a real API server fails. After its restart the real one has forgotten its first
// versions, as any has after some hours.
fn conformance(world: &mut World) -> anyhow::Result<()> {
    world.start()?;
    let control_plane = world.control_plane.as_mut().context("it was started")?;
    control_plane.restart("kube-apiserver")?;
    control_plane.wait_until_ready()?;
    nagi_e2e::cargo()
        .arguments(ON_A_REAL_ONE)
        .environment("NAGI_TEST_KUBECONFIG", control_plane.kubeconfig())
        .within(&root())
        .limit(CONFORMANCE_LIMIT)
        .succeed()
}

/// With all rounds, a hundred stores are filled and mended, of which each takes up to half a minute.
const ON_REAL_PROGRAMS_LIMIT: Duration = Duration::from_mins(75);

/// Tests of `nagi recover` that need real programs.
const ON_REAL_PROGRAMS: [&str; 8] = [
    "test",
    "--package",
    "nagi-cli",
    "--test",
    "real",
    "--locked",
    "--",
    "--nocapture",
];

// B11, B12: classes, sizes and alarms as those who are asked on a bad day have them.
fn diagnosis(world: &mut World) -> anyhow::Result<()> {
    world.start()?;
    let control_plane = world.control_plane.as_mut().context("it was started")?;
    control_plane.wait_until_ready()?;
    let (etcd, kubernetes) = (tools::ETCD.build()?, tools::KUBERNETES.build()?);
    let programs = [etcd.program("etcd"), kubernetes.program("kubectl")];
    let directories = programs.iter().filter_map(|program| program.parent());
    let directories = std::env::join_paths(directories).context("name directories")?;
    nagi_e2e::cargo()
        .arguments(ON_REAL_PROGRAMS)
        .environment("NAGI_TEST_PROGRAMS", directories)
        .environment("NAGI_TEST_KUBECONFIG", control_plane.kubeconfig())
        .within(&root())
        .limit(ON_REAL_PROGRAMS_LIMIT)
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
