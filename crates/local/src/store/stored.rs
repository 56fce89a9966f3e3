//! The state file of a workload as it lies on the disk: a promise to our own next release.
//!
//! Reading back is strict: an unknown word or an impossible value is damage, not something to guess at.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use nagi_core::id::{RequestId, Uid, Version};
use nagi_core::intent::{
    Action, Actor, Asleep, Change, Intent, IntentUpdate, ScheduledWake, SleptBy,
};
use nagi_core::quantity::{Replicas, WakeCount};
use nagi_core::text::ReasonText;
use nagi_core::wake::{Learned, Stage};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Remembered;

/// Format of this file.
const FORMAT: u32 = 2;
/// The one before it: the whole file is one state, without a digest. It is read, and never written again.
const FORMAT_WITHOUT_DIGEST: u32 = 1;

/// A text with the digest that belongs to it, for tests of what else can be wrong.
#[cfg(test)]
pub(super) fn sealed_anew(text: &str) -> String {
    let read: Workload = serde_json::from_str(text).unwrap();
    let digest = read.seal();
    serde_json::to_string_pretty(&Workload { digest, ..read }).unwrap()
}

/// One slot of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Workload {
    format: u32,
    uid: String,
    version: u64,
    declared: u32,
    desired: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    remembered: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asleep_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asleep_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_scale_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduled: Option<Scheduled>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_awake_until: Option<String>,
    #[serde(default)]
    changes: Vec<StoredChange>,
    /// Milliseconds from entering a stage until ready.
    #[serde(default)]
    learned: BTreeMap<String, u64>,
    /// Since when the workload file does not name it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removed: Option<String>,
    /// Of everything before it: a write that was torn is not taken for a state.
    #[serde(default)]
    digest: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scheduled {
    at: String,
    actor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

/// One change, in the file of a workload and in the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredChange {
    time: String,
    action: String,
    actor: String,
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    from: u32,
    to: u32,
}

// === impl Workload ===

impl From<&Remembered> for Workload {
    fn from(state: &Remembered) -> Self {
        let Remembered {
            uid,
            version,
            declared,
            update,
            removed,
        } = state;
        let IntentUpdate { desired, intent } = update;
        let Intent {
            remembered,
            asleep,
            last_scale_time,
            scheduled,
            keep_awake_until,
            changes,
            learned,
        } = intent;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let unsealed = Self {
            format: FORMAT,
            uid: uid.as_str().to_owned(),
            version: version.number,
            declared: declared.0,
            desired: desired.0,
            remembered: remembered.map(|count| count.replicas().0),
            asleep_since: asleep.as_ref().map(|asleep| asleep.since.to_string()),
            asleep_by: asleep.as_ref().map(|asleep| asleep.by.to_string()),
            last_scale_time: last_scale_time.map(|time| time.to_string()),
            scheduled: scheduled.as_ref().map(Scheduled::from),
            keep_awake_until: keep_awake_until.map(|time| time.to_string()),
            changes: changes.iter().map(StoredChange::from).collect(),
            learned: learned
                .entries()
                .map(|(stage, time)| (stage.as_str().to_owned(), millis(time)))
                .collect(),
            removed: removed.map(|time| time.to_string()),
            digest: String::new(),
        };
        let digest = unsealed.seal();
        Self { digest, ..unsealed }
    }
}

impl Workload {
    /// The digest of all fields but itself: 64 bits, against torn writes and slips, not against malice.
    fn seal(&self) -> String {
        let parts = (
            (self.format, &self.uid, self.version, self.declared),
            (self.desired, self.remembered),
            (&self.asleep_since, &self.asleep_by, &self.last_scale_time),
            (&self.scheduled, &self.keep_awake_until),
            (&self.changes, &self.learned),
        );
        // Text, numbers and maps with text as keys always encode.
        let mut bytes = serde_json::to_vec(&parts).unwrap_or_default();
        // Nothing where there is nothing: so were files written before there was this field.
        bytes.extend(self.removed.iter().flat_map(|removed| removed.bytes()));
        let hash = Sha256::digest(&bytes);
        let beginning = hash.first_chunk().copied().unwrap_or_default();
        format!("{:016x}", u64::from_be_bytes(beginning))
    }
}

impl TryFrom<Workload> for Remembered {
    type Error = String;

    fn try_from(file: Workload) -> Result<Self, String> {
        let sealed = match file.format {
            FORMAT => file.digest == file.seal(),
            FORMAT_WITHOUT_DIGEST => file.digest.is_empty(),
            other => return Err(format!("format {other} instead of {FORMAT}")),
        };
        if !sealed {
            return Err("its digest does not match its content".to_owned());
        }
        let asleep = match (file.asleep_since, file.asleep_by) {
            (Some(since), Some(by)) => Some(Asleep {
                since: instant("asleep_since", &since)?,
                by: SleptBy::parse(&by).ok_or_else(|| unknown("asleep_by", &by))?,
            }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err("asleep_since and asleep_by belong together".to_owned());
            }
        };
        let remembered = (file.remembered)
            .map(|count| WakeCount::new(count).ok_or_else(|| unknown("remembered", "0")))
            .transpose()?;
        let learned = (file.learned.into_iter())
            .map(|(stage, millis)| {
                let stage = Stage::parse(&stage).ok_or_else(|| unknown("learned", &stage))?;
                Ok((stage, Duration::from_millis(millis)))
            })
            .collect::<Result<Vec<_>, String>>()?;
        let intent = Intent {
            remembered,
            asleep,
            last_scale_time: optional_instant("last_scale_time", file.last_scale_time)?,
            scheduled: file.scheduled.map(ScheduledWake::try_from).transpose()?,
            keep_awake_until: optional_instant("keep_awake_until", file.keep_awake_until)?,
            changes: file
                .changes
                .into_iter()
                .map(Change::try_from)
                .collect::<Result<_, _>>()?,
            learned: Learned::from_stored(learned),
        };
        Ok(Self {
            uid: Uid::new(file.uid),
            version: Version::new(file.version),
            declared: Replicas(file.declared),
            update: IntentUpdate {
                desired: Replicas(file.desired),
                intent,
            },
            removed: optional_instant("removed", file.removed)?,
        })
    }
}

// === impl Scheduled ===

impl From<&ScheduledWake> for Scheduled {
    fn from(wake: &ScheduledWake) -> Self {
        Self {
            at: wake.at.to_string(),
            actor: wake.actor.to_string(),
            request_id: wake.request_id.as_ref().map(ToString::to_string),
        }
    }
}

impl TryFrom<Scheduled> for ScheduledWake {
    type Error = String;

    fn try_from(stored: Scheduled) -> Result<Self, String> {
        Ok(Self {
            at: instant("scheduled.at", &stored.at)?,
            actor: actor(&stored.actor)?,
            request_id: request_id(stored.request_id)?,
        })
    }
}

// === impl StoredChange ===

impl From<&Change> for StoredChange {
    fn from(change: &Change) -> Self {
        Self {
            time: change.time.to_string(),
            action: change.action.to_string(),
            actor: change.actor.to_string(),
            reason: change.reason.to_string(),
            request_id: change.request_id.as_ref().map(ToString::to_string),
            from: change.from.0,
            to: change.to.0,
        }
    }
}

impl TryFrom<StoredChange> for Change {
    type Error = String;

    fn try_from(stored: StoredChange) -> Result<Self, String> {
        let action = &stored.action;
        Ok(Self {
            time: instant("change.time", &stored.time)?,
            action: Action::parse(action).ok_or_else(|| unknown("change.action", action))?,
            actor: actor(&stored.actor)?,
            reason: ReasonText::new(stored.reason)
                .map_err(|error| format!("change.reason {error}"))?,
            request_id: request_id(stored.request_id)?,
            from: Replicas(stored.from),
            to: Replicas(stored.to),
        })
    }
}

fn instant(field: &str, text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| unknown(field, text))
}

fn optional_instant(field: &str, text: Option<String>) -> Result<Option<Timestamp>, String> {
    text.map(|text| instant(field, &text)).transpose()
}

fn actor(text: &str) -> Result<Actor, String> {
    Actor::parse(text).ok_or_else(|| unknown("actor", text))
}

fn request_id(text: Option<String>) -> Result<Option<RequestId>, String> {
    text.map(|text| RequestId::accept(&text).ok_or_else(|| unknown("request_id", &text)))
        .transpose()
}

fn unknown(field: &str, text: &str) -> String {
    format!("{field} is {text:?}")
}
