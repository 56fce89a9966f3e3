//! What the measurements on a cluster share: kubeconfigs, and a second client that looks at it beside Nagi.

use std::path::Path;

use anyhow::{Context, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use nagi_e2e::{Where, tools};
use serde_json::{Value, json};

/// Writes a kubeconfig for an API server that asks nobody who he is.
pub(crate) fn write_kubeconfig(path: &Path, url: &str) -> anyhow::Result<()> {
    let name = "bench";
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": { "server": url } }],
        "users": [{ "name": name, "user": {} }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
        "current-context": name,
    });
    std::fs::write(path, kubeconfig.to_string()).context("write a kubeconfig")
}

/// What a person writes on a workload that a first request may wake, as in a manifest.
pub(crate) fn annotations() -> anyhow::Result<Value> {
    serde_json::from_str(include_str!("annotations.json")).context("read the annotations")
}

/// A client of the cluster of a kubeconfig.
pub(crate) async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig).context("read a kubeconfig")?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .context("use a kubeconfig")?;
    Client::try_from(config).context("make a client")
}

/// An object of the client's type, from JSON.
pub(crate) fn object<T: serde::de::DeserializeOwned>(object: Value) -> anyhow::Result<T> {
    serde_json::from_value(object).context("make an object")
}

/// Why no cluster with nodes can run here; `None` where it can.
pub(crate) fn no_nodes() -> Option<&'static str> {
    (Where::best() != Where::Namespace).then_some(
        "nodes need root and namespaces of their own, and this machine does not allow them",
    )
}

/// Builds what is missing, so that no start that is measured waits for it.
///
/// # Errors
/// A build failed; it needs the network, which the measurements may not have: `cargo xtask bench` builds before.
pub(crate) fn build_tools(of: &[tools::Tool]) -> anyhow::Result<()> {
    for tool in of {
        tool.build().with_context(|| {
            format!(
                "build {}\nhint: 'cargo xtask cluster build {}' says more",
                tool.name, tool.name
            )
        })?;
    }
    Ok(())
}

/// Fails when the answer of a call is not a success.
pub(crate) fn succeeded(answer: &crate::http::Answer) -> anyhow::Result<()> {
    ensure!(
        answer.status == 200,
        "{}: {}",
        answer.status,
        String::from_utf8_lossy(&answer.body)
    );
    Ok(())
}
