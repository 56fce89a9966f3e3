//! What can be done about each cause, and what must not be done while it holds.

use super::plan::Blocks;
use crate::cause::Cause;
use crate::observed::{ContainerState, EtcdAnswer, Observed, RuntimeAnswer};

/// Where the API server listens unless its manifest says otherwise.
const PORT: u16 = 6443;

/// What a cause means for a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Space comes back.
    Free,
    /// The store is mended.
    Store,
    /// The runtime and kubelet are started again.
    Restart,
    /// A person comes first, and these must not be done before.
    Person(Blocks),
    /// It passes by itself, or the ladder says what is missing.
    Wait,
    /// It is on the way to the API server, or said by logs alone: nothing on this node mends it, and it forbids nothing.
    Elsewhere,
}

/// What can be done.
pub(super) const fn remedy(cause: Cause) -> Remedy {
    match cause {
        Cause::DiskFull | Cause::InodesExhausted | Cause::DiskPressure => Remedy::Free,
        Cause::EtcdQuota => Remedy::Store,
        Cause::RuntimeDown
        | Cause::KubeletDown
        | Cause::EtcdDown
        | Cause::StaticPodDown
        | Cause::Refused => Remedy::Restart,
        // Nothing can be written, and a disk that the kernel withdrew is ill; ages of files are judged by the clock.
        Cause::FilesystemReadOnly | Cause::ClockWrong => Remedy::Person(Blocks::Everything),
        // Their data are in doubt, or a restart would find the same again.
        Cause::EtcdDamaged
        | Cause::EtcdCorrupt
        | Cause::CertificateExpired
        | Cause::CertificateNotYetValid
        | Cause::CertificateWrongAuthority
        | Cause::CertificateUnreadable
        | Cause::ManifestUnreadable
        | Cause::ManifestMissing
        | Cause::ManifestFileMissing
        | Cause::KubeletSwap
        | Cause::RuntimeSilent
        | Cause::PortTaken => Remedy::Person(Blocks::StoreAndRestart),
        // Compaction and alarms go through raft.
        Cause::EtcdNoLeader => Remedy::Person(Blocks::Store),
        Cause::NotReady => Remedy::Wait,
        Cause::TlsName
        | Cause::TlsUnknownAuthority
        | Cause::TlsFailed
        | Cause::Unauthorized
        | Cause::Forbidden
        | Cause::KubeconfigUnusable
        | Cause::OutOfMemory
        | Cause::ImageMissing
        | Cause::InotifyLimit
        | Cause::QuotaExceeded
        | Cause::KernelLimit
        | Cause::NoSpaceUnexplained
        | Cause::TunnelRefused
        | Cause::Closed
        | Cause::TimedOut
        | Cause::Unreachable
        | Cause::Unresolved
        | Cause::Odd => Remedy::Elsewhere,
    }
}

/// What can be done about it on this node, as it was seen.
pub(super) fn remedy_here(cause: Cause, observed: &Observed) -> Remedy {
    let is_elsewhere = (cause == Cause::Refused && !has_silent_port(observed))
        || (cause == Cause::EtcdDown && !is_etcd_down(observed));
    if is_elsewhere {
        return Remedy::Elsewhere;
    }
    remedy(cause)
}

/// This node has an API server, and nobody listens where it should: another's address that refuses says nothing of kubelet.
fn has_silent_port(observed: &Observed) -> bool {
    let (Some(port), Ok(listeners)) = (port(observed), &observed.listeners) else {
        return false;
    };
    listeners.iter().all(|one| one.port != port)
}

/// Nobody listens, or no container of it runs. One that is slow, or whose certificate does not fit, runs.
fn is_etcd_down(observed: &Observed) -> bool {
    let is_refused = observed
        .etcd
        .as_ref()
        .is_ok_and(|etcd| etcd.answer == EtcdAnswer::Refused);
    let Ok(runtime) = &observed.containers else {
        return is_refused;
    };
    let RuntimeAnswer::Containers(containers) = &runtime.answer else {
        return is_refused;
    };
    let runs = |name: &str| {
        let mut all = containers.iter();
        all.any(|one| one.name == name && one.state == ContainerState::Running)
    };
    is_refused || !runs("etcd")
}

/// Where the API server of this node listens; none where none has a manifest that can be read.
pub(super) fn port(observed: &Observed) -> Option<u16> {
    let manifests = observed.manifests.as_deref().unwrap_or_default();
    let mut pods = manifests.iter().filter_map(|one| one.pod.as_ref().ok());
    let pod = pods.find(|pod| pod.name == "kube-apiserver")?;
    match pod.flag("secure-port") {
        None => Some(PORT),
        Some(port) => port.parse().ok(),
    }
}
