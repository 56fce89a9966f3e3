//! Fills the node's disk as disks are filled: by an image that nobody runs, by pods that log, by what somebody keeps there.

use std::path::Path;

use anyhow::{Context, ensure};
use nagi_e2e::oci::{Content, Image};
use nagi_e2e::wait::{self, Look};
use serde_json::json;

use crate::history;
use crate::node::{LIMIT, Node};

/// An image that no container uses. With its layer packed and unpacked it takes twice as much.
const UNUSED: &str = "nagi.test/unused:1";
const UNUSED_BYTES: usize = 300 << 20;

/// A shell, for pods that log.
const SHELL: &str = "nagi.test/shell:1";
const BUSYBOX: &str = "/bin/busybox";

/// Kubelet rotates what is longer than 10 MiB; it looks every ten seconds.
const LOGGED: u64 = 60 << 20;

/// What is left for the pod that writes until nothing is left.
const LEFT: u64 = 100 << 20;

/// What somebody keeps on the node's disk.
pub(crate) const KEPT: &str = "srv/backup.tar";

impl Node {
    /// Brings the disk to its last hundred megabytes, and leaves it well.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        self.import_images()?;
        self.start_talker("talker", LOGGED)?;
        let pods = self.root().join("var/log/pods");
        wait::until("kubelet to rotate a log", LIMIT, || {
            Ok(if rotated(&pods)? {
                Look::There(())
            } else {
                Look::NotYet("there is no rotated log".to_owned())
            })
        })?;
        let free = self.free()?.bytes;
        let kept = free.checked_sub(LEFT).context("the disk has more left")?;
        self.cluster
            .inside("fallocate")
            .arguments(["--length", &kept.to_string(), &format!("/{KEPT}")])
            .succeed()
    }

    fn import_images(&self) -> anyhow::Result<()> {
        let archives = self.cluster.directory().join("archives");
        let unused = archives.join("unused.tar");
        let content = Content::Bytes(history::random(UNUSED_BYTES)?);
        Image::new()
            .file("content", 0o644, 0, content)
            .write(&unused, UNUSED)?;
        let shell = archives.join("shell.tar");
        Image::new()
            .file("bin/busybox", 0o755, 0, Content::File(BUSYBOX.into()))
            .entrypoint([BUSYBOX, "sh", "-c"])
            .write(&shell, SHELL)?;
        self.cluster.load_here(&unused)?;
        self.cluster.load_here(&shell)
    }

    /// A pod that prints so many bytes and then waits.
    fn start_talker(&self, name: &str, bytes: u64) -> anyhow::Result<()> {
        let line = "a line of a program that tells everything ".repeat(20);
        let command =
            format!("busybox yes '{line}' | busybox head -c {bytes}; exec busybox sleep 1000000");
        self.apply(&json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": self.cluster.node(),
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "shell",
                    "image": SHELL,
                    "imagePullPolicy": "Never",
                    "args": [command],
                    "env": [{"name": "PATH", "value": "/bin"}],
                }],
            },
        }))?;
        self.wait_until_ready(name)
    }

    /// Takes the last bytes, by a pod that logs; etcd and API server run on until they need one.
    pub(crate) fn take_the_last_bytes(&self) -> anyhow::Result<()> {
        self.start_talker("flood", LEFT * 2)?;
        wait::until("the disk to be full", LIMIT, || self.is_full())
    }

    /// Not even root has room for a letter. An ext4 keeps some blocks back for itself, so none is ever without free ones.
    pub(crate) fn is_full(&self) -> anyhow::Result<Look<()>> {
        let probe = self.root().join("srv/probe");
        let written = std::fs::write(&probe, "x");
        self.cluster
            .inside("rm")
            .arguments(["-f", "/srv/probe"])
            .succeed()?;
        match written {
            Ok(()) => Ok(Look::NotYet(format!("{:?}", self.free()?))),
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(Look::There(())),
            Err(error) => Err(error).context("write a letter"),
        }
    }

    /// Writes objects until the store cannot take another one, and waits until nothing listens.
    pub(crate) fn lose_the_api_server(&self) -> anyhow::Result<()> {
        let text = String::from_utf8(vec![b'x'; 900 << 10]).context("letters")?;
        let mut number = 0;
        wait::until("the API server to fail", LIMIT, || {
            number += 1;
            let object = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": format!("writes-{number}")},
                "data": {"text": text},
            });
            let ended = self
                .cluster
                .kubectl()
                .arguments(["create", "--request-timeout=10s", "--filename=-"])
                .input(object.to_string())
                .end()?;
            Ok(if ended.status.success() {
                Look::NotYet(format!("it has taken {number} objects"))
            } else {
                Look::There(())
            })
        })?;
        wait::until("the API server to be gone", LIMIT, || self.is_gone())?;
        ensure!(matches!(self.answers()?, Look::NotYet(_)));
        Ok(())
    }

    /// Nobody listens where the API server does.
    pub(crate) fn is_gone(&self) -> anyhow::Result<Look<()>> {
        let listening = self
            .cluster
            .inside("cat")
            .arguments(["/proc/net/tcp", "/proc/net/tcp6"])
            .output()?;
        // 6443, and the state of a socket that listens.
        let is_open = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            let is_ours = fields.next().is_some_and(|local| local.ends_with(":192B"));
            is_ours && fields.nth(1) == Some("0A")
        };
        Ok(if listening.lines().any(is_open) {
            Look::NotYet("it listens".to_owned())
        } else {
            Look::There(())
        })
    }
}

fn rotated(pods: &Path) -> anyhow::Result<bool> {
    for pod in std::fs::read_dir(pods)? {
        let pod = pod?.path();
        let is_talker = pod
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("default_talker_"));
        if !is_talker {
            continue;
        }
        for container in std::fs::read_dir(&pod)? {
            for log in std::fs::read_dir(container?.path())? {
                if log?.file_name().to_string_lossy().starts_with("0.log.") {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}
