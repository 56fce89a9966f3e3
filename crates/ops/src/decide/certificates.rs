//! Certificates in files, and the clock that they are read by.
//!
//! A clock that is wrong makes good certificates bad, so it is judged first: where it is wrong, dates are only told.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::{Facts, Found};
use crate::cause::{Cause, NOT_RENEWED};
use crate::certificate::Certificate;
use crate::observed::{CertificateFile, Reach};

pub(super) fn judge(facts: Facts<'_>, found: &mut Found) {
    clock(facts, found);
    let files = facts.observed.certificates.as_deref().unwrap_or_default();
    for file in files {
        of_file(file, facts, found);
    }
    handshake(facts, found);
}

fn clock(facts: Facts<'_>, found: &mut Found) {
    let now = facts.now;
    let most = seconds(facts.policy.skew_max);
    let mut evidence = Vec::new();
    let mut subject = "this machine".to_owned();
    if let Ok(endpoint) = &facts.observed.endpoint
        && let Some(ahead) = endpoint.clock_ahead_seconds
        && ahead.abs() > most
    {
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        evidence.push(format!(
            "the clock of {} is {} s {side} this one",
            endpoint.server,
            ahead.abs()
        ));
        subject = format!("this machine or {}", endpoint.server);
    }
    if let Some((path, at)) = &facts.observed.newest_write
        && at.duration_since(now).as_secs() > most
    {
        evidence.push(format!(
            "{} was written at {at:.0}, which is later than now, {now:.0}",
            path.display()
        ));
        "this machine".clone_into(&mut subject);
    }
    if !evidence.is_empty() {
        found.add(Cause::ClockWrong, subject, evidence, &[]);
    }
}

fn of_file(file: &CertificateFile, facts: Facts<'_>, found: &mut Found) {
    let place = file.place.as_str();
    let path = facts.outside(Path::new(file.path()));
    let path = path.as_str();
    if !file.is_used {
        unused(file, facts, found);
        return;
    }
    let certificate = match &file.certificate {
        Ok(certificate) => certificate,
        Err(why) => {
            let evidence = vec![format!("{place}: {why}")];
            found.add(
                Cause::CertificateUnreadable,
                place,
                evidence,
                &[("file", &[path])],
            );
            return;
        }
    };
    let now = facts.now;
    if certificate.not_after < now {
        let evidence = vec![format!(
            "{place} ended at {:.0}: {}",
            certificate.not_after, certificate.subject
        )];
        let renewal = Renewal::of(file, certificate);
        expired(&renewal, (place, path), evidence, facts, found);
    } else if certificate.not_before > now {
        let evidence = vec![format!(
            "{place} begins at {:.0}: {}",
            certificate.not_before, certificate.subject
        )];
        found.add(Cause::CertificateNotYetValid, place, evidence, &[]);
    } else if is_soon(certificate, facts) {
        found.note(format!(
            "{place} ends soon, at {:.0}",
            certificate.not_after
        ));
    }
    if let Some(signed) = &file.authority
        && !signed.matches
    {
        let evidence = vec![format!(
            "{place} is not signed by {}; its issuer is {}",
            signed.by, certificate.issuer
        )];
        let authority = facts.outside(Path::new(&signed.by));
        let values: &[(&str, &[&str])] = &[("authority", &[&authority]), ("file", &[path])];
        found.add(Cause::CertificateWrongAuthority, place, evidence, values);
    }
}

/// What nobody reads takes nothing down.
fn unused(file: &CertificateFile, facts: Facts<'_>, found: &mut Found) {
    if let Ok(certificate) = &file.certificate
        && certificate.not_after < facts.now
    {
        found.note(format!(
            "{} ended at {:.0}, and nothing is known to read it",
            file.place, certificate.not_after
        ));
    }
}

fn is_soon(certificate: &Certificate, facts: Facts<'_>) -> bool {
    let left = certificate.not_after.duration_since(facts.now).as_secs();
    left < seconds(facts.policy.expires_soon)
}

/// What rustls said of the certificate of the API server counts for more than its dates: it is why the call failed.
fn handshake(facts: Facts<'_>, found: &mut Found) {
    let Ok(endpoint) = &facts.observed.endpoint else {
        return;
    };
    let of = |time: fn(&Certificate) -> Timestamp| {
        endpoint
            .presented
            .as_ref()
            .map_or_else(String::new, |one| format!(" {:.0}", time(one)))
    };
    let server = endpoint.server.as_str();
    let ended = endpoint
        .client
        .as_ref()
        .filter(|client| client.not_after < facts.now);
    let (cause, evidence) = match &endpoint.reach {
        // The copy of a kubeconfig is renewed by nobody.
        Reach::Unauthorized if ended.is_some() => (
            Cause::CertificateExpired,
            format!(
                "{server} answers 401, and the client certificate in {} ended{}",
                endpoint.kubeconfig,
                ended.map_or_else(String::new, |one| format!(" at {:.0}", one.not_after))
            ),
        ),
        Reach::TlsExpired => (
            Cause::CertificateExpired,
            format!(
                "the certificate of {server} ended{}; now is {:.0}",
                of(|one| one.not_after),
                facts.now
            ),
        ),
        Reach::TlsNotYetValid => (
            Cause::CertificateNotYetValid,
            format!(
                "the certificate of {server} begins{}; now is {:.0}",
                of(|one| one.not_before),
                facts.now
            ),
        ),
        Reach::Ready
        | Reach::Refused
        | Reach::RefusedThroughTunnel
        | Reach::TimedOut { .. }
        | Reach::Unresolved(_)
        | Reach::Unreachable(_)
        | Reach::Closed
        | Reach::TlsName
        | Reach::TlsUnknownAuthority
        | Reach::TlsFailed(_)
        | Reach::Unauthorized
        | Reach::Forbidden
        | Reach::NotReady { .. }
        | Reach::Odd(_)
        | Reach::Unusable(_) => return,
    };
    let mut evidence = vec![evidence];
    let place = (server, SERVING);
    match (cause, &endpoint.reach) {
        (Cause::CertificateExpired, Reach::Unauthorized) => {
            let own = CONFIGS.into_iter().find(|name| {
                let own = Path::new("/etc/kubernetes").join(name);
                facts.outside(&own) == endpoint.kubeconfig
            });
            if own.is_none() {
                evidence.push(format!(
                    "{} is a copy: renew the one of a node of the control plane, and copy it again",
                    endpoint.kubeconfig
                ));
            }
            let renewal = Renewal::Kubeadm(own.unwrap_or("admin.conf"));
            expired(&renewal, place, evidence, facts, found);
        }
        (Cause::CertificateExpired, _) => {
            expired(
                &Renewal::Kubeadm("apiserver"),
                place,
                evidence,
                facts,
                found,
            );
        }
        (cause, _) => found.add(cause, server, evidence, &[("file", &[SERVING])]),
    }
}

/// Adds a certificate that has ended, with how it is renewed. `place` is how it is called, and where it lies for commands.
fn expired(
    renewal: &Renewal,
    (place, path): (&str, &str),
    evidence: Vec<String>,
    facts: Facts<'_>,
    found: &mut Found,
) {
    let pki = facts.outside(Path::new("/etc/kubernetes/pki"));
    let is_own = facts.observed.root == Path::new("/");
    let cert_dir: &[&str] = if is_own { &[] } else { &["--cert-dir", &pki] };
    let file = ("file", &[path][..]);
    let [of_kubelet, look] = NOT_RENEWED;
    let (next, name) = match renewal {
        // There is no option for where the kubeconfigs of another root are.
        Renewal::Kubeadm(name) if is_own || !CONFIGS.contains(name) => {
            (Cause::CertificateExpired.row().next, *name)
        }
        Renewal::Kubelet(client) if is_own => (of_kubelet, client.as_str()),
        Renewal::Kubeadm(_) | Renewal::Kubelet(_) | Renewal::Person => (look, ""),
    };
    let values = [file, ("certificate", &[name]), ("cert_dir", cert_dir)];
    found.add_with_next(next, Cause::CertificateExpired, place, evidence, &values);
}

/// What the API server presents, as kubeadm calls it.
const SERVING: &str = "/etc/kubernetes/pki/apiserver.crt";
/// The kubeconfigs whose clients kubeadm renews, by the names that they have there too.
const CONFIGS: [&str; 4] = [
    "admin.conf",
    "super-admin.conf",
    "controller-manager.conf",
    "scheduler.conf",
];
/// What kubeadm calls the certificates below its directory.
const FILES: [(&str, &str); 7] = [
    ("apiserver.crt", "apiserver"),
    ("apiserver-etcd-client.crt", "apiserver-etcd-client"),
    ("apiserver-kubelet-client.crt", "apiserver-kubelet-client"),
    ("front-proxy-client.crt", "front-proxy-client"),
    ("etcd/server.crt", "etcd-server"),
    ("etcd/peer.crt", "etcd-peer"),
    ("etcd/healthcheck-client.crt", "etcd-healthcheck-client"),
];

/// How a certificate that has ended is renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Renewal {
    /// kubeadm does it by this name.
    Kubeadm(&'static str),
    /// kubelet does it itself while it has one; this client of the API server gets a new one.
    Kubelet(String),
    /// A person has to see how.
    Person,
}

// === impl Renewal ===

impl Renewal {
    fn of(file: &CertificateFile, certificate: &Certificate) -> Self {
        let path = Path::new(file.path());
        if let Ok(below) = path.strip_prefix("/etc/kubernetes/pki")
            && let Some((_, name)) = FILES.iter().find(|(known, _)| below == Path::new(known))
        {
            return Self::Kubeadm(name);
        }
        if let Ok(below) = path.strip_prefix("/etc/kubernetes")
            && let Some(name) = CONFIGS.iter().find(|known| below == Path::new(known))
        {
            return Self::Kubeadm(name);
        }
        let client = certificate.subject.split_once("CN=system:node:");
        match client.and_then(|(_, rest)| rest.split([',', '+']).next()) {
            Some(name) => Self::Kubelet(format!("system:node:{}", name.trim())),
            None => Self::Person,
        }
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

// === impl CertificateFile ===

impl CertificateFile {
    /// The file alone, of a place that says what it is in there.
    fn path(&self) -> &str {
        self.place.split(" (").next().unwrap_or_default()
    }
}
