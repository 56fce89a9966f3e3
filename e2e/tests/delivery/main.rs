//! What is delivered to a cluster, before a real API server: it takes every object, holds Nagi's accounts to their bounds,
//! and Helm installs what kustomize does.
//!
//! No node is needed, so these tests run without root. That pods run from the manifests is shown on whole clusters.

mod chart;
mod policy;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use nagi_e2e::call::Call;
use nagi_e2e::rights;
use nagi_e2e::suite::{self, Needs, Test};
use nagi_e2e::tools;
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
        run: policy::accounts_are_bound,
    },
    Test {
        name: "nobody_but_nagi_writes_its_history",
        needs: Needs::Nothing,
        run: policy::history_is_ours,
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

/// What the tests share.
#[derive(Default)]
struct World {
    control_plane: Option<ControlPlane>,
    /// Kubeconfigs of accounts (`NAMESPACE/NAME`), as they were last installed.
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

    /// A call of kubectl with nothing but the token of an account, `NAMESPACE/NAME`.
    fn kubectl_as(&mut self, account: &str, words: &str) -> anyhow::Result<Call> {
        let call = self.kubectl(words)?;
        let control_plane = self.control_plane.as_ref().context("it was started")?;
        let kubeconfig = if let Some(known) = self.accounts.get(account) {
            known.clone()
        } else {
            let (namespace, name) = account.split_once('/').context("an account")?;
            control_plane.account(namespace, name)?
        };
        self.accounts.insert(account.to_owned(), kubeconfig.clone());
        Ok(call.environment("KUBECONFIG", kubeconfig))
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
            rights::user("scale-system", "scale-api-sa")
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
