//! The Helm chart, by Helm itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use nagi_e2e::call::Call;
use nagi_e2e::tools;
use serde_json::Value;

use crate::{World, root};

const CHART: &str = "deploy/helm/nagi";
const PLACE: [&str; 2] = ["--namespace", "scale-system"];

/// What kustomize and Helm each leave to the other.
const NAMESPACE: &str = "Namespace scale-system";

fn helm(words: &str) -> anyhow::Result<Call> {
    let program = tools::HELM.build()?.program("helm");
    Ok(Call::new(program)
        .within(&root())
        .arguments(words.split_whitespace()))
}

impl World {
    /// A call of Helm against the control plane.
    fn helm(&mut self, words: &str) -> anyhow::Result<Call> {
        self.start()?;
        let control_plane = self.control_plane.as_ref().context("it was started")?;
        Ok(helm(words)?
            .arguments(PLACE)
            .environment("KUBECONFIG", control_plane.kubeconfig()))
    }
}

/// Objects by kind and name.
fn objects(text: &str) -> anyhow::Result<BTreeMap<String, Value>> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(text).context("read objects")?;
    let named = objects.into_iter().map(|object| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = format!(
            "{} {}",
            text(&object["kind"]),
            text(&object["metadata"]["name"])
        );
        (name, object)
    });
    Ok(named.collect())
}

// One source, two ways: object for object, field for field.
pub(super) fn renders_what_kustomize_renders(world: &mut World) -> anyhow::Result<()> {
    helm(&format!("lint {CHART} --strict"))?
        .arguments(PLACE)
        .succeed()?;
    let parts = ["src/api", "manifests/gateway", "deploy/guard"];
    renders_as(world, "", &parts[..2])?;
    renders_as(world, "--set guard.enabled=true", &parts)
}

fn renders_as(world: &mut World, values: &str, directories: &[&str]) -> anyhow::Result<()> {
    let by_helm = helm(&format!(
        "template nagi {CHART} --no-hooks --kube-version 1.30.0 {values}"
    ))?;
    let by_helm = objects(&by_helm.arguments(PLACE).output()?)?;
    let mut by_kustomize = BTreeMap::new();
    for directory in directories {
        by_kustomize.extend(objects(
            &world.kubectl(&format!("kustomize {directory}"))?.output()?,
        )?);
    }
    by_kustomize.remove(NAMESPACE);
    for (name, object) in &by_kustomize {
        let other = by_helm
            .get(name)
            .with_context(|| format!("Helm renders no {name}"))?;
        ensure!(object == other, "{name} differs:\n{object}\n{other}");
    }
    ensure!(
        by_helm.len() == by_kustomize.len(),
        "Helm renders more: {:?}",
        by_helm.keys()
    );
    Ok(())
}

pub(super) fn refuses_unknown_values(_world: &mut World) -> anyhow::Result<()> {
    for (values, said) in [
        ("--set replicas=3", "replicas"),
        ("--set api.replica=3", "replica"),
        ("--set api.replicas=none", "api"),
        ("--set image=", "image"),
        ("--set image=scale-api", "image"),
    ] {
        let ended = helm(&format!("template nagi {CHART} {values}"))?
            .arguments(PLACE)
            .end()?;
        ensure!(!ended.status.success(), "{values} is taken");
        ensure!(ended.errors.contains(said), "{values}: {}", ended.errors);
    }
    let ended = helm(&format!("template nagi {CHART} --namespace other"))?.end()?;
    ensure!(
        !ended.status.success()
            && ended
                .errors
                .contains("--namespace scale-system --create-namespace"),
        "{}",
        ended.errors
    );
    let fewer = helm(&format!(
        "template nagi {CHART} --no-hooks --set gateway.enabled=false"
    ))?;
    let fewer = objects(&fewer.arguments(PLACE).output()?)?;
    ensure!(fewer.contains_key("Deployment scale-api"));
    ensure!(!fewer.keys().any(|name| name.contains("wake-gateway")));
    Ok(())
}

pub(super) fn installs_upgrades_and_uninstalls(world: &mut World) -> anyhow::Result<()> {
    for directory in ["manifests/gateway", "src/api"] {
        let delete = format!("delete -k {directory} --ignore-not-found --wait");
        world.kubectl(&delete)?.succeed()?;
    }
    let directory = tempfile::tempdir().context("a directory")?;
    let former = former(directory.path())?;
    let install = format!(
        "install nagi {} --create-namespace --set image=scale-api:0.0.1",
        former.display()
    );
    world.helm(&install)?.succeed()?;
    ensure!(image(world)? == "scale-api:0.0.1");
    world
        .helm(&format!("upgrade nagi {CHART} --set api.replicas=3"))?
        .succeed()?;
    ensure!(image(world)? == format!("scale-api:{}", env!("CARGO_PKG_VERSION")));
    world.helm("rollback nagi 1")?.succeed()?;
    ensure!(image(world)? == "scale-api:0.0.1", "back again");

    // Without nodes nobody can wake what sleeps: the uninstallation stops before it takes anything away.
    let ended = world.helm("uninstall nagi --timeout 5s")?.end()?;
    ensure!(!ended.status.success(), "it went on without waking anybody");
    ensure!(
        image(world)? == "scale-api:0.0.1",
        "everything is still there"
    );
    world.helm("uninstall nagi --no-hooks")?.succeed()?;
    let left = "get deployments,services,clusterroles,validatingadmissionpolicies \
                --all-namespaces -l app.kubernetes.io/part-of=nagi -o name";
    let left = world.kubectl(left)?.output()?;
    ensure!(left.is_empty(), "left: {left}");
    world
        .kubectl("delete namespace scale-system --wait")?
        .succeed()
}

fn image(world: &mut World) -> anyhow::Result<String> {
    let get = "get deployment scale-api -n scale-system \
               -o jsonpath={.spec.template.spec.containers[0].image}";
    world.kubectl(get)?.output()
}

/// The chart as an earlier version of itself.
fn former(directory: &Path) -> anyhow::Result<PathBuf> {
    let copy = directory.join("nagi");
    Call::new("cp")
        .argument("-r")
        .argument(root().join(CHART))
        .argument(&copy)
        .succeed()?;
    let file = copy.join("Chart.yaml");
    let text = std::fs::read_to_string(&file).context("read the chart")?;
    let version = format!("ersion: {}", env!("CARGO_PKG_VERSION"));
    let text = text.replace(&version, "ersion: 0.0.1");
    ensure!(text.contains("version: 0.0.1") && text.contains("appVersion: 0.0.1"));
    std::fs::write(&file, text).context("write the chart")?;
    Ok(copy)
}
