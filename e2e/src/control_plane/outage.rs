//! What tests do to a control plane beside stopping and killing: certificates of another authority, and an etcd that forgets.

use anyhow::Context;
use serde_json::{Value, json};

use super::{API_SERVER_PAIR, ControlPlane, certificates, server_names};
use crate::certificates::{Authority, Use, pair};
use crate::files;

/// An authority that comes later.
const OTHER_AUTHORITY: &str = "other-ca";

impl ControlPlane {
    /// Gives the API server a certificate of another authority, which nobody knows before
    /// [`ControlPlane::trust_other_authority`], and starts it again.
    pub fn change_authority(&mut self) -> anyhow::Result<()> {
        let directory = certificates(&self.directory.path);
        Authority::create(&directory, OTHER_AUTHORITY)?.issue(
            API_SERVER_PAIR,
            "kube-apiserver",
            None,
            Use::Server(&server_names(&self.address())),
        )?;
        self.restart("kube-apiserver")
    }

    /// Adds the other authority to the one that every kubeconfig names. The harness's own programs are started again: they
    /// read it once.
    pub fn trust_other_authority(&mut self) -> anyhow::Result<()> {
        let directory = certificates(&self.directory.path);
        let mut known = String::new();
        for name in ["ca", OTHER_AUTHORITY] {
            let path = pair(&directory, name).certificate;
            known += &std::fs::read_to_string(&path)
                .with_context(|| format!("read {}", path.display()))?;
        }
        files::write_private(&self.authority(), &known)?;
        self.wait_until_ready()?;
        for component in self.names_of_clients() {
            self.restart(&component)?;
        }
        Ok(())
    }

    /// What runs beside etcd and the API server.
    fn names_of_clients(&self) -> Vec<String> {
        let names = self
            .started
            .iter()
            .map(|started| &started.recorded.component.name);
        names
            .filter(|name| !["etcd", "kube-apiserver"].contains(&name.as_str()))
            .cloned()
            .collect()
    }

    /// Makes etcd forget every version but the present ones; gives the version up to which it forgot.
    pub fn compact(&self) -> anyhow::Result<String> {
        let directory = certificates(&self.directory.path);
        let etcd = self
            .started
            .iter()
            .find(|started| started.recorded.component.name == "etcd")
            .context("there is no etcd")?;
        let option = "--listen-client-urls=";
        let arguments = &etcd.recorded.component.arguments;
        let url = arguments.iter().find_map(|text| text.strip_prefix(option));
        let url = url.context("etcd is told where to listen")?;
        let own = pair(&directory, "etcd");
        let ask = |path: &str, body: Value| -> anyhow::Result<Value> {
            let text = self
                .place()
                .call("curl")
                .arguments(["--disable", "--silent", "--show-error", "--fail"])
                .arguments(["--max-time", "30"])
                .argument("--cacert")
                .argument(pair(&directory, "ca").certificate)
                .argument("--cert")
                .argument(&own.certificate)
                .argument("--key")
                .argument(&own.key)
                .arguments(["--data", &body.to_string()])
                .argument(format!("{url}{path}"))
                .output()?;
            serde_json::from_str(&text).with_context(|| format!("read {text}"))
        };
        // The key is a zero byte, which nothing has.
        let answer = ask("/v3/kv/range", json!({"key": "AA=="}))?;
        let revision = answer["header"]["revision"].as_str();
        let revision = revision.context("etcd tells its revision")?.to_owned();
        ask(
            "/v3/kv/compaction",
            json!({"revision": revision, "physical": true}),
        )?;
        Ok(revision)
    }
}
