//! What the components of a control plane are told: their arguments, the audit policy, kubeconfigs.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::ports::Ports;
use super::{SERVICES, SIGNER, certificates};
use crate::certificates::Pair;
use crate::files;

/// The name of tokens' issuer, as a cluster has it when nobody chooses one.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A test run writes some 100 MB at most, and a test reads the log as one file.
const AUDIT_LOG_MEGABYTES: u32 = 2000;

/// Everything that the arguments depend on.
#[derive(Debug)]
pub(super) struct Configuration {
    pub(super) directory: PathBuf,
    /// Where clients reach the API server.
    pub(super) address: String,
    pub(super) listens_on: &'static str,
    pub(super) is_reached_by_nodes: bool,
    pub(super) ports: Ports,
}

// === impl Configuration ===

impl Configuration {
    pub(super) fn server(&self) -> String {
        format!("https://{}:{}", self.address, self.ports.api_server)
    }

    pub(super) fn certificates(&self) -> PathBuf {
        certificates(&self.directory)
    }

    /// Writes the files that the arguments name.
    pub(super) fn write_files(&self) -> anyhow::Result<()> {
        files::write_json(&self.audit_policy(), &audit_policy())
    }

    fn audit_policy(&self) -> PathBuf {
        self.directory.join("audit-policy.json")
    }

    fn certificate(&self, name: &str) -> String {
        self.certificates().join(name).display().to_string()
    }

    /// A test cluster need not survive a power cut, so nothing waits for the disk.
    pub(super) fn etcd(&self) -> Vec<String> {
        let clients = format!("https://127.0.0.1:{}", self.ports.etcd);
        let peers = format!("https://127.0.0.1:{}", self.ports.etcd_peers);
        let (authority, certificate, key) = (
            self.certificate("ca.crt"),
            self.certificate("etcd.crt"),
            self.certificate("etcd.key"),
        );
        vec![
            "--name=nagi".to_owned(),
            format!("--data-dir={}", self.directory.join("etcd").display()),
            "--unsafe-no-fsync=true".to_owned(),
            "--log-level=warn".to_owned(),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            "--client-cert-auth=true".to_owned(),
            format!("--trusted-ca-file={authority}"),
            format!("--cert-file={certificate}"),
            format!("--key-file={key}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=nagi={peers}"),
            "--peer-client-cert-auth=true".to_owned(),
            format!("--peer-trusted-ca-file={authority}"),
            format!("--peer-cert-file={certificate}"),
            format!("--peer-key-file={key}"),
        ]
    }

    pub(super) fn api_server(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--bind-address={}", self.listens_on),
            format!("--secure-port={}", self.ports.api_server),
            format!("--etcd-servers=https://127.0.0.1:{}", self.ports.etcd),
            format!("--etcd-cafile={}", self.certificate("ca.crt")),
            format!("--etcd-certfile={}", self.certificate("etcd.crt")),
            format!("--etcd-keyfile={}", self.certificate("etcd.key")),
            format!("--tls-cert-file={}", self.certificate("apiserver.crt")),
            format!(
                "--tls-private-key-file={}",
                self.certificate("apiserver.key")
            ),
            format!("--client-ca-file={}", self.certificate("ca.crt")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--service-cluster-ip-range={SERVICES}"),
            format!("--service-account-issuer={ISSUER}"),
            format!(
                "--service-account-key-file={}",
                self.certificate("service-accounts.pub")
            ),
            format!(
                "--service-account-signing-key-file={}",
                self.certificate("service-accounts.key")
            ),
            format!(
                "--kubelet-client-certificate={}",
                self.certificate("apiserver-kubelet.crt")
            ),
            format!(
                "--kubelet-client-key={}",
                self.certificate("apiserver-kubelet.key")
            ),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            // Aggregated APIs, such as the one that `kubectl top` asks.
            format!(
                "--requestheader-client-ca-file={}",
                self.certificate("front-proxy-ca.crt")
            ),
            "--requestheader-allowed-names=front-proxy-client".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
            format!(
                "--proxy-client-cert-file={}",
                self.certificate("front-proxy-client.crt")
            ),
            format!(
                "--proxy-client-key-file={}",
                self.certificate("front-proxy-client.key")
            ),
            "--enable-aggregator-routing=true".to_owned(),
            format!("--audit-policy-file={}", self.audit_policy().display()),
            format!(
                "--audit-log-path={}",
                self.directory.join("audit.log").display()
            ),
            // Written before the answer goes out, so that a test that has the answer finds the line.
            "--audit-log-mode=blocking-strict".to_owned(),
            format!("--audit-log-maxsize={AUDIT_LOG_MEGABYTES}"),
            "--profiling=false".to_owned(),
        ];
        if self.is_reached_by_nodes {
            arguments.push(format!("--advertise-address={}", self.address));
        } else {
            // The Service `kubernetes` cannot lead to a loopback address.
            arguments.push("--endpoint-reconciler-type=none".to_owned());
        }
        arguments
    }

    pub(super) fn controllers(&self) -> Vec<String> {
        let mut arguments = self.client("kube-controller-manager", self.ports.controllers);
        arguments.extend([
            "--use-service-account-credentials=true".to_owned(),
            format!(
                "--service-account-private-key-file={}",
                self.certificate("service-accounts.key")
            ),
            format!("--root-ca-file={}", self.certificate("ca.crt")),
            format!("--cluster-signing-cert-file={}", self.certificate(SIGNER)),
            format!("--cluster-signing-key-file={}", self.certificate("ca.key")),
            // Each node's pods have their range from the harness.
            "--allocate-node-cidrs=false".to_owned(),
        ]);
        arguments
    }

    pub(super) fn scheduler(&self) -> Vec<String> {
        self.client("kube-scheduler", self.ports.scheduler)
    }

    /// There is only one of each, so none has to become leader first.
    fn client(&self, name: &str, port: u16) -> Vec<String> {
        let kubeconfig = self.directory.join(format!("{name}.kubeconfig"));
        let kubeconfig = kubeconfig.display();
        vec![
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            "--profiling=false".to_owned(),
        ]
    }
}

/// Who did what to which object, once per request, with the bodies of writes to workloads: a test finds there whether
/// somebody wrote a count twice. What the cluster does for itself all the time is left out.
fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "omitManagedFields": true,
        "rules": [
            {
                "level": "None",
                "users": [
                    "system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy",
                ],
                "verbs": ["get", "list", "watch"],
            },
            {
                "level": "None",
                "userGroups": ["system:nodes"],
            },
            {
                "level": "None",
                "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/openapi/*", "/version"],
            },
            {
                "level": "Request",
                "verbs": ["create", "update", "patch", "delete"],
                "resources": [
                    {"group": "apps"},
                    {"group": "coordination.k8s.io"},
                    {"group": "nagi.dev"},
                ],
            },
            {"level": "Metadata"},
        ],
    })
}

/// Writes a kubeconfig with one context, for whoever holds a certificate.
pub(super) fn write_kubeconfig(
    path: &Path,
    server: &str,
    authority: &Path,
    pair: &Pair,
) -> anyhow::Result<()> {
    let user = json!({"client-certificate": pair.certificate, "client-key": pair.key});
    write_kubeconfig_of(path, server, authority, &user)
}

/// The same for any kind of credentials.
pub(super) fn write_kubeconfig_of(
    path: &Path,
    server: &str,
    authority: &Path,
    user: &Value,
) -> anyhow::Result<()> {
    files::write_json(
        path,
        &json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "nagi",
            "clusters": [{
                "name": "nagi",
                "cluster": {"server": server, "certificate-authority": authority},
            }],
            "users": [{"name": "nagi", "user": user}],
            "contexts": [{
                "name": "nagi",
                "context": {"cluster": "nagi", "user": "nagi"},
            }],
        }),
    )
}
