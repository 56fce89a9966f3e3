//! The API server, as a kubeconfig reaches it: one call of `/readyz`, and one class for each way that it can fail.
//!
//! The order is that of the layers: name, connection, TLS, HTTP. The first that fails gives the class, so it is one and never
//! two. Credentials are sent only over a connection whose certificate was accepted.

mod http;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ::http::Uri;
use jiff::Timestamp;
use nagi_runtime::Deadline;
use tokio::net::TcpStream;

use crate::certificate::{Certificate, read_pem};
use crate::kubeconfig::{self, Choice, Kubeconfig};
use crate::observed::{Endpoint, Listener, Looked, Reach, Stage, Unseen};
use crate::root::Root;

pub(crate) use http::{Answer, Call, CallError, call, stream};
pub(crate) use tls::{Handshake, HandshakeError, Trust, handshake, look};

/// Programs that listen on this machine for something behind them: the kernel cuts their names after 15 bytes.
const TUNNELS: [&str; 4] = ["ssh", "sshd", "autossh", "kubectl"];

/// How far a probe came, and what it learned on the way.
#[derive(Debug)]
struct Probed {
    reach: Reach,
    presented: Option<Certificate>,
    clock_ahead_seconds: Option<i64>,
}

/// Where an API server is, out of its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    /// What comes before each path; empty for most.
    path: String,
    has_tls: bool,
}

/// Kubeconfigs that were read as one.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// As programs of this machine reach them.
    shown: Vec<String>,
    /// What they say, or why they cannot be used.
    config: Result<Kubeconfig, String>,
}

/// Calls the API server of kubeconfigs.
///
/// # Errors
/// What it says is not what it says to the caller: the credentials come from a program.
pub(crate) async fn probe(
    chosen: Chosen,
    context: Option<&str>,
    now: Timestamp,
    deadline: Deadline,
) -> Looked<Endpoint> {
    let Chosen { shown, config } = chosen;
    let mut endpoint = Endpoint {
        kubeconfig: shown.join(":"),
        holder: String::new(),
        context: context.unwrap_or_default().to_owned(),
        cluster: String::new(),
        server: shown.join(":"),
        expected_name: String::new(),
        reach: Reach::Ready,
        presented: None,
        client: None,
        listener: None,
        clock_ahead_seconds: None,
    };
    let config = match config {
        Ok(config) => config,
        Err(why) => {
            endpoint.reach = Reach::Unusable(why);
            return Ok(endpoint);
        }
    };
    endpoint.context.clone_from(&config.context);
    endpoint.cluster.clone_from(&config.cluster);
    endpoint.holder = config.holder.display().to_string();
    endpoint.server.clone_from(&config.server);
    let client = config.credentials.certificate.as_ref();
    let client = client.and_then(|(certificate, _)| read_pem(certificate).ok());
    endpoint.client = client.and_then(|all| all.into_iter().next());
    let target = match Target::of(&config.server) {
        Ok(target) => target,
        Err(why) => {
            endpoint.reach = Reach::Unusable(format!("{}: {why}", endpoint.kubeconfig));
            return Ok(endpoint);
        }
    };
    let named = config.tls_server_name.clone();
    endpoint.expected_name = named.unwrap_or_else(|| target.host.clone());
    let probed = go(&config, &target, &endpoint.expected_name, now, deadline).await;
    endpoint.reach = probed.reach;
    endpoint.presented = probed.presented;
    endpoint.clock_ahead_seconds = probed.clock_ahead_seconds;
    without_plugin(endpoint, config.credentials.plugin.as_deref())
}

/// The call went without the credentials of a plugin, so a refusal is not the one that the caller gets.
fn without_plugin(endpoint: Endpoint, plugin: Option<&str>) -> Looked<Endpoint> {
    let is_refusal = matches!(endpoint.reach, Reach::Unauthorized | Reach::Forbidden);
    match plugin {
        Some(plugin) if is_refusal => Err(Unseen::Failed(format!(
            "{} answers, and the credentials come from {plugin}, which is not run",
            endpoint.server
        ))),
        Some(_) | None => Ok(endpoint),
    }
}

async fn go(
    config: &Kubeconfig,
    target: &Target,
    expected_name: &str,
    now: Timestamp,
    deadline: Deadline,
) -> Probed {
    let whole = deadline.remaining();
    if let Some(proxy) = &config.proxy {
        // What a proxy says of the other side is not told apart as it is without one.
        return Probed::only(Reach::Unusable(format!(
            "the way goes over the proxy {proxy}, which is not followed"
        )));
    }
    let stream = match connect(target, whole, deadline).await {
        Ok(stream) => stream,
        Err(reach) => return Probed::only(reach),
    };
    if !target.has_tls {
        let answer = call(stream, &readyz(target, None), deadline).await;
        return Probed::of(answer, whole, now);
    }
    let trust = trust(config, expected_name);
    let Handshake { stream, presented } = handshake(stream, &trust, deadline).await;
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => {
            return Probed {
                reach: of_handshake(error, config, whole),
                presented,
                clock_ahead_seconds: None,
            };
        }
    };
    let token = config.credentials.token.as_deref();
    let answer = call(stream, &readyz(target, token), deadline).await;
    Probed {
        presented,
        ..Probed::of(answer, whole, now)
    }
}

/// Shakes hands with a server, and sends nothing.
///
/// # Errors
/// There is no connection to shake hands on; why, in words.
pub(crate) async fn present(
    server: &str,
    trust: &Trust<'_>,
    deadline: Deadline,
) -> Result<Handshake, String> {
    let target = Target::of(server)?;
    let stream = connect(&target, deadline.remaining(), deadline).await;
    let stream = stream.map_err(|reach| match reach {
        Reach::Refused => "connection refused".to_owned(),
        Reach::Unresolved(why) | Reach::Unreachable(why) => why,
        Reach::TimedOut { stage, after } => {
            format!("no {} within {} ms", stage.word(), after.as_millis())
        }
        // What a connection alone never comes to.
        Reach::Ready
        | Reach::RefusedThroughTunnel
        | Reach::Closed
        | Reach::TlsName
        | Reach::TlsExpired
        | Reach::TlsNotYetValid
        | Reach::TlsUnknownAuthority
        | Reach::TlsFailed(_)
        | Reach::Unauthorized
        | Reach::Forbidden
        | Reach::NotReady { .. }
        | Reach::Odd(_)
        | Reach::Unusable(_) => "no connection".to_owned(),
    })?;
    Ok(handshake(stream, trust, deadline).await)
}

/// The host of a server that is spoken to in TLS.
///
/// # Errors
/// It is no such server; why, in words.
pub(crate) fn tls_host(server: &str) -> Result<String, String> {
    let target = Target::of(server)?;
    if !target.has_tls {
        let server = kubeconfig::without_userinfo(server);
        return Err(format!("{server:?} does not begin with https://"));
    }
    let host = target.host.trim_start_matches('[').trim_end_matches(']');
    Ok(host.to_owned())
}

fn trust<'a>(config: &'a Kubeconfig, name: &'a str) -> Trust<'a> {
    Trust {
        authority: config.authority.as_deref(),
        name,
        client: config.credentials.certificate.as_ref(),
    }
}

/// What an API server says to a call, whatever it is.
///
/// # Errors
/// It cannot be called, or does not answer; in words.
pub(crate) async fn ask(
    chosen: &Chosen,
    method: ::http::Method,
    path: &str,
    body: Option<String>,
    deadline: Deadline,
) -> Result<Answer, String> {
    let config = chosen.config.as_ref().map_err(Clone::clone)?;
    if let Some(proxy) = &config.proxy {
        return Err(format!(
            "the way goes over the proxy {proxy}, which is not followed"
        ));
    }
    let target = Target::of(&config.server)?;
    let expected = config.tls_server_name.as_deref().unwrap_or(&target.host);
    let whole = deadline.remaining();
    let stream = connect(&target, whole, deadline).await;
    let stream = stream.map_err(|reach| format!("{}: {reach:?}", config.server))?;
    let request = Call {
        method,
        host: target.authority(),
        path: format!("{}{path}", target.path),
        // A token goes over no connection that anybody may read.
        token: config.credentials.token.clone().filter(|_| target.has_tls),
        body,
    };
    let answer = if target.has_tls {
        let trust = trust(config, expected);
        let Handshake { stream, .. } = handshake(stream, &trust, deadline).await;
        let stream = stream.map_err(|error| format!("{}: TLS: {error:?}", config.server))?;
        call(stream, &request, deadline).await
    } else {
        call(stream, &request, deadline).await
    };
    answer.map_err(|error| format!("{} {path}: {}", config.server, error.words()))
}

fn readyz(target: &Target, token: Option<&str>) -> Call {
    Call {
        method: ::http::Method::GET,
        host: target.authority(),
        path: format!("{}/readyz?verbose", target.path),
        token: token.map(str::to_owned),
        body: None,
    }
}

/// One address after the other, as long as there is time.
async fn connect(target: &Target, whole: Duration, deadline: Deadline) -> Result<TcpStream, Reach> {
    let timed_out = |stage| Reach::TimedOut {
        stage,
        after: whole,
    };
    let addresses = addresses(target, deadline).await;
    let addresses = addresses.map_err(|error| error.unwrap_or_else(|| timed_out(Stage::Name)))?;
    let mut failed = Reach::Unresolved(format!("{} has no address", target.host));
    for address in addresses {
        match deadline.timeout(TcpStream::connect(address)).await {
            Err(_) => return Err(timed_out(Stage::Connection)),
            Ok(Ok(stream)) => {
                // A handshake of small pieces waits for nobody.
                drop(stream.set_nodelay(true));
                return Ok(stream);
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                failed = Reach::Refused;
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
                failed = timed_out(Stage::Connection);
            }
            Ok(Err(error)) => failed = Reach::Unreachable(error.to_string()),
        }
    }
    Err(failed)
}

/// None as the error is that of the deadline.
async fn addresses(target: &Target, deadline: Deadline) -> Result<Vec<SocketAddr>, Option<Reach>> {
    let plain = target.host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = plain.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, target.port)]);
    }
    let found = tokio::net::lookup_host((plain, target.port));
    match deadline.timeout(found).await {
        Err(_) => Err(None),
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(Some(Reach::Unresolved(format!("{plain}: {error}")))),
    }
}

fn of_handshake(error: HandshakeError, config: &Kubeconfig, whole: Duration) -> Reach {
    match error {
        HandshakeError::TimedOut => Reach::TimedOut {
            stage: Stage::Handshake,
            after: whole,
        },
        HandshakeError::Closed => Reach::Closed,
        HandshakeError::Name => Reach::TlsName,
        HandshakeError::Expired => Reach::TlsExpired,
        HandshakeError::NotYetValid => Reach::TlsNotYetValid,
        HandshakeError::UnknownAuthority if config.is_insecure => Reach::Unusable(format!(
            "the cluster {} has insecure-skip-tls-verify and no authority: nothing can be verified, and nothing is sent",
            config.cluster
        )),
        HandshakeError::UnknownAuthority => Reach::TlsUnknownAuthority,
        HandshakeError::Unusable(why) => Reach::Unusable(why),
        HandshakeError::Failed(why) => Reach::TlsFailed(why),
    }
}

/// Says who listens, where the address is one of this machine; a tunnel that closes at once has nothing behind it.
pub(crate) fn with_listener(mut endpoint: Endpoint, listeners: &[Listener]) -> Endpoint {
    let Ok(target) = Target::of(&endpoint.server) else {
        return endpoint;
    };
    if !target.is_loopback() {
        return endpoint;
    }
    let listener = listeners.iter().find(|one| one.port == target.port);
    let Some((pid, name)) = listener.and_then(|one| one.process.as_ref()) else {
        return endpoint;
    };
    if endpoint.reach == Reach::Closed && TUNNELS.contains(&name.as_str()) {
        endpoint.reach = Reach::RefusedThroughTunnel;
    }
    endpoint.listener = Some(format!("{name} (process {pid})"));
    endpoint
}

// === impl Chosen ===

impl Chosen {
    /// Reads them. Their paths are those of the node below `root`.
    pub(crate) fn read(root: &Root, paths: &[PathBuf], context: Option<&str>) -> Self {
        let outside = |path: &PathBuf| root.outside(path);
        let config = kubeconfig::read(root, paths, Choice::Context(context));
        Self {
            shown: paths
                .iter()
                .map(|path| outside(path).display().to_string())
                .collect(),
            config: config.map(|config| Kubeconfig {
                holder: outside(&config.holder),
                ..config
            }),
        }
    }
}

// === impl Target ===

impl Target {
    fn of(server: &str) -> Result<Self, String> {
        let server = kubeconfig::without_userinfo(server);
        let uri: Uri = server
            .parse()
            .map_err(|error| format!("{server:?} is no URL: {error}"))?;
        let has_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => {
                return Err(format!(
                    "{server:?} begins with neither https:// nor http://"
                ));
            }
        };
        let host = uri.host().unwrap_or_default().to_owned();
        if host.is_empty() {
            return Err(format!("{server:?} names no host"));
        }
        // A number that is no port reads like none at all, and the default would be another server.
        let is_bare = uri
            .authority()
            .is_some_and(|whole| whole.as_str().trim_end_matches(':') == host);
        let port = match uri.port_u16() {
            Some(port) if port != 0 => port,
            None if is_bare => {
                if has_tls {
                    443
                } else {
                    80
                }
            }
            Some(_) | None => return Err(format!("{server:?} names a port that is none")),
        };
        Ok(Self {
            port,
            path: uri.path().trim_end_matches('/').to_owned(),
            host,
            has_tls,
        })
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn is_loopback(&self) -> bool {
        let plain = self.host.trim_start_matches('[').trim_end_matches(']');
        plain == "localhost"
            || plain
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

// === impl Probed ===

impl Probed {
    const fn only(reach: Reach) -> Self {
        Self {
            reach,
            presented: None,
            clock_ahead_seconds: None,
        }
    }

    fn of(answer: Result<Answer, CallError>, whole: Duration, now: Timestamp) -> Self {
        let answer = match answer {
            Ok(answer) => answer,
            Err(CallError::TimedOut) => {
                return Self::only(Reach::TimedOut {
                    stage: Stage::Answer,
                    after: whole,
                });
            }
            Err(CallError::Closed) => return Self::only(Reach::Closed),
            Err(CallError::Failed(why)) => return Self::only(Reach::Odd(why)),
        };
        let ahead = answer.date.map(|date| date.duration_since(now).as_secs());
        Self {
            reach: of_answer(&answer),
            presented: None,
            clock_ahead_seconds: ahead,
        }
    }
}

fn of_answer(answer: &Answer) -> Reach {
    match answer.status {
        200 if answer.text.contains("check passed") || answer.text.trim() == "ok" => Reach::Ready,
        401 => Reach::Unauthorized,
        403 => Reach::Forbidden,
        500 | 503 if is_of_checks(&answer.text) => Reach::NotReady {
            failed: answer.text.lines().filter_map(failed_check).collect(),
        },
        status => {
            let head: String = answer.text.chars().take(80).collect();
            Reach::Odd(format!("{status} {}", head.replace(['\n', '\r'], " ")))
        }
    }
}

/// An API server says which check fails, or that one does. A load balancer says 503 of servers that it does not reach.
fn is_of_checks(text: &str) -> bool {
    text.contains("readyz check failed") || text.lines().any(|line| line.starts_with("[-]"))
}

/// `[-]etcd failed: reason withheld`
fn failed_check(line: &str) -> Option<String> {
    let rest = line.strip_prefix("[-]")?;
    Some(rest.split(' ').next().unwrap_or(rest).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_one_class() {
        let class = |status, text: &str| {
            of_answer(&Answer {
                status,
                text: text.to_owned(),
                date: None,
            })
        };
        assert_eq!(
            class(200, "[+]ping ok\nreadyz check passed\n"),
            Reach::Ready
        );
        assert_eq!(class(200, "ok"), Reach::Ready);
        assert!(matches!(class(200, "<html>hello"), Reach::Odd(_)));
        assert!(matches!(class(404, "not found"), Reach::Odd(_)));
        // So says a load balancer that has nobody behind it.
        assert!(matches!(class(503, "<html>no server"), Reach::Odd(_)));
        assert_eq!(class(401, "{}"), Reach::Unauthorized);
        assert_eq!(class(403, "{}"), Reach::Forbidden);
        let failed = class(
            500,
            "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n",
        );
        assert_eq!(
            failed,
            Reach::NotReady {
                failed: vec!["etcd".to_owned()]
            }
        );
    }

    #[test]
    fn a_server_is_a_url_with_a_host() {
        let target = Target::of("https://[::1]:6443/a").unwrap();
        assert_eq!((target.port, target.is_loopback()), (6443, true));
        // Behind a proxy of many clusters, each has its path.
        let path = |server: &str| readyz(&Target::of(server).unwrap(), None).path;
        assert_eq!(
            path("https://a/k8s/clusters/c-1/"),
            "/k8s/clusters/c-1/readyz?verbose"
        );
        assert_eq!(path("https://a:6443"), "/readyz?verbose");
        assert_eq!(Target::of("https://a.example").unwrap().port, 443);
        for bad in [
            "",
            "a.example:6443",
            "ftp://a",
            "https://",
            // Not the default port: that is another server.
            "https://a:99999",
            "https://a:0",
            "https://[::1]:99999",
            "http://a:65536/b",
        ] {
            assert!(Target::of(bad).is_err(), "{bad}");
        }
    }
}
