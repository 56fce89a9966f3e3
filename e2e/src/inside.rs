//! Programs as if they ran on a node: Services have their addresses and names there, and every usual port is free.
//!
//! Commands that name `localhost:8080` or `scale-api.scale-system.svc.cluster.local` work there as they are, whatever else
//! runs on the machine. `/var/log`, `/run` and `/var/lib` are the node's; all other files are the machine's.

use std::ffi::OsStr;

use anyhow::Context;

use crate::call::Call;
use crate::cluster::Cluster;
use crate::node::{DNS_SERVICE, DOMAIN};

/// Names are resolved as in a pod. The mount is this call's own and ends with it.
const WITH_NAMES: &str = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";

impl Cluster {
    /// A call of a program in the network of the first node, the one that is never taken away.
    pub fn inside(&self, program: impl AsRef<OsStr>) -> anyhow::Result<Call> {
        let resolver = self.control_plane().directory().join("resolv.conf");
        if !resolver.exists() {
            let text = format!(
                "nameserver {DNS_SERVICE}\nsearch svc.{DOMAIN} {DOMAIN}\noptions ndots:2\n"
            );
            std::fs::write(&resolver, text)
                .with_context(|| format!("write {}", resolver.display()))?;
        }
        Ok(self
            .first_place()?
            .call("unshare")
            .arguments(["--mount", "sh", "-c", WITH_NAMES, "sh"])
            .argument(resolver)
            .argument(program))
    }
}
