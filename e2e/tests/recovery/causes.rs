//! What else takes a control plane down: each is named, and ends healthy or is refused with its reason.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, ensure};
use nagi_e2e::call::Call;
use nagi_e2e::wait::{self, Look};
use serde_json::json;

use crate::history::{self, ARCHIVES};
use crate::node::{LIMIT, Node, OTHERS, World, say};

/// The exit code of what is up and may not stay so.
const NOT_STABLE: i32 = 15;

/// The quota of etcd; what the whole cluster has takes some megabytes.
const QUOTA: u64 = 64 << 20;

/// Packages of a mebibyte in all, each with an inode of its own: what gives inodes back.
const SMALL_PACKAGES: usize = 2000;

/// Each look for a listener takes some 30 ms.
const LOOKS: u32 = 150;

/// Files of one directory.
const FILES: usize = 20_000;

// W-B15, D-09
pub(crate) fn etcd_quota(world: &mut World) -> anyhow::Result<()> {
    let node = world.node()?;
    let others = node.running(OTHERS)?;
    node.change_manifest("etcd", |text| {
        let flag = format!("    - --name={}\n", node.cluster.node());
        text.replace(
            &flag,
            &format!("{flag}    - --quota-backend-bytes={QUOTA}\n"),
        )
    })?;
    wait::until("etcd with its quota", LIMIT, || {
        let (answer, _) = node.nagi_json(["recover", "diagnose"])?;
        let quota = &answer["facts"]["etcd"]["quota"];
        Ok(if *quota == QUOTA {
            Look::There(())
        } else {
            Look::NotYet(format!("quota {quota}"))
        })
    })?;
    node.wait_until_healthy()?;
    wait::until("etcd to be above its quota", LIMIT, || {
        let ended = node.write_object("revisions", &history::letters(900 << 10)?)?;
        Ok(if ended.contains("database space exceeded") {
            Look::There(())
        } else {
            Look::NotYet(ended)
        })
    })?;
    ensure!(node.cause()? == "etcd-quota", "{}", node.cause()?);
    let recovery = node.recover(&[])?;
    recovery.is_back()?;
    let steps: Vec<&str> = recovery.steps().collect();
    // Controllers and scheduler, which can renew no Lease meanwhile, may have ended: then kubelet is asked too.
    ensure!(
        steps.starts_with(&["snapshot", "compact", "defrag", "disarm"]),
        "{steps:?}"
    );
    let said = node.write_object("revisions", "short")?;
    ensure!(said.is_empty(), "it takes writes again: {said}");
    ensure!(node.running(OTHERS)? == others);
    Ok(())
}

// D-08
pub(crate) fn expired_certificate(world: &mut World) -> anyhow::Result<()> {
    let node = world.node()?;
    node.expire_certificate()?;
    wait::until("clients to see that it has ended", LIMIT, || {
        Ok(match node.answers()? {
            Look::NotYet(said) if said.contains("certificate has expired") => Look::There(()),
            Look::NotYet(said) => Look::NotYet(said),
            Look::There(()) => Look::NotYet("it answers".to_owned()),
        })
    })?;
    ensure!(node.cause()? == "certificate-expired", "{}", node.cause()?);
    let recovery = node.recover(&[])?;
    let next = recovery.is_refused()?;
    let refusal = &recovery.answer["plan"]["refusals"][0];
    ensure!(refusal["cause"] == "certificate-expired", "{recovery:?}");
    say(&format!("it is refused, and next is: {next}"));
    ensure!(next.contains("kubeadm certs"), "{next}");
    // What a person does then.
    node.cluster
        .inside("kubeadm")
        .arguments(["certs", "renew", "apiserver"])
        .succeed()?;
    node.wait_until_healthy()?;
    node.wait_until_sound()
}

// B-019, B-020, B-030, K-40, D-19
pub(crate) fn wrong_name(world: &mut World) -> anyhow::Result<()> {
    let node = world.node()?;
    let (file, name) = ("/root/wrong.conf", "ip-172-31-37-254");
    let hosts = node.root().join("etc/hosts");
    let before = std::fs::read_to_string(&hosts)?;
    std::fs::write(&hosts, format!("{before}127.0.0.1 {name}\n"))?;
    std::fs::copy(
        node.root().join("etc/kubernetes/admin.conf"),
        node.root().join("root/wrong.conf"),
    )?;
    node.cluster
        .inside("kubectl")
        .argument(format!("--kubeconfig={file}"))
        .arguments(["config", "set-cluster", "kubernetes"])
        .argument(format!("--server=https://{name}:6443"))
        .succeed()?;
    let by = format!("--kubeconfig={file}");
    let recovery = node.recover(&[&by])?;
    ensure!(recovery.answer["cause"]["id"] == "tls-name", "{recovery:?}");
    let next = recovery.is_refused()?;
    say(&format!("it is refused, and next is: {next}"));
    // What a person does then: letter by letter it shows what it would write, and with --apply it does.
    let mut words = next.split(' ');
    let program = words.next().context("it has a program")?;
    let shown = node
        .cluster
        .inside(program)
        .arguments(words.clone())
        .output()?;
    ensure!(shown.contains("tls-server-name"), "{shown}");
    let (answer, _) = node.nagi_json(["recover", "diagnose", &by])?;
    ensure!(answer["cause"]["id"] == "tls-name", "{answer}");
    node.cluster
        .inside(program)
        .arguments(words)
        .argument("--apply")
        .succeed()?;
    let (answer, ended) = node.nagi_json(["recover", "diagnose", &by])?;
    ensure!(
        ended.status.success() && answer["status"] == "sound",
        "{answer}"
    );
    std::fs::write(&hosts, before).context("write the names as they were")
}

// D-12
pub(crate) fn no_inodes(world: &mut World) -> anyhow::Result<()> {
    let node = world.node()?;
    let others = node.running(OTHERS)?;
    for number in 0..SMALL_PACKAGES {
        let name = format!("small-{number}_1.0-1_all.deb");
        std::fs::write(node.root().join(ARCHIVES).join(name), "x")?;
    }
    let many = node.root().join("srv/many");
    take_all_inodes(&many)?;
    ensure!(node.free()?.inodes == 0, "{:?}", node.free()?);
    node.kill_the_api_server()?;
    ensure!(node.cause()? == "inodes-exhausted", "{}", node.cause()?);
    // What was written a moment ago is what gives inodes back here.
    let recovery = node.recover_within("90s", &["--min-age=0"])?;
    let steps: Vec<&str> = recovery.steps().collect();
    ensure!(steps == ["free", "restart-kubelet"], "{steps:?}");
    // Somebody's files still take nearly all of them.
    ensure!(
        recovery.code == Some(NOT_STABLE) && recovery.answer["status"] == "up-not-stable",
        "{recovery:?}"
    );
    node.wait_until_healthy()?;
    ensure!(node.running(OTHERS)? == others);
    node.cluster
        .inside("rm")
        .arguments(["-r", "/srv/many"])
        .limit(LIMIT)
        .succeed()?;
    node.recover(&[])?.is_back()
}

// D-06
pub(crate) fn deleted_open(world: &mut World) -> anyhow::Result<()> {
    let node = world.node()?;
    let others = node.running(OTHERS)?;
    // Nothing else may go any more.
    node.nagi(["disk", "clean", "--apply", "--target=0", "--min-age=0"])
        .succeed()?;
    let most = node.free()?.bytes - (32 << 20);
    // At its end, so that nothing is written into what is reserved. Only the shell itself holds the file.
    let script = format!(
        "exec 3>>/srv/held; rm /srv/held; fallocate --length {most} /proc/self/fd/3; \
         while :; do cat /dev/zero >&3; sleep 0.2 3>&-; done"
    );
    let holder = node
        .cluster
        .inside("sh")
        .arguments([
            "-c",
            "setsid sh -c \"$1\" >/dev/null 2>&1 </dev/null & echo $!",
            "sh",
        ])
        .argument(script)
        .output()?;
    let holder = holder.trim();
    wait::until("the disk to be full", LIMIT, || node.is_full())?;
    node.kill_the_api_server()?;
    ensure!(node.cause()? == "disk-full", "{}", node.cause()?);
    let recovery = node.recover(&[])?;
    recovery.is_refused()?;
    let why = recovery.answer["plan"]["refusals"].to_string();
    ensure!(
        why.contains("/srv/held") && why.contains(&format!("process {holder} ")),
        "{why}"
    );
    say(&format!("it is refused: {why}"));
    node.cluster
        .inside("kill")
        .arguments(["-KILL", holder])
        .succeed()?;
    node.recover(&[])?.is_back()?;
    ensure!(node.running(OTHERS)? == others);
    Ok(())
}

fn take_all_inodes(directory: &Path) -> anyhow::Result<()> {
    for number in 0.. {
        let below = directory.join(number.to_string());
        if std::fs::create_dir_all(&below).is_err() {
            break;
        }
        for file in 0..FILES {
            if let Err(error) = File::create(below.join(file.to_string())) {
                ensure!(
                    error.kind() == std::io::ErrorKind::StorageFull,
                    "create a file: {error}"
                );
                return Ok(());
            }
        }
    }
    Ok(())
}

// === impl Node ===

impl Node {
    /// Changes the manifest of a static pod at once, as an editor that renames does.
    fn change_manifest(&self, name: &str, change: impl Fn(&str) -> String) -> anyhow::Result<()> {
        let directory = self.root().join("etc/kubernetes");
        let manifest = directory.join(format!("manifests/{name}.yaml"));
        let before = std::fs::read_to_string(&manifest)?;
        let after = change(&before);
        ensure!(before != after, "the change changes something: {before}");
        let unfinished = directory.join(name);
        std::fs::write(&unfinished, after)?;
        std::fs::rename(&unfinished, &manifest).context("put the manifest there")
    }

    /// Writes an object anew, and gives what was said against it.
    fn write_object(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {"text": text},
        });
        let ended = self
            .cluster
            .kubectl()
            .arguments(["apply", "--server-side", "--filename=-"])
            .argument("--request-timeout=10s")
            .input(object.to_string())
            .end()?;
        Ok(ended.errors)
    }

    /// Gives the API server a certificate that ended a year ago, for its own key and names.
    fn expire_certificate(&self) -> anyhow::Result<()> {
        let pki = self.root().join("etc/kubernetes/pki");
        let scratch = tempfile::tempdir()?;
        let (request, names) = (scratch.path().join("request"), scratch.path().join("names"));
        let address = self.told(
            "node",
            self.cluster.node(),
            "{.status.addresses[0].address}",
        )?;
        let names_of_it = format!(
            "subjectAltName=DNS:{},DNS:kubernetes,DNS:kubernetes.default.svc,DNS:localhost,IP:10.96.0.1,IP:127.0.0.1,IP:{address}\n\
             keyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth\n",
            self.cluster.node()
        );
        std::fs::write(&names, names_of_it)?;
        Call::new("openssl")
            .arguments(["req", "-new", "-subj", "/CN=kube-apiserver", "-key"])
            .argument(pki.join("apiserver.key"))
            .argument("-out")
            .argument(&request)
            .succeed()?;
        Call::new("faketime")
            .arguments([
                "2 years ago",
                "openssl",
                "x509",
                "-req",
                "-days",
                "365",
                "-in",
            ])
            .argument(&request)
            .argument("-CA")
            .argument(pki.join("ca.crt"))
            .argument("-CAkey")
            .argument(pki.join("ca.key"))
            .argument("-extfile")
            .argument(&names)
            .argument("-out")
            .argument(pki.join("apiserver.crt"))
            .succeed()
    }

    /// Ends the API server on a node where it cannot be started anew.
    fn kill_the_api_server(&self) -> anyhow::Result<()> {
        self.cluster
            .inside("pkill")
            .arguments(["--signal", "KILL", "--exact", "kube-apiserver"])
            .succeed()?;
        // Kubelet tries again, and fails: many looks, one after the other, find nobody.
        let mut gone = 0;
        wait::until("the API server to stay away", LIMIT, || {
            gone = match self.is_gone()? {
                Look::There(()) => gone + 1,
                Look::NotYet(_) => 0,
            };
            Ok(if gone == LOOKS {
                Look::There(())
            } else {
                Look::NotYet(format!("{gone} looks found nobody"))
            })
        })
    }
}
