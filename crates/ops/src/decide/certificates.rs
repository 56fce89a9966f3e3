//! Certificates in files, and the clock that they are read by.
//!
//! A clock that is wrong makes good certificates bad, so it is judged first: where it is wrong, dates are only told.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::{Facts, Found};
use crate::cause::Cause;
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
        found.add(
            Cause::CertificateExpired,
            place,
            evidence,
            &[("file", &[path])],
        );
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
    found.add(
        cause,
        server,
        vec![evidence],
        &[("file", &["/etc/kubernetes/pki/apiserver.crt"])],
    );
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
