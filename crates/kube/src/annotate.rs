//! What is remembered of a workload, as annotations of the object itself: a promise to our own next release.
//!
//! All of it goes into one update together with the count. Reading back never guesses: what cannot be read counts as not
//! there and is named, so that nobody wakes to a made-up count.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use nagi_core::id::{Host, RequestId};
use nagi_core::intent::{Action, Actor, Asleep, Change, Intent, ScheduledWake, SleptBy};
use nagi_core::quantity::{Replicas, WakeCount};
use nagi_core::release::Marks;
use nagi_core::text::ReasonText;
use nagi_core::wake::{Learned, Stage};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::names::{FORMAT, WRITTEN_BY_US, annotation};

/// What the annotations of one object say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Notes {
    pub(crate) intent: Intent,
    pub(crate) epoch: u64,
    pub(crate) awake_replicas: Option<WakeCount>,
    /// `None`: the default host.
    pub(crate) hosts: Option<Vec<Host>>,
    /// Annotations that cannot be read, and why not.
    pub(crate) unreadable: Vec<(&'static str, String)>,
    /// A format that this release does not know: nothing may be written over it.
    pub(crate) newer_format: bool,
    /// Some of it was written by us, and not by people.
    pub(crate) by_us: bool,
}

// === impl Notes ===

impl Notes {
    /// What there is of ours.
    pub(crate) fn marks(&self) -> Marks {
        let unreadable: Vec<&'static str> = self
            .unreadable
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| WRITTEN_BY_US.contains(name))
            .collect();
        if !self.by_us {
            Marks::None
        } else if self.newer_format {
            Marks::Newer
        } else if unreadable.is_empty() {
            Marks::Ours
        } else {
            Marks::Unreadable(unreadable)
        }
    }
}

/// A change as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct StoredChange {
    time: String,
    action: String,
    actor: String,
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    from: u32,
    to: u32,
}

/// Reads the annotations of ours; others are not in `annotations`.
pub(crate) fn read(annotations: &BTreeMap<Box<str>, Box<str>>) -> Notes {
    let mut reader = Reader {
        annotations,
        unreadable: Vec::new(),
    };
    let since = reader.get(annotation::ASLEEP_SINCE, instant);
    let by = reader.get(annotation::ASLEEP_BY, |text| {
        SleptBy::parse(text).ok_or("must be api, schedule or policy/NAMESPACE/NAME".into())
    });
    let intent = Intent {
        remembered: reader.get(annotation::REPLICAS, count),
        asleep: since.zip(by).map(|(since, by)| Asleep { since, by }),
        last_scale_time: reader.get(annotation::LAST_SCALE_TIME, instant),
        scheduled: reader.get(annotation::SCHEDULED_SCALE_UP, scheduled),
        keep_awake_until: reader.get(annotation::KEEP_AWAKE_UNTIL, instant),
        changes: reader.get(annotation::CHANGES, changes).unwrap_or_default(),
        learned: reader.get(annotation::LEARNED, learned).unwrap_or_default(),
    };
    let epoch = reader.get(annotation::EPOCH, |text| {
        let term: Option<i32> = text.parse().ok();
        let term = term.and_then(|term| u64::try_from(term).ok());
        // A term is counted in the Lease, as a number of 32 bits. What is none is no reason to follow it.
        term.ok_or_else(|| format!("must be a whole number from 0 to {}", i32::MAX))
    });
    let awake_replicas = reader.get(annotation::AWAKE_REPLICAS, count);
    let hosts = reader.get(annotation::HOSTS, hosts);
    let newer_format = annotations
        .get(annotation::FORMAT)
        .is_some_and(|format| **format != *FORMAT);
    let by_us = WRITTEN_BY_US
        .iter()
        .any(|name| annotations.contains_key(*name));
    Notes {
        by_us,
        intent,
        epoch: epoch.unwrap_or(0),
        awake_replicas,
        hosts,
        unreadable: reader.unreadable,
        newer_format,
    }
}

/// The annotations that hold `intent`, for a merge patch: what is not remembered is `null`, which removes it.
pub(crate) fn write(intent: &Intent, epoch: Option<u64>) -> Map<String, Value> {
    let Intent {
        remembered,
        asleep,
        last_scale_time,
        scheduled,
        keep_awake_until,
        changes,
        learned,
    } = intent;
    let time = |instant: Timestamp| instant.to_string();
    let last = changes.last();
    let mut map = Map::new();
    let mut put = |name: &str, value: Option<String>| {
        map.insert(name.to_owned(), value.map_or(Value::Null, Value::String));
    };
    put(annotation::FORMAT, Some(FORMAT.to_owned()));
    put(
        annotation::REPLICAS,
        remembered.map(|count| count.to_string()),
    );
    put(
        annotation::ASLEEP_SINCE,
        asleep.as_ref().map(|asleep| time(asleep.since)),
    );
    put(
        annotation::ASLEEP_BY,
        asleep.as_ref().map(|asleep| asleep.by.to_string()),
    );
    put(
        annotation::REASON,
        last.map(|change| change.reason.to_string()),
    );
    put(
        annotation::ACTOR,
        last.map(|change| change.actor.to_string()),
    );
    put(annotation::LAST_SCALE_TIME, last_scale_time.map(time));
    put(
        annotation::SCHEDULED_SCALE_UP,
        scheduled.as_ref().map(scheduled_text),
    );
    put(annotation::KEEP_AWAKE_UNTIL, keep_awake_until.map(time));
    put(annotation::CHANGES, changes_text(changes));
    put(annotation::LEARNED, learned_text(learned));
    if let Some(epoch) = epoch {
        put(annotation::EPOCH, Some(epoch.to_string()));
    }
    map
}

/// The annotations of a workload that we let go, for a merge patch: all of ours are removed.
pub(crate) fn erase() -> Map<String, Value> {
    WRITTEN_BY_US
        .iter()
        .map(|name| ((*name).to_owned(), Value::Null))
        .collect()
}

struct Reader<'a> {
    annotations: &'a BTreeMap<Box<str>, Box<str>>,
    unreadable: Vec<(&'static str, String)>,
}

impl Reader<'_> {
    fn get<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match read(self.annotations.get(name)?.trim()) {
            Ok(value) => Some(value),
            Err(why) => {
                self.unreadable.push((name, why));
                None
            }
        }
    }
}

fn instant(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|_| "must be RFC 3339 with a zone".to_owned())
}

fn count(text: &str) -> Result<WakeCount, String> {
    let count = text.parse().ok().and_then(WakeCount::new);
    count.ok_or_else(|| "must be a whole number from 1 on".to_owned())
}

fn hosts(text: &str) -> Result<Vec<Host>, String> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| {
            Host::new(part.to_ascii_lowercase()).map_err(|error| format!("{part:?} {error}"))
        })
        .collect()
}

fn scheduled(text: &str) -> Result<ScheduledWake, String> {
    let mut parts = text.split_ascii_whitespace();
    let at = instant(parts.next().unwrap_or_default())?;
    // An instant alone was written by a person.
    let actor = match parts.next() {
        None => Actor::Outside,
        Some(actor) => Actor::parse(actor).ok_or_else(|| format!("{actor:?} is no actor"))?,
    };
    let request_id = parts.next().and_then(RequestId::accept);
    Ok(ScheduledWake {
        at,
        actor,
        request_id,
    })
}

fn scheduled_text(wake: &ScheduledWake) -> String {
    let request_id = wake.request_id.as_ref().map(RequestId::as_str);
    let text = format!(
        "{} {} {}",
        wake.at,
        wake.actor,
        request_id.unwrap_or_default()
    );
    text.trim_end().to_owned()
}

/// Reads changes, from an object or an Event.
pub(crate) fn changes(text: &str) -> Result<Vec<Change>, String> {
    let stored: Vec<StoredChange> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    stored.into_iter().map(Change::try_from).collect()
}

/// Changes as they are stored; `None` for none.
pub(crate) fn changes_text(changes: &[Change]) -> Option<String> {
    let stored: Vec<StoredChange> = changes.iter().map(StoredChange::from).collect();
    (!stored.is_empty())
        .then(|| serde_json::to_string(&stored).expect("texts and numbers are JSON"))
}

fn learned(text: &str) -> Result<Learned, String> {
    let stored: BTreeMap<String, u64> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    let entries = stored.into_iter().map(|(stage, millis)| {
        let known = Stage::parse(&stage).ok_or_else(|| format!("{stage:?} is no stage"));
        known.map(|stage| (stage, Duration::from_millis(millis)))
    });
    entries
        .collect::<Result<Vec<_>, String>>()
        .map(Learned::from_stored)
}

fn learned_text(learned: &Learned) -> Option<String> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let stored: Map<String, Value> = learned
        .entries()
        .map(|(stage, time)| (stage.as_str().to_owned(), millis(time).into()))
        .collect();
    (!stored.is_empty()).then(|| Value::Object(stored).to_string())
}

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
        let unknown = |what: &str, text: &str| format!("{text:?} is no {what}");
        Ok(Self {
            time: instant(&stored.time)?,
            action: Action::parse(&stored.action)
                .ok_or_else(|| unknown("action", &stored.action))?,
            actor: Actor::parse(&stored.actor).ok_or_else(|| unknown("actor", &stored.actor))?,
            reason: ReasonText::new(stored.reason).map_err(|error| format!("reason {error}"))?,
            request_id: stored.request_id.as_deref().and_then(RequestId::accept),
            from: Replicas(stored.from),
            to: Replicas(stored.to),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noted(pairs: &[(&str, &str)]) -> Notes {
        let map = pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        read(&map.collect())
    }

    /// What an API server holds after a merge patch on an object without annotations.
    fn stored(intent: &Intent, epoch: Option<u64>) -> BTreeMap<Box<str>, Box<str>> {
        let entries = write(intent, epoch).into_iter();
        entries
            .filter_map(|(name, value)| Some((name.into(), value.as_str()?.into())))
            .collect()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn any_intent() -> impl Strategy<Value = Intent> {
        let time = || (0_i64..4_000_000_000).prop_map(at);
        let change = (time(), "\\PC{1,60}", 0_u32..9, 0_u32..9).prop_filter_map(
            "a reason that is none",
            |(time, reason, from, to)| {
                Some(Change {
                    time,
                    action: Action::ScaleToZero,
                    actor: Actor::Anonymous,
                    reason: ReasonText::new(reason).ok()?,
                    request_id: RequestId::accept("r-1"),
                    from: Replicas(from),
                    to: Replicas(to),
                })
            },
        );
        let asleep = (time(), "[a-z]{1,8}/[a-z]{1,8}").prop_map(|(since, name)| Asleep {
            since,
            by: SleptBy::Policy(name),
        });
        let wake = time().prop_map(|at| ScheduledWake {
            at,
            actor: Actor::parse("key/ops").unwrap(),
            request_id: RequestId::accept("a:b/c"),
        });
        let learned = prop::collection::vec((0_usize..8, 0_u64..1_000_000), 0..4);
        (
            prop::option::of(1_u32..1000),
            prop::option::of(asleep),
            prop::option::of(time()),
            prop::option::of(wake),
            prop::option::of(time()),
            prop::collection::vec(change, 0..=5),
            learned,
        )
            .prop_map(
                |(count, asleep, last, scheduled, keep, changes, learned)| Intent {
                    remembered: count.and_then(WakeCount::new),
                    asleep,
                    last_scale_time: last,
                    scheduled,
                    keep_awake_until: keep,
                    changes,
                    learned: Learned::from_stored(
                        learned.into_iter().map(|(stage, millis)| {
                            (Stage::ALL[stage], Duration::from_millis(millis))
                        }),
                    ),
                },
            )
    }

    proptest! {
        // Invariant 7
        #[test]
        fn what_was_written_reads_back_as_it_was(intent in any_intent(), epoch in 1_u64..1000) {
            let notes = read(&stored(&intent, Some(epoch)));
            prop_assert_eq!(&notes.intent, &intent);
            prop_assert_eq!(notes.epoch, epoch);
            prop_assert_eq!(&notes.unreadable, &vec![]);
        }

        #[test]
        fn no_annotation_of_any_text_panics_or_makes_a_count_up(text in "\\PC{0,80}") {
            let notes = noted(&[
                (annotation::REPLICAS, &text), (annotation::CHANGES, &text), (annotation::LEARNED, &text),
                (annotation::SCHEDULED_SCALE_UP, &text), (annotation::HOSTS, &text),
            ]);
            if notes.intent.remembered.is_some() {
                prop_assert!(text.trim().parse::<u32>().is_ok_and(|count| count > 0));
            }
        }
    }

    #[test]
    fn a_count_of_zero_is_named_and_not_taken() {
        let notes = noted(&[
            (annotation::REPLICAS, "0"),
            (annotation::AWAKE_REPLICAS, "-1"),
        ]);
        assert_eq!(
            (notes.intent.remembered, notes.awake_replicas),
            (None, None)
        );
        let named: Vec<_> = notes.unreadable.iter().map(|(name, _)| *name).collect();
        assert_eq!(named, [annotation::REPLICAS, annotation::AWAKE_REPLICAS]);
    }

    #[test]
    fn what_people_write_is_read() {
        let notes = noted(&[
            (annotation::AWAKE_REPLICAS, "3"),
            (annotation::HOSTS, "A.example.com, b.example.com"),
            (annotation::SCHEDULED_SCALE_UP, "2030-01-31T07:00:00+09:00"),
        ]);
        assert_eq!(notes.awake_replicas, WakeCount::new(3));
        let hosts: Vec<_> = notes.hosts.iter().flatten().map(Host::as_str).collect();
        assert_eq!(hosts, ["a.example.com", "b.example.com"]);
        let scheduled = notes.intent.scheduled.unwrap();
        assert_eq!(scheduled.at.to_string(), "2030-01-30T22:00:00Z");
        assert_eq!(scheduled.actor, Actor::Outside);
    }

    // Whatever is written is also taken away, and nothing else.
    #[test]
    fn what_is_erased_is_what_is_written() {
        let written: Vec<String> = write(&Intent::default(), Some(1)).keys().cloned().collect();
        let erased: Vec<String> = erase().keys().cloned().collect();
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        assert_eq!(sorted(written), sorted(erased));
        assert!(erase().values().all(Value::is_null));
    }

    #[test]
    fn marks_tell_ours_from_those_of_people() {
        assert_eq!(noted(&[]).marks(), Marks::None);
        let of_people = [
            (annotation::AWAKE_REPLICAS, "many"),
            (annotation::HOSTS, "a.example.com"),
        ];
        assert_eq!(noted(&of_people).marks(), Marks::None);
        let mut both = of_people.to_vec();
        both.push((annotation::EPOCH, "3"));
        assert_eq!(noted(&both).marks(), Marks::Ours);
        both.push((annotation::REPLICAS, "0"));
        assert_eq!(
            noted(&both).marks(),
            Marks::Unreadable(vec![annotation::REPLICAS])
        );
        both.push((annotation::FORMAT, "2"));
        assert_eq!(noted(&both).marks(), Marks::Newer);
    }

    #[test]
    fn a_newer_format_is_told() {
        assert!(!noted(&[(annotation::FORMAT, "1")]).newer_format);
        assert!(!noted(&[]).newer_format);
        assert!(noted(&[(annotation::FORMAT, "2")]).newer_format);
    }
}
