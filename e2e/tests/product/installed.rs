//! A cluster with Nagi and both samples on it, and a shell as a person has it there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nagi_e2e::call::{Call, Ended, search_path};
use nagi_e2e::oci::{Content, Image};
use nagi_e2e::rights;
use nagi_e2e::wait::{self, Look};
use nagi_e2e::{Cluster, ClusterOptions, NodeKind, tools};
use serde_json::Value;

/// The archives of `cargo xtask image --samples`.
const ARCHIVES: [&str; 3] = ["scale-api.tar", "sample-app-a.tar", "sample-app-b.tar"];

/// The directories that a person applies, in this order.
const APPLIED: [&str; 4] = [
    "src/api",
    "manifests/gateway",
    "src/samples/app-a",
    "src/samples/app-b",
];

/// A small image with `nslookup`, for the one command that asks a pod for a name.
const BUSYBOX: &str = "/bin/busybox";
const BUSYBOX_IMAGE: &str = "nagi.test/busybox:1";
/// The pod of that image; it is where it keeps no node from going.
pub(crate) const TEST_POD: &str = "test-pod";

/// The kind of KEDA's autoscalers, as far as Nagi reads it: without it there is nothing to list and watch.
const SCALED_OBJECTS: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: scaledobjects.keda.sh }
spec:
  group: keda.sh
  scope: Namespaced
  names: { plural: scaledobjects, singular: scaledobject, kind: ScaledObject }
  versions:
    - name: v1alpha1
      served: true
      storage: true
      schema:
        openAPIV3Schema: { type: object, x-kubernetes-preserve-unknown-fields: true }
";

/// What a pod needs to start or to end, on two cores that others use too.
pub(crate) const SOON: Duration = Duration::from_mins(3);

/// The Scale API under the name of its Service.
pub(crate) const API: &str = "http://scale-api.scale-system.svc.cluster.local";

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
    /// Until the last byte.
    pub(crate) took: Duration,
}

/// Nagi on a cluster.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) cluster: Cluster,
    /// Where commands run: it holds links to what the repository ships, and takes what they write.
    directory: tempfile::TempDir,
}

/// The root of the working copy.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

// === impl Installed ===

impl Installed {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let archives: Vec<PathBuf> = ARCHIVES
            .iter()
            .map(|name| root().join("target/image").join(name))
            .collect();
        for archive in &archives {
            ensure!(
                archive.is_file(),
                "there is no {}\nhint: run 'cargo xtask image --samples'",
                archive.display()
            );
        }
        let directory = tempfile::tempdir().context("make a directory")?;
        for name in ["src", "manifests", "tests", "deploy"] {
            std::os::unix::fs::symlink(root().join(name), directory.path().join(name))
                .with_context(|| format!("link {name}"))?;
        }
        let cluster = Cluster::start("product", &ClusterOptions::default())?;
        let installed = Self { cluster, directory };
        for archive in &archives {
            installed.cluster.load_image(archive)?;
        }
        installed.load_busybox()?;
        installed
            .bash("kubectl apply -f -")?
            .input(SCALED_OBJECTS)
            .succeed()?;
        installed.apply()?;
        Ok(installed)
    }

    /// Brings back the nodes that another test has sent away.
    pub(crate) fn complete(&mut self) -> anyhow::Result<()> {
        let there = self.output("kubectl get nodes --output=name")?;
        for kind in NodeKind::standard() {
            if !there.contains(&format!("node/{}\n", kind.name)) {
                self.cluster.add_node(&kind)?;
            }
        }
        Ok(())
    }

    /// What the installation page says.
    pub(crate) fn apply(&self) -> anyhow::Result<()> {
        for directory in APPLIED {
            self.succeed(&format!("kubectl apply -k {directory}"))?;
        }
        for (name, port) in [("scale-api", 80), ("wake-gateway", 9090)] {
            self.succeed(&format!(
                "kubectl rollout status deployment/{name} -n scale-system --timeout=180s"
            ))?;
            // Pods that are ready are not yet behind the address of their Service: kube-proxy writes its rules a moment later.
            let health = format!("http://{name}.scale-system.svc.cluster.local:{port}/health");
            wait::until(&format!("{name} behind its Service"), SOON, || {
                let ended = self.end(&format!(
                    "curl --disable --silent --show-error --fail --max-time 2 {health}"
                ))?;
                Ok(if ended.status.success() {
                    Look::There(())
                } else {
                    Look::NotYet(ended.errors)
                })
            })?;
        }
        Ok(())
    }

    fn load_busybox(&self) -> anyhow::Result<()> {
        let archive = self.directory.path().join("busybox.tar");
        Image::new()
            .file("bin/busybox", 0o755, 0, Content::File(BUSYBOX.into()))
            .link("bin/nslookup", "busybox")
            .environment("PATH", "/bin")
            .entrypoint(["/bin/busybox", "sleep"])
            .arguments(["1000000"])
            .user(65532)
            .write(&archive, BUSYBOX_IMAGE)?;
        self.cluster.load_image(&archive)?;
        self.succeed(&format!(
            "kubectl run {TEST_POD} --image={BUSYBOX_IMAGE} --image-pull-policy=Never \
             --overrides='{{\"spec\":{{\"nodeSelector\":{{\"agentpool\":\"system\"}}}}}}' && \
             kubectl wait pod/{TEST_POD} --for=condition=Ready --timeout=120s"
        ))
    }

    /// The directory in which commands run, and their `HOME`.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A call of bash inside the cluster, as a person with its kubeconfig has it.
    pub(crate) fn bash(&self, script: &str) -> anyhow::Result<Call> {
        let kubernetes = tools::KUBERNETES.build()?;
        let path = search_path()?;
        let programs = kubernetes.directory().display();
        // Whoever enters another mount namespace is at its root.
        let directory = self.directory.path().display();
        Ok(self
            .cluster
            .inside("bash")?
            .arguments(["--noprofile", "--norc", "-c"])
            .argument(format!("set -o pipefail; cd {directory} || exit\n{script}"))
            .environment("PATH", format!("{programs}:{path}"))
            .environment("KUBECONFIG", self.cluster.kubeconfig())
            .environment("HOME", self.directory.path())
            .environment("LANG", "C.UTF-8")
            .environment("TZ", "UTC")
            .limit(Duration::from_mins(6)))
    }

    pub(crate) fn end(&self, script: &str) -> anyhow::Result<Ended> {
        self.bash(script)?.end()
    }

    pub(crate) fn output(&self, script: &str) -> anyhow::Result<String> {
        self.bash(script)?.output()
    }

    pub(crate) fn succeed(&self, script: &str) -> anyhow::Result<()> {
        self.output(script).map(drop)
    }

    /// A call over HTTP inside the cluster. `more` is what else curl is told.
    pub(crate) fn http(&self, url: &str, more: &str) -> anyhow::Result<Answer> {
        let text = self.output(&format!(
            "curl --disable --silent --show-error --max-time 60 --write-out '\\n%{{http_code}} %{{time_total}}' {more} '{url}'"
        ))?;
        let (text, figures) = text.rsplit_once('\n').context("curl writes its figures")?;
        let (status, took) = figures.split_once(' ').context("curl writes two figures")?;
        Ok(Answer {
            status: status.parse().context("a status is a number")?,
            text: text.to_owned(),
            took: Duration::from_secs_f64(took.parse().context("a time is a number")?),
        })
    }

    /// A call of the Scale API that must succeed.
    pub(crate) fn api(&self, method: &str, path: &str, body: &str) -> anyhow::Result<Value> {
        let more = if body.is_empty() {
            format!("-X {method}")
        } else {
            format!("-X {method} -H 'Content-Type: application/json' -d '{body}'")
        };
        let answer = self.http(&format!("{API}{path}"), &more)?;
        ensure!(answer.status == 200, "{method} {path}: {answer:?}");
        serde_json::from_str(&answer.text).with_context(|| format!("read {}", answer.text))
    }

    /// How many pods the cluster is asked for.
    pub(crate) fn wanted(&self, namespace: &str, name: &str) -> anyhow::Result<String> {
        self.output(&format!(
            "kubectl get deployment {name} -n {namespace} -o 'jsonpath={{.spec.replicas}}'"
        ))
    }

    /// How often the Scale API wrote that a Deployment is to have one replica.
    pub(crate) fn wakes_in_audit_log(&self, name: &str) -> anyhow::Result<usize> {
        let text = std::fs::read_to_string(self.cluster.control_plane().audit_log())?;
        let mut count = 0;
        for line in text.lines().filter(|line| line.contains(name)) {
            let line: Value = serde_json::from_str(line).context("read the audit log")?;
            let is_wake = line["verb"] == "patch"
                && line["user"]["username"] == rights::user("scale-system", "scale-api-sa")
                && line["objectRef"]["resource"] == "deployments"
                && line["objectRef"]["name"] == name
                && line["responseStatus"]["code"] == 200
                && line["requestObject"]["spec"]["replicas"] == 1;
            count += usize::from(is_wake);
        }
        Ok(count)
    }

    /// Waits until a Deployment wants, has and serves exactly this many pods, and none is ending.
    pub(crate) fn settle(&self, namespace: &str, name: &str, count: u32) -> anyhow::Result<()> {
        self.settle_workload("deployment", namespace, name, count)
    }

    /// The same for any kind.
    pub(crate) fn settle_workload(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        count: u32,
    ) -> anyhow::Result<()> {
        let script = format!(
            "kubectl get {kind} {name} -n {namespace} -o 'jsonpath={{.spec.replicas}} {{.status.availableReplicas}}' && \
             echo && kubectl get pods -n {namespace} -l app.kubernetes.io/name={name} --no-headers"
        );
        wait::until(&format!("{count} pods of {name}"), SOON, || {
            let ended = self.end(&script)?;
            let mut lines = ended.output.lines();
            let counts = lines.next().unwrap_or_default();
            let pods = lines.count();
            let is_there = if count == 0 {
                counts.starts_with("0 ")
            } else {
                counts == format!("{count} {count}")
            };
            Ok(
                if is_there && u32::try_from(pods).context("a count of pods")? == count {
                    Look::There(())
                } else {
                    Look::NotYet(format!("{}{}", ended.output, ended.errors))
                },
            )
        })
        .or_else(|error| {
            let pods = self.end(&format!("kubectl describe pods -n {namespace}"))?;
            bail!("{error:#}\n{}", pods.output)
        })
    }
}
