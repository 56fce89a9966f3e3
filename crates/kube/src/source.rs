//! Where the configuration of the client comes from, and the client made of it.
//!
//! The rules are those of the founding documents: `KUBECONFIG` when it is set, else the service account of the pod, else
//! `~/.kube/config`. Contexts, exec plugins, client certificates and token files are `kube`'s; the stack of its layers is
//! put together here, because its own one retries and logs by itself.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use thiserror::Error;
use tower::{BoxError, ServiceBuilder};

/// A connection that is not made in this time is given up; the API server is near.
const CONNECT: Duration = Duration::from_secs(2);
/// A connection that carries nothing is asked for a sign of life this often, so that a half-open one is noticed …
const KEEPALIVE: Duration = Duration::from_secs(5);
/// … and given up when sent bytes are not acknowledged for this long.
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections are closed after this: shorter than the usual limits of load balancers in between.
const IDLE: Duration = Duration::from_secs(30);

/// Where the configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The rules of the founding documents.
    Rules {
        /// `KUBECONFIG` as it stands in the environment; empty counts as not set.
        kubeconfig: Option<OsString>,
        /// The home directory, for `.kube/config`.
        home: Option<PathBuf>,
    },
    /// One API server without credentials, for tests.
    Url(String),
}

/// Why there is no client.
#[derive(Debug, Error)]
pub enum SourceError {
    /// A kubeconfig cannot be used.
    #[error("the Kubernetes configuration {path} cannot be used")]
    Kubeconfig {
        /// Which file or files.
        path: String,
        /// Why.
        #[source]
        source: KubeconfigError,
    },
    /// The service account cannot be used.
    #[error("the service account of this pod cannot be used")]
    InCluster(#[source] kube::config::InClusterError),
    /// There is no configuration at all.
    #[error(
        "no Kubernetes configuration: KUBECONFIG is not set, this is no pod with a service account, and \
         {looked_for} does not exist"
    )]
    Nothing {
        /// The last place.
        looked_for: String,
    },
    /// The API server is to be reached through a proxy.
    #[error(
        "the Kubernetes configuration {path} asks for the proxy {proxy}, which is not supported: reach the API server \
         directly, or run Nagi in the cluster"
    )]
    Proxy {
        /// Which file or files.
        path: String,
        /// The proxy.
        proxy: String,
    },
    /// The URL of a test is none.
    #[error("{0:?} is no URL")]
    Url(String),
    /// Certificates or credentials cannot be used.
    #[error("the credentials cannot be used")]
    Credentials(#[source] Box<kube::Error>),
}

/// A configuration that was read, and what it says beside the way to the API server.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    config: Config,
    /// The namespace of the pod; `None` outside a cluster.
    pub(crate) own_namespace: Option<String>,
}

// === impl Source ===

impl Source {
    /// Reads the configuration. Reads small files; runs nothing.
    pub(crate) async fn load(&self) -> Result<Loaded, SourceError> {
        match self {
            Self::Url(url) => {
                let uri = url.parse().map_err(|_| SourceError::Url(url.clone()))?;
                Ok(Loaded::outside(Config::new(uri)))
            }
            Self::Rules { kubeconfig, home } => load(kubeconfig.as_ref(), home.as_deref()).await,
        }
    }
}

async fn load(kubeconfig: Option<&OsString>, home: Option<&Path>) -> Result<Loaded, SourceError> {
    let named: Vec<PathBuf> = kubeconfig
        .map(|paths| std::env::split_paths(paths).collect())
        .unwrap_or_default();
    let named: Vec<PathBuf> = named
        .into_iter()
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    if !named.is_empty() {
        return from_files(&named).await.map(Loaded::outside);
    }
    let no_pod = |error: &kube::config::InClusterError| {
        matches!(
            error,
            kube::config::InClusterError::ReadEnvironmentVariable(_)
        )
    };
    match Config::incluster_env() {
        Ok(config) => {
            let own_namespace = Some(config.default_namespace.clone());
            return Ok(Loaded {
                config,
                own_namespace,
            });
        }
        Err(error) if !no_pod(&error) => return Err(SourceError::InCluster(error)),
        Err(_) => {}
    }
    let usual = home.map(|home| home.join(".kube").join("config"));
    match usual {
        Some(path) if path.exists() => from_files(&[path]).await.map(Loaded::outside),
        Some(path) => Err(SourceError::Nothing {
            looked_for: path.display().to_string(),
        }),
        None => Err(SourceError::Nothing {
            looked_for: "~/.kube/config".to_owned(),
        }),
    }
}

async fn from_files(paths: &[PathBuf]) -> Result<Config, SourceError> {
    let names: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let failed = |source| SourceError::Kubeconfig {
        path: names.join(":"),
        source,
    };
    let mut merged = Kubeconfig::default();
    for path in paths {
        let read = Kubeconfig::read_from(path).map_err(failed)?;
        merged = merged.merge(read).map_err(failed)?;
    }
    if let Some(proxy) = proxy(&merged) {
        return Err(SourceError::Proxy {
            path: names.join(":"),
            proxy,
        });
    }
    Config::from_custom_kubeconfig(merged, &KubeConfigOptions::default())
        .await
        .map_err(failed)
}

/// The proxy that the cluster of the current context asks for. It is not left out silently: a connection around it may
/// reach another server.
fn proxy(kubeconfig: &Kubeconfig) -> Option<String> {
    let current = kubeconfig.current_context.as_ref()?;
    let mut contexts = kubeconfig.contexts.iter();
    let context = contexts
        .find(|named| named.name == *current)?
        .context
        .as_ref()?;
    let mut clusters = kubeconfig.clusters.iter();
    let cluster = clusters
        .find(|named| named.name == context.cluster)?
        .cluster
        .as_ref()?;
    cluster.proxy_url.clone().filter(|proxy| !proxy.is_empty())
}

// === impl Loaded ===

impl Loaded {
    const fn outside(config: Config) -> Self {
        Self {
            config,
            own_namespace: None,
        }
    }

    /// Makes the client. Blocks: an exec plugin is a process.
    pub(crate) fn client(&self) -> Result<Client, SourceError> {
        let failed = |error| SourceError::Credentials(Box::new(error));
        let config = &self.config;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(KEEPALIVE));
        connector.set_keepalive_retries(Some(2));
        connector.set_tcp_user_timeout(Some(USER_TIMEOUT));
        let connector = config
            .rustls_https_connector_with_connector(connector)
            .map_err(failed)?;
        let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(failed)?)
            .layer(config.extra_headers_layer().map_err(failed)?)
            .map_err(BoxError::from)
            .service(http);
        Ok(Client::new(service, config.default_namespace.clone()))
    }
}

/// An error with its causes, in one line.
pub(crate) fn explained(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.ends_with(&cause_words) {
            words.push_str(": ");
            words.push_str(&cause_words);
        }
        source = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\
apiVersion: v1
kind: Config
current-context: CONTEXT
clusters:
- { name: a, cluster: { server: \"http://a.example:1\" } }
- { name: b, cluster: { server: \"http://b.example:2\", proxy-url: \"http://proxy:3\" } }
users: [{ name: u, user: { token: t } }]
contexts:
- { name: a, context: { cluster: a, user: u } }
- { name: b, context: { cluster: b, user: u } }
";

    async fn read(directory: &Path, files: &[(&str, &str)]) -> Result<Config, SourceError> {
        let paths = files.iter().map(|(name, context)| {
            let path = directory.join(name);
            std::fs::write(&path, CONFIG.replace("CONTEXT", context)).unwrap();
            path
        });
        from_files(&paths.collect::<Vec<_>>()).await
    }

    //
    #[tokio::test]
    async fn the_first_of_several_files_that_names_a_context_wins() {
        let directory = tempfile::tempdir().unwrap();
        let config = read(directory.path(), &[("1", "a"), ("2", "b")])
            .await
            .unwrap();
        assert_eq!(config.cluster_url.to_string(), "http://a.example:1/");
    }

    #[tokio::test]
    async fn a_proxy_is_refused_and_not_gone_around() {
        let directory = tempfile::tempdir().unwrap();
        let error = read(directory.path(), &[("1", "b")]).await.unwrap_err();
        assert!(error.to_string().contains("http://proxy:3"), "{error}");
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_configuration_is_said_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let error = read(directory.path(), &[("1", "nowhere")])
            .await
            .unwrap_err();
        let words = explained(&error);
        assert!(words.contains("nowhere") && words.contains("/1"), "{words}");
        let missing = Source::Rules {
            kubeconfig: Some(directory.path().join("missing").into()),
            home: None,
        };
        let words = explained(&missing.load().await.unwrap_err());
        assert!(words.contains("missing"), "{words}");
        let nothing = Source::Rules {
            kubeconfig: Some(OsString::new()),
            home: Some(directory.path().to_owned()),
        };
        let words = explained(&nothing.load().await.unwrap_err());
        assert!(words.contains(".kube/config does not exist"), "{words}");
    }
}
