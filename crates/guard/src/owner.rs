//! Who owns a file on a node, and who may give its space back.
//!
//! The rules are data, in [`owner_table`]. What no rule names is [`Owner::Unknown`], and unknown
//! things are never anybody's to reclaim.

use crate::owner_table::{self, Row};

/// Who can give space back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Nagi may, by the rules of the owner: a kind of `nagi disk clean` looks there.
    Nagi,
    /// Only the owner's own program may; files under it are never touched from outside.
    Owner,
    /// A person must decide: data, or the system itself.
    Human,
    /// Nobody known owns it.
    Unknown,
}

/// Who owns a part of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Nobody known.
    Unknown,
    /// Layers and manifests of images as they were pulled.
    ContainerdContent,
    /// Pulls under way, or given up.
    ContainerdIngest,
    /// Unpacked images, and what containers wrote.
    ContainerdSnapshots,
    /// Metadata and the rest of containerd.
    Containerd,
    /// Volumes and files of pods.
    KubeletPods,
    /// Volumes of pods that end with their pod.
    KubeletEmptyDir,
    /// The rest of kubelet.
    Kubelet,
    /// Logs of containers, as they are written.
    PodLogs,
    /// Logs of containers that kubelet has rotated.
    PodLogsRotated,
    /// The store of the control plane.
    Etcd,
    /// Volumes of docker.
    DockerVolumes,
    /// Logs of docker's containers.
    DockerLogs,
    /// Images and the rest of docker.
    Docker,
    /// CRI-O and podman.
    ContainersStorage,
    /// Snap packages, each in several revisions.
    SnapRevisions,
    /// Downloads of snapd; mostly the same files as the revisions.
    SnapCache,
    /// The rest of snapd.
    Snapd,
    /// Downloaded packages.
    AptArchives,
    /// Lists of packages.
    AptLists,
    /// Downloaded packages and metadata of dnf and yum.
    Dnf,
    /// Journals that are complete.
    JournalArchived,
    /// Journals that are written to.
    JournalActive,
    /// Journals of other machines that were collected here, and those in memory.
    JournalOther,
    /// Crash dumps.
    Coredumps,
    /// Other logs.
    Logs,
    /// Files that programs keep between starts only by courtesy.
    Temporary,
    /// What people and their programs put there.
    Home,
    /// Databases and services of this machine.
    Services,
    /// The operating system.
    System,
    /// Kernels and what starts them.
    Boot,
    /// Swap space.
    Swap,
}

// === impl Class ===

impl Class {
    /// Every class, from the easiest to the unknown.
    pub const ALL: [Self; 4] = [Self::Nagi, Self::Owner, Self::Human, Self::Unknown];

    /// One word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nagi => "nagi",
            Self::Owner => "owner",
            Self::Human => "human",
            Self::Unknown => "unknown",
        }
    }
}

// === impl Owner ===

impl Owner {
    /// How many there are.
    pub const COUNT: usize = owner_table::ROWS.len();

    /// Every owner.
    pub fn all() -> impl Iterator<Item = Self> {
        owner_table::ROWS.iter().map(|row| row.owner)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Who can give its space back.
    pub fn class(self) -> Class {
        self.row().class
    }

    /// How that is done; none where nobody can tell.
    pub fn lever(self) -> Option<&'static str> {
        self.row().lever
    }

    /// The owner at a place; unknown when there is none.
    pub(crate) fn at(number: u8) -> Self {
        owner_table::ROWS
            .get(usize::from(number))
            .map_or(Self::Unknown, |row| row.owner)
    }

    /// Its place as one byte.
    pub(crate) fn number(self) -> u8 {
        let place = owner_table::ROWS.iter().position(|row| row.owner == self);
        // Unknown is the first row.
        place
            .and_then(|place| u8::try_from(place).ok())
            .unwrap_or(0)
    }

    /// Who owns a file of this name in a directory of this owner.
    pub(crate) fn of_file(self, name: &[u8]) -> Self {
        if self == Self::JournalActive {
            journal(name)
        } else if self == Self::PodLogs && is_rotated_log(name) {
            Self::PodLogsRotated
        } else if self == Self::Docker && is_docker_log(name) {
            Self::DockerLogs
        } else {
            self
        }
    }

    /// Files of its directories differ by their names.
    pub(crate) const fn looks_at_files(self) -> bool {
        matches!(self, Self::JournalActive | Self::PodLogs | Self::Docker)
    }

    fn row(self) -> &'static Row {
        owner_table::ROWS
            .iter()
            .find(|row| row.owner == self)
            .unwrap_or(&owner_table::UNKNOWN)
    }
}

/// Names of systemd: `system@<32 hex>-<16 hex>-<16 hex>.journal` is complete, `system@<16 hex>-<16 hex>.journal~` was
/// put aside after a crash, `system.journal` is in use. Anything else in the directory is nobody's: journald itself does
/// not vacuum files whose names it does not know.
fn journal(name: &[u8]) -> Owner {
    let text = String::from_utf8_lossy(name);
    let archived = |stem: &str, lengths: &[usize]| {
        stem.split_once('@').is_some_and(|(_, id)| {
            let parts: Vec<&str> = id.split('-').collect();
            parts.len() == lengths.len()
                && parts
                    .iter()
                    .zip(lengths)
                    .all(|(part, length)| part.len() == *length && is_hex(part))
        })
    };
    if let Some(stem) = text.strip_suffix(".journal~") {
        return if archived(stem, &[16, 16]) {
            Owner::JournalArchived
        } else {
            Owner::Unknown
        };
    }
    match text.strip_suffix(".journal") {
        Some(stem) if !stem.contains('@') => Owner::JournalActive,
        Some(stem) if archived(stem, &[32, 16, 16]) => Owner::JournalArchived,
        Some(_) | None => Owner::Unknown,
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Kubelet renames `0.log` to `0.log.20260102-030405` and packs it to the same with `.gz`.
fn is_rotated_log(name: &[u8]) -> bool {
    let text = String::from_utf8_lossy(name);
    let Some((number, stamp)) = text.split_once(".log.") else {
        return false;
    };
    let stamp = stamp.strip_suffix(".gz").unwrap_or(stamp);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_stamp = stamp.split_once('-').is_some_and(|(day, time)| {
        day.len() == 8 && time.len() == 6 && is_number(day) && is_number(time)
    });
    is_number(number) && is_stamp
}

/// `<64 hex>-json.log`, and `.1`, `.2`, … once `max-file` is set.
fn is_docker_log(name: &[u8]) -> bool {
    let text = String::from_utf8_lossy(name);
    let Some((id, behind)) = text.split_once("-json.log") else {
        return false;
    };
    let numbered = behind
        .strip_prefix('.')
        .map_or(behind.is_empty(), |number| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        });
    id.len() == 64 && is_hex(id) && numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_owner_has_one_row_and_a_number_that_leads_back() {
        for (place, owner) in Owner::all().enumerate() {
            assert_eq!(usize::from(owner.number()), place, "{owner:?} has two rows");
            assert_eq!(Owner::at(owner.number()), owner);
            assert_eq!(owner.row().owner, owner);
        }
        assert_eq!(Owner::all().next(), Some(Owner::Unknown));
        assert_eq!(Owner::at(u8::MAX), Owner::Unknown);
    }

    // D-07: unknown is never reclaimable.
    #[test]
    fn what_nobody_owns_is_nobodys_to_reclaim() {
        assert_eq!(Owner::Unknown.class(), Class::Unknown);
        assert_eq!(Owner::Unknown.lever(), None);
        for owner in Owner::all() {
            let must_have_lever = matches!(owner.class(), Class::Nagi | Class::Owner);
            assert!(!must_have_lever || owner.lever().is_some(), "{owner:?}");
        }
    }

    #[test]
    fn journals_are_told_apart_by_their_names_and_others_are_unknown() {
        let hex = "0123456789abcdef";
        let complete = format!("system@{hex}{hex}-{hex}-{hex}.journal");
        let aside = format!("user-1000@{hex}-{hex}.journal~");
        let of = |name: &str| Owner::JournalActive.of_file(name.as_bytes());
        assert_eq!(of(&complete), Owner::JournalArchived);
        assert_eq!(of(&aside), Owner::JournalArchived);
        assert_eq!(of("system.journal"), Owner::JournalActive);
        for odd in [
            "user-notes.txt",
            "system@x.journal",
            "system.journal~",
            "system@1-2.journal~",
        ] {
            assert_eq!(of(odd), Owner::Unknown, "{odd}");
        }
        assert_eq!(
            Owner::JournalActive.of_file(b"\xff.journal~"),
            Owner::Unknown
        );
    }

    #[test]
    fn rotated_logs_are_told_from_those_that_are_written() {
        for (name, rotated) in [
            ("0.log", false),
            ("0.log.20260102-030405", true),
            ("12.log.20260102-030405.gz", true),
            ("0.log.20260102-030405.tmp", false),
            ("0.log.old", false),
            ("x.log.20260102-030405", false),
        ] {
            let owner = Owner::PodLogs.of_file(name.as_bytes());
            assert_eq!(owner == Owner::PodLogsRotated, rotated, "{name}");
        }
        let id = "0123456789abcdef".repeat(4);
        for (name, is_log) in [
            (format!("{id}-json.log"), true),
            (format!("{id}-json.log.3"), true),
            (format!("{id}-json.log.x"), false),
            ("config.v2.json".to_owned(), false),
        ] {
            let owner = Owner::Docker.of_file(name.as_bytes());
            assert_eq!(owner == Owner::DockerLogs, is_log, "{name}");
        }
    }
}
