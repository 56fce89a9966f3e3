//! What can be done about each cause, and what must not be done while it holds.

use super::plan::Blocks;
use crate::cause::Cause;

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
