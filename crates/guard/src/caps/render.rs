//! The text of each drop-in, from limits that make sense together.

use thiserror::Error;

use super::seal::sealed;
use super::{Capped, MARK, MARK_JSON};

pub(super) const MIB: u64 = 1 << 20;

/// The limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// What the journal may take, in bytes.
    pub journal_max: u64,
    /// What the journal leaves free.
    pub journal_keep_free: u64,
    /// What crash dumps may take.
    pub coredump_max: u64,
    /// How large one log of a container becomes before it is rotated, in bytes.
    pub log_max: u64,
    /// How many of them are kept for each container.
    pub log_files: u8,
    /// At how many percent of their disk kubelet begins to remove unused images …
    pub images_high: u8,
    /// … and down to how many.
    pub images_low: u8,
    /// Revisions of each snap that are kept.
    pub snaps_retain: u8,
}

/// Limits that do not make sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LimitsError {
    /// Kubelet refuses to start with them.
    #[error(
        "images are removed from --images-high on and down to --images-low: {low} must be below {high}"
    )]
    ImagesOrder {
        /// Where it ends.
        low: u8,
        /// Where it begins.
        high: u8,
    },
    /// At the same point kubelet evicts pods for images.
    #[error(
        "at {0} % kubelet would evict pods as soon as it removes images: --images-high must be below 85"
    )]
    ImagesLate(u8),
    /// A log that is not rotated once is no limit.
    #[error("--log-files must be at least 2: kubelet refuses less")]
    LogFiles,
    /// journald and kubelet would refuse it, or it would hold nothing.
    #[error("{0} must be at least 1M")]
    Small(&'static str),
    /// snapd takes 2 to 20.
    #[error("--snaps-retain must be 2 to 20")]
    Retain,
}

// === impl Limits ===

impl Limits {
    /// For disks of so many bytes, that of the journal and that of the crash dumps: as [`Limits::for_disk`].
    pub fn for_disks(journal: u64, coredumps: u64) -> Self {
        Self {
            coredump_max: Self::for_disk(coredumps).coredump_max,
            ..Self::for_disk(journal)
        }
    }

    /// For a disk of so many bytes: a twentieth for the journal, between 64 MiB and 1 GiB, a fiftieth for crash dumps, and
    /// images from 75 % on, ten points before kubelet would evict pods for them.
    pub fn for_disk(bytes: u64) -> Self {
        let whole = |bytes: u64| bytes / MIB * MIB;
        Self {
            journal_max: whole((bytes / 20).clamp(64 * MIB, 1024 * MIB)),
            journal_keep_free: whole((bytes / 100 * 15).max(64 * MIB)),
            coredump_max: whole((bytes / 50).clamp(32 * MIB, 512 * MIB)),
            log_max: 10 * MIB,
            log_files: 3,
            images_high: 75,
            images_low: 65,
            snaps_retain: 2,
        }
    }

    /// They make sense together.
    ///
    /// # Errors
    /// They do not.
    pub fn check(&self) -> Result<(), LimitsError> {
        let sizes = [
            ("--journal-max", self.journal_max),
            ("--coredump-max", self.coredump_max),
            ("--log-max", self.log_max),
        ];
        if let Some((flag, _)) = sizes.into_iter().find(|(_, size)| *size < MIB) {
            return Err(LimitsError::Small(flag));
        }
        let (low, high) = (self.images_low, self.images_high);
        if low >= high {
            return Err(LimitsError::ImagesOrder { low, high });
        }
        if high >= 85 {
            return Err(LimitsError::ImagesLate(high));
        }
        if self.log_files < 2 {
            return Err(LimitsError::LogFiles);
        }
        if !(2..=20).contains(&self.snaps_retain) {
            return Err(LimitsError::Retain);
        }
        Ok(())
    }
}

/// What goes into the file of one limit, without these values; or the command of it.
pub(super) fn text(what: Capped, limits: &Limits, left_out: &[&str]) -> String {
    // Whole MiB: kubelet takes no other form of all that systemd takes, and both take these.
    let mebibytes = |bytes: u64| bytes / MIB;
    let body = match what {
        Capped::Journal => format!(
            "[Journal]\nSystemMaxUse={}M\nSystemKeepFree={}M\n",
            mebibytes(limits.journal_max),
            mebibytes(limits.journal_keep_free)
        ),
        Capped::Coredumps => {
            format!("[Coredump]\nMaxUse={}M\n", mebibytes(limits.coredump_max))
        }
        Capped::Kubelet => format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncontainerLogMaxSize: {}Mi\n\
             containerLogMaxFiles: {}\nimageGCHighThresholdPercent: {}\nimageGCLowThresholdPercent: {}\n",
            mebibytes(limits.log_max),
            limits.log_files,
            limits.images_high,
            limits.images_low
        ),
        Capped::Snaps => return format!("snap set system refresh.retain={}", limits.snaps_retain),
        Capped::Docker => {
            let options = log_options(limits);
            let rest = format!("\"],\n  \"log-driver\": \"json-file\",\n  {options}\n}}\n");
            return sealed(MARK_JSON, &rest);
        }
    };
    let is_left_out = |line: &str| {
        let key = line.split(['=', ':']).next().unwrap_or_default();
        left_out.contains(&key)
    };
    let lines = body.split_inclusive('\n');
    let body: String = lines.filter(|line| !is_left_out(line)).collect();
    sealed(MARK, &format!("\n{body}"))
}

/// What a person adds to a `daemon.json` of theirs.
pub(super) fn by_hand_for_docker(limits: &Limits) -> String {
    format!("add to /etc/docker/daemon.json: {}", log_options(limits))
}

/// What a `daemon.json` of ours should have that a person has changed since.
pub(super) fn edited_for_docker(limits: &Limits) -> String {
    format!(
        "/etc/docker/daemon.json should have: {}",
        log_options(limits)
    )
}

fn log_options(limits: &Limits) -> String {
    format!(
        "\"log-opts\": {{\"max-size\": \"{}m\", \"max-file\": \"{}\"}}",
        limits.log_max / MIB,
        limits.log_files
    )
}
