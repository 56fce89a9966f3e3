//! What is done to a store that is above its quota, one call each: copy, compact, defragment, disarm.
//!
//! They are in the hands of [`crate::recover`], which keeps their order. A snapshot is written beside its name and takes it
//! only when its checksum, which etcd puts at its end, is right.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nagi_runtime::Deadline;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{Alarms, Ask, Keys, Member, NO_SPACE, Number, Opened, Silence, Status, silent};
use crate::decide::{DEFRAG_TENTHS, bytes};
use crate::endpoint::stream;
use crate::mounted;
use crate::observed::Manifest;
use crate::root::Root;

/// The SHA-256 behind the data.
const TRAILER: u64 = 32;
/// One message of a snapshot: 32 KiB of data as text, and what stands around it.
const MESSAGE_MAX: usize = 4 << 20;
/// A call that is no copy of all data: it waits for one write of raft.
const CALL_WITHIN: Duration = Duration::from_secs(30);
/// A member that answers does so at once.
const OTHER_WITHIN: Duration = Duration::from_secs(5);
/// Slower than this per second a disk is ill: a compaction, copy or defragmentation of so many bytes may take so long.
const BYTES_PER_SECOND: u64 = 5 << 20;

/// A member that can be told to do something.
pub(crate) struct Mender {
    member: Member,
    keys: Keys,
    /// Where the data lie for programs of this machine.
    data_dir: PathBuf,
}

/// Where the store is copied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// There, where nothing may be yet.
    Named(PathBuf),
    /// In this directory of ours, by the revision: a copy of before stays.
    Ours(PathBuf),
}

#[derive(Debug, Deserialize)]
struct Message {
    result: Option<Piece>,
    error: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Piece {
    #[serde(default)]
    blob: String,
}

#[derive(Debug, Deserialize)]
struct Members {
    #[serde(default)]
    members: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(default, rename = "ID")]
    id: Number,
    #[serde(default, rename = "clientURLs")]
    urls: Vec<String>,
}

// === impl Place ===

impl Place {
    fn file(&self, revision: u64) -> PathBuf {
        match self {
            Self::Named(file) => file.clone(),
            Self::Ours(directory) => directory.join(format!("etcd-snapshot-{revision}.db")),
        }
    }

    const fn is_ours(&self) -> bool {
        matches!(self, Self::Ours(_))
    }
}

// === impl Mender ===

impl Mender {
    /// The member of these manifests.
    ///
    /// # Errors
    /// There is none, or its certificates cannot be read.
    pub(crate) fn of(root: &Root, manifests: &[Manifest]) -> Result<Self, String> {
        let mut pods = manifests.iter().filter_map(|one| one.pod.as_ref().ok());
        let pod = pods
            .find(|pod| pod.name == "etcd")
            .ok_or("there is no manifest of etcd on this machine")?;
        let member = Member::of(pod);
        if !member.is_placed {
            return Err(format!(
                "where {} of etcd lies on this node is not known: its manifest mounts nothing there",
                member.data_dir.display()
            ));
        }
        let keys = Keys::read(root, &member)?;
        let data_dir = root.real(&member.data_dir);
        Ok(Self {
            member,
            keys,
            data_dir,
        })
    }

    fn ask(&self, within: Duration) -> Ask<'_> {
        Ask {
            member: &self.member,
            keys: &self.keys,
            deadline: Deadline::in_(within),
        }
    }

    async fn status(&self) -> Result<Status, String> {
        let status = self.ask(CALL_WITHIN);
        let status = status.json::<Status>("/v3/maintenance/status", "{}").await;
        status.map_err(words)
    }

    /// Copies the store, after it was seen that this member may be worked on: with others beside it, the leader is none.
    ///
    /// # Errors
    /// It may not be worked on, there is no room, or the copy is not whole. Then there is none.
    pub(crate) async fn snapshot(&self, place: &Place) -> Result<String, String> {
        let status = self.status().await?;
        self.may_be_worked_on(&status).await?;
        let size = status.db_size.value();
        let file = place.file(status.header.revision.value());
        let file = file.as_path();
        match std::fs::symlink_metadata(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", file.display())),
            // A run that was killed copied the same revision.
            Ok(found)
                if place.is_ours() && found.is_file() && is_snapshot(file).unwrap_or(false) =>
            {
                return Ok(format!(
                    "{}, of this revision, was there; it stays until it is removed",
                    file.display()
                ));
            }
            Ok(_) => {
                return Err(format!(
                    "{} is there, and is not written over: name another place with --snapshot",
                    file.display()
                ));
            }
        }
        let part = file.with_added_extension("nagi-part");
        // What a run that was killed left in our own directory.
        if place.is_ours() {
            remove_own(&part);
        }
        has_room(file, &self.data_dir, size)?;
        let copied = self.copied(&part, size).await;
        // Another file of the name that came meanwhile stays.
        let kept = copied.and_then(|length| {
            put_in_place(&part, file)
                .inspect_err(|_| remove_own(&part))
                .map_err(|error| format!("{}: {error}", file.display()))
                .map(|()| length)
        });
        let length = kept?;
        Ok(format!(
            "{}, {}, its checksum is right; it stays until it is removed",
            file.display(),
            bytes(length)
        ))
    }

    async fn may_be_worked_on(&self, status: &Status) -> Result<(), String> {
        let listed = self.ask(CALL_WITHIN);
        let listed = listed
            .json::<Members>("/v3/cluster/member/list", "{}")
            .await;
        let members = listed.map_err(words)?.members;
        let own = status.header.member_id.value();
        let leader = status.leader.value();
        if leader == 0 || !members.iter().any(|one| one.id.value() == own) {
            return Err("it has no leader, or does not list itself".to_owned());
        }
        if members.len() > 1 && leader == own {
            return Err(format!(
                "this member leads {}, and they would wait for it meanwhile: etcdctl --endpoints={} move-leader, and run it on the others first",
                members.len(),
                self.member.url
            ));
        }
        // While it works it answers nobody: the others have to be enough, and none of them at the same work.
        for other in members.iter().filter(|one| one.id.value() != own) {
            self.has_leader(other, leader).await?;
        }
        Ok(())
    }

    async fn has_leader(&self, other: &Listed, leader: u64) -> Result<(), String> {
        let refused = |why: &str| {
            let id = other.id.value();
            Err(format!(
                "member {id:x} must carry the others meanwhile, and {why}: one after the other"
            ))
        };
        let Some(url) = other.urls.first() else {
            return refused("has not started");
        };
        let member = Member {
            url: url.trim_end_matches('/').to_owned(),
            ..self.member.clone()
        };
        let ask = Ask {
            member: &member,
            keys: &self.keys,
            deadline: Deadline::in_(OTHER_WITHIN),
        };
        let told = ask.json::<Status>("/v3/maintenance/status", "{}").await;
        match told.map_err(words) {
            Ok(status) if status.leader.value() == leader => Ok(()),
            Ok(_) => refused("knows another leader, or none"),
            Err(why) => refused(&format!("does not answer at {url}: {why}")),
        }
    }

    async fn copied(&self, part: &Path, size: u64) -> Result<u64, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", part.display());
        let file = std::fs::OpenOptions::new()
            .write(true)
            // A file of that name that somebody else has stays as it is.
            .create_new(true)
            .mode(0o600)
            // A link that somebody laid there leads nowhere.
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(part);
        let mut file = file.map_err(failed)?;
        let ended = self.filled(part, &mut file, size).await;
        if ended.is_err() {
            remove_own(part);
        }
        ended
    }

    async fn filled(&self, part: &Path, file: &mut File, size: u64) -> Result<u64, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", part.display());
        let ask = self.ask(CALL_WITHIN + time_of(size));
        let mut pending = Vec::new();
        // Nothing else runs beside it, so a write holds nobody up.
        let piece = |data: &[u8]| {
            let mut rest = data;
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let (line, behind) = rest.split_at(end + 1);
                pending.extend_from_slice(line);
                file.write_all(&blob(&pending)?).map_err(failed)?;
                pending.clear();
                rest = behind;
            }
            pending.extend_from_slice(rest);
            if pending.len() > MESSAGE_MAX {
                return Err("a message of the snapshot is too long".to_owned());
            }
            Ok(())
        };
        ask.streamed("/v3/maintenance/snapshot", piece)
            .await
            .map_err(words)?;
        // The last one may have no line end.
        if !pending.is_empty() {
            file.write_all(&blob(&pending)?).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if is_snapshot(part).map_err(failed)? {
            return Ok(length);
        }
        Err(format!(
            "the snapshot is not whole: the checksum at its end is not that of its {length} bytes"
        ))
    }

    /// Forgets what was written over, up to the revision of now.
    ///
    /// # Errors
    /// It does not.
    pub(crate) async fn compact(&self) -> Result<String, String> {
        let status = self.status().await?;
        let revision = status.header.revision.value();
        let body = serde_json::json!({ "revision": revision.to_string(), "physical": true });
        let within = CALL_WITHIN + time_of(status.db_size.value());
        let ask = self.ask(within);
        let told = ask
            .json::<serde_json::Value>("/v3/kv/compaction", &body.to_string())
            .await;
        match told {
            Ok(_) => {}
            // What a run that was killed did already.
            Err(Silence::Failed(why) | Silence::Odd(why)) if why.contains("has been compacted") => {
            }
            Err(silence) => return Err(words(silence)),
        }
        let after = self.status().await?;
        Ok(format!(
            "to revision {revision}; {} in use, {} before",
            bytes(after.db_size_in_use.value()),
            bytes(status.db_size_in_use.value())
        ))
    }

    /// Gives back what was forgotten.
    ///
    /// # Errors
    /// It does not.
    pub(crate) async fn defrag(&self) -> Result<String, String> {
        let status = self.status().await?;
        self.may_be_worked_on(&status).await?;
        let before = status.db_size.value();
        let ask = self.ask(CALL_WITHIN + time_of(before));
        let told = ask
            .json::<serde_json::Value>("/v3/maintenance/defragment", "{}")
            .await;
        told.map_err(words)?;
        let after = self.status().await?.db_size.value();
        Ok(format!(
            "{} of file, {} before",
            bytes(after),
            bytes(before)
        ))
    }

    /// Takes writes again: lets the alarm NOSPACE of this member go. Those of others are theirs.
    ///
    /// # Errors
    /// It does not, or it comes back.
    pub(crate) async fn disarm(&self) -> Result<String, String> {
        let own = self.status().await?.header.member_id.value();
        let body = serde_json::json!({
            "action": "DEACTIVATE", "memberID": own.to_string(), "alarm": NO_SPACE
        });
        let ask = self.ask(CALL_WITHIN);
        let told = ask
            .json::<serde_json::Value>("/v3/maintenance/alarm", &body.to_string())
            .await;
        told.map_err(words)?;
        let left = ask
            .json::<Alarms>("/v3/maintenance/alarm", r#"{"action":"GET"}"#)
            .await
            .map_err(words)?;
        let is_own = |member: &Number| member.value() == own;
        let is_armed = |alarm: &super::Alarm| alarm.alarm == NO_SPACE;
        if left
            .alarms
            .iter()
            .any(|alarm| is_armed(alarm) && is_own(&alarm.member))
        {
            return Err("etcd says yes, and keeps the alarm NOSPACE".to_owned());
        }
        let others = left.alarms.iter().filter(|alarm| is_armed(alarm)).count();
        Ok(match others {
            0 => "no member has the alarm NOSPACE".to_owned(),
            others => {
                format!("this member has no alarm NOSPACE; {others} others have: run it on them")
            }
        })
    }
}

impl Ask<'_> {
    async fn streamed(
        &self,
        path: &str,
        piece: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), Silence> {
        let request = self.request(Method::POST, path, Some("{}".to_owned()))?;
        let ended = match self.open().await? {
            Opened::Plain(connection) => stream(connection, &request, self.deadline, piece).await,
            Opened::Tls(connection) => stream(*connection, &request, self.deadline, piece).await,
        };
        ended.map_err(|error| silent(&error, path))
    }
}

fn words(silence: Silence) -> String {
    match silence {
        Silence::Refused => "nobody listens where etcd should".to_owned(),
        Silence::Failed(why) | Silence::Odd(why) => why,
    }
}

const fn time_of(size: u64) -> Duration {
    Duration::from_secs(size / BYTES_PER_SECOND)
}

/// The data of one message.
fn blob(line: &[u8]) -> Result<Vec<u8>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let message: Message = serde_json::from_slice(line)
        .map_err(|error| format!("a message of the snapshot cannot be understood: {error}"))?;
    match (message.result, message.error) {
        (Some(piece), None) => STANDARD
            .decode(piece.blob)
            .map_err(|error| format!("a message of the snapshot is damaged: {error}")),
        (_, Some(error)) => Err(format!("etcd broke the snapshot off: {error}")),
        (None, None) => Err("a message of the snapshot is empty".to_owned()),
    }
}

/// The checksum at the end of a file is that of what comes before.
fn is_snapshot(path: &Path) -> std::io::Result<bool> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let Some(data) = length.checked_sub(TRAILER).filter(|data| *data > 0) else {
        return Ok(false);
    };
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut rest = (&file).take(data);
    loop {
        let count = rest.read(&mut piece)?;
        if count == 0 {
            break;
        }
        hash.update(piece.get(..count).unwrap_or_default());
    }
    let mut trailer = Vec::new();
    (&file).take(TRAILER).read_to_end(&mut trailer)?;
    Ok(hash.finalize().as_slice() == trailer)
}

/// Gives a file its name, which nothing may have yet.
fn put_in_place(part: &Path, file: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, part, CWD, file, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // NFS does not know that; a second name is not given where there is one.
        Err(rustix::io::Errno::INVAL) => {
            std::fs::hard_link(part, file)?;
            remove_own(part);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// The place takes a copy, on another filesystem than the store.
fn has_room(file: &Path, data_dir: &Path, size: u64) -> Result<(), String> {
    let place = file.parent().filter(|place| !place.as_os_str().is_empty());
    let place = place.unwrap_or(Path::new("."));
    let failed = |error: std::io::Error| format!("{}: {error}", place.display());
    let device = mounted::filesystem(place).map_err(failed)?;
    let store = mounted::filesystem(data_dir);
    let store = store.map_err(|error| format!("{}: {error}", data_dir.display()))?;
    let elsewhere = "name a place off this disk with --snapshot";
    if device == store {
        return Err(format!(
            "{} lies on the filesystem of the store itself: {elsewhere}",
            file.display()
        ));
    }
    let needed = u128::from(size) * DEFRAG_TENTHS / 10;
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    let stat = rustix::fs::statvfs(place).map_err(|error| failed(error.into()))?;
    let available = stat.f_bavail.saturating_mul(stat.f_frsize);
    if available < needed {
        return Err(format!(
            "a snapshot takes up to {}, and {} has {} available: {elsewhere}",
            bytes(needed),
            place.display(),
            bytes(available)
        ));
    }
    let is_memory = rustix::fs::statfs(place).is_ok_and(|stat| stat.f_type == TMPFS);
    if is_memory && memory_available().is_none_or(|memory| memory / 2 < needed) {
        return Err(format!(
            "a snapshot takes up to {}, which is more than half of the memory that is left, or that is not known: {elsewhere}",
            bytes(needed)
        ));
    }
    Ok(())
}

/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// What the kernel says that programs can still have.
fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[expect(
    clippy::disallowed_methods,
    reason = "it removes the part of a snapshot that this module wrote itself"
)]
fn remove_own(part: &Path) {
    // It may not have been made; then there is nothing to remove. One that stays is written over by the next run.
    drop(std::fs::remove_file(part));
}

#[cfg(test)]
mod tests;
