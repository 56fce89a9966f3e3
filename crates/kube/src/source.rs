//! Where the configuration of the client comes from, and the client made of it.
//!
//! The rules are those of the founding documents: `KUBECONFIG` when it is set, else the service account of the pod, else
//! `~/.kube/config`. A service account has no contexts, so it is passed over when one is named. Contexts, exec plugins, client
//! certificates, token files and which proxy is meant are `kube`'s; the stack of its layers is put together here, because its
//! own one retries and logs by itself.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use thiserror::Error;
use tower::{BoxError, Service, ServiceBuilder};

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
        /// The context of the kubeconfig; `None` for its current one. A service account has none.
        context: Option<String>,
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
    /// A context was named, and there is no file that could have it.
    #[error(
        "context {context:?} was named, which only a kubeconfig has, but KUBECONFIG is not set and {looked_for} does not exist"
    )]
    NoFileForContext {
        /// The context.
        context: String,
        /// The last place.
        looked_for: String,
    },
    /// The proxy to the API server cannot be used.
    #[error(
        "{proxy:?} is no proxy that can be used: it must be a URL that begins with http, https or socks5"
    )]
    Proxy {
        /// As it is configured, without a password.
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
    /// Whether there is any configuration, good or bad. Reads small files.
    pub async fn is_there(&self) -> bool {
        !matches!(
            self.load().await,
            Err(SourceError::Nothing { .. } | SourceError::NoFileForContext { .. })
        )
    }

    /// Reads the configuration. Reads small files; runs nothing.
    pub(crate) async fn load(&self) -> Result<Loaded, SourceError> {
        match self {
            Self::Url(url) => {
                let uri = url.parse().map_err(|_| SourceError::Url(url.clone()))?;
                Ok(Loaded::outside(Config::new(uri)))
            }
            Self::Rules {
                kubeconfig,
                home,
                context,
            } => load(kubeconfig.as_ref(), home.as_deref(), context.as_deref()).await,
        }
    }
}

async fn load(
    kubeconfig: Option<&OsString>,
    home: Option<&Path>,
    context: Option<&str>,
) -> Result<Loaded, SourceError> {
    let named: Vec<PathBuf> = kubeconfig
        .map(|paths| std::env::split_paths(paths).collect())
        .unwrap_or_default();
    let named: Vec<PathBuf> = named
        .into_iter()
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    if !named.is_empty() {
        return from_files(&named, context).await.map(Loaded::outside);
    }
    let no_pod = |error: &kube::config::InClusterError| {
        matches!(
            error,
            kube::config::InClusterError::ReadEnvironmentVariable(_)
        )
    };
    if context.is_none() {
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
    }
    let usual = home.map(|home| home.join(".kube").join("config"));
    if let Some(path) = usual.as_ref().filter(|path| path.exists()) {
        return from_files(std::slice::from_ref(path), context)
            .await
            .map(Loaded::outside);
    }
    let looked_for = usual.map_or_else(
        || "~/.kube/config".to_owned(),
        |path| path.display().to_string(),
    );
    Err(match context {
        None => SourceError::Nothing { looked_for },
        Some(context) => SourceError::NoFileForContext {
            context: context.to_owned(),
            looked_for,
        },
    })
}

async fn from_files(paths: &[PathBuf], context: Option<&str>) -> Result<Config, SourceError> {
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
        // Of several files kubectl passes over those that are not there.
        if paths.len() > 1 && !path.exists() {
            continue;
        }
        let mut read = Kubeconfig::read_from(path).map_err(failed)?;
        // The first file that names a context decides; one that is empty names none.
        read.current_context = read.current_context.filter(|name| !name.is_empty());
        merged = merged.merge(read).map_err(failed)?;
    }
    let options = KubeConfigOptions {
        context: context.map(str::to_owned),
        ..KubeConfigOptions::default()
    };
    Config::from_custom_kubeconfig(merged, &options)
        .await
        .map_err(failed)
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
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(KEEPALIVE));
        connector.set_keepalive_retries(Some(2));
        connector.set_tcp_user_timeout(Some(USER_TIMEOUT));
        let Some(proxy) = self.config.proxy_url.as_ref() else {
            return self.client_over(connector);
        };
        let unusable = || SourceError::Proxy {
            proxy: without_password(proxy),
        };
        // Which clusters are reached without it (NO_PROXY) was decided when the configuration was read.
        let rules = Matcher::builder().all(proxy.to_string()).build();
        let way = rules
            .intercept(&self.config.cluster_url)
            .ok_or_else(unusable)?;
        match way.uri().scheme_str() {
            Some("http") => self.client_over(tunnel(&way, connector)),
            Some("https") => {
                let connector = self
                    .config
                    .rustls_https_connector_with_connector(connector)
                    .map_err(|error| SourceError::Credentials(Box::new(error)))?;
                self.client_over(tunnel(&way, connector))
            }
            Some("socks5") => {
                let mut connector = SocksV5::new(way.uri().clone(), connector);
                if let Some((user, password)) = way.raw_auth() {
                    connector = connector.with_auth(user.to_owned(), password.to_owned());
                }
                self.client_over(connector)
            }
            _ => Err(unusable()),
        }
    }

    /// The client whose connections begin with what `connector` makes.
    fn client_over<C>(&self, connector: C) -> Result<Client, SourceError>
    where
        C: Service<Uri> + Clone + Send + Sync + 'static,
        C::Response: Read + Write + Connection + Unpin + Send,
        C::Future: Send + Unpin,
        C::Error: Into<BoxError>,
    {
        let failed = |error| SourceError::Credentials(Box::new(error));
        let config = &self.config;
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

fn tunnel<C>(way: &Intercept, connector: C) -> Tunnel<C> {
    let tunnel = Tunnel::new(way.uri().clone(), connector);
    match way.basic_auth() {
        Some(value) => tunnel.with_auth(value.clone()),
        None => tunnel,
    }
}

fn without_password(proxy: &Uri) -> String {
    let text = proxy.to_string();
    let Some((user, host)) = text.rsplit_once('@') else {
        return text;
    };
    let scheme = user.split_once("://").map_or("", |(scheme, _)| scheme);
    format!("{scheme}://…@{host}")
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
        from_files(&paths.collect::<Vec<_>>(), None).await
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

    // Issue 4 item 2: what kubectl passes over in a list of files
    #[tokio::test]
    async fn of_several_files_those_that_are_absent_or_name_no_context_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, context: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, CONFIG.replace("CONTEXT", context)).unwrap();
            path
        };
        let absent = directory.path().join("absent");
        let paths = [absent.clone(), file("1", "\"\""), file("2", "b")];
        let config = from_files(&paths, None).await.unwrap();
        assert_eq!(config.cluster_url.to_string(), "http://b.example:2/");
        let words = explained(&from_files(&[absent], None).await.err().unwrap());
        assert!(words.contains("absent"), "{words}");
    }

    // Issue 4 item 2: full rules, contexts included
    #[tokio::test]
    async fn another_context_than_the_current_one_can_be_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("1");
        std::fs::write(&file, CONFIG.replace("CONTEXT", "a")).unwrap();
        let with = |context: &str| Source::Rules {
            kubeconfig: Some(file.clone().into()),
            home: None,
            context: Some(context.to_owned()),
        };
        let other = with("b").load().await.unwrap();
        assert_eq!(other.config.cluster_url.to_string(), "http://b.example:2/");
        let words = explained(&with("nowhere").load().await.unwrap_err());
        assert!(words.contains("/1") && words.contains("nowhere"), "{words}");
        let no_file = Source::Rules {
            kubeconfig: None,
            home: Some(directory.path().to_owned()),
            context: Some("b".to_owned()),
        };
        let words = explained(&no_file.load().await.unwrap_err());
        assert!(words.contains("context \"b\" was named"), "{words}");
    }

    #[tokio::test]
    async fn a_proxy_of_an_unknown_kind_is_refused_and_not_gone_around() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = read(directory.path(), &[("1", "b")]).await.unwrap();
        assert_eq!(config.proxy_url, Some("http://proxy:3".parse().unwrap()));
        for (proxy, shown) in [
            ("ftp://proxy:3", "ftp://proxy:3"),
            ("ftp://me:secret@proxy:3", "ftp://…@proxy:3"),
        ] {
            config.proxy_url = Some(proxy.parse().unwrap());
            let error = Loaded::outside(config.clone()).client().err().unwrap();
            let words = explained(&error);
            assert!(words.contains(shown), "{words}");
            assert!(!words.contains("secret"), "{words}");
        }
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
            context: None,
        };
        let words = explained(&missing.load().await.unwrap_err());
        assert!(words.contains("missing"), "{words}");
        let nothing = Source::Rules {
            kubeconfig: Some(OsString::new()),
            home: Some(directory.path().to_owned()),
            context: None,
        };
        let words = explained(&nothing.load().await.unwrap_err());
        assert!(words.contains(".kube/config does not exist"), "{words}");
    }
}
