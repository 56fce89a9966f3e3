//! The store: alarms, quota, leader, damage, and whether it may be defragmented.

use std::path::Path;

use super::disks::shown;
use super::{Facts, Found, bytes};
use crate::cause::Cause;
use crate::observed::{Etcd, EtcdAnswer, EtcdStatus, Filesystem, LineClass, Observed};

/// etcd copies what is in use into a second file beside the first: with a fifth to spare for what is written meanwhile.
pub(crate) const DEFRAG_TENTHS: u128 = 12;
/// A defragmentation that fails for want of space ends earlier ones by a nil pointer: CHANGELOG-3.4.md of 3.4.35,
/// CHANGELOG-3.5.md of 3.5.17.
const MENDED: [(u64, u64, u64); 2] = [(3, 4, 35), (3, 5, 17)];

/// Whether etcd may be defragmented now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Defrag {
    /// It may.
    Safe,
    /// It may not, for this reason.
    Refused(String),
}

/// Whether a defragmentation is safe: by the version, and by the room on the filesystem with the data.
///
/// W-B15. What is not known refuses.
pub fn defrag(status: &EtcdStatus, filesystem: Option<&Filesystem>) -> Defrag {
    if let Err(why) = defrag_by_version(status) {
        return Defrag::Refused(why);
    }
    let Some(space) = filesystem.and_then(|one| one.space) else {
        return Defrag::Refused("the room beside its data is not known".to_owned());
    };
    if status.db_size_in_use == 0 && status.db_size > 0 {
        return Defrag::Refused("how much of its file is in use is not told".to_owned());
    }
    // etcd runs as root, which may use the reserve too; what only root may write is not counted on.
    let needed = u128::from(status.db_size_in_use) * DEFRAG_TENTHS / 10;
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    if space.bytes_available < needed {
        return Defrag::Refused(format!(
            "it needs {} beside its data, 1.2 times what is in use, and {} are available",
            bytes(needed),
            bytes(space.bytes_available)
        ));
    }
    Defrag::Safe
}

/// Whether it is safe by the version alone.
///
/// # Errors
/// It is not, for this reason.
pub(crate) fn defrag_by_version(status: &EtcdStatus) -> Result<(), String> {
    let Some(version) = version(&status.version) else {
        return Err(format!(
            "version {:?} is none that is known",
            status.version
        ));
    };
    if is_mended(version) {
        return Ok(());
    }
    Err(format!(
        "etcd {} can crash when a defragmentation finds no room; 3.4.35 and 3.5.17 are the first that do not",
        status.version
    ))
}

fn version(text: &str) -> Option<(u64, u64, u64)> {
    let plain = text.split(['-', '+']).next()?;
    let mut parts = plain.split('.').map(str::parse::<u64>);
    let read = (
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    );
    parts.next().is_none().then_some(read)
}

fn is_mended(version: (u64, u64, u64)) -> bool {
    let (major, minor, _) = version;
    let of_line = MENDED
        .iter()
        .find(|(known, line, _)| (*known, *line) == (major, minor));
    match of_line {
        Some(first) => version >= *first,
        None => (major, minor) > (3, 5),
    }
}

pub(super) fn judge(facts: Facts<'_>, found: &mut Found) {
    let Ok(etcd) = &facts.observed.etcd else {
        return;
    };
    match &etcd.answer {
        EtcdAnswer::Status(status) => answering(etcd, status, facts, found),
        EtcdAnswer::Odd(why) => damaged(etcd, why, facts, found),
        EtcdAnswer::Refused => silent(etcd, "nobody listens", facts, found),
        EtcdAnswer::Failed(why) => silent(etcd, why, facts, found),
    }
}

fn answering(etcd: &Etcd, status: &EtcdStatus, facts: Facts<'_>, found: &mut Found) {
    let alarms = status.alarms.as_deref().unwrap_or_default();
    let has = |alarm: &str| alarms.iter().any(|known| known == alarm);
    let flags = flags(etcd, facts);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let size = size(status);
    if has("NOSPACE") {
        let mut evidence = vec![
            format!(
                "etcd {} at {}: alarm NOSPACE",
                status.version, etcd.endpoint
            ),
            size.clone(),
        ];
        evidence.push(match defrag(status, beside_etcd(facts.observed)) {
            Defrag::Safe => {
                "after the snapshot: compact, defrag, which is safe here, then disarm".to_owned()
            }
            Defrag::Refused(why) => format!("a defrag is not safe here: {why}"),
        });
        let snapshot = match in_memory(status, facts) {
            Ok(()) => facts.outside(Path::new(SNAPSHOT)),
            Err(why) => {
                evidence.push(why);
                SNAPSHOT_ELSEWHERE.to_owned()
            }
        };
        evidence.extend(facts.last_line(|class| *class == LineClass::EtcdQuota));
        let values: &[(&str, &[&str])] = &[("flags", &flags), ("snapshot", &[&snapshot])];
        found.add(Cause::EtcdQuota, &etcd.endpoint, evidence, values);
    }
    if has("CORRUPT") {
        let evidence = vec![format!(
            "etcd {} at {}: alarm CORRUPT",
            status.version, etcd.endpoint
        )];
        found.add(
            Cause::EtcdCorrupt,
            &etcd.endpoint,
            evidence,
            &[("flags", &flags)],
        );
    }
    if !status.has_leader {
        let evidence = vec![format!(
            "etcd {} at {} answers and names no leader",
            status.version, etcd.endpoint
        )];
        found.add(
            Cause::EtcdNoLeader,
            &etcd.endpoint,
            evidence,
            &[("flags", &flags)],
        );
    }
    let role = if status.is_leader {
        "leader"
    } else {
        "follower"
    };
    found.note(format!("etcd {} is {role}; {size}", status.version));
    if let Some(quota) = status.quota
        && u128::from(status.db_size) * 100
            >= u128::from(quota) * u128::from(facts.policy.quota_warn_percent)
    {
        found.note(format!(
            "etcd is near its quota: {} of {}",
            bytes(status.db_size),
            bytes(quota)
        ));
    }
    if let Defrag::Refused(why) = defrag(status, beside_etcd(facts.observed)) {
        found.note(format!("etcd must not be defragmented now: {why}"));
    }
}

/// It was not asked, as on a node that does not run: its last words are lines as others are.
pub(super) fn by_logs(facts: Facts<'_>, found: &mut Found) {
    if facts.observed.etcd.is_ok() {
        return;
    }
    if let Some(line) = facts.last_line(|class| *class == LineClass::EtcdDamaged) {
        let data_dir = facts.outside(Path::new("/var/lib/etcd"));
        let values: &[(&str, &[&str])] = &[("data_dir", &[&data_dir])];
        found.add(Cause::EtcdDamaged, "etcd", vec![line], values);
    }
    if let Some(line) = facts.last_line(|class| *class == LineClass::EtcdQuota) {
        found.add_with_next_of(Cause::EtcdDown, Cause::EtcdQuota, "etcd", vec![line], &[]);
    }
}

/// In memory, where that has room: the disk may be full.
const SNAPSHOT: &str = "/run/etcd-snapshot.db";
/// Where a person has to say a place: as it stands there is none of that name, and nothing is written.
const SNAPSHOT_ELSEWHERE: &str = "ELSEWHERE/etcd-snapshot.db";

/// A snapshot is a copy of the whole file, and the memory of a node is what keeps it alive.
///
/// # Errors
/// It has no room there, or nobody knows; in words.
fn in_memory(status: &EtcdStatus, facts: Facts<'_>) -> Result<(), String> {
    let needed = u128::from(status.db_size) * DEFRAG_TENTHS / 10;
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    let filesystems = facts.observed.filesystems.as_deref().unwrap_or_default();
    let run = filesystems
        .iter()
        .find(|one| one.holds.iter().any(|held| held == Path::new("/run")));
    let available = match run.and_then(|one| one.space) {
        Some(space) if space.bytes_available >= needed => return Ok(()),
        Some(space) => format!("{} available", bytes(space.bytes_available)),
        None => "room that is not known".to_owned(),
    };
    Err(format!(
        "a snapshot takes up to {}, and /run has {available}: ELSEWHERE is a place off this node",
        bytes(needed)
    ))
}

fn damaged(etcd: &Etcd, why: &str, facts: Facts<'_>, found: &mut Found) {
    let said = facts.last_line(|class| *class == LineClass::EtcdDamaged);
    if !etcd.broken.is_empty() || said.is_some() {
        let mut evidence: Vec<String> = etcd
            .broken
            .iter()
            .map(|file| format!("{} is there", shown(file)))
            .collect();
        evidence.extend(said);
        evidence.push(format!("{}: {why}", etcd.endpoint));
        found.add(
            Cause::EtcdDamaged,
            shown(&etcd.data_dir),
            evidence,
            &[("data_dir", &[&facts.outside(&etcd.data_dir)])],
        );
    }
}

fn silent(etcd: &Etcd, why: &str, facts: Facts<'_>, found: &mut Found) {
    damaged(etcd, why, facts, found);
    if let Some(line) = facts.last_line(|class| *class == LineClass::EtcdQuota) {
        // A snapshot needs a store that answers.
        found.add_with_next_of(
            Cause::EtcdDown,
            Cause::EtcdQuota,
            &etcd.endpoint,
            vec![line, format!("{}: {why}", etcd.endpoint)],
            &[],
        );
    }
    let evidence = vec![
        format!("{}: {why}", etcd.endpoint),
        format!("its data are in {}", shown(&etcd.data_dir)),
    ];
    found.add(Cause::EtcdDown, &etcd.endpoint, evidence, &[]);
}

fn size(status: &EtcdStatus) -> String {
    let quota = status
        .quota
        .map_or_else(String::new, |quota| format!(", quota {}", bytes(quota)));
    format!(
        "{} of file, {} in use{quota}",
        bytes(status.db_size),
        bytes(status.db_size_in_use)
    )
}

/// The filesystem with the data.
pub(crate) fn beside_etcd(observed: &Observed) -> Option<&Filesystem> {
    let filesystems = observed.filesystems.as_ref().ok()?;
    let point = observed.etcd.as_ref().ok()?.point.as_ref()?;
    filesystems.iter().find(|one| one.point == *point)
}

/// How etcdctl reaches it.
fn flags(etcd: &Etcd, facts: Facts<'_>) -> Vec<String> {
    let mut flags = vec![format!("--endpoints={}", etcd.endpoint)];
    let manifests = facts.observed.manifests.as_deref().unwrap_or_default();
    let pods = manifests.iter().filter_map(|one| one.pod.as_ref().ok());
    let Some(pod) = pods.into_iter().find(|pod| pod.name == "etcd") else {
        return flags;
    };
    for (flag, of) in [
        ("cacert", "trusted-ca-file"),
        ("cert", "cert-file"),
        ("key", "key-file"),
    ] {
        let named = pod.flag(of).map(Path::new);
        let file = named.map(|file| pod.on_the_node(file).unwrap_or_else(|| file.to_owned()));
        flags.extend(file.map(|file| format!("--{flag}={}", file.display())));
    }
    flags
}
