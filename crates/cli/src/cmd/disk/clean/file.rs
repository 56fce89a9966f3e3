//! A plan as a file: exactly what is carried out, so that it is read back to the same digest.
//!
//! A path that is no UTF-8 has its odd bytes as `\xHH`, and all its bytes in `path_hex`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nagi_guard::{
    Blocks, Consent, Device, Digest, Instant, Item, JournalMode, Owned, Plan, Policy, Reclaimer,
    Step, Tally,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::super::body::shown;

/// Of a plan file. Another number is another format.
const FORMAT: u32 = 3;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanBody {
    format: u32,
    digest: String,
    /// Of the digest and the moment: neither can be changed alone.
    seal: String,
    at: InstantBody,
    rules: PolicyBody,
    steps: Vec<StepBody>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyBody {
    root: PathBody,
    only: Vec<String>,
    lossy: bool,
    target_percent: u8,
    bytes_max: Option<u64>,
    grace: SpanBody,
    quiet: SpanBody,
    keep: Vec<PathBody>,
    keep_images: Vec<String>,
    journal_compat: bool,
    journal_keep: Option<SpanBody>,
    journal_bytes_max: Option<u64>,
    journal_files_max: Option<u64>,
    deadline: SpanBody,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepBody {
    kind: String,
    directory: PathBody,
    disk: String,
    consent: bool,
    items: Vec<ItemBody>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemBody {
    file: PathBody,
    device: String,
    inode: u64,
    size: u64,
    /// Of 512 bytes.
    blocks: u64,
    modified: InstantBody,
    links: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owned: Option<OwnedBody>,
}

/// An image or a container, which only its runtime removes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnedBody {
    names: Vec<String>,
    inodes: u64,
    /// What comes back is told by the runtime; otherwise nobody knows, and 0 stands here.
    measured: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InstantBody {
    seconds: i64,
    nanoseconds: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpanBody {
    seconds: u64,
    nanoseconds: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PathBody {
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

/// Why a file is no plan.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    /// It is no JSON, or not of this form.
    #[error("it is not what --output json writes")]
    Json(#[from] serde_json::Error),
    /// Another version wrote it.
    #[error("its format is {0}, and this nagi reads {FORMAT}")]
    Format(u32),
    /// It is one, and something in it was changed by hand.
    #[error("its digest or its seal is another one: it was edited")]
    Edited,
    /// A value that no plan has.
    #[error("{field} cannot be {value:?}")]
    Value { field: &'static str, value: String },
}

// === impl PlanBody ===

impl PlanBody {
    pub(super) fn of(plan: &Plan) -> Self {
        let rules = &plan.policy;
        Self {
            format: FORMAT,
            digest: plan.digest().to_string(),
            seal: plan.seal().to_string(),
            at: InstantBody::of(plan.at),
            rules: PolicyBody {
                root: PathBody::of(&rules.root),
                only: rules
                    .only
                    .iter()
                    .map(|kind| kind.name().to_owned())
                    .collect(),
                lossy: rules.consent == Consent::Lossy,
                target_percent: rules.target_percent,
                bytes_max: rules.bytes_max,
                grace: SpanBody::of(rules.grace),
                quiet: SpanBody::of(rules.quiet),
                keep: rules.keep.iter().map(|path| PathBody::of(path)).collect(),
                keep_images: rules.keep_images.clone(),
                journal_compat: rules.journal_mode == JournalMode::Compat,
                journal_keep: rules.journal_keep.map(SpanBody::of),
                journal_bytes_max: rules.journal_bytes_max,
                journal_files_max: rules.journal_files_max,
                deadline: SpanBody::of(rules.deadline),
            },
            steps: plan.steps.iter().map(StepBody::of).collect(),
        }
    }

    fn plan(self) -> Result<Plan, ReadError> {
        if self.format != FORMAT {
            return Err(ReadError::Format(self.format));
        }
        let rules = self.rules;
        let paths = |paths: Vec<PathBody>| {
            paths
                .into_iter()
                .map(PathBody::path)
                .collect::<Result<Vec<_>, _>>()
        };
        let only = rules.only.into_iter().map(|name| kind(&name));
        let policy = Policy {
            root: rules.root.path()?,
            only: only.collect::<Result<_, _>>()?,
            consent: if rules.lossy {
                Consent::Lossy
            } else {
                Consent::Regenerable
            },
            target_percent: rules.target_percent,
            bytes_max: rules.bytes_max,
            grace: rules.grace.span("grace")?,
            quiet: rules.quiet.span("quiet")?,
            keep: paths(rules.keep)?,
            keep_images: rules.keep_images,
            journal_mode: if rules.journal_compat {
                JournalMode::Compat
            } else {
                JournalMode::Strict
            },
            journal_keep: rules
                .journal_keep
                .map(|span| span.span("journal_keep"))
                .transpose()?,
            journal_bytes_max: rules.journal_bytes_max,
            journal_files_max: rules.journal_files_max,
            deadline: rules.deadline.span("deadline")?,
        };
        let steps = self.steps.into_iter().map(StepBody::step);
        Ok(Plan {
            at: self.at.instant(),
            policy,
            steps: steps.collect::<Result<_, _>>()?,
            disks: Vec::new(),
            skipped: Vec::new(),
            left: Vec::new(),
        })
    }
}

impl StepBody {
    fn of(step: &Step) -> Self {
        let items = step.items.iter().map(|item| ItemBody {
            file: PathBody::of(Path::new(std::ffi::OsStr::from_bytes(&item.path))),
            device: item.device.to_string(),
            inode: item.inode,
            size: item.size,
            blocks: item.blocks.0,
            modified: InstantBody::of(item.written),
            links: item.links,
            owned: item.owned.as_ref().map(|owned| OwnedBody {
                names: owned.names.clone(),
                inodes: owned.inodes,
                measured: owned.is_measured,
            }),
        });
        Self {
            kind: step.reclaimer.name().to_owned(),
            directory: PathBody::of(&step.directory),
            disk: step.disk.to_string(),
            consent: step.has_consent,
            items: items.collect(),
        }
    }

    fn step(self) -> Result<Step, ReadError> {
        let items = self.items.into_iter().map(|item| {
            Ok(Item {
                path: item.file.path()?.into_os_string().into_vec(),
                device: device(&item.device)?,
                inode: item.inode,
                size: item.size,
                blocks: Blocks(item.blocks),
                written: item.modified.instant(),
                links: item.links,
                owned: item.owned.map(|owned| Owned {
                    names: owned.names,
                    inodes: owned.inodes,
                    is_measured: owned.measured,
                }),
            })
        });
        Ok(Step {
            reclaimer: kind(&self.kind)?,
            directory: self.directory.path()?,
            disk: device(&self.disk)?,
            has_consent: self.consent,
            items: items.collect::<Result<_, ReadError>>()?,
            spared: Tally::default(),
            kept: Vec::new(),
        })
    }
}

/// Reads a plan back.
///
/// # Errors
/// It is none, is of another format, or was edited.
pub(super) fn read(text: &[u8]) -> Result<Plan, ReadError> {
    let mut whole: Value = serde_json::from_slice(text)?;
    let body: PlanBody = match whole.get_mut("plan") {
        Some(plan) => serde_json::from_value(plan.take())?,
        None => serde_json::from_value(whole)?,
    };
    let (digest, seal) = (body.digest.clone(), body.seal.clone());
    let plan = body.plan()?;
    let is_as_written =
        Digest::parse(&digest) == Some(plan.digest()) && Digest::parse(&seal) == Some(plan.seal());
    if is_as_written {
        Ok(plan)
    } else {
        Err(ReadError::Edited)
    }
}

fn kind(name: &str) -> Result<Reclaimer, ReadError> {
    Reclaimer::named(name).ok_or_else(|| ReadError::Value {
        field: "kind",
        value: name.to_owned(),
    })
}

fn device(text: &str) -> Result<Device, ReadError> {
    let parsed = text.split_once(':').and_then(|(major, minor)| {
        Some(Device {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    });
    parsed.ok_or_else(|| ReadError::Value {
        field: "device",
        value: text.to_owned(),
    })
}

// === impl InstantBody ===

impl InstantBody {
    fn of(at: Instant) -> Self {
        Self {
            seconds: at.seconds,
            nanoseconds: at.nanoseconds,
        }
    }

    fn instant(&self) -> Instant {
        Instant {
            seconds: self.seconds,
            nanoseconds: self.nanoseconds,
        }
    }
}

// === impl SpanBody ===

impl SpanBody {
    fn of(span: Duration) -> Self {
        Self {
            seconds: span.as_secs(),
            nanoseconds: span.subsec_nanos(),
        }
    }

    fn span(&self, field: &'static str) -> Result<Duration, ReadError> {
        if self.nanoseconds >= 1_000_000_000 {
            // More would run over into the seconds.
            let value = self.nanoseconds.to_string();
            return Err(ReadError::Value { field, value });
        }
        Ok(Duration::new(self.seconds, self.nanoseconds))
    }
}

// === impl PathBody ===

impl PathBody {
    pub(super) fn of(path: &Path) -> Self {
        let hex = path
            .as_os_str()
            .as_bytes()
            .iter()
            .fold(String::new(), |mut text, byte| {
                // Writing to a string cannot fail.
                write!(text, "{byte:02x}").unwrap_or(());
                text
            });
        Self {
            path: shown(path),
            path_hex: path.to_str().is_none().then_some(hex),
        }
    }

    fn path(self) -> Result<PathBuf, ReadError> {
        let Some(hex) = self.path_hex else {
            return Ok(PathBuf::from(self.path));
        };
        let pairs = hex.as_bytes().chunks(2).map(|pair| {
            let text = std::str::from_utf8(pair)
                .ok()
                .filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(text, 16).ok()
        });
        let bytes: Option<Vec<u8>> = pairs.collect();
        let path = bytes.map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
        // What a person reads is what is meant.
        path.filter(|path| shown(path) == self.path)
            .ok_or(ReadError::Value {
                field: "path_hex",
                value: hex,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let mut policy = Policy::at(Path::new("/host"));
        policy.only = vec![Reclaimer::PodLogs];
        policy.consent = Consent::Lossy;
        policy.bytes_max = Some(5);
        policy.grace = Duration::new(1, 5);
        policy.keep = vec![PathBuf::from("/var/log/pods/a_b_c")];
        policy.journal_mode = JournalMode::Compat;
        policy.journal_keep = None;
        policy.journal_files_max = Some(3);
        let item = |path: &[u8]| Item {
            path: path.to_vec(),
            device: Device { major: 8, minor: 1 },
            inode: u64::MAX,
            size: 1,
            blocks: Blocks(8),
            written: Instant {
                seconds: -5,
                nanoseconds: 999_999_999,
            },
            links: 1,
            owned: Some(Owned {
                names: vec!["registry.example/app:1".to_owned()],
                inodes: 7,
                is_measured: true,
            }),
        };
        Plan {
            at: Instant {
                seconds: 1_700_000_000,
                nanoseconds: 1,
            },
            policy,
            steps: vec![Step {
                reclaimer: Reclaimer::PodLogs,
                directory: PathBuf::from("/var/log/pods"),
                disk: Device { major: 8, minor: 1 },
                has_consent: true,
                items: vec![item(b"a_b\xff_c/d/0.log.20260102-030405"), item(b"x\n\"")],
                spared: Tally::default(),
                kept: Vec::new(),
            }],
            disks: Vec::new(),
            skipped: Vec::new(),
            left: Vec::new(),
        }
    }

    fn written() -> Value {
        serde_json::json!({ "status": "planned", "plan": PlanBody::of(&plan()) })
    }

    // D-13: a plan that is written and read is the same plan, whatever its names are.
    #[test]
    fn a_plan_file_is_read_back_to_the_same_plan() {
        let text = written().to_string();
        let read = read(text.as_bytes()).unwrap();
        assert_eq!(read, plan());
        assert!(
            text.contains("a_b\\\\xff_c"),
            "and people can read it: {text}"
        );
    }

    // D-13: every edit is noticed, or is refused as no plan.
    #[test]
    fn an_edited_plan_file_is_refused() {
        let edits: [(&str, Value); 19] = [
            ("/plan/steps/0/items/0/inode", 7.into()),
            ("/plan/steps/0/items/1/file/path", "etc/passwd".into()),
            ("/plan/steps/0/items/0/file/path_hex", "2f".into()),
            ("/plan/steps/0/items/0/file/path", "something else".into()),
            ("/plan/steps/0/directory/path", "/etc".into()),
            ("/plan/steps/0/kind", "apt".into()),
            ("/plan/steps/0/kind", "everything".into()),
            ("/plan/steps/0/items/0/owned/names/0", "x".into()),
            ("/plan/steps/0/items/0/owned", Value::Null),
            ("/plan/rules/quiet/seconds", 0.into()),
            ("/plan/rules/lossy", false.into()),
            ("/plan/rules/target_percent", 0.into()),
            ("/plan/rules/grace/seconds", 0.into()),
            ("/plan/digest", "0".repeat(64).into()),
            ("/plan/format", 1.into()),
            // Otherwise an old plan could be made young.
            ("/plan/at/seconds", 1_700_000_001.into()),
            ("/plan/at/seconds", 1_699_999_999.into()),
            ("/plan/at/nanoseconds", 2.into()),
            ("/plan/seal", "0".repeat(64).into()),
        ];
        for (place, value) in edits {
            let mut edited = written();
            *edited.pointer_mut(place).unwrap() = value;
            let read = read(edited.to_string().as_bytes());
            assert!(read.is_err(), "{place}");
        }
        let mut more = written();
        more["plan"]["also"] = 1.into();
        assert!(read(more.to_string().as_bytes()).is_err());
        assert!(read(b"{}").is_err() && read(b"").is_err() && read(b"[]").is_err());
    }
}
