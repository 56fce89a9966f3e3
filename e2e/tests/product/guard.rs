//! `nagi guard` on every node: the `DaemonSet` as it ships, and the same from the chart.
//!
//! A small ext4 is mounted on one node, where etcd would keep its data, and filled: the guard of that node sees it come, tells,
//! and goes on while the API server answers nobody.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use nagi_e2e::call::Call;
use nagi_e2e::wait::{self, Look};
use nagi_e2e::{rights, tools};
use serde_json::Value;

use crate::World;
use crate::installed::{Installed, SOON};

const NODES: [&str; 3] = ["projecta", "projectb", "system"];
/// Where the small disk is mounted: a directory that every guard watches.
const ON: &str = "projecta";
const POINT: &str = "/var/lib/etcd";
/// `CAP_DAC_OVERRIDE`, `CAP_DAC_READ_SEARCH` and `CAP_SYS_PTRACE`: what the manifest adds, and nothing else.
const CAPABILITIES: &str = "0000000000080006";

/// The pod of one node.
#[derive(Debug, Clone)]
struct Pod {
    name: String,
    node: String,
    address: String,
    restarts: u64,
}

/// A small disk on one node; it goes with its node where it cannot be taken away.
struct Disk<'a> {
    installed: &'a Installed,
}

// Issue 5 item 3, D-22, B-023, K-37
pub(crate) fn all(world: &mut World) -> anyhow::Result<()> {
    let installed = world.installed()?;
    installed.complete()?;
    let installed: &Installed = installed;
    installed.succeed("kubectl apply -k deploy/guard")?;
    rolled_out(installed)?;
    let pods = pods(installed)?;
    let nodes: BTreeSet<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
    ensure!(
        nodes == BTreeSet::from(NODES),
        "a guard on each node: {pods:?}"
    );
    for pod in &pods {
        is_well(installed, pod)?;
        let metrics = installed.http(&format!("http://{}:9092/metrics", pod.address), "")?;
        ensure!(
            metrics
                .text
                .contains("nagi_disk_level{disk=\"/\",resource=\"bytes\"}"),
            "{pod:?}: {}",
            metrics.text
        );
    }
    has_least_rights(installed, &pods)?;
    let told = tells(installed, &pods);
    let left = installed.succeed(
        "kubectl delete -k deploy/guard --wait && kubectl wait --for=delete namespace/nagi-guard --timeout=120s",
    );
    told?;
    left?;
    from_the_chart(installed)
}

fn rolled_out(installed: &Installed) -> anyhow::Result<()> {
    installed
        .succeed("kubectl rollout status daemonset/nagi-guard -n nagi-guard --timeout=180s")
        .or_else(|error| {
            let seen = installed.end(
                "kubectl describe pods -n nagi-guard; kubectl logs -n nagi-guard -l app.kubernetes.io/name=nagi-guard --tail=50",
            )?;
            anyhow::bail!("{error:#}\n{}{}", seen.output, seen.errors)
        })
}

fn pods(installed: &Installed) -> anyhow::Result<Vec<Pod>> {
    let text = installed
        .output("kubectl get pods -n nagi-guard -l app.kubernetes.io/name=nagi-guard -o json")?;
    let list: Value = serde_json::from_str(&text).context("read the pods")?;
    let pods = list["items"]
        .as_array()
        .context("items")?
        .iter()
        .map(|pod| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            Pod {
                name: text(&pod["metadata"]["name"]),
                node: text(&pod["spec"]["nodeName"]),
                address: text(&pod["status"]["podIP"]),
                restarts: pod["status"]["containerStatuses"][0]["restartCount"]
                    .as_u64()
                    .unwrap_or(u64::MAX),
            }
        });
    Ok(pods.collect())
}

fn is_well(installed: &Installed, pod: &Pod) -> anyhow::Result<()> {
    let health = installed.http(&format!("http://{}:9092/health", pod.address), "")?;
    ensure!(health.status == 200, "{pod:?}: {health:?}");
    Ok(())
}

/// No token, no right in the API, and of the kernel's rights the three of the manifest.
fn has_least_rights(installed: &Installed, pods: &[Pod]) -> anyhow::Result<()> {
    let account = rights::user("nagi-guard", "nagi-guard-sa");
    for asked in ["get pods", "list nodes", "get secrets", "patch deployments"] {
        let answer = installed.output(&format!(
            "kubectl auth can-i {asked} -n nagi-guard --as={account}; true"
        ))?;
        ensure!(answer.trim() == "no", "{asked}: {answer}");
    }
    let volumes = installed
        .output("kubectl get pods -n nagi-guard -o 'jsonpath={.items[*].spec.volumes[*].name}'")?;
    ensure!(
        volumes.split_whitespace().all(|name| name == "node"),
        "a token would be a volume: {volumes}"
    );
    let mut processes = 0;
    for entry in std::fs::read_dir("/proc").context("read /proc")? {
        let own = entry.context("read /proc")?.path();
        // Gone meanwhile, or none: not ours.
        let line = std::fs::read(own.join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        if !words.ends_with(&[b"guard", b"--root=/host", b""]) {
            continue;
        }
        processes += 1;
        let status = std::fs::read_to_string(own.join("status")).context("read its status")?;
        let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        ensure!(held.map(str::trim) == Some(CAPABILITIES), "{status}");
    }
    ensure!(
        processes == pods.len(),
        "{processes} guards run for {} pods",
        pods.len()
    );
    Ok(())
}

/// The small disk fills: at 91 % the founding document's line is logged, and at 100 % it is told while no API server answers.
fn tells(installed: &Installed, pods: &[Pod]) -> anyhow::Result<()> {
    let pod = pods.iter().find(|pod| pod.node == ON);
    let pod = pod.with_context(|| format!("a guard on {ON}"))?;
    let disk = Disk::mount(installed)?;
    disk.run(&format!(
        "mkdir -p {POINT}/member {POINT}/apt && echo kept > {POINT}/member/snap && echo kept > {POINT}/apt/a_1.0_amd64.deb"
    ))?;
    let level = format!("nagi_disk_level{{disk=\"{POINT}\",resource=\"bytes\"}}");
    see(installed, pod, &format!("{level} 0"))?;
    disk.fill(91)?;
    see(installed, pod, &format!("{level} 3"))?;
    let log = installed.output(&format!("kubectl logs -n nagi-guard {}", pod.name))?;
    ensure!(log.contains("ALERT: Disk over 90% at "), "{log}");
    let alerts = node_directory(installed).join("var-log/disk-alert.log");
    wait::until("the line in the file of the node", SOON, || {
        let text = std::fs::read_to_string(&alerts).unwrap_or_default();
        Ok(
            if text.contains(" UTC 20") && text.contains(&format!("({POINT})")) {
                Look::There(())
            } else {
                Look::NotYet(text)
            },
        )
    })?;
    installed
        .cluster
        .control_plane()
        .suspend("kube-apiserver")?;
    let without = disk.fill(100).and_then(|()| {
        see(installed, pod, &format!("{level} 4"))?;
        pods.iter().try_for_each(|pod| is_well(installed, pod))?;
        ensure!(
            container_log(installed)?.contains("is critical now"),
            "it is told without an API server"
        );
        Ok(())
    });
    // Also after a failure: the next test needs it.
    installed.cluster.control_plane().resume("kube-apiserver")?;
    wait::until("the API server", SOON, || {
        let ended = installed.end("kubectl get --raw /readyz")?;
        Ok(if ended.status.success() {
            Look::There(())
        } else {
            Look::NotYet(ended.errors)
        })
    })?;
    without?;
    let after = self::pods(installed)?;
    ensure!(
        after.iter().all(|pod| pod.restarts == 0) && after.len() == pods.len(),
        "they are the same, and none was started again: {after:?}"
    );
    // Nothing that is the node's is gone.
    let kept = disk.run(&format!(
        "cat {POINT}/member/snap {POINT}/apt/a_1.0_amd64.deb && ls {POINT}"
    ))?;
    ensure!(
        kept.matches("kept").count() == 2
            && ["fill91", "fill100"].iter().all(|name| kept.contains(name)),
        "{kept}"
    );
    let log = container_log(installed)?;
    ensure!(!log.contains("Removal under way"), "{log}");
    Ok(())
}

/// Waits for a line of the metrics of a pod.
fn see(installed: &Installed, pod: &Pod, line: &str) -> anyhow::Result<()> {
    let url = format!("http://{}:9092/metrics", pod.address);
    wait::until(line, SOON, || {
        let metrics = installed.http(&url, "")?;
        Ok(if metrics.text.contains(line) {
            Look::There(())
        } else {
            let disks = metrics
                .text
                .lines()
                .filter(|line| line.starts_with("nagi_disk_level"));
            Look::NotYet(disks.collect::<Vec<_>>().join("\n"))
        })
    })
}

/// The guard of the chart is the same, and there only where it was asked for.
fn from_the_chart(installed: &Installed) -> anyhow::Result<()> {
    let helm = tools::HELM.build()?.program("helm");
    let template = format!(
        "{} template nagi deploy/helm/nagi --namespace scale-system",
        helm.display()
    );
    let without = installed.output(&template)?;
    ensure!(!without.contains("nagi-guard"), "nobody asked for a guard");
    let files = ["namespace", "serviceaccount", "daemonset"]
        .map(|name| format!("--show-only templates/guard/{name}.yaml"))
        .join(" ");
    let template = format!("{template} --set guard.enabled=true {files}");
    installed.succeed(&format!("{template} | kubectl apply -f -"))?;
    let there = rolled_out(installed).and_then(|()| {
        let pods = pods(installed)?;
        ensure!(pods.len() == NODES.len(), "{pods:?}");
        pods.iter().try_for_each(|pod| is_well(installed, pod))
    });
    let gone = installed.succeed(&format!("{template} | kubectl delete -f - --wait"));
    there.and(gone)
}

/// Where the harness keeps what is the node's own.
fn node_directory(installed: &Installed) -> PathBuf {
    installed
        .cluster
        .control_plane()
        .directory()
        .join("nodes")
        .join(ON)
}

/// What the guard of the node has logged, from its disk: no API server is asked.
fn container_log(installed: &Installed) -> anyhow::Result<String> {
    let pods = node_directory(installed).join("var-log/pods");
    let mut text = String::new();
    for entry in std::fs::read_dir(&pods).with_context(|| format!("read {}", pods.display()))? {
        let path = entry.context("read a directory")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("nagi-guard_") {
            let log = path.join("nagi-guard/0.log");
            text += &std::fs::read_to_string(&log)
                .with_context(|| format!("read {}", log.display()))?;
        }
    }
    Ok(text)
}

// === impl Disk ===

impl<'a> Disk<'a> {
    /// Of 64 MiB. Its image is a file of the node's own.
    fn mount(installed: &'a Installed) -> anyhow::Result<Self> {
        let disk = Self { installed };
        let image = Path::new("/var/lib/nagi-test-disk");
        disk.run(&format!(
            "truncate -s 64M {0} && mkfs.ext4 -q {0} && mkdir -p {POINT} && mount -o loop {0} {POINT}",
            image.display()
        ))?;
        Ok(disk)
    }

    /// Runs a script in the mounts of the node.
    fn run(&self, script: &str) -> anyhow::Result<String> {
        let kubelet = self.installed.cluster.node_process(ON, "kubelet")?;
        Call::new("nsenter")
            .arguments([
                "--target",
                &kubelet.id.to_string(),
                "--mount",
                "sh",
                "-c",
                script,
            ])
            .limit(Duration::from_mins(1))
            .output()
    }

    /// Until so many percent of what can be used are used, as df counts.
    fn fill(&self, percent: u64) -> anyhow::Result<()> {
        let counts = self.run(&format!("stat -f -c '%b %f %a %S' {POINT}"))?;
        let counts: Vec<u64> = counts
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .context("counts of a filesystem")?;
        let [blocks, free, available, size] = counts[..] else {
            anyhow::bail!("four counts: {counts:?}");
        };
        let used = blocks - free;
        let more = ((used + available) * percent / 100).saturating_sub(used) * size;
        self.run(&format!(
            "fallocate -l {more} {POINT}/fill{percent} && sync -f {POINT}"
        ))
        .map(drop)
    }
}

impl Drop for Disk<'_> {
    #[expect(
        clippy::print_stdout,
        reason = "what is left goes into the log of the run"
    )]
    fn drop(&mut self) {
        if let Err(error) = self.run(&format!("umount {POINT}")) {
            println!("the small disk stays until its node goes: {error:#}");
        }
    }
}
