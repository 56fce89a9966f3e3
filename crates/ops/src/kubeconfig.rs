//! What a kubeconfig says of the way to its API server, and no more: nothing in it is run.
//!
//! Credentials by a plugin are not used, because a diagnosis starts no program that it does not know; the call then goes
//! without any, and the answer says so.

mod edit;
mod text;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::root::Root;

pub use edit::{
    Check, Checked, KubeconfigEdit, KubeconfigError, KubeconfigPlan, Server, plan_kubeconfig,
    undo_kubeconfig,
};

/// A kubeconfig with one context chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kubeconfig {
    pub(crate) context: String,
    pub(crate) cluster: String,
    /// The file with the cluster.
    pub(crate) holder: PathBuf,
    pub(crate) server: String,
    /// The name that the certificate must have instead of the server's.
    pub(crate) tls_server_name: Option<String>,
    /// PEM of the authorities; none means those of the machine.
    pub(crate) authority: Option<Vec<u8>>,
    /// The certificate is not looked at.
    pub(crate) is_insecure: bool,
    /// The way goes over a proxy.
    pub(crate) proxy: Option<String>,
    pub(crate) credentials: Credentials,
}

/// How the caller shows who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// PEM of the certificate, and of its key.
    pub(crate) certificate: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) token: Option<String>,
    /// A program would say; it is not run.
    pub(crate) plugin: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Text {
    #[serde(default, rename = "current-context")]
    current_context: Option<String>,
    #[serde(default)]
    clusters: Option<Vec<NamedCluster>>,
    #[serde(default)]
    contexts: Option<Vec<NamedContext>>,
    #[serde(default)]
    users: Option<Vec<NamedUser>>,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    tls_server_name: Option<String>,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    proxy_url: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Debug, Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: Option<User>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    exec: Option<Exec>,
}

#[derive(Debug, Deserialize)]
struct Exec {
    command: String,
}

/// What of a kubeconfig is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice<'a> {
    /// A context; none means the current one.
    Context(Option<&'a str>),
    /// A cluster, whoever uses it.
    Cluster(&'a str),
}

/// Reads kubeconfigs as one, of which the first that has a name wins, as in client-go. The paths are those of the node below
/// `root`; paths inside of each are relative to its directory.
///
/// # Errors
/// Why they cannot be used, in words, with the file.
pub(crate) fn read(
    root: &Root,
    paths: &[PathBuf],
    choice: Choice<'_>,
) -> Result<Kubeconfig, String> {
    let files: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let files = files.join(":");
    let mut texts = Vec::new();
    for path in paths {
        let bytes = root
            .read(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let text: Text = serde_saphyr::from_slice(&bytes)
            .map_err(|error| format!("{}: {}", path.display(), first_line(&error.to_string())))?;
        let near = Near {
            root,
            path,
            directory: path.parent().unwrap_or(Path::new("/")),
        };
        texts.push((near, text));
    }
    let current = || {
        let mut named = texts
            .iter()
            .filter_map(|(_, text)| text.current_context.clone());
        named.find(|name| !name.is_empty())
    };
    let of_cluster;
    let (name, context) = match choice {
        Choice::Cluster(cluster) => {
            of_cluster = Context {
                cluster: cluster.to_owned(),
                user: String::new(),
            };
            (String::new(), &of_cluster)
        }
        Choice::Context(named) => {
            let Some(name) = named.map(str::to_owned).or_else(current) else {
                return Err(format!("{files} has no current context"));
            };
            let chosen = texts.iter().find_map(|(_, text)| {
                let contexts = text.contexts.iter().flatten();
                contexts.into_iter().find(|known| known.name == name)
            });
            let Some(NamedContext { context, .. }) = chosen else {
                return Err(format!("{files} has no context '{name}'"));
            };
            (name, context)
        }
    };
    let cluster = texts.iter().find_map(|(near, text)| {
        let mut clusters = text.clusters.iter().flatten();
        Some((near, clusters.find(|known| known.name == context.cluster)?))
    });
    let Some((near, NamedCluster { cluster, .. })) = cluster else {
        return Err(format!("{files} has no cluster '{}'", context.cluster));
    };
    let user = texts.iter().find_map(|(near, text)| {
        let mut users = text.users.iter().flatten();
        Some((near, users.find(|known| known.name == context.user)?))
    });
    let credentials = match user {
        Some((
            near,
            NamedUser {
                user: Some(user), ..
            },
        )) => near.credentials(user)?,
        Some(_) | None => Credentials::default(),
    };
    let authority = near.either(
        cluster.certificate_authority_data.as_deref(),
        cluster.certificate_authority.as_deref(),
        "certificate-authority",
    )?;
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Ok(Kubeconfig {
        cluster: context.cluster.clone(),
        holder: near.path.to_owned(),
        server: without_userinfo(&cluster.server),
        tls_server_name: set(&cluster.tls_server_name),
        authority,
        is_insecure: cluster.insecure_skip_tls_verify,
        proxy: set(&cluster.proxy_url).map(|url| without_userinfo(&url)),
        credentials,
        context: name,
    })
}

/// A URL as it may be shown: a user and password in it belong to nobody else, and no call of ours needs them.
pub(crate) fn without_userinfo(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = url.split_at(start);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    format!("{scheme}{host}{path}")
}

/// Files that a kubeconfig names.
#[derive(Debug, Clone, Copy)]
struct Near<'a> {
    root: &'a Root,
    path: &'a Path,
    directory: &'a Path,
}

// === impl Near ===

impl Near<'_> {
    fn credentials(&self, user: &User) -> Result<Credentials, String> {
        let certificate = self.either(
            user.client_certificate_data.as_deref(),
            user.client_certificate.as_deref(),
            "client-certificate",
        )?;
        let key = self.either(
            user.client_key_data.as_deref(),
            user.client_key.as_deref(),
            "client-key",
        )?;
        // kubelet keeps both in one file.
        let key = key.or_else(|| certificate.clone());
        let token = match (&user.token, &user.token_file) {
            (Some(token), _) if !token.is_empty() => Some(token.clone()),
            (_, Some(file)) => {
                let bytes = self.file(file, "tokenFile")?;
                Some(String::from_utf8_lossy(&bytes).trim().to_owned())
            }
            (_, None) => None,
        };
        Ok(Credentials {
            certificate: certificate.zip(key),
            token,
            plugin: user.exec.as_ref().map(|exec| exec.command.clone()),
        })
    }

    /// Data win over a file, as in client-go.
    fn either(
        &self,
        data: Option<&str>,
        file: Option<&Path>,
        field: &str,
    ) -> Result<Option<Vec<u8>>, String> {
        if let Some(data) = data.filter(|data| !data.is_empty()) {
            let packed: String = data.split_whitespace().collect();
            let decoded = STANDARD.decode(packed);
            return decoded
                .map(Some)
                .map_err(|error| format!("{field}-data is no base64: {error}"));
        }
        let file = file.filter(|file| !file.as_os_str().is_empty());
        file.map(|file| self.file(file, field)).transpose()
    }

    fn file(&self, file: &Path, field: &str) -> Result<Vec<u8>, String> {
        let path = self.directory.join(file);
        self.root
            .read(&path)
            .map_err(|error| format!("{field} {}: {error}", path.display()))
    }
}

pub(crate) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
