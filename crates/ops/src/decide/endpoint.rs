//! What an API server says to one client, one class for each way that it can fail.

use std::net::IpAddr;

use super::{Facts, Found};
use crate::cause::Cause;
use crate::observed::{Endpoint, LineClass, Reach, Stage};

pub(super) fn judge(facts: Facts<'_>, found: &mut Found) {
    let tunnel = facts.last_line(|class| *class == LineClass::TunnelRefused);
    let Ok(endpoint) = &facts.observed.endpoint else {
        by_log(tunnel, found);
        return;
    };
    let Some((cause, evidence)) = of_reach(endpoint) else {
        return;
    };
    // ssh said why it closed.
    let cause = if cause == Cause::Closed && tunnel.is_some() {
        Cause::TunnelRefused
    } else {
        cause
    };
    let mut evidence = vec![evidence];
    if cause == Cause::TunnelRefused {
        evidence.extend(tunnel);
    } else if is_silent(&endpoint.reach) {
        by_log(tunnel, found);
    }
    evidence.push(from(endpoint));
    let address = endpoint.address();
    let host = if cause == Cause::TunnelRefused {
        // The node is behind the tunnel, and this machine does not know its name.
        "NODE"
    } else {
        endpoint.host()
    };
    let presented = endpoint.presented.as_ref();
    let name = presented.and_then(|one| best_name(&one.names, endpoint.host()));
    let next_of = if cause == Cause::TlsName && name.is_none() {
        evidence.push(
            "it has neither kubernetes nor kubernetes.default, so it is no API server's certificate"
                .to_owned(),
        );
        Cause::TlsUnknownAuthority
    } else {
        cause
    };
    let name = name.unwrap_or_default();
    found.add_with_next_of(
        next_of,
        cause,
        &endpoint.server,
        evidence,
        &[
            ("address", &[&address]),
            ("cluster", &[&endpoint.cluster]),
            ("context", &[&endpoint.context]),
            ("expected", &[&endpoint.expected_name]),
            ("file", &[&endpoint.kubeconfig]),
            ("holder", &[&endpoint.holder]),
            ("host", &[host]),
            ("name", &[&name]),
            ("server", &[&endpoint.server]),
        ],
    );
}

/// What ssh said is enough where nobody else says anything.
fn by_log(tunnel: Option<String>, found: &mut Found) {
    if let Some(line) = tunnel {
        let values: &[(&str, &[&str])] = &[("host", &["NODE"])];
        found.add(Cause::TunnelRefused, "tunnel", vec![line], values);
    }
}

/// Nothing came of the call that an API server, or somebody in its place, would have said.
fn is_silent(reach: &Reach) -> bool {
    match reach {
        Reach::Refused
        | Reach::TimedOut { .. }
        | Reach::Unresolved(_)
        | Reach::Unreachable(_)
        | Reach::Unusable(_) => true,
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
        | Reach::Odd(_) => false,
    }
}

/// None when it is ready, and for what is judged with the certificates in files.
fn of_reach(endpoint: &Endpoint) -> Option<(Cause, String)> {
    let server = &endpoint.server;
    let said = match &endpoint.reach {
        Reach::Ready | Reach::TlsExpired | Reach::TlsNotYetValid => return None,
        Reach::Refused => (Cause::Refused, format!("{server}: connection refused")),
        Reach::RefusedThroughTunnel => (
            Cause::TunnelRefused,
            format!(
                "{server}: {} listens here, and closes each connection before a word",
                endpoint.listener.as_deref().unwrap_or("a tunnel")
            ),
        ),
        Reach::TimedOut { stage, after } => (
            Cause::TimedOut,
            format!(
                "{server}: no {} within {} ms",
                stage.word(),
                after.as_millis()
            ),
        ),
        Reach::Unresolved(why) => (Cause::Unresolved, format!("{server}: {why}")),
        Reach::Unreachable(why) => (Cause::Unreachable, format!("{server}: {why}")),
        Reach::Closed => (
            Cause::Closed,
            format!("{server}: the connection is closed before a word"),
        ),
        Reach::TlsName => (
            Cause::TlsName,
            format!(
                "the certificate of {server} is for {}, not {}",
                names(endpoint),
                endpoint.expected_name
            ),
        ),
        Reach::TlsUnknownAuthority => (
            Cause::TlsUnknownAuthority,
            format!(
                "the certificate of {server} is signed by an unknown authority{}",
                issuer(endpoint)
            ),
        ),
        Reach::TlsFailed(why) => (Cause::TlsFailed, format!("{server}: {why}")),
        Reach::Unauthorized => (Cause::Unauthorized, format!("{server} answers 401")),
        Reach::Forbidden => (Cause::Forbidden, format!("{server} answers 403")),
        Reach::NotReady { failed } if failed.is_empty() => (
            Cause::NotReady,
            format!("{server} says that it is not ready"),
        ),
        Reach::NotReady { failed } => (
            Cause::NotReady,
            format!("{server} is not ready: {}", failed.join(", ")),
        ),
        Reach::Odd(what) => (
            Cause::Odd,
            format!("{server} answers as no API server does: {what}"),
        ),
        Reach::Unusable(why) => (Cause::KubeconfigUnusable, why.clone()),
    };
    Some(said)
}

fn from(endpoint: &Endpoint) -> String {
    format!(
        "by {}, context {}",
        endpoint.kubeconfig,
        if endpoint.context.is_empty() {
            "-"
        } else {
            &endpoint.context
        }
    )
}

fn names(endpoint: &Endpoint) -> String {
    let names = endpoint.presented.as_ref().map(|one| one.names.join(", "));
    names
        .filter(|names| !names.is_empty())
        .unwrap_or_else(|| "no name at all".to_owned())
}

fn issuer(endpoint: &Endpoint) -> String {
    endpoint
        .presented
        .as_ref()
        .map_or_else(String::new, |one| format!(": {}", one.issuer))
}

/// Names of which every API server's certificate has one. The authority of a cluster signs kubelets too, and a client that
/// expects the name of one of them would take it for the API server.
const COMMON: [&str; 2] = ["kubernetes", "kubernetes.default"];

/// The name that a kubeconfig had best expect; none where the certificate is not that of an API server. Through a tunnel it
/// is one that is the node's own, as the seed has it; elsewhere one that every API server of the cluster has.
pub(crate) fn best_name(names: &[String], host: &str) -> Option<String> {
    let common = COMMON
        .iter()
        .find(|common| names.iter().any(|name| name == *common))?;
    let is_own = |name: &&String| {
        !name.starts_with("kubernetes")
            && *name != "localhost"
            && name.parse::<IpAddr>().is_err()
            && !name.contains('*')
    };
    let own = names.iter().find(is_own).filter(|_| is_loopback(host));
    Some(own.cloned().unwrap_or_else(|| (*common).to_owned()))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|one| one.is_loopback())
}

// === impl Endpoint ===

impl Endpoint {
    /// Host and port without the scheme.
    fn address(&self) -> String {
        let plain = self
            .server
            .split_once("://")
            .map_or(self.server.as_str(), |(_, rest)| rest);
        let plain = plain.split('/').next().unwrap_or_default();
        let has_port = plain.rsplit_once(':').is_some_and(|(_, port)| {
            port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty()
        });
        if has_port {
            plain.to_owned()
        } else {
            format!("{plain}:443")
        }
    }

    fn host(&self) -> &str {
        let plain = self
            .server
            .split_once("://")
            .map_or(self.server.as_str(), |(_, rest)| rest);
        let plain = plain.split('/').next().unwrap_or_default();
        let host = match plain.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            Some(_) | None => plain,
        };
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

// === impl Stage ===

impl Stage {
    /// Its word in answers.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Name => "address of its name",
            Self::Connection => "connection",
            Self::Handshake => "TLS handshake",
            Self::Answer => "answer",
        }
    }
}
