//! The diagnosis as JSON and YAML: types of their own, because programs rely on them.
//!
//! Sizes are bytes, times RFC 3339. An area that was not seen has no facts, and its reason in `unseen`.

use nagi_ops::{
    Certificate, Container, Defrag, Diagnosis, EtcdAnswer, EtcdStatus, Finding, Observed, Reach,
    RuntimeAnswer, Unseen, Verdict, Writable, defrag,
};
use serde::Serialize;

use crate::cmd::disk::shown;

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// `cause`, `sound`, or `unclear`.
    status: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<FindingBody>,
    /// The others, by rank.
    also: Vec<FindingBody>,
    notes: Vec<String>,
    unseen: Vec<UnseenBody>,
    facts: FactsBody,
}

#[derive(Debug, Serialize)]
struct FindingBody {
    id: &'static str,
    at: String,
    rule: &'static str,
    evidence: Vec<String>,
    next: String,
    disproof: String,
}

#[derive(Debug, Serialize)]
struct UnseenBody {
    area: &'static str,
    /// False where there is nothing of the kind here: then nothing is unknown.
    unknown: bool,
    why: String,
}

#[derive(Debug, Serialize)]
struct FactsBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    api_server: Option<EndpointBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filesystems: Option<Vec<FilesystemBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd: Option<EtcdBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    containers: Option<Vec<ContainerBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificates: Option<Vec<CertificateFileBody>>,
}

#[derive(Debug, Serialize)]
struct EndpointBody {
    kubeconfig: String,
    context: String,
    server: String,
    reach: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    presented: Option<CertificateBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<String>,
}

#[derive(Debug, Serialize)]
struct CertificateBody {
    subject: String,
    issuer: String,
    names: Vec<String>,
    not_before: String,
    not_after: String,
}

#[derive(Debug, Serialize)]
struct CertificateFileBody {
    file: String,
    used: bool,
    #[serde(flatten)]
    certificate: Option<CertificateBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Whether the authority that must have signed it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    authority_matches: Option<bool>,
}

#[derive(Debug, Serialize)]
struct FilesystemBody {
    mounted_on: String,
    #[serde(rename = "type")]
    fstype: String,
    writable: &'static str,
    #[serde(flatten)]
    space: Option<SpaceBody>,
    holds: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SpaceBody {
    bytes: u64,
    available: u64,
    reserved: u64,
    inodes: u64,
    inodes_free: u64,
}

#[derive(Debug, Serialize)]
struct EtcdBody {
    endpoint: String,
    data_dir: String,
    answers: bool,
    #[serde(flatten)]
    status: Option<EtcdStatusBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct EtcdStatusBody {
    version: String,
    db_size: u64,
    db_size_in_use: u64,
    quota: Option<u64>,
    has_leader: bool,
    is_leader: bool,
    /// Absent where it does not tell them.
    #[serde(skip_serializing_if = "Option::is_none")]
    alarms: Option<Vec<String>>,
    defrag_safe: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    defrag_refused: Option<String>,
}

#[derive(Debug, Serialize)]
struct ContainerBody {
    id: String,
    name: String,
    state: &'static str,
    attempt: u32,
}

// === impl Answer ===

impl Answer {
    pub(super) fn of(diagnosis: &Diagnosis, observed: &Observed) -> Self {
        let mut findings = diagnosis.findings.iter().map(finding);
        let cause = findings.next();
        let (status, message) = match diagnosis.verdict {
            Verdict::Cause => {
                let named = cause.as_ref().map_or("", |cause| cause.id);
                ("cause", format!("the cause is {named}"))
            }
            Verdict::Sound => (
                "sound",
                "nothing is wrong that can be seen from here".to_owned(),
            ),
            Verdict::Unclear => (
                "unclear",
                "nothing wrong was seen, and not everything could be looked at".to_owned(),
            ),
        };
        Self {
            status,
            message,
            cause,
            also: findings.collect(),
            notes: diagnosis.notes.clone(),
            unseen: diagnosis
                .unseen
                .iter()
                .map(|(area, why)| UnseenBody {
                    area: area.name(),
                    unknown: matches!(why, Unseen::Failed(_)),
                    why: why.why().to_owned(),
                })
                .collect(),
            facts: facts(observed),
        }
    }
}

fn finding(finding: &Finding) -> FindingBody {
    FindingBody {
        id: finding.cause.id(),
        at: finding.subject.clone(),
        rule: finding.cause.row().when,
        evidence: finding.evidence.clone(),
        next: finding.next.clone(),
        disproof: finding.disproof.clone(),
    }
}

fn facts(observed: &Observed) -> FactsBody {
    let endpoint = observed.endpoint.as_ref().ok();
    let filesystems = observed.filesystems.as_deref().ok();
    let certificates = observed.certificates.as_deref().ok();
    FactsBody {
        api_server: endpoint.map(|one| EndpointBody {
            kubeconfig: one.kubeconfig.clone(),
            context: one.context.clone(),
            server: one.server.clone(),
            reach: reach(&one.reach),
            presented: one.presented.as_ref().map(certificate),
            listener: one.listener.clone(),
        }),
        filesystems: filesystems.map(|all| all.iter().map(filesystem).collect()),
        etcd: etcd(observed),
        containers: containers(observed),
        certificates: certificates.map(|all| {
            all.iter()
                .map(|one| CertificateFileBody {
                    file: one.place.clone(),
                    used: one.is_used,
                    certificate: one.certificate.as_ref().ok().map(certificate),
                    error: one.certificate.as_ref().err().cloned(),
                    authority_matches: one.authority.as_ref().map(|signed| signed.matches),
                })
                .collect()
        }),
    }
}

/// How far a call came, in a word.
pub(in crate::cmd::recover) const fn reach(reach: &Reach) -> &'static str {
    match reach {
        Reach::Ready => "ready",
        Reach::Refused => "refused",
        Reach::RefusedThroughTunnel => "tunnel-refused",
        Reach::TimedOut { .. } => "timed-out",
        Reach::Unresolved(_) => "unresolved",
        Reach::Unreachable(_) => "unreachable",
        Reach::Closed => "closed",
        Reach::TlsName => "tls-name",
        Reach::TlsExpired => "tls-expired",
        Reach::TlsNotYetValid => "tls-not-yet-valid",
        Reach::TlsUnknownAuthority => "tls-unknown-authority",
        Reach::TlsFailed(_) => "tls-failed",
        Reach::Unauthorized => "unauthorized",
        Reach::Forbidden => "forbidden",
        Reach::NotReady { .. } => "not-ready",
        Reach::Odd(_) => "odd-answer",
        Reach::Unusable(_) => "kubeconfig-unusable",
    }
}

fn certificate(one: &Certificate) -> CertificateBody {
    CertificateBody {
        subject: one.subject.clone(),
        issuer: one.issuer.clone(),
        names: one.names.clone(),
        not_before: one.not_before.to_string(),
        not_after: one.not_after.to_string(),
    }
}

fn filesystem(one: &nagi_ops::Filesystem) -> FilesystemBody {
    FilesystemBody {
        mounted_on: shown(&one.point),
        fstype: one.fstype.clone(),
        writable: match one.writable {
            Writable::Yes => "yes",
            Writable::NotThisMount => "not through this mount",
            Writable::No | Writable::Withdrawn => "no",
        },
        space: one.space.map(|space| SpaceBody {
            bytes: space.bytes,
            available: space.bytes_available,
            reserved: space.reserved(),
            inodes: space.inodes,
            inodes_free: space.inodes_free,
        }),
        holds: one.holds.iter().map(|held| shown(held)).collect(),
    }
}

fn etcd(observed: &Observed) -> Option<EtcdBody> {
    let etcd = observed.etcd.as_ref().ok()?;
    let filesystems = observed.filesystems.as_deref().unwrap_or_default();
    let beside = filesystems
        .iter()
        .find(|one| Some(&one.point) == etcd.point.as_ref());
    let (status, error) = match &etcd.answer {
        EtcdAnswer::Status(status) => (Some(etcd_status(status, beside)), None),
        EtcdAnswer::Refused => (None, Some("nobody listens".to_owned())),
        EtcdAnswer::Failed(why) | EtcdAnswer::Odd(why) => (None, Some(why.clone())),
    };
    Some(EtcdBody {
        endpoint: etcd.endpoint.clone(),
        data_dir: shown(&etcd.data_dir),
        answers: status.is_some(),
        status,
        error,
    })
}

fn etcd_status(status: &EtcdStatus, beside: Option<&nagi_ops::Filesystem>) -> EtcdStatusBody {
    let refused = match defrag(status, beside) {
        Defrag::Safe => None,
        Defrag::Refused(why) => Some(why),
    };
    EtcdStatusBody {
        version: status.version.clone(),
        db_size: status.db_size,
        db_size_in_use: status.db_size_in_use,
        quota: status.quota,
        has_leader: status.has_leader,
        is_leader: status.is_leader,
        alarms: status.alarms.clone().ok(),
        defrag_safe: refused.is_none(),
        defrag_refused: refused,
    }
}

fn containers(observed: &Observed) -> Option<Vec<ContainerBody>> {
    let runtime = observed.containers.as_ref().ok()?;
    let RuntimeAnswer::Containers(containers) = &runtime.answer else {
        return None;
    };
    let body = |one: &Container| ContainerBody {
        id: one.id.clone(),
        name: one.name.clone(),
        state: one.state.word(),
        attempt: one.attempt,
    };
    Some(containers.iter().map(body).collect())
}
